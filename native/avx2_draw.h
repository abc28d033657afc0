/* Drawing elements from a ChaCha20 keystream with AVX2. Part of avx2.c, included nowhere else; it knows seeds, positions and an
 * order, and never what the draws are for.
 *
 * Eight blocks are computed at once, and they stay vertical: row r of a batch is one vector that holds word r of all eight.
 *
 *               lane (block of the batch)
 *               0     1     2    ...   7                     a draw of two words is (0, 1), (2, 3), ... of one block
 *      row  0   0    16    32         112                    a draw of four is (0, 1, 2, 3), (4, 5, 6, 7), ...
 *      row  1   1    17    33         113   <- number in     a draw of three, or one that starts in the middle, straddles rows
 *      ...                                     the stream    15 and 0 of neighbouring blocks and of neighbouring batches
 *      row 15  15    31    47         127
 *
 * Nothing is transposed but one bit per word or draw: whether its top word leaves it a chance to be below the order. The few
 * draws with that chance are then collected by number. The collecting of one batch happens between the rounds of the next: the
 * rounds wait for each other, so the scalar work in between is free. */
#ifndef PET_AVX2_DRAW_H
#define PET_AVX2_DRAW_H

#include "avx2_elements.h"

enum {
    ROWS = 16,                      /* words of a block */
    BATCH_WORDS = 128,              /* eight blocks */
    ROW_STRIDE = 16,                /* of the stored batch, in words: eight lanes, then slack that a fruitless step may read */
    FIRST_SLOT = -3,                /* a draw whose top is in this batch may begin three words before it */
    END_OF_SLOTS = BATCH_WORDS + 3, /* and a fruitless step asks for word 128 and two behind it */
};

typedef enum { ONE_WORD, TWO_WORDS, FOUR_WORDS, STRADDLING } draw_layout;

typedef struct drawer drawer;
struct drawer {
    __m256i initial[ROWS];                   /* the state before round 1, but for row 12, the low counter word */
    __m256i first_round[ROWS];               /* the state with everything done in round 1 that does not depend on row 12 */
    uint32_t words[(ROWS + 2) * ROW_STRIDE]; /* the last batch: word w at slot_of(w) */
    uint64_t chances[2]; /* what of it is still to collect: a bit for each draw, or, in the layouts that need more, each word */
    uint64_t base;       /* the position of the last batch */
    uint64_t next_number; /* of the next batch */
    uint64_t position;    /* behind the last draw that was handed out */
    uint64_t order_low, order_high, mask_low, mask_high;
    uint64_t top_words[3][2]; /* STRADDLING: which words are the top of a draw, by the first such word of the batch */
    uint8_t slots[END_OF_SLOTS - FIRST_SLOT]; /* STRADDLING: slot_of, tabulated, because a draw has four */
    uint32_t top_mask, top_limit;
    unsigned words_per_draw, first_top, steps;
    draw_layout layout;
    size_t (*next_batch)(drawer *, uint64_t *, uint64_t *); /* for this layout */
};

/* Whether chances[] has a bit for each word, 64 and 64, or one for each draw, all in chances[0]. */
PET_INLINE int counts_words(draw_layout layout) { return layout == ONE_WORD || layout == STRADDLING; }

/* ---- ChaCha20, eight blocks ----------------------------------------------------------------------------------------- */

