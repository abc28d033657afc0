"""The plain exchange: each peer shows its statistics to all others, as a whole or as what changed, where the admin chose so.

A message is a blob that everybody may fetch, announced by an event with the sequence it has. A whole one replaces what a peer
sent before; a change is added to it and names the sequence it starts from, and a gap is closed by asking for the whole.

Source: docs/spec/federation.md 1.4 (manual sync), 1.5, 1.7, 5.2.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from pet.errors import FederationError, FederationStateError, PetError, RemoteProtocolError, StateError, TransportError
from pet.federation.formats.encoding import canonical_json, parse_json_object
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contributions import check_contract
from pet.federation.peer.link import PeerLink
from pet.federation.peer.local_project import LocalProject
from pet.federation.peer.messages import PeerMessage
from pet.federation.peer.project import FederatedProject
from pet.federation.peer.row_guard import Offered
from pet.federation.records import FailureAction, PeerIdentity
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics
from pet.transports.nats import BlobReference

_logger: Final = logging.getLogger(__name__)

WANT: Final = "want"
_SYNC: Final = "sync"
_EVENT: Final = "sync-"
_SENT: Final = "sent"
_SPARE_BYTES: Final = 1 << 20
_ASK_SECONDS: Final = 10.0
#: A whole message this young is announced again, in place of a new one, for a further peer that asks.
_FRESH_SECONDS: Final = 60.0


class PlainExchange:
    """This peer's part in the plain exchange.

    Args:
        context: of this peer.
        link: to the others.
        local: this peer's rows.
        federated: what it makes of the others'.
    """

    def __init__(self, context: PeerContext, link: PeerLink, local: LocalProject, federated: FederatedProject) -> None:
        self._context: Final = context
        self._link: Final = link
        self._local: Final = local
        self._federated: Final = federated
        #: What was sent last, if that was a whole: when, of which version, and its announcement.
        self._fresh: tuple[float, int, bytes] | None = None
        self._last_sent: Statistics | None = None
        #: One message after the other: each has a sequence of its own.
        self._sending: Final = asyncio.Lock()
        #: The version that the log says is held back; once, and not at each tick.
        self._held_version = 0
        #: Peers of which a change was missed.
        self._gaps: Final[set[str]] = set()

    # ---- sending ------------------------------------------------------------------------------------------------------

    async def publish(self, *, whole: bool = False) -> bool:
        """Send what is new, or everything; returns whether anything was sent.

        Raises:
            TransportError: the broker cannot be reached; it will be sent again.
        """
        async with self._sending:
            return await self._publish(whole=whole)

    async def _publish(self, *, whole: bool) -> bool:
        context, counters = self._context, self._context.counters
        if (held_back := self._local.held_back) is not None and self._local.version != self._held_version:
            self._held_version = self._local.version
            context.log_error(f"Sync refused: held back: {held_back.rows} rows of {held_back.least}")
        if (offered := self._offered()) is None:
            return False
        sent = self._sent(offered.statistics.schema)
        if strangers := context.unconfirmed:
            names = ", ".join(peer.name for peer in strangers)
            context.log_error(f"Sync held back until all members are confirmed: {names}")
            return False
        if offered.version != counters.shared_version and self._may_send(offered.statistics):
            self._local.note_shared(offered)
            await self._send(offered.statistics, None if whole else sent, offered.version)
            counters.shared_version, counters.shared_rows = offered.version, offered.statistics.rows
            self._last_sent = offered.statistics
            context.store.save_state(_SENT, offered.statistics.to_bytes(with_residues=True))
            context.save()
            return True
        if whole and sent is not None:
            await self._send(sent, None, counters.shared_version)  # nothing that was not shown already
            return True
        return False

    def _offered(self) -> Offered | None:
        try:
            return self._local.offered()
        except FederationStateError:  # no schema yet
            return None

    def _sent(self, schema: Schema) -> Statistics | None:
        """Return the statistics that were sent last; those of an earlier process are read once."""
        if self._last_sent is None and (saved := self._context.store.load_state(_SENT)) is not None:
            with StateError.reading("statistics that were sent last"):
                self._last_sent = Statistics.from_bytes(saved, schema)
        return self._last_sent

    def _may_send(self, statistics: Statistics) -> bool:
        context = self._context
        if (problem := check_contract(context, statistics)) is None:
            return True
        context.count(send_count=1, send_contract_errors=1)
        context.log_error(problem)
        return context.record.send_failure_action is FailureAction.ALLOW

    async def _send(self, statistics: Statistics, earlier: Statistics | None, version: int) -> None:
        """Publish statistics as a whole, or their difference from earlier ones."""
        context, counters = self._context, self._context.counters
        sequence = counters.sequence + 1
        fields = {"sequence": sequence, "from": 0 if earlier is None else counters.sequence}
        shown = statistics if earlier is None else statistics - earlier
        context.count(send_count=1)
        subject = self._link.subjects.sync(context.uuid, sequence)
        data, _ = context.codec.make(
            context.terms, _SYNC, subject, context.clock.now_seconds(), fields, attachment=shown.to_bytes()
        )
        reference = await self._link.broadcasts.publish_blob(subject, data)
        announcement = canonical_json({"sequence": sequence, "reference": reference.to_bytes().decode()})
        await self._link.broadcasts.publish_event(_EVENT + context.uuid, announcement.encode())
        now = context.clock.now_seconds()
        self._fresh = (now, version, announcement.encode()) if earlier is None else None
        counters.sequence = sequence
        context.save()
        context.log_sync(f"Sync sent, {'whole' if earlier is None else 'change'} {sequence}")

    async def answer_want(self, _message: PeerMessage) -> dict[str, Any]:
        """Send everything again, for a peer that asks.

        Raises:
            FederationStateError: this peer does not pulse.
        """
        if not self._context.record.is_pulsing:
            raise FederationStateError("pulse: this peer does not pulse")
        now, fresh = self._context.clock.now_seconds(), self._fresh
        offered = self._offered()
        if fresh is not None and offered is not None and now - fresh[0] < _FRESH_SECONDS and fresh[1] == offered.version:
            await self._link.broadcasts.publish_event(_EVENT + self._context.uuid, fresh[2])
        else:
            await self.publish(whole=True)
        return {}

    # ---- receiving ----------------------------------------------------------------------------------------------------

    async def take_event(self, name: str, payload: bytes) -> None:
        """Fetch and take a message that was announced; one that was taken before changes nothing."""
        context, sender = self._context, name.removeprefix(_EVENT)
        if not name.startswith(_EVENT) or sender == context.uuid:
            return
        try:
            announcement = parse_json_object(payload) or {}
            if announcement.get("sequence", 0) == context.counters.applied.get(sender, 0):
                return
            if sender not in context.members:
                raise RemoteProtocolError("unknown_sender", f"message: expected a member, got one from {sender[:32]!r}")
            reference = BlobReference.from_bytes(str(announcement.get("reference")).encode())
            limit = 8 * self._local.snapshot().schema.layout.length + _SPARE_BYTES
            data = await self._link.broadcasts.fetch_blob(reference, limit)
            message = context.codec.open(
                bytes(data), context.terms, reference.subject, context.clock.now_seconds(), context.find_member
            )
            await self._take(message)
        except FederationStateError as error:
            _logger.debug("statistics not taken: %s", error)
        except PetError as error:
            context.count(receive_count=1, receive_errors=1)
            context.log_error(f"Message refused: {error}")

    async def _take(self, message: PeerMessage) -> None:
        context, counters = self._context, self._context.counters
        sequence, start = message.number("sequence"), message.number("from")
        last = counters.applied.get(message.sender, 0)
        if message.kind != _SYNC or sequence <= last:
            raise RemoteProtocolError("replayed", f"message: expected a sequence after {last}, got {sequence}")
        context.count(receive_count=1)
        schema = self._local.snapshot().schema
        shown = Statistics.from_bytes(message.attachment, schema, is_difference=bool(start))
        earlier = self._federated.latest(message.sender)
        if start and (start != last or earlier is None):
            self._gaps.add(message.sender)
            await self.close_gaps()
            return
        statistics = shown
        if start and earlier is not None:
            statistics = earlier + shown
            statistics.require_possible()  # as if it had come in one message
        if (problem := check_contract(context, statistics)) is not None:
            context.count_receive_contract_error(message.sender)
            context.log_error(problem)
            if context.record.receive_failure_action is FailureAction.BLOCK:
                return
        self._federated.set_latest(message.sender, statistics)
        self._gaps.discard(message.sender)
        counters.applied[message.sender] = sequence
        context.save()
        context.log_sync(f"Sync completed successfully, {context.name_of(message.sender)} {sequence}")

    async def ask_for_whole(self, peer: PeerIdentity) -> None:
        """Ask a peer to send everything."""
        try:
            await self._link.ask(self._link.subjects.want(peer.uuid), peer, WANT, {}, timeout_seconds=_ASK_SECONDS)
        except (FederationError, TransportError) as error:
            _logger.debug("peer %s was not asked: %s", peer.name, error)

    async def close_gaps(self) -> None:
        """Ask those of whom a change was missed for everything; they may have been asked too often just now."""
        for uuid in self._gaps & self._context.members.keys():
            await self.ask_for_whole(self._context.members[uuid])

    def drop_former_members(self) -> None:
        """Drop the statistics of former members."""
        context = self._context
        for peer in set(context.counters.applied) - set(context.members):
            self._federated.set_latest(peer, None)
            del context.counters.applied[peer]
        context.save()
