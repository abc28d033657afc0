"""Batches: what waits goes together, everybody gets its own outcome, and nobody's memory is forgotten."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pet.bodies.body import MemoryBody
from pet.bodies.incoming import SMALL_BODY_BYTES
from pet.coordinator.batches import MAX_BATCH, Batches
from pet.errors import StorageError

BUSY = StorageError("busy")
LARGE = bytes(SMALL_BODY_BYTES + 1)


class Body(MemoryBody):
    """A body that counts how often it was closed."""

    closed = 0

    def close(self):
        self.closed += 1
        super().close()


class Handler:
    """Handles batches when the test lets it, and notes them."""

    def __init__(self):
        self.batches, self.at_work, self.most_at_work = [], 0, 0
        self.may_go_on = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, bodies):
        with self._lock:
            self.batches.append(list(bodies))
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
        assert self.may_go_on.wait(30)
        with self._lock:
            self.at_work -= 1
        return [BUSY if body.size_bytes == 13 else None for body in bodies]


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def run(scenario, workers=1):
    async def in_loop():
        handler = Handler()
        with ThreadPoolExecutor(2 * workers) as threads:
            try:
                await asyncio.wait_for(scenario(Batches(handler, threads, workers), handler), 60)
            finally:
                handler.may_go_on.set()

    asyncio.run(in_loop())


def test_what_comes_while_the_worker_is_busy_goes_together():
    async def scenario(batches, handler):
        first = batches.put(Body(bytes(1)))
        await until(lambda: handler.batches)
        others = [batches.put(Body(bytes(size))) for size in (2, 13, 3)]
        await asyncio.sleep(0)
        handler.may_go_on.set()
        assert await asyncio.gather(first, *others) == [None, None, BUSY, None]
        assert [[body.closed for body in batch] for batch in handler.batches] == [[1], [1, 1, 1]]

    run(scenario)


def test_what_comes_in_one_turn_of_the_loop_goes_together():
    async def scenario(batches, handler):
        handler.may_go_on.set()
        await asyncio.gather(*(batches.put(Body(bytes(1))) for _ in range(5)))
        assert [len(batch) for batch in handler.batches] == [5]

    run(scenario)


def test_what_comes_while_more_arrives_goes_together():
    async def scenario(batches, handler):
        handler.may_go_on.set()
        outcomes = []
        for _ in range(3):
            outcomes.append(batches.put(Body(bytes(1))))
            await asyncio.sleep(0)
        await asyncio.gather(*outcomes)
        assert [len(batch) for batch in handler.batches] == [3]

    run(scenario, workers=2)


def test_a_free_worker_beside_a_busy_one_waits_for_as_many_as_that_has_but_not_for_many():
    async def scenario(batches, handler):
        outcomes = [batches.put(Body(bytes(1))) for _ in range(3)]
        await until(lambda: handler.batches)
        outcomes += [batches.put(Body(bytes(1))) for _ in range(2)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert [len(batch) for batch in handler.batches] == [3]
        outcomes.append(batches.put(Body(bytes(1))))
        await until(lambda: len(handler.batches) == 2)
        handler.may_go_on.set()
        await asyncio.gather(*outcomes)
        assert [len(batch) for batch in handler.batches] == [3, 3]
        handler.may_go_on.clear()
        outcomes = [batches.put(Body(bytes(1))) for _ in range(MAX_BATCH)]
        await until(lambda: len(handler.batches) == 4)
        handler.may_go_on.set()
        await asyncio.gather(*outcomes)

    run(scenario, workers=2)


def test_the_few_that_waited_go_when_the_busy_worker_is_free():
    async def scenario(batches, handler):
        outcomes = [batches.put(Body(bytes(1))) for _ in range(3)]
        await until(lambda: handler.batches)
        outcomes.append(batches.put(Body(bytes(1))))
        handler.may_go_on.set()
        await asyncio.gather(*outcomes)
        assert [len(batch) for batch in handler.batches] == [3, 1]

    run(scenario, workers=2)


def test_many_are_shared_among_free_workers_and_no_batch_is_too_large():
    async def scenario(batches, handler):
        outcomes = [batches.put(Body(bytes(1))) for _ in range(20)]
        await until(lambda: len(handler.batches) == 2)
        assert sorted(len(batch) for batch in handler.batches) == [10, 10]
        outcomes += [batches.put(Body(bytes(1))) for _ in range(3 * MAX_BATCH)]
        handler.may_go_on.set()
        await asyncio.gather(*outcomes)
        assert max(len(batch) for batch in handler.batches) <= MAX_BATCH

    run(scenario, workers=2)


def test_bodies_that_take_long_are_shared_though_they_are_few():
    async def scenario(batches, handler):
        outcomes = [batches.put(Body(bytes(70_000))) for _ in range(8)]
        await until(lambda: len(handler.batches) == 2)
        assert [len(batch) for batch in handler.batches] == [4, 4]
        handler.may_go_on.set()
        await asyncio.gather(*outcomes)

    run(scenario, workers=2)


def test_large_bodies_are_handled_at_the_same_time_alone_and_do_not_hold_up_small_ones():
    async def scenario(batches, handler):
        outcomes = [batches.put(Body(LARGE)) for _ in range(3)]
        await until(lambda: len(handler.batches) == 2)
        outcomes += [batches.put(Body(bytes(1))), batches.put(Body(bytes(2)))]
        await until(lambda: len(handler.batches) == 3)
        assert [len(batch) for batch in handler.batches] == [1, 1, 2]
        handler.may_go_on.set()
        await asyncio.gather(*outcomes)
        assert len(handler.batches) == 4

    run(scenario, workers=2)


def test_large_bodies_that_would_take_too_much_memory_wait_for_each_other(monkeypatch):
    monkeypatch.setattr("pet.coordinator.batches._MAX_OPEN_BYTES", len(LARGE))

    async def scenario(batches, handler):
        outcomes = [batches.put(Body(LARGE)) for _ in range(3)]
        await until(lambda: handler.batches)
        await asyncio.sleep(0)
        handler.may_go_on.set()
        await asyncio.gather(*outcomes)
        assert handler.most_at_work == 1

    run(scenario, workers=2)


def test_who_is_gone_by_then_harms_nobody():
    async def scenario(batches, handler):
        gone, there = Body(bytes(1)), Body(bytes(2))
        waiting = batches.put(gone), batches.put(there)
        await until(lambda: handler.batches)
        waiting[0].cancel()
        handler.may_go_on.set()
        assert await waiting[1] is None
        assert (gone.closed, there.closed) == (1, 1)

    run(scenario)


def test_closing_gives_up_what_no_worker_has():
    async def scenario(batches, handler):
        begun = batches.put(Body(bytes(1)))
        await until(lambda: handler.batches)
        bodies = Body(bytes(1)), Body(LARGE)
        others = [batches.put(body) for body in bodies]
        await until(lambda: len(handler.batches) == 2)
        batches.close()
        handler.may_go_on.set()
        assert await begun is None
        assert await others[1] is None
        assert str(await others[0]) == "message: expected a service that goes on, got one that stops"
        assert [body.closed for body in bodies] == [1, 1]

    run(scenario)


def test_a_handler_that_fails_answers_all_and_the_worker_goes_on(caplog):
    def fail(_):
        raise MemoryError("full")

    async def scenario():
        with ThreadPoolExecutor(2) as threads:
            batches = Batches(fail, threads, 1)
            for _ in range(2):
                error = await batches.put(Body(bytes(1)))
                assert str(error) == "message: expected it to be handled, got MemoryError"

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert "could not be handled" in caplog.text


@pytest.mark.parametrize("size", [1, len(LARGE)])
def test_what_no_worker_can_be_given_is_answered(caplog, size):
    async def scenario():
        threads = ThreadPoolExecutor(2)
        threads.shutdown()
        batches, bodies = Batches(lambda _: [None], threads, 1), [Body(bytes(size)) for _ in range(2)]
        for body in bodies:  # the worker is free again after the first
            assert str(await batches.put(body)) == "message: expected it to be handled, got RuntimeError"
        assert [body.closed for body in bodies] == [1, 1]

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert "could not be given to a worker" in caplog.text
