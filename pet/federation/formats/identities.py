"""The public half of a peer as JSON has it: uuid, keys and name; in messages, in stored records, and in invitations.

Source: docs/spec/federation.md 5.3, 10.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from pet import crypto
from pet.errors import FederationValueError
from pet.federation.formats.json_form import JsonForm
from pet.federation.formats.member_list import have_distinct_names, is_name
from pet.federation.records import PeerIdentity

_UUID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_FORM: Final = JsonForm(PeerIdentity)


def encode_identity(peer: PeerIdentity) -> dict[str, Any]:
    """Return a peer's public half."""
    return _FORM.fields(peer)


def decode_identity(record: object) -> PeerIdentity:
    """Read a peer's public half that somebody else gave.

    Raises:
        FederationValueError: not one, or one that cannot be used; names the field.
    """
    peer = _FORM.read(record)
    require_usable(peer)
    return peer


def require_usable(peer: PeerIdentity) -> None:
    """Check an identity that was read as part of another record.

    Raises:
        FederationValueError: it is no peer's; names the field.
    """
    if not _UUID.fullmatch(peer.uuid):
        raise FederationValueError("uuid: expected 32 lower-case hexadecimal digits, got another text")
    if crypto.is_low_order(peer.encryption_key):
        raise FederationValueError("encryption_key: expected a point that something can be sealed for, got one of low order")
    if peer.label and not is_name(peer.label):
        raise FederationValueError("label: expected a name that a peer may have, got another text")


def are_distinct(peers: Sequence[PeerIdentity]) -> bool:
    """Return whether no two peers share a uuid, a key, or a name: one that had two places would count as two."""
    distinct: list[set[str | bytes]] = [
        {peer.uuid for peer in peers},
        {peer.signing_key for peer in peers},
        {peer.encryption_key for peer in peers},
    ]
    return all(len(one) == len(peers) for one in distinct) and have_distinct_names(peers)
