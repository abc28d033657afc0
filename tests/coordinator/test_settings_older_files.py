"""Every key that an older xaynet configuration file can have is read, or refused by name; none is ignored."""

import tomllib

import pytest

from pet.coordinator.setting_names import find_full_name
from pet.coordinator.settings import load_settings, load_settings_with_origins
from pet.errors import SettingsError

#: The newest system, under its first two names: June 2020, v0.9, v0.10. What each key means today.
PET_KEYS = {
    "log.filter": ("xaynet=debug", "log.filter"),
    "api.bind_address": ("0.0.0.0:8081", "api.bind_address"),
    "pet.min_sum": (2, "pet.sum.count.min"),
    "pet.min_update": (4, "pet.update.count.min"),
    "pet.min_sum_count": (2, "pet.sum.count.min"),
    "pet.min_update_count": (4, "pet.update.count.min"),
    "pet.min_sum_time": (2, "pet.sum.time.min"),
    "pet.min_update_time": (2, "pet.update.time.min"),
    "pet.max_sum_time": (200, "pet.sum.time.max"),
    "pet.max_update_time": (200, "pet.update.time.max"),
    "pet.sum": (0.25, "pet.sum.prob"),
    "pet.update": (0.75, "pet.update.prob"),
    "mask.group_type": ("Power2", "mask.group_type"),
    "mask.data_type": ("F64", "mask.data_type"),
    "mask.bound_type": ("B2", "mask.bound_type"),
    "mask.model_type": ("M6", "mask.model_type"),
    "model.size": (7, "model.length"),
    "metrics.influxdb.url": ("http://influxdb:8086", "metrics.influxdb.url"),
    "metrics.influxdb.db": ("metrics", "metrics.influxdb.db"),
    "redis.url": ("redis://redis", "redis.url"),
    "log_level": ("debug", "log.level"),
}
#: Files of the systems before, and keys of the newest one that lost their meaning. What each error must name.
RETIRED_KEYS = {
    "pet.expected_participants": (10, "pet.sum.prob and pet.update.prob"),
    "redis.timeout": (5, "remove it"),
    "aggregator_url": ("http://localhost:8082", "remove it"),
    "rpc.bind_address": ("localhost:5555", "api.bind_address"),
    "rpc.aggregator_address": ("localhost:6666", "api.bind_address"),
    "rpc.coordinator_address": ("localhost:5555", "api.bind_address"),
    "aggregation.python.module": ("xain_aggregators.weighted_average", "remove it"),
    "aggregation.python.class": ("Aggregator", "remove it"),
    "federated_learning.rounds": (10, "remove it"),
    "federated_learning.participants_ratio": (0.5, "pet.sum.prob and pet.update.prob"),
    "federated_learning.min_clients": (5, "pet.sum.count.min and pet.update.count.min"),
    "federated_learning.heartbeat_timeout": (15, "pet.sum.time.max"),
    "metric_store.database_url": ("http://influxdb:8086", "metrics.prometheus"),
    "metric_store.database_name": ("metrics", "metrics.prometheus"),
    "logging.filter": ("info", "log.level"),
    "logging.level": ("info", "log.level"),
    "logging.console": (True, "log.level"),
    "logging.third_party": (True, "log.level"),
    "logging.telemetry.service_name": ("coordinator", "log.level"),
    "logging.telemetry.jaeger_endpoint": ("localhost:6831", "log.level"),
    "server.host": ("0.0.0.0", "api.bind_address"),
    "server.port": (50051, "api.bind_address"),
    'server.grpc_options."grpc.max_receive_message_length"': (-1, "remove it"),
    "ai.rounds": (2, "remove it"),
    "ai.epochs": (1, "remove it"),
    "ai.min_participants": (1, "pet.sum.count.min and pet.update.count.min"),
    "ai.fraction_participants": (1.0, "pet.sum.prob and pet.update.prob"),
    "storage.endpoint": ("http://minio:9000", "s3.region"),
    "storage.bucket": ("weights", "s3.buckets.global_models"),
    "storage.access_key_id": ("minio", "s3.access_key"),
    "storage.secret_access_key": ("minio123", "s3.secret_access_key"),
    "metrics.enable": (False, "metrics.prometheus"),
    "metrics.host": ("localhost", "metrics.prometheus"),
    "metrics.port": (8086, "metrics.prometheus"),
    "metrics.user": ("root", "metrics.prometheus"),
    "metrics.password": ("root", "metrics.prometheus"),
    "metrics.db_name": ("metrics", "metrics.prometheus"),
}
JUNE_2020 = """
[log]
filter = "xain_fl=debug,info"
[api]
bind_address = "127.0.0.1:8081"
[pet]
min_sum = 2
min_update = 5
sum = 0.01
update = 0.1
[mask]
group_type = "Prime"
data_type = "F32"
bound_type = "B0"
model_type = "M3"
"""


