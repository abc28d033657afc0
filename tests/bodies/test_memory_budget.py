"""Bytes are charged as they come, never more than there are, nobody blocks anybody for ever, and all are given back."""

import asyncio
import random

import pytest

from pet.bodies.memory_budget import MemoryBudget
from pet.errors import ReservationLostError


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_an_announced_body_costs_nothing_until_it_comes():
    async def scenario():
        budget = MemoryBudget(100, reserve_bytes=0)
        async with budget.reserve(100), budget.reserve(100), budget.reserve(100) as third:
            assert budget.free_bytes == 100
            await third.grow(100)
            assert budget.free_bytes == 0
        assert budget.free_bytes == 100

    run(scenario())


def test_a_body_waits_for_what_another_one_needs_to_become_whole():
    async def scenario():
        budget = MemoryBudget(100, reserve_bytes=0)
        async with budget.reserve(80) as second:
            async with budget.reserve(80) as first:
                await first.grow(60)
                await second.grow(20)
                waiting = asyncio.create_task(second.grow(40))
                await settle()
                assert not waiting.done()  # the last 20 are for the first, which needs them to give back any
                await first.grow(80)
                first.finish()
                await settle()
                assert not waiting.done()
            await waiting
            assert second.size_bytes == 40
        assert budget.free_bytes == 100

    run(scenario())


def test_more_than_everything_gets_on_with_everything():
    async def scenario():
        budget = MemoryBudget(100, reserve_bytes=0)
        async with budget.reserve(1000) as reservation:
            await reservation.grow(1000)
            assert (reservation.size_bytes, reservation.missing_bytes, budget.free_bytes) == (100, 0, 0)
        assert budget.free_bytes == 100

    run(scenario())


@pytest.mark.parametrize("seed", range(20))
def test_bodies_of_any_size_all_become_whole(seed):
    generator = random.Random(seed)

    async def scenario():
        budget = MemoryBudget(100, reserve_bytes=0)

        async def send(size):
            async with budget.reserve(size) as reservation:
                for arrived in range(0, size + 1, generator.randint(1, 9)):
                    await reservation.grow(arrived)
                    assert budget.free_bytes >= 0
                    await asyncio.sleep(0)
                reservation.finish()
                await asyncio.sleep(0)

        await asyncio.gather(*(send(generator.choice([3, 40, 90, 120])) for _ in range(25)))
        assert budget.free_bytes == 100

    run(scenario())


def test_whoever_holds_bytes_and_stands_still_loses_them_to_others():
    async def scenario():
        budget = MemoryBudget(100, patience_seconds=0.05, reserve_bytes=0)
        lost = []

        async def stand_still(size, most):
            try:
                async with budget.reserve(most) as reservation:
                    await reservation.grow(size)
                    await asyncio.Event().wait()
            except ReservationLostError as error:
                lost.append(error)

        slow = [asyncio.create_task(stand_still(40, 45)) for _ in range(2)]
        await asyncio.sleep(0.2)
        assert not lost  # nobody waits
        async with budget.reserve(90) as reservation:
            for arrived in range(10, 100, 10):
                await reservation.grow(arrived)
            reservation.finish()
        await asyncio.gather(*slow)
        assert len(lost) == 2
        assert budget.free_bytes == 100

    run(scenario())


def test_who_comes_on_or_is_whole_keeps_its_bytes():
    async def scenario():
        budget = MemoryBudget(100, patience_seconds=0.5, reserve_bytes=0)
        async with budget.reserve(40) as whole, budget.reserve(60) as coming:
            await whole.grow(40)
            whole.finish()
            await coming.grow(10)
            async with budget.reserve(60) as other:
                waiting = asyncio.create_task(other.grow(60))
                for arrived in range(15, 61, 5):
                    await asyncio.sleep(0.06)
                    await coming.grow(arrived)
                coming.finish()
                await asyncio.sleep(0.6)
                waiting.cancel()
        assert budget.free_bytes == 100

    run(scenario())


def test_cancelled_waiters_leave_no_trace():
    async def scenario():
        budget = MemoryBudget(100, reserve_bytes=0)

        async def wait_for_room():
            async with budget.reserve(80) as reservation:
                await reservation.grow(80)

        async with budget.reserve(60) as first:
            await first.grow(60)
            waiting = asyncio.create_task(wait_for_room())
            await settle()
            waiting.cancel()
            await asyncio.wait([waiting])
            late = asyncio.create_task(wait_for_room())
            await settle()
        late.cancel()  # in the moment of the grant
        await asyncio.wait([late])
        assert budget.free_bytes == 100
        assert not budget._waiters

    run(scenario())


def test_errors_give_bytes_back_and_stay_what_they_are():
    async def scenario():
        budget = MemoryBudget(100, reserve_bytes=0)

        async def fail(error):
            async with budget.reserve(50) as reservation:
                await reservation.grow(50)
                raise error

        for error in (KeyError, TimeoutError):
            with pytest.raises(error):
                await fail(error)
        assert budget.free_bytes == 100

    run(scenario())


def test_a_body_grows_at_once_where_it_need_not_wait():
    async def scenario():
        budget = MemoryBudget(100, reserve_bytes=0)
        async with budget.reserve(80) as second:
            async with budget.reserve(80) as first:
                assert first.grow_now(60)
                assert first.grow_now(40)
                assert second.grow_now(20)
                assert not second.grow_now(40)  # the last 20 are for the first
                assert (first.size_bytes, second.size_bytes) == (60, 20)
            assert second.grow_now(90)
            assert second.size_bytes == 80
            second.lose()
            assert not second.grow_now(80)
            with pytest.raises(ReservationLostError):
                await second.grow(80)

    run(scenario())


def test_a_body_that_is_whole_at_once_keeps_its_bytes():
    async def scenario():
        budget = MemoryBudget(100, reserve_bytes=0)
        whole = budget.try_reserve(90, "first", None)
        assert whole is not None
        assert budget.try_reserve(20, "second", None) is None  # "first" holds more, but nothing that it could lose
        whole.lose()
        assert (whole.size_bytes, budget.free_bytes) == (90, 10)
        whole.give_back()
        assert budget.try_reserve(20, "second", None) is not None

    run(scenario())
