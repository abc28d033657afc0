"""Who a node is, and what it has signed: files where its operator names them, else Flower's state of the run.

A node config (`flower-supernode --node-config`) may say:

    pet-identity="/path/of/key"      a key file as `pet key new` writes it; its state is kept beside it
    pet-authority="64 hex digits"    the public key that signs enrolments
    pet-enrolment="64 hex digits"    the digest of the one enrolment that is accepted

Where a program of somebody else writes the node config, the node's environment may say the same, as PET_FLOWER_IDENTITY and so
on. Without a pinned authority or enrolment, the first authority that the server names is believed, for the whole run.
"""

from __future__ import annotations

import os
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

#: What a node config may say, without the prefix.
_SETTINGS: Final = ("identity", "authority", "enrolment")
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
            SettingsError: the node config names something that is no key file, a pin that is none, pins without a key file, or
                has a misspelt name.
        """
        _require_known_names(context)
        pins = _pins(context)
        named = _setting(context, "identity")
        if named is not None:
            try:
                return cls(key=read_key_file(Path(named)), path=Path(named), context=context)
            except ValueError as error:
                raise SettingsError(f"pet-identity: {error}") from None
        if any(pins.values()):
            raise SettingsError("pet-identity: expected a key file, whose key the pinned enrolment lists, got none")
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
            RemoteProtocolError: "unknown_enrolment": the server names another authority than before.
        """
        pins = _pins(self.context)
        demands = {name: getattr(strength, name) for name in ("least_passive", "least_active", "least_updates")}
        if any(pins.values()):
            return EnrolmentPolicy(authority=pins["authority"], digest=pins["enrolment"], **demands)
        kept = _kept(self.context)
        if len(named_authority) != PUBLIC_KEY_BYTES or bytes(kept.setdefault("authority", named_authority)) != named_authority:
            raise RemoteProtocolError("unknown_enrolment", "authority: expected the one that was named first, got another")
        return EnrolmentPolicy(authority=named_authority, **demands)

    def _state_path(self, role: str) -> Path:
        assert self.path is not None, "asked where there is a file"
        return self.path.with_name(f"{self.path.name}.{role.replace(' ', '-')}")


def _kept(context: Context) -> Any:
    """Return our part of the state of the run."""
    if _STATE not in context.state:
        context.state[_STATE] = ConfigRecord()
    return context.state[_STATE]


def _require_known_names(context: Context) -> None:
    """Refuse a misspelt pin: it would be no pin, and nobody would notice."""
    known = [f"pet-{name}" for name in _SETTINGS]
    for name in context.node_config:
        if name.lower().replace("_", "-").startswith("pet-") and name not in known:
            raise SettingsError(f"node config: expected {', '.join(known)}, got {name!r}")


def _pins(context: Context) -> dict[str, bytes | None]:
    return {name: _hex_of(context, name) for name in ("authority", "enrolment")}


def _setting(context: Context, name: str) -> str | None:
    value = context.node_config.get(f"pet-{name}", os.environ.get(f"PET_FLOWER_{name.upper()}"))
    return None if value is None else str(value)


def _hex_of(context: Context, name: str) -> bytes | None:
    text = _setting(context, name)
    if text is None:
        return None
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != PUBLIC_KEY_BYTES:
        raise SettingsError(f"pet-{name}: expected {2 * PUBLIC_KEY_BYTES} hexadecimal digits, got {len(text)} characters")
    return value
