"""A settings file with several faults ends with all of them, each with what to do, before anything is opened or written.

The file is xaynet's own of 2021 and 2022 (spec 6.1), whose default build leaves S3 and TLS out.
"""

import os
import re
import socket
import time

import pytest
from programs import free_port
from redis_server import redis_server

from pet import cli

ORIGINAL = """
[log]
filter = "xaynet=debug,http=warn,info"
[api]
bind_address = "127.0.0.1:0"
tls_certificate = "/app/ssl/tls.pem"
tls_key = "/app/ssl/tls.key"
[pet.sum]
prob = 0.5
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
url = "http://127.0.0.1:8086"
db = "metrics"
[redis]
url = "redis://127.0.0.1:REDIS/"
[s3]
access_key = "minio"
secret_access_key = "hidden-word"
region = ["minio", "http://127.0.0.1:S3"]
[s3.buckets]
global_models = "global-models"
[restore]
enable = true
[trust_anchor]
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Give what runs a command with a settings file; it returns the exit status, both outputs, and the seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    for name in [name for name in os.environ if name.startswith(("PET_", "XAYNET_"))]:
        monkeypatch.delenv(name)

    def run(command, text):
        config = tmp_path / "config.toml"
        config.write_text(text)
        started = time.monotonic()
        status = cli.run([*command, str(config)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert "hidden-word" not in out + err
        return status, out, err.splitlines(), time.monotonic() - started

    return run


def original(redis_port=None, s3_port=None):
    return ORIGINAL.replace("REDIS", str(redis_port or free_port())).replace("S3", str(s3_port or free_port()))


def without_section(text, *names):
    for name in names:
        text = re.sub(rf"(?m)^\[{name}\]\n([^\[].*\n)*", "", text)
    return text


COMMANDS = pytest.mark.parametrize("command", [["coordinator", "-c"], ["config", "check"]], ids=["coordinator", "check"])
TLS = "provide it, or remove api.tls_certificate, api.tls_key and api.tls_client_auth: then it speaks plain HTTP"


@COMMANDS
def test_xaynets_own_file_ends_with_everything_that_it_lacks(command, run, tmp_path):
    redis_port, s3_port = free_port(), free_port()
    status, _, lines, _ = run(command, original(redis_port, s3_port))
    assert status == 1
    assert lines[:2] == [
        f"error: api.tls_certificate: expected a readable file, got '/app/ssl/tls.pem'; {TLS}",
        f"error: api.tls_key: expected a readable file, got '/app/ssl/tls.key'; {TLS}",
    ]
    assert lines[2].startswith(f"error: redis.url: Redis at 127.0.0.1:{redis_port}/0: ConnectionError: ")
    assert lines[2].endswith(
        "; start it, or correct the settings, or remove the section [redis]: then rounds are kept in pet-state/"
    )
    assert lines[3:] == [
        f"error: s3.region: bucket global-models at http://127.0.0.1:{s3_port}: expected a server that answers, got none;"
        " start it or create the bucket, or correct the settings, or remove the section [s3]: then models are kept in"
        " pet-state/models"
    ]


@COMMANDS
def test_faults_of_every_kind_come_together_and_nothing_is_opened(command, run, tmp_path):
    text = original().replace("count = { min = 3,", "count = { min = 0,").replace("[pet.sum2]", "[pet.summ2]")
    text += f'[nats]\nhosts = "nats://127.0.0.1:{free_port()}"\n'
    status, out, lines, seconds = run(command, text)
    assert status == 1
    assert out == ""
    expected = [
        "api.tls_certificate:",
        "api.tls_key:",
        "pet.update.count.min: expected a whole number, at least 3",
        "nats.hosts:",
    ]
    expected += ["redis.url:", "s3.region:"] + ["pet.summ2."] * 4
    assert len(lines) == len(expected)
    for line, beginning in zip(lines, expected, strict=True):
        assert line.startswith(f"error: {beginning}")
    assert lines[-1].endswith("no such setting; did you mean pet.sum2.time.max?")
    assert seconds < 20
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_it_starts_once_every_advice_is_taken(run, tmp_path):
    with redis_server(tmp_path) as server:
        text = without_section(original(server.port), "s3", r"s3\.buckets").replace("tls_", "# tls_")
        text = text.replace(f":{server.port}/", f":{server.port}/0")
        status, _, lines, _ = run(["config", "check"], text)
        assert (status, lines) == (0, [])


def test_a_file_can_be_checked_where_its_servers_are_not(run, tmp_path):
    text = original().replace("tls_", "# tls_")
    status, _, lines, _ = run(["config", "check", "--no-servers"], text)
    assert (status, lines) == (0, [])


def test_servers_that_hang_are_not_waited_for(run, tmp_path):
    """A listener that nobody accepts from: connections are made, and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as redis, socket.create_server(("127.0.0.1", 0)) as s3:
        ports = [listener.getsockname()[1] for listener in (redis, s3)]
        status, _, lines, seconds = run(["config", "check"], original(*ports).replace("tls_", "# tls_"))
    assert status == 1
    assert [line.partition(":")[2].strip().partition(":")[0] for line in lines] == ["redis.url", "s3.region"]
    assert seconds < 50  # with starting Python on a busy machine; a server that hangs would never answer


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("tls_client_aut = '/app/ca.pem'", "api.tls_client_auth"),
        ("tls_certificat = '/app/tls.pem'", "api.tls_certificate"),
        ("[service]\nallowed_participant = '/app/keys'", "service.allowed_participants"),
        ("[nats]\npasword = 'hidden-word'", "nats.password"),
    ],
)
def test_a_protection_is_never_left_out_for_a_misspelt_name(line, meant, run):
    status, _, lines, _ = run(["config", "check"], f"[api]\nbind_address = '127.0.0.1:0'\n{line}")
    assert status == 1
    assert len(lines) == 1
    assert lines[0].endswith(f"no such setting; did you mean {meant}? Correct the name, or remove it")
