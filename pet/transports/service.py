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


class Reservation(Protocol):
    """Memory that was granted to one request."""

    def shrink(self, size_bytes: int) -> None:
        """Give back what is above `size_bytes`, now that the size is known."""
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

    def reserve(self, size_bytes: int) -> AbstractAsyncContextManager[Reservation]:
        """Wait until so much memory is free for a body, and hold it inside the `async with`."""
        ...

    async def handle_message(self, body: bytearray) -> None:
        """Give one sealed message to the endpoint, in a worker thread; `body` is used up."""
        ...

    async def run(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
    ) -> Result:
        """Call a function in a worker thread."""
        ...

    def lifespan(self, app: Any, /) -> AbstractAsyncContextManager[None]:
        """Run as long as an ASGI application does."""
        ...
