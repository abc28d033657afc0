"""The maps of strings that create a federation, invite and join, as records and back.

One place for every key: its rule, its default in each mode. No encryption and no HTTP is known here.

Source: docs/spec/federation.md 1.6, 1.8, 2.4, 2.6, 2.7.
"""

from __future__ import annotations

import base64
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pet.crypto import hash_sha256
from pet.errors import ConfigError, FederationValueError
from pet.federation.formats.compat import SECRET_KEY_BYTES
from pet.federation.formats.encoding import (
    decode_base64,
    encode_base64,
    parse_json_object,
)
from pet.federation.formats.identities import decode_identity, encode_identity
from pet.federation.formats.member_list import check_name, is_digest
from pet.federation.formats.model_shape import MAX_BOUND, MAX_MODEL_LENGTH, MAX_WEIGHT, MIN_BOUND, ModelShape
from pet.federation.formats.schedule import Schedule
from pet.federation.records import (
    FailureAction,
    FederationRecord,
    FederationTerms,
    InvitationContents,
    LocalType,
    Mode,
    PeerIdentity,
    PeerKeys,
    ProjectKind,
    ScheduleRecord,
)
from pet.federation.server.parameters import (
    checked,
    choice,
    flag,
    integer,
    invalid_key,
    require_all,
    required,
)
from pet.federation.statistics.schema import Schema
from pet.secret import Secret
from pet.transports.nats_settings import NatsSettings

FEDERATION_ID_LENGTH: Final = 16
_ID_LETTERS: Final = string.ascii_lowercase + string.digits
_MAX_NAME_LENGTH: Final = 256
_ACCESS_KEYS: Final = frozenset({"nats_hosts", "nats_sec_user", "nats_sec_passwd", "nats_sec_token", "nats_sec_nkey_seed"})
#: What the map calls the fields of the admin's identity.
_ADMIN_KEYS: Final = {
    "uuid": "fed_admin_uuid",
    "signing_key": "fed_admin_sign_key",
    "encryption_key": "fed_admin_box_key",
}
#: What a native invitation holds beside the keys of the vendor's, all of which a join needs.
_NATIVE_JOIN_KEYS: Final = (
    "sync_sched",
    "fed_secret_key",
    "fed_req_token",
    "fed_id",
    *_ADMIN_KEYS.values(),
    "nats_hosts",
)
_SEND_ACTION: Final = "fed_psr_contract_snd_fail_action"
_RECEIVE_ACTION: Final = "fed_psr_contract_rcv_fail_action"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapContext:
    """What a map does not say itself.

    Attributes:
        mode: of the request that it came in; the default for a new federation.
        allows_compat: whether this listener speaks the vendor's formats at all.
        ca_file: PEM file of the broker's authority.
    """

    customer_id: str
    project_id: str
    mode: Mode = Mode.NATIVE
    allows_compat: bool = False
    ca_file: Path | None = None


def read_map(data: bytes) -> dict[str, str]:
    """Decode the plain text of a body; numbers and booleans become the texts that they stand for.

    Raises:
        FederationValueError: it is no JSON object of such values.
    """
    found = parse_json_object(data)
    if found is None or not all(isinstance(value, str | int | float) for value in found.values()):
        raise FederationValueError("Bad Request Body")
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in found.items()}


def created_record(entries: Mapping[str, str], context: MapContext) -> FederationRecord:
    """Return the record of the admin of a new federation.

    Raises:
        FederationValueError: a key is missing or breaks its rule.
    """
    mode = _mode(entries, context)
    if flag(entries, "fed_enforce_hipaa_compliance", default=False):
        raise invalid_key("fed_enforce_hipaa_compliance", "HIPAA compliance checks are not supported yet")
    name, keys = _name(entries), PeerKeys.generate()
    secret_key = Secret(encode_base64(secrets.token_bytes(SECRET_KEY_BYTES)))
    is_native = mode is Mode.NATIVE
    kind = choice(entries, "fed_project_kind", ProjectKind, ProjectKind.STATISTICS)
    terms = FederationTerms(
        federation_id=_new_id() if is_native else derive_id(name, secret_key),
        name=name,
        secret_key=secret_key,
        admin=keys.identity(_peer_name(entries, context)),
        schedule=ScheduleRecord(text=_schedule(entries)),
        mode=mode,
        encrypts=flag(entries, "fed_encrypt", default=is_native),
        uses_smpc=flag(entries, "fed_use_smpc", default=is_native),
        kind=kind,
        schema=_schema(entries, kind),
    )
    return _record(entries, context, terms, keys, is_admin=True)


