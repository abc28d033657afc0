"""Rounds of pet/1 over HTTP for honest members and participants, and what others send to the routes of an update meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import numpy as np
from hostile_attacks import Attack, get, post
from hostile_servers import pet1_coordinator
from hostile_targets import Target
from pet1_parties import MODEL_LENGTH
from pet1_players import Players

from pet.buffers import Buffer
from pet.errors import TransportError
from pet.pet1.hashes import u32
from pet.pet1.header_batch import HeaderBatch
from pet.pet1.leaves import LEAF_BYTES
from pet.pet1.round_record import RoundRecord
from pet.transports.http import HttpTransport
from pet.transports.pet1 import OpenedUpdate, Pet1Document, PublishedDocument

_Answer = TypeVar("_Answer")
#: How long an honest peer goes on asking.
_PATIENCE_SECONDS: Final = 120.0
_UPDATE: Final = "/pet/v1/update"
#: What a body counts as that does not go on; between two Update phases it is answered before it is read.
#: What another length than the round's is counted as, unless it comes too often before.
_LENGTH_REASONS: Final = ("rate", "wrong_phase", "length_mismatch")
_BODY_REASONS: Final = ("no_room", "body_evicted", "body_stalled", "rate", "connection_rate", "wrong_phase", "length_mismatch")


class PatientEndpoint:
    """A coordinator as players know it, over HTTP, asked again as long as it refuses.

    Attributes:
        refused: how many requests were refused, or got no answer.
    """

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport
        self.refused = 0

    def document(self, document: Pet1Document) -> PublishedDocument | None:
        data = self._ask(lambda: self._transport.get_document(document))
        return None if data is None else PublishedDocument(data, b"")

    def headers(self, after: int) -> HeaderBatch:
        return self._ask(lambda: self._transport.get_headers(after))

    def open_update(self, sealed: Buffer) -> OpenedUpdate:
        return OpenedUpdate(self._ask(lambda: self._transport.open_update(sealed)), None)

    def take_leaves(self, upload: bytes, first: int, leaves: Buffer) -> bytes:
        return self._ask(lambda: self._transport.send_piece([upload + u32(first), leaves]))

    def handle_message(self, body: Buffer) -> None:
        self._ask(lambda: self._transport.send_message(body))

    def _ask(self, call: Callable[[], _Answer]) -> _Answer:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return call()
            except TransportError:
                assert time.monotonic() < deadline, "expected an answer within two minutes"
                self.refused += 1
                time.sleep(0.2)


def pet1_attacks(players: Players, vector_bytes: int, sealed_bytes: int) -> tuple[Attack, ...]:
    """Return what somebody does who is not enrolled, but may know the header digest of an update on its way."""
    whole = 4 + sealed_bytes + vector_bytes

    def piece(_: int) -> bytes:
        sent = players.updates[0].sent
        name = bytes(32) if sent is None else sent.header.digest
        return post(36 + LEAF_BYTES, 0, f"{_UPDATE}/leaves") + name + u32(0) + bytes(LEAF_BYTES)

    def begun_update(_: int) -> bytes:
        return post(whole, 0, _UPDATE) + u32(sealed_bytes) + bytes(sealed_bytes - 1)

    return (
        Attack("slow leaves", 100, lambda _: post(36 + LEAF_BYTES, 300_000, f"{_UPDATE}/leaves"), b"x", reasons=_BODY_REASONS),
        Attack("slow openings", 100, lambda _: post(sealed_bytes, 100, f"{_UPDATE}/open"), b"x", reasons=_BODY_REASONS),
        Attack("slow updates", 100, begun_update, reasons=_BODY_REASONS),
        Attack(
            "other lengths", 20, lambda _: post(10**9, 1000, _UPDATE), bytes(1 << 16), 0.0, reads=True, reasons=_LENGTH_REASONS
        ),
        Attack(
            "junk openings", 20, lambda _: post(sealed_bytes, sealed_bytes, f"{_UPDATE}/open"), reads=True, reasons=("rate",)
        ),
        Attack("wrong leaves", 10, piece, reads=True, reasons=("wrong_leaf", "rate")),
        Attack("models not read", 100, lambda _: get("/pet/v1/model") * 30, reasons=("reader_stalled", "answers")),
        Attack("headers not read", 60, lambda _: get("/pet/v1/headers") * 3000, get("/pet/v1/manifest") * 3000, 0.0),
    )


@contextlib.contextmanager
def pet1_target(updates: int, length: int, **seconds: float) -> Iterator[Target]:
    """Run a coordinator of pet/1 for rounds with an update of each of some participants."""
    players = Players(update_count=updates)
    enrolment = players.parties.enrolment.sign(players.parties.authority)
    with (
        pet1_coordinator(enrolment, updates=updates, length=length, **seconds) as server,
        contextlib.closing(HttpTransport("http://{}:{}".format(*server.address))) as transport,
    ):
        endpoint: Any = PatientEndpoint(transport)

        def play() -> int:
            before = endpoint.refused
            number = _number(endpoint)
            while _number(endpoint) == number:
                players.play(endpoint)
            model = endpoint.document(Pet1Document.MODEL)
            totals = np.frombuffer(model.data, "<u4")
            assert (*map(int, totals[:MODEL_LENGTH]), int(totals[-1])) == players.sum_of(number)
            return endpoint.refused - before

        play()  # also what every later round needs of memory
        sent = players.updates[0].sent
        assert sent is not None
        server.limit_memory()
        yield Target(server, pet1_attacks(players, len(sent.vector), len(sent.sealed)), play, 4 * length)


def _number(endpoint: Any) -> int:
    number: int = RoundRecord.from_bytes(endpoint.document(Pet1Document.ROUND).data).number
    return number
