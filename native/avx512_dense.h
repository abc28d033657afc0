/* Drawing where many draws are below the order: a batch is put into stream order, and eight draws at a time are compared with
 * the order and the accepted ones moved together. Part of avx512.c, included nowhere else.
 *
 * Where few are, it is cheaper to leave the batch as it is and to pick out what is accepted (vertical_draw.h). Neither way
 * branches on a draw's value. AVX2 has no instruction that moves lanes together. */
#ifndef PET_AVX512_DENSE_H
#define PET_AVX512_DENSE_H

#include "avx512_wide.h"
#include "vertical_draw.h"

enum {
    GROUP = 8,         /* draws at a time */
    DENSE_BEFORE = 16, /* words before the batch: a draw of up to four may begin there */
    DENSE_BEHIND = 32, /* and a group reads this number behind it */
};

typedef struct dense_drawer dense_drawer;
struct dense_drawer {
    keystream stream;
    uint32_t words[DENSE_BEFORE + BATCH_WORDS + DENSE_BEHIND];
    int next; /* where in the batch the next draw begins */
    uint64_t position;
    __m512i order_low, order_high, mask_low, mask_high;
    void (*draw)(dense_drawer *, uint64_t *, uint64_t *, size_t); /* for this number of words */
};

static void next_dense_batch(dense_drawer *d) {
    row x[ROWS];
    const row counter = begin_batch(&d->stream, x, count_up());
#pragma GCC unroll 9
    for (int i = 0; i < GAPS; i++) double_round(x);
    end_batch(&d->stream, x, counter);
    memcpy(d->words, d->words + BATCH_WORDS, DENSE_BEFORE * sizeof d->words[0]);
    store_stream(d->words + DENSE_BEFORE, x);
    d->next -= BATCH_WORDS;
}

/* Eight draws of `width` words that lie one after the other: their low 64 bits, and the others. */
PET_INLINE void load_group(__m512i *low, __m512i *high, const uint32_t *words, const int width) {
    const __m512i first = _mm512_loadu_si512(words);
    *low = *high = first;
    if (width == 3) { /* word w of the second load is w + 8 */
        const __m512i second = _mm512_loadu_si512(words + 8);
        const __m512i low_words = _mm512_set_epi32(30, 29, 27, 26, 24, 15, 13, 12, 10, 9, 7, 6, 4, 3, 1, 0);
        const __m512i high_words = _mm512_set_epi32(0, 31, 0, 28, 0, 25, 0, 14, 0, 11, 0, 8, 0, 5, 0, 2);
        *low = _mm512_permutex2var_epi32(first, low_words, second);
        *high = _mm512_maskz_permutex2var_epi32(0x5555, first, high_words, second);
    } else if (width == 4) {
        const __m512i second = _mm512_loadu_si512(words + 16);
        *low = _mm512_permutex2var_epi64(first, _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), second);
        *high = _mm512_permutex2var_epi64(first, _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1), second);
    }
}

/* Write those of the first `count` draws from d->next that are below the order, at most `room` of them, and step behind them.
 * Whole vectors are written where there is room for them. Returns how many it was. */
PET_INLINE size_t draw_group(dense_drawer *d, uint64_t *low, uint64_t *high, size_t room, unsigned count, const int width) {
    __m512i value, value_high;
    load_group(&value, &value_high, d->words + DENSE_BEFORE + d->next, width);
    value = _mm512_and_si512(value, d->mask_low);
    __mmask8 is_below = _mm512_cmplt_epu64_mask(value, d->order_low);
    if (width > 2) {
        value_high = _mm512_and_si512(value_high, d->mask_high);
        is_below &= _mm512_cmpeq_epi64_mask(value_high, d->order_high);
        is_below |= _mm512_cmplt_epu64_mask(value_high, d->order_high);
    }
    uint32_t accepted = is_below & ((1u << count) - 1);
    size_t found = (size_t)_mm_popcnt_u32(accepted);
    __mmask8 stored = 0xff;
    d->next += (int)count * width;
    if (__builtin_expect(room <= GROUP, 0)) { /* the end of a vector may be near */
        if (found >= room) {
            accepted = _pdep_u32((1u << room) - 1, accepted);
            const int behind = 32 - __builtin_clz(accepted); /* the last draw that is handed out */
            d->next += (behind - (int)count) * width;
            found = room;
        }
        stored = (__mmask8)((1u << found) - 1);
    }
    _mm512_mask_storeu_epi64(low, stored, _mm512_maskz_compress_epi64((__mmask8)accepted, value));
    if (width > 2) _mm512_mask_storeu_epi64(high, stored, _mm512_maskz_compress_epi64((__mmask8)accepted, value_high));
    return found;
}

