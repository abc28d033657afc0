"""Who may ask for how much in a second: two buckets each, which fill at the allowed rate and hold what it yields in a while.

A request takes from the first, its body from the second as it arrives; a sender that finds a bucket empty has to wait. So
nothing is cut that was begun, and who takes much at once has to wait before taking more. Knows neither addresses nor keys.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final

#: A whole round of ten thousand participants behind one address begins at once.
BURST_SECONDS: Final = 10.0

#: Names that are remembered; the one that was seen longest ago is forgotten, which does it good.
MAX_NAMES: Final = 16_384


@dataclass(slots=True)
class Buckets:
    """What somebody may still take, at some time; less than nothing after a body was larger than what was left."""

    requests: float
    bytes: float
    seconds: float


class Rates:
    """The buckets of all who ask; not thread-safe.

    Args:
        requests_per_second: of one name; infinite for no bound.
        bytes_per_second: of the bodies of one name; infinite for no bound.
        clock: returns seconds that never go back.
    """

    def __init__(
        self, requests_per_second: float, bytes_per_second: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rates = requests_per_second, bytes_per_second
        self.bounds_bytes: Final = bytes_per_second < math.inf
        self._clock = clock
        self._buckets: OrderedDict[str, Buckets] = OrderedDict()

    def take(self, name: str) -> tuple[Buckets, float]:
        """Take one request.

        Returns:
            What bodies are taken from, and 0; or the seconds to wait, and then nothing was taken.
        """
        buckets = self._refill(name)
        wait_seconds = self._wait_seconds(buckets)
        if wait_seconds <= 0:
            buckets.requests -= 1
        return buckets, wait_seconds

    def seen_beside(self, name: str) -> bool:
        """Return whether anybody but this name asked within the last seconds, as many as a bucket lasts.

        The name must have asked last.
        """
        latest = islice(reversed(self._buckets.items()), 2)
        return any(other != name and self._clock() - buckets.seconds < BURST_SECONDS for other, buckets in latest)

    def _refill(self, name: str) -> Buckets:
        now_seconds, (requests, size) = self._clock(), self._rates
        buckets = self._buckets.pop(name, None)
        if buckets is None:
            buckets = Buckets(requests * BURST_SECONDS, size * BURST_SECONDS, now_seconds)
            if len(self._buckets) >= MAX_NAMES:
                self._buckets.popitem(last=False)
        else:
            passed = now_seconds - buckets.seconds
            buckets.requests = min(requests * BURST_SECONDS, buckets.requests + requests * passed)
            buckets.bytes = min(size * BURST_SECONDS, buckets.bytes + size * passed)
            buckets.seconds = now_seconds
        self._buckets[name] = buckets
        return buckets

    def _wait_seconds(self, buckets: Buckets) -> float:
        requests, size = self._rates
        missing_requests, missing_bytes = max(0.0, 1 - buckets.requests), max(0.0, -buckets.bytes)
        return max(missing_requests / requests, missing_bytes / size)
