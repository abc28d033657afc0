"""Every name of the three versions, the issue's file in all its forms, and which place wins."""

import pytest

from pet.coordinator.setting_names import RULES, SHIPPED, complete, find_full_name
from pet.coordinator.settings import Settings, load_settings, load_settings_with_origins
from pet.errors import SettingsError
from pet.mask_config import MaskConfig, MaskConfigPair

FLAT = """
bind_address = ""
min_sum_count = 1
min_update_count = 3
min_sum_time = 5
min_update_time = 10
sum = 0.4
update = 0.9
group_type = "Prime"
data_type = "F32"
bound_type = "B0"
model_type = "M3"
size = 4
"""
SECTIONS = """
[api]
bind_address = ""
[pet]
min_sum_count = 1
min_update_count = 3
min_sum_time = 5
min_update_time = 10
sum = 0.4
update = 0.9
[mask]
group_type = "Prime"
data_type = "F32"
bound_type = "B0"
model_type = "M3"
[model]
size = 4
"""
OTHER_SECTIONS = """
bind_address = ""
[counts]
min_sum_count = 1
min_update_count = 3
[times]
min_sum_time = 5
min_update_time = 10
[probabilities]
sum = 0.4
update = 0.9
[mask]
group_type = "Prime"
data_type = "F32"
bound_type = "B0"
model_type = "M3"
[anything]
size = 4
"""
NEWEST = """
[api]
bind_address = "127.0.0.1:8081"
[pet.sum]
prob = 0.4
count = { min = 1, max = 100 }
time = { min = 5, max = 3600 }
[pet.update]
prob = 0.9
count = { min = 3, max = 10000 }
time = { min = 10, max = 3600 }
[pet.sum2]
count = { min = 1, max = 100 }
time = { min = 5, max = 3600 }
[mask]
group_type = "Prime"
data_type = "F32"
bound_type = "B0"
model_type = "M3"
[model]
length = 4
[metrics.influxdb]
url = "http://influxdb:8086"
db = "metrics"
[redis]
url = "redis://127.0.0.1/"
[s3]
access_key = "minio"
secret_access_key = "minio123"
region = ["minio", "http://localhost:9000"]
[s3.buckets]
global_models = "global-models"
[restore]
enable = true
[trust_anchor]
[log]
filter = "xaynet=debug,http=warn,info"
"""


@pytest.fixture
def load(tmp_path):
    def load(text, environ=None):
        path = tmp_path / "config.toml"
        path.write_text(text)
        return load_settings_with_origins(path, environ or {})

    return load


def significant(settings):
    return settings.api, settings.pet, settings.mask, settings.model


@pytest.mark.parametrize(
    "text",
    [FLAT, SECTIONS, OTHER_SECTIONS, FLAT.replace('bind_address = ""', "bind_address"), FLAT.replace('= ""', "=  # loopback")],
    ids=["flat", "sections", "other sections", "bare key", "no value"],
)
def test_the_example_means_the_same_in_every_form(load, text):
    settings = load(text).settings
    assert significant(settings) == significant(load(NEWEST).settings)
    assert settings.api.bind_address == "127.0.0.1:8081"
    assert settings.mask_config == MaskConfigPair.of(MaskConfig.parse("prime-f32-b0-m3"))
    round_settings = settings.to_round_settings()
    assert (round_settings.sum.min_count, round_settings.update.min_count, round_settings.model_length) == (1, 3, 4)
    assert (round_settings.sum_probability, round_settings.update_probability) == (0.4, 0.9)
    assert round_settings.sum2 == round_settings.sum


def test_nothing_written_means_the_shipped_values(load):
    settings = load("").settings
    assert settings == Settings() == load_settings(None, {})
    for name, value in SHIPPED.items():
        found = settings
        for part in name.split("."):
            found = getattr(found, part)
        assert getattr(found, "value", found) == (value.lower() if name.startswith("mask.") else value)
    assert settings.pet.sum2.count == settings.pet.sum.count
    assert settings.pet.sum2.time == settings.pet.sum.time


OLD_NAMES = {
    f"pet.{limit}_{phase}_{kind}": f"pet.{phase}.{kind}.{limit}"
    for limit in ("min", "max")
    for phase in ("sum", "update", "sum2")
    for kind in ("count", "time")
} | {"pet.sum": "pet.sum.prob", "pet.update": "pet.update.prob", "model.size": "model.length", "model.length": "model.length"}


@pytest.mark.parametrize(("old", "full"), OLD_NAMES.items(), ids=OLD_NAMES)
def test_old_names_with_and_without_their_section(old, full):
    section, leaf = old.split(".")
    assert find_full_name((section, leaf)) == find_full_name((leaf,)) == find_full_name((leaf.upper(),)) == full


@pytest.mark.parametrize("full", RULES)
def test_every_full_name_is_known(full):
    assert find_full_name(tuple(full.split("."))) == full


def test_sum2_follows_sum_where_it_is_silent(load):
    settings = load("[pet]\nmin_sum_count = 7\nmax_sum_time = 99\nmax_sum2_count = 50\n").settings
    assert (settings.pet.sum2.count.min, settings.pet.sum2.count.max) == (7, 50)
    assert (settings.pet.sum2.time.min, settings.pet.sum2.time.max) == (5, 99)


