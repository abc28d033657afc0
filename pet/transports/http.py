"""The HTTP client: the calls of a transport as requests to the routes of either profile, on top of httpx.

How a client is set up is in http_options.py, what is asked in http_questions.py, what answers mean in http_answers.py. Neither
client knows a phase, and what an answer says is not read.

Answers are bounded before they are read, and never decompressed: a few bytes could otherwise become any number.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from pet.errors import ConfigError, TransportError
from pet.protocol.participant_events import SendMessage
from pet.transports.http_answers import (
    announced_bytes,
    as_transport_error,
    library_errors,
    media_type,
    require_expected,
    require_signed,
    require_size,
)
from pet.transports.http_options import (
    DEFAULT_TIMEOUT_SECONDS,
    TlsOptions,
    client_options,
    load_httpx,
    normalise_url,
    require_secure,
)
from pet.transports.http_questions import STATUS, Delivery, Question, delivery_of, question_of
from pet.transports.idle_clients import IdleClients
from pet.transports.pet1_calls import AsyncPet1Calls, BlockingPet1Calls
from pet.transports.pet1_requests import OpenUpdate, Pet1Request, SendPiece
from pet.transports.pinned import AnswerCheck, AnswerVerifier, parse_coordinator_key
from pet.transports.requests import TransportRequest
from pet.transports.status import parse_status
from pet.urls import split_credentials

if TYPE_CHECKING:
    import httpx

#: A megaweight model in xaynet's widest fractions, or the seeds of eight million updates: beyond that, ask for it.
DEFAULT_MAX_ANSWER_BYTES: Final = 1 << 30


class HttpTransport(BlockingPet1Calls):
    """`Transport` and `Pet1Transport` over HTTP(S).

    Connections are kept and reused; calls may come from several threads at once.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        tls: TlsOptions | None = None,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES,
        coordinator_key: bytes | str | None = None,
        allow_insecure: bool | None = None,
        on_received: Callable[[int, int | None], None] | None = None,
    ) -> None:
        """Prepare to talk to a coordinator; nothing is sent yet.

        Args:
            url: of the coordinator, as http://host:port or with a path in front of the routes.
            timeout_seconds: of each read and write, and of connecting if it is less than 15 s.
            tls: certificates, for https.
            max_answer_bytes: larger answers are refused.
            coordinator_key: public key of the coordinator, 32 bytes or their text: only answers that it signed are taken.
            allow_insecure: whether http:// to another machine may do without a coordinator key, though who sits on the way can
                then answer in the coordinator's place and read every model; None takes the environment's PET_ALLOW_INSECURE.
            on_received: called while an answer arrives, in the caller's thread: its bytes so far, and all that it announces.

        Raises:
            ConfigError: the URL, the key or a certificate cannot be used, or http:// would be insecure.
            MissingExtraError: httpx is not installed.
        """
        self._base, credentials = split_credentials(_require_http(url))
        self._verifier = None if coordinator_key is None else AnswerVerifier(parse_coordinator_key(coordinator_key))
        require_secure(self._base, is_pinned=self._verifier is not None, allow_insecure=allow_insecure)
        self._max_answer_bytes = max_answer_bytes
        self._on_received = on_received
        self._httpx = load_httpx()
        of_client, of_transport = client_options(self._httpx, self._base, timeout_seconds, tls, credentials)
        from pet.transports.http_connections import Connections, EndableBackend  # needs an extra, as httpx does

        self._connections = Connections()
        backend = EndableBackend(self._connections)

        def make_client() -> httpx.Client:
            transport = self._httpx.HTTPTransport(**of_transport)
            transport._pool._network_backend = backend
            client: httpx.Client = self._httpx.Client(transport=transport, **of_client)
            return client

        self._clients: IdleClients[httpx.Client] = IdleClients(make_client)

    @property
    def coordinator_key(self) -> bytes | None:
        """The coordinator's public key that answers must be signed with; None takes them unsigned."""
        return None if self._verifier is None else self._verifier.public_key

    def carry_out(self, request: TransportRequest | Pet1Request, *, verifier: AnswerVerifier | None = None) -> Any:
        """Do what a request says. Documents of pet/1 carry the signatures of their authors, and need no verifier."""
        if isinstance(request, SendMessage | OpenUpdate | SendPiece):
            sent = delivery_of(request)
            return sent.read(self._exchange("POST", sent.target, sent.max_bytes, sent.headers, sent.pieces()))
        question = question_of(request)
        return question.read(self._get(question, self._expect(question.route, verifier)))

    def get_status(self) -> dict[str, Any]:
        """Return the record of `GET /status`, as the coordinator sent it: nothing in it is checked."""
        answer = self._get(STATUS)
        return parse_status(answer[1] if answer else b"")

    def end_requests(self) -> None:
        """End what is under way with a TransportError, from any thread; nothing may be asked afterwards."""
        self._connections.end()

    def close(self) -> None:
        """End what is under way, and close the connections."""
        self.end_requests()
        for client in self._clients.close():
            client.close()

    def _expect(self, route: str, verifier: AnswerVerifier | None) -> AnswerCheck | None:
        verifier = verifier or self._verifier
        return None if verifier is None or not route else verifier.expect(route)

    def _get(self, question: Question, check: AnswerCheck | None = None) -> tuple[str, bytes] | None:
        limit = self._max_answer_bytes if question.max_bytes is None else min(question.max_bytes, self._max_answer_bytes)
        return self._exchange("GET", question.target, limit, {"Accept": question.accept}, check=check)

    def _exchange(
        self,
        method: str,
        target: str,
        limit: int,
        headers: dict[str, str],
        content: Iterator[bytes] | None = None,
        check: AnswerCheck | None = None,
    ) -> tuple[str, bytes] | None:
        client = self._clients.take()
        try:
            with client.stream(method, self._base + target, headers=headers, content=content) as response:
                require_expected(method, target, response, limit)
                collected = bytearray()
                # Read even if nothing should come: a connection with an unread answer cannot be used again.
                for piece in response.iter_raw():
                    collected += piece
                    require_size(method, target, len(collected), limit)
                    if check is not None:
                        check.update(piece)
                    if self._on_received is not None:
                        self._on_received(len(collected), announced_bytes(response))
                require_signed(check, target, response)
                return None if response.status_code == 204 else (media_type(response), bytes(collected))
        except TransportError:
            raise
        except library_errors(self._httpx) as error:
            raise as_transport_error(self._base, error) from error
        finally:
            for unused in self._clients.put_back(client):
                unused.close()


