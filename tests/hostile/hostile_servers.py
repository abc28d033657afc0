"""The servers that are attacked: commands of ours, each in a process of its own, with bounds that are soon reached."""

from __future__ import annotations

import contextlib
import re
import resource
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from federation_rest_server import KEY, OTHER_KEY
from nats_broker import Broker, running_broker

from pet.files import write_private

TLS_FILES: Final = Path(__file__).parents[1] / "vectors" / "tls"
#: What a server may take beyond what it has when it is idle: private memory that can be written, with stacks of new threads.
LIMIT_BYTES: Final = 400 << 20
#: The largest body of rows that a federation server takes here.
FEDERATION_BODY_BYTES: Final = 4 << 20
#: The attacker at a broker; honest participants have numbers from 1 on.
MEMBER: Final = "participant0"
FEDERATION_ID: Final = "pet0coordinator0"

#: The coordinator's settings, but for the number of updates, the length of the model, and what comes behind.
_SETTINGS: Final = """
[api]
bind_address = "127.0.0.1:0"
{tls}
[pet.sum]
prob = 0.5
count = {{ min = 2, max = 2 }}
time = {{ min = 0, max = 3600 }}
[pet.update]
prob = 1.0
count = {{ min = {updates}, max = {updates} }}
time = {{ min = 0, max = 3600 }}
[pet.sum2]
count = {{ min = 2, max = 2 }}
time = {{ min = 0, max = 3600 }}
[mask]
model_type = "M6"
[model]
length = {length}
[service]
max_connections = 300
max_connections_per_second = 30
header_seconds = {header_seconds}
stall_seconds = {stall_seconds}
max_bytes_in_flight = 8388608
max_spool_bytes = 16000000
max_requests_per_second = 50
{nats}
"""
#: Those of a coordinator of pet/1.
_PET1_SETTINGS: Final = """
[api]
bind_address = "127.0.0.1:0"
[pet.profile]
name = "pet/1"
enrolment = "enrolment"
data_type = "int"
max_updates = 15
[pet.sum.time]
min = 0
[pet.update]
count = {{ min = {updates}, max = {updates} }}
time = {{ min = 0, max = 3600 }}
[pet.check.time]
min = 0
[pet.sum2.time]
min = 0
[model]
length = {length}
[service]
max_connections = 300
max_connections_per_second = 30
header_seconds = {header_seconds}
stall_seconds = {stall_seconds}
max_bytes_in_flight = 8388608
max_spool_bytes = 16000000
max_requests_per_second = 50
"""
_TLS: Final = f"""
tls_certificate = "{TLS_FILES / "server.pem"}"
tls_key = "{TLS_FILES / "server.pem"}"
"""
_COORDINATOR: Final = """
      {{ user: coordinator, password: coordinator
        permissions: {{
          publish: ["pet.v1.{id}.>", "$JS.API.>", "$JS.ACK.>"]
          subscribe: ["pet.v1.{id}.>", "_INBOX_coordinator.>"]
          allow_responses: {{ max: 1, expires: "10m" }} }} }}
"""
#: The rights that docs/nats.md gives to a participant.
_PARTICIPANT: Final = """
      {{ user: {name}, password: {name}
        permissions: {{
          publish: ["pet.v1.{id}.open.{name}", "pet.v1.{id}.ask.{name}", "pet.v1.{id}.up.{name}.>", "pet.v1.{id}.rx.>",
            "pet.v1.{id}.done.>", "$JS.API.STREAM.MSG.GET.PET_{id}_EV", "$JS.API.DIRECT.GET.PET_{id}_BC.>"]
          subscribe: ["pet.v1.{id}.evt.>", "pet.v1.{id}.model.>", "_INBOX_{name}.>"] }} }}
"""


_MAIN: Final = "from pet.cli import main; main()"
#: What the bounds of a federation server are here, which are no options.
_FEDERATION_BOUNDS: Final = f"""
import functools
from pet.commands import federation_serve
from pet.federation.server import request_bodies
federation_serve._MAX_CONNECTIONS = 300
federation_serve._HEADER_SECONDS = {{header_seconds}}
federation_serve._MAX_REQUESTS_PER_SECOND = 50.0
federation_serve.RestOptions = functools.partial(federation_serve.RestOptions, max_data_bytes={FEDERATION_BODY_BYTES})
request_bodies._BODY_SECONDS = {{stall_seconds}}
"""


