"""`pet config check`: what it prints about right and wrong files, and its exit status."""

import os
import re

import pytest

from pet import cli


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    for name in list(os.environ):
        if name.startswith(("PET__", "XAYNET_")):
            monkeypatch.delenv(name)


@pytest.fixture
def check(tmp_path, capsys):
    def check(text):
        path = tmp_path / "config.toml"
        path.write_text(text)
        status = cli.run(["config", "check", str(path)])
        return status, *capsys.readouterr()

    return check


def test_a_valid_file(check, monkeypatch):
    monkeypatch.setenv("XAYNET_PET__MIN_SUM_COUNT", "7")
    status, out, err = check(
        "[pet]\nsum = 0.4\nmin_summ_time = 3\n[mask]\ngroup_type='Power2'\n[s3]\nsecret_access_key='hunter2'"
    )
    assert (status, err) == (0, "")
    assert re.search(r"pet.sum.prob +0.4 +pet.sum in the file", out)
    assert re.search(r"pet.sum.count.min +7 +XAYNET_PET__MIN_SUM_COUNT in the environment", out)
    assert re.search(r"pet.sum2.count.min +7 +as pet.sum.count.min", out)
    assert re.search(r"mask.group_type +Power2 +the file *$", out, re.MULTILINE)
    assert re.search(r"s3.secret_access_key +\(not shown\)", out)
    assert "hunter2" not in out
    assert "redis.url" not in out
    assert "Mask config power2-f32-b0-m3" in out
    assert "An update of 4 weights is a request of" in out
    assert "warning: pet.min_summ_time (file): unknown, ignored; did you mean pet.min_sum_time?" in out
    assert out.splitlines()[-1].endswith("config.toml: valid")


def test_every_error_is_a_line(check):
    status, out, err = check("min_sum_count = 0\nsum = 3")
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        "error: sum (pet.sum.prob): expected a number above 0 and below 1, got 3",
        "error: min_sum_count (pet.sum.count.min): expected a whole number, at least 1, got 0",
    ]


def test_files_that_the_settings_name_must_be_there(check):
    status, _, err = check("[api]\ntls_certificate = '/nowhere/c.pem'\ntls_key = '/nowhere/k.pem'")
    assert status == 1
    remedy = "provide it, or remove api.tls_certificate, api.tls_key and api.tls_client_auth: then it speaks plain HTTP"
    assert err.splitlines() == [
        f"error: api.tls_certificate: expected a readable file, got '/nowhere/c.pem'; {remedy}",
        f"error: api.tls_key: expected a readable file, got '/nowhere/k.pem'; {remedy}",
    ]


def test_no_such_file(capsys):
    assert cli.run(["config", "check", "/nowhere.toml"]) == 1
    assert capsys.readouterr().err.startswith("error: settings file /nowhere.toml: expected a readable file")
