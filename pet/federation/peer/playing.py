"""A peer's part in a round, driven over a transport; and the coordinator of one round, which its leader runs.

Both live for one round. What a peer believes of a round it has judged before (rounds.py), and what it is shown while it plays
is judged by its machine (peer_steps.py): the leader's coordinator is believed nothing.

Source: docs/spec/profile.md 6.5, 12.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

from pet.coordinator.leaf_folder import FolderLeafStore
from pet.coordinator.pet1_engine import Pet1Engine
from pet.coordinator.pet1_open import Pet1Options
from pet.coordinator.service import CoordinatorService
from pet.errors import (
    LocalProtocolError,
    MessageTooLargeError,
    ModelError,
    RemoteProtocolError,
    RoundError,
    TransportError,
    TransportRefusedError,
)
from pet.federation.peer.peer_steps import PeerSteps
from pet.field_config import FieldConfig
from pet.field_model import FieldModel
from pet.participant.member_machine import MemberSilent
from pet.pet1.enrolment import split_signed
from pet.pet1.messages import Pet1Tag
from pet.protocol.events import Event, MessageAccepted, RoundFailed, RoundReopened
from pet.protocol.participant_events import AnswerRefused
from pet.protocol.pet1_evidence import MemoryEvidenceStore
from pet.protocol.pet1_leaf_store import LeafStore, MemoryLeafStore
from pet.protocol.pet1_publications import Pet1Publication, TotalPublished
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.pet1_windows import PhaseTimes
from pet.transports.pet1 import AsyncPet1Transport, Pet1Document
from pet.transports.pet1_requests import carry_out_pet1

#: Between two looks of a peer at what the coordinator has published.
_POLL_SECONDS: Final = 0.05
#: How long all but one answer are enough for a sum only once the last had its time, too.
_LAST_ANSWER_SECONDS: Final = 2.0
#: Vectors of all peers together that the leader holds in memory; larger ones are in the system's temporary folder.
MAX_BYTES_IN_MEMORY: Final = 64 << 20
#: The messages of a round in their order, with what each phase is about.
_TAGS: Final = {
    Pet1Tag.SUM: "did not begin",
    Pet1Tag.UPDATE: "sent no vector",
    Pet1Tag.CHECK: "did not sign the list of vectors",
    Pet1Tag.SUM2: "sent no share of the mask",
}


async def play(
    steps: PeerSteps, transport: AsyncPet1Transport, before_update: Callable[[], None], note: Callable[[str], None]
) -> None:
    """Take part in a round until everything was delivered.

    Args:
        steps: of the peer, which has joined.
        transport: to the leader's coordinator.
        before_update: called before a masked vector is made; what it raises keeps it here.
        note: takes what is wrong with answers that were refused, for people; each once.

    Raises:
        RoundError: this peer takes no further part in the round; says why.
    """
    noted = set[str]()
    try:
        while not steps.is_done:
            while (request := steps.next_request()) is not None:
                await _carry_out(steps, transport, request)
            for text in _news(steps):
                if text not in noted:
                    noted.add(text)
                    note(text)
            if steps.refusal is not None:
                raise RoundError(f"{steps.refusal.reason}: {steps.refusal}")
            if steps.is_mask_due:
                before_update()
                await asyncio.to_thread(steps.mask)
            elif not steps.made_progress:
                await asyncio.sleep(_POLL_SECONDS)
    except LocalProtocolError:
        raise RoundError("a later round was called before this one had ended") from None
    except (RemoteProtocolError, ModelError) as error:
        raise RoundError(str(error)) from None


async def _carry_out(steps: PeerSteps, transport: AsyncPet1Transport, request: Any) -> None:
    try:
        answer = await carry_out_pet1(transport, request)
    except TransportRefusedError as error:
        steps.receive_refusal(str(error), is_too_large=isinstance(error, MessageTooLargeError))
    except TransportError:
        steps.receive_failure()
        await asyncio.sleep(_POLL_SECONDS)
    else:
        await asyncio.to_thread(steps.receive, answer)


def _news(steps: PeerSteps) -> list[str]:
    """Return what a person should know of."""
    texts = []
    while (event := steps.next_event()) is not None:
        match event:
            case AnswerRefused():
                texts.append(f"{event.request} refused: {event.reason}: {event.description}")
            case MemberSilent():
                texts.append(f"no answer to the certificate: {event.description}")
    return texts


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTotal:
    """What a round came to.

    Attributes:
        model: totals of integers, or the mean of weights.
        wrong: keys of peers whose share of the mask did not fit the others'.
    """

    model: FieldModel
    wrong: tuple[bytes, ...]


class LedRound:
    """The coordinator of one round: `async with LedRound(...) as leader`, tell the peers, `await leader.result()`.

    Args:
        enrolment: of the round's peers, signed; its version is the round's number.
        config: what is summed.
        model_length: numbers in each vector.
        phase_seconds: how long each phase waits for those who were called.
        serve: makes the coordinator reachable for the peers.
    """

    def __init__(
        self,
        enrolment: bytes,
        config: FieldConfig,
        model_length: int,
        phase_seconds: float,
        serve: Callable[[CoordinatorService], AbstractAsyncContextManager[Any]],
    ) -> None:
        self._enrolment: Final = split_signed(enrolment)[0]
        self._serve: Final = serve
        self._stack: Final = AsyncExitStack()
        self._outcome: asyncio.Future[TotalPublished | RoundFailed] = asyncio.get_running_loop().create_future()
        count, longest = len(self._enrolment.participants), max(1, math.ceil(phase_seconds))
        times = PhaseTimes(min_seconds=min(_LAST_ANSWER_SECONDS, longest), max_seconds=longest)
        self._evidence: Final = MemoryEvidenceStore()
        self._settings: Final = Pet1Settings(
            config=config,
            model_length=model_length,
            served_enrolment=enrolment,
            min_updates=count,
            min_count=count,
            max_count=count,
            sum=times,
            update=times,
            check=times,
            sum2=times,
            committee_spare=0,
            answer_spare=0,
        )
        self._engine: Pet1Engine | None = None
        self._senders: Final[dict[Any, set[bytes]]] = {tag: set() for tag in _TAGS}

    async def __aenter__(self) -> Self:
        """Begin the round.

        Raises:
            TransportError: it cannot be made reachable.
            StorageError: there is no room for vectors on the disk.
        """
        try:
            options: Pet1Options = {"first_number": self._enrolment.version, "evidence_store": self._evidence}
            options["leaf_store"] = self._open_leaf_store()
            self._engine = engine = Pet1Engine(self._settings, **options)
            engine.subscribe(self._note_from_any_thread(asyncio.get_running_loop()))
            service = await self._stack.enter_async_context(CoordinatorService(engine, workers=1))
            await self._stack.enter_async_context(self._serve(service))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def record(self) -> bytes:
        """The record of the round, to be announced with its enrolment."""
        assert self._engine is not None, "the round has begun"
        found = self._engine.document(Pet1Document.ROUND)
        assert found is not None, "a service that was started has begun its first round"
        return bytes(found.data)

    def _open_leaf_store(self) -> LeafStore:
        """Return where vectors are until they are added up: in memory, or in files that go with the round."""
        settings = self._settings
        vectors = len(self._enrolment.participants) * (settings.model_length + 1) * settings.config.element_bytes
        if vectors <= MAX_BYTES_IN_MEMORY:
            return MemoryLeafStore()
        folder = self._stack.enter_context(TemporaryDirectory(prefix="pet-round-"))
        store = _FleetingLeafStore(Path(folder))
        self._stack.callback(store.close)
        return store

    async def result(self) -> RoundTotal:
        """Wait for the end of the round.

        Raises:
            RoundError: it failed; says why, and names by their keys, in hex, the peers that did not do their part.
        """
        outcome = await self._outcome
        if isinstance(outcome, TotalPublished):
            members = self._enrolment.members
            return RoundTotal(model=outcome.model, wrong=tuple(members[slot] for slot in outcome.wrong_slots))
        what, peers = self._at_fault()
        raise RoundError(f"{outcome.reason}{f': {what}' if what else ''}", (key.hex() for key in peers))

    def _at_fault(self) -> tuple[str, set[bytes]]:
        """Return what some peers did or left undone that made the round fail, and who they are."""
        accused = {key for evidence in self._evidence.rounds.values() for key in evidence.accused()}
        if accused:
            return "sent boxes that do not open", accused
        for tag, text in _TAGS.items():
            everybody = self._enrolment.participants if tag is Pet1Tag.UPDATE else self._enrolment.members
            if missing := set(everybody) - self._senders[tag]:
                return text, missing
        return "", set()

    def _note_from_any_thread(self, loop: asyncio.AbstractEventLoop) -> Callable[[Event | Pet1Publication], None]:
        def settle(outcome: TotalPublished | RoundFailed) -> None:
            if not self._outcome.done():
                self._outcome.set_result(outcome)

        number = self._enrolment.version

        def note(event: Event | Pet1Publication) -> None:
            match event:
                case MessageAccepted() if event.round_id == number:
                    self._senders[event.tag].add(event.participant_public_key)
                case TotalPublished() | RoundFailed():
                    loop.call_soon_threadsafe(settle, event)
                case RoundReopened():
                    # A coordinator of committees opens it anew; here the enrolment names one round.
                    failed = RoundFailed(round_id=number, reason="too_few_members", description=event.description)
                    loop.call_soon_threadsafe(settle, failed)
                case _:
                    pass

        return note


class _FleetingLeafStore(FolderLeafStore):
    """Leaves in files of a round that ends with its process: nothing of them has to survive it."""

    def sync(self, upload: bytes) -> None:
        """Do nothing."""


async def end_task(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and wait for its end; what it raised no longer matters."""
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
