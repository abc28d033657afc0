"""Bodies on their way: in memory while small, in a file from then on, refused or given up when there is no room."""

import asyncio
import contextlib
import itertools
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from pet.bodies.body import MemoryBody
from pet.bodies.incoming import SMALL_BODY_BYTES, Intake
from pet.bodies.memory_budget import SMALL_MESSAGE_BYTES, MemoryBudget
from pet.bodies.spool import Spool, SpooledBody
from pet.errors import ReservationLostError, ServiceBusyError

MIB = 2**20
DATA = os.urandom(5 * MIB)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


class Place:
    """An intake with its spool and its budget."""

    def __init__(self, folder, spool_bytes=20 * MIB, patience_seconds=30.0):
        self.spool = Spool(folder, spool_bytes, reserve_bytes=0)
        self.budget = MemoryBudget(8 * MIB)
        self.threads = ThreadPoolExecutor(1)
        self.intake = Intake(self.budget, self.spool, self.threads, patience_seconds)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.threads.shutdown()
        assert error[0] or (self.spool.used_bytes, self.budget.free_bytes) == (0, 8 * MIB)


async def feed(body, data, step=65_536):
    for start in range(0, len(data), step):
        await body.append(data[start : start + step])


def read(body):
    with body.open() as buffer:
        return bytes(buffer)


@pytest.mark.parametrize("size", [0, 1, SMALL_BODY_BYTES, SMALL_BODY_BYTES + 1, 5 * MIB])
@pytest.mark.parametrize("step", [1000, 65_536, 3 * MIB])
def test_bodies_come_out_as_they_went_in(tmp_path, size, step):
    async def scenario(place):
        async with place.intake.receive_body(size) as incoming:
            await feed(incoming, DATA[:size], step)
            assert incoming.size_bytes == size
            body = await incoming.finish()
            assert isinstance(body, MemoryBody if size <= SMALL_BODY_BYTES else SpooledBody)
        assert read(body) == DATA[:size]  # its own master now
        body.close()

    with Place(tmp_path) as place:
        run(scenario(place))


def test_pieces_of_all_sizes_stay_in_order(tmp_path):
    async def scenario(place):
        sizes, start = itertools.cycle([1, 70_000, 65_536, 5, 65_535, 3, 200_000]), 0
        async with place.intake.receive_body(len(DATA)) as incoming:
            while start < len(DATA):
                size = next(sizes)
                await incoming.append(DATA[start : start + size])
                start += size
            body = await incoming.finish()
        assert read(body) == DATA
        body.close()

    with Place(tmp_path) as place:
        run(scenario(place))


def test_tiny_pieces_take_no_more_memory_than_their_bytes(tmp_path):
    async def scenario(place):
        async with place.intake.receive_body(SMALL_BODY_BYTES) as incoming:
            tracemalloc.start()
            for _ in range(20_000):
                await incoming.append(b"x")
            held_bytes, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert held_bytes < 60_000

    with Place(tmp_path) as place:
        run(scenario(place))


def test_a_large_body_costs_little_memory_and_no_disk_before_it_comes(tmp_path):
    async def scenario(place):
        async with place.intake.receive_body(20 * MIB) as incoming:
            await feed(incoming, DATA[:MIB])
            assert place.spool.used_bytes == 0
            await feed(incoming, DATA)
            assert place.spool.used_bytes == 20 * MIB
            assert place.budget.free_bytes == 7 * MIB
            assert len(incoming._pending) < MIB

    with Place(tmp_path) as place:
        run(scenario(place))


def test_a_full_spool_refuses_before_anything_is_read(tmp_path):
    async def scenario(place):
        async with place.intake.receive_body(12 * MIB) as first:
            await feed(first, DATA)
            with pytest.raises(ServiceBusyError, match="room for 9437184 bytes"):
                async with place.intake.receive_body(9 * MIB):
                    pass
            async with place.intake.receive_body(8 * MIB) as second:  # fits beside it
                await feed(second, DATA)
            async with place.intake.receive_body(MIB):  # needs no file
                pass

    with Place(tmp_path) as place:
        run(scenario(place))


def test_of_bodies_that_begin_together_those_without_room_are_refused_at_their_first_file(tmp_path):
    async def scenario(place):
        async with place.intake.receive_body(12 * MIB) as first, place.intake.receive_body(12 * MIB) as second:
            await feed(first, DATA)
            await feed(second, DATA[:MIB])
            with pytest.raises(ServiceBusyError, match="got 8388608 left"):
                await feed(second, DATA)

    with Place(tmp_path) as place:
        run(scenario(place))


def test_a_body_that_does_not_come_on_gives_way(tmp_path):
    async def scenario(place):
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(pytest.raises(ReservationLostError))
            slow = await stack.enter_async_context(place.intake.receive_body(12 * MIB))
            await feed(slow, DATA)
            with pytest.raises(ServiceBusyError):
                async with place.intake.receive_body(12 * MIB):
                    pass
            await asyncio.sleep(0.2)  # nobody waits, but somebody is refused
            with pytest.raises(ServiceBusyError):
                async with place.intake.receive_body(12 * MIB):
                    pass
            await asyncio.sleep(10)
        async with place.intake.receive_body(12 * MIB) as next_one:
            await feed(next_one, DATA)

    with Place(tmp_path, patience_seconds=0.1) as place:
        run(scenario(place))


def test_when_others_wait_for_memory_new_bodies_are_refused(tmp_path):
    async def scenario(place):
        async with contextlib.AsyncExitStack() as stack:
            for size in [MIB] * 6 + [SMALL_MESSAGE_BYTES] * 16:
                await (await stack.enter_async_context(place.budget.reserve(size))).grow(size)
            incoming = await stack.enter_async_context(place.intake.receive_body(10))
            waiting = asyncio.create_task(incoming.append(b"x"))
            await asyncio.sleep(0)
            with pytest.raises(ServiceBusyError, match="others that wait"):
                async with place.intake.receive_body(10):
                    pass
            async with place.intake.receive_body(10, "somebody else") as of_another:
                await of_another.append(b"x")
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting

    with Place(tmp_path) as place:
        run(scenario(place))


@pytest.mark.parametrize("place_of_failure", [(SpooledBody, "write"), (Spool, "create")])
def test_a_disk_that_fails_is_said_and_gives_everything_back(tmp_path, monkeypatch, caplog, place_of_failure):
    def fail(*_):
        raise OSError("disk full")

    async def scenario(place):
        monkeypatch.setattr(*place_of_failure, fail)
        with pytest.raises(ServiceBusyError, match="spool that can be written"):
            async with place.intake.receive_body(5 * MIB) as incoming:
                await feed(incoming, DATA)

    with Place(tmp_path) as place:
        run(scenario(place))
    assert "disk full" in caplog.text


def test_a_reader_that_is_cancelled_leaves_nothing(tmp_path):
    async def scenario(place):
        async def receive():
            async with place.intake.receive_body(5 * MIB) as incoming:
                await feed(incoming, DATA[: 2 * MIB])
                await asyncio.Event().wait()

        task = asyncio.create_task(receive())
        while not place.spool.used_bytes:
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with Place(tmp_path) as place:
        run(scenario(place))