class Server:
    """A process that serves HTTP.

    Attributes:
        address: where.
        context: how TLS is spoken to it; None for HTTP in clear.
        process: it.
        broker: through which it is served, too.
    """

    def __init__(
        self,
        command: list[str],
        folder: Path,
        *,
        broker: Broker | None = None,
        context: ssl.SSLContext | None = None,
        bounds: str = "",
    ) -> None:
        self.log, self.context, self.broker = folder / "log", context, broker
        whole = [sys.executable, "-c", f"{bounds}\n{_MAIN}", *command]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(whole, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"Listening on https?://([\d.]+):(\d+)", line):
                self.address = found[1], int(found[2])
                return
        raise AssertionError(self.log.read_text(encoding="utf-8"))

    def megabytes(self, kind: str = "VmRSS") -> float:
        """Return the memory that the process has now."""
        found = re.search(rf"{kind}:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8"))
        assert found is not None
        return int(found[1]) / 1000

    def limit_memory(self) -> None:
        """Let it have `LIMIT_BYTES` more than now, when it is idle."""
        most = int(self.megabytes("VmData") * 1000 * 1024) + LIMIT_BYTES
        resource.prlimit(self.process.pid, resource.RLIMIT_DATA, (most, most))

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.communicate(timeout=60)


@contextlib.contextmanager
def coordinator(
    *,
    updates: int,
    length: int,
    has_tls: bool = False,
    has_broker: bool = False,
    header_seconds: float = 2,
    stall_seconds: float = 3,
) -> Iterator[Server]:
    """Run `pet coordinator`, over HTTP or HTTPS, and over NATS too, with a user for each participant."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(running_broker(folder / "broker", _users(updates, folder))) if has_broker else None
        nats = "" if broker is None else f'[nats]\nhosts = "{broker.url}"\nuser = "coordinator"\npassword = "coordinator"'
        text = _SETTINGS.format(
            updates=updates,
            length=length,
            tls=_TLS if has_tls else "",
            nats=nats,
            header_seconds=header_seconds,
            stall_seconds=stall_seconds,
        )
        (folder / "hostile.toml").write_text(text, encoding="utf-8")
        context = ssl.create_default_context(cafile=str(TLS_FILES / "authority.pem")) if has_tls else None
        server = Server(["coordinator", "-c", "hostile.toml"], folder, broker=broker, context=context)
        stack.callback(server.stop)
        yield server


@contextlib.contextmanager
def pet1_coordinator(
    enrolment: bytes, *, updates: int, length: int, header_seconds: float = 2, stall_seconds: float = 3
) -> Iterator[Server]:
    """Run `pet coordinator` for rounds of pet/1, over HTTP."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        text = _PET1_SETTINGS.format(updates=updates, length=length, header_seconds=header_seconds, stall_seconds=stall_seconds)
        (folder / "hostile.toml").write_text(text, encoding="utf-8")
        (folder / "enrolment").write_bytes(enrolment)
        server = Server(["coordinator", "-c", "hostile.toml"], folder)
        stack.callback(server.stop)
        yield server


@contextlib.contextmanager
def federation_server(*, header_seconds: float = 2, stall_seconds: float = 3) -> Iterator[Server]:
    """Run `pet federation serve` with two users, c1 and c2, and a broker for their projects."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(running_broker(folder / "broker"))
        write_private(folder / "users.json", f'{{"users": {{"c1": "{KEY}", "c2": "{OTHER_KEY}"}}}}')
        bounds = _FEDERATION_BOUNDS.format(header_seconds=header_seconds, stall_seconds=stall_seconds)
        server = Server(["federation", "serve", "--bind", "127.0.0.1:0"], folder, broker=broker, bounds=bounds)
        stack.callback(server.stop)
        yield server


def _users(participants: int, folder: Path) -> str:
    names = [MEMBER, *(f"participant{number + 1}" for number in range(participants))]
    users = _COORDINATOR + "".join(_PARTICIPANT.replace("{name}", name) for name in names)
    return f"""
jetstream {{ store_dir: "{folder}/jetstream" }}
accounts {{ FEDERATION: {{ jetstream: enabled
    users: [{users.format(id=FEDERATION_ID)}] }} }}
"""