def joined_record(entries: Mapping[str, str], context: MapContext) -> tuple[FederationRecord, Secret]:
    """Return the record of a peer that is about to join, and its token.

    Raises:
        FederationValueError: a key is missing or breaks its rule.
    """
    name, keys = _name(entries), PeerKeys.generate()
    mode = _mode(entries, context)
    if mode is Mode.NATIVE:
        require_all(entries, _NATIVE_JOIN_KEYS)
    secret_key = Secret(required(entries, "fed_secret_key"))
    if len(checked("fed_secret_key", decode_base64, secret_key.reveal(), "expected base64")) != SECRET_KEY_BYTES:
        raise invalid_key("fed_secret_key", f"expected {SECRET_KEY_BYTES} bytes in base64")
    token, is_native = Secret(required(entries, "fed_req_token")), mode is Mode.NATIVE
    federation_id = required(entries, "fed_id") if is_native or "fed_id" in entries else derive_id(name, secret_key)
    if len(federation_id) != FEDERATION_ID_LENGTH or not set(federation_id) <= set(_ID_LETTERS):
        raise invalid_key("fed_id", f"expected {FEDERATION_ID_LENGTH} characters a-z, 0-9")
    terms = FederationTerms(
        federation_id=federation_id,
        name=name,
        secret_key=secret_key,
        key_epoch=integer(entries, "fed_key_epoch", 0),
        admin=_admin(entries, is_required=is_native),
        schedule=ScheduleRecord(text=_schedule(entries), counter=integer(entries, "fed_sched_counter", 0)),
        mode=mode,
        encrypts=flag(entries, "fed_encrypt", default=is_native),
        uses_smpc=flag(entries, "fed_use_smpc", default=is_native),
        kind=choice(entries, "fed_project_kind", ProjectKind, ProjectKind.STATISTICS),
    )
    return _record(entries, context, terms, keys, is_admin=False), token


def invitation_map(contents: InvitationContents) -> dict[str, str]:
    """Return the plain text of an invitation (spec 2.6), with keys of ours that other readers ignore."""
    terms, nats = contents.terms, contents.nats
    assert terms.admin is not None, "only the admin makes invitations"
    admin = encode_identity(terms.admin)
    entries = {
        "sync_sched": terms.schedule.text,
        "fed_name": terms.name,
        "fed_secret_key": terms.secret_key.reveal(),
        "fed_req_token": contents.token.reveal(),
        "fed_rest_url": contents.rest_url,
        **nats.to_entries(),
        "nats_sec_user": nats.user,
        "nats_sec_passwd": nats.password,
        "nats_sec_token": nats.token,
        "nats_sec_nkey_seed": nats.nkey_seed,
        "fed_id": terms.federation_id,
        "fed_mode": terms.mode,
        "fed_key_epoch": str(terms.key_epoch),
        "fed_sched_counter": str(terms.schedule.counter),
        "fed_encrypt": str(terms.encrypts).lower(),
        "fed_use_smpc": str(terms.uses_smpc).lower(),
        "fed_project_kind": terms.kind,
        "fed_members_digest": contents.members_digest,
    } | {name: admin[field] for field, name in _ADMIN_KEYS.items()}
    revealed = {name: value.reveal() if isinstance(value, Secret) else value for name, value in entries.items()}
    return {name: value for name, value in revealed.items() if value is not None}


def changed_access(record: FederationRecord, entries: Mapping[str, str]) -> NatsSettings:
    """Return how a peer reaches the broker with another credential, or at other hosts; what is not given stays.

    Raises:
        FederationValueError: a key breaks its rule, or is none of these.
    """
    for name in entries.keys() - _ACCESS_KEYS:
        raise invalid_key(name[:64], f"expected one of {', '.join(sorted(_ACCESS_KEYS))}")
    if not entries:
        raise invalid_key("nats_sec_user", f"expected at least one of {', '.join(sorted(_ACCESS_KEYS))}")
    access = _nats({**record.nats.to_entries(), **entries}, record.nats.ca_file, record.terms.mode)
    return access if entries.keys() - {"nats_hosts"} else replace(record.nats, hosts=access.hosts)


def derive_id(name: str, secret_key: Secret) -> str:
    """Return the federation id of compatibility mode (spec 5.2), which no invitation of the vendor carries."""
    digest = hash_sha256(f"pet-fed:{name}:{secret_key.reveal()}".encode())
    return base64.b32encode(digest)[:FEDERATION_ID_LENGTH].decode().lower()


