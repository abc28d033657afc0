"""The REST interface of federations as an ASGI application: paths, signatures, limits, envelopes.

It can be served as it is or mounted in another application. What a path does is in rest_calls.py, who may call in
authentication.py, how much in caller_shares.py; this file reads requests and writes answers. `/healthz` and `/metrics` are for
operators, and not signed.

Source: docs/spec/federation.md 2.
"""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from pet.errors import FederationError, MissingExtraError, ProjectExistsError, RequestRefusedError, UnknownProjectError
from pet.federation.formats import secure
from pet.federation.records import Mode
from pet.federation.server.answers import Answer, about_a_project, answer_for, refuse
from pet.federation.server.authentication import Authenticator, Caller, SignedRequest
from pet.federation.server.call import Call
from pet.federation.server.caller_shares import CallerShares
from pet.federation.server.request_bodies import RequestBodies
from pet.federation.server.rest_calls import Handler, RestCalls
from pet.federation.server.service import FederationService
from pet.transports.paced_answers import PacedAnswers
from pet.transports.peers import peer_of
from pet.transports.refusal_counts import RefusalCounts, RefusalReason

with MissingExtraError.naming("federation"):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

_logger: Final = logging.getLogger(__name__)

#: Maps and contracts; the largest allowed contract is 1 MiB of text, and no sensible one comes near.
MAX_BODY_BYTES: Final = 1 << 20
#: Rows and model vectors. Larger tables are sent in pieces.
MAX_DATA_BYTES: Final = 64 << 20
#: How long a reader may take for the next piece of a large answer.
_STALL_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestOptions:
    """How the interface behaves.

    Attributes:
        allows_state_changing_gets: whether paths that change something answer GET too, as published; POST always works.
        max_data_bytes: largest body of rows or weights.
        max_requests_per_second: of one user, from all addresses together.
        max_calls: requests that are carried out at the same time; one user gets seven eighths.
        has_metrics: whether `/metrics` answers; None means where the extra `metrics` is installed.
    """

    allows_state_changing_gets: bool = True
    max_data_bytes: int = MAX_DATA_BYTES
    max_requests_per_second: float = 100.0
    max_calls: int = 64
    has_metrics: bool | None = None


def create_app(
    service: FederationService,
    authenticator: Authenticator,
    options: RestOptions | None = None,
    refusals: RefusalCounts | None = None,
) -> Starlette:
    """Return the application; its lifespan starts and stops the service.

    Args:
        service: the peers behind it.
        authenticator: says who may call.
        options: how it behaves.
        refusals: where refusals are counted; None counts them apart from those of the connections.

    Mounted in another application, whose server runs only the outer lifespan, the outer one has to run the service:
    `Starlette(routes=[Mount("/", create_app(service, authenticator))], lifespan=service.lifespan)`.

    Raises:
        MissingExtraError: metrics are asked for, and the extra `metrics` is not installed.
    """
    options, refusals = options or RestOptions(), refusals or RefusalCounts()
    interface = _Interface(authenticator, options, refusals)
    app = Starlette(
        routes=[
            *(interface.route(*entry) for entry in _table(RestCalls(service), options)),
            Route("/healthz", _health_of(service), methods=["GET"]),
        ],
        exception_handlers={HTTPException: _answer_outside},
        lifespan=service.lifespan,
    )
    app.router.redirect_slashes = False
    app.add_middleware(PacedAnswers, stall_seconds=_STALL_SECONDS, refusals=refusals)
    if options.has_metrics is not False:
        _add_metrics(app, service, interface.bodies, refusals, is_required=options.has_metrics is True)
    return app


def _health_of(service: FederationService) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(status_code=200 if service.is_healthy else 503, headers={"cache-control": "no-store"})

    return answer


def _add_metrics(
    app: Starlette, service: FederationService, bodies: RequestBodies, refusals: RefusalCounts, *, is_required: bool
) -> None:
    """Answer with figures; without the extra, only an operator who asked for them learns that it is missing."""
    try:
        from pet.federation.server.metrics import serve_metrics
    except MissingExtraError:
        if is_required:
            raise
        return
    serve_metrics(app, service, bodies, refusals)


