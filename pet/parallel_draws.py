"""Drawing the elements of one seed in several threads.

Where an element lies in the keystream depends on every draw rejected before it, so threads cannot simply split the vector.
They split the keystream: it is cut into pieces of a fixed number of words, each thread draws what one piece holds into a buffer
of its own, and pieces are handed on in order, when it is known how many elements came before. Counting first would draw
everything twice. A thread whose turn has not come leaves its piece to the thread that finishes the one before; it waits,
asleep, only where it is several pieces ahead.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Final

import numpy as np

from pet import kernels
from pet.threads import run_together

#: Less keystream than this for each thread takes less time than waking another one and finding the ends of pieces.
_KEYSTREAM_BYTES_WORTH_A_THREAD: Final = 2 << 20
#: Packed elements of a piece: long enough that finding its end (a dozen short calls) costs one or two per cent, short enough to
#: be still in a cache when it is handed on.
_PIECE_BYTES: Final = 1 << 20
#: How many pieces beyond the first unfinished one may be under way, for each thread: bounds the buffers.
_PIECES_AHEAD: Final = 2
#: How many standard deviations fewer than the mean are surely there. If they are not, the draws beyond are made for nothing.
_CAUTION: Final = 3.0
#: Where so few elements are left, single steps are as good as a bold one.
_FEW: Final = 32

Consumer = Callable[[int, kernels.Packed], None]


class _Stream:
    """What is known of the draws of an order: the words of an attempt, and the share of attempts that is accepted."""

    def __init__(self, order: int) -> None:
        draw_bytes = -(-order.bit_length() // 8)
        self.words_per_attempt: Final = -(-draw_bytes // 4)
        self.acceptance: Final = order / 256**draw_bytes
        self.words_per_element: Final = self.words_per_attempt / self.acceptance

    def spread(self, length: float) -> float:
        """Return the standard deviation of how many elements there are in the keystream of `length` of them."""
        return math.sqrt(length * (1 - self.acceptance))


def threads_worth_drawing(order: int, length: int) -> int:
    """Return how many threads this number of draws keeps busy; 0 or 1 means the calling one."""
    return int(4 * _Stream(order).words_per_element * length) // _KEYSTREAM_BYTES_WORTH_A_THREAD


def draw_together(seed: bytes, order: int, length: int, position: int, count: int, consume: Consumer) -> None:
    """Draw the `length` elements after a position in `count` threads.

    Args:
        seed: 32 bytes.
        order: order of the group.
        length: number of elements.
        position: where in the keystream to begin, in words.
        count: how many threads, the calling one among them.
        consume: called with the index of an element and it and those after it, in any order and from any of the threads,
            until every element was handed over once; the array is used again after the call.
    """
    drawing = _Drawing(seed, order, length, position, count, consume)
    run_together(drawing.work, count)
    drawing.draw_rest()


class _Drawing:
    """The pieces of one drawing: handed out in order, drawn in any, handed on in order."""

    def __init__(self, seed: bytes, order: int, length: int, position: int, count: int, consume: Consumer) -> None:
        self._seed, self._order, self._length, self._position = seed, order, length, position
        self._consume: Final = consume
        self._stream: Final = _Stream(order)
        sure_length = max(0.0, length - _CAUTION * self._stream.spread(length))
        piece_length = max(1, _PIECE_BYTES // kernels.element_bytes(order))
        # As many pieces for each thread as for every other.
        self._piece_count: Final = -(-math.ceil(sure_length / piece_length) // count) * count
        attempts = int(sure_length / self._stream.acceptance) // max(1, self._piece_count)
        self._piece_words: Final = attempts * self._stream.words_per_attempt
        self._most_ahead: Final = _PIECES_AHEAD * count
        self._changed: Final = threading.Condition()
        self._next = 0  # piece that nobody has begun
        self._first = 0  # piece that is not handed on
        self._start = 0  # index of its first element
        #: Pieces drawn before their turn: how many elements, in which buffer.
        self._finished: Final[dict[int, tuple[int, kernels.Packed]]] = {}
        self._buffers: Final[list[kernels.Packed]] = []  # that are free again
        self._has_failed = False

    def work(self) -> None:
        """Draw pieces until none is left."""
        try:
            while (piece := self._begin_piece()) is not None:
                for start, count, buffer in self._finish_piece(piece, *self._draw_piece(piece)):
                    self._consume(start, buffer[:count])
                    self._buffers.append(buffer)
        except BaseException:
            with self._changed:
                self._has_failed = True
                self._changed.notify_all()
            raise

    def draw_rest(self) -> None:
        """Draw what the pieces, which were cut short on purpose, did not hold."""
        if self._start < self._length:
            position = self._position + self._piece_count * self._piece_words
            elements, _ = kernels.expand(self._seed, self._order, self._length - self._start, position)
            self._consume(self._start, elements)

    def _begin_piece(self) -> int | None:
        with self._changed:
            while not self._has_failed and self._next < self._piece_count and self._next - self._first >= self._most_ahead:
                self._changed.wait()
            if self._has_failed or self._next == self._piece_count:
                return None
            self._next += 1
            return self._next - 1

    def _finish_piece(self, piece: int, count: int, buffer: kernels.Packed) -> list[tuple[int, int, kernels.Packed]]:
        """Return what can be handed on now: the index of a first element, how many there are, and the buffer they lie in."""
        ready = []
        with self._changed:
            self._finished[piece] = count, buffer
            while self._first in self._finished:
                count, buffer = self._finished.pop(self._first)
                count = min(count, self._length - self._start)
                ready.append((self._start, count, buffer))
                self._start += count
                self._first += 1
            self._changed.notify_all()
        return ready

    def _draw_piece(self, piece: int) -> tuple[int, kernels.Packed]:
        """Draw every element whose attempt lies in a piece; returns how many there were, and the buffer they lie in.

        A kernel draws a given number of elements and returns where the last one ended. So: draw fewer than there should be,
        look how much is left, and so on; once it was too many, halve.
        """
        position = self._position + piece * self._piece_words
        end = position + self._piece_words
        buffer = self._take_buffer()
        count, most = 0, None
        while end - position >= self._stream.words_per_attempt and (most is None or most > count):
            if count == len(buffer):
                buffer = np.concatenate([buffer, np.empty_like(buffer)])
            expected = (end - position) / self._stream.words_per_element
            step = int(expected if expected <= _FEW else expected - _CAUTION * self._stream.spread(expected))
            limit = len(buffer) - count if most is None else (most - count + 1) // 2
            stop = count + max(1, min(step, limit))
            _, after = kernels.expand(self._seed, self._order, stop - count, position, out=buffer[count:stop])
            if after <= end:
                count, position = stop, after
            else:
                most = stop - 1
        return count, buffer

    def _take_buffer(self) -> kernels.Packed:
        try:
            return self._buffers.pop()
        except IndexError:
            mean = self._piece_words / self._stream.words_per_element
            length = int(mean + _CAUTION * self._stream.spread(mean)) + _FEW
            return np.empty((max(1, length), kernels.element_bytes(self._order)), dtype=np.uint8)
