"""PET over HTTP, the coordinator's side: xaynet's routes (spec 5), and `/status` and `/healthz`, as an ASGI application.

A coordinator that speaks pet/1 has that profile's routes beside them (pet1_reads.py, update_route.py). It can be served as it
is or mounted in another application. It moves bytes between HTTP and a `Service`: it knows routes, headers and status codes,
but no phase, and it is never given the outcome of a message.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from pet.crypto import PUBLIC_KEY_BYTES
from pet.errors import AnswerAbandonedError, MissingExtraError
from pet.model_formats import BINCODE, NPY, SAFETENSORS, npy_header, safetensors_header
from pet.transports.accept import choose_media_type
from pet.transports.asgi_signing import Headers, SignedReads
from pet.transports.base import PublishedModel
from pet.transports.message_route import MESSAGE_PATHS, RETRY_AFTER_SECONDS, DirectMessages, MessageRoute
from pet.transports.paced_answers import PacedAnswers
from pet.transports.pet1 import Pet1Endpoint
from pet.transports.pet1_reads import Pet1Reads, knows
from pet.transports.service import Service
from pet.transports.signed_answers import AnswerSigner
from pet.transports.update_route import UpdateRoutes

with MissingExtraError.naming("http"):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

_logger: Final = logging.getLogger(__name__)
_Handler = Callable[[Request], Awaitable[Response]]

OCTET_STREAM: Final = "application/octet-stream"
_MODEL_MEDIA_TYPES: Final = (BINCODE, NPY, SAFETENSORS)
#: Round data changes at any moment; nothing between us and a participant may keep it.
_VOLATILE: Final = {"cache-control": "no-store"}
#: How many rounds a model may be behind while somebody is still being sent it.
_OLD_MODELS_STREAMED: Final = 2


def create_app(service: Service, extra_routes: Sequence[Route] = (), signer: AnswerSigner | None = None) -> Starlette:
    """Return the application; its lifespan starts and stops the service.

    Args:
        service: the coordinator behind it.
        extra_routes: more to answer than participants ask for.
        signer: signs the answers in the header `Pet-Signature`; None signs nothing.

    Mounted in another application, whose server runs only the outer lifespan, the outer one has to run the service:
    `Starlette(routes=[Mount("/pet", create_app(service))], lifespan=service.lifespan)`.
    """
    routes = _Routes(service, signer)
    table: list[tuple[str, str, _Handler]] = [
        ("GET", "/params", routes.get_parameters),
        ("GET", "/sums", routes.get_sums),
        ("GET", "/seeds", routes.get_seeds),
        ("GET", "/model", routes.get_model),
        ("GET", "/status", routes.get_status),
        ("GET", "/healthz", routes.get_health),
    ]
    messages = MessageRoute(service)
    app = Starlette(
        routes=[
            *_pet1_routes(service),
            *(Route(path, messages, methods=["POST"]) for path in MESSAGE_PATHS),
            *(Route(path + slash, handler, methods=[method]) for method, path, handler in table for slash in ("", "/")),
            *extra_routes,
        ],
        exception_handlers={HTTPException: _answer_empty},
        lifespan=service.lifespan,
    )
    app.router.redirect_slashes = False
    app.add_middleware(PacedAnswers, stall_seconds=service.stall_seconds, refusals=service.refusals)
    app.add_middleware(DirectMessages, route=messages)
    return app


def _pet1_routes(service: Service) -> list[Route]:
    """Return the routes of pet/1; a coordinator that speaks xaynet's profile only has none of them."""
    if not isinstance(service.endpoint, Pet1Endpoint):
        return []
    updates = UpdateRoutes(service, service.endpoint).applications()
    return [*Pet1Reads(service.endpoint).routes(), *(Route(path, app, methods=["POST"]) for path, app in updates.items())]