def _table(calls: RestCalls, options: RestOptions) -> Iterator[tuple[list[str], str, Handler, int]]:
    """Yield methods, path, handler and largest body of every route; paths begin after `/symetry/rest/{cid}`."""
    changing = ["GET", "POST"] if options.allows_state_changing_gets else ["POST"]
    of_project: list[tuple[list[str], str, Handler]] = [
        (["GET"], "info", calls.info),
        (["POST"], "getEncrypted", calls.get_invitation),
        (["POST"], "getInvitation", calls.get_invitation),
        (changing, "startPulse", calls.start_pulse),
        (changing, "stopPulse", calls.stop_pulse),
        (changing, "newSchedule", calls.new_schedule),
        (changing, "fullSyncRequest", calls.full_sync_request),
        (["POST"], "addContract", calls.add_contract),
        (["POST"], "addPsrContract", calls.add_contract),
        (["POST"], "contractValidate", calls.contract_validate),
        (["POST"], "psrContractValidate", calls.contract_validate),
        (changing, "setExplorePeers", calls.set_explore_peers),
        (["GET"], "getErrorLog", calls.error_log),
        (["GET"], "getSyncLog", calls.sync_log),
        (["DELETE", "POST"], "clearErrorLog", calls.clear_error_log),
        (["GET"], "syncStats", calls.sync_stats),
        (["POST"], "awsinfo", calls.aws_info),
        (["POST"], "leave", calls.leave),
        (["POST"], "delete", calls.delete),
        (["POST"], "removePeer", calls.remove_peer),
        (["POST"], "credentials", calls.credentials),
        (["GET"], "contract", calls.contract),
        (["POST"], "acceptContract", calls.accept_contract),
        (["POST"], "setLeastRows", calls.set_least_rows),
        (["GET"], "members", calls.members),
        (["POST"], "confirm", calls.confirm),
        (["GET"], "univariate", calls.univariate),
        (["GET"], "covariance", calls.covariance),
        (["GET"], "correlation", calls.correlation),
        (["POST"], "regression", calls.regression),
        (["GET"], "model", calls.get_model),
        (["GET"], "rows", calls.rows),
        (["POST"], "cancelRows", calls.cancel_rows),
    ]
    data: list[tuple[str, Handler]] = [("learn", calls.learn), ("forget", calls.forget), ("model", calls.set_model)]
    yield ["POST"], "/fedml/create", calls.create, MAX_BODY_BYTES
    yield ["POST"], "/fedml/createJoin", calls.create_join, MAX_BODY_BYTES
    yield ["POST"], "/fedml/awsinfo", calls.aws_info, MAX_BODY_BYTES
    yield ["GET"], "/fedml/joinKey", calls.join_key, MAX_BODY_BYTES
    yield ["GET"], "/fedml", calls.projects, MAX_BODY_BYTES
    yield ["GET"], "/projects/{pid}/info", calls.project_info, MAX_BODY_BYTES
    yield from ((methods, f"/fedml/{{pid}}/{name}", handler, MAX_BODY_BYTES) for methods, name, handler in of_project)
    yield from ((["POST"], f"/fedml/{{pid}}/{name}", handler, options.max_data_bytes) for name, handler in data)


