"""Write grafana-dashboard.json, the dashboard of a coordinator. A test holds its queries to what /metrics answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

DASHBOARD: Final = Path(__file__).parent / "grafana-dashboard.json"
#: Title, unit, and the queries with their legends. `rate` over five minutes shows a round of some seconds, too.
PANELS: Final = (
    ("Current phase", "none", (("pet_phase == 1", "{{phase}}"),)),
    ("Time until the phase times out", "s", (("pet_phase_seconds_left", "seconds left"),)),
    ("Messages of this phase", "none", (("pet_phase_accepted", "accepted"),)),
    (
        "Rounds an hour",
        "none",
        (
            ("3600 * rate(pet_rounds_completed_total[15m])", "finished"),
            ("3600 * sum by (reason) (rate(pet_rounds_failed_total[15m]))", "failed: {{reason}}"),
            ("3600 * rate(pet_rounds_reopened_total[15m])", "nobody joined"),
        ),
    ),
    (
        "Messages a second",
        "ops",
        (
            ("sum by (kind) (rate(pet_messages_accepted_total[5m]))", "{{kind}}"),
            ("sum(rate(pet_messages_discarded_total[5m]))", "after the phase was full"),
        ),
    ),
    ("Refusals a second, by reason", "ops", (("sum by (reason) (rate(pet_messages_refused_total[5m]))", "{{reason}}"),)),
    (
        "How long phases last (mean)",
        "s",
        (("rate(pet_phase_seconds_sum[15m]) / rate(pet_phase_seconds_count[15m])", "{{phase}}"),),
    ),
    (
        "Handling of a message, 95 of 100",
        "s",
        (("histogram_quantile(0.95, sum by (le) (rate(pet_message_handling_seconds_bucket[5m])))", "95 %"),),
    ),
    ("Bodies in memory and on disk", "bytes", (("pet_memory_in_flight_bytes", "memory"), ("pet_spooled_bytes", "disk"))),
    ("Bytes of messages a second", "Bps", (("rate(pet_message_bytes_total[5m])", "read"),)),
    ("Answers a second", "ops", (("sum by (route, status) (rate(pet_http_answers_total[5m]))", "{{route}} {{status}}"),)),
    ("Kernels", "none", (("pet_kernels_info", "{{backend}}"),)),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it; it asks for the Prometheus to read from."""
    source = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
    panels = [
        {
            "id": index + 1,
            "title": title,
            "type": "timeseries",
            "datasource": source,
            "gridPos": {"h": 8, "w": 12, "x": 12 * (index % 2), "y": 8 * (index // 2)},
            "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend, "datasource": source}
                for number, (query, legend) in enumerate(queries)
            ],
        }
        for index, (title, unit, queries) in enumerate(PANELS)
    ]
    inputs = [{"name": "DS_PROMETHEUS", "label": "Prometheus", "type": "datasource", "pluginId": "prometheus"}]
    return {
        "__inputs": inputs,
        "title": "pet coordinator",
        "uid": "pet-coordinator",
        "schemaVersion": 39,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "panels": panels,
    }


def written() -> str:
    """Return the file."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(written(), encoding="utf-8")
