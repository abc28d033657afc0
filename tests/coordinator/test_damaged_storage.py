"""What a disk does to the embedded storage after a kill: any damage is refused by name, or nothing acknowledged is lost."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from pathlib import Path

import pytest
from damaged_files import FRAME_FIELDS, FRAME_HEADER, LOG_FIELDS, PAGE, DamagedFolder, database_places, flip, frames
from test_restarts import Life, steps

from pet.coordinator.storage.base import Stored, Transaction
from pet.coordinator.storage.sqlite import DATABASE_NAME, GUARD_NAME, SqliteStorage
from pet.errors import StateError, StorageError

#: What a storage holds: all but its blobs, and these.
Kept = tuple[Stored, dict[str, bytes]]
LOG_NAME = f"{DATABASE_NAME}-wal"


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[Path, Kept]:
    """The files of a coordinator that was killed in the middle of a round, and what it had acknowledged."""
    folder, copy = tmp_path_factory.mktemp("storage"), tmp_path_factory.mktemp("killed") / "state"
    storage = SqliteStorage(folder)
    run = steps(Life(storage))
    for _ in range(8):
        next(run)
    expected = content_of(storage)
    shutil.copytree(folder, copy)  # as they are while it runs
    storage.close()
    assert expected[1]
    assert (copy / LOG_NAME).stat().st_size > 10 * PAGE
    return copy, expected


@pytest.fixture
def outcome(killed, tmp_path) -> DamagedFolder:
    source, expected = killed
    return DamagedFolder(source, tmp_path, lambda folder: holds(folder, expected))


def holds(folder: Path, expected: Kept) -> bool:
    """Return whether everything acknowledged is there; False if the storage or the round is refused, as it has to be."""
    try:
        storage = SqliteStorage(folder)
    except StateError as error:
        return is_harmless(error)
    try:
        if content_of(storage) == expected:
            return True
        with pytest.raises(StateError, match="--fresh"):
            Life(storage)
        return False
    except StateError as error:
        return is_harmless(error)
    finally:
        storage.close()


def is_harmless(refusal: StateError) -> bool:
    """Return that it is not; it has to say what can be done."""
    if "--fresh" not in str(refusal):
        raise AssertionError(str(refusal)) from refusal
    return False


def content_of(storage: SqliteStorage) -> Kept:
    stored = storage.load()
    assert stored is not None
    return stored, {name: bytes(storage.read_blob(name)) for name in stored.blob_names}


def test_nothing_is_lost_without_damage(outcome):
    assert outcome(LOG_NAME, lambda data: data) == "harmless"


@pytest.mark.parametrize("field", LOG_FIELDS)
def test_a_flipped_bit_in_the_header_of_the_log_is_refused(outcome, field):
    assert outcome(LOG_NAME, flip(LOG_FIELDS[field])) == "refused"


@pytest.mark.parametrize("field", FRAME_FIELDS)
def test_a_flipped_bit_in_any_frame_of_the_log_is_refused(killed, outcome, field):
    log = (killed[0] / LOG_NAME).read_bytes()
    assert {outcome(LOG_NAME, flip(start + FRAME_FIELDS[field])) for start in frames(log)} == {"refused"}


def test_a_log_that_is_shorter_is_refused(killed, outcome):
    """Within its header, at the beginning of each frame, and within each."""
    log = (killed[0] / LOG_NAME).read_bytes()
    sizes = [0, 20, *frames(log), *(start + part for start in frames(log) for part in (10, FRAME_HEADER + 100))]
    assert {outcome(LOG_NAME, lambda data, size=size: data[:size]) for size in sizes} == {"refused"}


def test_a_log_that_is_gone_is_refused(killed, tmp_path):
    folder = tmp_path / "state"
    shutil.copytree(killed[0], folder)
    (folder / LOG_NAME).unlink()
    for _ in range(2):  # and stays so
        with pytest.raises(StateError, match=r"acknowledged messages are lost \(--fresh"):
            SqliteStorage(folder)
    storage = SqliteStorage(folder, is_fresh=True)
    assert storage.load() is None
    storage.commit(Transaction(sequence=1, state=b"1"))
    storage.close()
    SqliteStorage(folder).close()


def test_damage_to_the_database_is_refused_or_harmless(killed, outcome):
    """Its header, then the headers and cells of each page; and shorter by parts and pages."""
    size = (killed[0] / DATABASE_NAME).stat().st_size
    outcomes = [outcome(DATABASE_NAME, flip(place)) for place in database_places(size)]
    outcomes += [outcome(DATABASE_NAME, lambda data, size=size: data[:size]) for size in (0, 50, 100, PAGE, size - 1)]
    assert {"refused", "harmless"} >= set(outcomes)


@pytest.fixture
def restarted(killed, tmp_path) -> tuple[Path, Kept]:
    """The same with everything in the database, as after a start."""
    folder = tmp_path / "restarted"
    shutil.copytree(killed[0], folder)
    SqliteStorage(folder).close()
    return folder, killed[1]


def test_damage_to_a_database_without_a_log_is_refused_or_harmless(restarted):
    folder, expected = restarted
    path = folder / DATABASE_NAME
    sound = path.read_bytes()
    places = database_places(len(sound))
    damaged = [flip(place)(sound) for place in places] + [sound[:size] for size in (0, 50, 100, PAGE, len(sound) - 1)]
    outcomes = []
    for data in damaged:
        path.write_bytes(data)
        outcomes.append(holds(folder, expected))
    assert outcomes.count(False) > 10
    assert outcomes[len(places) : -1] == [False] * 4  # the last byte may be 0, which is what SQLite takes it for


@pytest.mark.parametrize("place", [0, 9, 17, 4096, 4096 + 9, 4096 + 17, 2000])
def test_one_bit_of_the_guard_is_harmless(outcome, place):
    """It has two notes; the other one is right, or one change older."""
    assert outcome(GUARD_NAME, flip(place)) == "harmless"


@pytest.mark.parametrize(("size", "expected"), [(0, "refused"), (10, "refused"), (4096, "harmless"), (4100, "harmless")])
def test_a_guard_that_is_shorter_is_refused_or_harmless(outcome, size, expected):
    assert outcome(GUARD_NAME, lambda data: data[:size]) == expected


def test_a_guard_that_is_damaged_all_over_is_refused(outcome):
    assert outcome(GUARD_NAME, lambda data: flip(9)(flip(4096 + 9)(data))) == "refused"


def test_a_kill_between_a_change_and_its_note_is_harmless(tmp_path, monkeypatch):
    """Nobody heard of the change; it counts, as one whose answer was lost."""
    storage = SqliteStorage(tmp_path / "state")
    storage.commit(Transaction(sequence=1, state=b"1"))
    with monkeypatch.context() as patch:
        patch.setattr(storage._guard, "note", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            storage.commit(Transaction(sequence=2, state=b"2"))
    storage.close()
    again = SqliteStorage(tmp_path / "state")
    assert again.load().sequence == 2
    again.commit(Transaction(sequence=3, state=b"3"))
    again.close()
    SqliteStorage(tmp_path / "state").close()


def test_a_change_that_could_not_be_noted_is_noted_when_it_is_repeated(tmp_path, monkeypatch):
    storage = SqliteStorage(tmp_path / "state")
    change = Transaction(sequence=1, state=b"1")
    with monkeypatch.context() as patch:
        patch.setattr(storage._guard, "note", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(StorageError, match="Input/output error"):
            storage.commit(change)
    storage.commit(change)
    assert storage._guard.sequence == 1
    storage.close()


def test_a_database_of_a_version_without_a_guard_is_gone_on_with(killed, tmp_path):
    folder = tmp_path / "state"
    shutil.copytree(killed[0], folder)
    (folder / GUARD_NAME).unlink()
    assert holds(folder, killed[1])
    assert (folder / GUARD_NAME).exists()


def test_the_offsets_are_those_of_the_log(killed):
    """So that the fields above are hit: each frame names a page, and the last one of a change the size of the database."""
    log = (killed[0] / LOG_NAME).read_bytes()
    mark, version, page, _, *salts = struct.unpack(">6I", log[:24])
    assert (mark & ~1, version, page) == (0x377F0682, 3007000, PAGE)
    assert all(struct.unpack(">2I", log[start + 8 : start + 16]) == tuple(salts) for start in frames(log))
    assert sqlite3.sqlite_version_info >= (3, 7)