PET_INLINE __m256i spread32(uint32_t x) { return _mm256_set1_epi32((int)x); }
PET_INLINE __m256i add32(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
PET_INLINE __m256i twice(__m128i x) { return _mm256_broadcastsi128_si256(x); }

/* AVX2 has no rotate: by 16 and 8 a byte shuffle is one operation instead of three. */
PET_INLINE __m256i rotate16(__m256i x) {
    return _mm256_shuffle_epi8(x, twice(_mm_set_epi8(13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2)));
}
PET_INLINE __m256i rotate8(__m256i x) {
    return _mm256_shuffle_epi8(x, twice(_mm_set_epi8(14, 13, 12, 15, 10, 9, 8, 11, 6, 5, 4, 7, 2, 1, 0, 3)));
}
#define ROTATE(x, n) _mm256_or_si256(_mm256_slli_epi32(x, n), _mm256_srli_epi32(x, 32 - (n)))

/* A quarter-round without its first addition. */
#define QUARTER_REST(x, a, b, c, d)                    \
    do {                                               \
        x[d] = rotate16(_mm256_xor_si256(x[d], x[a])); \
        x[c] = add32(x[c], x[d]);                      \
        x[b] = _mm256_xor_si256(x[b], x[c]);           \
        x[b] = ROTATE(x[b], 12);                       \
        x[a] = add32(x[a], x[b]);                      \
        x[d] = rotate8(_mm256_xor_si256(x[d], x[a]));  \
        x[c] = add32(x[c], x[d]);                      \
        x[b] = _mm256_xor_si256(x[b], x[c]);           \
        x[b] = ROTATE(x[b], 7);                        \
    } while (0)
#define QUARTER(x, a, b, c, d)       \
    do {                             \
        x[a] = add32(x[a], x[b]);    \
        QUARTER_REST(x, a, b, c, d); \
    } while (0)
#define COLUMNS(x)                \
    do {                          \
        QUARTER(x, 0, 4, 8, 12);  \
        QUARTER(x, 1, 5, 9, 13);  \
        QUARTER(x, 2, 6, 10, 14); \
        QUARTER(x, 3, 7, 11, 15); \
    } while (0)
#define DIAGONALS(x)              \
    do {                          \
        QUARTER(x, 0, 5, 10, 15); \
        QUARTER(x, 1, 6, 11, 12); \
        QUARTER(x, 2, 7, 8, 13);  \
        QUARTER(x, 3, 4, 9, 14);  \
    } while (0)

/* The high counter word changes once in 256 GiB: only then is the part of round 1 without the low word done again. Batches
 * start at multiples of eight blocks, so the low word never overflows within one. */
static void set_high_counter(drawer *d, uint32_t high) {
    d->initial[13] = spread32(high);
    __m256i *x = d->first_round;
    for (int i = 0; i < ROWS; i++) x[i] = d->initial[i];
    x[0] = add32(x[0], x[4]);
    QUARTER(x, 1, 5, 9, 13);
    QUARTER(x, 2, 6, 10, 14);
    QUARTER(x, 3, 7, 11, 15);
}

static void set_key(drawer *d, const uint8_t *seed) {
    static const uint32_t sigma[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    for (int i = 0; i < 4; i++) d->initial[i] = spread32(sigma[i]);
    for (int i = 0; i < 8; i++) d->initial[4 + i] = spread32(pet_load32(seed + 4 * i));
    d->initial[12] = d->initial[14] = d->initial[15] = _mm256_setzero_si256();
}

/* ---- from a batch to the chances of its draws ----------------------------------------------------------------------- */

/* All ones where the top word of a draw is not above the order's. Equality is left to `collect`. */
PET_INLINE __m256i has_chance(__m256i top, __m256i mask, __m256i limit) {
    top = _mm256_and_si256(top, mask);
    return _mm256_cmpeq_epi32(_mm256_min_epu32(top, limit), top);
}

/* Four rows of comparisons to bytes: byte 4 * (b mod 4) + i of half b / 4 is row i of block b. */
PET_INLINE __m256i pack_rows(__m256i row0, __m256i row1, __m256i row2, __m256i row3) {
    const __m256i by_block = twice(_mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0));
    __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(row0, row1), _mm256_packs_epi32(row2, row3));
    return _mm256_shuffle_epi8(packed, by_block);
}

PET_INLINE uint64_t bits_of(__m256i bytes) { return (uint32_t)_mm256_movemask_epi8(bytes); }
PET_INLINE uint64_t first16(uint64_t bits) { return bits & 0xffff; }
PET_INLINE uint64_t last16(uint64_t bits) { return bits >> 16; }

