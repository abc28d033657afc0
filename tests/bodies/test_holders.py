"""Who holds most gives back first; one holder has everything but a reserve while nobody else asks."""

import asyncio
import contextlib
import random

import pytest

from pet.bodies.holders import HolderTable
from pet.bodies.incoming import Intake
from pet.bodies.memory_budget import SMALL_MESSAGE_BYTES, MemoryBudget
from pet.bodies.spool import Spool
from pet.errors import NoRoomError, ReservationLostError, ServiceBusyError


class Table(HolderTable):
    """A table that notes what it evicts."""

    def __init__(self, capacity, reserve=None):
        super().__init__(capacity, reserve)
        self.evicted = []

    def take_some(self, holder, amount, name):
        return self.take(holder, amount, lambda: self.evicted.append(name))


def test_one_holder_gets_everything_but_the_reserve():
    table = Table(16)
    assert [table.take_some("a", 1, n) is not None for n in range(16)] == [True] * 14 + [False] * 2
    assert (table.held_by("a"), table.used, table.left_for("a"), table.left_for("b")) == (14, 14, 0, 2)


def test_the_largest_holder_loses_what_it_took_last_until_all_have_the_same():
    table = Table(8)
    for n in range(7):
        assert table.take_some("large", 1, n)
    taken = [table.take_some("small", 1, "small") is not None for _ in range(8)]
    assert taken == [True] * 4 + [False] * 4
    assert table.evicted == [6, 5, 4]
    assert (table.held_by("large"), table.held_by("small")) == (4, 4)
    assert not table.take_some("large", 1, "more")


def test_nothing_is_evicted_for_nothing():
    table = Table(120, 0)
    for name in ("first", "second"):
        assert table.take_some("large", 60, name)
    assert not table.has_room("small", 100)
    assert not table.take_some("small", 100, "small")  # one of 60 would not do, and the second leaves "large" with less
    assert not table.evicted
    assert table.has_room("small", 60)
    assert table.take_some("small", 60, "small")
    assert table.evicted == ["second"]


def test_what_was_kept_stays():
    table = Table(4, 0)
    holdings = [table.take_some("large", 1, n) for n in range(4)]
    for holding in holdings[1:]:
        table.keep(holding)
    assert table.take_some("small", 1, "small")
    assert table.evicted == [0]
    assert not table.take_some("other", 1, "other")
    for holding in holdings:
        table.release(holding)
        table.release(holding)
    assert (table.used, len(table)) == (1, 1)


def test_what_is_larger_than_everything_has_it_to_itself():
    table = Table(8)
    only = table.take_some("a", 20, "a")
    assert only is not None
    assert not table.take_some("b", 1, "b") or table.evicted == ["a"]


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_the_sums_are_right(seed):
    generator, table, held = random.Random(seed), Table(50), {}

    def lose(key):
        del held[key]

    for key in range(2000):
        holder = generator.choice("abc")
        if held and generator.random() < 0.4:
            name = generator.choice(list(held))
            table.release(held.pop(name)[1])
        amount = generator.randint(1, 9)
        holding = table.take(holder, amount, lambda key=key: lose(key))
        if holding is not None:
            held[key] = holder, holding, amount
        for one in "abc":
            assert table.held_by(one) == sum(amount for who, _, amount in held.values() if who == one)
        assert table.used == sum(amount for *_, amount in held.values()) <= 50
    for _, holding, _ in held.values():
        table.release(holding)
    assert (table.used, len(table), table._evictable) == (0, 0, {})


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def hold(stack, budget, holder, size, most=None, lost=None):
    """Hold bytes of a budget in a task of its own until they are lost or the test ends."""
    ready = asyncio.get_running_loop().create_future()

    async def keep():
        try:
            async with budget.reserve(most or size, holder) as reservation:
                await reservation.grow(size)
                ready.set_result(None)
                await asyncio.Event().wait()
        except ReservationLostError:
            lost.append(holder)

    task = asyncio.create_task(keep())
    stack.callback(task.cancel)
    await ready


def test_memory_goes_to_who_has_less():
    """One sender holds all that it can get; every other one gets what it needs at once, at its expense."""

    async def scenario():
        budget, lost, size = MemoryBudget(8 * 2**20), [], 2**18
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(24):  # 6 MiB: two reserves are left, one for small bodies and one for others
                await hold(stack, budget, "attacker", size, lost=lost)
            assert budget.free_bytes == 2 * 2**20
            others = [f"127.0.0.{number}" for number in range(20)]
            for holder in others:
                await hold(stack, budget, holder, size, lost=lost)
            await asyncio.sleep(0)
            assert set(lost) == {"attacker"}
            assert budget._holders.held_by("attacker") == (24 - len(lost)) * size
            assert budget.free_bytes >= 0
            assert not budget.is_short_for("127.0.0.99", size)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (budget.free_bytes, budget._pools) == (budget.capacity_bytes, {})

    run(scenario())


