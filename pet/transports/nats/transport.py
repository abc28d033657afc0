"""PET over NATS, the participant's side: the calls of a transport as reads from the broker and uploads to the coordinator.

One for asyncio, on a connection that the caller keeps, and one that blocks, with a connection and an event loop of its own.
Neither knows a phase or what a message means.

Source: docs/spec/federation.md 5.2, 5.4.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import secrets
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar, assert_never

from pet.buffers import Buffer
from pet.errors import TransportError
from pet.protocol.participant_events import GetParameters, GetSeeds, GetSums, SendMessage
from pet.transports.daemon_threads import DaemonThreads
from pet.transports.nats.answers import (
    ASK_SEEDS,
    ASK_STATUS,
    MODEL,
    PARAMETERS,
    SUMS,
    Answer,
    decode_answer,
    event_route,
    seeds_route,
)
from pet.transports.nats.broadcasts import BlobReference, Broadcasts
from pet.transports.nats.connection import NatsConnection, connect
from pet.transports.nats.pet1_client import Pet1Client
from pet.transports.nats.sender import require_accepted, send_upload
from pet.transports.nats.server import PET_MESSAGE
from pet.transports.nats.storing import store_upload
from pet.transports.nats.subjects import Subjects
from pet.transports.nats_settings import NatsSettings, require_settings
from pet.transports.pet1_calls import AsyncPet1Calls, BlockingPet1Calls
from pet.transports.pet1_requests import GetDocument, GetHeaders, OpenUpdate, Pet1Request, SendPiece
from pet.transports.pinned import AnswerCheck, AnswerVerifier, parse_coordinator_key
from pet.transports.requests import GetModel, TransportRequest
from pet.transports.signed_answers import SIGNATURE_HEADER
from pet.transports.status import MAX_STATUS_BYTES, parse_status

_Result = TypeVar("_Result")

#: As over HTTP: a megaweight model in the widest type, or the seeds of eight million updates.
DEFAULT_MAX_ANSWER_BYTES: Final = 1 << 30
#: Both as over HTTP too: the record has 136 bytes, and the sum dictionary a million entries at most.
_MAX_PARAMETERS_BYTES: Final = 4096
_MAX_SUMS_BYTES: Final = 1 << 27
#: How long calls that were ended may take to clean up; a connection to a broker that hangs takes less than a second.
_CLEAN_UP_SECONDS: Final = 5.0


class AsyncNatsTransport(AsyncPet1Calls):
    """`AsyncTransport` and `AsyncPet1Transport` over NATS.

    Args:
        connection: to the broker; stays open at `aclose`.
        subjects: names of the federation.
        peer: who sends; None takes the name of the connection.
        patience_seconds: how long a message is sent again without any progress; None means the request timeout.
        max_answer_bytes: larger answers are refused.
        coordinator_key: public key of the coordinator, 32 bytes or their text: only what it signed is taken, no matter who may
            publish at the broker.

    Raises:
        ConfigError: the key cannot be used.
    """

    def __init__(
        self,
        connection: NatsConnection,
        subjects: Subjects,
        *,
        peer: str | None = None,
        patience_seconds: float | None = None,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES,
        coordinator_key: bytes | str | None = None,
    ) -> None:
        settings = connection.settings
        self._connection: Final = connection
        self._subjects: Final = subjects
        self._broadcasts: Final = Broadcasts(connection, subjects)
        self._peer: Final = connection.name if peer is None else peer
        self._patience_seconds: Final = settings.request_timeout_seconds if patience_seconds is None else patience_seconds
        self._max_answer_bytes: Final = max_answer_bytes
        self._verifier: Final = None if coordinator_key is None else AnswerVerifier(parse_coordinator_key(coordinator_key))
        self._pet1: Final = Pet1Client(connection, subjects, self._peer, self._patience_seconds, max_answer_bytes)

    @property
    def coordinator_key(self) -> bytes | None:
        """The coordinator's public key that answers must be signed with; None takes them unsigned."""
        return None if self._verifier is None else self._verifier.public_key

    async def carry_out(self, request: TransportRequest | Pet1Request, *, verifier: AnswerVerifier | None = None) -> Any:
        """Do what a request says.

        Once a message is delivered, in mode `direct` the coordinator has it, in mode `stream` the broker keeps it for it.
        """
        match request:
            case GetParameters():
                parameters = await self._fetch(PARAMETERS, _MAX_PARAMETERS_BYTES, verifier)
                if parameters is None:
                    raise TransportError("round parameters: expected some, got none: the first round has not begun")
                return parameters
            case GetSums():
                return await self._fetch(SUMS, _MAX_SUMS_BYTES, verifier)
            case GetSeeds():
                return await self._ask_for_seeds(request.public_key, verifier)
            case GetModel():
                return await self._fetch_model(request.max_bytes, verifier)
            case SendMessage():
                return await self._deliver(request.body)
            case GetDocument() | GetHeaders() | OpenUpdate() | SendPiece():
                return await self._pet1.carry_out(request)
            case _:
                assert_never(request)

    async def get_status(self) -> dict[str, Any]:
        """Return the record that `GET /status` shows, as the coordinator sent it: nothing in it is checked, or signed."""
        data = await self._connection.request(self._subjects.ask(self._peer), ASK_STATUS)
        return parse_status(await self._resolve(decode_answer(data, "status"), MAX_STATUS_BYTES) or b"")

    async def aclose(self) -> None:
        """Do nothing: the connection is the caller's."""

    async def _ask_for_seeds(self, public_key: bytes, verifier: AnswerVerifier | None) -> bytes | None:
        check = self._expect(seeds_route(self._subjects, public_key), verifier)
        message = await self._connection.exchange(self._subjects.ask(self._peer), ASK_SEEDS + public_key)
        data = bytes(message.data)
        _finish(check, data, message.headers or {})
        return await self._resolve(decode_answer(data, "seed dictionary"), self._max_answer_bytes)

    async def _fetch_model(self, max_bytes: int | None, verifier: AnswerVerifier | None) -> tuple[str, bytes] | None:
        limit = self._max_answer_bytes if max_bytes is None else min(max_bytes, self._max_answer_bytes)
        answer = await self._last(MODEL, verifier)
        if not isinstance(answer, BlobReference):
            return None
        return answer.media_type, bytes(await self._broadcasts.fetch_blob(answer, limit))

    async def _deliver(self, body: Buffer) -> None:
        """Send a message again and again, as long as that may help."""
        if self._connection.settings.mode == "stream":
            await store_upload(
                self._connection,
                self._subjects,
                self._peer,
                body,
                kind=PET_MESSAGE,
                patience_seconds=self._patience_seconds,
            )
            return
        verdict = await send_upload(
            self._connection,
            self._subjects,
            self._peer,
            body,
            kind=PET_MESSAGE,
            is_sealed=True,
            patience_seconds=self._patience_seconds,
        )
        require_accepted(verdict)

    def _expect(self, route: str, verifier: AnswerVerifier | None) -> AnswerCheck | None:
        verifier = verifier or self._verifier
        return None if verifier is None else verifier.expect(route)

    async def _fetch(self, name: str, max_bytes: int, verifier: AnswerVerifier | None) -> bytes | None:
        return await self._resolve(await self._last(name, verifier), min(max_bytes, self._max_answer_bytes))

    async def _last(self, name: str, verifier: AnswerVerifier | None) -> Answer:
        """Return the last value of an event, or None while there is none.

        With a verifier, an event that was never published is no answer: a coordinator publishes each, if only as nothing.
        """
        check = self._expect(event_route(self._subjects, name), verifier)
        event = await self._broadcasts.last_event_with_headers(name)
        if event is None:
            if check is not None:
                raise TransportError(
                    f"{name}: expected an event with a signature, got none: the coordinator has published none"
                )
            return None
        data, headers = event
        _finish(check, data, headers)
        return decode_answer(data, name)

    async def _resolve(self, answer: Answer, limit: int) -> bytes | None:
        if isinstance(answer, BlobReference):
            return bytes(await self._broadcasts.fetch_blob(answer, limit))
        return answer


