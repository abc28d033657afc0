"""A real nats-server on a loopback port, for tests: started, killed, restarted on the same port and storage."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import threading
import time

from programs import free_port, require_program

FEDERATION = "abcdefghij012345"


class Broker:
    """One nats-server; `config` is put in front of what the test needs (address, storage)."""

    def __init__(self, folder, config="", *, jetstream=True):
        self._server = require_program("nats-server")
        self.folder, self.port = folder, free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        storage = f'jetstream {{ store_dir: "{folder}/jetstream" }}\n' if jetstream and "jetstream" not in config else ""
        self.config = folder / "nats-server.conf"
        self.config.write_text(f"{config}\n{storage}")
        self.log = folder / "nats-server.log"
        self.process = None
        self.start()

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self._server, "-c", str(self.config), "-a", "127.0.0.1", "-p", str(self.port)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"nats-server does not listen: {self.log.read_text()}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()


@contextlib.contextmanager
def running_broker(folder, config="", *, jetstream=True):
    folder.mkdir(parents=True, exist_ok=True)
    broker = Broker(folder, config, jetstream=jetstream)
    try:
        yield broker
    finally:
        broker.stop()


async def broadcast_subjects(broker, federation_id=FEDERATION):
    """Return the subjects of what is in the broadcast stream of a federation."""
    from pet.transports.nats import NatsSettings, Subjects, connect
    from pet.transports.nats.storage import ask_storage

    async with await connect(NatsSettings(hosts=(broker.url,)), "looker") as connection:
        call = f"STREAM.INFO.{Subjects(federation_id).broadcast_stream}"
        found = await ask_storage(connection, call, {"subjects_filter": ">"})
        return list(found["state"]["subjects"])


def run(work, timeout_seconds=60):
    """Run a coroutine in a loop of its own, and leave no task behind; returns what it returns."""
    results = []

    async def bounded():
        async with asyncio.timeout(timeout_seconds):
            # Not as the result of the task: asyncio.run makes the text of that, and of megabytes it takes a third of a second.
            results.append(await work)

    asyncio.run(bounded())
    return results[0]


@contextlib.contextmanager
def serving_nats(service, settings, federation_id=FEDERATION, **options):
    """Serve a coordinator over NATS in a thread with a loop of its own."""
    from pet.transports.nats import NatsServer, Subjects, connect  # not needed by all who start a broker

    started, stop, failure = threading.Event(), None, []

    async def serve():
        nonlocal stop
        stop = asyncio.Event()
        async with (
            service,
            await connect(settings, "coordinator") as connection,
            NatsServer(service, connection, Subjects(federation_id), **options),
        ):
            started.set()
            await stop.wait()

    def run():
        nonlocal loop
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            try:
                runner.run(serve())
            except Exception as error:
                failure.append(error)
                started.set()

    loop = None
    thread = threading.Thread(target=run)
    thread.start()
    started.wait(60)
    try:
        assert not failure, failure
        yield
    finally:
        if stop is not None and thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        assert not thread.is_alive()
        assert not failure, failure
