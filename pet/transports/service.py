"""The interface between a server-side transport that runs in an event loop and the coordinator behind it.

`Endpoint` (pet/transports/base.py) says what can be asked; this adds what a server has to be careful about: threads and memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, ParamSpec, Protocol, TypeVar

from pet.bodies.body import SealedBody
from pet.bodies.memory_budget import MemoryBudget
from pet.bodies.spool import Spool
from pet.buffers import Buffer
from pet.errors import ServiceBusyError
from pet.transports.base import Endpoint
from pet.transports.refusal_counts import RefusalCounts

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class IncomingBody(Protocol):
    """A body on its way."""

    @property
    def size_bytes(self) -> int:
        """What has come so far."""
        ...

    async def append(self, piece: bytes) -> None:
        """Take the next bytes; waits until there is room for them.

        Raises:
            ServiceBusyError: the body has turned out to be larger than there is room for now.
        """
        ...

    async def finish(self) -> SealedBody:
        """Say that the body is whole, and return it; it belongs to the caller."""
        ...


class Service(Protocol):
    """A coordinator that runs in this event loop."""

    @property
    def endpoint(self) -> Endpoint:
        """What answers."""
        ...

    @property
    def spool(self) -> Spool:
        """Where large bodies go; bounds them for all transports together."""
        ...

    @property
    def memory(self) -> MemoryBudget:
        """What bodies may have in memory, for all transports together."""
        ...

    @property
    def refusals(self) -> RefusalCounts:
        """Where transports count what they refuse."""
        ...

    @property
    def stall_seconds(self) -> float:
        """How long a body may make no progress before its request is given up."""
        ...

    @property
    def is_healthy(self) -> bool:
        """Whether the service runs and time passes in it."""
        ...

    def note_refused_upload(self, reason: str) -> None:
        """Count an upload over NATS that was refused, had to wait or was given up, by reason."""
        ...

    def receive_body(self, most_bytes: int, holder: str = "") -> AbstractAsyncContextManager[IncomingBody]:
        """Begin a body of at most `most_bytes`.

        Args:
            most_bytes: its size at most.
            holder: who sends it, as the transport tells peers apart: room is shared between those that ask for it.

        Raises:
            ServiceBusyError: there is no room for it now; nothing needs to be read.
            ReservationLostError: at any `await` before `finish`, if the body is too slow while others wait, or its sender holds
                more than others.
        """
        ...

    async def handle_message(self, body: SealedBody | Buffer) -> None:
        """Give one sealed message to the endpoint, in a worker thread, and close it.

        Raises:
            ServiceBusyError: its outcome cannot be stored now.
        """
        ...

    def take_message(self, body: SealedBody | Buffer, tell: Callable[[ServiceBusyError | None], None]) -> None:
        """Do the same for who does not wait: `tell` gets the outcome in the event loop, never before this returns."""
        ...

    async def run(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
    ) -> Result:
        """Call a function that makes an answer, in a thread that no message waits for."""
        ...

    async def work(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
    ) -> Result:
        """Call a function that takes a part of something large, in a thread of those that handle messages.

        Raises:
            ServiceBusyError: what it does cannot be stored now.
        """
        ...

    def begin_work(self, function: Callable[[], Result], tell: Callable[[Future[Result]], None]) -> None:
        """Do the same for who does not wait: `tell` gets the outcome in the event loop, never before this returns.

        Args:
            function: what `work` would call.
            tell: gets what is done, with what `work` would return or raise; cancelled if the service stopped before it began.
        """
        ...

    def lifespan(self, app: Any, /) -> AbstractAsyncContextManager[None]:
        """Run as long as an ASGI application does."""
        ...
