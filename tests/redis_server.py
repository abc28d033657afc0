"""A real redis-server on a loopback port, for tests: started, killed, restarted on the same port with its data.

Without a server on the PATH the tests skip and say so; in CI (CI=true) they fail instead.
"""

import contextlib
import socket
import subprocess
import time

from programs import free_port, require_program


class RedisServer:
    """One redis-server that keeps its data in a folder, if it is to be durable."""

    def __init__(self, folder, *, is_durable=True, options=()):
        self._server = require_program("redis-server")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder, self._options = folder, list(options)
        if is_durable:
            self._options += ["--appendonly", "yes", "--appendfsync", "always"]
        self.process = None
        self.start()

    def start(self):
        command = [self._server, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""]
        self.process = subprocess.Popen([*command, *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(100).startswith((b"+PONG", b"-NOAUTH")):
                    return
            assert self.process.poll() is None, "redis-server ended"
            time.sleep(0.02)
        raise AssertionError("redis-server does not answer")

    def kill(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def redis_server(folder, **arguments):
    server = RedisServer(folder, **arguments)
    try:
        yield server
    finally:
        server.kill()
