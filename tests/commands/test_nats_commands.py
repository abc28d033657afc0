"""`pet coordinator` with a broker, and commands that go to it, as processes of their own."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from nats_broker import running_broker

from pet import cli
from pet.commands._coordinator_url import open_coordinator
from pet.coordinator.settings import load_settings
from pet.errors import ConfigError, SettingsError

SETTINGS = """
[api]
bind_address = "127.0.0.1:0"
[pet.sum]
prob = 0.4
count = { min = 1, max = 100 }
time = { min = 0.2, max = 5 }
[pet.update]
prob = 1.0
count = { min = 3, max = 100 }
time = { min = 0.2, max = 5 }
[model]
length = 7
[nats]
hosts = "HOSTS"
request_timeout = 5
"""
CONFIG = 'authorization { user: "me", password: "hidden-word" }'


@pytest.fixture
def finish(monkeypatch, capsys):
    """Give what runs a command to its end, in this process; it returns the exit status, output and errors."""
    for name in [name for name in os.environ if name.startswith(("PET_", "XAYNET_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "160")

    def finish(*arguments):
        status = cli.run([*arguments])
        return status, *capsys.readouterr()

    return finish


@contextlib.contextmanager
def coordinator(config):
    """Run a coordinator as a process; the fixture `finish` has removed settings from the environment that it inherits."""
    command = [sys.executable, "-m", "pet", "coordinator", "-c", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    printed = ""
    try:
        for line in process.stdout:
            printed += line
            if found := re.search(r"Listening on (\S+) ", line):
                break
        else:
            raise AssertionError(process.stderr.read())
        yield found[1], printed
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


@pytest.fixture
def broker(tmp_path):
    with running_broker(tmp_path / "broker", CONFIG) as broker:
        yield broker


def write(tmp_path, hosts):
    config = tmp_path / "config.toml"
    config.write_text(SETTINGS.replace("HOSTS", hosts))
    return config


def test_a_coordinator_serves_over_http_and_over_nats(finish, tmp_path, broker):
    nats_url = broker.url.replace("nats://", "nats://me:hidden-word@")
    with coordinator(write(tmp_path, nats_url)) as (url, printed):
        assert f"Serving over NATS too: {broker.url}, federation pet0coordinator0." in printed
        assert "hidden" not in printed
        status, out, err = finish("test-drive", "-u", nats_url, "-n", "8", "-p", "0.05", "--rounds", "1")
        assert status == 0, err
        assert "1 rounds finished" in out
        assert "hidden" not in out + err
        model = tmp_path / "model.npy"
        status, _, err = finish("model", "get", "-u", f"{nats_url}/pet0coordinator0", "-o", str(model))
        assert status == 0, err
        assert np.load(model).shape == (7,)
        assert httpx.get(f"{url}/status").json()["rounds_completed"] >= 1


def test_what_is_wrong_with_the_broker_is_reported_before_anything_is_served(finish, tmp_path, broker):
    for hosts, expected in (
        (broker.url.replace("nats://", "nats://me:wrong-word@"), "expected credentials that it accepts"),
        ("nats://127.0.0.1:1", "expected a broker within 5 s"),
    ):
        config = write(tmp_path, hosts)
        if "127.0.0.1:1" in hosts:
            config.write_text(config.read_text().replace("request_timeout = 5", "request_timeout = 0.5"))
            expected = "expected a broker within 0.5 s"
        status, out, err = finish("coordinator", "-c", str(config))
        assert status == 1
        assert expected in err
        assert "wrong-word" not in out + err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('user = "me"', "user and password together"),
        ('nkey_seed = "hidden-word"', "SU and 56 more"),
        ('mode = "pigeon"', "nats.mode: expected one of direct, stream"),
        ('federation_id = "short"', "nats.federation_id: expected 16 characters"),
        ('stream_max_memory = "1M"', "at least 33554432"),
        ('stream_max_memory = "much"', "optional K, M or G"),
        ("request_timeout = 0.0", "nats.request_timeout"),
    ],
)
def test_settings_of_the_broker_are_checked(tmp_path, line, expected):
    config = write(tmp_path, "nats://127.0.0.1:4222")
    config.write_text(config.read_text().replace("request_timeout = 5", line))
    with pytest.raises(SettingsError) as caught:
        load_settings(config, {})
    assert expected in str(caught.value)
    assert "hidden-word" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "identity", "expected"),
    [
        ("nats://127.0.0.1:4222/short", None, "federation id: expected 16 characters"),
        ("nats://me:hidden-word@broker.example", None, "TLS for every host"),
        ("nats://me:x/hidden-word@127.0.0.1", None, "percent-encoded"),
        ("nats://me:hidden-word@127.0.0.1:x", None, "expected nats://host"),
        ("nats://me:hidden-word@127.0.0.1/?hidden-word", None, "without a query"),
        ("nats://127.0.0.1:1", Path("file.pem"), "--identity"),
    ],
)
def test_other_urls(url, identity, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        open_coordinator(url, None, identity)
    assert "hidden-word" not in str(caught.value)
