"""Bytes are lent in order, given back on every way out, and never more than there are."""

import asyncio

from pet.coordinator.byte_budget import ByteBudget


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 10))


def test_waiting_in_order():
    async def scenario():
        budget = ByteBudget(100)
        order = []

        async def hold(name, size, release):
            async with budget.reserve(size):
                order.append(name)
                await release.wait()

        gates = [asyncio.Event() for _ in range(4)]
        tasks = [asyncio.create_task(hold(*item)) for item in zip("abcd", (60, 80, 10, 40), gates, strict=True)]
        await asyncio.sleep(0.01)
        assert order == ["a"]  # c would fit, but b is first
        gates[0].set()
        await asyncio.sleep(0.01)
        assert order == ["a", "b", "c"]
        assert budget.free_bytes == 10
        for gate in gates:
            gate.set()
        await asyncio.gather(*tasks)
        assert order == ["a", "b", "c", "d"]
        assert budget.free_bytes == 100

    run(scenario())


def test_more_than_everything_gets_everything():
    async def scenario():
        budget = ByteBudget(100)
        async with budget.reserve(1000) as reservation:
            assert (reservation.size_bytes, budget.free_bytes) == (100, 0)
        assert budget.free_bytes == 100

    run(scenario())


def test_shrinking_lets_the_next_one_in():
    async def scenario():
        budget = ByteBudget(100)
        async with budget.reserve(100) as reservation:
            waiting = asyncio.create_task(budget._take(70))
            await asyncio.sleep(0)
            reservation.shrink(200)
            assert not waiting.done()
            reservation.shrink(30)
            await waiting
            assert budget.free_bytes == 0
        assert budget.free_bytes == 30

    run(scenario())


def test_cancelled_waiters_leave_no_trace():
    async def scenario():
        budget = ByteBudget(100)
        async with budget.reserve(60):
            first = asyncio.create_task(budget._take(80))
            second = asyncio.create_task(budget._take(40))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            await second  # was only waiting for the first
            assert budget.free_bytes == 0
        assert budget.free_bytes == 60

    run(scenario())


def test_cancelled_in_the_moment_of_the_grant():
    async def scenario():
        budget = ByteBudget(100)
        await budget._take(100)
        waiting = asyncio.create_task(budget._take(100))
        await asyncio.sleep(0)
        budget._give_back(100)  # grants; the task has not run since
        waiting.cancel()
        await asyncio.wait([waiting])
        assert budget.free_bytes == 100

    run(scenario())


def test_errors_give_bytes_back():
    async def scenario():
        budget = ByteBudget(100)
        try:
            async with budget.reserve(50):
                raise KeyError
        except KeyError:
            pass
        assert budget.free_bytes == 100

    run(scenario())
