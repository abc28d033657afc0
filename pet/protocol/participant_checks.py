"""What a participant checks before it works: its own options, models and scalars, and what a coordinator announces.

A coordinator decides how much memory and time a participant spends, so everything it announces is bounded here first. Pure
functions; they know no state and no request.

Source: docs/spec/pet.md 3.4 (the bound of a scalar), 5.3, 5.4.
"""

from __future__ import annotations

import functools
from collections.abc import KeysView
from fractions import Fraction
from typing import Any, Final

from numpy.typing import NDArray

from pet import crypto
from pet.crypto import SigningKeyPair
from pet.errors import ConfigError, ModelError, RemoteProtocolError
from pet.masking import validate_weights
from pet.messages import (
    ENCRYPTED_SEED_BYTES,
    MIN_MAX_MESSAGE_SIZE,
    RoundParameters,
    decode_seed_dictionary,
    decode_sum_dictionary,
)
from pet.messages.parameters import MAX_MODEL_LENGTH

#: The largest masked vector that a participant makes without being asked for more: a coordinator announces the length, and a
#: participant holds such a vector twice (masked, and sealed), beside the model. 179 million weights of the default config.
MAX_VECTOR_BYTES: Final = 1 << 30
#: The largest sum dictionary, of 2^20 entries: an update holds 112 bytes, and takes some 50 us, for each of them.
MAX_SUMS_BYTES: Final = 8 + 80 * (1 << 20)
#: An entry of a published seed dictionary: two lengths, a public key, an encrypted seed (spec 5.5), after a count.
_SEED_ENTRY_BYTES: Final = 8 + 32 + 8 + ENCRYPTED_SEED_BYTES
_COUNT_BYTES: Final = 8
#: The size of chunks after a message was refused for its size: below the limits in common use, and few for a large model.
_SPLIT_BYTES: Final = 1 << 18
#: A smaller message that is refused for its size meets a limit that no chunk could pass.
_MIN_SPLIT_BYTES: Final = 1 << 13


def require_options(
    signing_key: object, max_message_size: object, on_clip: object, max_model_length: object, ephemeral_seed: object
) -> None:
    """Check what a participant is made with.

    Raises:
        ConfigError: an argument is out of range.
    """
    if not isinstance(signing_key, SigningKeyPair):
        raise ConfigError(f"signing_key: expected a SigningKeyPair, got {type(signing_key).__name__}")
    if max_message_size is not None and not (isinstance(max_message_size, int) and max_message_size >= MIN_MAX_MESSAGE_SIZE):
        raise ConfigError(f"max_message_size: expected {MIN_MAX_MESSAGE_SIZE} or more, or None, got {max_message_size!r}")
    if ephemeral_seed is not None and not (isinstance(ephemeral_seed, bytes) and len(ephemeral_seed) == crypto.KEY_SEED_BYTES):
        raise ConfigError(f"ephemeral_seed: expected {crypto.KEY_SEED_BYTES} bytes, or None, got something else")
    require_policies(on_clip, max_model_length)


def require_policies(on_clip: object, max_model_length: object) -> None:
    """Check what a participant is made, or restored, with.

    Raises:
        ConfigError: an argument is out of range.
    """
    if on_clip not in ("count", "raise"):
        raise ConfigError(f"on_clip: expected 'count' or 'raise', got {on_clip!r}")
    if max_model_length is not None and not (isinstance(max_model_length, int) and 0 <= max_model_length <= MAX_MODEL_LENGTH):
        raise ConfigError(
            f"max_model_length: expected a whole number up to {MAX_MODEL_LENGTH}, or None, got {max_model_length!r}"
        )


def require_fit(model: NDArray[Any], parameters: RoundParameters) -> None:
    """Check a model against the round parameters.

    Raises:
        ModelError: the dtype or the length differ.
    """
    validate_weights(model, parameters.mask_config.vect)
    if len(model) != parameters.model_length:
        raise ModelError(f"model: expected {parameters.model_length} weights, got {len(model)}")


