"""A peer's use of a broker that comes and goes: begun anew with each connection, tried again where it is refused.

Source: docs/spec/federation.md 5.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from pet.errors import FederationError, PetError, TransportError, UnreachableError
from pet.federation.peer.context import PeerContext
from pet.transports.nats import NatsConnection

#: The first and the longest wait before what the broker refused is tried again.
_RETRY_SECONDS: Final = 1.0
_MAX_RETRY_SECONDS: Final = 30.0


class BrokerUse:
    """Uses a connection for one peer as soon as it stands, and each time it stands again.

    Args:
        context: of the peer.
        connection: to the broker.
        use: begins, or goes on; what the broker refuses it raises, and is called again later.
    """

    def __init__(self, context: PeerContext, connection: NatsConnection, use: Callable[[], Awaitable[None]]) -> None:
        self._context: Final = context
        self._connection: Final = connection
        self._use: Final = use
        self._trouble: PetError | None = None
        self._coming_back: Final = asyncio.Lock()
        connection.on_trouble(self._note_trouble)

    def follow(self) -> None:
        """Use the connection whenever it stands again."""
        self._connection.on_restored(self._come_back)

    @property
    def trouble(self) -> PetError | None:
        """Why the broker cannot be used now, as far as it is known."""
        return self._connection.trouble or self._trouble

    async def _come_back(self) -> None:
        """Begin, or go on, with a connection that stands again: streams in memory may be gone, and messages were missed.

        What the broker refuses now it may allow later, when it has room or other settings: this tries until the connection is
        lost, and begins anew with the next one.
        """
        losses, wait = self._connection.losses, _RETRY_SECONDS
        while self._connection.losses == losses:
            try:
                async with self._coming_back:
                    await self._use()
                self._trouble = None
                return
            except (TransportError, FederationError) as error:
                self._note_trouble(error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, _MAX_RETRY_SECONDS)

    def _note_trouble(self, error: PetError) -> None:
        """Remember why the broker cannot be used, and log it once; that it cannot be reached is nothing for this log."""
        if str(error) != str(self._trouble) and not isinstance(error, UnreachableError):
            self._context.log_error(f"The broker cannot be used, trying again: {error}")
        self._trouble = error