def with_local_keys(entries: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of an invitation with a peer's own; the peer's win, as in the vendor's notebook."""
    return {**entries, **own}


def _record(
    entries: Mapping[str, str], context: MapContext, terms: FederationTerms, keys: PeerKeys, *, is_admin: bool
) -> FederationRecord:
    own = keys.identity(_peer_name(entries, context))
    return FederationRecord(
        customer_id=context.customer_id,
        project_id=context.project_id,
        terms=terms,
        keys=keys,
        nats=_nats(entries, context.ca_file, terms.mode),
        is_admin=is_admin,
        peers=(own,) if is_admin or terms.admin is None else (terms.admin, own),
        members_digest=_members_digest(entries),
        local_type=choice(entries, "fed_local_type", LocalType, LocalType.CPU),
        send_failure_action=_action(entries, _SEND_ACTION),
        receive_failure_action=_action(entries, _RECEIVE_ACTION),
    )


def _mode(entries: Mapping[str, str], context: MapContext) -> Mode:
    mode = choice(entries, "fed_mode", Mode, context.mode)
    if mode is Mode.COMPAT and not context.allows_compat:
        raise invalid_key("fed_mode", "this server was not started with --compat")
    return mode


def _nats(entries: Mapping[str, str], ca_file: Path | None, mode: Mode) -> NatsSettings:
    required(entries, "nats_hosts")
    try:
        return NatsSettings.from_entries(entries, ca_file=ca_file, allow_plaintext=mode is Mode.COMPAT)
    except ConfigError as error:
        key = str(error).partition(":")[0]
        raise invalid_key(key if key.startswith("nats_") else "nats_hosts", str(error)) from None


def _admin(entries: Mapping[str, str], *, is_required: bool) -> PeerIdentity | None:
    if not is_required and not any(name in entries for name in _ADMIN_KEYS.values()):
        return None
    fields = {field: required(entries, name) for field, name in _ADMIN_KEYS.items()}
    try:
        return decode_identity(fields | {"label": "admin"})
    except FederationValueError as error:
        field, _, reason = str(error).partition(": ")
    raise invalid_key(_ADMIN_KEYS[field], reason)


def check_schedule(text: str, key: str) -> str:
    """Return the text of a schedule that is one (spec 1.4).

    Raises:
        FederationValueError: it is none.
    """
    return checked(key, Schedule.parse, text, "expected m, h or d and a number from 1 on, at most 366 days").text


def _new_id() -> str:
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(FEDERATION_ID_LENGTH))


def _name(entries: Mapping[str, str]) -> str:
    name = required(entries, "fed_name")
    if len(name) > _MAX_NAME_LENGTH or not name.isprintable():
        raise invalid_key("fed_name", f"expected 1 to {_MAX_NAME_LENGTH} printable characters")
    return name


def _peer_name(entries: Mapping[str, str], context: MapContext) -> str:
    """Return the name that a peer gives itself: that of its project if it says none."""
    text = entries.get("fed_peer_name")
    return context.project_id if not text else checked("fed_peer_name", check_name, text)


def _members_digest(entries: Mapping[str, str]) -> str | None:
    digest = entries.get("fed_members_digest")
    if digest is not None and not is_digest(digest):
        raise invalid_key("fed_members_digest", "expected what the invitation says")
    return digest


def _schedule(entries: Mapping[str, str]) -> str:
    return check_schedule(required(entries, "sync_sched"), "sync_sched")


def _schema(entries: Mapping[str, str], kind: ProjectKind) -> str | None:
    if kind is ProjectKind.MODEL:
        length = integer(entries, "fed_model_length", 0)
        if not 1 <= length <= MAX_MODEL_LENGTH:
            raise invalid_key("fed_model_length", f"expected 1 to {MAX_MODEL_LENGTH} weights")
        bounds = {"bound": ("fed_model_bound", MAX_BOUND), "max_weight": ("fed_max_weight", MAX_WEIGHT)}
        given = {name: _bound(entries, key, most) for name, (key, most) in bounds.items() if key in entries}
        return ModelShape(length, **given).to_json()
    text = entries.get("fed_schema")
    return None if not text else checked("fed_schema", Schema.from_json, text).to_json()


def _bound(entries: Mapping[str, str], key: str, most: float) -> float:
    expected = f"expected a number from {MIN_BOUND:g} to {most:g}"
    try:
        bound = float(entries[key])
    except ValueError:
        raise invalid_key(key, expected) from None
    if not MIN_BOUND <= bound <= most:
        raise invalid_key(key, expected)
    return bound


def _action(entries: Mapping[str, str], key: str) -> FailureAction:
    text = entries.get(key) or f"{key}_block"
    if text not in (f"{key}_block", f"{key}_allow"):
        raise invalid_key(key, f"expected {key}_block or {key}_allow")
    return FailureAction(text.rpartition("_")[2])