def test_a_default_never_contradicts_what_was_written(load):
    loaded = load("min_sum_count = 500\nmax_sum_time = 2\nmin_update_time = 5000")
    pet = loaded.settings.pet
    assert (pet.sum.count.min, pet.sum.count.max, pet.sum2.count.max) == (500, 500, 500)
    assert (pet.sum.time.min, pet.sum.time.max, pet.sum2.time.min) == (2, 2, 2)
    assert (pet.update.time.min, pet.update.time.max) == (5000, 5000)
    assert loaded.origins["pet.sum.count.max"] == "default (100), raised to pet.sum.count.min"
    assert loaded.origins["pet.sum.time.min"] == "default (5), lowered to pet.sum.time.max"


def test_precedence(load):
    text = "[model]\nlength = 1"
    environ = {"PATH": "/bin", "XAYNET__CLIENT": "debug"}
    assert load(text, environ).settings.model.length == 1
    environ["XAYNET_MODEL__LENGTH"] = "2"
    assert load(text, environ).settings.model.length == 2
    environ["XAYNET__MODEL__LENGTH"] = "3"
    assert load(text, environ).settings.model.length == 3
    environ["PET__MODEL__LENGTH"] = "4"
    loaded = load(text, environ)
    assert loaded.settings.model.length == 4
    assert loaded.origins["model.length"] == "PET__MODEL__LENGTH in the environment"
    assert loaded.origins["pet.sum.prob"] == "default"
    assert load(text).origins["model.length"] == "model.length in the file"


@pytest.mark.parametrize(
    ("variable", "value", "attribute", "expected"),
    [
        ("XAYNET__PET__SUM__COUNT__MIN", "10", "pet.sum.count.min", 10),
        ("XAYNET_PET__MIN_SUM_COUNT", "10", "pet.sum.count.min", 10),
        ("PET__PET__SUM__COUNT__MIN", "10", "pet.sum.count.min", 10),
        ("PET__SUM__COUNT__MIN", "10", "pet.sum.count.min", 10),
        ("PET__MIN_SUM_COUNT", "10", "pet.sum.count.min", 10),
        ("XAYNET_PET__SUM", "0.25", "pet.sum.prob", 0.25),
        ("XAYNET__API__BIND_ADDRESS", "0.0.0.0:80", "api.bind_address", "0.0.0.0:80"),
        ("XAYNET__API__BIND_ADDRESS", "", "api.bind_address", "127.0.0.1:8081"),
        ("XAYNET__S3__REGION", "minio http://localhost:8000", "s3.region", ["minio", "http://localhost:8000"]),
        ("XAYNET__RESTORE__ENABLE", "true", "restore.enable", True),
        ("PET__SERVICE__MAX_BYTES_IN_FLIGHT", "100000", "service.max_bytes_in_flight", 100_000),
        ("PET__LOG__LEVEL", "DEBUG", "log.level", "debug"),
    ],
)
def test_environment_values_are_converted(load, variable, value, attribute, expected):
    found = load('[pet.sum]\nprob = 0.4\n[api]\nbind_address = "127.0.0.1:9"', {variable: value}).settings
    for part in attribute.split("."):
        found = getattr(found, part)
    assert found == expected


def test_unknown_keys_are_named_with_the_nearest(load):
    warnings = load("[pet]\nmin_summ_count = 3\n[zzz]\nqqq = 1\n[masks]\ngroup_type = 'Prime'", {"PET__NOTHING": "1"}).warnings
    assert warnings[0] == "pet.min_summ_count (file): unknown, ignored; did you mean pet.min_sum_count?"
    assert warnings[1] == "zzz.qqq (file): unknown, ignored"
    assert warnings[2] == "masks.group_type (file): stands in another section than usual, read as mask.group_type"
    assert warnings[3].startswith("PET__NOTHING (environment): unknown, ignored")


def test_sections_without_effect_are_said_to_have_none(load):
    text = "\n".join(load(NEWEST).warnings)
    for key in ("metrics.influxdb.db", "log.filter"):
        assert f"{key}: accepted, but not used by this release" in text
    assert "minio123" not in text


def test_a_maximum_beyond_the_mask_config_is_worth_a_warning_if_it_was_written(load):
    (warning,) = load("max_update_count = 1001").warnings
    assert warning == "pet.update.count.max is 1001, but mask.model_type allows 1000 models: updates beyond them are refused"
    assert load("max_update_count = 1000").warnings == load("").warnings == []


def test_two_spellings_of_one_setting(load):
    assert load("min_sum_count = 2\n[pet]\nmin_sum_count = 2").settings.pet.sum.count.min == 2
    with pytest.raises(SettingsError, match=r"^pet.min_sum_count \(file\): expected one value for pet.sum.count.min"):
        load("min_sum_count = 2\n[pet]\nmin_sum_count = 3")


def test_completing_leaves_what_is_no_number_to_the_models():
    values, _ = complete({"pet.sum.count.min": "many", "pet.sum.time.max": float("nan")})
    assert values["pet.sum.count.min"] == "many"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a = [", "expected TOML"), (b"\xff", "expected UTF-8"), (None, "expected a readable file, got: No such file")],
)
def test_files_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "c.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        load_settings(path, {})
