"""Where uploads over NATS are put: every chunk once, and digested as it was written."""

import hashlib
import random
import subprocess
import sys
import tempfile

import pytest

from pet.transports.nats.frames import UploadOffer
from pet.transports.nats.spool import SpoolRoom

CHUNK, COUNT = 2**18, 7
SIZE = CHUNK * COUNT - 1000


def offer_of(body):
    digest = hashlib.sha256(body).digest()
    return UploadOffer(upload_id=bytes(16), size_bytes=len(body), sha256=digest, kind="test", round="", chunk_bytes=CHUNK)


def chunk_of(body, index):
    return index, memoryview(body)[index * CHUNK : (index + 1) * CHUNK]


@pytest.mark.parametrize("size", [SIZE, 3 * 2**18], ids=["file", "memory"])
def test_what_comes_first_is_written_and_digested(tmp_path, size):
    """Also where another chunk of the same number comes in the same breath, and in whatever order."""
    source = random.Random(1)
    body, other = source.randbytes(size), source.randbytes(size)
    room = SpoolRoom(None)
    spool = room.open("peer", offer_of(body))
    count = spool.offer.chunk_count
    pending = [chunk_of(body, index) for index in source.sample(range(count), count)]
    while pending:
        some, pending = pending[:3], pending[3:]
        twice = [each for chunk in some for each in (chunk, chunk_of(other, chunk[0]))]
        assert spool.write(twice) == some
        assert spool.write(twice) == []
        for index, data in some:
            spool.digest_more(index, data)
    assert spool.is_whole
    taken = spool.take(spool.offer.sha256)
    assert taken is not None
    with taken.open() as data:
        assert data == body
    taken.close()
    room.close()


def test_a_bit_is_set_when_its_chunk_is_noted(tmp_path, monkeypatch):
    """So that no chunk is reported that the next process would not know of."""
    body = random.Random(2).randbytes(SIZE)
    room = SpoolRoom(tmp_path)
    spool = room.open("peer", offer_of(body))
    spool.write([chunk_of(body, 0), chunk_of(body, 3)])
    noted = []
    monkeypatch.setattr(spool._store, "keep_bitmap", lambda bitmap: noted.append((bytes(spool.bitmap), bytes(bitmap))))
    spool.write([chunk_of(body, 4), chunk_of(body, 5)])
    (before, after), now = noted[0], bytes(spool.bitmap)
    assert after == now != before
    spool.close()
    again = room.open("peer", offer_of(body))
    assert bytes(again.bitmap) == before
    again.discard()


HOLDER = """
import sys, time
from pet.transports.nats.spool import SpoolRoom
room = SpoolRoom(None)
print(room._folder, flush=True)
time.sleep(600)
"""


def test_what_a_killed_process_left_is_removed(tmp_path, monkeypatch):
    """By the next one; what another process uses stays, and what only looks alike."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "pet-nats-other").mkdir()
    holders = [subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        folders = [holder.stdout.readline().strip() for holder in holders]
        SpoolRoom(None).close()
        assert sorted(map(str, tmp_path.iterdir())) == sorted([str(tmp_path / "pet-nats-other"), *folders])
        holders[0].kill()
        holders[0].wait()
        room = SpoolRoom(None)
        assert {str(path) for path in tmp_path.iterdir()} == {str(tmp_path / "pet-nats-other"), folders[1], str(room._folder)}
        room.close()
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