def _finish(check: AnswerCheck | None, data: bytes, headers: Mapping[str, str]) -> None:
    """Check what the coordinator said; a large answer is fetched afterwards, and must have the digest that was signed."""
    if check is not None:
        check.update(data)
        check.finish(headers.get(SIGNATURE_HEADER))


class NatsTransport(BlockingPet1Calls):
    """`Transport` and `Pet1Transport` over NATS, for callers that block. Calls may come from several threads at once.

    Connects with the first call, and again with the next one if that fails.

    Args:
        settings: how to reach the broker.
        federation_id: 16 characters a-z and 0-9.
        peer: who we are; a random name if None.
        patience_seconds: as in `AsyncNatsTransport`.
        max_answer_bytes: larger answers are refused.
        coordinator_key: as in `AsyncNatsTransport`.

    Raises:
        ConfigError: settings, the federation id, the peer's name or the key have another form.
    """

    def __init__(
        self,
        settings: NatsSettings,
        federation_id: str,
        *,
        peer: str | None = None,
        patience_seconds: float | None = None,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES,
        coordinator_key: bytes | str | None = None,
    ) -> None:
        self._settings: Final = require_settings(settings)
        self._subjects: Final = Subjects(federation_id)
        self._peer: Final = secrets.token_hex(16) if peer is None else peer
        self._coordinator_key: Final = None if coordinator_key is None else parse_coordinator_key(coordinator_key)
        self._options: Final[dict[str, Any]] = {
            "patience_seconds": patience_seconds,
            "max_answer_bytes": max_answer_bytes,
            "coordinator_key": self._coordinator_key,
        }
        self._connection: NatsConnection | None = None
        self._transport: AsyncNatsTransport | None = None
        self._loop: Final = asyncio.new_event_loop()
        self._loop.set_default_executor(DaemonThreads())  # which looks up the broker's name
        self._connecting: Final = asyncio.Lock()
        self._thread: Final = threading.Thread(target=self._loop.run_forever, name="pet-nats", daemon=True)
        self._lock: Final = threading.Lock()
        self._is_ended = self._is_closed = False
        self._answers: Final[set[concurrent.futures.Future[Any]]] = set()
        self._calls: Final[set[asyncio.Task[Any]]] = set()
        self._subjects.open(self._peer)  # raises for a name that cannot be used
        self._thread.start()

    @property
    def coordinator_key(self) -> bytes | None:
        """The coordinator's public key that answers must be signed with; None takes them unsigned."""
        return self._coordinator_key

    def carry_out(self, request: TransportRequest | Pet1Request, *, verifier: AnswerVerifier | None = None) -> Any:
        """Do what a request says; see `AsyncNatsTransport.carry_out`."""
        return self._call(lambda transport: transport.carry_out(request, verifier=verifier))

    def get_status(self) -> dict[str, Any]:
        """Return the record that `GET /status` shows, as the coordinator sent it: nothing in it is checked."""
        return self._call(lambda transport: transport.get_status())

    def end_requests(self) -> None:
        """End what is under way with a TransportError, from any thread; nothing may be asked afterwards."""
        with self._lock:
            self._is_ended = True
            answers = list(self._answers)
        for answer in answers:
            answer.cancel()

    def close(self) -> None:
        """End what is under way, close the connection and end the thread."""
        self.end_requests()
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """Wait until calls that were ended have cleaned up, a connection that was being made among them."""
        if self._calls:  # cancelled once: a second time would end their cleaning up
            await asyncio.wait(self._calls, timeout=_CLEAN_UP_SECONDS)
        if self._connection is not None:
            await self._connection.aclose()
        await asyncio.sleep(0)  # asyncio closes sockets one step later

    def _call(self, call: Callable[[AsyncNatsTransport], Awaitable[_Result]]) -> _Result:
        async def connected_call() -> _Result:
            task = asyncio.current_task()
            assert task is not None, "a coroutine runs in a task"
            self._calls.add(task)
            try:
                return await call(await self._connected())
            finally:
                self._calls.discard(task)

        with self._lock:
            if self._is_ended:
                raise TransportError("NATS: expected an open transport, got one that was closed")
            answer = asyncio.run_coroutine_threadsafe(connected_call(), self._loop)
            self._answers.add(answer)
        try:
            return answer.result()
        except concurrent.futures.CancelledError:
            raise TransportError("NATS: expected an answer, got none before the transport was closed") from None
        finally:
            with self._lock:
                self._answers.discard(answer)

    async def _connected(self) -> AsyncNatsTransport:
        async with self._connecting:
            if self._transport is None:
                self._connection = await connect(self._settings, self._peer)
                self._transport = AsyncNatsTransport(self._connection, self._subjects, **self._options)
            return self._transport
