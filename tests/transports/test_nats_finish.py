"""Work that must be done although its caller is cancelled, where no thread is free to begin it."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pet.transports.nats.finish import finish_in_thread


def test_work_is_done_although_it_was_cancelled_before_it_began():
    done, release = [], threading.Event()

    async def cancel_early():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        busy = asyncio.create_task(asyncio.to_thread(release.wait))
        finishing = asyncio.create_task(finish_in_thread(lambda: done.append("folder removed")))
        for _ in range(5):
            await asyncio.sleep(0)
        finishing.cancel()
        await asyncio.sleep(0)
        assert (done, finishing.done()) == ([], False)
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await finishing
        assert done == ["folder removed"]
        await busy

    asyncio.run(cancel_early())


def test_what_the_work_raises_is_raised():
    def fail():
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        asyncio.run(finish_in_thread(fail))