class _Routes:
    """One method per route."""

    def __init__(self, service: Service, signer: AnswerSigner | None) -> None:
        self._service = service
        self._endpoint = service.endpoint
        self._reads = SignedReads(service, signer)

    async def get_parameters(self, _: Request) -> Response:
        """Answer with the round parameters; 503 before the first round, where xaynet serves a fake record (spec 13)."""
        parameters, signature = self._reads.parameters()
        if parameters is None:
            return Response(status_code=503, headers={"retry-after": str(RETRY_AFTER_SECONDS)})
        return _answer(parameters, signature)

    async def get_sums(self, _: Request) -> Response:
        """Answer with the sum dictionary, or 204."""
        return _answer(*self._reads.sums())

    async def get_seeds(self, request: Request) -> Response:
        """Answer with the seed dictionary of the sum participant `pk`, or 204; 400 for a bad key, 500 for none, as xaynet."""
        text = request.query_params.get("pk")
        if text is None:
            return Response(status_code=500)
        try:
            public_key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # xaynet takes it without padding too
        except (binascii.Error, ValueError):
            return Response(status_code=400)
        if len(public_key) != PUBLIC_KEY_BYTES:
            return Response(status_code=400)
        # Joining ten thousand entries, and signing them, takes long enough to do it elsewhere.
        return _answer(*await self._service.run(self._reads.seeds, public_key))

    async def get_model(self, request: Request) -> Response:
        """Answer with the global model in the media type that Accept prefers, or 204; 304 if the client has it."""
        model, parameters = self._reads.model()
        if model is None:
            return _answer(None, await self._reads.model_headers(None, parameters))
        media_type = choose_media_type(request.headers.get("accept"), _MODEL_MEDIA_TYPES)
        if media_type is None:
            return Response(status_code=406, headers={"vary": "Accept"})
        etag = f'"{model.etag}-{_MODEL_MEDIA_TYPES.index(media_type)}"'
        headers = {"etag": etag, "vary": "Accept", "cache-control": "no-cache"}
        # Also with 304: a cache takes the signature of this round from it.
        headers |= await self._reads.model_headers(model, parameters, media_type, partial(_model_pieces, model, media_type))
        if knows(request, etag):
            return Response(status_code=304, headers=headers)
        if media_type != BINCODE:
            size = len(_model_header(model, media_type)) + model.length * model.dtype.itemsize
            headers["content-length"] = str(size)
        if request.method == "HEAD":
            return _answer_head(media_type, headers)
        pieces = _model_pieces(model, media_type)
        return StreamingResponse(self._stream(model, pieces), media_type=media_type, headers=headers)

    async def get_status(self, _: Request) -> Response:
        """Answer with the counters of the current phase."""
        return JSONResponse(self._endpoint.status(), headers=_VOLATILE)

    async def get_health(self, _: Request) -> Response:
        """Answer 200 while the service runs and time passes in it, 503 otherwise."""
        return Response(status_code=200 if self._service.is_healthy else 503, headers=_VOLATILE)

    async def _stream(self, model: PublishedModel, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Take each piece of a model in a worker thread: making one costs time.

        Raises:
            AnswerAbandonedError: the model is too old by now. A slow reader keeps a whole model in memory, and must not be
                able to keep every one there ever was.
        """
        while (piece := await self._service.run(next, pieces, None)) is not None:
            latest = self._endpoint.model()
            if latest is not None and latest.round_id - model.round_id > _OLD_MODELS_STREAMED:
                raise AnswerAbandonedError(f"model of round {model.round_id}: not taken until round {latest.round_id}")
            yield piece


def _answer(body: bytes | None, signature: Headers) -> Response:
    if body is None:
        return Response(status_code=204, headers=_VOLATILE | signature)
    return Response(body, media_type=OCTET_STREAM, headers=_VOLATILE | signature)


def _model_header(model: PublishedModel, media_type: str) -> bytes:
    return (npy_header if media_type == NPY else safetensors_header)(model.length, model.dtype)


def _model_pieces(model: PublishedModel, media_type: str) -> Iterator[bytes]:
    """Return the body of a model, made piece by piece."""
    if media_type == BINCODE:
        return model.bincode_chunks()
    return itertools.chain([_model_header(model, media_type)], map(_little_endian, model.array_chunks()))


def _answer_head(media_type: str, headers: dict[str, str]) -> Response:
    """Answer HEAD with the headers of GET; where GET does not say its length, neither does this."""
    answer = Response(media_type=media_type, headers=headers)
    if "content-length" not in headers:
        del answer.headers["content-length"]
    return answer


async def _answer_empty(_: Request, error: Exception) -> Response:
    """Answer unknown paths and wrong methods without a body."""
    assert isinstance(error, HTTPException), "registered for nothing else"
    return Response(status_code=error.status_code, headers=error.headers)


def _little_endian(array: np.ndarray[Any, Any]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
