"""Adversaries that answer in a coordinator's place: one on the way of HTTP, one with the credential of a shared broker.

Each tries to read the model of an update participant: it names round parameters with an encryption key of its own, in which
everybody is an update participant, and a sum dictionary with a sum participant of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np

from pet.aggregation import Aggregation
from pet.crypto import EncryptionKeyPair, SigningKeyPair, open_sealed
from pet.mask_config import MaskConfigPair
from pet.mask_object import MaskSeed, sum_masks
from pet.messages import RoundParameters, Tag, encode_sum_dictionary, open_message
from pet.transports.nats.answers import encode_answer
from pet.transports.signed_answers import SIGNATURE_HEADER


class FalseRound:
    """A round that exists for its victims only."""

    def __init__(self, config: MaskConfigPair, model_length: int) -> None:
        self._keys, self._ephemeral = EncryptionKeyPair.generate(), EncryptionKeyPair.generate()
        self._invented = SigningKeyPair.generate()
        self._config, self._length = config, model_length
        self.parameters = RoundParameters(
            coordinator_public_key=self._keys.public_key,
            sum_probability=0.0,
            update_probability=1.0,
            seed=os.urandom(32),
            mask_config=config,
            model_length=model_length,
        ).to_bytes()
        self.sums = encode_sum_dictionary({self._invented.public_key: self._ephemeral.public_key})
        self.stolen: list[np.ndarray] = []

    def read(self, body: bytes) -> None:
        """Open an update that was sealed for this round, and take the mask off its model."""
        update = open_message(bytearray(body), self._keys, Tag.UPDATE).payload
        seed = MaskSeed(open_sealed(update.local_seed_dictionary[self._invented.public_key], self._ephemeral))
        total = Aggregation(self._config, self._length)
        total.add(update.masked_model)
        self.stolen.append(total.unmask(sum_masks([seed], self._config, self._length)).to_array())


@dataclass(frozen=True)
class Passing:
    """An answer of the real coordinator on its way."""

    path: str
    status: int
    body: bytes
    media_type: str
    signature: str | None


@dataclass
class ManInTheMiddle:
    """Sits between participants and a real coordinator, and rewrites answers.

    Attributes:
        coordinator: URL of the real one.
        rewrite: gets each answer of the real one and returns what the participant gets.
        on_message: gets each message; it is not passed on then.
        seen: every answer of the real one, to be replayed.
        url: where participants believe the coordinator to be.
    """

    coordinator: str
    rewrite: Callable[[Passing], Passing] = lambda answer: answer
    on_message: Callable[[bytes], None] | None = None
    seen: list[Passing] = field(default_factory=list)
    url: str = ""

    @contextlib.contextmanager
    def listening(self) -> Iterator[ManInTheMiddle]:
        adversary = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                real = client.get(adversary.coordinator + self.path, headers={"Accept": self.headers.get("Accept", "*/*")})
                passing = Passing(
                    self.path,
                    real.status_code,
                    real.content,
                    real.headers.get("content-type", ""),
                    real.headers.get(SIGNATURE_HEADER),
                )
                adversary.seen.append(passing)
                self._answer(adversary.rewrite(passing))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if adversary.on_message is not None:
                    adversary.on_message(body)
                else:
                    client.post(adversary.coordinator + self.path, content=body)
                self._answer(Passing(self.path, 200, b"", "", None))

            def _answer(self, answer: Passing) -> None:
                self.send_response(answer.status)
                if answer.status != 204:
                    self.send_header("Content-Length", str(len(answer.body)))
                if answer.media_type:
                    self.send_header("Content-Type", answer.media_type)
                if answer.signature is not None:
                    self.send_header(SIGNATURE_HEADER, answer.signature)
                self.end_headers()
                self.wfile.write(b"" if answer.status == 204 else answer.body)

        with httpx.Client() as client, ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            self.url = f"http://127.0.0.1:{server.server_port}"
            try:
                yield self
            finally:
                server.shutdown()

    def forge(self, false: FalseRound, *, keeps_signature: bool) -> None:
        """Answer with a false round from now on, with the signature of the real answer, or with none."""

        def rewrite(answer: Passing) -> Passing:
            signature = answer.signature if keeps_signature else None
            if answer.path.startswith("/params"):
                return replace(answer, body=false.parameters, signature=signature)
            if answer.path.startswith("/sums"):
                return replace(answer, status=200, body=false.sums, signature=signature)
            return replace(answer, signature=signature)

        self.rewrite, self.on_message = rewrite, false.read


class BrokerForger:
    """Holds the credential that all peers of a broker share, and publishes events in the coordinator's name.

    Args:
        connection: nats-py's own, so that nothing of pet is in its way.
        subjects: of the federation.
    """

    def __init__(self, connection, subjects) -> None:
        self._jetstream, self._subjects = connection.jetstream(), subjects

    async def replay(self, name: str, data: bytes, headers: dict[str, str] | None) -> None:
        """Publish the bytes and headers of another event."""
        await self._jetstream.publish(self._subjects.event(name), data, headers=headers)

    async def stored(self, name: str) -> tuple[bytes, dict[str, str] | None]:
        """Return what is published now, with its headers."""
        message = await self._jetstream.get_last_msg(self._subjects.event_stream, self._subjects.event(name))
        return message.data or b"", message.headers

    async def forge(self, false: FalseRound, *, keeps_signature: bool) -> None:
        """Publish a false round, with the signatures of the real one, or with none."""
        for name, body in (("parameters", false.parameters), ("sums", false.sums)):
            headers = (await self.stored(name))[1] if keeps_signature else None
            await self.replay(name, encode_answer(body), headers)
