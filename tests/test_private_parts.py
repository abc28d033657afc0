"""Private parts of libraries that pet uses: each is named here, and found missing here first, not in an accept or a decryption.

pyproject.toml has an upper bound for each of these libraries; to raise one, run this file and the tests with the next version.
"""

import ast
import asyncio
import inspect
import re
import ssl
import tomllib
from pathlib import Path

import pytest
from sources import trees

ROOT = Path(__file__).parents[1]

#: What guarded_http.py, body_protocol.py and short_requests.py override, calls, and reads on a connection of uvicorn.
UVICORN_METHODS = {
    "_unset_keepalive_if_required": ["self"],
    "connection_made": ["self", "transport"],
    "connection_lost": ["self", "exc"],
    "data_received": ["self", "data"],
    "on_message_begin": ["self"],
    "on_header": ["self", "name", "value"],
    "on_headers_complete": ["self"],
    "on_body": ["self", "body"],
    "on_message_complete": ["self"],
    "on_response_complete": ["self"],
    "pause_writing": ["self"],
    "resume_writing": ["self"],
    "send_400_response": ["self", "msg"],
}
UVICORN_VALUES = ["client", "connections", "cycle", "flow", "headers", "loop", "parser", "transport"]
UVICORN_VALUES += ["access_log", "expect_100_continue", "server_state", "timeout_keep_alive"]
#: Of a request that is answered, and of what pauses a connection.
UVICORN_CYCLE = [
    "body",
    "disconnected",
    "keep_alive",
    "message_event",
    "more_body",
    "response_complete",
    "waiting_for_100_continue",
]
UVICORN_FLOW = ["pause_reading", "resume_reading"]
#: What session.py and wire.py override, call, and replace in a client of nats-py.
NATS_METHODS = {
    "_process_msg": ["self", "sid", "subject", "reply", "data", "headers"],
    "_connect_command": ["self"],
    "_send_ping": ["self", "future"],
    "_flush_pending": ["self", "force_flush"],
}
NATS_VALUES = ["_ps", "_server_info", "_transport"]
#: What crypto.py calls in place: the public functions of PyNaCl copy the whole message.
SODIUM_FUNCTIONS = ["crypto_box_seal", "crypto_box_seal_open", "crypto_scalarmult", "crypto_sign", "crypto_sign_open"]

#: What http.py and http_connections.py replace in a transport of httpx, and take from httpcore.
HTTP_NAMES = ["_backends", "_network_backend", "_pool"]

#: What guarded_tls.py sets on a connection of asyncio when its handshake begins.
ASYNCIO_TLS_NAMES = ["_ssl_buffer", "_ssl_buffer_view"]

PRIVATE_NAMES = {*ASYNCIO_TLS_NAMES, "_id", "_sodium", *UVICORN_METHODS, *NATS_METHODS, *NATS_VALUES, *HTTP_NAMES}
BOUNDED = ["httpcore", "httpx", "nats-py", "PyNaCl", "uvicorn"]


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_uvicorn():
    pytest.importorskip("uvicorn", reason="without uvicorn (extra http)")
    import uvicorn
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
    from uvicorn.server import ServerState

    assert STATUS_LINE[503] == b"HTTP/1.1 503 Service Unavailable\r\n"
    for name, expected in UVICORN_METHODS.items():
        method = getattr(HttpToolsProtocol, name, None)
        assert method is not None, f"uvicorn {uvicorn.__version__}: HttpToolsProtocol has no {name}"
        assert parameters(method) == expected, f"uvicorn {uvicorn.__version__}: {name}"

    async def connection():
        config = uvicorn.Config(lambda: None, log_config=None)
        config.load()
        return HttpToolsProtocol(config=config, server_state=ServerState(), app_state={})

    made = asyncio.run(connection())
    for name in UVICORN_VALUES:
        assert hasattr(made, name), f"uvicorn {uvicorn.__version__}: a connection has no {name}"
    assigned = set(re.findall(r"self\.(\w+)\b.* = ", inspect.getsource(RequestResponseCycle.__init__)))
    assert assigned >= set(UVICORN_CYCLE), f"uvicorn {uvicorn.__version__}: of a request"
    for name in UVICORN_FLOW:
        assert parameters(getattr(FlowControl, name)) == ["self"], f"uvicorn {uvicorn.__version__}: {name}"


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:1", "https://127.0.0.1:1"])
def test_httpx(proxy):
    httpx = pytest.importorskip("httpx", reason="without httpx (extra http)")
    from httpcore._backends.sync import SyncStream

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for kind in (httpx.HTTPTransport, httpx.AsyncHTTPTransport):
        pool = kind(verify=context, trust_env=False, proxy=proxy)._pool
        assert hasattr(pool, "_network_backend"), f"httpx {httpx.__version__}: a pool has no _network_backend"
    assert parameters(SyncStream)[:1] == ["sock"]
    assert parameters(SyncStream.start_tls) == ["self", "ssl_context", "server_hostname", "timeout"]