class _Interface:
    """Reads, authenticates, calls, answers."""

    def __init__(self, authenticator: Authenticator, options: RestOptions, refusals: RefusalCounts) -> None:
        self._authenticator: Final = authenticator
        self._refusals: Final = refusals
        self._shares: Final = CallerShares(options.max_requests_per_second, options.max_calls, refusals)
        self.bodies: Final = RequestBodies(options.max_data_bytes, refusals)

    def route(self, methods: list[str], path: str, handler: Handler, max_bytes: int) -> Route:
        """Make a route of a line of the table."""

        async def endpoint(request: Request) -> JSONResponse:
            try:
                return _response(await self._answer(request, handler, max_bytes))
            except FederationError as error:
                return _refusal(request, answer_for(error))
            except Exception as error:
                return _failure(request, error)

        return Route(f"/symetry/rest/{{cid}}{path}", endpoint, methods=methods)

    async def _answer(self, request: Request, handler: Handler, max_bytes: int) -> Answer:
        with self._counting_unsigned():
            mode = self._authenticator.mode_of(request.headers)
        announced = request.headers.get(secure.DIGEST_HEADER) if mode is Mode.NATIVE else None
        if announced is None:
            # The signature covers the body, which has to be read first: not much of it, and charged to who sends it.
            most_bytes = min(max_bytes, MAX_BODY_BYTES if mode is Mode.COMPAT else secure.MAX_UNANNOUNCED_BYTES)
            async with self.bodies.read(request, most_bytes, peer_of(request.scope.get("client"))) as body:
                return await self._call(handler, request, self._authenticate(request, body), body)
        digest = secure.parse_digest(announced)
        if digest is None:
            raise refuse(HTTPStatus.BAD_REQUEST, f"Invalid {secure.DIGEST_HEADER}")
        caller = self._authenticate(request, b"", digest)
        async with self.bodies.read(request, max_bytes, f"user {caller.customer_id}") as body:
            if secure.digest_body(body) != digest:
                self._refusals.count(RefusalReason.SIGNATURE)
                raise refuse(HTTPStatus.UNAUTHORIZED, "Invalid Signature")
            return await self._call(handler, request, caller, body)

    def _authenticate(self, request: Request, body: bytes, body_digest: str | None = None) -> Caller:
        signed = SignedRequest(
            method=request.method,
            headers=request.headers,
            path=request.scope["raw_path"].decode("ascii", "replace"),
            query=request.scope["query_string"].decode("ascii", "replace"),
            body=body,
            body_digest=body_digest,
        )
        with self._counting_unsigned():
            caller = self._authenticator.authenticate(signed)
            if request.path_params["cid"] != caller.customer_id:
                # The path is signed, so this is a user who asks for somebody else's projects.
                raise refuse(HTTPStatus.UNAUTHORIZED, "Invalid User" if caller.mode is Mode.COMPAT else "Invalid Signature")
        self._shares.count(caller.customer_id)
        return caller

    @contextmanager
    def _counting_unsigned(self) -> Iterator[None]:
        try:
            yield
        except RequestRefusedError:
            self._refusals.count(RefusalReason.SIGNATURE)
            raise

    async def _call(self, handler: Handler, request: Request, caller: Caller, body: bytes) -> Answer:
        address = request.client.host if request.client else "local"
        call = Call(
            caller=caller,
            parameters=request.path_params,
            query=dict(request.query_params),
            headers=request.headers,
            body=body,
            source=f"{caller.customer_id}@{address}",
        )
        try:
            with self._shares.carrying_out(caller.customer_id):
                return await handler(call)
        except (ProjectExistsError, UnknownProjectError) as error:
            raise about_a_project(error, call.caller.mode, call.customer_id, str(error)) from None


def _response(answer: Answer) -> JSONResponse:
    headers = {"cache-control": "no-store", **answer.headers}
    return JSONResponse(answer.envelope(), status_code=answer.status, headers=headers)


def _refusal(request: Request, answer: Answer) -> JSONResponse:
    """Answer with an error; where the text must not say why, an id links it with the log."""
    if answer.status is HTTPStatus.UNAUTHORIZED and "stringToSign" not in answer.values:
        correlation_id = secrets.token_hex(8)
        answer = replace(answer, values={**answer.values, "correlationId": correlation_id})
        _logger.warning("refused %s %s: %s correlation_id=%s", request.method, request.url.path, answer.text, correlation_id)
    else:
        _logger.info("refused %s %s: %d %s", request.method, request.url.path, answer.status, answer.text)
    return _response(answer)


def _failure(request: Request, error: Exception) -> JSONResponse:
    """Answer to a defect of ours. Its message may hold anything, so neither the log nor the answer shows it."""
    correlation_id = secrets.token_hex(8)
    place = "".join(traceback.format_tb(error.__traceback__))
    _logger.error(
        "%s %s failed: %s correlation_id=%s\n%s", request.method, request.url.path, type(error).__name__, correlation_id, place
    )
    answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error", {"correlationId": correlation_id})
    return _response(answer)


async def _answer_outside(_: Request, error: Exception) -> JSONResponse:
    """Answer to a path or a method that there is not, in the envelope."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    return _response(Answer(status, status.phrase, headers=dict(error.headers or {})))