/* Rows packed by block to bits in the order of the stream: 4, 8 or 16 rows in 1, 2 or 4 vectors. */
PET_INLINE void to_stream_order(uint64_t chances[2], const __m256i *packed, const int vectors) {
    chances[1] = 0;
    if (vectors == 1) {
        chances[0] = bits_of(packed[0]);
        return;
    }
    __m256i low = _mm256_unpacklo_epi32(packed[0], packed[1]), high = _mm256_unpackhi_epi32(packed[0], packed[1]);
    if (vectors == 2) {
        const uint64_t blocks0145 = bits_of(low), blocks2367 = bits_of(high);
        chances[0] = first16(blocks0145) | first16(blocks2367) << 16 | last16(blocks0145) << 32 | last16(blocks2367) << 48;
        return;
    }
    __m256i low2 = _mm256_unpacklo_epi32(packed[2], packed[3]), high2 = _mm256_unpackhi_epi32(packed[2], packed[3]);
    const uint64_t blocks04 = bits_of(_mm256_unpacklo_epi64(low, low2)), blocks15 = bits_of(_mm256_unpackhi_epi64(low, low2));
    const uint64_t blocks26 = bits_of(_mm256_unpacklo_epi64(high, high2)),
                   blocks37 = bits_of(_mm256_unpackhi_epi64(high, high2));
    chances[0] = first16(blocks04) | first16(blocks15) << 16 | first16(blocks26) << 32 | first16(blocks37) << 48;
    chances[1] = last16(blocks04) | last16(blocks15) << 16 | last16(blocks26) << 32 | last16(blocks37) << 48;
}

PET_INLINE void find_chances(drawer *d, const __m256i x[ROWS], const draw_layout layout) {
    const __m256i mask = spread32(d->top_mask), limit = spread32(d->top_limit);
    const int width = layout == FOUR_WORDS ? 4 : layout == TWO_WORDS ? 2 : 1, vectors = 4 / width;
    __m256i packed[4];
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) {
        const __m256i *top = x + 4 * width * i + width - 1;
        packed[i] = pack_rows(has_chance(top[0], mask, limit), has_chance(top[width], mask, limit),
                              has_chance(top[2 * width], mask, limit), has_chance(top[3 * width], mask, limit));
    }
    to_stream_order(d->chances, packed, vectors);
    if (layout == STRADDLING) {
        d->chances[0] &= d->top_words[d->first_top][0];
        d->chances[1] &= d->top_words[d->first_top][1];
        d->first_top = (d->first_top + 1) % 3; /* 128 is 2 modulo 3; for other widths all three are the same */
    }
}

/* ---- collecting ----------------------------------------------------------------------------------------------------- */

/* Where word w of the last batch is. The three words before it (w from -3) are at the slots that this formula gives, too. */
PET_INLINE unsigned slot_of(int w) { return (unsigned)((w & 15) * ROW_STRIDE + (w >> 4)); }

PET_INLINE uint64_t pair(const uint32_t *words, unsigned slot, unsigned next) {
    return words[slot] | (uint64_t)words[next] << 32;
}

/* Read one draw: number i of the batch, or, in layouts ONE_WORD and STRADDLING, the one whose top is word i. Returns 1 if it is
 * below the order. */
PET_INLINE size_t collect(const drawer *d, int i, uint64_t *low, uint64_t *high, const draw_layout layout) {
    uint64_t value, value_high = 0;
    if (layout == ONE_WORD) {
        value = d->words[slot_of(i)] & d->mask_low;
    } else if (layout == TWO_WORDS) {
        unsigned slot = slot_of(2 * i);
        value = pair(d->words, slot, slot + ROW_STRIDE) & d->mask_low;
    } else if (layout == FOUR_WORDS) {
        unsigned slot = slot_of(4 * i);
        value = pair(d->words, slot, slot + ROW_STRIDE);
        value_high = pair(d->words, slot + 2 * ROW_STRIDE, slot + 3 * ROW_STRIDE) & d->mask_high;
    } else {
        const uint8_t *slot = d->slots - FIRST_SLOT + i + 1 - (int)d->words_per_draw;
        value = pair(d->words, slot[0], slot[1]) & d->mask_low;
        value_high = pair(d->words, slot[2], slot[3]) & d->mask_high;
    }
    *low = value;
    if (layout == ONE_WORD || layout == TWO_WORDS) return value < d->order_low;
    *high = value_high;
    return wide(value_high, value) < wide(d->order_high, d->order_low);
}

