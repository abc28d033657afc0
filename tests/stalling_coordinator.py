"""A coordinator over HTTP or HTTPS that gives everybody an update task, reads the beginning of a message, and stalls."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from participant_driver import round_parameters

from pet.crypto import EncryptionKeyPair
from pet.messages import encode_sum_dictionary
from pet.participant import Participant

TLS = Path(__file__).parent / "vectors" / "tls"
#: A message of 9 MB, more than the buffers of a connection take.
LENGTH = 1_500_000
SUMS = encode_sum_dictionary({b"s" * 32: EncryptionKeyPair.from_seed(bytes([9]) * 32).public_key})


class Zeros(Participant):
    def train_round(self, _training_input):
        return np.zeros(LENGTH, np.float32)


class StallingCoordinator:
    """Attributes: url; uploading: set when a message has begun to arrive; closed: set when its sender closed the connection."""

    def __init__(self, *, is_tls: bool, length: int = LENGTH) -> None:
        self.uploading, self.closed, self._ends = threading.Event(), threading.Event(), threading.Event()
        self._answers = {"/params": round_parameters("update", length=length).to_bytes(), "/sums": SUMS}
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if is_tls else None
        if self._context is not None:
            self._context.load_cert_chain(TLS / "server.pem")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # of its connections
        self.url = f"{'https' if is_tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(60)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self._context is not None:
                connection = stack.enter_context(self._context.wrap_socket(connection, server_side=True))
            while True:
                method, path = self._request(connection)
                if method == "POST":
                    break
                body = self._answers.get(path)
                head = "204 No Content\r\n" if body is None else f"200 OK\r\nContent-Length: {len(body)}\r\n"
                connection.sendall(f"HTTP/1.1 {head}\r\n".encode() + (body or b""))
            self.uploading.set()
            self._ends.wait(60)
            try:
                while connection.recv(1 << 16):
                    pass
            finally:
                self.closed.set()

    @staticmethod
    def _request(connection: socket.socket) -> tuple[str, str]:
        received = b""
        while b"\r\n\r\n" not in received:
            if not (piece := connection.recv(1 << 14)):
                raise OSError("closed")
            received += piece
        method, target, _ = received.split(b" ", 2)
        return method.decode(), target.decode().partition("?")[0]

    def read_on(self) -> bool:
        """Read what its sender left; returns whether the connection ended."""
        self._ends.set()
        return self.closed.wait(30)

    def stop(self) -> None:
        self._ends.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


@contextlib.contextmanager
def stalling_coordinator(*, is_tls: bool) -> Iterator[StallingCoordinator]:
    coordinator = StallingCoordinator(is_tls=is_tls)
    try:
        yield coordinator
    finally:
        coordinator.stop()
