"""The connection against a real nats-server: each trouble is its own error in time, and it outlives the broker's restarts."""

import asyncio
import time

import nkeys
import pytest
from nats_broker import run, running_broker
from vector_files import VECTORS

from pet.errors import (
    ConfigError,
    CounterpartOfflineError,
    CredentialsError,
    ForbiddenSubjectError,
    MissingError,
    TransportConfigError,
    UnreachableError,
)
from pet.transports.nats import NatsConnection, NatsSettings, connect
from pet.transports.nats.storage import ask_storage, store_message

TIMEOUT = 3.0
TLS = VECTORS / "tls"


def settings(broker, **others):
    return NatsSettings(hosts=(broker.url,), request_timeout_seconds=TIMEOUT, **others)


def make_seed(fill):
    return nkeys.encode_seed(bytes([fill]) * 32, nkeys.PREFIX_BYTE_USER).decode()


def public_key(seed):
    return nkeys.from_seed(bytearray(seed.encode())).public_key.decode()


GOOD, BAD = make_seed(1), make_seed(2)
MODES = {
    "password": (
        'authorization { user: "me", password: "right-secret" }',
        {"user": "me", "password": "right-secret"},
        {"user": "me", "password": "wrong-secret"},
    ),
    "token": ('authorization { token: "right-secret" }', {"token": "right-secret"}, {"token": "wrong-secret"}),
    "nkey": (f"authorization {{ users: [ {{ nkey: {public_key(GOOD)} }} ] }}", {"nkey_seed": GOOD}, {"nkey_seed": BAD}),
}


@pytest.mark.parametrize("mode", MODES)
def test_credentials(tmp_path, mode):
    config, right, wrong = MODES[mode]

    async def use(broker):
        async with await connect(settings(broker, **right), "me") as connection:
            with pytest.raises(CounterpartOfflineError):
                await connection.request("nobody.there")
        for bad in (wrong, {}):
            started = time.monotonic()
            with pytest.raises(CredentialsError) as caught:
                await connect(settings(broker, **bad), "me")
            assert time.monotonic() - started < TIMEOUT
            assert "secret" not in str(caught.value)
            assert BAD not in str(caught.value)

    with running_broker(tmp_path, config, jetstream=False) as broker:
        run(use(broker))


def test_an_absent_broker_is_told_within_the_timeout():
    async def use():
        started = time.monotonic()
        with pytest.raises(UnreachableError, match=r"within 0\.7 s"):
            await connect(NatsSettings(hosts=("nats://127.0.0.1:1",), request_timeout_seconds=0.7), "me")
        assert time.monotonic() - started < 2

    run(use())


def test_a_second_host_stands_in_for_an_absent_one(tmp_path):
    async def use(broker):
        two = NatsSettings(hosts=("nats://127.0.0.1:1", broker.url), request_timeout_seconds=TIMEOUT)
        async with await connect(two, "me") as connection:
            assert connection.server_version

    with running_broker(tmp_path, jetstream=False) as broker:
        run(use(broker))


def test_requests_are_answered(tmp_path):
    async def use(broker):
        async def reverse(subject, payload):
            assert subject == "echo.one"
            return payload[::-1]

        async def fail(subject, payload):
            raise ValueError("a handler that fails leaves the others alone")

        async with await connect(settings(broker), "server") as server, await connect(settings(broker), "peer") as peer:
            subscription = await server.serve("echo.*", reverse)
            await server.serve("broken", fail)
            assert await peer.request("echo.one", b"abc") == b"cba"
            with pytest.raises(UnreachableError, match="an answer within"):
                await peer.request("broken", timeout_seconds=0.2)
            assert await asyncio.gather(*(peer.request("echo.one", b"%d" % i) for i in range(10, 40))) == [
                (b"%d" % i)[::-1] for i in range(10, 40)
            ]
            await server.unsubscribe(subscription)
            with pytest.raises(CounterpartOfflineError):
                await peer.request("echo.one", b"abc")
        with pytest.raises(UnreachableError, match="closed"):
            await peer.request("echo.one")

    with running_broker(tmp_path, jetstream=False) as broker:
        run(use(broker))