class AsyncHttpTransport(AsyncPet1Calls):
    """`AsyncTransport` and `AsyncPet1Transport` over HTTP(S), for one event loop. Connections are kept and reused."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        tls: TlsOptions | None = None,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES,
        coordinator_key: bytes | str | None = None,
        allow_insecure: bool | None = None,
    ) -> None:
        """Prepare to talk to a coordinator; see `HttpTransport`."""
        self._base, credentials = split_credentials(_require_http(url))
        self._verifier = None if coordinator_key is None else AnswerVerifier(parse_coordinator_key(coordinator_key))
        require_secure(self._base, is_pinned=self._verifier is not None, allow_insecure=allow_insecure)
        self._max_answer_bytes = max_answer_bytes
        self._httpx = load_httpx()
        of_client, of_transport = client_options(self._httpx, self._base, timeout_seconds, tls, credentials)
        from pet.transports.http_connections import AsyncClosingBackend  # needs an extra, as httpx does

        def make_client() -> httpx.AsyncClient:
            transport = self._httpx.AsyncHTTPTransport(**of_transport)
            transport._pool._network_backend = AsyncClosingBackend()
            client: httpx.AsyncClient = self._httpx.AsyncClient(transport=transport, **of_client)
            return client

        self._clients: IdleClients[httpx.AsyncClient] = IdleClients(make_client)

    @property
    def coordinator_key(self) -> bytes | None:
        """The coordinator's public key that answers must be signed with; None takes them unsigned."""
        return None if self._verifier is None else self._verifier.public_key

    async def carry_out(self, request: TransportRequest | Pet1Request, *, verifier: AnswerVerifier | None = None) -> Any:
        """Do what a request says. Documents of pet/1 carry the signatures of their authors, and need no verifier."""
        if isinstance(request, SendMessage | OpenUpdate | SendPiece):
            sent = delivery_of(request)
            return sent.read(await self._exchange("POST", sent.target, sent.max_bytes, sent.headers, _async_pieces(sent)))
        question = question_of(request)
        return question.read(await self._get(question, self._expect(question.route, verifier)))

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients.close():
            await client.aclose()

    def _expect(self, route: str, verifier: AnswerVerifier | None) -> AnswerCheck | None:
        verifier = verifier or self._verifier
        return None if verifier is None or not route else verifier.expect(route)

    async def _get(self, question: Question, check: AnswerCheck | None = None) -> tuple[str, bytes] | None:
        limit = self._max_answer_bytes if question.max_bytes is None else min(question.max_bytes, self._max_answer_bytes)
        return await self._exchange("GET", question.target, limit, {"Accept": question.accept}, check=check)

    async def _exchange(
        self,
        method: str,
        target: str,
        limit: int,
        headers: dict[str, str],
        content: AsyncIterator[bytes] | None = None,
        check: AnswerCheck | None = None,
    ) -> tuple[str, bytes] | None:
        client = self._clients.take()
        try:
            async with client.stream(method, self._base + target, headers=headers, content=content) as response:
                require_expected(method, target, response, limit)
                # Read even if nothing should come: a connection with an unread answer cannot be used again.
                collected = await self._collect(response, limit, check)
                require_size(method, target, len(collected), limit)
                require_signed(check, target, response)
                return None if response.status_code == 204 else (media_type(response), bytes(collected))
        except TransportError:
            raise
        except library_errors(self._httpx) as error:
            raise as_transport_error(self._base, error) from error
        finally:
            for unused in self._clients.put_back(client):
                await unused.aclose()

    async def _collect(self, response: Any, limit: int, check: AnswerCheck | None) -> bytearray:
        """Return a body; of one that is too long, only the beginning, which is longer than the limit.

        A body that is too long is read to an end, too, which closing it brings at once: the library reads through generators
        inside each other, and one that is left halfway ends only when it is collected, with a warning if the loop is gone.
        """
        collected = bytearray()
        try:
            async for piece in response.aiter_raw():
                if len(collected) <= limit:
                    collected += piece
                    if check is not None:
                        check.update(piece)
                if len(collected) > limit:
                    await response.aclose()
        except library_errors(self._httpx):
            if len(collected) <= limit:
                raise
        return collected


async def _async_pieces(delivery: Delivery) -> AsyncIterator[bytes]:
    for piece in delivery.pieces():
        yield piece


def _require_http(url: str) -> str:
    """Return the base URL of a coordinator over HTTP.

    Raises:
        ConfigError: it is no such URL; for that of a broker it says what takes it.
    """
    try:
        return normalise_url(url)
    except ConfigError as error:
        if str(url).startswith(("nats://", "tls://")):
            raise ConfigError(f"{error}; over NATS, give a pet.transports.nats.NatsTransport in its place") from None
        raise
