"""Bodies in files: read back as written, kept without a copy, bounded, and gone when nobody needs them."""

import os
import tempfile

import numpy as np
import pytest

from pet.bodies.body import MemoryBody
from pet.bodies.lent_buffers import LentBuffers
from pet.bodies.spool import Spool
from pet.errors import NoRoomError

DATA = os.urandom(3000)


class ClosingSpool(Spool):
    """Closes at the end what a test has not closed."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.made = []

    def create(self, most_bytes):
        self.made.append(super().create(most_bytes))
        return self.made[-1]


@pytest.fixture
def spool(tmp_path):
    spool = ClosingSpool(tmp_path / "spool", 10_000, reserve_bytes=0)
    yield spool
    for body in spool.made:
        body.close()
    assert spool.used_bytes == 0


def spooled(spool, data=DATA):
    body = spool.create(len(data))
    for start in range(0, len(data), 700):
        body.write(data[start : start + 700])
    return body


def read(body):
    with body.open() as buffer:
        return bytes(buffer)


@pytest.mark.parametrize("make", [spooled, lambda _: MemoryBody(DATA)])
def test_opening_leaves_a_body_sealed(spool, tmp_path, make):
    body = make(spool)
    assert body.size_bytes == len(DATA)
    with body.open() as buffer:
        assert buffer == DATA
        buffer[:] = bytes(len(buffer))
    assert read(body) == DATA
    body.keep(tmp_path / "kept")
    body.close()
    body.close()
    assert (tmp_path / "kept").read_bytes() == DATA
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("make", [spooled, lambda _: MemoryBody(DATA)])
def test_nothing_is_overwritten(spool, tmp_path, make):
    (tmp_path / "kept").write_bytes(b"earlier")
    with pytest.raises(FileExistsError):
        make(spool).keep(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"earlier"


def test_files_have_no_name_until_they_are_kept(spool):
    body = spooled(spool)
    assert not list(spool.folder.iterdir())
    inode = os.fstat(body._file.fileno()).st_ino
    body.keep(spool.folder / "kept")
    assert (spool.folder / "kept").stat().st_ino == inode  # not a copy


def test_where_files_cannot_be_without_a_name(spool, tmp_path, monkeypatch):
    """As on systems other than Linux: deleted at once, and copied to be kept."""
    monkeypatch.delattr(os, "O_TMPFILE")
    monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", False)
    body = spooled(spool)
    assert not list(spool.folder.iterdir())
    body.keep(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == DATA == read(body)
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600


def test_room_is_bounded_and_given_back(spool):
    first, second = spool.create(6000), spool.create(4000)
    assert not spool.has_room(1)
    with pytest.raises(NoRoomError, match="room for 1 bytes, got 0 left"):
        spool.create(1)
    second.close()
    second.close()
    assert (spool.has_room(4000), spool.has_room(4001)) == (True, False)
    first.close()
    assert spool.used_bytes == 0


def test_a_body_larger_than_the_spool_has_it_to_itself(spool):
    body = spool.create(20_000)
    assert not spool.has_room(1)
    body.close()
    assert spool.has_room(20_000)


def test_a_body_cannot_become_larger_than_announced(spool):
    body = spool.create(10)
    body.write(bytes(10))
    with pytest.raises(NoRoomError, match="at most 10 bytes, got 11"):
        body.write(b"x")
    assert body.size_bytes == 10


def test_a_failure_to_make_a_file_takes_no_room(spool):
    spool.folder.rmdir()
    with pytest.raises(OSError, match="No such file"):
        spool.create(10)
    assert spool.used_bytes == 0


def test_a_file_that_lost_its_end_is_no_body(spool):
    body = spooled(spool)
    os.truncate(body._file.fileno(), 100)
    with pytest.raises(OSError, match="expected 3000, got 100"), body.open():
        pass


def test_one_buffer_serves_all_bodies(spool):
    bodies = [spooled(spool, DATA[:size]) for size in (100, 3000, 50)]
    for body in bodies:
        assert read(body) == DATA[: body.size_bytes]
    (buffer,) = spool._buffers._free
    assert len(buffer) == 3000
    assert read(bodies[0]) == DATA[:100]
    assert spool._buffers._free[0] is buffer


def test_a_buffer_that_is_still_looked_at_is_not_used_again(spool):
    body = spooled(spool)
    with body.open() as buffer:
        view = np.frombuffer(buffer, dtype=np.uint8)
    assert not spool._buffers._free
    other = spooled(spool, bytes(3000))
    with other.open():
        assert view.tobytes() == DATA


def test_without_a_folder_the_temporary_one_is_used(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert Spool(None, 1).folder == tmp_path


def test_what_will_be_kept_is_written_while_it_is_opened(tmp_path, monkeypatch):
    written, closed = [], []
    fdatasync, close = os.fdatasync, os.close
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (written.append(descriptor), fdatasync(descriptor)))
    monkeypatch.setattr(os, "close", lambda descriptor: (closed.append(descriptor), close(descriptor)))
    spool = Spool(tmp_path / "spool", 10_000, expects_keeping=True)
    body = spool.create(5000)
    body.write(DATA)
    closed.clear()  # this number may have been another file's
    for _ in range(2):
        with body.open() as buffer:
            assert bytes(buffer) == DATA
    body._writing.result()
    assert written[0] in closed
    body.keep(tmp_path / "kept")
    body.close()
    assert (tmp_path / "kept").read_bytes() == DATA
    assert len(written) == 1


def test_a_disk_that_fails_meanwhile_is_told_when_the_body_is_kept(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    spool = Spool(tmp_path / "spool", 10_000, expects_keeping=True)
    body = spool.create(5000)
    body.write(DATA)
    with body.open():
        pass
    with pytest.raises(OSError, match="Input/output"):
        body.keep(tmp_path / "kept")
    body.close()
    assert not (tmp_path / "kept").exists()


def test_buffers_of_bodies_that_were_open_together_are_kept_up_to_a_bound(monkeypatch):
    buffers = LentBuffers()
    with buffers.lend(1000), buffers.lend(1000):
        pass
    assert [len(buffer) for buffer in buffers._free] == [1000, 1000]
    monkeypatch.setattr("pet.bodies.lent_buffers._MAX_KEPT_BYTES", 1500)
    with buffers.lend(1000), buffers.lend(1000):
        pass
    assert [len(buffer) for buffer in buffers._free] == [1000]
