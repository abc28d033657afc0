"""Large messages past the library: every stream is understood as by its own parser, and without the wire all works too."""

from __future__ import annotations

import asyncio
import random
import socket
import urllib.parse
from types import SimpleNamespace

import nats.errors
import pytest
from nats.aio.client import Client
from nats.protocol.parser import Parser
from nats_broker import run, running_broker
from nats_uploads import Keeper, receiving, send, settings_for, some_bytes, until

from pet.errors import ConfigError, CounterpartOfflineError, MalformedFrameError, UnreachableError
from pet.transports.nats import connect, large_messages
from pet.transports.nats.large_messages import LargeMessageParser, Wire
from pet.transports.nats.splitter import LARGE_BYTES, FrameSplitter, LargeMessage


class Recorder:
    """What a parser has found, in order."""

    def __init__(self):
        self.found = []

    async def _process_msg(self, sid, subject, reply, data, headers):
        self.found.append((sid, subject, reply, bytes(data), headers))

    async def _process_ping(self):
        self.found.append("ping")

    async def _process_pong(self):
        self.found.append("pong")

    async def _process_err(self, text):
        self.found.append(text)

    async def _process_info(self, info):
        self.found.append(info)


def frames(seed):
    """Return frames of every kind, some with payloads that look like frames."""
    source = random.Random(seed)
    sizes = (0, 1, 17, 4000, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1, 3 * LARGE_BYTES)
    header = b"NATS/1.0\r\nPet-Upload: x\r\n\r\n"
    yield b'INFO {"server_id": "a"}\r\n'
    for number in range(60):
        size = source.choice(sizes)
        payload = (b"MSG a 1 99999\r\n" * (size // 15 + 1))[:size] if number % 2 else source.randbytes(size)
        reply = source.choice((b"", b"_INBOX.x.1 "))
        yield source.choice(
            (
                b"PING\r\n",
                b"PONG\r\n",
                b"+OK\r\n",
                b"-ERR 'Slow'\r\n",
                b"MSG a.b %d %b%d\r\n%b\r\n" % (number, reply, size, payload),
                b"MSG a.b %d %b%d\r\n%b\r\n" % (number, reply, size, payload),
                b"HMSG a.b %d %b%d %d\r\n%b%b\r\n" % (number, reply, len(header), len(header) + size, header, payload),
            )
        )


def split(data, source, most):
    """Feed a splitter in pieces of random sizes; every other large message is copied, and its buffer used again."""
    splitter, items, data = FrameSplitter(), [], memoryview(data)
    while len(data):
        room = splitter.room()
        count = min(len(room), len(data), source.randint(1, most))
        room[:count] = data[:count]
        data = data[count:]
        for item in splitter.take(count):
            if isinstance(item, LargeMessage) and source.random() < 0.5:
                copy = item._replace(payload=memoryview(bytes(item.payload)))
                splitter.recycle(item.payload)
                items.append(copy)
            else:
                items.append(item)
    return items


@pytest.mark.parametrize("most", [30, 1000, LARGE_BYTES, 2**20])
def test_streams_are_understood_as_by_the_library(most):
    async def use():
        for seed in range(1 if most == 30 else 6):
            data = b"".join(frames(seed))
            expected, got = Recorder(), Recorder()
            await Parser(expected).parse(data)
            parser, items = LargeMessageParser(got), split(data, random.Random(seed), most)
            for item in items:
                await parser.parse(item)
            assert got.found == expected.found
            large = [found for found in expected.found if isinstance(found, tuple) and len(found[3]) >= LARGE_BYTES]
            assert sum(isinstance(item, LargeMessage) for item in items) >= len(large) > 0

    run(use())


@pytest.mark.parametrize(
    "data",
    [
        b"x" * LARGE_BYTES,
        b"MSG a 1 %d\r\n" % (2**26 + 1),
        b"HMSG a 1 70001 70000\r\n",
        b"MSG a 1 70000\r\n" + bytes(70002),
    ],
)
def test_what_cannot_be_part_of_the_protocol(data):
    with pytest.raises(MalformedFrameError):
        split(data, random.Random(1), 2**20)


@pytest.mark.parametrize(
    "line", [b"MSG a 1 x70000\r\n", b"MSG a 70000\r\n", b"HMSG a 1 70000\r\n", b"\r\n", b"MSG 1 2 3 4 70000\r\n"]
)
def test_what_only_the_library_can_judge_goes_on_to_it(line):
    splitter = FrameSplitter()
    splitter.room()[: len(line)] = line
    assert splitter.take(len(line)) == [line]


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.mark.parametrize("is_known", [True, False], ids=["wire", "library alone"])
def test_large_uploads_with_and_without_a_wire(broker, monkeypatch, is_known):
    if not is_known:
        monkeypatch.setattr(large_messages, "_is_known", lambda client: False)

    async def use():
        keeper, body = Keeper(), some_bytes(5 * 2**20 + 17)
        settings = settings_for(broker, chunk_bytes=2**20)
        async with receiving(broker, keeper, settings=settings) as subjects, await connect(settings, "peer") as connection:
            assert isinstance(connection._require_session().client._transport, Wire) == is_known
            assert (await send(connection, subjects, body)).is_accepted
        assert keeper.bodies == [body]

    run(use())


@pytest.mark.parametrize("is_known", [True, False], ids=["wire", "library alone"])
def test_messages_that_are_taken_at_once(broker, monkeypatch, is_known):
    """Small and large ones, with and without headers; one that cannot be taken costs nobody else anything."""
    if not is_known:
        monkeypatch.setattr(large_messages, "_is_known", lambda client: False)

    async def use():
        taken = []

        def take(message):
            if message.data == b"bad":
                raise ValueError(message.data)
            taken.append((bytes(message.data), message.headers))
            server.recycle(memoryview(message.data))
            server.answer(message)

        settings = settings_for(broker, chunk_bytes=2**20)
        async with await connect(settings, "server") as server, await connect(settings, "peer") as peer:
            subscription = await server.take("takers", take)
            sent = [(some_bytes(size, seed=size), None) for size in (0, 5, LARGE_BYTES, LARGE_BYTES + 1, 700_000)]
            for data, _ in sent:
                assert await peer.request("takers", data) == b""
                with pytest.raises(UnreachableError):
                    await peer.request("takers", b"bad", timeout_seconds=0.05)
            for size in (5, 700_000):
                sent.append((some_bytes(size), {"key": "value"}))
                assert await peer.request("takers", sent[-1][0], headers=sent[-1][1]) == b""
            assert taken == sent
            await peer.publish("takers", b"no answer wanted")
            await until(lambda: taken[-1] == (b"no answer wanted", None))
            await server.unsubscribe(subscription)
            with pytest.raises(CounterpartOfflineError):
                await peer.request("takers", b"abc")

    run(use())


def test_a_library_that_is_built_differently_keeps_its_own():
    class OtherParser(Parser):
        pass

    class OtherClient(Client):
        async def _process_msg(self, message):
            raise AssertionError

    async def use():
        client = Client()
        assert isinstance(Wire.into(client), Wire)
        assert Wire.into(client) is None, "another one is there already"
        client = Client()
        client._ps = OtherParser(client)
        assert Wire.into(client) is None
        assert client._transport is None
        assert Wire.into(OtherClient()) is None

    run(use())


async def speaking(data, uses):
    """Connect a wire to a server that sends `data`, and use it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        carrier = Wire()
        await carrier.connect(urllib.parse.urlparse(f"nats://127.0.0.1:{server.getsockname()[1]}"), 0, 5)
        other, _ = server.accept()
        other.setblocking(False)
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(other, data))
        try:
            await uses(carrier)
        finally:
            carrier.close()
            await carrier.wait_closed()
            await asyncio.gather(sending, return_exceptions=True)
            other.close()


@pytest.mark.parametrize("is_sent_at_once", [True, False])
def test_messages_arrive_whole_where_there_is_room_for_a_part_of_them(is_sent_at_once):
    messages = [(b"head", some_bytes(size)) for size in (2**20, 2**16, 3 * 2**20 + 1, 70_000, 2**21)]
    expected = b"".join(b"PUB a b %d\r\nhead%b\r\n" % (4 + len(data), data) for _, data in messages)

    async def use():
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            carrier, loop = Wire(), asyncio.get_running_loop()
            await carrier.connect(urllib.parse.urlparse(f"nats://127.0.0.1:{server.getsockname()[1]}"), 0, 5)
            link = carrier._present
            link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**17)
            if not is_sent_at_once:
                link.socket = None
            other, _ = server.accept()
            other.setblocking(False)
            client = SimpleNamespace(is_connected=True)
            sending = [asyncio.create_task(carrier.send_message(client, "a", "b", message)) for message in messages]
            await until(lambda: link.transport.get_write_buffer_size() > 0)
            received = bytearray()
            while len(received) < len(expected):
                received += await loop.sock_recv(other, 2**20)
            assert received == expected
            await asyncio.gather(*sending)
            other.close()
            await until(lambda: link.is_over)
            with pytest.raises(ConnectionResetError):
                await carrier.send_message(client, "a", "b", messages[0])
            await carrier.wait_closed()

    run(use())


def test_nonsense_ends_the_connection():
    async def use(carrier):
        with pytest.raises(nats.errors.ProtocolError, match="protocol error"):
            await carrier.read(0)
        assert carrier.at_eof()
        with pytest.raises(ConnectionResetError):
            await carrier.drain()

    run(speaking(b"MSG a 1 %d\r\n" % (2**26 + 1), use))


def test_what_nobody_reads_is_not_received_for_ever():
    message = b"MSG a 1 1048576\r\n" + bytes(2**20) + b"\r\n"

    async def use(carrier):
        link = carrier._present
        await until(lambda: link._waiting_bytes > 2**23)
        await asyncio.sleep(0.1)
        assert link._waiting_bytes <= 2**23 + 2**20
        for _ in range(24):
            assert len((await carrier.read(0)).payload) == 2**20

    run(speaking(message * 24, use))


def test_a_message_in_the_place_of_a_line():
    async def use(carrier):
        with pytest.raises(nats.errors.ProtocolError, match="protocol error"):
            await carrier.readline()

    run(speaking(b"MSG a 1 70000\r\n" + bytes(70000) + b"\r\n", use))


def test_a_subject_that_is_more_than_one_word(broker):
    async def use():
        async with await connect(settings_for(broker), "peer") as connection:
            with pytest.raises(ConfigError, match="subject: expected"):
                await connection.request("a b", bytes(2**17))
            with pytest.raises(nats.errors.BadSubjectError):
                await connection._session.publish("a b", (bytes(2**17),), "", None)

    run(use())
