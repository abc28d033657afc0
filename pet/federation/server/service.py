"""A federation server without HTTP: its peers, and the calls that begin, invite, join and end them.

It holds the running peers by user and project, keeps the store in step with them, makes tokens, and limits failed joins. What a
peer does once it runs is the runtime's business; signatures and envelopes are those of rest.py.

Source: docs/spec/federation.md 1.2, 1.3, 2.4 - 2.7, 4.1.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from pet.errors import (
    FederationError,
    FederationStateError,
    FederationValueError,
    NotAdministratorError,
    PetError,
    TokenRefusedError,
    UnknownProjectError,
)
from pet.federation.failure_limit import MAX_FAILED_JOINS, FailureLimit
from pet.federation.formats.encoding import encode_base64url
from pet.federation.records import FederationRecord, Mode, OwnChoices
from pet.federation.runtime import FederationPeer, FederationRuntime
from pet.federation.server.answers import refuse
from pet.federation.server.federation_info import warnings_of
from pet.federation.server.invitations import new_invitation, opened_invitation
from pet.federation.server.request_maps import (
    MapContext,
    changed_access,
    created_record,
    joined_record,
)
from pet.federation.server.store import FederationStore, PeerStorage
from pet.secret import Secret

_logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningPeer:
    """A peer and its part of the store."""

    peer: FederationPeer
    storage: PeerStorage


class FederationService:
    """The peers of one server. All calls come from one event loop."""

    def __init__(
        self,
        runtime: FederationRuntime,
        store: FederationStore,
        *,
        allows_compat: bool = False,
        ca_file: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make a service; `lifespan` starts it.

        Args:
            runtime: runs the peers.
            store: keeps them.
            allows_compat: whether federations may speak the vendor's formats.
            ca_file: PEM file of the authority of the brokers, for all peers of this server.
            clock: Unix seconds.
        """
        self._runtime: Final = runtime
        self._store: Final = store
        self._allows_compat: Final = allows_compat
        self._ca_file: Final = ca_file
        self._clock: Final = clock
        self._running: Final[dict[tuple[str, str], RunningPeer]] = {}
        self._failures: Final = FailureLimit(clock)
        self._restarting: Final = asyncio.Lock()
        #: Whether the peers were started, and not ended.
        self.is_healthy = False

    @asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncIterator[None]:
        """Run every stored peer; disconnect all at the end. Pulsing peers pulse again after a restart.

        One that cannot run does not keep the others from running; it stays in the store, and the log says why.
        """
        for record, storage in self._store.peers():
            try:
                self._require_allowed(record)
                peer = await self._runtime.restore(record, storage)
            except FederationError as error:
                _logger.error("cid=%s pid=%s does not run: %s", record.customer_id, record.project_id, error)
                continue
            self._running[record.customer_id, record.project_id] = RunningPeer(peer, storage)
        self.is_healthy = True
        try:
            yield
        finally:
            self.is_healthy = False
            running = list(self._running.values())
            self._running.clear()
            for result in await asyncio.gather(*(entry.peer.close() for entry in running), return_exceptions=True):
                if isinstance(result, BaseException):
                    _logger.warning("a peer did not close cleanly: %s", type(result).__name__)

    @property
    def peer_count(self) -> int:
        """How many peers run."""
        return len(self._running)

    @property
    def damaged_replay_lines(self) -> int:
        """How many ids of what was taken could not be read at the start."""
        return self._store.replays.damaged_count

    def find(self, customer_id: str, project_id: str) -> RunningPeer:
        """Return a running peer.

        Raises:
            UnknownProjectError: there is none of this name.
        """
        found = self._running.get((customer_id, project_id))
        if found is None:
            raise UnknownProjectError(project_id)
        return found

    def projects(self, customer_id: str) -> list[str]:
        """Return the names of a user's projects."""
        return sorted(project_id for owner, project_id in self._running if owner == customer_id)

    def server_key(self) -> str:
        """Return the public key that an invitation to a peer of this server can be sealed to, base64url."""
        return encode_base64url(self._store.server_keys().public_key)

    async def create(
        self,
        customer_id: str,
        project_id: str,
        entries: Mapping[str, str],
        *,
        mode: Mode,
        persist: bool,
        choices: OwnChoices | None = None,
    ) -> None:
        """Begin a federation (spec 2.4).

        Raises:
            FederationError: a value, the name, or the broker stands in the way; nothing is left behind.
        """
        record = created_record(entries, self._context(customer_id, project_id, mode))
        await self._add(_chosen(record, choices), persist=persist, token=None)

    async def join(
        self,
        customer_id: str,
        project_id: str,
        entries: Mapping[str, str],
        *,
        mode: Mode,
        persist: bool,
        source: str,
        choices: OwnChoices | None = None,
    ) -> None:
        """Join a federation (spec 2.7); `source` is whom failures are counted against.

        Raises:
            FederationError: as in `create`, or the token is refused, or there were too many failures.
        """
        if not self._failures.allows(source):
            raise refuse(HTTPStatus.TOO_MANY_REQUESTS, f"Expected at most {MAX_FAILED_JOINS} failed joins in a minute")
        try:
            entries = await asyncio.to_thread(
                opened_invitation,
                entries,
                self._store.server_keys(),
                now_seconds=self._clock(),
                allows_compat=self._allows_compat,
            )
            record, token = joined_record(entries, self._context(customer_id, project_id, mode))
            await self._add(_chosen(record, choices), persist=persist, token=token)
        except (TokenRefusedError, FederationValueError):
            self._failures.count(source)
            raise

    async def invite(self, customer_id: str, project_id: str, entries: Mapping[str, str]) -> str:
        """Make an invitation for one future peer (spec 2.6).

        Raises:
            NotAdministratorError: this peer is not the admin.
            FederationValueError: a value breaks its rule.
        """
        running = self.find(customer_id, project_id)
        record = running.peer.record
        if not record.is_admin:
            raise NotAdministratorError
        made = await asyncio.to_thread(new_invitation, record, entries, self._clock())
        running.storage.issue_token(made.token.reveal(), made.header.invitation_id, made.expires_at)
        return made.text

    async def set_credentials(self, customer_id: str, project_id: str, entries: Mapping[str, str]) -> None:
        """Let a peer use another credential of the broker, or other hosts, from now on; the peer is started anew.

        Raises:
            FederationStateError: the broker refuses the credential; nothing was changed.
            FederationValueError: a key breaks its rule.
        """
        async with self._restarting:
            running = self.find(customer_id, project_id)
            access = changed_access(running.peer.record, entries)
            await self._runtime.require_accepted(replace(running.peer.record, nats=access))
            await running.peer.close()
            record = replace(running.peer.record, nats=access)
            running.storage.save_record(record)
            peer = await self._runtime.restore(record, running.storage)
            self._running[customer_id, project_id] = RunningPeer(peer, running.storage)
        _logger.info("new credential of the broker cid=%s pid=%s", customer_id, project_id)

    async def leave(self, customer_id: str, project_id: str) -> None:
        """Leave a federation and forget its project.

        Raises:
            FederationError: this peer is the admin, or the admin cannot be reached.
        """
        await self.find(customer_id, project_id).peer.leave()
        await self._forget(customer_id, project_id)

    async def delete(self, customer_id: str, project_id: str) -> None:
        """End a federation for everybody and forget its project.

        Raises:
            FederationError: this peer is not the admin, or the broker cannot be reached.
        """
        await self.find(customer_id, project_id).peer.delete()
        await self._forget(customer_id, project_id)

    async def _add(self, record: FederationRecord, *, persist: bool, token: Secret | None) -> None:
        customer_id, project_id = record.customer_id, record.project_id
        self._require_allowed(record)
        storage = self._store.add(record, persist=persist)
        try:
            if token is None:
                peer = await self._runtime.create(record, storage)
            else:
                peer = await self._runtime.join(record, token, storage)
        except BaseException:
            self._store.remove(customer_id, project_id)
            raise
        try:
            storage.confirm()
        except BaseException:
            await _abandon(peer)
            self._store.remove(customer_id, project_id)
            raise
        self._running[customer_id, project_id] = RunningPeer(peer, storage)
        what = "created" if token is None else "joined"
        _logger.info("federation %s cid=%s pid=%s fid=%s", what, customer_id, project_id, record.terms.federation_id)

    def _require_allowed(self, record: FederationRecord) -> None:
        """Let a federation in the vendor's formats run only where the server allows them, and say what it is."""
        if record.terms.mode is Mode.COMPAT:
            if not self._allows_compat:
                raise FederationStateError("it speaks the vendor's formats, and this server was not started with --compat")
            _logger.warning("federation pid=%s speaks the compatible formats, which are insecure", record.project_id)
        for warning in warnings_of(record):
            _logger.warning("federation pid=%s: %s", record.project_id, warning)

    async def _forget(self, customer_id: str, project_id: str) -> None:
        running = self._running.pop((customer_id, project_id))
        self._store.remove(customer_id, project_id)
        try:
            await running.peer.close()
        except PetError as error:
            _logger.warning("a peer that is gone did not close cleanly: %s", type(error).__name__)

    def _context(self, customer_id: str, project_id: str, mode: Mode) -> MapContext:
        return MapContext(
            customer_id=customer_id,
            project_id=project_id,
            mode=mode,
            allows_compat=self._allows_compat,
            ca_file=self._ca_file,
        )


async def _abandon(peer: FederationPeer) -> None:
    """End a peer that could not be stored, with what it left at the broker."""
    with suppress(PetError):
        await (peer.delete() if peer.record.is_admin else peer.leave())
    await peer.close()


def _chosen(record: FederationRecord, choices: OwnChoices | None) -> FederationRecord:
    if choices is None:
        return record
    return replace(record, least_rows=choices.least_rows, accepts_contracts=choices.accepts_contracts)
