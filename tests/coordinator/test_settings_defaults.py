"""Defaults with and without a settings file, and what a fault may show."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet.coordinator.setting_names import SETTINGS, SHIPPED, WITHOUT_FILE
from pet.coordinator.settings import Settings, load_settings_with_origins
from pet.coordinator.settings_sources import flatten, nest
from pet.errors import SettingsError

MAXIMA = {"pet.sum.time.max": 60, "pet.update.time.max": 600, "pet.sum2.time.max": 60}


#: Values of every type that a file can have, near the bounds of the rules.
VALUES = st.one_of(
    st.booleans(),
    st.integers(-2, 5) | st.sampled_from([2**32, 2**64, 10**400]),
    st.floats(-1, 5) | st.sampled_from([float("nan"), float("inf")]),
    st.text(max_size=5) | st.sampled_from(["nats://[", "tls://h:99999", "prime", "B0", "1e999", "7", "[::1]:80"]),
    st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
)


def maxima(loaded):
    pet = loaded.pet
    return [pet.sum.time.max, pet.update.time.max, pet.sum2.time.max]


def test_only_a_coordinator_without_a_file_waits_for_minutes(tmp_path):
    without = load_settings_with_origins(None, {}, defaults=WITHOUT_FILE)
    assert maxima(without.settings) == list(MAXIMA.values())
    assert without.origins["pet.sum.time.max"] == "default without a settings file"
    assert without.origins["pet.sum2.time.max"] == "as pet.sum.time.max"
    path = tmp_path / "empty.toml"
    path.touch()
    assert maxima(load_settings_with_origins(path, {}).settings) == maxima(Settings()) == [3600] * 3
    assert {name for name, value in WITHOUT_FILE.items() if SHIPPED[name] != value} == {
        "pet.sum.time.max",
        "pet.update.time.max",
    }


def test_the_environment_wins_over_the_defaults_without_a_file():
    environ = {"PET__MAX_SUM2_TIME": "7", "PET__MIN_SUM2_TIME": "1", "PET__MIN_UPDATE_TIME": "900"}
    loaded = load_settings_with_origins(None, environ, defaults=WITHOUT_FILE)
    assert maxima(loaded.settings) == [60, 900, 7]
    assert loaded.origins["pet.update.time.max"] == ("default without a settings file (600), raised to pet.update.time.min")


@pytest.mark.parametrize("name", [name for name in SETTINGS if "." in name])
def test_whatever_a_setting_is_set_to_counts_as_its_value(name):
    """A table in place of a value is refused, not taken for a section and dropped."""
    *sections, leaf = name.split(".")
    tree = {leaf: {"a": 1}}
    for section in reversed(sections[1:]):
        tree = {section: tree}
    with pytest.raises(SettingsError) as caught:
        Settings(**{sections[0]: tree})
    assert str(caught.value).startswith(f"{name}: expected ")


@pytest.mark.parametrize(
    "sections",
    [
        {"nats": {"pasword": "hunter2"}},
        {"nats": "nats://user:hunter2@host"},
        {"redis": {"urll": "redis://:hunter2@host"}},
        {"s3": {"secret_access_key": ["hunter2"]}},
        {"metrics": {"influxdb": {"ulr": "hunter2"}}},
        {"redis": {"url": b"hunter2"}},
    ],
)
def test_a_misplaced_secret_does_not_show(sections):
    with pytest.raises(SettingsError, match="a value that is not shown") as caught:
        Settings(**sections)
    assert "hunter2" not in str(caught.value)


def test_a_long_value_is_cut():
    with pytest.raises(SettingsError) as caught:
        Settings(mask={"group_type": "x" * 10_000})
    assert len(str(caught.value)) < 400


def test_what_contradicts_is_reported_beside_what_breaks_its_own_rule():
    with pytest.raises(SettingsError) as caught:
        Settings(
            pet={"sum": {"prob": 2, "count": {"min": 5, "max": 4}}, "sum2": {"count": {"max": 200}}},
            api={"tls_key": "k.pem"},
            nats={"hosts": "nats://example.com", "nkey": "hunter2"},
        )
    names = [line.split(":")[0] for line in str(caught.value).splitlines()]
    assert sorted(names) == ["api.tls_certificate", "nats.nkey", "pet.sum.count.max", "pet.sum.prob"]


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({"pet": {"sum": {"count": {"max": "many"}}, "sum2": {"count": {"max": 200}}}}, ["pet.sum.count.max"]),
        ({"mask": {"model_type": "M1"}, "pet": {"update": {"count": {"min": 5000}}}}, ["mask.model_type"]),
        ({"nats": {"hosts": "nats://127.0.0.1", "user": "u", "request_timeout": 0}}, ["nats.request_timeout"]),
        ({"pet": {"sum": {"count": {"min": 0}}}}, ["pet.sum.count.min"]),
        ({"pet": {"sum": {"count": {"min": 200.5}}}}, ["pet.sum.count.min"]),
    ],
)
def test_a_fault_brings_no_others(sections, names):
    variables = {f"PET__{name.upper().replace('.', '__')}": str(value) for name, value in flatten(sections).items()}
    for make in (lambda: Settings(**sections), lambda: load_settings_with_origins(None, variables)):
        with pytest.raises(SettingsError) as caught:
            make()
        lines = [line.split(":")[0] for line in str(caught.value).splitlines()]
        assert [re.sub(r"^\S+ \((.*)\)$", r"\1", line) for line in lines] == names


@pytest.mark.parametrize(
    ("nats", "line"),
    [
        ({"hosts": "nats://u:hunter2@h.example"}, "nats.hosts: expected TLS for every host but this machine, got nats://h."),
        ({"hosts": "nats://127.0.0.1", "user": "u"}, "nats: expected user and password together, got one of them"),
        (
            {"hosts": "nats://127.0.0.1", "stream_max_memory": "1M"},
            "nats.stream_max_memory: expected a finite number of at least 33554432",
        ),
        ({"hosts": "nats://127.0.0.1", "stream_max_memory": "much"}, "nats.stream_max_memory: expected a number of bytes"),
        ({"hosts": "nats://127.0.0.1", "nkey_seed": "hunter2"}, "nats.nkey_seed: expected SU and 56 more characters, got 7"),
    ],
)
def test_what_the_broker_refuses_has_the_name_of_the_setting(nats, line):
    with pytest.raises(SettingsError) as caught:
        Settings(nats=nats)
    assert str(caught.value).startswith(line)
    assert "hunter2" not in str(caught.value)


def test_a_section_that_is_a_value_is_refused(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('redis = "redis://:hunter2@host"\nmodel = 5\n')
    with pytest.raises(SettingsError) as caught:
        load_settings_with_origins(path, {})
    assert str(caught.value).splitlines() == [
        f"{name} (file): expected a section of settings, as in [{name}], got a value" for name in ("redis", "model")
    ]


@given(st.dictionaries(st.sampled_from(sorted(SETTINGS)), VALUES, max_size=8))
def test_any_values_are_settings_or_a_settings_error_that_names_them(values):
    try:
        Settings(**nest(values))
    except SettingsError as error:
        for line in str(error).splitlines():
            name = line.split(":")[0]
            assert name in values or name in {"nats", "api.tls_key", "api.tls_certificate"}, line
