"""A coordinator that behaves as xaynet's (docs/spec/pet.md 1.3, 5.1, 6.3, 9.3) where it differs from pet's.

Every message is answered with 200, whatever happens to it. There is no `/status`; what is not there is 204. Dictionaries are
published before the phase that needs them is announced, with a gap of the length that a test asks for, and withdrawn as HEAD
does it; what arrives in the gap is dropped. A round that fails begins anew with other keys. A restart begins at round 1,
perhaps with an older model. HTTP, phases and the message filter are of this file; of pet it takes keys, message bytes and the
arithmetic of a round.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pet.crypto import EncryptionKeyPair, derive_round_seed
from pet.errors import CryptoError, RemoteProtocolError, UnmaskError
from pet.messages import (
    XAYNET_PAYLOADS,
    Chunk,
    RoundParameters,
    encode_seed_dictionary,
    encode_sum_dictionary,
    open_message,
)
from pet.protocol.intake import take_payload
from pet.protocol.phases import ACCEPTED_TAG, Phase
from pet.protocol.round_settings import RoundSettings
from pet.protocol.round_state import RoundState
from pet.protocol.strategies import check_task_by_signature
from pet.protocol.votes import choose_by_plurality
from pet.protocol.windows import PhaseWindow, WindowState


class RoundFailure(Exception):
    """A phase that ends in Failure."""


class Stopped(Exception):
    """The machine is to end."""


@dataclass(frozen=True)
class PublishedModel:
    """A global model, exactly, and whose updates are in it."""

    body: bytes
    fractions: list[Fraction]
    contributors: frozenset[bytes]


class OriginalCoordinator:
    """The machine: one thread that goes through the phases; requests come from the threads of the HTTP server.

    Args:
        settings: of all rounds.
        fails: whether a phase of a round is to fail although it has its messages, as when a store is away.
        gap_seconds: from the publication of what a phase made to the announcement of the next phase. Without one no message
            gets in between, however busy the machine is: it would last as long as other threads hold the interpreter, and
            quick participants would lose every round to it.
    """

    def __init__(
        self, settings: RoundSettings, *, fails: Callable[[int, Phase], bool] = lambda *_: False, gap_seconds: float = 0.0
    ) -> None:
        self.settings, self.fails, self.gap_seconds = settings, fails, gap_seconds
        self.models: list[PublishedModel] = []
        self.failed_phases: list[Phase] = []
        self.outcomes: Counter[str] = Counter()
        self.is_away = False
        self._changed = threading.Condition()
        self._start(None)

    # ---- its life ---------------------------------------------------------------------------------------------------------

    def _start(self, model: bytes | None) -> None:
        self.round_id, self._seed = 0, bytes(32)
        self._phase: Phase | None = None
        self._round: RoundState | None = None
        self._window: PhaseWindow | None = None
        self._accepted = 0
        self._is_stopped = False
        # Until the first Idle is done: a random key, and a seed of zeros.
        self.parameters = self._parameters(EncryptionKeyPair.from_seed(os.urandom(32)).public_key)
        self.sums: bytes | None = None
        self.seeds: dict[bytes, bytes] = {}
        self.model = model
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def restart(self, model: bytes | None, away_seconds: float) -> None:
        """End without a word, stay away, and begin at round 1 with a model of before, if any."""
        self.is_away = True
        self.stop()
        time.sleep(away_seconds)
        self._start(model)
        self.is_away = False

    # ---- phases: announce, work, purge, publish -----------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.suppress(Stopped):
            while True:
                try:
                    self._run_round()
                except RoundFailure:
                    self.failed_phases.append(self._phase or Phase.IDLE)
                    self._announce(Phase.FAILURE)
                    self._publish(sums=None, seeds={})

    def _run_round(self) -> None:
        parameters, current = self._begin()
        self._collect(Phase.SUM, self.settings.sum, parameters=parameters)
        self._collect(Phase.UPDATE, self.settings.update, sums=encode_sum_dictionary(current.sum_dictionary))
        seeds = {key: encode_seed_dictionary(seeds) for key, seeds in current.seed_dictionary.items()}
        self._collect(Phase.SUM2, self.settings.sum2, seeds=seeds)
        self._publish(sums=None, seeds={})
        self._announce(Phase.UNMASK)
        self._unmask(current)

    def _begin(self) -> tuple[RoundParameters, RoundState]:
        self._announce(Phase.IDLE)
        self.round_id += 1
        keys = EncryptionKeyPair.from_seed(os.urandom(32))
        settings = self.settings
        self._seed = derive_round_seed(keys, self._seed, settings.sum_probability, settings.update_probability)
        parameters = self._parameters(keys.public_key)
        self._round = RoundState.begin(settings, keys, parameters)
        return parameters, self._round

    def _collect(self, phase: Phase, window: PhaseWindow, **published: Any) -> None:
        """Publish what the phase before made, then take the messages of this one."""
        with self._changed:  # `receive` waits meanwhile, but in the gap
            self._publish(**published)
            self._announce(phase)
            self._window, self._accepted, started = window, 0, time.monotonic()
            while (state := window.state(started, time.monotonic(), self._accepted)) is WindowState.OPEN:
                self._wait(window.deadline_seconds(started, self._accepted) - time.monotonic())
            self._window = None  # what is still to come is purged
        if state is WindowState.TIMED_OUT or self.fails(self.round_id, phase):
            raise RoundFailure

    def _unmask(self, current: RoundState) -> None:
        try:
            model = current.aggregation.unmask(choose_by_plurality(current.votes))
        except UnmaskError:
            raise RoundFailure from None
        body = b"".join(model.iter_bincode(False))
        self.models.append(PublishedModel(body, model.to_fractions(), frozenset(current.update_participants)))
        self._publish(model=body)

    def _announce(self, phase: Phase) -> None:
        self._phase = phase

    def _publish(self, **what: Any) -> None:
        with self._changed:
            for name, value in what.items():
                setattr(self, name, value)
            until = time.monotonic() + self.gap_seconds
            while (left := until - time.monotonic()) > 0:
                self._wait(left)

    def _wait(self, seconds: float) -> None:
        self._changed.wait(max(0.0, seconds))
        if self._is_stopped:
            raise Stopped

    def _parameters(self, public_key: bytes) -> RoundParameters:
        settings = self.settings
        return RoundParameters(
            coordinator_public_key=public_key,
            sum_probability=settings.sum_probability,
            update_probability=settings.update_probability,
            seed=self._seed,
            mask_config=settings.mask_config,
            model_length=settings.model_length,
        )

    # ---- messages -------------------------------------------------------------------------------------------------------

    def receive(self, body: bytes) -> None:
        """Handle a message; the sender hears nothing of it."""
        with self._changed:
            try:
                self.outcomes[self._take(bytearray(body))] += 1
            except RemoteProtocolError as error:
                self.outcomes[error.reason] += 1
            except CryptoError:
                self.outcomes["crypto"] += 1
            self._changed.notify_all()

    def _take(self, body: bytearray) -> str:
        current = self._round
        if current is None or self._phase is None:
            return "dropped"
        message = open_message(body, current.keys, ACCEPTED_TAG.get(self._phase))
        payload = message.payload
        if isinstance(payload, Chunk):
            whole = current.chunks.add(message.participant_public_key, message.tag, payload)
            if whole is None:
                return "chunk"
            payload = XAYNET_PAYLOADS.decoders[message.tag](whole)
        check_task_by_signature(message.participant_public_key, payload, current.parameters)
        if self._window is None or self._window.is_full(self._accepted):
            return "discarded"
        take_payload(current, message, payload)
        self._accepted += 1
        return "accepted"


class _Handler(BaseHTTPRequestHandler):
    """The routes of spec 5.1, their codes included."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    coordinator: OriginalCoordinator
    paths: Counter[str]

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        coordinator, self.route = self.coordinator, target.path.rstrip("/")
        match self.route:
            case "/params":
                self.answer(200, coordinator.parameters.to_bytes())
            case "/sums":
                self.answer_or_none(coordinator.sums)
            case "/seeds":
                self.answer_seeds(parse_qs(target.query).get("pk"))
            case "/model":
                self.answer_or_none(coordinator.model)
            case "/message":
                self.answer(500)
            case _:
                self.answer(404)

    def do_POST(self) -> None:
        self.route = urlsplit(self.path).path.rstrip("/")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.route == "/message":
            self.coordinator.receive(body)
            self.answer(200)
        else:
            self.answer(500 if self.route in ("/params", "/sums", "/seeds", "/model") else 404)

    def answer_seeds(self, keys: list[str] | None) -> None:
        if keys is None:
            self.answer(500)
            return
        try:
            key = base64.b64decode(keys[0], validate=True)
        except binascii.Error:
            key = b""
        if len(key) != 32:
            self.answer(400)
        else:
            self.answer_or_none(self.coordinator.seeds.get(key))

    def answer_or_none(self, body: bytes | None) -> None:
        self.answer(204 if body is None else 200, body or b"")

    def answer(self, status: int, body: bytes = b"") -> None:
        self.paths[self.route] += 1
        if self.coordinator.is_away:
            self.close_connection = True
            return
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Leave standard error alone."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no error."""


@contextlib.contextmanager
def original_coordinator(settings: RoundSettings, **options: Any) -> Iterator[tuple[str, OriginalCoordinator, Counter[str]]]:
    """Run one on a free port; yields its URL, itself, and how often each path was asked for."""
    coordinator, paths = OriginalCoordinator(settings, **options), Counter[str]()
    handler = type("Handler", (_Handler,), {"coordinator": coordinator, "paths": paths})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", coordinator, paths
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        coordinator.stop()
