"""The service: time passes, threads end, a fault is said and survived."""

import asyncio
import logging
import sys
import threading

import fork_server
import pytest
from few_threads import NO_MORE_THREADS
from sealed_rounds import SealedRound

from pet.coordinator.app import create_app
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.coordinator.settings import Settings
from pet.errors import LocalProtocolError

QUICK = {"count": {"min": 1, "max": 10}, "time": {"min": 0.05, "max": 0.1}}
SETTINGS = Settings(pet={"sum": QUICK, "update": {"time": {"min": 0.05, "max": 0.1}}})


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def test_time_passes():
    async def scenario():
        service = CoordinatorService.from_settings(SETTINGS)
        assert not service.is_healthy
        async with service:
            assert service.is_healthy
            assert service.endpoint.status()["round"] == 1
            while service.endpoint.status()["rounds_reopened"] < 3:
                await asyncio.sleep(0.02)
        assert not service.is_healthy
        assert service.endpoint.status()["phase"] == "shutdown"
        await service.stop()

    run(scenario())


def test_a_message_brings_the_next_phase_forward():
    async def scenario():
        waiting = {"count": {"min": 1, "max": 10}, "time": {"min": 0, "max": 3600}}
        async with CoordinatorService.from_settings(Settings(pet={"sum": waiting})) as service:
            round_ = SealedRound(service.endpoint.parameters())
            await service.handle_message(round_.sum(*round_.keys("sum", 1)))
            while service.endpoint.status()["phase"] == "sum":
                await asyncio.sleep(0.01)
            assert service.endpoint.sums() is not None

    run(scenario())


def test_messages_that_queue_up_do_not_delay_answers():
    blocked = threading.Event()

    class BusyEngine(CoordinatorEngine):
        def handle_messages(self, bodies):
            blocked.wait(60)
            return super().handle_messages(bodies)

    async def scenario():
        async with CoordinatorService(BusyEngine(SETTINGS.to_round_settings()), workers=1) as service:
            messages = [asyncio.create_task(service.handle_message(bytearray())) for _ in range(5)]
            assert await asyncio.wait_for(service.run(sum, [1, 2]), 30) == 3
            blocked.set()
            await asyncio.gather(*messages)

    run(scenario())


def test_it_runs_once_and_only_while_started():
    async def scenario():
        service = CoordinatorService.from_settings(SETTINGS)
        with pytest.raises(LocalProtocolError, match="expected a service that runs"):
            await service.handle_message(bytearray(10))
        async with service:
            assert await service.run(sum, [1, 2], start=3) == 6
            with pytest.raises(LocalProtocolError, match="was not started yet"):
                await service.start()

    run(scenario())


def test_a_fault_is_logged_and_time_goes_on(caplog):
    class FaultyEngine(CoordinatorEngine):
        faults = 0

        def tick(self):
            if self.status()["round"] == 1 and self.faults == 0:
                self.faults += 1
                raise MemoryError("full")
            super().tick()

    async def scenario():
        service = CoordinatorService(FaultyEngine(SETTINGS.to_round_settings()))
        async with service:
            while service.is_healthy:
                await asyncio.sleep(0.01)
            while not service.is_healthy:
                await asyncio.sleep(0.01)

    with caplog.at_level(logging.ERROR):
        run(scenario())
    assert "the round could not go on" in caplog.text


def test_a_start_that_fails_leaves_no_threads():
    class FaultyEngine(CoordinatorEngine):
        def tick(self):
            raise MemoryError("full")

    async def scenario():
        before = set(threading.enumerate())  # those of the kernels stay, once they are there
        service = CoordinatorService(FaultyEngine(SETTINGS.to_round_settings()))
        with pytest.raises(MemoryError):
            await service.start()
        assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("pet-")]

    run(scenario())


def test_room_on_disk_follows_the_model(tmp_path):
    large = CoordinatorService.from_settings(Settings(model={"length": 25_000_000}))
    assert large.spool.capacity_bytes == 16 * large.endpoint.max_body_bytes() > 2_400_000_000
    assert CoordinatorService.from_settings(SETTINGS).spool.capacity_bytes == 2**30
    given = {"max_bytes_in_flight": 65_536, "workers": 3, "max_spool_bytes": 10, "spool_folder": str(tmp_path / "spool")}
    bounded = CoordinatorService.from_settings(Settings(service=given))
    assert (bounded.memory.capacity_bytes, bounded.workers) == (65_536, 3)
    assert (bounded.spool.capacity_bytes, bounded.spool.folder) == (10, tmp_path / "spool")


def test_the_application_carries_its_service():
    app = create_app(SETTINGS)
    assert isinstance(app.state.service, CoordinatorService)


def test_a_buffer_for_the_largest_message_is_ready_from_the_start():
    async def scenario(length):
        async with CoordinatorService.from_settings(Settings(model={"length": length})) as service:
            return [len(buffer) for buffer in service.spool._buffers._free], service.engine.max_body_bytes_ever()

    buffers, largest = run(scenario(1_000_000))
    assert buffers == [largest]
    assert largest > 6_000_000
    assert run(scenario(4))[0] == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are kept by Linux")
def test_a_service_whose_threads_cannot_be_started_says_so_and_ends():
    code = f"""{NO_MORE_THREADS}
import asyncio
from pet.coordinator.service import CoordinatorService
from pet.coordinator.settings import Settings
from pet.errors import ThreadStartError
async def work():
    service = CoordinatorService.from_settings(Settings(service={{"workers": 2}}))
    try:
        await service.start()
    except ThreadStartError as error:
        print(error, service.is_healthy, service.endpoint.status()["phase"])
asyncio.run(work())
"""
    done = fork_server.run(code)
    found = "expected the system to start 4 threads (pet-worker), got: can't start new thread; raise its limits"
    assert (done.stdout, done.stderr) == (f"{found} False shutdown\n", "")
    assert done.returncode == 0


def test_no_thread_is_started_after_the_start():
    async def scenario():
        async with CoordinatorService.from_settings(Settings(service={"workers": 2})) as service:
            there = threading.active_count()
            round_ = SealedRound(service.endpoint.parameters())
            await asyncio.gather(*(service.handle_message(round_.sum(*round_.keys("sum", 1))) for _ in range(8)))
            await asyncio.gather(*(service.run(service.endpoint.sums) for _ in range(8)))
            assert threading.active_count() == there

    run(scenario())
