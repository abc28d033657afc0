"""The enrolled parties of a test drive of pet/1, whose keys lie in one folder: participants, and members with their states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pet.coordinator.key_file import read_key_file
from pet.crypto import SigningKeyPair
from pet.errors import ConfigError
from pet.participant.committee_member import CommitteeMember
from pet.participant.enrolments import EnrolmentTrust
from pet.transports.base import Transport

_KEY_SUFFIX: Final = ".key"
_STATE_SUFFIX: Final = ".state"


@dataclass(frozen=True, slots=True)
class DummyCommittee:
    """Who takes part; nobody under xaynet's profile, whose participants need no names.

    Attributes:
        signing_keys: of update participants.
        members: of the committee.
        lines: for people: who must collude, and who is here.
    """

    signing_keys: list[SigningKeyPair]
    members: list[CommitteeMember]
    lines: list[str]


@contextmanager
def dummy_committee(transport: Transport, enrolment: str | None, folder: Path | None, threads: int) -> Iterator[DummyCommittee]:
    """Give those whose keys lie in a folder; members are closed at the end.

    Args:
        transport: the way to the coordinator.
        enrolment: the file of an enrolment; None for rounds of xaynet's profile.
        folder: with the key files.
        threads: how many each member may use.

    Raises:
        ConfigError: one of enrolment and folder without the other, an enrolment that is no file, no key of a participant, or a
            key file that cannot be read.
        StateError: as `CommitteeMember`.
    """
    if (enrolment is None) != (folder is None):
        raise ConfigError("--enrolment, --keys: expected both, or none for rounds of xaynet's profile, got one of them")
    if enrolment is None or folder is None:
        yield DummyCommittee([], [], [])
        return
    trust = EnrolmentTrust.of(enrolment)
    if trust.pinned is None:
        raise ConfigError("--enrolment: expected a file, which says whose keys are whose, got a digest or a key")
    pairs = {path: read_key_file(path) for path in sorted(folder.glob(f"*{_KEY_SUFFIX}"))}
    listed = trust.pinned
    signing_keys = [key for key in pairs.values() if listed.lists_participant(key.public_key)]
    if not signing_keys:
        raise ConfigError(f"--keys: expected key files of enrolled participants in {folder}, got {len(pairs)} others")
    with ExitStack() as stack:
        members = []
        for path, key in pairs.items():
            if key.public_key in listed.members:
                state = path.with_suffix(_STATE_SUFFIX)
                made = CommitteeMember(transport, key, enrolment, state_file=state, new=not state.exists(), threads=threads)
                members.append(stack.enter_context(made))
        here = f"{len(members)} of {len(listed.members)} members are here, {len(signing_keys)} participants"
        yield DummyCommittee(signing_keys, members, [trust.describe(listed), here])
