"""Metrics of a server in Prometheus' text format: its answers over HTTP, and what it refused before it looked at it.

What else a server has to tell is added to the same registry. Labels come from closed lists (reasons, routes), so nobody can
make them grow.

Needs the extra `metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from pet import kernels
from pet.errors import MissingExtraError
from pet.transports.refusal_counts import RefusalCounts

with MissingExtraError.naming("metrics"):
    from prometheus_client import CollectorRegistry, Counter, Gauge, Info, generate_latest
    from prometheus_client.core import CounterMetricFamily
    from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

METRICS_PATH: Final = "/metrics"
MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"  # of prometheus-client, which names it since 0.23 only
#: Every path that is no route counts as one, or a scanner could make up labels.
_OTHER_ROUTE: Final = "other"


class HttpMetrics:
    """The figures of one server, in a registry of their own.

    Args:
        refusals: what transports refused.
        route_of: returns the name of the route that answers a request, from its scope when the answer begins; None for others.

    Attributes:
        registry: where further figures go.
    """

    def __init__(self, refusals: RefusalCounts, route_of: Callable[[Scope], str | None]) -> None:
        self.registry: Final = CollectorRegistry()
        self._route_of: Final = route_of
        self._answers: Final = Counter(
            "pet_http_answers", "Answers, by route and status code.", ["route", "status"], registry=self.registry
        )
        #: By route and status: finding a counter takes longer than counting.
        self._counters: Final[dict[tuple[str, int], Counter]] = {}
        self.registry.register(_Refusals(refusals))
        Info("pet_kernels", "The kernel back-end in use.", registry=self.registry).info({"backend": kernels.active_backend()})

    def add_gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add what is read off at the time of asking."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def serve_in(self, app: Starlette) -> None:
        """Answer at METRICS_PATH of an application, and count the answers of all its routes."""
        app.add_route(METRICS_PATH, self.answer, methods=["GET"])
        app.add_middleware(self.count_answers)

    def render(self) -> bytes:
        """Return every figure in Prometheus' text format."""
        return generate_latest(self.registry)

    async def answer(self, _: Request) -> Response:
        """Answer `GET /metrics`."""
        from starlette.responses import Response

        return Response(self.render(), headers={"content-type": MEDIA_TYPE, "cache-control": "no-store"})

    def count_answers(self, app: ASGIApp) -> ASGIApp:
        """Wrap an application so that its answers are counted."""

        async def counting(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return

            async def send_counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self.count_answer(self._route_of(scope) or _OTHER_ROUTE, message["status"])
                await send(message)

            await app(scope, receive, send_counted)

        return counting

    def count_answer(self, route: str, status: int) -> None:
        """Count an answer of a route."""
        counter = self._counters.get((route, status))
        if counter is None:
            counter = self._counters[route, status] = self._answers.labels(route, str(status))
        counter.inc()


class _Refusals(Collector):
    """What transports refused, read off at the time of asking."""

    def __init__(self, refusals: RefusalCounts) -> None:
        self._refusals = refusals

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Yield one counter by reason."""
        family = CounterMetricFamily("pet_refusals", "Refused before it was looked at, by reason.", labels=["reason"])
        for reason, count in self._refusals.read().items():
            family.add_metric([reason.value], count)
        yield family
