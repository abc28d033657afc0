"""The pulse of a peer: calls back at each tick of the schedule while the peer pulses, and once more on request.

Ticks that were missed are one (docs/spec/federation.md 1.4). What happens at a tick is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from pet.federation.peer.context import PeerContext
from pet.federation.peer.playing import end_task


class Pulse:
    """Lets ticks come.

    Args:
        context: of the peer; its record says whether it pulses, and when.
        beat: called at each tick, with whether somebody asked for it; must not raise.
    """

    def __init__(self, context: PeerContext, beat: Callable[[bool], Awaitable[None]]) -> None:
        self._context: Final = context
        self._beat: Final = beat
        self._wake: Final = asyncio.Event()
        self._is_wanted = False
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Let time pass from now on."""
        self._running = asyncio.create_task(self._run(), name=f"pet-pulse-{self._context.uuid[:8]}")

    async def close(self) -> None:
        """Stop; a beat that is under way is given up."""
        await end_task(self._running)

    def wake(self) -> None:
        """Note that the record has changed."""
        self._wake.set()

    def beat_now(self) -> None:
        """Beat once outside the schedule, as soon as a beat that is under way is over."""
        self._is_wanted = True
        self._wake.set()

    async def _run(self) -> None:
        context, clock = self._context, self._context.clock
        while True:
            self._wake.clear()
            now, state = clock.now_seconds(), context.schedule
            is_due = state.is_due(now)
            if context.record.is_pulsing and (is_due or self._is_wanted):
                is_wanted, self._is_wanted = self._is_wanted, False
                if is_due:
                    context.counters.done_until_seconds = state.done(now).done_until_seconds
                    context.save()
                await self._beat(is_wanted)
            else:
                await self._sleep_until(state.schedule.next_tick_seconds(now))

    async def _sleep_until(self, when_seconds: float) -> None:
        sleeping = asyncio.create_task(self._context.clock.sleep_until(when_seconds))
        waking = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({sleeping, waking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            waking.cancel()