/* Collect the first draw of `chances` and strike it out. With none left the step is fruitless but harmless, so a fixed
 * number of steps needs no branch. Whether a draw is below the order steers nothing but the place of the next one. */
PET_INLINE size_t step(const drawer *d, uint64_t *chances, int offset, uint64_t *low, uint64_t *high,
                       const draw_layout layout) {
    const size_t is_left = *chances != 0;
    const int index = (int)_tzcnt_u64(*chances) + offset;
    *chances = _blsr_u64(*chances);
    return collect(d, index, low, high, layout) & is_left;
}

/* Compute the next batch, and meanwhile collect everything that the last one still has. Returns how many draws that gave. */
PET_INLINE size_t next_batch_with(drawer *d, uint64_t *restrict low, uint64_t *restrict high, const draw_layout layout) {
    const int halves = counts_words(layout);
    uint64_t chances = d->chances[0];
    size_t count = 0;
    if ((uint32_t)(d->next_number << 3) == 0) set_high_counter(d, (uint32_t)(d->next_number >> 29));
    const __m256i counter = add32(spread32((uint32_t)(d->next_number << 3)), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
    __m256i x[ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) x[i] = d->first_round[i];
    x[12] = counter;
    QUARTER_REST(x, 0, 4, 8, 12);
    DIAGONALS(x);
#pragma GCC unroll 9
    for (int i = 0; i < 9; i++) {
        const int offset = halves && i > 4 ? 64 : 0;
        for (unsigned k = d->steps; k > 0; k--) count += step(d, &chances, offset, low + count, high + count, layout);
        if (halves && i == 4) {
            while (chances) count += step(d, &chances, 0, low + count, high + count, layout);
            chances = d->chances[1];
        }
        COLUMNS(x);
        DIAGONALS(x);
    }
    while (chances) count += step(d, &chances, halves ? 64 : 0, low + count, high + count, layout);

    if (layout == STRADDLING) {
        for (int w = -3; w < 0; w++) d->words[slot_of(w)] = d->words[slot_of(BATCH_WORDS + w)];
    }
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) {
        x[i] = add32(x[i], i == 12 ? counter : d->initial[i]);
        _mm256_store_si256((__m256i *)(d->words + ROW_STRIDE * i), x[i]);
    }
    find_chances(d, x, layout);
    d->base = d->next_number++ * BATCH_WORDS;
    return count;
}

/* One function for each layout: in each the branches on the layout are gone. */
static size_t next_batch_one_word(drawer *d, uint64_t *low, uint64_t *high) { return next_batch_with(d, low, high, ONE_WORD); }
static size_t next_batch_two_words(drawer *d, uint64_t *low, uint64_t *high) {
    return next_batch_with(d, low, high, TWO_WORDS);
}
static size_t next_batch_four_words(drawer *d, uint64_t *low, uint64_t *high) {
    return next_batch_with(d, low, high, FOUR_WORDS);
}
static size_t next_batch_straddling(drawer *d, uint64_t *low, uint64_t *high) {
    return next_batch_with(d, low, high, STRADDLING);
}

/* Collect up to `length` draws of the last batch and keep the rest. Returns how many it was; each step is checked, so this is
 * for the end of a vector only, and it alone tells the position. */
static size_t take(drawer *d, uint64_t *low, uint64_t *high, size_t length) {
    const int halves = counts_words(d->layout);
    size_t count = 0;
    for (int half = 0; half < 1 + halves; half++) {
        while (d->chances[half] && count < length) {
            int index = (int)_tzcnt_u64(d->chances[half]) + 64 * half;
            d->chances[half] = _blsr_u64(d->chances[half]);
            if (!collect(d, index, low + count, high + count, d->layout)) continue;
            count++;
            d->position = d->base + (halves ? (uint64_t)index + 1 : (uint64_t)(index + 1) * d->words_per_draw);
        }
    }
    return count;
}

/* The next `length` draws: bits 0 to 63 to low, where the order has more than 64 bits the rest to high (otherwise high may be
 * left as it is). */