/* The next `length` draws, as in vertical_draw.h. */
PET_INLINE void draw_dense_with(dense_drawer *d, uint64_t *low, uint64_t *high, size_t length, const int width) {
    size_t done = 0;
    while (done < length) {
        while (d->next + GROUP * width <= BATCH_WORDS && done < length)
            done += draw_group(d, low + done, high + done, length - done, GROUP, width);
        if (done == length) break;
        const unsigned left = (unsigned)(BATCH_WORDS - d->next) / (unsigned)width;
        if (left > 0) done += draw_group(d, low + done, high + done, length - done, left, width);
        if (done < length) next_dense_batch(d);
    }
    if (length > 0) d->position = (d->stream.next_number - 1) * BATCH_WORDS + (uint64_t)d->next;
}
static void draw_two_words(dense_drawer *d, uint64_t *low, uint64_t *high, size_t length) {
    draw_dense_with(d, low, high, length, 2);
}
static void draw_three_words(dense_drawer *d, uint64_t *low, uint64_t *high, size_t length) {
    draw_dense_with(d, low, high, length, 3);
}
static void draw_four_words(dense_drawer *d, uint64_t *low, uint64_t *high, size_t length) {
    draw_dense_with(d, low, high, length, 4);
}

static void start_dense(dense_drawer *d, const uint8_t *seed, uint64_t position, const pet_order *order) {
    static void (*const draws[])(dense_drawer *, uint64_t *, uint64_t *, size_t) = {
        [2] = draw_two_words, [3] = draw_three_words, [4] = draw_four_words};
    const size_t bits = 8 * order->draw_bytes;
    start_keystream(&d->stream, seed, position / BATCH_WORDS);
    memset(d->words, 0, sizeof d->words);
    d->order_low = spread_plane(order->limbs[0]);
    d->order_high = spread_plane(order->limbs[1]);
    d->mask_low = spread_plane(low_bits(bits));
    d->mask_high = spread_plane(bits > 64 ? low_bits(bits - 64) : 0);
    d->draw = draws[order->words_per_draw];
    d->position = position;
    d->next = (int)(position % BATCH_WORDS) + BATCH_WORDS; /* of the batch before the first */
    next_dense_batch(d);
}

/* ---- either way -------------------------------------------------------------------------------------------------------- */

/* What avx2_loops.h draws from. */
typedef struct {
    int is_dense;
    union {
        drawer sparse;
        dense_drawer dense;
    };
} source;

/* Where the two ways take equally long; draws of three words are the hardest to pick out. */
static int is_dense(const pet_order *order) {
    const size_t width = order->words_per_draw;
    return width > 1 && acceptance_of(order) > (width == 3 ? 1.0 / 12 : 1.0 / 6);
}

static void start_source(source *s, const uint8_t *seed, uint64_t position, const pet_order *order) {
    s->is_dense = is_dense(order);
    if (s->is_dense)
        start_dense(&s->dense, seed, position, order);
    else
        start_drawing(&s->sparse, seed, position, order);
}

static void draw_from(source *s, uint64_t *low, uint64_t *high, size_t length) {
    if (s->is_dense)
        s->dense.draw(&s->dense, low, high, length);
    else
        draw(&s->sparse, low, high, length);
}

static uint64_t position_of(const source *s) { return s->is_dense ? s->dense.position : s->sparse.position; }

#endif