def toml(value):
    return str(value).lower() if isinstance(value, bool) else repr(value)


def written(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def variables(key):
    """The names that a key of a file has in the environment, under every prefix."""
    name = key.replace('"', "").upper().replace("GRPC.", "GRPC_").replace(".", "__")
    return [f"{prefix}{name}" for prefix in ("PET__", "XAYNET__", "XAYNET_", "XAIN__", "XAIN_")]


def value_of(loaded, name):
    found = loaded.settings
    for part in name.split("."):
        found = getattr(found, part)
    return found.reveal() if hasattr(found, "reveal") else getattr(found, "value", found)


@pytest.mark.parametrize("key", PET_KEYS)
def test_a_key_of_the_same_system_is_read_in_the_file_and_in_the_environment(tmp_path, key):
    value, name = PET_KEYS[key]
    assert find_full_name(tuple(key.split("."))) == name
    from_file = load_settings_with_origins(written(tmp_path, f"{key} = {toml(value)}"), {})
    assert from_file.origins[name] == f"{key} in the file"
    loaded = [from_file] + [load_settings_with_origins(None, {variable: str(value)}) for variable in variables(key)]
    expected = value.lower() if name.startswith("mask.") else value
    assert [value_of(each, name) for each in loaded] == [expected] * 6
    assert not any("unknown" in warning for each in loaded for warning in each.warnings)


@pytest.mark.parametrize("key", RETIRED_KEYS)
def test_a_key_of_an_earlier_system_is_refused_by_name_with_what_replaces_it(tmp_path, key):
    value, replacement = RETIRED_KEYS[key]
    places = [(key.replace('"', ""), "file", written(tmp_path, f"{key} = {toml(value)}"), {})]
    places += [(variable, "environment", None, {variable: str(value)}) for variable in variables(key)]
    for name, place, path, environ in places:
        with pytest.raises(SettingsError) as caught:
            load_settings(path, environ)
        beginning = f"{name} ({place}): expected a setting, got one of an older xaynet; "
        assert str(caught.value).startswith(beginning)
        assert replacement in str(caught.value).removeprefix(beginning)


def test_a_whole_file_of_june_2020_is_read(tmp_path):
    assert "min_sum" in tomllib.loads(JUNE_2020)["pet"]
    loaded = load_settings_with_origins(written(tmp_path, JUNE_2020), {"XAIN_PET__UPDATE": "0.2"})
    pet = loaded.settings.pet
    assert (pet.sum.count.min, pet.update.count.min, pet.sum.prob, pet.update.prob) == (2, 5, 0.01, 0.2)
    assert loaded.warnings == ["log.filter: accepted, but not used by this release"]


def test_everything_wrong_is_reported_at_once(tmp_path):
    text = "[ai]\nrounds = 2\n[pet]\nmin_sum = 1\nmin_sum_count = 2\nmin_update = 2\n[rpc]\nbind_address = ':5'\n"
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, text), {"XAIN_MODEL__SIZE": "none", "PET__AI__EPOCHS": "1"})
    starts = ["ai.rounds (file)", "pet.min_sum_count (file)", "rpc.bind_address (file)", "PET__AI__EPOCHS (environment)"]
    starts += ["pet.min_update (pet.update.count.min): expected", "XAIN_MODEL__SIZE (model.length): expected"]
    lines = str(caught.value).splitlines()
    assert len(lines) == len(starts)
    assert sorted(line.split(":")[0] for line in lines) == sorted(start.split(":")[0] for start in starts)


def test_a_broken_file_hides_no_fault_of_the_environment(tmp_path):
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, "a = ["), {"PET__MODEL__LENGTH": "0"})
    first, second = str(caught.value).splitlines()
    assert "expected TOML, got" in first
    assert second.startswith("PET__MODEL__LENGTH (model.length): expected a whole number")