def test_what_the_broker_forbids(tmp_path):
    config = """
    authorization { users: [ { user: "me", password: "p",
      permissions: { publish: ["allowed.>"], subscribe: ["_INBOX_me.>", "allowed.>"] } } ] }
    """

    async def use(broker):
        async with await connect(settings(broker, user="me", password="p"), "me") as connection:
            started = time.monotonic()
            with pytest.raises(ForbiddenSubjectError, match=r"other\.Place"):
                await connection.request("other.Place", b"")
            with pytest.raises(ForbiddenSubjectError, match=r"other\.place"):
                await connection.subscribe("other.place", None)
            with pytest.raises(ForbiddenSubjectError):
                await ask_storage(connection, "INFO")
            assert time.monotonic() - started < TIMEOUT
            with pytest.raises(CounterpartOfflineError):
                await connection.request("allowed.place")

    with running_broker(tmp_path, config) as broker:
        run(use(broker))


def test_a_lost_connection_fails_what_waits_and_comes_back(tmp_path):
    async def use(broker):
        restored = asyncio.Event()

        async def note():
            restored.set()

        async def answer(subject, payload):
            if payload == b"slow":
                await asyncio.sleep(60)
            return b"here"

        async with await connect(settings(broker), "server") as server, await connect(settings(broker), "peer") as peer:
            await server.serve("place", answer)
            peer.on_restored(note)
            waiting = asyncio.create_task(peer.request("place", b"slow"))
            await asyncio.sleep(0.1)
            broker.kill()
            with pytest.raises(UnreachableError):
                await waiting
            with pytest.raises(UnreachableError, match=r"within 0\.3 s"):
                await peer.request("place", b"quick", timeout_seconds=0.3)
            await asyncio.to_thread(broker.start)
            await asyncio.wait_for(restored.wait(), 30)
            while server.losses == 0 or not server.is_connected:
                await asyncio.sleep(0.02)
            assert await peer.request("place", b"quick") == b"here"
            assert peer.losses == 1

    with running_broker(tmp_path, jetstream=False) as broker:
        run(use(broker))


def test_a_session_that_the_broker_ends_for_good_is_opened_again(tmp_path):
    """The library never reconnects after errors of the protocol; here the broker gets a nonsense command."""

    async def use(broker):
        async def answer(subject, payload):
            return b"here"

        async with await connect(settings(broker), "peer") as peer:
            await peer.serve("place", answer)
            peer._session.client._transport.write(b"NONSENSE\r\n")
            while peer.losses == 0:
                await asyncio.sleep(0.01)
            assert await peer.request("place") == b"here"

    with running_broker(tmp_path, jetstream=False) as broker:
        run(use(broker))


def test_credentials_that_are_withdrawn_end_it(tmp_path):
    config, right, _ = MODES["password"]

    async def use(broker):
        async with await connect(settings(broker, **right), "me") as connection:
            broker.kill()
            broker.config.write_text(config.replace("right", "other"))
            await asyncio.to_thread(broker.start)
            while connection.is_connected or connection.losses < 2:
                await asyncio.sleep(0.05)
            with pytest.raises(CredentialsError):
                await connection.request("place")

    with running_broker(tmp_path, config, jetstream=False) as broker:
        run(use(broker))


