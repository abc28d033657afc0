"""Take what a broker sends apart: each large message in a buffer of its own, everything else just as it came.

The library collects what it receives in one buffer, 32 KiB at a time, and copies messages out of it: each byte of a large
message is copied four times. Here it is received where it stays. What is not a large message is not understood either, and
goes on to the library's own parser, in the order in which it came.

Pure bookkeeping over bytes: knows no socket, no event loop, and no subject.

Source: the client protocol of NATS, https://docs.nats.io/reference/reference-protocols/nats-protocol (MSG and HMSG).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pet.errors import MalformedFrameError

#: From this size a message gets a buffer of its own; also the size of the buffer for everything else.
LARGE_BYTES: Final = 2**16
#: The most that a broker can be set to let through (docs/spec/federation.md 5.1, fact 1).
_MAX_BYTES: Final = 2**26
#: Buffers that wait to be used again, and the largest of them: what was never touched costs more than receiving into it.
_SPARES: Final = 16
_MAX_SPARE_BYTES: Final = 2**20 + 2 * LARGE_BYTES
_LINE_END: Final = b"\r\n"


class LargeMessage(NamedTuple):
    """One message, as the library's parser would have found it.

    Attributes:
        subject: where it was sent to.
        sid: the number of the subscription it is for.
        reply: where an answer goes; empty if none is wanted.
        header: with its line ends; None without one.
        payload: in a buffer that nobody else looks at.
    """

    subject: bytes
    sid: int
    reply: bytes
    header: bytes | None
    payload: memoryview


class _Announced(NamedTuple):
    """What the line in front of a message says; `size_bytes` includes the header."""

    subject: bytes
    sid: int
    reply: bytes
    header_bytes: int
    size_bytes: int

    @property
    def frame_bytes(self) -> int:
        """What follows the line, with the line end behind it."""
        return self.size_bytes + len(_LINE_END)


class FrameSplitter:
    """What one connection receives, from its first byte on: fill `room`, and `take` what is complete then."""

    def __init__(self) -> None:
        self._buffer: Final = bytearray(LARGE_BYTES)
        self._shared: Final = memoryview(self._buffer)
        #: Bytes at the beginning of the shared buffer that are no whole line yet.
        self._held = 0
        #: Bytes of a small message that are still to come.
        self._passing = 0
        #: The large message that is being received, its buffer, and what is left of that; behind the message there is room for
        #: what follows it, so that both are received at once.
        self._announced: _Announced | None = None
        self._own = self._rest = memoryview(b"")
        self._spares: Final[list[bytearray]] = []

    def room(self) -> memoryview:
        """Return where to put what is received next; never empty."""
        return self._shared[self._held :] if self._announced is None else self._rest

    def take(self, count: int) -> list[bytes | LargeMessage]:
        """Note that `count` bytes were put into the room, and return what is complete now.

        Raises:
            MalformedFrameError: these bytes cannot be part of the protocol.
        """
        items: list[bytes | LargeMessage] = []
        end = self._held + count
        if self._announced is not None:
            self._rest = self._rest[count:]
            if (end := LARGE_BYTES - len(self._rest)) < 0:
                return items
            self._shared[:end] = self._own[self._announced.frame_bytes :][:end]
            items.append(self._finish(self._announced))
        passed, announced, begun = self._pass_small(end)
        if passed:
            items.append(bytes(self._shared[:passed]))
        self._held = 0
        if announced is not None:
            self._begin(announced, self._shared[begun:end])
        elif passed < end:
            self._hold(passed, end)
        return items

    def recycle(self, payload: memoryview) -> None:
        """Take back the buffer of a message that is no longer referenced."""
        buffer = payload.obj
        if isinstance(buffer, bytearray) and LARGE_BYTES < len(buffer) <= _MAX_SPARE_BYTES and len(self._spares) < _SPARES:
            self._spares.append(buffer)

    def _pass_small(self, end: int) -> tuple[int, _Announced | None, int]:
        """Look at what is in the shared buffer up to `end`.

        Returns:
            How much of it is the library's; the large message that follows it, if one does, and where its bytes begin.
        """
        position = min(self._passing, end)
        self._passing -= position
        while (line_end := self._buffer.find(_LINE_END, position, end)) >= 0:
            begun = line_end + len(_LINE_END)
            announced = _read_line(bytes(self._shared[position:line_end]))
            if announced is not None and announced.size_bytes >= LARGE_BYTES:
                return position, announced, begun
            frame_end = begun if announced is None else begun + announced.frame_bytes
            self._passing = max(0, frame_end - end)
            position = min(frame_end, end)
        return position, None, end

    def _hold(self, start: int, end: int) -> None:
        """Keep the beginning of a line until the rest of it comes."""
        self._held = end - start
        if self._held == LARGE_BYTES:
            raise MalformedFrameError(f"broker: expected a line of less than {LARGE_BYTES} bytes, got a longer one")
        self._shared[: self._held] = self._shared[start:end]

    def _begin(self, announced: _Announced, begun: memoryview) -> None:
        if announced.size_bytes > _MAX_BYTES or announced.header_bytes > announced.size_bytes:
            raise MalformedFrameError(f"broker: expected a message of at most {_MAX_BYTES} bytes, got {announced.size_bytes}")
        self._announced = announced
        buffer = self._spares.pop() if self._spares else b""
        size_bytes = announced.frame_bytes + LARGE_BYTES
        if len(buffer) < size_bytes:
            buffer = bytearray(size_bytes)
        self._own = memoryview(buffer)[:size_bytes]
        self._own[: len(begun)] = begun
        self._rest = self._own[len(begun) :]

    def _finish(self, announced: _Announced) -> LargeMessage:
        own, self._own, self._rest, self._announced = self._own, memoryview(b""), memoryview(b""), None
        header, size = announced.header_bytes, announced.size_bytes
        if (end := bytes(own[size : announced.frame_bytes])) != _LINE_END:
            raise MalformedFrameError(f"broker: expected a line end after {size} bytes, got {end!r}")
        subject, sid, reply = announced.subject, announced.sid, announced.reply
        return LargeMessage(subject, sid, reply, bytes(own[:header]) if header else None, own[header:size])


def _read_line(line: bytes) -> _Announced | None:
    """Read what is said about a message that follows; None if none does, or if only the library can say what is wrong."""
    verb, *words = line.split()[:7] or [b""]
    if verb == b"MSG" and len(words) in {3, 4}:
        numbers = [words[1], b"0", words[-1]]
    elif verb == b"HMSG" and len(words) in {4, 5}:
        numbers = [words[1], words[-2], words[-1]]
    else:
        return None
    if not all(number.isdigit() and len(number) <= 18 for number in numbers):
        return None
    sid, header_bytes, size_bytes = map(int, numbers)
    has_reply = len(words) == (4 if verb == b"MSG" else 5)
    return _Announced(words[0], sid, words[2] if has_reply else b"", header_bytes, size_bytes)