def test_tls_of_asyncio():
    """Receives into a buffer of the connection, and copies at once what came."""
    from asyncio.base_events import BaseEventLoop
    from asyncio.sslproto import SSLProtocol, _SSLProtocolTransport

    assert SSLProtocol.max_size >= 1 << 16
    source = inspect.getsource(SSLProtocol)
    for name in (
        "self._ssl_buffer = bytearray",
        "self._ssl_buffer_view = memoryview",
        "self._incoming.write(self._ssl_buffer_view",
    ):
        assert name in source
    # What is to be fed is scheduled before, and fed after this.
    assert "call_soon(ssl_protocol.connection_made" in inspect.getsource(BaseEventLoop.start_tls)
    assert parameters(_SSLProtocolTransport.set_read_buffer_limits) == ["self", "high", "low"]


def test_nats():
    pytest.importorskip("nats", reason="without nats-py (extra nats)")
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.aio.transport import Transport
    from nats.protocol.parser import Parser

    from pet.transports.nats.large_messages import Wire

    for name, expected in NATS_METHODS.items():
        method = getattr(Client, name, None)
        assert method is not None, f"nats-py: Client has no {name}"
        assert parameters(method) == expected, f"nats-py: {name}"
    assert inspect.iscoroutinefunction(Client._process_msg)

    async def client():
        return Client()

    made = asyncio.run(client())
    for name in NATS_VALUES:
        assert hasattr(made, name), f"nats-py: a client has no {name}"
    assert "_id" in vars(Subscription(made, 7)), "nats-py: a subscription has no _id"
    assert parameters(Msg)[:4] == ["_client", "subject", "reply", "data"]
    assert vars(Wire).keys() >= Transport.__abstractmethods__
    assert inspect.iscoroutinefunction(Parser.parse)
    assert asyncio.run(use_wire()) is not None, "nats-py: a wire finds another library than it was made for"


async def use_wire():
    from nats.aio.client import Client

    from pet.transports.nats.large_messages import Wire

    return Wire.into(Client())


def test_sodium():
    from nacl._sodium import ffi, lib

    for name in SODIUM_FUNCTIONS:
        assert callable(getattr(lib, name, None)), f"PyNaCl: libsodium without {name}"
    assert ffi.from_buffer("unsigned char[]", bytearray(3), require_writable=True) is not None


def names_of(tree):
    """Return the private names that a file uses on something else, and those that it defines."""
    used, defined = set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                defined.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                defined.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                defined.add(name)
            case ast.Attribute(attr=name):
                used.add(name)
            case ast.ImportFrom(module=module, names=aliases) if module and not module.startswith("pet"):
                used |= {alias.name for alias in aliases} | set(module.split("."))
    return {name for name in used if name.startswith("_") and not name.startswith("__")}, defined


def test_every_private_part_in_use_is_named_here():
    files = [names_of(tree) for tree in trees().values()]
    used, defined = (set().union(*sets) for sets in zip(*files, strict=True))
    own = {path.stem for path in (ROOT / "pet").rglob("*.py")} | {"_replace"}  # named tuples' is public
    assert used - defined - own - PRIVATE_NAMES == set()
    called = set(re.findall(r"\blib\.(crypto_\w+)", (ROOT / "pet" / "crypto.py").read_text(encoding="utf-8")))
    assert called == set(SODIUM_FUNCTIONS)


@pytest.mark.parametrize("package", BOUNDED)
def test_their_versions_have_both_bounds(package):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    asked = [line for line in lines if re.match(rf"{package}\b", line)]
    assert asked
    for line in asked:
        assert re.search(r">=[0-9.]+,<[0-9.]+$", line), f"expected {package}>=...,<..., got {line}"
