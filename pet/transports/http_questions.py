"""The routes of docs/spec/pet.md 5.1 that answer questions, as values: what both HTTP clients ask, and how they read it.

Pure functions; nothing here asks.
"""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, assert_never

from pet.model_formats import BINCODE, NPY
from pet.protocol.participant_events import GetParameters, GetSeeds, GetSums
from pet.transports.http_answers import require_parameters
from pet.transports.requests import GetModel
from pet.transports.signed_answers import MODEL_ROUTE, PARAMETERS_ROUTE, SEEDS_ROUTE, SUMS_ROUTE
from pet.transports.status import MAX_STATUS_BYTES

#: The record has 136 bytes; room for an error page of a proxy is not needed, since its status is refused first.
_MAX_PARAMETERS_BYTES: Final = 4096
#: More than a million sum participants; a participant makes an update for no more of them.
_MAX_SUMS_BYTES: Final = 1 << 27
#: Exact fractions cost many times the bytes of the array they are made into. xaynet does not look at the header.
_MODEL_ACCEPT: Final = f"{NPY}, {BINCODE};q=0.5"

#: Media type and bytes; None for an answer that says that there is nothing now.
HttpAnswer = tuple[str, bytes] | None


def _bytes_of(answer: HttpAnswer) -> bytes | None:
    return answer[1] if answer else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A GET request.

    Attributes:
        target: path and query.
        route: what the signature of an answer names.
        accept: media types.
        max_bytes: larger answers are refused; None leaves that to the client.
        read: makes of an answer what the caller gets.
    """

    target: str
    route: str = ""
    accept: str = "*/*"
    max_bytes: int | None = None
    read: Callable[[HttpAnswer], Any] = _bytes_of


STATUS: Final = Question(target="/status", max_bytes=MAX_STATUS_BYTES)


def question_of(request: GetParameters | GetSums | GetSeeds | GetModel) -> Question:
    """Return how a request is asked for."""
    match request:
        case GetParameters():
            return Question(target="/params", route=PARAMETERS_ROUTE, max_bytes=_MAX_PARAMETERS_BYTES, read=require_parameters)
        case GetSums():
            return Question(target="/sums", route=SUMS_ROUTE, max_bytes=_MAX_SUMS_BYTES)
        case GetSeeds():
            # Escaped by hand: "+" unescaped would be read as a space (spec 5.1).
            key = urllib.parse.quote(base64.b64encode(request.public_key), safe="")
            return Question(target=f"/seeds?pk={key}", route=SEEDS_ROUTE + request.public_key.hex())
        case GetModel():
            return Question(
                target="/model",
                route=MODEL_ROUTE,
                accept=_MODEL_ACCEPT,
                max_bytes=request.max_bytes,
                read=lambda answer: answer,
            )
        case _:
            assert_never(request)
