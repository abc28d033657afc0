"""Work in a thread that must be done even if its caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def finish_in_thread(work: Callable[[], None]) -> None:
    """Do work in a thread; where this is cancelled, wait for its end all the same.

    A cancelled `asyncio.to_thread` may never begin: on a busy machine no thread has taken the work yet. Files and folders that
    were to be removed would stay.

    Args:
        work: is done once. What it raises is raised, except where this was cancelled.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise
