"""Uploads in chunks: every chunk once, digested as it was written, counted with all other bodies, resumed or evicted."""

import asyncio
import hashlib
import os
import random
import time

import pytest

from pet.bodies.memory_budget import MemoryBudget
from pet.bodies.spool import Spool
from pet.bodies.upload_folder import ABANDONED_SECONDS, UploadFolder
from pet.errors import NoRoomError
from pet.transports.nats.frames import UploadOffer

CHUNK, COUNT = 2**18, 7
SIZE = CHUNK * COUNT - 1000
MIB = 2**20


def offer_of(body, number=0):
    return UploadOffer(
        upload_id=bytes([number]) * 16,
        size_bytes=len(body),
        sha256=hashlib.sha256(body).digest(),
        kind="test",
        round="",
        chunk_bytes=CHUNK,
    )


def chunk_of(body, index):
    return index, memoryview(body)[index * CHUNK : (index + 1) * CHUNK]


def folder_of(path, tmp_path, spool_bytes=20 * MIB):
    return UploadFolder(
        path, Spool(tmp_path / "spool", spool_bytes, reserve_bytes=0), MemoryBudget(MIB), UploadOffer.from_bytes
    )


@pytest.mark.parametrize("size", [SIZE, 3 * 2**18], ids=["file", "memory"])
def test_what_comes_first_is_written_and_digested(tmp_path, size):
    """Also where another chunk of the same number comes in the same breath, and in whatever order."""
    source = random.Random(1)
    body, other = source.randbytes(size), source.randbytes(size)
    upload = folder_of(None, tmp_path).open("peer", offer_of(body))
    count = upload.plan.chunk_count
    pending = [chunk_of(body, index) for index in source.sample(range(count), count)]
    while pending:
        some, pending = pending[:3], pending[3:]
        twice = [each for chunk in some for each in (chunk, chunk_of(other, chunk[0]))]
        assert upload.write(twice) == some
        assert upload.write(twice) == []
        for index, data in some:
            upload.digest_more(index, data)
    assert upload.is_whole
    assert not list((tmp_path / "spool").iterdir())  # nothing that a killed process could leave
    taken = upload.take(upload.plan.sha256)
    assert taken is not None
    with taken.open() as data:
        assert data == body
    taken.keep(tmp_path / "kept")
    taken.close()
    assert (tmp_path / "kept").read_bytes() == body


def test_a_bit_is_set_when_its_chunk_is_noted(tmp_path, monkeypatch):
    """So that no chunk is reported that the next process would not know of."""
    body = random.Random(2).randbytes(SIZE)
    folder = folder_of(tmp_path / "uploads", tmp_path)
    upload = folder.open("peer", offer_of(body))
    upload.write([chunk_of(body, 0), chunk_of(body, 3)])
    noted = []
    monkeypatch.setattr(upload._store, "keep_bitmap", lambda bitmap: noted.append((bytes(upload.bitmap), bytes(bitmap))))
    upload.write([chunk_of(body, 4), chunk_of(body, 5)])
    (before, after), now = noted[0], bytes(upload.bitmap)
    assert after == now != before
    upload.close()
    again = folder.open("peer", offer_of(body))
    assert bytes(again.bitmap) == before
    again.discard()
    assert not list((tmp_path / "uploads").iterdir())


def test_a_whole_upload_with_a_name_is_kept_without_a_copy(tmp_path):
    body = random.Random(3).randbytes(SIZE)
    folder = folder_of(tmp_path / "uploads", tmp_path)
    upload = folder.open("peer", offer_of(body))
    upload.write([chunk_of(body, index) for index in range(COUNT)])
    taken = upload.take(upload.plan.sha256)
    (path,) = (tmp_path / "uploads").glob("*.upload")
    inode = path.stat().st_ino
    taken.keep(tmp_path / "kept")
    taken.close()
    assert (tmp_path / "kept").stat().st_ino == inode
    assert (tmp_path / "kept").read_bytes() == body
    assert not list((tmp_path / "uploads").iterdir())


def half_of(folder, number):
    """Begin an upload and leave it; returns the files that are left."""
    body = random.Random(number).randbytes(SIZE)
    upload = folder.open("peer", offer_of(body, number))
    upload.write([chunk_of(body, 0)])
    upload.close()
    return body


