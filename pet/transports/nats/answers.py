"""The three forms of an answer to a participant: nothing, the bytes themselves, or where to fetch them.

Small answers travel in the event or reply itself, large ones as a blob. Pure functions.
"""

from __future__ import annotations

from typing import Final

from pet.errors import TransportError
from pet.transports.nats.broadcasts import BlobReference
from pet.transports.nats.subjects import Subjects
from pet.transports.signed_answers import MODEL_ROUTE, PARAMETERS_ROUTE, SEEDS_ROUTE, SUMS_ROUTE

PARAMETERS: Final = PARAMETERS_ROUTE
SUMS: Final = SUMS_ROUTE
MODEL: Final = MODEL_ROUTE

#: What `ask.{peer}` begins with when it asks for a seed dictionary; the key follows.
ASK_SEEDS: Final = b"seeds:"
#: What `ask.{peer}` is when it asks for the record that `GET /status` shows.
ASK_STATUS: Final = b"status"

_NOTHING, _INLINE, _ELSEWHERE = b"\x00", b"\x01", b"\x02"

Answer = bytes | BlobReference | None


def event_route(subjects: Subjects, name: str) -> str:
    """Return what the signature of an event names: no event of another federation, and no answer over HTTP, has the same."""
    return subjects.prefix + name


def seeds_route(subjects: Subjects, public_key: bytes) -> str:
    """Return what the signature of a seed dictionary names."""
    return subjects.prefix + SEEDS_ROUTE + public_key.hex()


def encode_answer(answer: Answer) -> bytes:
    """Return an answer with its form in front."""
    if answer is None:
        return _NOTHING
    if isinstance(answer, BlobReference):
        return _ELSEWHERE + answer.to_bytes()
    return _INLINE + answer


def decode_answer(data: bytes, what: str) -> Answer:
    """Read what `encode_answer` wrote.

    Raises:
        TransportError: it is something else.
    """
    form, rest = data[:1], data[1:]
    if form == _INLINE:
        return rest
    if form == _NOTHING and not rest:
        return None
    if form == _ELSEWHERE:
        try:
            return BlobReference.from_bytes(rest)
        except ValueError as error:
            raise TransportError(f"{what}: {error}") from None
    raise TransportError(f"{what}: expected nothing, bytes or a reference, got {data[:20]!r}")
