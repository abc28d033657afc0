"""Who a node is, and what it has signed: files where its operator names them, else Flower's state of the run.

A node config (`flower-supernode --node-config`) may say:

    pet-identity="/path/of/key"      a key file as `pet key new` writes it; its state is kept beside it
    pet-authority="64 hex digits"    the public key that signs enrolments
    pet-enrolment="64 hex digits"    the digest of the one enrolment that is accepted

Without a pinned authority or enrolment, the first authority that the server names is believed, for the whole run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flwr.app import ConfigRecord, Context

from pet.coordinator.key_file import read_key_file
from pet.crypto import KEY_SEED_BYTES, PUBLIC_KEY_BYTES, SigningKeyPair
from pet.errors import RemoteProtocolError, SettingsError
from pet.files import read_private, replace_file
from pet.pet1.enrolment import EnrolmentPolicy, StrengthPolicy

_STATE: Final = "pet-state"
_MAX_STATE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """A node's key, and where it keeps what it has signed.

    Attributes:
        key: its identity.
        path: of the key file; None keeps everything in the state of the run, which a restarted node has lost.
        context: Flower's.
    """

    key: SigningKeyPair
    path: Path | None
    context: Context

    @classmethod
    def of(cls, context: Context) -> NodeIdentity:
        """Return the identity of a node; one that lasts for the run if none is named.

        Raises:
            SettingsError: the node config names something that is no key file.
        """
        named = context.node_config.get("pet-identity")
        if named is not None:
            try:
                return cls(key=read_key_file(Path(str(named))), path=Path(str(named)), context=context)
            except ValueError as error:
                raise SettingsError(f"pet-identity: {error}") from None
        kept = _kept(context)
        if "seed" not in kept:
            kept["seed"] = SigningKeyPair.generate().secret_key[:KEY_SEED_BYTES]
        return cls(key=SigningKeyPair.from_seed(bytes(kept["seed"])), path=None, context=context)

    def saved(self, role: str) -> bytes | None:
        """Return the state that a machine stored last."""
        if self.path is None:
            value = _kept(self.context).get(role)
            return None if value is None else bytes(value)
        try:
            return read_private(self._state_path(role), _MAX_STATE_BYTES)
        except FileNotFoundError:
            return None

    def store(self, role: str) -> Callable[[bytes], None]:
        """Return what makes a machine's state durable before it returns."""

        def write(data: bytes) -> None:
            if self.path is None:
                _kept(self.context)[role] = data
            else:
                replace_file(self._state_path(role), [data])

        return write

    def policy(self, named_authority: bytes, strength: StrengthPolicy) -> EnrolmentPolicy:
        """Return what the node asks of enrolments: its operator's pins, or the first authority that it heard of.

        Raises:
            SettingsError: a pin is no 32 bytes in hexadecimal digits.
            RemoteProtocolError: "unknown_enrolment": the server names another authority than before.
        """
        pins = {name: _hex_of(self.context, f"pet-{name}") for name in ("authority", "enrolment")}
        demands = {name: getattr(strength, name) for name in ("least_passive", "least_active", "least_updates")}
        if any(pins.values()):
            return EnrolmentPolicy(authority=pins["authority"], digest=pins["enrolment"], **demands)
        kept = _kept(self.context)
        if len(named_authority) != PUBLIC_KEY_BYTES or bytes(kept.setdefault("authority", named_authority)) != named_authority:
            raise RemoteProtocolError("unknown_enrolment", "authority: expected the one that was named first, got another")
        return EnrolmentPolicy(authority=named_authority, **demands)

    @property
    def is_pinned(self) -> bool:
        """Whether the node's operator says whose enrolments count."""
        return any(name in self.context.node_config for name in ("pet-authority", "pet-enrolment"))

    def _state_path(self, role: str) -> Path:
        assert self.path is not None, "asked where there is a file"
        return self.path.with_name(f"{self.path.name}.{role.replace(' ', '-')}")


def _kept(context: Context) -> Any:
    """Return our part of the state of the run."""
    if _STATE not in context.state:
        context.state[_STATE] = ConfigRecord()
    return context.state[_STATE]


def _hex_of(context: Context, name: str) -> bytes | None:
    text = context.node_config.get(name)
    if text is None:
        return None
    try:
        value = bytes.fromhex(str(text))
    except ValueError:
        value = b""
    if len(value) != PUBLIC_KEY_BYTES:
        raise SettingsError(f"{name}: expected 64 hexadecimal digits, got something else")
    return value
