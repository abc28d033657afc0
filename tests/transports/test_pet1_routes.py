"""The routes of pet/1: what is published, and the three ways in of an update, also over raw sockets as bad clients send."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from asgi_server import serving, wait_until
from pet1_world import LEAF_ELEMENTS, Pet1World

from pet.coordinator.app import create_app
from pet.coordinator.settings import Settings
from pet.pet1.answers import UpdateAccepted, UpdateAnswer, UpdateOpen, UpdateRefused, build_piece
from pet.pet1.hashes import u32
from pet.pet1.header_batch import HeaderBatch
from pet.pet1.leaves import LEAF_BYTES
from pet.protocol.pet1_participant import OutgoingUpdate
from pet.protocol.phases import Phase
from pet.transports import asgi
from pet.transports.guarded_http import guarded_protocol
from pet.transports.open_connections import ConnectionLimits
from pet.transports.pet1 import Pet1Document
from pet.transports.refusal_counts import RefusalReason

#: Two leaves and a short one.
LENGTH = 2 * LEAF_ELEMENTS + 1000
BUDGET = 8 << 20


class Served:
    """A coordinator in the Update phase, a client, and answers as the sender of an update reads them."""

    def __init__(self, world: Pet1World, url: str, client: httpx.Client) -> None:
        self.world, self.url, self.client = world, url, client
        self.made: dict[int, OutgoingUpdate] = {}

    def update(self, number: int) -> OutgoingUpdate:
        if number not in self.made:
            self.made[number] = self.world.make_update(number)
        return self.made[number]

    def post(self, path: str, content: bytes | Iterator[bytes]) -> UpdateAnswer:
        answer = self.client.post(f"{self.url}/pet/v1/update{path}", content=content)
        assert answer.status_code == 200
        return self.update(0).read_answer(answer.content)

    def open(self, number: int) -> UpdateAnswer:
        return self.post("/open", self.update(number).sealed)

    def piece(self, number: int, leaves: range, **changes: bytes) -> UpdateAnswer:
        return self.post("/leaves", piece_of(self.update(number), leaves, **changes))

    def connect(self) -> socket.socket:
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname, parts.port), timeout=30)

    @property
    def refused(self) -> dict[str, int]:
        return self.world.engine.refused


def piece_of(update: OutgoingUpdate, leaves: range, upload: bytes | None = None, data: bytes | None = None) -> bytes:
    head, vector = build_piece(upload or update.header.digest, leaves, update.vector)
    return bytes(head) + (bytes(vector) if data is None else data)


def answer_on(connection: socket.socket, end: bytes) -> bytes:
    """Return what comes up to an end; the connection itself is closed a moment later."""
    answer = b""
    while not answer.endswith(end):
        more = connection.recv(4096)
        assert more, answer
        answer += more
    return answer


def have(*leaves: int) -> UpdateOpen:
    return UpdateOpen(8, tuple(number in leaves for number in range(3)))


@contextlib.contextmanager
def served(world: Pet1World) -> Iterator[Served]:
    limits = ConnectionLimits(max_connections=100, header_seconds=30, max_header_bytes=1 << 16)
    http = guarded_protocol(limits, world.service.refusals)
    with serving(asgi.create_app(world.service), http=http) as url, httpx.Client(timeout=60) as client:
        yield Served(world, url, client)


@pytest.fixture
def coordinator() -> Iterator[Served]:
    world = Pet1World(LENGTH, 3, max_bytes_in_flight=BUDGET, stall_seconds=30)
    with served(world.begin_updates()) as running:
        yield running
        wait_until(lambda: world.service.memory.free_bytes == BUDGET, 60)


def test_a_coordinator_of_xaynet_has_none_of_them() -> None:
    with serving(create_app(Settings())) as url:
        for path in ("round", "headers", "model"):
            assert httpx.get(f"{url}/pet/v1/{path}").status_code == 404
        assert httpx.post(f"{url}/pet/v1/update", content=b"x").status_code == 404


def test_documents_of_a_whole_round() -> None:
    world = Pet1World(3, 3)
    with served(world) as coordinator:
        client, url = coordinator.client, coordinator.url
        for kind in Pet1Document:
            is_there = kind in {Pet1Document.ROUND, Pet1Document.ENROLMENT}
            assert client.get(f"{url}/pet/v1/{kind.value}").status_code == (200 if is_there else 204)
        world.begin_updates()
        assert client.get(f"{url}/pet/v1/headers").status_code == 204
        for number in range(3):
            assert isinstance(coordinator.open(number), UpdateOpen)
            assert coordinator.piece(number, range(1)) == UpdateAccepted()
        assert world.engine.phase is Phase.CHECK
        world.finish_round()
        for kind in set(Pet1Document) - {Pet1Document.COMMITTEE}:  # the next round has begun
            check_document(client, f"{url}/pet/v1/{kind.value}", world, kind)
        assert client.get(f"{url}/pet/v1/enrolment").headers["content-type"] == "application/octet-stream"


def check_document(client: httpx.Client, url: str, world: Pet1World, kind: Pet1Document) -> None:
    document = world.engine.document(kind)
    assert document is not None
    answer = client.get(url)
    assert (answer.status_code, answer.content) == (200, document.data)
    assert answer.headers["etag"] == f'"{document.digest.hex()}"'
    head = client.head(url)
    assert (head.content, head.headers["content-length"]) == (b"", str(len(document.data)))
    again = client.get(url, headers={"if-none-match": f'"other", {answer.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(url, headers={"if-none-match": '"other"'}).status_code == 200


def test_headers_in_batches() -> None:
    world = Pet1World(3, 6).begin_updates()
    with served(world) as coordinator:
        for number in range(3):
            assert coordinator.open(number) == UpdateOpen(8, (False,))
            assert coordinator.piece(number, range(1)) == UpdateAccepted()
        url, client = f"{coordinator.url}/pet/v1/headers", coordinator.client
        for after in range(5):
            answer = client.get(url, params={"after": str(after)})
            if after < 3:
                assert answer.headers["pet-next"] == "3"
                assert HeaderBatch.decode(answer.content, after) == world.engine.headers(after)
                assert client.head(url, params={"after": after}).headers["content-length"] == str(len(answer.content))
            else:
                assert (answer.status_code, answer.headers["pet-next"]) == (204, str(after))
        for text in ("-1", "x", "", "1.0", "4294967296", "9" * 5000, "٣"):
            assert client.get(url, params={"after": text}).status_code == 400


def test_a_large_document_is_given_up_once_it_is_old() -> None:
    """A reader that takes its time must not keep the model of every round in memory."""
    world = Pet1World(3, 3, stall_seconds=300)
    with served(world) as coordinator:
        for number in range(4):
            world.engine.publish_document(Pet1Document.MODEL, bytes([number]) * 20_000_000)
            if number == 0:
                slow = coordinator.connect()
                slow.sendall(b"GET /pet/v1/model HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b"200 OK" in slow.recv(100)
            assert coordinator.client.head(f"{coordinator.url}/pet/v1/model").status_code == 200
        with slow:
            size = sum(iter(lambda: len(slow.recv(1 << 20)), 0))
        assert size < 20_000_000


def test_leaves_in_any_order_and_twice(coordinator: Served) -> None:
    assert coordinator.open(0) == have()
    assert coordinator.piece(0, range(2, 3)) == have(2)
    assert coordinator.piece(0, range(1)) == have(0, 2)
    assert coordinator.piece(0, range(1)) == have(0, 2)
    assert coordinator.open(0) == have(0, 2)
    assert coordinator.piece(0, range(3)) == UpdateAccepted()
    assert coordinator.open(0) == UpdateAccepted()
    assert coordinator.piece(0, range(3)) == UpdateAccepted()
    assert coordinator.refused == {}


def test_each_leaf_is_taken_before_the_next_has_come(coordinator: Served) -> None:
    coordinator.open(0)
    body = piece_of(coordinator.update(0), range(3))
    memory = coordinator.world.service.memory
    with coordinator.connect() as connection:
        connection.sendall(f"POST /pet/v1/update/leaves HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        connection.sendall(body[: 36 + LEAF_BYTES + 100])
        wait_until(lambda: coordinator.world.engine.taken == [(0, LEAF_BYTES)], 60)
        wait_until(lambda: memory.free_bytes == BUDGET - 100, 60)
        connection.sendall(body[36 + LEAF_BYTES + 100 : -1])
        wait_until(lambda: len(coordinator.world.engine.taken) == 2, 60)
        assert memory.free_bytes >= BUDGET - LEAF_BYTES
    assert coordinator.open(0) == have(0, 1)
    assert coordinator.piece(0, range(2, 3)) == UpdateAccepted()


def test_an_update_in_one(coordinator: Served) -> None:
    body = b"".join(bytes(part) for part in coordinator.update(0).body())
    assert coordinator.post("", body) == UpdateAccepted()
    pieces = (body[start : start + 99_999] for start in range(0, len(body), 99_999))
    assert coordinator.post("", pieces) == UpdateAccepted()
    other = b"".join(bytes(part) for part in coordinator.update(1).body())
    assert coordinator.post("", (other[start : start + 99_999] for start in range(0, len(other), 99_999))) == UpdateAccepted()
    assert coordinator.refused == {}


# ---- the table of docs/spec/profile.md 7.3, row by row


def test_before_the_vector(coordinator: Served) -> None:
    sealed = coordinator.update(0).sealed
    for wrong in (b"", sealed[:-1], sealed + b"x"):
        assert coordinator.post("/open", wrong) == UpdateRefused("length_mismatch")
        assert coordinator.post("/open", iter([wrong])) == UpdateRefused("length_mismatch")
    assert coordinator.post("/open", bytes(len(sealed))) == UpdateRefused("decryption")
    assert coordinator.refused == {"length_mismatch": 6, "decryption": 1}
    assert coordinator.open(0) == have()


def test_another_header_of_the_same_key(coordinator: Served) -> None:
    assert coordinator.open(0) == have()
    second = coordinator.world.make_update(0)
    assert coordinator.post("/open", second.sealed) == UpdateRefused("update_already_submitted")
    assert coordinator.open(0) == have()


def test_in_another_phase() -> None:
    world = Pet1World(3, 3)
    with served(world) as coordinator:
        for path in ("/open", "/leaves", ""):
            assert coordinator.client.post(f"{coordinator.url}/pet/v1/update{path}", content=b"x").content == b"\2wrong_phase"
        assert world.engine.refused == {"wrong_phase": 3}


def test_pieces_that_are_refused_whole(coordinator: Served) -> None:
    update = coordinator.update(0)
    vector, size = bytes(update.vector), len(update.vector)
    assert coordinator.piece(0, range(1)) == UpdateRefused("unknown_upload")
    coordinator.open(0)
    assert coordinator.piece(0, range(1), upload=bytes(32)) == UpdateRefused("unknown_upload")
    wrong = [
        piece_of(update, range(1), data=b""),
        piece_of(update, range(1), data=vector[: LEAF_BYTES - 1]),
        piece_of(update, range(1), data=vector[: LEAF_BYTES + 1]),
        piece_of(update, range(2, 3), data=vector[2 * LEAF_BYTES :] + b"x"),
        piece_of(update, range(2, 3), data=vector[2 * LEAF_BYTES : -1]),
        piece_of(update, range(3, 4), data=vector[:LEAF_BYTES]),
        piece_of(update, range(1), data=bytes(17 * LEAF_BYTES)),
        bytes(update.header.digest) + u32(2**32 - 1) + vector[:LEAF_BYTES],
        bytes(update.header.digest)[:20],
        b"",
    ]
    coordinator.world.engine.taken.clear()
    for body in wrong:
        assert coordinator.post("/leaves", body) == UpdateRefused("length_mismatch")
    assert all(length == 0 for _, length in coordinator.world.engine.taken), "no leaf was read"
    assert coordinator.open(0) == have()
    assert size == len(vector)


def test_pieces_of_no_declared_length(coordinator: Served) -> None:
    """Whole leaves that came before the end are taken; then what the end is like is known."""
    update = coordinator.update(0)
    vector, head = bytes(update.vector), bytes(update.header.digest) + u32(0)
    coordinator.open(0)
    mismatch = UpdateRefused("length_mismatch")
    assert coordinator.post("/leaves", iter([head])) == mismatch
    assert coordinator.post("/leaves", iter([head[:30]])) == mismatch
    assert coordinator.post("/leaves", iter([head, vector[: LEAF_BYTES + 5]])) == mismatch
    assert coordinator.open(0) == have(0)
    assert coordinator.post(
        "/leaves", iter([head + vector[: LEAF_BYTES - 5], vector[LEAF_BYTES - 5 : 2 * LEAF_BYTES]])
    ) == have(0, 1)
    assert coordinator.post("/leaves", iter([bytes(update.header.digest) + u32(3) + vector])) == mismatch
    assert coordinator.post("/leaves", iter([head, vector, b"more"])) == UpdateAccepted()


def test_a_wrong_leaf_spoils_nothing_and_is_counted_by_source(coordinator: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    update = coordinator.update(0)
    coordinator.open(0)
    wrong = bytearray(update.vector[: 3 * LEAF_BYTES])
    wrong[LEAF_BYTES] ^= 1
    assert coordinator.piece(0, range(3), data=bytes(wrong)) == UpdateRefused("wrong_leaf")
    assert coordinator.world.service.refusals.read()[RefusalReason.WRONG_LEAF] == 1
    assert "a wrong leaf of an update came from 127.0.0.1" in caplog.text
    assert coordinator.open(0) == have(0)
    assert coordinator.piece(0, range(1, 3)) == UpdateAccepted()


def test_an_update_in_one_with_another_length(coordinator: Served) -> None:
    update = coordinator.update(0)
    body = b"".join(bytes(part) for part in update.body())
    mismatch = UpdateRefused("length_mismatch")
    for wrong in (b"", body[:-1], body + b"x", u32(7) + body[4:]):
        assert coordinator.post("", wrong) == mismatch
    assert coordinator.world.engine.taken == []
    start = 4 + len(update.sealed)
    assert coordinator.post("", iter([body[: start - 1]])) == mismatch
    assert coordinator.post("", iter([body[:3]])) == mismatch
    assert coordinator.piece(0, range(1)) == UpdateRefused("unknown_upload")
    assert coordinator.post("", iter([body[:start]])) == mismatch
    assert coordinator.open(0) == have()
    assert coordinator.post("", iter([body[: start + LEAF_BYTES]])) == mismatch
    assert coordinator.open(0) == have(0)
    assert coordinator.post("", iter([body[: start + 2 * LEAF_BYTES + 7]])) == mismatch
    assert coordinator.open(0) == have(0, 1)
    assert coordinator.post("", iter([body, b"and more"])) == UpdateAccepted()


def test_what_is_refused_by_its_length_is_not_asked_for(coordinator: Served) -> None:
    """Before `100 Continue`, as a client that waits for it sends nothing before."""
    for path, length in (("", 10**9), ("/open", 10**9), ("/leaves", 36)):
        with coordinator.connect() as connection:
            head = f"POST /pet/v1/update{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
            connection.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
            assert answer_on(connection, b"\r\n\r\n\2length_mismatch").startswith(b"HTTP/1.1 200 OK\r\n")


def test_what_is_refused_by_its_sealed_part_is_answered_before_the_vector(coordinator: Served) -> None:
    update = coordinator.update(0)
    body = u32(len(update.sealed)) + bytes(len(update.sealed))
    with coordinator.connect() as connection:
        head = f"POST /pet/v1/update HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + len(update.vector)}\r\n"
        connection.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        answer = answer_on(connection, b"\2decryption")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close" in answer


def test_what_cannot_be_stored_is_sent_again(coordinator: Served) -> None:
    coordinator.open(0)
    coordinator.world.engine.is_storing = False
    content = piece_of(coordinator.update(0), range(3))
    answer = coordinator.client.post(f"{coordinator.url}/pet/v1/update/leaves", content=content)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert coordinator.world.service.refusals.read()[RefusalReason.NO_ROOM] == 1
    coordinator.world.engine.is_storing = True
    assert coordinator.piece(0, range(3)) == UpdateAccepted()


def test_leaves_wait_for_memory_and_more_of_them_come_again(coordinator: Served) -> None:
    """Who has all that one sender may have waits for more, and what comes then is 503 before it is read."""
    coordinator.open(0)
    memory, body = coordinator.world.service.memory, piece_of(coordinator.update(0), range(1))
    head = f"POST /pet/v1/update/leaves HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        # An eighth of the room is kept for others, and an eighth for small bodies.
        held = [stack.enter_context(coordinator.connect()) for _ in range(BUDGET * 6 // 8 // LEAF_BYTES)]
        for connection in held:
            connection.sendall(head + body[:-1])
        wait_until(lambda: memory.free_bytes == BUDGET - len(held) * (LEAF_BYTES - 1), 60)
        waiting = threading.Thread(target=coordinator.piece, args=(0, range(1)))
        waiting.start()
        wait_until(lambda: memory._waiters, 60)
        with httpx.Client() as another:
            answer = another.post(f"{coordinator.url}/pet/v1/update/leaves", content=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        for connection in held:
            connection.sendall(body[-1:])
            assert b"200 OK" in connection.recv(4096)
        waiting.join(60)
        assert not waiting.is_alive()
    assert coordinator.world.service.refusals.read()[RefusalReason.NO_ROOM] == 1
    assert coordinator.open(0) == have(0)


def test_a_piece_that_stalls_is_given_up() -> None:
    world = Pet1World(LENGTH, 3, stall_seconds=0.5).begin_updates()
    with served(world) as coordinator:
        coordinator.open(0)
        body = piece_of(coordinator.update(0), range(3))
        with coordinator.connect() as connection:
            connection.sendall(
                f"POST /pet/v1/update/leaves HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            )
            connection.sendall(body[: 36 + LEAF_BYTES + 1])
            assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert world.service.refusals.read()[RefusalReason.BODY_STALLED] == 1
        assert coordinator.open(0) == have(0)
