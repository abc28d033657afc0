"""Whether an update is in the sum: what its own participant can find out from public bytes and its own header.

Source: docs/spec/profile.md 10.4, 13 (U9).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from pet.buffers import Buffer
from pet.errors import RemoteProtocolError
from pet.pet1.certificate import read_checks, read_signers
from pet.pet1.checks import judge_complaint
from pet.pet1.committee import Committee
from pet.pet1.hashes import digest
from pet.pet1.manifest import NAME, read_list
from pet.pet1.refusing import require
from pet.pet1.share_header import ShareHeader


class Inclusion(enum.Enum):
    """The outcome of an update; the value is a text for people."""

    value: str

    AGREED = "in the agreed set"
    EXCLUDED = "excluded: a member proved a box of it bad"
    NOT_LISTED = "not in the coordinator's list of updates"


def find_update(header: ShareHeader, committee: Committee, manifest: Buffer, certificate: Buffer) -> Inclusion:
    """Return whether an update is in the agreed set of a certificate.

    Headers of others are not needed, and complaints about others are not judged: whether enough updates are left is the
    members' to find out, who do not answer otherwise.

    Args:
        header: of the update, the participant's own.
        committee: of the round.
        manifest: as it is served.
        certificate: as it is served.

    Raises:
        RemoteProtocolError: as `read_list`, `read_checks` and `read_signers`; "wrong_root" (of another list).
    """
    listed, root = read_list(manifest, committee), digest(NAME, manifest)
    named, messages = read_checks(certificate)
    require(named == root, "wrong_root", "certificate: expected the root of this manifest, got another")
    accusers = find_accusers([header], committee, root, messages, len(listed))
    if listed.get(header.participant) != header.digest:
        return Inclusion.NOT_LISTED
    return Inclusion.EXCLUDED if header.participant in accusers else Inclusion.AGREED


def find_accusers(
    headers: Iterable[ShareHeader], committee: Committee, root: bytes, messages: Iterable[bytes], max_count: int
) -> dict[bytes, tuple[int, ...]]:
    """Return the slots whose complaints prove updates bad, by participant; those that nobody proves bad are absent.

    Args:
        headers: of the updates that are asked for.
        committee: of the round.
        root: of the manifest.
        messages: the certificate's.
        max_count: complaints of a message at most.

    Raises:
        RemoteProtocolError: as `read_signers`.
    """
    said = {slot: complaints for slot, _, complaints in read_signers(messages, committee, root, max_count)}
    found = {}
    for header in headers:
        accused = {slot: complaints.get(header.participant) for slot, complaints in said.items()}
        slots = tuple(slot for slot, proof in accused.items() if proof and _is_proven(proof, header, committee, slot))
        if slots:
            found[header.participant] = slots
    return found


def _is_proven(proof: bytes, header: ShareHeader, committee: Committee, slot: int) -> bool:
    try:
        judge_complaint(proof, header, committee, slot)
    except RemoteProtocolError:
        return False
    return True
