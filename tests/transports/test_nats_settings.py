"""How to reach a broker: what is accepted, what is refused, and that no secret shows."""

import asyncio

import pytest

from pet.errors import ConfigError
from pet.secret import Secret
from pet.transports.nats import NatsSettings, NatsTransport, Subjects, connect, generate_federation_id, parse_size

SEED = "SU" + "A" * 56


def test_the_defaults_are_those_of_the_specification():
    settings = NatsSettings()
    assert (settings.request_timeout_seconds, settings.stream_max_bytes) == (30.0, 2**30)
    assert (settings.mode, settings.storage) == ("direct", "file")


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("1073741824", 2**30), ("1024M", 2**30), ("1g", 2**30), (" 64k ", 2**16)])
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "1.5G", "-1", "1T", "0x10", "1 G B", "9" * 19, "\u0661"])
def test_bad_sizes(text):
    with pytest.raises(ConfigError, match="size"):
        parse_size(text)


def test_hosts_are_completed_and_taken_apart():
    settings = NatsSettings(hosts=("localhost, nats://127.0.0.1:4333", "nats://[::1]:1"))
    assert settings.hosts == ("nats://localhost:4222", "nats://127.0.0.1:4333", "nats://[::1]:1")


@pytest.mark.parametrize(
    "host", ["", "http://a", "nats://", "nats://localhost:99999", "nats://localhost/path", "nats://a b", "nats://localhost?x=1"]
)
def test_bad_hosts(host):
    with pytest.raises(ConfigError, match="nats_hosts"):
        NatsSettings(hosts=(host,))


def test_credentials_in_a_url_are_used_and_shown_nowhere():
    settings = NatsSettings(hosts=("nats://me:hid%40den@localhost", "nats://me:hid%40den@127.0.0.1"))
    assert (settings.user, settings.password) == ("me", Secret("hid@den"))
    assert "hid" not in repr(settings)
    assert NatsSettings(hosts=("nats://to-ken@localhost",)).token == Secret("to-ken")
    for bad in ("nats://me:hidden@", "nats://me:hidden@localhost/x", "nats://me:hidden@localhost:hidden2"):
        with pytest.raises(ConfigError) as caught:
            NatsSettings(hosts=(bad,))
        assert ":hidden@" not in str(caught.value)


def test_secrets_do_not_show():
    for settings in (NatsSettings(user="u", password="hidden"), NatsSettings(token="hidden"), NatsSettings(nkey_seed=SEED)):
        assert "hidden" not in repr(settings)
        assert SEED not in repr(settings)


@pytest.mark.parametrize(
    "values",
    [
        {"user": "u"},
        {"password": "p"},
        {"user": "u", "password": "p", "token": "t"},
        {"token": "t", "nkey_seed": SEED},
        {"nkey_seed": "SAAA"},
        {"hosts": ("nats://u:p@localhost",), "token": "t"},
        {"hosts": ("nats://u:p@localhost", "nats://localhost")},
        {"hosts": ("nats://localhost", "tls://localhost")},
        {"request_timeout_seconds": 0},
        {"request_timeout_seconds": float("nan")},
        {"stream_max_bytes": 2**20},
        {"replicas": 0},
        {"chunk_bytes": 100},
        {"mode": "pigeon"},
    ],
)
def test_values_that_do_not_go(values):
    with pytest.raises(ConfigError) as caught:
        NatsSettings(**values)
    assert SEED not in str(caught.value)


def test_other_hosts_need_tls():
    with pytest.raises(ConfigError, match=r"TLS for every host but this machine, got nats://broker\.example:4222"):
        NatsSettings(hosts=("nats://localhost", "nats://broker.example"))
    assert NatsSettings(hosts=("tls://broker.example",)).uses_tls
    assert not NatsSettings(hosts=("nats://broker.example",), allow_plaintext=True).uses_tls


def test_the_entries_of_a_federation():
    settings = NatsSettings.from_entries(
        {
            "nats_hosts": "nats://localhost:4222,nats://127.0.0.1:4223",
            "nats_sec_user": "me",
            "nats_sec_passwd": "hidden",
            "nats_sec_token": "",
            "nats_req_timeout": "60",
            "nats_stream_max_memory": "256M",
            "fed_name": "others are left alone",
        },
        storage="memory",
    )
    assert len(settings.hosts) == 2
    assert (settings.user, settings.password, settings.token) == ("me", Secret("hidden"), None)
    assert (settings.request_timeout_seconds, settings.stream_max_bytes, settings.storage) == (60.0, 2**28, "memory")
    for bad in ({}, {"nats_hosts": "localhost", "nats_req_timeout": "soon"}):
        with pytest.raises(ConfigError):
            NatsSettings.from_entries(bad)


def test_a_ca_file_that_is_none(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="PEM"):
        NatsSettings(ca_file=tmp_path / "ca.pem").tls_context()


def test_subjects_are_those_of_the_specification():
    subjects = Subjects("abcdefghij012345")
    assert subjects.join == "pet.v1.abcdefghij012345.join"
    assert subjects.chunk("00ff") == "pet.v1.abcdefghij012345.rx.00ff"
    assert subjects.upload_stream == "PET_abcdefghij012345_UP"
    Subjects(generate_federation_id())
    for bad in ("", "short", "ABCDEFGHIJ012345", "abcdefghij01234.", "abcdefghij01234*"):
        with pytest.raises(ConfigError):
            Subjects(bad)
    for bad in ("", "a.b", "*", ">", "a b", "x" * 65):
        with pytest.raises(ConfigError):
            subjects.open(bad)


def test_a_url_in_place_of_settings_is_refused_at_once():
    url = "nats://user:hunter2@localhost"
    for use in (
        lambda: NatsTransport(url, "0123456789abcdef"),
        lambda: asyncio.run(connect(url, "peer")),
    ):
        with pytest.raises(ConfigError, match=r"expected NatsSettings\(hosts=\.\.\.\), got str") as caught:
            use()
        assert "hunter2" not in str(caught.value)