def read_parameters(answer: bytes | None, max_model_length: int | None) -> RoundParameters:
    """Read round parameters, and refuse those that nothing should be computed for.

    Args:
        answer: as it came.
        max_model_length: longest model to take part with; None means that a masked vector has at most MAX_VECTOR_BYTES.

    Raises:
        RemoteProtocolError: no parameters (reasons as in `RoundParameters.from_bytes`), "model_too_long", "low_order_key".
    """
    if answer is None:
        raise RemoteProtocolError("malformed_parameters", "round parameters: expected 136 bytes, got no content")
    parameters = _parse_parameters(bytes(answer))
    element_bytes = parameters.mask_config.vect.element_bytes
    most = MAX_VECTOR_BYTES // element_bytes if max_model_length is None else max_model_length
    if parameters.model_length > most:
        raise RemoteProtocolError(
            "model_too_long",
            f"round parameters: expected models of at most {most} weights (max_model_length), got {parameters.model_length}"
            f" of {element_bytes} bytes each when masked",
        )
    return parameters


@functools.lru_cache(maxsize=8)
def _parse_parameters(answer: bytes) -> RoundParameters:
    """Parse round parameters and check the key.

    A participant asks for them every few seconds and gets the same answer until the next round, and a test driver has
    thousands of participants: the check of the key costs a scalar multiplication.

    Raises:
        RemoteProtocolError: as in `read_parameters`.
    """
    parameters = RoundParameters.from_bytes(answer)
    if crypto.is_low_order(parameters.coordinator_public_key):
        raise RemoteProtocolError("low_order_key", "coordinator key: expected one that can be sealed for, got low order")
    return parameters


def read_sums(answer: bytes) -> dict[bytes, bytes]:
    """Read the sum dictionary: one entry or more, and no more than an update can be made for.

    Raises:
        RemoteProtocolError: none (reasons as in `decode_sum_dictionary`), an empty one, "too_many_sums".
    """
    if len(answer) > MAX_SUMS_BYTES:  # before it is taken apart
        raise RemoteProtocolError(
            "too_many_sums", f"sum dictionary: expected at most {MAX_SUMS_BYTES} bytes, got {len(answer)}"
        )
    sum_dictionary = decode_sum_dictionary(answer)
    if not sum_dictionary:
        raise RemoteProtocolError("malformed_sums", "sum dictionary: expected at least one sum participant, got none")
    return sum_dictionary


def read_seed_holders(answer: bytes, parameters: RoundParameters) -> KeysView[bytes]:
    """Read whose seeds a seed dictionary has: the signing keys of the participants whose updates count.

    Raises:
        RemoteProtocolError: no seed dictionary (reasons as in `decode_seed_dictionary`), "too_many_seeds".
    """
    most = parameters.mask_config.max_model_count
    if len(answer) > _COUNT_BYTES + most * _SEED_ENTRY_BYTES:  # before it is taken apart
        raise RemoteProtocolError("too_many_seeds", f"seed dictionary: expected at most {most} seeds, got {len(answer)} bytes")
    return decode_seed_dictionary(answer).keys()


def require_bounded_scalar(scalar: Fraction, parameters: RoundParameters) -> None:
    """Check that the mask config of a round can hold a scalar; a larger one would count for less than it says (spec 3.4).

    Raises:
        ModelError: it is beyond the bound.
    """
    config = parameters.mask_config.unit
    if scalar > config.add_shift:
        raise ModelError(
            f"scalar: expected at most {_shown(config.add_shift)}, the bound of {config}, got {_shown(scalar)}; divide the"
            " scalars of all participants by the same number, which leaves their mean as it is, or choose a mask config with"
            " a larger bound (pet config advise)"
        )


def smaller_message_size(size_bytes: int) -> int | None:
    """Return a bound on messages after one of a size was refused for it; None where smaller ones would not help."""
    return min(_SPLIT_BYTES, size_bytes // 2) if size_bytes >= _MIN_SPLIT_BYTES else None


def _shown(number: Fraction | int) -> str:
    """Return a number for people; an integer of a thousand digits is no help to them."""
    if number.denominator == 1 and number < 10**9:
        return str(number)
    try:
        return f"{float(number):g}"
    except OverflowError:
        return "more than 10^308"
