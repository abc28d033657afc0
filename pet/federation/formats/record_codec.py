"""A peer's record as JSON text, with its secrets: for the store and nothing else.

What an earlier release did not know yet has its default: nobody was confirmed, and no contract accepted beforehand.

Source: none; the format is ours. `version` says which one it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.errors import PetError, StateError
from pet.federation.formats.encoding import canonical_json, decode_base64url, encode_base64url, parse_json_object
from pet.federation.formats.json_form import JsonForm
from pet.federation.formats.schedule import Schedule
from pet.federation.records import FederationRecord, PeerKeys

_VERSION: Final = 1
_FORM: Final = JsonForm(FederationRecord)


def encode_record(record: FederationRecord) -> str:
    """Return the JSON text of a record. It holds secret keys in clear: keep it where only its owner can read it."""
    return canonical_json(_FORM.fields(record) | {"version": _VERSION, "keys": _keys(record.keys)})


def decode_record(text: str) -> FederationRecord:
    """Read a record again.

    Raises:
        StateError: the text is damaged, or of another version.
    """
    found = parse_json_object(text) or {}
    if found.get("version") != _VERSION:
        raise StateError(f"record of a federation: expected version {_VERSION}, got another")
    try:
        record = _FORM.read(found | {"keys": _read_keys(found["keys"])})
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