def test_credentials_that_are_withdrawn_for_a_while_delay_who_keeps_trying(tmp_path):
    """Requests fail at once with the refusal, and go on when the broker accepts us again; nothing is opened twice."""
    config, right, _ = MODES["password"]
    restored = []

    async def note():
        restored.append(connection.is_connected)

    async def use(broker):
        nonlocal connection
        connection = NatsConnection(settings(broker, **right), "me", keeps_trying=True)
        connection.on_restored(note)
        connection.open_in_background()
        connection.open_in_background()
        async with connection:
            await wait_until(lambda: restored)
            await connection.serve("echo", echo)
            for number, text in enumerate((config.replace("right", "other"), config)):
                broker.kill()
                broker.config.write_text(text)
                await asyncio.to_thread(broker.start)
                await wait_until(lambda: isinstance(connection.trouble, CredentialsError) or connection.is_connected)
                if number == 0:
                    await wait_until(lambda: isinstance(connection.trouble, CredentialsError))
                    with pytest.raises(CredentialsError):
                        await connection.request("echo")
            await wait_until(lambda: connection.is_connected)
            assert connection.trouble is None
            assert await connection.request("echo", b"again") == b"again"
        assert restored == [True, True]

    async def echo(_, data):
        return data

    connection = None
    with running_broker(tmp_path, config, jetstream=False) as broker:
        run(use(broker))


async def wait_until(condition):
    async with asyncio.timeout(50):
        while not condition():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB b 0\r\n", "a\tb", "\udcff"])
def test_subjects_that_would_be_more_than_a_subject(tmp_path, subject):
    async def use(broker):
        async with await connect(settings(broker), "peer") as connection:
            for payload in (b"", bytes(2**17)):  # large ones take a way of their own
                with pytest.raises(ConfigError, match="subject: expected words without white space"):
                    await connection.request(subject, payload)
                with pytest.raises(ConfigError, match="subject: expected"):
                    await connection.publish(subject, payload)
            with pytest.raises(ConfigError, match="subject: expected"):
                await connection.serve(subject, None)
            assert connection.is_connected

    with running_broker(tmp_path, jetstream=False) as broker:
        run(use(broker))


def test_the_largest_message(tmp_path):
    async def use(broker):
        async def size(subject, payload):
            return b"%d" % len(payload)

        async with await connect(settings(broker), "server") as server:
            await server.serve("place", size)
            assert server.max_chunk_bytes == 2**20 - 4096
            assert await server.request("place", bytes(server.max_chunk_bytes)) == b"%d" % server.max_chunk_bytes
            with pytest.raises(TransportConfigError, match="1048576 bytes, which is the broker's max_payload"):
                await server.request("place", bytes(2**20), headers={"Nats-Msg-Id": "a"})
            assert server.losses == 0

    with running_broker(tmp_path, jetstream=False) as broker:
        run(use(broker))


def test_a_broker_without_storage(tmp_path):
    async def use(broker):
        async with await connect(settings(broker), "me") as connection:
            with pytest.raises(TransportConfigError, match="JetStream"):
                await ask_storage(connection, "INFO")
            with pytest.raises(MissingError):
                await store_message(connection, "nowhere", b"")

    with running_broker(tmp_path, jetstream=False) as broker:
        run(use(broker))


def test_tls(tmp_path):
    authority, server = TLS / "authority.pem", TLS / "server.pem"

    async def mirror(subject, payload):
        return payload

    async def use(broker):
        async with await connect(settings(broker, ca_file=authority), "me") as connection:
            with pytest.raises(CounterpartOfflineError):
                await connection.request("nobody.there")
            await connection.serve("mirror", mirror)
            large = bytes(range(256)) * 2**11
            assert await connection.request("mirror", b"head", memoryview(large)) == b"head" + large
        with pytest.raises(TransportConfigError, match="TLS"):
            await connect(NatsSettings(hosts=(broker.url.replace("nats:", "tls:"),), request_timeout_seconds=TIMEOUT), "me")

    config = f'tls {{ cert_file: "{server}", key_file: "{server}" }}'
    with running_broker(tmp_path / "encrypted", config, jetstream=False) as broker:
        run(use(broker))


def test_nothing_is_said_to_a_broker_that_offers_no_tls(tmp_path):
    async def use(broker):
        with pytest.raises(TransportConfigError, match="no TLS"):
            await connect(settings(broker, ca_file=TLS / "authority.pem", user="me", password="p"), "me")

    with running_broker(tmp_path / "plain", "debug: true, trace: true", jetstream=False) as broker:
        run(use(broker))
        assert "CONNECT" not in broker.log.read_text()