def test_what_is_left_counts_until_room_is_needed(tmp_path):
    """Then the longest idle goes first; in the next process as in this one."""
    uploads = tmp_path / "uploads"
    folder = folder_of(uploads, tmp_path, 3 * SIZE)
    bodies = [half_of(folder, number) for number in range(3)]
    for number, path in enumerate(sorted(uploads.glob("*.upload"))):
        os.utime(path, (time.time() - 100 + number,) * 2)
    spool = Spool(tmp_path / "spool", 3 * SIZE, reserve_bytes=0)
    after = UploadFolder(uploads, spool, MemoryBudget(MIB), UploadOffer.from_bytes)
    assert spool.used_bytes == 3 * SIZE
    assert spool.has_room(3 * SIZE)
    holding = spool.reserve(SIZE)
    assert spool.used_bytes == 3 * SIZE
    assert len(list(uploads.iterdir())) == 4  # two, with their notes
    assert not any(after.find("peer", offer_of(bodies[0], 0))[1])
    assert any(after.find("peer", offer_of(bodies[1], 1))[1])
    again = after.open("peer", offer_of(bodies[1], 1))
    assert spool.used_bytes == 2 * SIZE  # who goes on reserves room like everybody else
    again.discard()
    spool.give_back(holding)
    assert spool.used_bytes == SIZE
    assert [peer for peer, _ in after.restore()] == ["peer"]


def test_what_was_given_up_is_removed_at_the_start(tmp_path):
    uploads = tmp_path / "uploads"
    half_of(folder_of(uploads, tmp_path), 1)
    (path,) = uploads.glob("*.upload")
    os.utime(path, (time.time() - ABANDONED_SECONDS - 10,) * 2)
    (uploads / "peer-00.upload").write_bytes(b"nobody knows what this is")
    spool = Spool(tmp_path / "spool", 20 * MIB)
    UploadFolder(uploads, spool, MemoryBudget(MIB), UploadOffer.from_bytes)
    assert not list(uploads.iterdir())
    assert spool.used_bytes == 0


def test_small_uploads_count_in_memory_and_large_ones_in_the_spool(tmp_path):
    async def use():
        spool, memory = Spool(tmp_path, 2 * MIB, reserve_bytes=0), MemoryBudget(MIB, reserve_bytes=0)
        folder, ended = UploadFolder(None, spool, memory, UploadOffer.from_bytes), []
        room = folder.reserve("one", 600_000, lambda: ended.append("one"))
        assert (spool.used_bytes, memory.free_bytes) == (0, MIB - 600_000)
        with pytest.raises(NoRoomError, match="600000 bytes of free memory"):
            folder.reserve("other", 600_000, ended.clear)
        room.give_back()
        room.give_back()
        assert memory.free_bytes == MIB
        room = folder.reserve("one", 2 * MIB, lambda: ended.append("one"))
        assert spool.used_bytes == 2 * MIB
        assert not folder.has_room("other", 2 * MIB)
        with pytest.raises(NoRoomError, match="spool"):
            folder.reserve("other", 2 * MIB, ended.clear)
        room.give_back()
        assert (spool.used_bytes, ended) == (0, [])

    asyncio.run(use())


@pytest.mark.parametrize("size", [300_000, 3 * MIB], ids=["memory", "spool"])
def test_who_holds_most_makes_way_for_who_holds_less(tmp_path, size):
    """Its newest upload goes first; one that is whole stays."""

    async def use():
        spool, memory = Spool(tmp_path, 9 * MIB, reserve_bytes=0), MemoryBudget(900_000, reserve_bytes=0)
        folder, ended = UploadFolder(None, spool, memory, UploadOffer.from_bytes), []
        rooms = [folder.reserve("one", size, lambda number=number: ended.append(number)) for number in range(3)]
        assert not folder.has_room("one", size)
        rooms[2].keep()
        rooms.append(folder.reserve("other", size, ended.clear))
        assert ended == [1]
        with pytest.raises(NoRoomError):
            folder.reserve("other", size, ended.clear)  # it would have as much as the first one
        for room in rooms:
            room.give_back()
        assert (spool.used_bytes, memory.free_bytes) == (0, 900_000)

    asyncio.run(use())


def test_an_upload_larger_than_the_memory_has_to_wait_for_a_share_only(tmp_path):
    """It is charged for what one sender can get: others that hold a little keep it out no more than when it is reserved."""

    async def use():
        memory = MemoryBudget(160_000)
        folder = UploadFolder(None, Spool(tmp_path, MIB), memory, UploadOffer.from_bytes)
        small = folder.reserve("other", 1000, lambda: None)
        assert folder.has_room("one", 600_000)
        large = folder.reserve("one", 600_000, lambda: None)
        assert memory.free_bytes == 160_000 - 1000 - 120_000
        assert not folder.has_room("third", 600_000)
        small.give_back()
        large.give_back()
        assert memory.free_bytes == 160_000

    asyncio.run(use())
