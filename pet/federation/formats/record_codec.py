"""A peer's record as JSON text, with its secrets: for the store and nothing else.

What an earlier release did not know yet has its default: nobody was confirmed, and no contract accepted beforehand. Whether a
broker may be talked to without TLS is not stored: what is has to be readable in compatibility mode, and who connects decides.

Source: none; the format is ours. `version` says which one it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.errors import PetError, StateError
from pet.federation.formats.encoding import canonical_json, decode_base64url, encode_base64url, parse_json_object
from pet.federation.formats.json_form import JsonForm
from pet.federation.formats.schedule import Schedule
from pet.federation.records import FederationRecord, Mode, PeerKeys
from pet.secret import Secret
from pet.transports.nats_settings import NatsSettings

_VERSION: Final = 1
_FORM: Final = JsonForm(FederationRecord)
_NATS: Final = ("hosts", "user", "password", "token", "nkey_seed", "request_timeout_seconds", "stream_max_bytes")


def encode_record(record: FederationRecord) -> str:
    """Return the JSON text of a record. It holds secret keys in clear: keep it where only its owner can read it."""
    parts = {"version": _VERSION, "keys": _keys(record.keys), "nats": _nats(record.nats)}
    return canonical_json(_FORM.fields(record) | parts)


def decode_record(text: str) -> FederationRecord:
    """Read a record again.

    Raises:
        StateError: the text is damaged, or of another version.
    """
    found = parse_json_object(text) or {}
    if found.get("version") != _VERSION:
        raise StateError(f"record of a federation: expected version {_VERSION}, got another")
    try:
        is_compatible = found["terms"].get("mode") == Mode.COMPAT
        nats = _read_nats(found["nats"], allow_plaintext=is_compatible)
        record = _FORM.read(found | {"keys": _read_keys(found["keys"]), "nats": nats})
        Schedule.parse(record.terms.schedule.text)
        return record
    except (KeyError, TypeError, ValueError, AttributeError, PetError) as error:
        kind = type(error).__name__
    # Raised here, so that no text of the record can come along with the cause.
    raise StateError(f"record of a federation: expected version {_VERSION} in full, got one that does not read ({kind})")


def _keys(keys: PeerKeys) -> dict[str, str]:
    return {
        "uuid": keys.uuid,
        "signing_public": encode_base64url(keys.signing.public_key),
        "signing_secret": encode_base64url(keys.signing.secret_key),
        "encryption_public": encode_base64url(keys.encryption.public_key),
        "encryption_secret": encode_base64url(keys.encryption.secret_key),
    }


def _read_keys(found: Mapping[str, Any]) -> dict[str, Any]:
    parts = {name: decode_base64url(text) for name, text in found.items() if name != "uuid"}
    return {
        "uuid": found["uuid"],
        "signing": SigningKeyPair(parts["signing_public"], parts["signing_secret"]),
        "encryption": EncryptionKeyPair(parts["encryption_public"], parts["encryption_secret"]),
    }


def _nats(settings: NatsSettings) -> dict[str, Any]:
    values = {name: getattr(settings, name) for name in _NATS}
    stored = {name: value.reveal() if isinstance(value, Secret) else value for name, value in values.items()}
    return stored | {"authority_file": None if settings.ca_file is None else str(settings.ca_file)}


def _read_nats(found: Mapping[str, Any], *, allow_plaintext: bool) -> NatsSettings:
    authority = found.get("authority_file")
    return NatsSettings(
        **{name: found[name] for name in _NATS if name in found},
        ca_file=None if authority is None else Path(authority),
        allow_plaintext=allow_plaintext,
    )
