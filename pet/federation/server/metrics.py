"""Metrics of a federation server in Prometheus' text format: answers, refusals, and what it holds at the moment.

No name of a user, a project or a peer is in them.

Needs the extra `metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pet.errors import MissingExtraError
from pet.federation.server.request_bodies import RequestBodies
from pet.federation.server.service import FederationService
from pet.transports.refusal_counts import RefusalCounts

with MissingExtraError.naming("metrics"):
    from pet.transports.http_metrics import HttpMetrics

if TYPE_CHECKING:
    from starlette.applications import Starlette


def serve_metrics(app: Starlette, service: FederationService, bodies: RequestBodies, refusals: RefusalCounts) -> None:
    """Answer `/metrics` of an application that has all its other routes."""
    from starlette.routing import Route

    paths: dict[Any, str] = {route.endpoint: route.path for route in app.routes if isinstance(route, Route)}
    metrics = HttpMetrics(refusals, lambda scope: paths.get(scope.get("endpoint")))
    metrics.add_gauge("pet_memory_in_flight_bytes", "Bodies in memory.", lambda: bodies.used_bytes)
    metrics.add_gauge("pet_federation_peers", "Peers that run.", lambda: service.peer_count)
    damaged = "Ids of taken requests that could not be read at the start."
    metrics.add_gauge("pet_federation_damaged_replay_lines", damaged, lambda: service.damaged_replay_lines)
    metrics.serve_in(app)