def test_large_bodies_leave_room_for_small_ones_of_the_same_sender():
    async def scenario():
        budget = MemoryBudget(8 * 2**20)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(6):
                await hold(stack, budget, "a", 2**20)
            waiting = asyncio.create_task(hold(stack, budget, "a", 2**20))
            while not budget._waiters:
                await asyncio.sleep(0)
            assert (budget.is_short_for("a", 2**20), budget.is_short_for("a", 2**10)) == (True, False)
            for _ in range(2**20 // SMALL_MESSAGE_BYTES):
                await hold(stack, budget, "a", SMALL_MESSAGE_BYTES)
            assert not waiting.done()
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting

    run(scenario())


def test_a_body_that_was_evicted_can_neither_grow_nor_become_whole():
    async def scenario():
        budget = MemoryBudget(100, reserve_bytes=0)

        async def end(name):
            async with budget.reserve(90, "a") as of_a:
                await of_a.grow(90)
                async with budget.reserve(20, "b") as of_b:
                    await of_b.grow(20)
                    assert (of_a.size_bytes, budget.free_bytes) == (0, 80)
                    await of_a.grow(90) if name == "grow" else of_a.finish()

        for name in ("grow", "finish"):
            with pytest.raises(ReservationLostError, match="others that have less"):
                await end(name)
            assert budget.free_bytes == 100

    run(scenario())


@pytest.mark.parametrize("seed", range(10))
def test_bodies_of_many_senders_all_end(seed):
    """With reserves, shares and eviction at work nobody waits for ever, and everything is given back."""
    generator = random.Random(seed)

    async def scenario():
        budget, ends = MemoryBudget(16 * SMALL_MESSAGE_BYTES), {True: 0, False: 0}

        async def send(holder, size):
            try:
                async with budget.reserve(size, holder) as reservation:
                    for arrived in range(0, size + 1, generator.randint(1, 60_000)):
                        await reservation.grow(arrived)
                        assert budget.free_bytes >= 0
                        await asyncio.sleep(0)
                    reservation.finish()
                    await asyncio.sleep(0)
            except ReservationLostError:
                ends[False] += 1
            else:
                ends[True] += 1

        sizes = [300, SMALL_MESSAGE_BYTES, 3 * SMALL_MESSAGE_BYTES, 12 * SMALL_MESSAGE_BYTES]
        await asyncio.gather(*(send(generator.choice("aaaab"), generator.choice(sizes)) for _ in range(60)))
        assert ends[True] > ends[False]
        assert (budget.free_bytes, budget._pools, len(budget._holders)) == (budget.capacity_bytes, {}, 0)

    run(scenario())


def test_room_on_disk_goes_to_who_has_less(tmp_path):
    spool, lost = Spool(tmp_path, 1600), []
    attackers = [spool.create(100, "attacker", lambda n=n: lost.append(n)) for n in range(14)]
    with pytest.raises(NoRoomError, match="got 0 left"):
        spool.create(100, "attacker")
    honest = [spool.create(100, f"peer {n}") for n in range(13)]
    assert lost == list(range(13, 2, -1))
    attackers[0].finish()
    attackers[1].finish()
    assert not spool.has_room(200, "one more")  # what is whole is not evicted
    for body in (*attackers, *honest):
        body.close()
    assert spool.used_bytes == 0


def test_an_upload_of_another_sender_gets_the_room_of_the_newest(tmp_path):
    """16 connections of one address fill the spool with 1.1 MB each; everybody else's upload is taken."""
    mib = 2**20

    async def scenario():
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as threads:
            spool = Spool(tmp_path, 160 * mib)
            intake = Intake(MemoryBudget(64 * mib), spool, threads, 30.0)
            ends = []

            async def attack():
                try:
                    async with intake.receive_body(10 * mib, "attacker") as body:
                        await body.append(bytes(mib + 1))
                        await asyncio.Event().wait()
                except (ReservationLostError, ServiceBusyError) as error:
                    ends.append(type(error))

            tasks = [asyncio.create_task(attack()) for _ in range(16)]
            while spool.used_bytes < 140 * mib:
                await asyncio.sleep(0)
            for number in range(20):
                async with intake.receive_body(10 * mib, f"peer {number}") as body:
                    for _ in range(10):
                        await body.append(bytes(mib))
                    (await body.finish()).close()
            assert spool.used_bytes == 140 * mib  # the reserve was enough, one after the other
            async with contextlib.AsyncExitStack() as stack:
                for number in range(5):
                    body = await stack.enter_async_context(intake.receive_body(10 * mib, f"peer {number}"))
                    await body.append(bytes(2 * mib))
                while len(ends) < 2 + 3:
                    await asyncio.sleep(0)
                assert ends.count(ReservationLostError) == 3
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert spool.used_bytes == 0

    run(scenario())
