"""Leaves of an update in any order, twice, in parallel, among a stranger's wrong ones, cut anywhere, and over kills.

Whatever happens, the update is counted once, and the total of its round is exact. The bodies go to the routes as a server hands
them over, without a socket between.

Source: docs/spec/profile.md 7.3, 17 (vector digest, pieces).
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from pet1_players import Players
from pet1_world import LEAF_ELEMENTS

from pet.coordinator.leaf_folder import FolderLeafStore
from pet.coordinator.pet1_engine import Pet1Engine
from pet.coordinator.service import CoordinatorService
from pet.coordinator.storage.memory import MemoryStorage
from pet.pet1.answers import UpdateAccepted, UpdateAnswer, UpdateOpen, UpdateRefused, build_piece
from pet.pet1.leaves import LEAF_BYTES
from pet.protocol.pet1_participant import OutgoingUpdate
from pet.protocol.pet1_publications import TotalPublished
from pet.transports import asgi

#: Three leaves and a short one.
LENGTH = 3 * LEAF_ELEMENTS + 5
LEAVES = 4


@dataclass(frozen=True)
class Piece:
    """A piece of the update.

    Attributes:
        first: number of its first leaf.
        count: of leaves.
        cut: the part of its bytes after which the connection ends; None for a whole one.
        step: bytes that arrive together.
    """

    first: int
    count: int
    cut: float | None
    step: int


@dataclass(frozen=True)
class WrongLeaf:
    """A leaf of a stranger who knows the header digest."""

    number: int


@dataclass(frozen=True)
class Together:
    """Two pieces over two connections."""

    pieces: tuple[Piece, Piece]


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    first = draw(st.integers(0, LEAVES - 1))
    cut = draw(st.none() | st.floats(0, 1, exclude_max=True))
    return Piece(first, draw(st.integers(1, LEAVES - first)), cut, draw(st.sampled_from([LEAF_BYTES // 2, 99_999, 1 << 20])))


#: The sealed part again; the coordinator is killed, and another one goes on.
OPEN, KILL = "open", "kill"
STEPS = st.one_of(
    pieces(),
    pieces(),
    st.builds(WrongLeaf, st.integers(0, LEAVES - 1)),
    st.builds(Together, st.tuples(pieces(), pieces())),
    st.sampled_from([OPEN, KILL]),
)


@dataclass
class Upload:
    """A coordinator that can be killed, an update on its way, and which leaves of it should be there."""

    folder: Path
    players: Players = field(default_factory=lambda: Players(update_count=3))
    have: set[int] = field(default_factory=set)
    is_open: bool = False

    def __post_init__(self) -> None:
        self.storage = MemoryStorage()
        self.events: list[Any] = []

    async def start(self) -> None:
        self.leaves = FolderLeafStore(self.folder)
        settings = self.players.settings(model_length=LENGTH, min_count=3, max_count=3)
        self.engine = Pet1Engine(settings, threads=1, first_number=7, storage=self.storage, leaf_store=self.leaves)
        self.engine.subscribe(self.events.append)
        self.service = CoordinatorService(self.engine, workers=2)
        await self.service.start()
        self.app = asgi.create_app(self.service)

    async def kill(self) -> None:
        """Leave everything as it is at this moment."""
        self.engine.shut_down = lambda: None  # type: ignore[method-assign]
        await self.service.stop()
        self.leaves.close()
        self.is_open = False

    async def send(self, path: str, body: bytes, cut: float | None = None, step: int = 1 << 20) -> tuple[int, bytes]:
        """Send a body, or its beginning, and return what is answered."""
        end = len(body) if cut is None else int(cut * len(body))
        sent: list[Any] = [
            {
                "type": "http.request",
                "body": body[start : min(start + step, end)],
                "more_body": min(start + step, end) < len(body),
            }
            for start in range(0, end, step)
        ]
        answers: list[Any] = []

        async def receive() -> Any:
            return sent.pop(0) if sent else {"type": "http.disconnect"}

        async def answer(message: Any) -> None:
            answers.append(message)

        headers = [(b"content-length", b"%d" % len(body))]
        scope = {
            "type": "http",
            "method": "POST",
            "path": f"/pet/v1/update/{path}",
            "headers": headers,
            "client": ("127.0.0.1", 1),
        }
        await self.app(scope, receive, answer)
        return answers[0]["status"], b"".join(message.get("body", b"") for message in answers[1:])

    @property
    def expected(self) -> UpdateAnswer:
        is_whole = len(self.have) == LEAVES
        return UpdateAccepted() if is_whole else UpdateOpen(8, tuple(number in self.have for number in range(LEAVES)))

    async def open(self, update: OutgoingUpdate) -> None:
        status, answer = await self.send("open", update.sealed)
        assert (status, update.read_answer(answer)) == (200, self.expected)
        self.is_open = True

    async def send_piece(self, update: OutgoingUpdate, piece: Piece, *, is_alone: bool = True) -> None:
        leaves = range(piece.first, piece.first + piece.count)
        body = b"".join(bytes(part) for part in build_piece(update.header.digest, leaves, update.vector))
        status, answer = await self.send("leaves", body, piece.cut, piece.step)
        if not self.is_open:
            assert status == 400 or answer in {b"\2unknown_upload", b"\1"}
            return
        end = len(body) if piece.cut is None else int(piece.cut * len(body))
        self.have |= {number for number in leaves if (number - piece.first + 1) * LEAF_BYTES <= end - 36 or end == len(body)}
        if piece.cut is not None:
            assert status == 400 or answer == b"\1"
        elif is_alone:
            assert (status, update.read_answer(answer)) == (200, self.expected)
        else:
            assert status == 200  # how far the other one is, nobody knows
            assert not isinstance(update.read_answer(answer), UpdateRefused)

    async def send_wrong_leaf(self, update: OutgoingUpdate, number: int) -> None:
        data = bytearray(build_piece(update.header.digest, range(number, number + 1), update.vector)[1])
        data[0] ^= 1
        head = bytes(build_piece(update.header.digest, range(number, number + 1), update.vector)[0])
        status, answer = await self.send("leaves", head + data)
        assert status == 200
        if self.is_open:
            expected = self.expected if number in self.have else UpdateRefused("wrong_leaf")
            assert update.read_answer(answer) == expected


async def play(folder: Path, steps: list[Any]) -> None:
    upload = Upload(folder)
    players = upload.players
    await upload.start()
    players.send_members(upload.engine)
    player = players.updates[0]
    update = player.mask(upload.engine)
    assert update is not None
    await upload.open(update)
    for step in steps:
        match step:
            case Piece():
                await upload.send_piece(update, step)
            case WrongLeaf(number):
                await upload.send_wrong_leaf(update, number)
            case Together((first, second)):
                sending = [upload.send_piece(update, piece, is_alone=False) for piece in (first, second)]
                await asyncio.gather(*sending)
            case "kill":
                await upload.kill()
                await upload.start()
            case "open":
                await upload.open(update)
    await upload.open(update)
    assert player.step(upload.engine) == UpdateAccepted()
    players.send_updates(upload.engine)
    assert len(upload.engine.headers(0).headers) == 3
    for _ in range(2):
        players.send_members(upload.engine)
    (total,) = [event.model for event in upload.events if isinstance(event, TotalPublished)]
    assert (*map(int, total.to_array()[:3]), int(total.scalar_sum)) == players.sum_of(7)
    assert upload.leaves.uploads() == ()
    await upload.kill()


def run(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(asyncio.wait_for(play(Path(folder), steps), 120))


@pytest.mark.parametrize(
    "steps",
    [
        [Piece(0, 4, 0.5, 99_999), OPEN, Piece(2, 2, None, 1 << 20), WrongLeaf(1), Piece(0, 2, None, 1 << 20)],
        [Piece(3, 1, None, 1 << 20), KILL, Piece(0, 1, None, 1 << 20), OPEN, WrongLeaf(0), KILL],
        [Together((Piece(0, 4, None, 99_999), Piece(0, 4, None, 1 << 20))), KILL, OPEN],
    ],
    ids=["cut", "killed", "together"],
)
def test_an_update_that_meets_trouble_is_counted_once(steps: list[Any]) -> None:
    run(steps)


@pytest.mark.very_long
@hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(st.lists(STEPS, max_size=8))
def test_any_trouble(steps: list[Any]) -> None:
    run(steps)


@pytest.mark.long
@hypothesis.settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(st.lists(STEPS, min_size=3, max_size=8))
def test_some_trouble(steps: list[Any]) -> None:
    run(steps)
