"""One block of ChaCha20 in Python integers (Bernstein 2008, the original layout: 64-bit counter, 64-bit stream number)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_WORD: Final = 0xFFFFFFFF
#: "expand 32-byte k".
_SIGMA: Final = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
_COLUMNS_AND_DIAGONALS: Final = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip


def key_words(key: bytes) -> list[int]:
    """Return a key of 32 bytes as its eight words."""
    return [int.from_bytes(key[4 * i : 4 * i + 4], "little") for i in range(8)]


def chacha20_block(key: Sequence[int], counter: int, stream: int = 0) -> list[int]:
    """Return the 16 words of one block."""
    start = [*_SIGMA, *key, counter & _WORD, counter >> 32, stream & _WORD, stream >> 32]
    state = list(start)
    for _ in range(10):
        for i, j, k, m in _COLUMNS_AND_DIAGONALS:
            a, b, c, d = state[i], state[j], state[k], state[m]
            a = (a + b) & _WORD
            d ^= a
            d = (d << 16 | d >> 16) & _WORD
            c = (c + d) & _WORD
            b ^= c
            b = (b << 12 | b >> 20) & _WORD
            a = (a + b) & _WORD
            d ^= a
            d = (d << 8 | d >> 24) & _WORD
            c = (c + d) & _WORD
            b ^= c
            b = (b << 7 | b >> 25) & _WORD
            state[i], state[j], state[k], state[m] = a, b, c, d
    return [(a + b) & _WORD for a, b in zip(start, state, strict=True)]