static void draw(drawer *d, uint64_t *low, uint64_t *high, size_t length) {
    while (length > 0) {
        size_t most = (size_t)(_mm_popcnt_u64(d->chances[0]) + _mm_popcnt_u64(d->chances[1]));
        /* The last draw must come through `take`, which notes the position. */
        size_t count = most < length ? d->next_batch(d, low, high) : take(d, low, high, length);
        low += count;
        high += count;
        length -= count;
    }
}

/* ---- starting ------------------------------------------------------------------------------------------------------- */

static uint64_t low_bits(size_t count) { return count >= 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1; }

/* As many steps between two double rounds as collect nearly every batch: the mean and 2.5 standard deviations. With a word for
 * every bit, half of the draws have four of the nine gaps between double rounds. */
static unsigned steps_for(const pet_order *order, draw_layout layout) {
    const int halves = counts_words(layout);
    double acceptance = 0; /* order / 256^draw_bytes */
    for (size_t i = 0; i < order->draw_bytes; i++)
        acceptance = (acceptance + (double)(order->limbs[i / 8] >> 8 * (i % 8) & 0xff)) / 256;
    double mean = (double)BATCH_WORDS / (double)order->words_per_draw / (1 + halves) * acceptance;
    double enough = mean + 2.5 * _mm_cvtsd_f64(_mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(mean)));
    return 1 + (unsigned)(enough / (halves ? 4 : 9));
}

static void set_order(drawer *d, const pet_order *order, uint64_t position) {
    const unsigned width = (unsigned)order->words_per_draw;
    const size_t top_bytes = order->draw_bytes - 4 * (width - 1), bits = 8 * order->draw_bytes;
    d->words_per_draw = width;
    d->order_low = order->limbs[0];
    d->order_high = order->limbs[1];
    d->mask_low = low_bits(bits);
    d->mask_high = bits > 64 ? low_bits(bits - 64) : 0;
    d->top_mask = (uint32_t)low_bits(8 * top_bytes);
    d->top_limit = (uint32_t)(order->limbs[(width - 1) / 2] >> (32 * ((width - 1) % 2)));
    const int aligned = width != 3 && position % width == 0;
    d->layout = !aligned ? STRADDLING : width == 1 ? ONE_WORD : width == 2 ? TWO_WORDS : FOUR_WORDS;
    d->steps = steps_for(order, d->layout);
    const unsigned first_top = (unsigned)((position % BATCH_WORDS + width - 1) % width);
    memset(d->top_words, 0, sizeof d->top_words);
    for (unsigned i = 0; i < 3; i++)
        for (unsigned w = width == 3 ? i : first_top; w < BATCH_WORDS; w += width)
            d->top_words[i][w / 64] |= UINT64_C(1) << w % 64;
    d->first_top = width == 3 ? first_top : 0;
}

/* Start at a position of the keystream of a seed. */
static void start_drawing(drawer *d, const uint8_t *seed, uint64_t position, const pet_order *order) {
    static size_t (*const advance[])(drawer *, uint64_t *, uint64_t *) = {
        [ONE_WORD] = next_batch_one_word,
        [TWO_WORDS] = next_batch_two_words,
        [FOUR_WORDS] = next_batch_four_words,
        [STRADDLING] = next_batch_straddling,
    };
    set_key(d, seed);
    set_order(d, order, position);
    d->next_batch = advance[d->layout];
    memset(d->words, 0, sizeof d->words);
    for (int w = FIRST_SLOT; w < END_OF_SLOTS; w++) d->slots[w - FIRST_SLOT] = (uint8_t)slot_of(w);
    d->position = position;
    d->next_number = position / BATCH_WORDS;
    set_high_counter(d, (uint32_t)(d->next_number >> 29));
    d->chances[0] = d->chances[1] = 0;
    uint64_t unused[2];
    d->next_batch(d, &unused[0], &unused[1]);
    /* The stream starts within this batch: what lies before the position is used up. */
    size_t used = position % BATCH_WORDS;
    used = counts_words(d->layout) ? used + d->words_per_draw - 1 : used / d->words_per_draw;
    d->chances[0] &= ~low_bits(used);
    d->chances[1] &= ~low_bits(used > 64 ? used - 64 : 0);
}

#endif
