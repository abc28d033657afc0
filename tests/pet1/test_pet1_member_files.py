"""A member's state on disk: begun once, used by one process, and never an older one than what was sent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pet1_drivers import DrivenRound, tick_all

from pet.errors import ConfigError, StateError, TransportError
from pet.participant.member_state import MemberFile


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DrivenRound]:
    with closing(DrivenRound(tmp_path)) as made:
        yield made


def test_a_state_is_begun_once_and_expected_from_then_on(world: DrivenRound) -> None:
    with pytest.raises(StateError, match="begins with --new"):
        world.member(0, new=False)
    world.member(0)
    with pytest.raises(StateError, match="its only user"):
        world.member(0)
    world.close_member(0)
    with pytest.raises(StateError, match="without --new"):
        world.member(0, new=True)
    world.member(0)  # it never was in a round, and is there nevertheless
    assert b"do not restore this from a backup" in (world.folder / "member-0.state").read_bytes()


def test_a_copy_from_a_backup_is_refused(world: DrivenRound, tmp_path: Path) -> None:
    file, note = world.folder / "member-0.state", world.folder / "member-0.state.changes"
    world.member(0)
    backup = shutil.copy(file, tmp_path / "backup")
    tick_all([world._members[0]])
    world.close_member(0)
    newest = file.read_bytes()
    shutil.copy(backup, file)
    with pytest.raises(StateError, match="older than what the member sent"):
        world.member(0)
    file.write_bytes(newest)
    note.rename(tmp_path / "elsewhere")  # a copy on another machine has no note
    with pytest.raises(StateError, match="the state was copied from somewhere"):
        world.member(0)
    file.unlink()
    shutil.move(tmp_path / "elsewhere", note)  # what was lost is not begun anew by mistake
    with pytest.raises(StateError, match="a state that is gone"):
        world.member(0, new=True)
    file.write_bytes(newest)
    file.chmod(0o600)
    member = world.member(0)
    tick_all([member])
    assert member.status.phase == "committee"


def test_a_kill_before_the_first_state_has_lost_nothing(world: DrivenRound, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pet.participant.state_file.replace_file", fail)
        with pytest.raises(StateError, match="No space left"):
            world.member(0, new=True)
    assert (world.folder / "member-0.state.changes").exists()
    tick_all([world.member(0, new=True)])


@pytest.mark.parametrize("damage", ["cut", "format", "changes", "peer"])
def test_damaged_states_are_refused(world: DrivenRound, damage: str) -> None:
    file = world.folder / "member-0.state"
    world.member(0)
    world.close_member(0)
    data = file.read_bytes()
    record = json.loads(data)
    changed = {"format": 2, "changes": "1", "peer": []}
    file.write_bytes(data[:-3] if damage == "cut" else json.dumps(record | {damage: changed[damage]}).encode())
    with pytest.raises(StateError, match="state file"):
        world.member(0)
    file.write_bytes(data)
    world.member(0)  # the lock was released each time


def test_nothing_is_sent_that_is_not_durable(world: DrivenRound, monkeypatch: pytest.MonkeyPatch) -> None:
    member = world.member(0)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pet.participant.state_file.replace_file", fail)
    with pytest.raises(StateError, match="No space left"):
        tick_all([member])
    assert world.transport.sent == []
    with pytest.raises(StateError, match="No space left"):
        member.run()


def test_a_number_of_changes_that_cannot_be_noted_sends_nothing(world: DrivenRound, monkeypatch: pytest.MonkeyPatch) -> None:
    member = world.member(0)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pet.change_guard.Guard.note", fail)
    with pytest.raises(StateError, match="to note a change"):
        tick_all([member])
    assert world.transport.sent == []


def test_a_file_is_closed_where_its_member_cannot_begin(world: DrivenRound, tmp_path: Path) -> None:
    path = tmp_path / "odd.state"
    MemberFile(path, is_new=True).close()
    record = json.loads(path.read_bytes())
    record["peer"]["role"] = "update participant"
    path.write_bytes(json.dumps(record).encode())
    for _ in range(2):
        with pytest.raises(StateError, match="another role"):
            world.member(0, state_file=path, new=False)


def test_an_unreachable_coordinator_is_waited_for(world: DrivenRound, caplog: pytest.LogCaptureFixture) -> None:
    """Logged once, and once that it answers again; `run` goes on, and `stop` ends it."""
    member = world.member(0)
    world.transport.error = TransportError("nobody there")
    for _ in range(5):
        member.tick()
    assert not member.status.is_connected
    world.transport.error = None
    tick_all([member])
    assert [
        record.getMessage().split(": ", 2)[2].split(";")[0] for record in caplog.records if record.levelname == "WARNING"
    ] == [
        "nobody there",
        "works again after 0 s",
    ]
    member.stop()
    member.run()  # which returns at once
    assert member.status.phase == "committee"


def test_what_cannot_be_an_enrolment_is_refused(world: DrivenRound, tmp_path: Path) -> None:
    odd = tmp_path / "odd.enrolment"
    odd.write_bytes(world.parties.enrolment.sign(world.parties.authority)[:-70])
    for source, expected in ((b"short", "32 bytes"), (tmp_path / "nowhere", "an enrolment"), (3, "a path"), (odd, "enrolment")):
        with pytest.raises(ConfigError, match=expected):
            world.member(0, enrolment=source)
    signed = tmp_path / "trial.enrolment"
    signed.write_bytes(world.parties.enrolment.sign(world.parties.authority))
    member = world.member(0, enrolment=str(signed))
    tick_all([member])
    assert "any 3 of" in (member.status.protection or "")
