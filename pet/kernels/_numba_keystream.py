"""Drawing elements in numba: ChaCha20 over many blocks at once, and the rejection of draws that are not below the order.

This file knows keystreams and limbs: no packed bytes, no weights. Draws come out as planes, the layout of a total.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pet.kernels._numba_jit import INTEGER, WORD, WORDS_IN, WORDS_OUT, inlined, kernel

U32: Final = np.uint32
U64: Final = np.uint64

#: Blocks of keystream made at a time: 4 KiB, so that little is thrown away at the end of a short vector.
BLOCKS: Final = 64

#: "expand 32-byte k".
_SIGMA_0: Final = U32(0x61707865)
_SIGMA_1: Final = U32(0x3320646E)
_SIGMA_2: Final = U32(0x79622D32)
_SIGMA_3: Final = U32(0x6B206574)
_LOW_WORD: Final = U64(0xFFFFFFFF)
_WORD_BITS: Final = U64(32)


@inlined
def _rotate(word: Any, left: Any, right: Any) -> Any:
    return U32(U32(word << left) | U32(word >> right))


@inlined
def _quarter_round(a: Any, b: Any, c: Any, d: Any) -> Any:
    a = U32(a + b)
    d = _rotate(U32(d ^ a), U32(16), U32(16))
    c = U32(c + d)
    b = _rotate(U32(b ^ c), U32(12), U32(20))
    a = U32(a + b)
    d = _rotate(U32(d ^ a), U32(8), U32(24))
    c = U32(c + d)
    b = _rotate(U32(b ^ c), U32(7), U32(25))
    return a, b, c, d


@inlined
def _double_round(state: Any) -> Any:
    x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15 = state
    x0, x4, x8, x12 = _quarter_round(x0, x4, x8, x12)
    x1, x5, x9, x13 = _quarter_round(x1, x5, x9, x13)
    x2, x6, x10, x14 = _quarter_round(x2, x6, x10, x14)
    x3, x7, x11, x15 = _quarter_round(x3, x7, x11, x15)
    x0, x5, x10, x15 = _quarter_round(x0, x5, x10, x15)
    x1, x6, x11, x12 = _quarter_round(x1, x6, x11, x12)
    x2, x7, x8, x13 = _quarter_round(x2, x7, x8, x13)
    x3, x4, x9, x14 = _quarter_round(x3, x4, x9, x14)
    return x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15


@inlined
def make_blocks(columns: Any, key: Any, counter: Any) -> None:
    """Write BLOCKS blocks from a counter on: columns[word, block]."""
    k0, k1, k2, k3 = U32(key[0]), U32(key[1]), U32(key[2]), U32(key[3])
    k4, k5, k6, k7 = U32(key[4]), U32(key[5]), U32(key[6]), U32(key[7])
    for block in range(BLOCKS):
        number = counter + U64(block)
        low, high = U32(number), U32(number >> _WORD_BITS)
        start = (_SIGMA_0, _SIGMA_1, _SIGMA_2, _SIGMA_3, k0, k1, k2, k3, k4, k5, k6, k7, low, high, U32(0), U32(0))
        # The ten double rounds stand one below the other: only a loop without a loop inside becomes vector instructions.
        state = _double_round(start)
        state = _double_round(state)
        state = _double_round(state)
        state = _double_round(state)
        state = _double_round(state)
        state = _double_round(state)
        state = _double_round(state)
        state = _double_round(state)
        state = _double_round(state)
        state = _double_round(state)
        columns[0, block] = U32(state[0] + _SIGMA_0)
        columns[1, block] = U32(state[1] + _SIGMA_1)
        columns[2, block] = U32(state[2] + _SIGMA_2)
        columns[3, block] = U32(state[3] + _SIGMA_3)
        columns[4, block] = U32(state[4] + k0)
        columns[5, block] = U32(state[5] + k1)
        columns[6, block] = U32(state[6] + k2)
        columns[7, block] = U32(state[7] + k3)
        columns[8, block] = U32(state[8] + k4)
        columns[9, block] = U32(state[9] + k5)
        columns[10, block] = U32(state[10] + k6)
        columns[11, block] = U32(state[11] + k7)
        columns[12, block] = U32(state[12] + low)
        columns[13, block] = U32(state[13] + high)
        columns[14, block] = state[14]
        columns[15, block] = state[15]


@inlined
def one_word(key: Any, counter: Any, stream: Any, word: Any) -> Any:
    """Return one word of the block with a counter in a stream of its own: for the few draws that are made again."""
    k0, k1, k2, k3 = U32(key[0]), U32(key[1]), U32(key[2]), U32(key[3])
    k4, k5, k6, k7 = U32(key[4]), U32(key[5]), U32(key[6]), U32(key[7])
    counters = U32(counter), U32(counter >> _WORD_BITS), U32(stream), U32(stream >> _WORD_BITS)
    start = (_SIGMA_0, _SIGMA_1, _SIGMA_2, _SIGMA_3, k0, k1, k2, k3, k4, k5, k6, k7, *counters)
    state = start
    for _ in range(10):
        state = _double_round(state)
    return U64(U32(state[word] + start[word]))


@inlined
def _append_blocks(words: Any, start: Any, columns: Any) -> None:
    """Write blocks in the order of the stream to words[start:]."""
    for block in range(BLOCKS):
        for word in range(16):
            words[start + 16 * block + word] = columns[word, block]


@inlined
def _accept_narrow(
    values: Any, done: Any, count: Any, words: Any, end: Any, words_per_draw: Any, top_mask: Any, order: Any
) -> Any:
    """Collect accepted draws of one or two words from words[:end]; return how many values there are, and words used."""
    attempts = end // words_per_draw
    high = words_per_draw - 1
    position = 0
    bound = order[0]
    if count - done >= attempts:
        # Every draw is written and only an accepted one moves on: no branch to guess. There is room for them all.
        for _ in range(attempts):
            value = (U64(words[position + high]) & top_mask) << (_WORD_BITS * U64(high)) | U64(words[position]) * U64(high)
            values[done] = value
            done += np.int64(value < bound)
            position += words_per_draw
        return done, position
    while done < count and position + words_per_draw <= end:
        value = (U64(words[position + high]) & top_mask) << (_WORD_BITS * U64(high)) | U64(words[position]) * U64(high)
        values[done] = value
        done += np.int64(value < bound)
        position += words_per_draw
    return done, position


@inlined
def _is_below(words: Any, position: Any, words_per_draw: Any, top_mask: Any, order: Any) -> Any:
    """Return whether a draw is below the order: from its top word down, until two words differ."""
    for i in range(words_per_draw - 1, -1, -1):
        word = U64(words[position + i])
        if i == words_per_draw - 1:
            word &= top_mask
        bound = (order[i >> 1] >> (_WORD_BITS * U64(i & 1))) & _LOW_WORD
        if word != bound:
            return word < bound
    return False


@inlined
def _accept_wide(
    values: Any, stride: Any, done: Any, count: Any, words: Any, end: Any, words_per_draw: Any, top_mask: Any, order: Any
) -> Any:
    """Collect accepted draws of any number of words; otherwise as `_accept_narrow`."""
    position = 0
    while done < count and position + words_per_draw <= end:
        # The branch depends on whether a draw is rejected, as the contract allows; never on an accepted value.
        if _is_below(words, position, words_per_draw, top_mask, order):
            for plane in range(len(order)):
                value = U64(0)
                for i in range(2 * plane, min(2 * plane + 2, words_per_draw)):
                    word = U64(words[position + i])
                    if i == words_per_draw - 1:
                        word &= top_mask
                    value |= word << (_WORD_BITS * U64(i & 1))
                values[plane * stride + done] = value
            done += 1
        position += words_per_draw
    return done, position


@kernel(WORD, WORDS_OUT, INTEGER, INTEGER, WORDS_IN, WORD, INTEGER, WORD, WORDS_IN)
def draw(values: Any, stride: Any, count: Any, key: Any, position: Any, words_per_draw: Any, top_mask: Any, order: Any) -> Any:
    """Draw `count` elements below the order (spec 3.1).

    Args:
        values: planes of the results; plane p of element i is values[p * stride + i].
        stride: distance of two planes.
        count: how many to draw.
        key: the seed as eight 32-bit words.
        position: words of the keystream used up already.
        words_per_draw: 32-bit words that one attempt takes.
        top_mask: the bits of the last of these words that belong to the value.
        order: its 64-bit limbs, one per plane.

    Returns:
        The new position.
    """
    columns = np.empty((16, BLOCKS), dtype=np.uint32)
    words = np.empty(words_per_draw + 16 * BLOCKS, dtype=np.uint32)
    counter = position >> U64(4)
    skipped: Any = np.int64(position & U64(15))
    done = 0
    kept = 0  # words left over from the blocks before: less than one draw
    while done < count:
        make_blocks(columns, key, counter)
        counter += U64(BLOCKS)
        _append_blocks(words, kept, columns)
        end = kept + 16 * BLOCKS
        if skipped > 0:
            for i in range(end - skipped):
                words[i] = words[i + skipped]
            end -= skipped
            skipped = 0
        if len(order) == 1:
            done, used = _accept_narrow(values, done, count, words, end, words_per_draw, top_mask, order)
        else:
            done, used = _accept_wide(values, stride, done, count, words, end, words_per_draw, top_mask, order)
        position += U64(used)
        kept = end - used
        if done < count:
            for i in range(kept):
                words[i] = words[used + i]
    return position
