"""What one user may ask for, from however many addresses: requests in a second, and requests that are carried out at once.

Shares of addresses (pet/transports/) come first, as they need no signature; these begin when one was right, as a key that many
addresses share would otherwise have the shares of all of them. Knows no path.

Source: docs/spec/federation.md 4.2.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from pet.bodies.holders import HolderTable
from pet.errors import RequestRefusedError
from pet.transports.rates import Rates
from pet.transports.refusal_counts import RefusalCounts, RefusalReason

#: About how long a call takes.
_RETRY_AFTER_SECONDS: Final = 1


class CallerShares:
    """The shares of all users of a server.

    Args:
        requests_per_second: of one user.
        max_calls: carried out at the same time; one user gets seven eighths.
        refusals: where refusals are counted.
        clock: returns seconds that never go back.
    """

    def __init__(
        self,
        requests_per_second: float,
        max_calls: int,
        refusals: RefusalCounts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rates: Final = Rates(requests_per_second, clock=clock)
        self._calls: Final = HolderTable(max_calls)
        self._refusals: Final = refusals

    def count(self, customer_id: str) -> None:
        """Count a request whose signature was right.

        Raises:
            RequestRefusedError: the user has to wait.
        """
        _, wait_seconds = self._rates.take(customer_id)
        if wait_seconds > 0:
            text = "Expected fewer requests of one user"
            raise self._refuse(RefusalReason.RATE, HTTPStatus.TOO_MANY_REQUESTS, text, math.ceil(wait_seconds))

    @contextmanager
    def carrying_out(self, customer_id: str) -> Iterator[None]:
        """Count a request as carried out until the end of the `with`. It is not ended for another one: it may change something.

        Raises:
            RequestRefusedError: too many of this user are.
        """
        holding = self._calls.take(customer_id, 1)
        if holding is None:
            text = "Other requests of this user are carried out"
            raise self._refuse(RefusalReason.CALLS, HTTPStatus.SERVICE_UNAVAILABLE, text, _RETRY_AFTER_SECONDS)
        try:
            yield
        finally:
            self._calls.release(holding)

    def _refuse(self, reason: RefusalReason, status: HTTPStatus, text: str, seconds: int) -> RequestRefusedError:
        self._refusals.count(reason)
        return RequestRefusedError(status, text, headers={"retry-after": str(seconds)})
