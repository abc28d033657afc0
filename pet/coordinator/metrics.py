"""Metrics in Prometheus' text format: what a coordinator did, and what it holds at the moment.

`Metrics` subscribes to an engine and learns of handled messages from the service; answers and refusals are those of any server
(pet/transports/http_metrics.py). Labels come from closed lists, so nobody can make them grow; there is no key of a participant
in them.

Needs the extra `metrics`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from pet.coordinator.round_engine import AnyEngine
from pet.coordinator.service import CoordinatorService
from pet.errors import MissingExtraError
from pet.messages import MessageTag
from pet.protocol.events import (
    Event,
    MessageAccepted,
    MessageDiscarded,
    MessageRefused,
    ModelPublished,
    PhaseEntered,
    RoundFailed,
    RoundReopened,
)
from pet.protocol.pet1_publications import Pet1Publication, TotalPublished
from pet.protocol.phases import Phase

with MissingExtraError.naming("metrics"):
    from prometheus_client import Counter, Gauge, Histogram
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector

    from pet.transports.http_metrics import METRICS_PATH, HttpMetrics

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["METRICS_PATH", "Metrics"]
_PHASE_SECONDS: Final = (1, 3, 10, 30, 100, 300, 1000, 3600, 10_000)
_HANDLING_SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class Metrics(HttpMetrics):
    """The figures of one service.

    Args:
        service: what to measure; this subscribes to its engine.
        routes: paths that are counted by their name.
        clock: returns seconds that never go back.
    """

    def __init__(self, service: CoordinatorService, routes: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        names = frozenset(routes)

        def route_of(scope: Scope) -> str | None:
            path: str = scope["path"].rstrip("/") or "/"
            return path if path in names else None

        super().__init__(service.refusals, route_of)
        self._clock: Final = clock
        self._phase = Phase.IDLE
        self._phase_started_seconds = clock()
        registry = self.registry
        self._accepted = Counter("pet_messages_accepted", "Messages taken into a round.", ["kind"], registry=registry)
        #: By kind: finding a counter takes longer than counting.
        self._accepted_by_kind: Final[dict[MessageTag, Counter]] = {}
        self._refused = Counter("pet_messages_refused", "Messages refused, by reason.", ["reason"], registry=registry)
        self._refused_uploads = Counter(
            "pet_nats_uploads_refused",
            "Uploads over NATS that were refused, had to wait or were given up, by reason.",
            ["reason"],
            registry=registry,
        )
        self._discarded = Counter(
            "pet_messages_discarded", "Messages that came after a phase was full.", ["phase"], registry=registry
        )
        self._completed = Counter("pet_rounds_completed", "Rounds that gave a global model.", registry=registry)
        self._failed = Counter("pet_rounds_failed", "Rounds that gave none, by reason.", ["reason"], registry=registry)
        self._reopened = Counter(
            "pet_rounds_reopened", "Rounds that nobody joined, replaced by the next one.", registry=registry
        )
        self._phase_seconds = Histogram(
            "pet_phase_seconds", "How long phases lasted.", ["phase"], buckets=_PHASE_SECONDS, registry=registry
        )
        self._handling_seconds = Histogram(
            "pet_message_handling_seconds",
            "From a whole body to the end of its handling, waiting for its turn included.",
            buckets=_HANDLING_SECONDS,
            registry=registry,
        )
        self._body_bytes = Counter("pet_message_bytes", "Bytes of bodies that were read whole.", registry=registry)
        self._round = Gauge("pet_round", "Number of the current round.", registry=registry)
        self._phases = Gauge("pet_phase", "1 for the current phase, 0 for the others.", ["phase"], registry=registry)
        self._add_gauges(service)
        self._engine: Final = service.engine
        registry.register(_Slots(service.engine))
        service.engine.subscribe(self._note)
        service.on_message_handled = self._note_handled
        service.on_upload_refused = lambda reason: self._refused_uploads.labels(reason).inc()

    def _add_gauges(self, service: CoordinatorService) -> None:
        """Add what is read off at the time of asking."""
        for name, text, read in (
            ("pet_memory_in_flight_bytes", "Bodies in memory.", lambda: service.memory_in_flight_bytes),
            ("pet_spooled_bytes", "Bodies on disk, by what they may become.", lambda: service.spool.used_bytes),
            ("pet_phase_seconds_left", "Until the phase times out.", lambda: service.engine.status()["seconds_left"] or 0.0),
            ("pet_phase_accepted", "Messages taken in this phase.", lambda: service.engine.status()["accepted"]),
        ):
            self.add_gauge(name, text, read)

    def _note_handled(self, size_bytes: int, seconds: float) -> None:
        self._body_bytes.inc(size_bytes)
        self._handling_seconds.observe(seconds)

    def _note(self, event: Event | Pet1Publication) -> None:
        match event:
            case PhaseEntered():
                self._enter(event)
            case MessageAccepted():
                counter = self._accepted_by_kind.get(event.tag)
                if counter is None:
                    counter = self._accepted_by_kind[event.tag] = self._accepted.labels(event.tag.name.lower())
                counter.inc()
            case MessageRefused():
                self._refused.labels(event.reason).inc()
            case MessageDiscarded():
                self._discarded.labels(event.phase.value).inc()
            case ModelPublished() | TotalPublished():
                self._completed.inc()
            case RoundFailed():
                self._failed.labels(event.reason).inc()
            case RoundReopened():
                self._reopened.inc()
            case _:
                pass

    def _enter(self, event: PhaseEntered) -> None:
        now_seconds = self._clock()
        self._phase_seconds.labels(self._phase.value).observe(now_seconds - self._phase_started_seconds)
        self._phase, self._phase_started_seconds = event.phase, now_seconds
        self._round.set(event.round_id)
        for phase in self._engine.phases:
            self._phases.labels(phase.value).set(phase is event.phase)


class _Slots(Collector):
    """What each member of a committee of pet/1 has done in this round, read off at the time of asking; nothing otherwise."""

    def __init__(self, engine: AnyEngine) -> None:
        self._engine: Final = engine

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield one gauge by slot and deed."""
        family = GaugeMetricFamily(
            "pet_slot", "1 for what the member of a slot has done in this round, 0 for the rest.", labels=["slot", "did"]
        )
        for number, slot in enumerate(self._engine.status().get("slots", ())):
            for did, has_done in slot.items():
                family.add_metric([str(number), did], float(has_done))
        if family.samples:
            yield family
