"""Every rule of spec 6.1: the error names the key as it was written, the value and the rule."""

import pytest

from pet.coordinator.setting_sections import split_bind_address
from pet.coordinator.settings import Settings, load_settings
from pet.errors import ConfigError, SettingsError


def refused(tmp_path, text, environ=None):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environ or {})
    return str(caught.value).splitlines()


COUNT = "expected a whole number, at least 1, got"
CASES = [
    ("sum = 0", "sum (pet.sum.prob): expected a number above 0 and below 1, got 0"),
    ("sum = 1.0", "sum (pet.sum.prob): expected a number above 0 and below 1, got 1.0"),
    ("sum = nan", "sum (pet.sum.prob): expected a number above 0 and below 1, got nan"),
    ("sum = true", "sum (pet.sum.prob): expected a number above 0 and below 1, got True"),
    ("[pet]\nupdate = 1.01", "pet.update (pet.update.prob): expected a number above 0 and at most 1, got 1.01"),
    ("[pet.update]\nprob = 'x'", "pet.update.prob: expected a number above 0 and at most 1, got 'x'"),
    ("min_sum_count = 0", f"min_sum_count (pet.sum.count.min): {COUNT} 0"),
    ("min_sum_count = 1.5", f"min_sum_count (pet.sum.count.min): {COUNT} 1.5"),
    ("min_sum_count = -1", f"min_sum_count (pet.sum.count.min): {COUNT} -1"),
    ("min_sum2_count = 0", f"min_sum2_count (pet.sum2.count.min): {COUNT} 0"),
    ("min_sum_count = 18446744073709551616", f"min_sum_count (pet.sum.count.min): {COUNT} 18446744073709551616"),
    ("min_update_count = 2", "min_update_count (pet.update.count.min): expected a whole number, at least 3, got 2"),
    ("max_update_count = 2", "max_update_count (pet.update.count.max): expected a whole number, at least 3, got 2"),
    (
        "min_sum_count = 5\nmax_sum_count = 4",
        "max_sum_count (pet.sum.count.max): expected at least pet.sum.count.min, which is 5, got 4",
    ),
    (
        "min_update_time = 5\nmax_update_time = 4",
        "max_update_time (pet.update.time.max): expected at least pet.update.time.min, which is 5, got 4.0",
    ),
    (
        "max_sum2_count = 101",
        "max_sum2_count (pet.sum2.count.max): expected at most pet.sum.count.max, which is 100, got 101",
    ),
    ("max_sum_time = 0", "max_sum_time (pet.sum.time.max): expected a number of seconds, above 0, got 0"),
    ("min_sum_time = -1", "min_sum_time (pet.sum.time.min): expected a number of seconds, at least 0, got -1"),
    (
        "min_update_count = 1001",
        "min_update_count (pet.update.count.min): expected at most 1000, the models that mask.model_type allows, got 1001",
    ),
    ("group_type = 'Odd'", "group_type (mask.group_type): expected one of Integer, Prime, Power2, got 'Odd'"),
    ("data_type = 'F16'", "data_type (mask.data_type): expected one of F32, F64, I32, I64, got 'F16'"),
    ("bound_type = 'B1'", "bound_type (mask.bound_type): expected one of B0, B2, B4, B6, Bmax, got 'B1'"),
    ("model_type = 3", "model_type (mask.model_type): expected one of M3, M6, M9, M12, got 3"),
    ("size = 0", "size (model.length): expected a whole number of weights, from 1 to 4294967295, got 0"),
    ("[model]\nlength = 4294967296", "model.length: expected a whole number of weights, from 1 to 4294967295, got 4294967296"),
    ("[service]\nworkers = 0", "service.workers: expected a whole number of threads, at least 1 (absent: one per core), got 0"),
    ("[service]\nstall_seconds = 0", "service.stall_seconds: expected a number of seconds, above 0, got 0"),
    ("[log]\nlevel = 'loud'", "log.level: expected one of debug, info, warning, error, got 'loud'"),
    ("[restore]\nenable = 'maybe'", "restore.enable: expected true or false, got 'maybe'"),
    (
        "[redis]\nurl = 3",
        "redis.url: expected redis://[user][:password@]host[:port][/database], or rediss:// for TLS, got a value that",
    ),
    (
        "[s3]\nsecret_access_key = 3",
        "s3.secret_access_key: expected text, beside s3.access_key, got a value that is not shown, of type int",
    ),
    ("[s3]\nregion = [1]", "s3.region: expected a list such as"),
    ("[api]\ntls_key = 'k.pem'", "api.tls_certificate: expected the path of a PEM file, beside api.tls_key, got nothing"),
    (
        "[api]\ntls_certificate = 'c.pem'",
        "api.tls_key: expected the path of a PEM file, beside api.tls_certificate, got nothing",
    ),
    (
        "[api]\ntls_client_auth = 'a.pem'",
        "api.tls_client_auth: expected the path of a PEM file, beside api.tls_certificate and api.tls_key, got 'a.pem'",
    ),
    ("[api]\ntls_certificate = ''\ntls_key = 'k'", "api.tls_certificate: expected the path of a PEM file"),
]


@pytest.mark.parametrize(("text", "line"), CASES, ids=[text for text, _ in CASES])
def test_a_broken_rule_is_one_line(tmp_path, text, line):
    lines = refused(tmp_path, text)
    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_several_broken_rules_are_several_lines(tmp_path):
    lines = refused(tmp_path, "sum = 2\nsize = 'many'", {"XAYNET_PET__MIN_UPDATE_COUNT": "1"})
    assert len(lines) == 3
    assert any(line.startswith("XAYNET_PET__MIN_UPDATE_COUNT (pet.update.count.min): expected") for line in lines)


@pytest.mark.parametrize(
    "value", ["localhost:80", "127.0.0.1", "127.0.0.1:65536", "127.0.0.1:-1", "::1:80", "[127.0.0.1]:80", ":80"]
)
def test_bind_addresses_that_are_none(tmp_path, value):
    (line,) = refused(tmp_path, f"bind_address = '{value}'")
    assert line.startswith("bind_address (api.bind_address): expected IP:port such as 127.0.0.1:8081")
    assert line.endswith(repr(value))


def test_bind_addresses():
    assert split_bind_address("0.0.0.0:0") == ("0.0.0.0", 0)
    assert split_bind_address("[::1]:8081") == ("::1", 8081)
    with pytest.raises(ConfigError):
        split_bind_address("")


def test_settings_built_in_code_obey_the_same_rules():
    assert Settings(model={"length": 9}).model.length == 9
    assert Settings(model=Settings(model={"length": 9}).model).model.length == 9
    with pytest.raises(SettingsError, match=r"^pet.sum.prob: expected a number above 0 and below 1, got 7$"):
        Settings(pet={"sum": {"prob": 7}})
    with pytest.raises(SettingsError, match=r"^model.lenght: no such setting, got 7$"):
        Settings(model={"lenght": 7})
    with pytest.raises(SettingsError, match=r"pet: expected a section of settings, got 3"):
        Settings(pet=3)


def test_secrets_do_not_show():
    settings = Settings(s3={"secret_access_key": "hunter2"}, redis={"url": "redis://:hunter2@host"})
    assert "hunter2" not in repr(settings)
