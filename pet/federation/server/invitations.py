"""The two ends of an invitation at a server: made for one future peer, and opened when that peer joins.

Tokens are drawn here and kept by the store; what is in an invitation is the business of request_maps.py, its bytes that of
pet/federation/formats/invitation.py.

Source: docs/spec/federation.md 2.6, 2.7, 4.1, 4.2.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from pet.crypto import EncryptionKeyPair
from pet.federation.formats import compat, invitation
from pet.federation.formats.encoding import canonical_json, encode_base64url
from pet.federation.formats.invitation import DEFAULT_LIFESPAN_SECONDS, MAX_LIFESPAN_SECONDS, InvitationHeader
from pet.federation.formats.member_list import list_digest
from pet.federation.records import FederationRecord, InvitationContents, Mode
from pet.federation.server.answers import refuse
from pet.federation.server.parameters import invalid_key, public_key, required
from pet.federation.server.request_maps import invitation_map, with_local_keys
from pet.secret import Secret

_TOKEN_BYTES: Final = 32
#: The vendor's form: 64 bits. Guessing is limited by the lifespan and by the number of failed joins.
_COMPAT_TOKEN_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvitation:
    """An invitation that was just made.

    Attributes:
        text: what is sent.
        token: that is in it.
        header: what it says to who cannot open it.
        expires_at: Unix seconds from which on the token is refused.
    """

    text: str
    token: Secret
    header: InvitationHeader
    expires_at: float


def new_invitation(record: FederationRecord, entries: Mapping[str, str], now_seconds: float) -> NewInvitation:
    """Make an invitation for one future peer. Slow on purpose: a password is stretched.

    Args:
        record: of the admin.
        entries: what its user wants: passwd or peer_key, a lifespan, the host of the REST interface.
        now_seconds: Unix seconds.

    Raises:
        FederationValueError: a value breaks its rule.
    """
    lifespan, is_native = _lifespan(entries), record.terms.mode is Mode.NATIVE
    header = InvitationHeader.new(record.terms.federation_id, now_seconds, lifespan)
    token = Secret(
        encode_base64url(secrets.token_bytes(_TOKEN_BYTES))
        if is_native
        else f"FEDTOKEN{secrets.token_hex(_COMPAT_TOKEN_BYTES)}"
    )
    contents = invitation_map(
        InvitationContents(
            terms=record.terms,
            nats=record.nats,
            token=token,
            members_digest=list_digest(record.terms.federation_id, record.peers),
            rest_url=_rest_url(entries, record),
        )
    )
    return NewInvitation(
        text=_sealed(contents, header, entries, record), token=token, header=header, expires_at=now_seconds + lifespan
    )


def opened_invitation(
    entries: Mapping[str, str], server_keys: EncryptionKeyPair, *, now_seconds: float, allows_compat: bool
) -> Mapping[str, str]:
    """Open an invitation that came as it is, beside its password or the admin's key; entries without one are returned.

    Raises:
        FederationValueError: it does not open, or a key beside it breaks its rule.
        RequestRefusedError: it has expired.
    """
    text = entries.get("fed_info_encrypted")
    if text is None:
        return entries
    own = {name: value for name, value in entries.items() if name not in ("fed_info_encrypted", "passwd", "fed_admin_key")}
    header: InvitationHeader | None = None
    if text.lstrip().startswith(invitation.KEY_PREFIX):
        header, contents = invitation.open_with_keys(text, server_keys, public_key(entries, "fed_admin_key"))
    elif invitation.is_native(text):
        header, contents = invitation.open_with_password(text, _password(entries))
    elif allows_compat:
        contents = {"fed_mode": Mode.COMPAT.value} | invitation.open_compatible(text, _password(entries))
    else:
        raise invalid_key("fed_info_encrypted", "expected an invitation that begins with PETINV1")
    if header is not None and header.expires_at < now_seconds:
        raise refuse(HTTPStatus.FORBIDDEN, "Invalid federation token")
    return with_local_keys(contents, own)


def _sealed(contents: dict[str, str], header: InvitationHeader, entries: Mapping[str, str], record: FederationRecord) -> str:
    if record.terms.mode is Mode.COMPAT:
        return compat.encrypt_invitation(canonical_json(contents).encode(), _password(entries).reveal())
    if "peer_key" in entries:
        return invitation.seal_for_key(contents, header, public_key(entries, "peer_key"), record.keys.signing)
    return invitation.seal_with_password(contents, header, _password(entries))


def _password(entries: Mapping[str, str]) -> Secret:
    return Secret(required(entries, "passwd"))


def _lifespan(entries: Mapping[str, str]) -> float:
    text = entries.get("fed_token_lifespan_hours")
    if text is None:
        return DEFAULT_LIFESPAN_SECONDS
    try:
        seconds = float(text) * 3600
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_LIFESPAN_SECONDS:
        raise invalid_key("fed_token_lifespan_hours", f"expected above 0 and at most {MAX_LIFESPAN_SECONDS // 3600} hours")
    return seconds


def _rest_url(entries: Mapping[str, str], record: FederationRecord) -> str | None:
    host = entries.get("fed_rest_host")
    if not host:
        return None
    return f"{host.rstrip('/')}/symetry/rest/{record.customer_id}/fedml/{record.project_id}/createPolicies"
