"""When to try again, and until when. Knows no request.

Source: docs/spec/federation.md 5.4: jittered back-off from 0.2 to 5 s, until the deadline.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

from pet.errors import TransportError

_logger: Final = logging.getLogger(__name__)

_FIRST_SECONDS: Final = 0.2
_MAX_SECONDS: Final = 5.0


class RetryPeriod:
    """Waits between attempts, longer each time, as long as some progress was made not too long ago.

    Args:
        seconds: how long to go on without progress.
        deadline: in the time of the event loop, after which nothing is tried again; None means there is none.
    """

    def __init__(self, seconds: float, deadline: float | None = None) -> None:
        self._seconds: Final = seconds
        self._deadline: Final = deadline
        self.progress()

    def progress(self) -> None:
        """Start anew: something went well."""
        self._since = asyncio.get_running_loop().time()

    async def wait(self, error: TransportError, attempt: int) -> None:
        """Wait before the next attempt.

        Args:
            error: why the last one failed.
            attempt: how many have failed, from 1.

        Raises:
            TransportError: `error`, if it is not temporary or it is too late.
        """
        now = asyncio.get_running_loop().time()
        ends = self._since + self._seconds
        if self._deadline is not None:
            ends = min(ends, self._deadline)
        delay = min(_MAX_SECONDS, _FIRST_SECONDS * 2 ** min(attempt - 1, 10)) * (0.5 + random.random() / 2)  # noqa: S311
        if not error.is_temporary or now >= ends:
            raise error
        _logger.debug("again in %.1f s: %s", delay, error)
        await asyncio.sleep(min(delay, max(0.0, ends - now)))
