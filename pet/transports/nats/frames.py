"""What is said about large uploads, byte by byte: chunks, the question whether one may send, and the answers.

Pure functions of bytes; whatever is decoded is checked against the bounds given here before anything is allocated.

Source: docs/spec/federation.md 5.4.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from dataclasses import dataclass
from typing import Any, Final, Self

from pet.errors import RemoteProtocolError

UPLOAD_ID_BYTES: Final = 16
_MAGIC: Final = b"PETC"
_VERSION: Final = 1
#: "PETC", version, flags, reserved, id, index, count, total size; big-endian.
_HEADER: Final = struct.Struct(">4sBBH16sIIQ")
HEADER_BYTES: Final = _HEADER.size
#: A terabyte in chunks of a kilobyte is more than anybody sends.
_MAX_CHUNKS: Final = 2**24
_MAX_SIZE_BYTES: Final = 2**40


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """Which part of which upload a chunk is."""

    upload_id: bytes
    index: int
    count: int
    size_bytes: int

    def to_bytes(self) -> bytes:
        """Return the 40 bytes in front of the data."""
        return _HEADER.pack(_MAGIC, _VERSION, 0, 0, self.upload_id, self.index, self.count, self.size_bytes)


def decode_chunk(payload: bytes) -> tuple[ChunkHeader, memoryview]:
    """Take a chunk apart; the data is not copied.

    Raises:
        RemoteProtocolError: it is no chunk (reason "malformed_chunk").
    """
    if len(payload) < HEADER_BYTES:
        raise RemoteProtocolError("malformed_chunk", f"chunk: expected {HEADER_BYTES} bytes or more, got {len(payload)}")
    magic, version, flags, reserved, upload_id, index, count, size = _HEADER.unpack_from(payload)
    if (magic, version, flags, reserved) != (_MAGIC, _VERSION, 0, 0):
        raise RemoteProtocolError("malformed_chunk", f"chunk: expected PETC version 1, got {payload[:8].hex()}")
    if not (index < count <= _MAX_CHUNKS and size <= _MAX_SIZE_BYTES):
        raise RemoteProtocolError("malformed_chunk", f"chunk: expected index below count, got {index} of {count}, {size} bytes")
    return ChunkHeader(upload_id, index, count, size), memoryview(payload)[HEADER_BYTES:]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadOffer:
    """What a sender wants to send: `open.{peer}`, and beside each stored chunk.

    Attributes:
        upload_id: 16 bytes; the same again for the same upload, so that it goes on where it stopped.
        size_bytes: of the whole.
        sha256: of the whole, 32 bytes; empty if it comes with `done`, so that sending need not wait for it.
        kind: what it is, for the receiver's handler.
        round: which round it belongs to; empty where nobody needs to know.
        chunk_bytes: data in each chunk but the last: the most the sender can, or in mode `stream` what it does.
    """

    upload_id: bytes
    size_bytes: int
    sha256: bytes
    kind: str
    round: str
    chunk_bytes: int

    @property
    def chunk_count(self) -> int:
        """How many chunks there are; an empty upload has one, so that there is something to send."""
        return max(1, -(-self.size_bytes // self.chunk_bytes))

    def chunk_size(self, index: int) -> int:
        """Return the bytes of data in one chunk."""
        return min(self.chunk_bytes, self.size_bytes - index * self.chunk_bytes)

    def require_place(self, header: ChunkHeader, data: memoryview) -> None:
        """Check that a chunk belongs to this upload.

        Raises:
            RemoteProtocolError: it belongs to another one or has another size (reason "foreign_chunk").
        """
        mine = (self.upload_id, self.chunk_count, self.size_bytes)
        if (header.upload_id, header.count, header.size_bytes) != mine or len(data) != self.chunk_size(header.index):
            raise RemoteProtocolError(
                "foreign_chunk",
                f"chunk {header.index}: expected one of this upload, got {len(data)} of {header.size_bytes} bytes",
            )

    def to_bytes(self) -> bytes:
        """Return it as JSON, ASCII on one line: it also travels in a header."""
        record = {
            "id": self.upload_id.hex(),
            "size": self.size_bytes,
            "sha256": self.sha256.hex(),
            "kind": self.kind,
            "round": self.round,
            "chunk_bytes": self.chunk_bytes,
        }
        return json.dumps(record, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            RemoteProtocolError: it is something else (reason "malformed_offer").
        """
        try:
            record = _load(data, 1024)
            offer = cls(
                upload_id=bytes.fromhex(record["id"]),
                size_bytes=_whole(record["size"], 0, _MAX_SIZE_BYTES),
                sha256=bytes.fromhex(record["sha256"]),
                kind=_text(record["kind"]),
                round=_text(record["round"]),
                chunk_bytes=_whole(record["chunk_bytes"], 1, 2**26),
            )
            is_good = (
                len(offer.upload_id) == UPLOAD_ID_BYTES and len(offer.sha256) in {0, 32} and offer.chunk_count <= _MAX_CHUNKS
            )
        except (ValueError, TypeError, KeyError):
            is_good = False
        if not is_good:
            raise RemoteProtocolError("malformed_offer", f"upload: expected id, size, digest, kind, got {data[:60]!r}")
        return offer


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of an upload: taken, or refused for a reason that another attempt would meet again."""

    is_accepted: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAnswer:
    """What a receiver says to an offer, or to `done`: one of a slot, a wait, a verdict, or what is missing.

    Attributes:
        slot: a secret that stands for the upload in subjects; empty if there is none.
        chunk_bytes: data in each chunk but the last.
        window: chunks that may be under way.
        have: one bit for each chunk that is there, the first in the highest bit of the first byte.
        expires_seconds: a slot without progress is given up after this time.
        wait_seconds: ask again then; None if that is not the answer.
        verdict: it is over.
    """

    slot: str = ""
    chunk_bytes: int = 0
    window: int = 0
    have: bytes = b""
    expires_seconds: float = 0.0
    wait_seconds: float | None = None
    verdict: Verdict | None = None

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        if self.verdict is not None:
            return json.dumps({"accepted": self.verdict.is_accepted, "reason": self.verdict.reason}).encode()
        if self.wait_seconds is not None:
            return json.dumps({"wait": self.wait_seconds}).encode()
        record = {
            "slot": self.slot,
            "chunk_bytes": self.chunk_bytes,
            "window": self.window,
            "have": base64.b64encode(self.have).decode(),
            "expires": self.expires_seconds,
        }
        return json.dumps(record).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            RemoteProtocolError: it is something else (reason "malformed_answer").
        """
        try:
            record = _load(data, 2**22)
            if "accepted" in record:
                if type(record["accepted"]) is not bool:
                    raise ValueError
                return cls(verdict=Verdict(is_accepted=record["accepted"], reason=_text(record.get("reason", ""))))
            if "wait" in record:
                return cls(wait_seconds=min(60.0, max(0.0, float(record["wait"]))))
            slot = _text(record["slot"])
            if not (slot.isascii() and slot.isalnum() and len(slot) <= 64):
                raise ValueError
            return cls(
                slot=slot,
                chunk_bytes=_whole(record["chunk_bytes"], 1, 2**26),
                window=_whole(record["window"], 1, 1024),
                have=base64.b64decode(record["have"], validate=True),
                expires_seconds=float(record["expires"]),
            )
        except (ValueError, TypeError, KeyError, binascii.Error):
            raise RemoteProtocolError(
                "malformed_answer", f"upload: expected slot, wait or verdict, got {data[:60]!r}"
            ) from None


def _load(data: bytes, most_bytes: int) -> dict[str, Any]:
    if len(data) > most_bytes:
        raise ValueError
    record = json.loads(data)
    if not isinstance(record, dict):
        raise TypeError
    return record


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > 200:
        raise ValueError
    return value
