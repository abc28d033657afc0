"""Pieces of messages in one file: what comes out is what went in, and room is used again."""

from __future__ import annotations

import os
import random

import pytest

from pet.bodies.chunk_file import BLOCK_BYTES, ChunkFile
from pet.messages import ChunkCollector, ChunkLimits, MemoryChunkStore, Tag, split_payload

LIMITS = ChunkLimits(max_bytes_per_participant=10**8, max_bytes=10**8, max_messages=100, patience_seconds=60)


@pytest.fixture
def store(tmp_path):
    return ChunkFile(tmp_path / "spool")


def test_it_does_what_memory_does(store):
    """Random pieces of several messages in turn, some of them replaced."""
    source = random.Random(1)
    piles, models, extents = [], [], []
    for _ in range(4):
        piles.append(store.create())
        models.append(MemoryChunkStore().create())
        extents.append([])
    for _ in range(300):
        number = source.randrange(4)
        pile, model, known = piles[number], models[number], extents[number]
        data = source.randbytes(source.choice([0, 1, 100, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 5]))
        fitting = [extent for extent in known if extent[1] == len(data)]
        if fitting and source.random() < 0.3:
            start, _ = source.choice(fitting)
            pile.overwrite(start, data)
            model.overwrite(start, data)
        else:
            start = pile.append(data)
            assert model.append(data) == start
            known.append((start, len(data)))
    for pile, model, known in zip(piles, models, extents, strict=True):
        assert pile.read(known) == model.read(known)
        source.shuffle(known)
        assert pile.read(known[:20]) == model.read(known[:20])
    for pile in piles:
        pile.close()


def test_payloads_of_many_participants_in_any_order(store):
    collector = ChunkCollector(LIMITS, store)
    payloads = {os.urandom(32): os.urandom(200_000 + size) for size in range(5)}
    parts = [(key, chunk) for key, payload in payloads.items() for chunk in split_payload([payload], 5000, 1)]
    random.Random(2).shuffle(parts)
    whole = {}
    for key, chunk in parts:
        if (payload := collector.add(key, Tag.UPDATE, chunk)) is not None:
            whole[key] = payload
    assert whole == payloads
    assert store.size_bytes == 0


def test_room_is_used_again(store):
    first, second = store.create(), store.create()
    first.append(bytes(10 * BLOCK_BYTES))
    second.append(bytes(BLOCK_BYTES))
    assert store.size_bytes == 11 * BLOCK_BYTES
    first.close()
    third = store.create()
    third.append(b"x" * 10 * BLOCK_BYTES)
    assert store.size_bytes == 11 * BLOCK_BYTES
    assert second.read([(0, BLOCK_BYTES)]) == bytes(BLOCK_BYTES)
    second.close()
    third.close()
    assert (store.size_bytes, store._file) == (0, None)


def test_nothing_is_on_disk_before_a_chunk_comes(store, tmp_path):
    pile = store.create()
    assert store._file is None
    pile.append(b"x")
    assert not list((tmp_path / "spool").iterdir())  # it has no name
    pile.close()
    assert store._file is None


def test_a_piece_that_cannot_be_written_leaves_the_others(store, monkeypatch):
    pile = store.create()
    pile.append(b"first")

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("pet.bodies.chunk_file.write_all", fail)
        with pytest.raises(OSError, match="disk full"):
            pile.append(b"second")
    assert pile.append(b"third") == 5
    assert pile.read([(5, 5), (0, 5)]) == b"thirdfirst"
    pile.close()
