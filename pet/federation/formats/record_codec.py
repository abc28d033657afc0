"""A peer's record as JSON text, with its secrets: for the store and nothing else.

Source: none; the format is ours. `version` says which one it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.errors import PetError, StateError
from pet.federation.formats.encoding import canonical_json, decode_base64url, encode_base64url, parse_json_object
from pet.federation.formats.record_types import require_types
from pet.federation.formats.schedule import Schedule
from pet.federation.records import (
    ContractRecord,
    FailureAction,
    FederationRecord,
    FederationTerms,
    LocalType,
    Mode,
    NatsAccess,
    PeerIdentity,
    PeerKeys,
    ProjectKind,
    ScheduleRecord,
)
from pet.secret import Secret

_VERSION: Final = 1


def encode_record(record: FederationRecord) -> str:
    """Return the JSON text of a record. It holds secret keys in clear: keep it where only its owner can read it."""
    return canonical_json(
        {
            "version": _VERSION,
            "customer_id": record.customer_id,
            "project_id": record.project_id,
            "terms": _terms(record.terms),
            "keys": _keys(record.keys),
            "nats": _nats(record.nats),
            "is_admin": record.is_admin,
            "peers": [_identity(peer) for peer in record.peers],
            "confirmed": list(record.confirmed),
            "members_digest": record.members_digest,
            "is_pulsing": record.is_pulsing,
            "allows_explore": record.allows_explore,
            "local_type": record.local_type,
            "send_failure_action": record.send_failure_action,
            "receive_failure_action": record.receive_failure_action,
            "least_rows": record.least_rows,
            "accepts_contracts": record.accepts_contracts,
        }
    )


def decode_record(text: str) -> FederationRecord:
    """Read a record again.

    Raises:
        StateError: the text is damaged, or of another version.
    """
    found = parse_json_object(text) or {}
    if found.get("version") != _VERSION:
        raise StateError(f"record of a federation: expected version {_VERSION}, got another")
    try:
        record = FederationRecord(
            customer_id=found["customer_id"],
            project_id=found["project_id"],
            terms=_read_terms(found["terms"]),
            keys=_read_keys(found["keys"]),
            nats=_read_nats(found["nats"]),
            is_admin=found["is_admin"],
            peers=tuple(_read_identity(peer) for peer in found["peers"]),
            # Earlier versions knew no confirmation: nobody was confirmed.
            confirmed=tuple(found.get("confirmed", ())),
            members_digest=found.get("members_digest"),
            is_pulsing=found["is_pulsing"],
            allows_explore=found["allows_explore"],
            local_type=LocalType(found["local_type"]),
            send_failure_action=FailureAction(found["send_failure_action"]),
            receive_failure_action=FailureAction(found["receive_failure_action"]),
            # An earlier release had neither.
            least_rows=found.get("least_rows", 0),
            accepts_contracts=found.get("accepts_contracts", False),
        )
        require_types(record)
        Schedule.parse(record.terms.schedule.text)
        return record
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, PetError) as error:
        kind = type(error).__name__
    # Raised here, so that no text of the record can come along with the cause.
    raise StateError(f"record of a federation: expected version {_VERSION} in full, got one that does not read ({kind})")


def _terms(terms: FederationTerms) -> dict[str, Any]:
    return {
        "federation_id": terms.federation_id,
        "name": terms.name,
        "secret_key": terms.secret_key.reveal(),
        "key_epoch": terms.key_epoch,
        "admin": None if terms.admin is None else _identity(terms.admin),
        "schedule": {"text": terms.schedule.text, "counter": terms.schedule.counter},
        "contract": {"lines": list(terms.contract.lines), "counter": terms.contract.counter},
        "mode": terms.mode,
        "encrypts": terms.encrypts,
        "uses_smpc": terms.uses_smpc,
        "kind": terms.kind,
        "schema": terms.schema,
    }


def _read_terms(found: Mapping[str, Any]) -> FederationTerms:
    contract = found["contract"]
    return FederationTerms(
        federation_id=found["federation_id"],
        name=found["name"],
        secret_key=Secret(found["secret_key"]),
        key_epoch=found["key_epoch"],
        admin=None if found["admin"] is None else _read_identity(found["admin"]),
        schedule=ScheduleRecord(text=found["schedule"]["text"], counter=found["schedule"]["counter"]),
        contract=ContractRecord(lines=tuple(contract["lines"]), counter=contract["counter"]),
        mode=Mode(found["mode"]),
        encrypts=found["encrypts"],
        uses_smpc=found["uses_smpc"],
        kind=ProjectKind(found["kind"]),
        schema=found["schema"],
    )


def _keys(keys: PeerKeys) -> dict[str, str]:
    return {
        "uuid": keys.uuid,
        "signing_public": encode_base64url(keys.signing.public_key),
        "signing_secret": encode_base64url(keys.signing.secret_key),
        "encryption_public": encode_base64url(keys.encryption.public_key),
        "encryption_secret": encode_base64url(keys.encryption.secret_key),
    }


def _read_keys(found: Mapping[str, Any]) -> PeerKeys:
    parts = {name: decode_base64url(text) for name, text in found.items() if name != "uuid"}
    return PeerKeys(
        uuid=found["uuid"],
        signing=SigningKeyPair(parts["signing_public"], parts["signing_secret"]),
        encryption=EncryptionKeyPair(parts["encryption_public"], parts["encryption_secret"]),
    )


def _identity(peer: PeerIdentity) -> dict[str, str]:
    return {
        "uuid": peer.uuid,
        "signing_key": encode_base64url(peer.signing_key),
        "encryption_key": encode_base64url(peer.encryption_key),
        "label": peer.label,
    }


def _read_identity(found: Mapping[str, Any]) -> PeerIdentity:
    return PeerIdentity(
        uuid=found["uuid"],
        signing_key=decode_base64url(found["signing_key"]),
        encryption_key=decode_base64url(found["encryption_key"]),
        label=found["label"],
    )


def _nats(nats: NatsAccess) -> dict[str, Any]:
    return {
        "hosts": list(nats.hosts),
        "user": nats.user,
        "password": _reveal(nats.password),
        "token": _reveal(nats.token),
        "nkey_seed": _reveal(nats.nkey_seed),
        "request_timeout_seconds": nats.request_timeout_seconds,
        "stream_max_bytes": nats.stream_max_bytes,
        "authority_file": nats.authority_file,
    }


def _read_nats(found: Mapping[str, Any]) -> NatsAccess:
    return NatsAccess(
        hosts=tuple(found["hosts"]),
        user=found["user"],
        password=_hide(found["password"]),
        token=_hide(found["token"]),
        nkey_seed=_hide(found["nkey_seed"]),
        request_timeout_seconds=found["request_timeout_seconds"],
        stream_max_bytes=found["stream_max_bytes"],
        authority_file=found["authority_file"],
    )


def _reveal(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


def _hide(text: str | None) -> Secret | None:
    return None if text is None else Secret(text)
