"""Requests of one connection that wait for their answers.

The library has this too, but lets everybody wait for the whole timeout when the connection breaks or the broker refuses a
subject (docs/spec/federation.md 5.1, facts 6 and 9); here they fail as soon as it is known.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from pet.errors import ForbiddenSubjectError, TransportError

if TYPE_CHECKING:
    from nats.aio.msg import Msg


class WaitingRequests:
    """Answers to come, each with a token that is the last word of the subject it will arrive on."""

    def __init__(self) -> None:
        self._answers: Final[dict[str, tuple[str, asyncio.Future[Msg]]]] = {}
        self._last_token = 0

    def add(self, subject: str) -> tuple[str, asyncio.Future[Msg]]:
        """Return token and future of a request on a subject; `remove` it afterwards."""
        self._last_token += 1
        token = str(self._last_token)
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._answers[token] = subject, answer
        return token, answer

    def remove(self, token: str) -> None:
        """Wait no longer; what failed unseen is forgotten."""
        _, answer = self._answers.pop(token)
        if answer.done() and not answer.cancelled():
            answer.exception()

    def take(self, message: Msg) -> None:
        """Take an answer; one that nobody waits for is dropped."""
        _, answer = self._answers.get(message.subject.rpartition(".")[2], (None, None))
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def take_late(self, message: Msg) -> None:
        """Take an answer that comes in a task."""
        self.take(message)

    def expire(self, token: str) -> None:
        """Fail a request that waited long enough, with a `TimeoutError`."""
        _, answer = self._answers[token]
        if not answer.done():
            answer.set_exception(TimeoutError())

    def fail_all(self, error: TransportError) -> None:
        """Fail every request."""
        for _, answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)

    def forbid(self, subject: str) -> None:
        """Fail requests on a subject, given in lower case."""
        for requested, answer in self._answers.values():
            if requested.lower() == subject and not answer.done():
                answer.set_exception(ForbiddenSubjectError(f"{requested}: expected to be allowed to send, got a refusal"))
