"""What a coordinator with a key signs: the answer to one question in one round; it fits no other question, and no other round.

PET authenticates participants to a coordinator, and nothing to participants: who answers in its place can name
keys of its own and read models. A coordinator may therefore have an Ed25519 key, which signs every answer in a header beside
the body. The bodies stay as they are, and clients that know no signature ignore it. Participants that hold the public key check
it: pet/transports/pinned.py.

Pure functions but for the clock of `AnswerSigner`. Source: docs/messages.md, section 13.
"""

from __future__ import annotations

import re
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from pet.buffers import Buffer
from pet.crypto import SIGNATURE_BYTES, SigningKeyPair, hash_sha256, verify
from pet.transports.base import Endpoint

_Answer = TypeVar("_Answer")

#: The name of the header, over HTTP and NATS alike.
SIGNATURE_HEADER: Final = "Pet-Signature"

#: What is asked for. The key of the participant follows that of seeds; over NATS the prefix of the subjects goes first.
PARAMETERS_ROUTE: Final = "parameters"
SUMS_ROUTE: Final = "sums"
SEEDS_ROUTE: Final = "seeds/"
MODEL_ROUTE: Final = "model"

#: Nothing else that an Ed25519 key of PET signs begins with this.
_DOMAIN: Final = b"pet coordinator answer 1\n"
_DIGEST_BYTES: Final = 32
_HEADER: Final = re.compile(r"1 ([0-9]{1,15}) ([0-9a-f]{64}) ([0-9a-f]{128})")
#: Rounds whose time of issue is remembered: answers under way are of the last two.
_MAX_ROUNDS: Final = 16


@dataclass(frozen=True, slots=True)
class AnswerSignature:
    """The content of the header.

    Attributes:
        issued: when the coordinator began to sign answers of the round, in milliseconds of Unix time.
        round_digest: SHA-256 of the encoded round parameters.
        signature: of `statement(...)`, 64 bytes.
    """

    issued: int
    round_digest: bytes
    signature: bytes

    def to_text(self) -> str:
        """Return the value of the header."""
        return f"1 {self.issued} {self.round_digest.hex()} {self.signature.hex()}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read the value of a header; None for anything that `to_text` does not write."""
        found = _HEADER.fullmatch(text)
        if found is None or text != f"1 {int(found[1])} {found[2]} {found[3]}":
            return None
        return cls(int(found[1]), bytes.fromhex(found[2]), bytes.fromhex(found[3]))

    def is_valid(self, public_key: bytes, route: str, body_digest: bytes | None, media_type: str) -> bool:
        """Return whether the holder of a key signed this answer; see `statement`."""
        signed = statement(self.issued, self.round_digest, route, body_digest, media_type)
        return verify(self.signature, signed, public_key)


def statement(issued: int, round_digest: bytes, route: str, body_digest: bytes | None, media_type: str) -> bytes:
    """Return the bytes that are signed for one answer; every part has a fixed size.

    Args:
        issued: as in `AnswerSignature`.
        round_digest: the same.
        route: what was asked for.
        body_digest: SHA-256 of the body; None for "there is none now", which is an answer, too.
        media_type: of the body, where it decides how it is read; else "".
    """
    texts = hash_sha256(route.encode()) + hash_sha256(media_type.encode())
    body = b"\x00" + bytes(_DIGEST_BYTES) if body_digest is None else b"\x01" + body_digest
    return _DOMAIN + struct.pack("<Q", issued) + round_digest + texts + body


class AnswerSigner:
    """Signs the answers of one coordinator; any thread may call.

    Args:
        key: of the coordinator, and of nobody else.
        clock: returns Unix time in seconds.
    """

    def __init__(self, key: SigningKeyPair, clock: Callable[[], float] = time.time) -> None:
        self._key: Final = key
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._latest = 0
        self._issued: Final[OrderedDict[bytes, int]] = OrderedDict()
        #: The last answer to each question that all participants ask: it is signed once, and not for each of them.
        self._kept: Final[dict[str, tuple[bytes, Buffer | None, str]]] = {}

    @property
    def public_key(self) -> bytes:
        """What participants pin, 32 bytes."""
        return self._key.public_key

    def sign(self, route: str, parameters: bytes, body_digest: bytes | None, media_type: str = "") -> str:
        """Return the header of an answer.

        Args:
            route: what was asked for.
            parameters: the encoded parameters of the round in which the answer holds.
            body_digest: SHA-256 of the body; None if there is none now.
            media_type: as in `statement`.
        """
        round_digest = hash_sha256(parameters)
        issued = self._time_of_issue(round_digest)
        signature = self._key.sign(statement(issued, round_digest, route, body_digest, media_type))
        assert len(signature) == SIGNATURE_BYTES
        return AnswerSignature(issued, round_digest, signature).to_text()

    def sign_published(self, route: str, parameters: bytes, body: Buffer | None) -> str:
        """Return the header of an answer that is the same for everybody; asked again for the same objects, without work."""
        kept = self._kept.get(route)
        if kept is not None and kept[0] is parameters and kept[1] is body:
            return kept[2]
        text = self.sign(route, parameters, None if body is None else hash_sha256(body))
        self._kept[route] = parameters, body, text
        return text

    def _time_of_issue(self, round_digest: bytes) -> int:
        """Return a number for a round that is larger than those of the rounds seen before, also if the clock was set back."""
        with self._lock:
            if round_digest not in self._issued:
                self._latest = max(self._latest + 1, int(self._clock() * 1000))
                self._issued[round_digest] = self._latest
                if len(self._issued) > _MAX_ROUNDS:
                    self._issued.popitem(last=False)
            return self._issued[round_digest]


def read_in_round(endpoint: Endpoint, read: Callable[[], _Answer]) -> tuple[bytes | None, _Answer]:
    """Read something of a coordinator together with the parameters of the round in which it holds.

    A round may end between two reads, and a signature that names the next one would be false.
    """
    while True:
        parameters = endpoint.parameters()
        answer = read()
        if endpoint.parameters() is parameters:
            return parameters, answer
