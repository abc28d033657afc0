"""Defaults with and without a settings file, and what a fault may show."""

import pytest

from pet.coordinator.setting_names import SETTINGS, SHIPPED, WITHOUT_FILE
from pet.coordinator.settings import Settings, load_settings_with_origins
from pet.errors import SettingsError

MAXIMA = {"pet.sum.time.max": 60, "pet.update.time.max": 600, "pet.sum2.time.max": 60}


def maxima(settings):
    pet = settings.pet
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
