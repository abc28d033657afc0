"""What operators copy: settings that are valid, a dashboard that /metrics answers, files that agree."""

import json
import re
import runpy
from pathlib import Path

import httpx
import pytest
import yaml
from asgi_server import serving

import pet
from pet.coordinator.app import create_app
from pet.coordinator.settings import Settings, load_settings

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "operations"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
#: Words of a query that are no metric: functions, and what follows `by`.
NOT_METRICS = {"rate", "sum", "by", "increase", "histogram_quantile"}


@pytest.fixture(scope="module")
def metric_names():
    """Return what /metrics has, labels included; a family without samples yet counts by its declaration."""
    with serving(create_app(Settings())) as url:
        lines = httpx.get(f"{url}/metrics").text.splitlines()
    declared = [line.split()[2:4] for line in lines if line.startswith("# TYPE")]
    endings = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
    return {f"{name}{ending}" for name, kind in declared for ending in endings[kind]}


def metrics_in(query):
    """Return the metrics of a query, without the labels that it selects or groups by."""
    bare = re.sub(r"\{[^}]*\}|\bby \([^)]*\)|\[[^\]]*\]", "", query)
    return set(re.findall(r"[a-z_]{2,}", bare)) - NOT_METRICS


def test_every_query_of_the_dashboard_is_answered(metric_names):
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    page = (ROOT / "docs" / "operations.md").read_text()
    queries += [query for query in re.findall(r"^\| `([^`]*)` \|", page, re.MULTILINE) if "pet_" in query]
    assert len(queries) > 15
    for query in queries:
        found = metrics_in(query)
        assert found, query
        assert found <= metric_names, query


def test_a_query_for_what_does_not_exist_would_be_noticed(metric_names):
    assert metrics_in('sum by (kind) (rate(pet_messages_taken_total{kind="sum"}[5m]))') == {"pet_messages_taken_total"}
    assert "pet_messages_taken_total" not in metric_names


def test_the_dashboard_is_the_one_that_its_script_writes():
    assert (FOLDER / "grafana-dashboard.json").read_text() == runpy.run_path(str(FOLDER / "make_dashboard.py"))["written"]()


def test_the_settings_are_valid(tmp_path):
    # Paths are looked for when the file is read; beside it, as the page says.
    for name in ("coordinator.toml", "certificate.pem", "key.pem"):
        source = FOLDER / name
        (tmp_path / name).write_bytes(source.read_bytes() if source.exists() else b"")
    settings = load_settings(tmp_path / "coordinator.toml", {})
    assert settings.api.bind_address.endswith(":8443")


def test_files_for_containers_agree():
    image = f"pet:{pet.__version__}"
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    assert compose["services"]["coordinator"]["image"] == image
    workload, service = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image
    assert workload["spec"]["replicas"] == 1, "a state belongs to one coordinator"
    assert container["ports"][0]["containerPort"] == 8443
    assert service["spec"]["selector"] == workload["spec"]["selector"]["matchLabels"]
    dockerfile = (FOLDER / "Dockerfile").read_text()
    assert f"USER {workload['spec']['template']['spec']['securityContext']['runAsUser']}" in dockerfile
    (scrape,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["static_configs"][0]["targets"] == ["coordinator:8443"]


def test_the_picture_is_the_one_that_its_script_draws():
    drawn = runpy.run_path(str(ROOT / "docs" / "make_picture.py"))["picture"]()
    assert (ROOT / "docs" / "how-it-works.svg").read_text(encoding="utf-8") == drawn
