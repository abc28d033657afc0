"""Makes peers run over NATS: implements `pet.federation.runtime.FederationRuntime`.

Source: docs/spec/federation.md 2.4, 2.7, 5.3, 5.5.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from typing import Final

from pet.errors import (
    CertificateError,
    ConfigError,
    CredentialsError,
    DeviceError,
    FederationUnavailableError,
    FederationValueError,
    TransportConfigError,
    TransportError,
)
from pet.federation.peer import joining
from pet.federation.peer.clock import Clock, SystemClock
from pet.federation.peer.context import PeerContext
from pet.federation.peer.peer import NatsPeer
from pet.federation.peer.rounds import DEFAULT_PHASE_SECONDS
from pet.federation.peer_store import PeerStore
from pet.federation.records import Confirm, FederationRecord, LocalType, Mode, ProjectKind
from pet.federation.statistics.devices import TorchDevice
from pet.secret import Secret
from pet.transports.nats import NatsConnection, NatsSettings, Subjects
from pet.transports.nats import connect as connect_nats

_logger: Final = logging.getLogger(__name__)


class NatsFederationRuntime:
    """Runs peers in the current event loop.

    Args:
        clock: the time of its peers.
        phase_seconds: how long each phase of a round waits for those who were announced.
        confirm: whose word peers take for who is a member; None means as `PeerContext` says.
        least_changed: how many peers every combination of sums must be of, 2 or more; None means as `PeerContext` says.
        allows_plaintext: let brokers other than this machine be talked to without TLS, in compatibility mode.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        phase_seconds: float = DEFAULT_PHASE_SECONDS,
        confirm: Confirm | None = None,
        least_changed: int | None = None,
        allows_plaintext: bool = False,
    ) -> None:
        self._clock: Final[Clock] = SystemClock() if clock is None else clock
        self._phase_seconds: Final = phase_seconds
        self._confirm: Final = confirm
        self._least_changed: Final = least_changed
        self._allows_plaintext: Final = allows_plaintext

    async def create(self, record: FederationRecord, store: PeerStore) -> NatsPeer:
        """Begin a federation as its admin: connect, make the streams. Not pulsing afterwards.

        Raises:
            FederationUnavailableError: the broker cannot be reached in time, or refuses us.
            FederationValueError: something in the record cannot be used.
        """
        await asyncio.to_thread(require_usable, record)  # importing torch takes seconds
        identity = record.keys.identity()
        peers = tuple(peer for peer in record.peers if peer.uuid != identity.uuid)
        terms = replace(record.terms, admin=record.terms.admin or identity)
        record = replace(record, terms=terms, peers=record.peers if len(peers) < len(record.peers) else (identity, *peers))
        context = self._context(record, store)
        context.counters.terms_version += 1
        context.save()
        context.set_record(record)
        return await self._start(context)

    async def join(self, record: FederationRecord, token: Secret, store: PeerStore) -> NatsPeer:
        """Join with a token; the answer's terms and peers replace those of the record. Not pulsing afterwards.

        Raises:
            TokenRefusedError: the admin refused; the token may still be good.
            FederationUnavailableError: broker or admin did not answer in time.
            FederationValueError: something in the record cannot be used.
        """
        await asyncio.to_thread(require_usable, record)  # importing torch takes seconds
        context = self._context(record, store)
        connection = await self._connect(record)
        try:
            await joining.join(context, connection, Subjects(record.terms.federation_id), token)
        except BaseException:
            await connection.aclose()
            raise
        return await self._start(context, connection)

    async def restore(self, record: FederationRecord, store: PeerStore) -> NatsPeer:
        """Run a stored peer again; a broker that is away is waited for in the background.

        Raises:
            FederationValueError: something in the record cannot be used.
        """
        context = self._context(record, store)
        if strangers := context.unconfirmed:
            _logger.warning(
                "federation pid=%s: %d members are unconfirmed, and take part in nothing with it: see pet federation members",
                record.project_id,
                len(strangers),
            )
        connection = NatsConnection(self._settings(record), record.keys.uuid, keeps_trying=True)
        peer = NatsPeer(context, connection, phase_seconds=self._phase_seconds)
        peer.start_in_background()
        return peer

    async def require_accepted(self, record: FederationRecord) -> None:
        """Check that the broker takes the credential of a record; one that cannot be reached is no error.

        Raises:
            FederationStateError: the broker refuses it.
            FederationValueError: something in the record cannot be used.
        """
        with suppress(FederationUnavailableError):
            await (await self._connect(record)).aclose()

    async def _start(self, context: PeerContext, connection: NatsConnection | None = None) -> NatsPeer:
        connection = connection or await self._connect(context.record)
        try:
            peer = NatsPeer(context, connection, phase_seconds=self._phase_seconds)
            await peer.start()
        except TransportError as error:
            await connection.aclose()
            raise FederationUnavailableError(str(error)) from None
        except BaseException:
            await connection.aclose()
            raise
        return peer

    async def _connect(self, record: FederationRecord) -> NatsConnection:
        try:
            return await connect_nats(self._settings(record), record.keys.uuid, keeps_trying=True)
        except CredentialsError as error:
            key = _credential_key(record.nats)
            raise FederationValueError(f"Invalid value for key [{key}]: {error}", key=key) from None
        except (TransportConfigError, CertificateError) as error:
            raise FederationValueError(f"Invalid value for key [nats_hosts]: {error}", key="nats_hosts") from None
        except TransportError as error:
            raise FederationUnavailableError(str(error)) from None

    def _context(self, record: FederationRecord, store: PeerStore) -> PeerContext:
        context = PeerContext(record, store, self._clock, self._confirm, self._least_changed)
        if context.confirm is Confirm.ADMIN:
            _logger.warning(
                "federation pid=%s takes its admin's word for who is a member (confirm = admin): an admin that cheats can "
                "invent all other members, and read the statistics of this peer",
                record.project_id,
            )
        return context

    def _settings(self, record: FederationRecord) -> NatsSettings:
        """Return how to connect for a record; streams in memory are what compatibility mode promises."""
        is_compatible = record.terms.mode is Mode.COMPAT
        allows = self._allows_plaintext and is_compatible
        try:
            return replace(record.nats, storage="memory" if is_compatible else "file", allow_plaintext=allows)
        except ConfigError as error:
            raise FederationValueError(str(error), "nats_hosts") from None


def _credential_key(access: NatsSettings) -> str:
    """Return the key of the credential that a record has, or would need."""
    given = (
        ("nats_sec_token", access.token),
        ("nats_sec_nkey_seed", access.nkey_seed),
        ("nats_sec_passwd", access.password),
    )
    return next((key for key, value in given if value is not None), "nats_sec_user")


def require_usable(record: FederationRecord) -> None:
    """Check what a peer cannot run without.

    Raises:
        FederationValueError: a GPU that is missing, one for a project that computes nothing on it, or a model project without
            SMPC.
    """
    is_model = record.terms.kind is ProjectKind.MODEL
    if is_model and not record.terms.uses_smpc:
        raise FederationValueError("fed_use_smpc: expected true for a project of the model kind, got false", "fed_use_smpc")
    if record.local_type is LocalType.GPU:
        if is_model:
            raise FederationValueError(
                "fed_local_type: expected cpu for a project of the model kind, got gpu", "fed_local_type"
            )
        try:
            TorchDevice().open()
        except DeviceError as error:
            raise FederationValueError(
                f"fed_local_type: expected cpu, or a GPU to compute on: {error}", "fed_local_type"
            ) from None
