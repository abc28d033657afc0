"""The interface between a server-side transport that runs in an event loop and the coordinator behind it.

`Endpoint` (pet/transports/base.py) says what can be asked; this adds what a server has to be careful about: threads and memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, ParamSpec, Protocol, TypeVar

from pet.transports.base import Endpoint

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class ReservationLostError(Exception):
    """A body did not come on while others waited for the memory it held; it has to be sent again."""


class Reservation(Protocol):
    """Memory for one body."""

    async def grow(self, size_bytes: int) -> None:
        """Wait until the body may hold so many bytes, all it has so far included."""
        ...

    def finish(self) -> None:
        """Say that the body is whole."""
        ...


class Service(Protocol):
    """A coordinator that runs in this event loop."""

    @property
    def endpoint(self) -> Endpoint:
        """What answers."""
        ...

    @property
    def stall_seconds(self) -> float:
        """How long a body may make no progress before its request is given up."""
        ...

    @property
    def is_healthy(self) -> bool:
        """Whether the service runs and time passes in it."""
        ...

    def reserve(self, most_bytes: int) -> AbstractAsyncContextManager[Reservation]:
        """Announce a body of at most so many bytes; inside the `async with` it may grow.

        Raises:
            ReservationLostError: at any `await` before `finish`, if the body is too slow while others wait.
        """
        ...

    async def handle_message(self, body: bytearray) -> None:
        """Give one sealed message to the endpoint, in a worker thread; `body` is used up."""
        ...

    async def run(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
    ) -> Result:
        """Call a function that makes an answer, in a thread that no message waits for."""
        ...

    def lifespan(self, app: Any, /) -> AbstractAsyncContextManager[None]:
        """Run as long as an ASGI application does."""
        ...
