"""A round of pet/1 on the side of the server, with a time of its own.

A stage ends when Flower's grid has returned the answers: its longest time is over then, and what has not come is missing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from flwr.app import Message, RecordDict

from pet.errors import RemoteProtocolError
from pet.flower import records
from pet.flower.vector import UpdateLayout
from pet.pet1.answers import UpdateRefused
from pet.pet1.payloads import read_pet1_message
from pet.protocol.events import RoundFailed
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_publications import HeaderPublished
from pet.protocol.phases import Phase

_logger: Final = logging.getLogger("flwr.pet")

_UPDATE_FIELDS: Final = {"layout": str, "metrics": list, "arrays-key": str, "metrics-key": str}
_SIZE_BYTES: Final = 4


@dataclass(slots=True)
class ServerRound:
    """A round under way.

    Attributes:
        machine: its coordinator.
        layout: of its updates.
        kind: of Flower's messages.
        stage_seconds: what each phase lasts at most.
        now: the time of the machine.
        published: the first publication of each kind.
        headers: of the updates so far.
        failure: why it ended without a mean; empty while it goes on.
    """

    machine: Pet1Coordinator
    layout: UpdateLayout
    kind: str
    stage_seconds: int
    now: float = 0.0
    published: dict[type[Any], Any] = field(default_factory=dict)
    headers: list[bytes] = field(default_factory=list)
    failure: str = ""

    def end_stage(self) -> None:
        """Let the longest time of the phase pass."""
        self.now += self.stage_seconds
        self.machine.advance_time(self.now)
        self.collect()

    def collect(self) -> None:
        """Take what the machine has published."""
        while (event := self.machine.next_event()) is not None:
            if isinstance(event, HeaderPublished):
                self.headers.append(event.header)
            elif isinstance(event, RoundFailed):
                self.failure = self.failure or f"{event.reason} {event.description}".strip()
            self.published.setdefault(type(event), event)

    def goes_on(self, phase: Phase, server_round: int) -> bool:
        """End a stage; return whether the round came into the next phase."""
        if self.machine.phase is not phase:
            self.end_stage()
        if self.machine.phase is phase and not self.failure:
            return True
        _logger.warning("pet: round %d is skipped: %s", server_round, self.failure)
        return False

    def receive(self, signed: bytes) -> None:
        """Hand a member's message to the machine."""
        machine, keys = self.machine, self.machine.encryption_keys
        assert keys is not None, "a round is open"
        try:
            # Not sealed for the coordinator: Flower's messages travel under its own TLS.
            machine.receive(read_pet1_message(signed, keys.public_key, machine.accepted_tag), self.now)
        except RemoteProtocolError as error:
            _logger.warning("pet: message refused: %s: %s", error.reason, error)
        self.collect()

    def take_updates(self, replies: Iterable[Message]) -> RecordDict | None:
        """Hand the masked updates to the machine; return one of them that was taken, for the names in it."""
        read: list[tuple[Message, str]] = []
        for reply in replies:
            node = reply.metadata.src_node_id
            try:
                if reply.has_error():
                    _logger.warning("pet: node %d: %s", node, reply.error.reason)
                    continue
                answer = records.read_answer(reply.content, _UPDATE_FIELDS)
            except RemoteProtocolError as error:
                _logger.warning("pet: node %d: %s", node, error)
                continue
            if answer["layout"] == self.layout.digest(answer["metrics"]):
                read.append((reply, answer["layout"]))
            else:
                _logger.warning("pet: node %d: update of another layout refused", node)
        common = Counter(layout for _, layout in read).most_common(1)
        taken = None
        for reply, layout in read:
            if layout != common[0][0]:
                _logger.warning("pet: node %d: metrics of other names: update refused", reply.metadata.src_node_id)
            elif self._take_update(reply):
                taken = reply.content
        return taken

    def _take_update(self, reply: Message) -> bool:
        node = reply.metadata.src_node_id
        try:
            sealed, vector = records.read_large(reply.content, "sealed", "vector")
        except RemoteProtocolError as error:
            _logger.warning("pet: node %d: %s", node, error)
            return False
        body = b"".join([len(sealed).to_bytes(_SIZE_BYTES, "little"), sealed, vector])
        answer = self.machine.take_whole_update(body, self.now)
        self.collect()
        if isinstance(answer, UpdateRefused):
            _logger.warning("pet: node %d: update refused: %s", node, answer.reason)
            return False
        return True
