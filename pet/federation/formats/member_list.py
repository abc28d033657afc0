"""The list of a federation's members as people compare it: names, fingerprints, one short code for the whole list.

The admin passes the list on, so it could show everybody another one, with members of its own invention in it. Two people who
see the same code see the same list: that is what confirming a member rests on.

Source: docs/spec/federation.md 10.
"""

from __future__ import annotations

import base64
import hmac
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from pet.crypto import PASSWORD_SALT_BYTES, derive_password_key, hash_sha256
from pet.errors import FederationValueError
from pet.federation.formats.encoding import canonical_json
from pet.federation.records import MemberState, PeerIdentity

MAX_NAME_CHARACTERS: Final = 64
_CODE_CHARACTERS: Final = 20
_GROUP: Final = 4
#: Who wants to show two people different lists with one code has to find two among many variants. 100 bits make that 2^50
#: lists, and each costs this much time and memory, so that a code can be short enough to be read out.
_CODE_PASSES: Final = 2
_CODE_MEMORY_KIB: Final = 19456
_LIST: Final = "pet/v1/fed-members"
_CODE_SALT: Final = hash_sha256(b"pet/v1/fed-members-code")[:PASSWORD_SALT_BYTES]
_DIGEST: Final = re.compile(r"([1-9][0-9]{0,5}):([0-9a-f]{64})", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


def list_code(federation_id: str, members: Sequence[PeerIdentity]) -> str:
    """Return the code of a list, whatever its order: five groups of four letters and digits. Takes 0.03 s."""
    content = _content(federation_id, sorted(members, key=lambda member: member.fingerprint))
    key = derive_password_key(content, _CODE_SALT, passes=_CODE_PASSES, memory_kib=_CODE_MEMORY_KIB)
    text = base64.b32encode(key)[:_CODE_CHARACTERS].decode()
    return "-".join(text[start : start + _GROUP] for start in range(0, _CODE_CHARACTERS, _GROUP))


def is_same_code(first: str, second: str) -> bool:
    """Return whether two codes are the same, however they are grouped and in either case."""
    return _plain(first).upper() == _plain(second).upper()


def list_digest(federation_id: str, members: Sequence[PeerIdentity]) -> str:
    """Return what an invitation says about the members at its time: how many, and a digest of them in the order of joining."""
    return f"{len(members)}:{hash_sha256(_content(federation_id, members)).hex()}"


def begins_with_digest(federation_id: str, members: Sequence[PeerIdentity], digest: str) -> bool:
    """Return whether a list begins with the members that a digest covers.

    Who joins is added at the end, and when somebody goes, every open invitation becomes worthless: between an invitation and
    its use a list can only have grown.
    """
    found = _DIGEST.fullmatch(digest)
    if found is None or int(found[1]) > len(members):
        return False
    return hmac.compare_digest(list_digest(federation_id, members[: int(found[1])]), digest)


def is_digest(text: str) -> bool:
    """Return whether a text has the form of `list_digest`."""
    return _DIGEST.fullmatch(text) is not None


def shown_fingerprint(fingerprint: str) -> str:
    """Return a fingerprint in groups, for people."""
    return " ".join(fingerprint[start : start + _GROUP] for start in range(0, len(fingerprint), _GROUP))


def find_member(members: Sequence[PeerIdentity], text: str) -> PeerIdentity:
    """Return the member that a text names: by fingerprint, uuid, or name.

    Raises:
        FederationValueError: there is none, or more than one.
    """
    listed = [(member.label, member.fingerprint, member.uuid) for member in members]
    return members[_place(listed, text)]


def find_listed(members: Sequence[MemberState], text: str) -> MemberState:
    """Return the member of a list that a text names, as `find_member` does.

    Raises:
        FederationValueError: there is none, or more than one.
    """
    listed = [(member.name, member.fingerprint, member.uuid) for member in members]
    return members[_place(listed, text)]


def _place(listed: Sequence[tuple[str, str, str]], text: str) -> int:
    plain, name = _plain(text).lower(), _folded(text)
    by_key = [place for place, (_, *keys) in enumerate(listed) if plain in keys]
    by_name = [place for place, (label, *_) in enumerate(listed) if label and _folded(label) == name]
    for found in (by_key, by_name):
        if len(found) == 1:
            return found[0]
    raise FederationValueError(
        f"member: expected the name or fingerprint of a member of this federation, got {text[:MAX_NAME_CHARACTERS]!r}"
    )


def is_fingerprint(text: str) -> bool:
    """Return whether a text has the form of a fingerprint."""
    return _HEX.fullmatch(_plain(text).lower()) is not None


def check_name(text: str) -> str:
    """Return a name that a peer may have.

    Raises:
        FederationValueError: it is none.
    """
    name = unicodedata.normalize("NFC", text)
    if not is_name(name):
        raise FederationValueError(
            f"expected 1 to {MAX_NAME_CHARACTERS} printable characters that are no fingerprint, without spaces around them"
        )
    return name


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a peer."""
    return 1 <= len(text) <= MAX_NAME_CHARACTERS and text.isprintable() and text == text.strip() and not is_fingerprint(text)


def is_taken(name: str, members: Sequence[PeerIdentity]) -> bool:
    """Return whether a member has this name already, or one that differs in case or form of letters only."""
    return _folded(name) in {_folded(member.label) for member in members if member.label}


def have_distinct_names(members: Sequence[PeerIdentity]) -> bool:
    """Return whether no two members have the same name, in the sense of `is_taken`; those without one do not count."""
    names = [_folded(member.label) for member in members if member.label]
    return len(set(names)) == len(names)


def _content(federation_id: str, members: Sequence[PeerIdentity]) -> bytes:
    return canonical_json([_LIST, federation_id, [[member.fingerprint, member.label] for member in members]]).encode()


def _plain(text: str) -> str:
    return text.replace("-", "").replace(" ", "")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
