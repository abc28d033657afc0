"""pet beside homomorphic encryption as federated learning uses it: CKKS of TenSEAL (SEAL), weights encrypted, added, decrypted.

The parameters are those that federated learning frameworks use with TenSEAL: polynomials of degree 8192, a modulus of 60 + 40 +
40 bits, a scale of 2^40. For that degree the HomomorphicEncryption.org standard allows 218 bits at 128-bit security, so 140 are
within it; deeper chains, for multiplications that averaging does not need, would make the peer slower and its messages longer.

What is counted is friendly to the peer: weights are ready as Python lists, in pieces that fill one ciphertext, and neither
serialising nor reading ciphertexts is timed. The holder of the secret key can decrypt every single update; PET has no such key:
there sum participants add masks instead, which the last comparison counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from pet.aggregation import Aggregation
from pet.commands.bench_comparison import (
    CONFIG,
    TURNS,
    Comparison,
    distribution_name,
    elapsed_ns,
    in_turns,
    random_weights,
)
from pet.mask_object import MaskedModel, MaskSeed, sum_masks
from pet.masking import mask_model

TENSEAL: Final = "tenseal"
POLYNOMIAL_DEGREE: Final = 8192
MODULUS_BITS: Final = (60, 40, 40)
SCALE_BITS: Final = 40
#: Weights that fit one ciphertext.
_SLOTS: Final = POLYNOMIAL_DEGREE // 2


class _Ckks:
    """The peer's side: a sum of encrypted models, as a list of ciphertexts."""

    def __init__(self, first: Sequence[list[float]]) -> None:
        import tenseal

        self._new_vector = tenseal.ckks_vector
        context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS,
            poly_modulus_degree=POLYNOMIAL_DEGREE,
            coeff_mod_bit_sizes=list(MODULUS_BITS),
            n_threads=1,
        )
        context.global_scale = 2**SCALE_BITS
        self._secret_key = context.secret_key()
        self._public = context.copy()
        self._public.make_context_public()  # participants and server encrypt and add with the public key alone
        self.encrypted: list[Any] = []
        self.total: list[Any] = [self._new_vector(self._public, piece) for piece in first]

    def encrypt(self, pieces: Sequence[list[float]]) -> None:
        self.encrypted = [self._new_vector(self._public, piece) for piece in pieces]

    def add(self) -> None:
        for total, addend in zip(self.total, self.encrypted, strict=True):
            total.add_(addend)

    def decrypt(self) -> list[float]:
        return [value for vector in self.total for value in vector.decrypt(self._secret_key)]

    def size_bytes(self) -> int:
        """Return the bytes of the last update as it is sent."""
        return sum(len(vector.serialize()) for vector in self.encrypted)


class _Masks:
    """Our side: a total of masked models, and the seeds that the sum participant gets."""

    def __init__(self, first: np.ndarray[Any, Any]) -> None:
        self.length: Final = len(first)
        self.seeds: list[MaskSeed] = []
        self.masked: MaskedModel | None = None
        self.total: Final = Aggregation(CONFIG, self.length)
        self.mask(first)
        self.add()

    def mask(self, weights: np.ndarray[Any, Any]) -> None:
        seed, self.masked = mask_model(weights, CONFIG, threads=1)
        self.seeds.append(seed)

    def add(self) -> None:
        assert self.masked is not None, "a model is masked before it is added"
        self.total.add(self.masked, threads=1)

    def sum_masks(self) -> Any:
        return sum_masks(self.seeds, CONFIG, self.length, threads=1)

    def unmask(self, mask: Any, dtype: Any = None) -> np.ndarray[Any, Any]:
        return self.total.unmask(mask).to_array(dtype, threads=1)

    def size_bytes(self) -> int:
        assert self.masked is not None, "a model is masked before it is sent"
        return len(self.masked.to_bytes())


def compare(length: int) -> Iterator[Comparison]:
    """Encrypt, add and decrypt beside masking, aggregating and unmasking, with other weights in every turn.

    Args:
        length: weights of the model, at least 1.
    """
    models = [random_weights(length, seed) for seed in range(TURNS + 1)]
    theirs, ours = _Ckks(_pieces(models[0])), _Masks(models[0])
    encrypting, adding = [], []
    for model in models[1:]:
        pieces = _pieces(model)
        encrypting.append((elapsed_ns(lambda: theirs.encrypt(pieces)), elapsed_ns(lambda: ours.mask(model))))  # noqa: B023
        adding.append((elapsed_ns(theirs.add), elapsed_ns(ours.add)))
    mask = ours.sum_masks()
    sizes = {"peer_bytes": theirs.size_bytes() / length, "pet_bytes": ours.size_bytes() / length}
    yield _comparison("encrypt an update (pet: mask it)", length, _medians(encrypting), **sizes)
    yield _comparison("add an encrypted update (pet: a masked one)", length, _medians(adding))
    errors = _errors(models, np.array(theirs.decrypt()), ours.unmask(mask, np.dtype(np.float64)))
    yield _comparison("decrypt the sum (pet: unmask it)", length, in_turns(theirs.decrypt, lambda: ours.unmask(mask)), **errors)
    both = in_turns(theirs.decrypt, lambda: ours.unmask(ours.sum_masks()))
    yield _comparison(f"decrypt the sum (pet: add {len(models)} masks and unmask it)", length, both)


def _pieces(weights: np.ndarray[Any, Any]) -> list[list[float]]:
    return [weights[start : start + _SLOTS].tolist() for start in range(0, len(weights), _SLOTS)]


def _medians(pairs: Sequence[tuple[int, int]]) -> tuple[float, float]:
    theirs, ours = np.median(np.array(pairs), axis=0)
    return float(theirs), float(ours)


def _errors(
    models: Sequence[np.ndarray[Any, Any]], decrypted_sum: np.ndarray[Any, Any], mean: np.ndarray[Any, Any]
) -> dict[str, float]:
    """Return the largest error of a weight of the mean on both sides, both as float64."""
    exact = np.mean(np.array(models, dtype=np.float64), axis=0)
    return {
        "peer_error": float(np.max(np.abs(decrypted_sum / len(models) - exact))),
        "pet_error": float(np.max(np.abs(mean - exact))),
    }


def _comparison(what: str, length: int, nanoseconds: tuple[float, float], **more: float) -> Comparison:
    theirs, ours = nanoseconds
    return Comparison(
        peer=distribution_name(TENSEAL), what=what, length=length, peer_ns=theirs / length, pet_ns=ours / length, **more
    )
