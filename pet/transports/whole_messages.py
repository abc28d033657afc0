"""`POST /message` of small bodies that came whole with their headers, without a task and without the application.

Nearly every request of a round is one of these, and what stands around an application costs more than the rest of receiving it.
The bounds are the same: the rate and the share of memory of the sender, the size of a message. What is beyond one of them goes
the long way, past `MessageRoute` (pet/transports/message_route.py), which waits or refuses. It is never given the outcome of a
message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from pet.bodies.memory_budget import Reservation
from pet.errors import ServiceBusyError
from pet.transports.message_route import MESSAGE_PATHS, refuse_body
from pet.transports.rates import Rates
from pet.transports.service import Service

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
#: Sends an answer without a body: its status and its headers.
Answer: TypeAlias = Callable[[int, Headers], None]

#: Header of an answer without a body.
EMPTY: Final = ((b"content-length", b"0"),)


class WholeMessages:
    """Takes messages from connections (pet/transports/short_requests.py); for one event loop.

    Args:
        service: the coordinator behind it.
        rates: of senders, the same as the application's.

    Attributes:
        paths: where messages are sent to, as they stand in a request.
        on_answer: called with the status of each answer.
    """

    paths: Final = frozenset(path.encode() for path in MESSAGE_PATHS)

    def __init__(self, service: Service, rates: Rates) -> None:
        self._service: Final = service
        self._endpoint: Final = service.endpoint
        self._rates: Final = rates
        self.on_answer: Callable[[int], None] = lambda _: None

    def take(self, body: bytes, holder: str, answer: Answer) -> bool:
        """Take a message; False if it has to go the long way, and then nothing was counted.

        Args:
            body: all of it.
            holder: who sends it.
            answer: sends the answer, when the message was handled and never before this returns.
        """
        if len(body) > self._endpoint.max_body_bytes():
            return False
        buckets, wait_seconds = self._rates.take(holder)
        if wait_seconds > 0:
            return False
        reservation = self._service.memory.try_reserve(len(body), holder, None)
        if reservation is None:
            buckets.requests += 1
            return False
        buckets.bytes -= len(body)
        self._service.take_message(body, partial(self._answer, reservation, answer))
        return True

    def _answer(self, reservation: Reservation, answer: Answer, error: ServiceBusyError | None) -> None:
        reservation.give_back()
        status: int = 200
        headers: Headers = EMPTY
        if error is not None:
            refusal = refuse_body(self._service, error)
            status, headers = refusal.status_code, refusal.headers
        self.on_answer(status)
        answer(status, headers)
