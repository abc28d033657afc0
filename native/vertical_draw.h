/* Drawing elements from a ChaCha20 keystream, several blocks at once; it knows seeds, positions and an order, and never what
 * the draws are for. Included by a variant's own file after its avx2_draw.h, avx512_draw.h or neon_draw.h, which brings the row
 * of keystream.h, store_row and find_chances, the comparison of a batch with the order. For draws of up to four words;
 * wide_draw.h has the others.
 *
 * The blocks stay vertical: row r of a batch is one vector that holds word r of all of them.
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
#ifndef PET_VERTICAL_DRAW_H
#define PET_VERTICAL_DRAW_H

#include "keystream.h"

enum {
    PARTS = BATCH_WORDS / 64,       /* of a bit for each word */
    ROW_STRIDE = 2 * BLOCKS,        /* of the stored batch, in words: its lanes, then slack that a fruitless step may read */
    FIRST_SLOT = -3,                /* a draw whose top is in this batch may begin three words before it */
    END_OF_SLOTS = BATCH_WORDS + 3, /* and a fruitless step asks for the word behind the batch and two more */
    PART_SLOTS = 64 + 1,            /* a slot for each bit of a part, and one for a fruitless step */
    SLOTS = PARTS * PART_SLOTS > END_OF_SLOTS - FIRST_SLOT ? PARTS * PART_SLOTS : END_OF_SLOTS - FIRST_SLOT,
};

typedef enum { ONE_WORD, TWO_WORDS, FOUR_WORDS, STRADDLING } draw_layout;

typedef struct drawer drawer;
struct drawer {
    keystream stream;
    uint32_t words[(ROWS + 2) * ROW_STRIDE]; /* the last batch: word w at slot_of(w) */
    uint64_t chances[PARTS]; /* what of it is still to collect: a bit for each draw, or, where layouts need more, each word */
    uint64_t base;           /* the position of the last batch */
    uint64_t position;       /* behind the last draw that was handed out */
    uint64_t order_low, order_high, mask_low, mask_high;
    uint64_t top_words[3][PARTS]; /* STRADDLING: which words are the top of a draw, by the first such word of the batch */
    uint16_t slots[SLOTS]; /* slot_of, tabulated: for each draw, part by part; STRADDLING: for each word from FIRST_SLOT */
    uint32_t top_mask, top_limit;
    unsigned words_per_draw, first_top, steps;
    draw_layout layout;
    size_t (*next_batch)(drawer *, uint64_t *, uint64_t *); /* for this layout */
};

/* How many words a bit of chances[] stands for: those of a draw, or one. */
PET_INLINE int words_per_chance(draw_layout layout) { return layout == FOUR_WORDS ? 4 : layout == TWO_WORDS ? 2 : 1; }

/* How many of chances[] a layout uses. */
PET_INLINE int parts_of(draw_layout layout) {
    const int width = words_per_chance(layout);
    return PARTS > width ? PARTS / width : 1;
}

/* ---- collecting ----------------------------------------------------------------------------------------------------- */

/* Where word w of the last batch is. The three words before it (w from -3) are at the slots that this formula gives, too. */
PET_INLINE unsigned slot_of(int w) { return (unsigned)((w & 15) * ROW_STRIDE + (w >> 4)); }

PET_INLINE uint64_t pair(const uint32_t *words, unsigned slot, unsigned next) {
    return words[slot] | (uint64_t)words[next] << 32;
}

/* Read one draw: number i of a part, or, in layout STRADDLING, the one whose top is word i of the part. Returns 1 if it is
 * below the order. */
PET_INLINE size_t collect(const drawer *d, int part, int i, uint64_t *low, uint64_t *high, const draw_layout layout) {
    uint64_t value, value_high = 0;
    if (layout == STRADDLING) {
        const uint16_t *slot = d->slots - FIRST_SLOT + 64 * part + i + 1 - (int)d->words_per_draw;
        value = pair(d->words, slot[0], slot[1]) & d->mask_low;
        value_high = pair(d->words, slot[2], slot[3]) & d->mask_high;
    } else {
        const uint32_t *words = d->words + d->slots[PART_SLOTS * part + i];
        value = (layout == ONE_WORD ? words[0] : pair(words, 0, ROW_STRIDE)) & d->mask_low;
        if (layout == FOUR_WORDS) value_high = pair(words, 2 * ROW_STRIDE, 3 * ROW_STRIDE) & d->mask_high;
    }
    *low = value;
    if (layout == ONE_WORD || layout == TWO_WORDS) return value < d->order_low;
    *high = value_high;
    return wide(value_high, value) < wide(d->order_high, d->order_low);
}

/* Collect the first draw of `chances` and strike it out. With none left the step is fruitless but harmless, so a fixed
 * number of steps needs no branch: it reads words of ones behind the batch, which are not below any order. (Straddling draws
 * have no such place for each part, and ask.) Whether a draw is below the order steers nothing but the place of the next. */
PET_INLINE size_t step(const drawer *d, uint64_t *chances, int part, uint64_t *low, uint64_t *high, const draw_layout layout) {
    const size_t is_left = layout == STRADDLING ? *chances != 0 : 1;
    const int index = count_zeros(*chances);
    *chances &= *chances - 1;
    return collect(d, part, index, low, high, layout) & is_left;
}

/* Compute the next batch, and meanwhile collect everything that the last one still has. Returns how many draws that gave. */
PET_INLINE size_t next_batch_with(drawer *d, uint64_t *restrict low, uint64_t *restrict high, const draw_layout layout) {
    const int parts = parts_of(layout);
    uint64_t chances = d->chances[0];
    size_t count = 0;
    row x[ROWS];
    const row counter = begin_batch(&d->stream, x, count_up());
#pragma GCC unroll 9
    for (int i = 0; i < GAPS; i++) {
        const int part = i * parts / GAPS;
        if (part > 0 && (i - 1) * parts / GAPS < part) {
            while (chances) count += step(d, &chances, part - 1, low + count, high + count, layout);
            chances = d->chances[part];
        }
        for (unsigned k = d->steps; k > 0; k--) count += step(d, &chances, part, low + count, high + count, layout);
        double_round(x);
    }
    while (chances) count += step(d, &chances, parts - 1, low + count, high + count, layout);

    if (layout == STRADDLING) {
        for (int w = -3; w < 0; w++) d->words[slot_of(w)] = d->words[slot_of(BATCH_WORDS + w)];
    }
    end_batch(&d->stream, x, counter);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) store_row(d->words + ROW_STRIDE * i, x[i]);
    find_chances(d->chances, x, d->top_mask, d->top_limit, words_per_chance(layout));
    if (layout == STRADDLING) {
        for (int i = 0; i < PARTS; i++) d->chances[i] &= d->top_words[d->first_top][i];
        d->first_top = (d->first_top + 3 - BATCH_WORDS % 3) % 3; /* for other widths all three are the same */
    }
    d->base = (d->stream.next_number - 1) * BATCH_WORDS;
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
    size_t count = 0;
    for (int part = 0; part < parts_of(d->layout); part++) {
        while (d->chances[part] && count < length) {
            int index = count_zeros(d->chances[part]);
            d->chances[part] &= d->chances[part] - 1;
            if (!collect(d, part, index, low + count, high + count, d->layout)) continue;
            count++;
            d->position = d->base + (uint64_t)((64 * part + index + 1) * words_per_chance(d->layout));
        }
    }
    return count;
}

/* The next `length` draws: bits 0 to 63 to low, where the order has more than 64 bits the rest to high (otherwise high may be
 * left as it is). */
static void draw(drawer *d, uint64_t *low, uint64_t *high, size_t length) {
    while (length > 0) {
        size_t most = 0;
        for (int i = 0; i < PARTS; i++) most += (size_t)__builtin_popcountll(d->chances[i]);
        /* The last draw must come through `take`, which notes the position. */
        size_t count = most < length ? d->next_batch(d, low, high) : take(d, low, high, length);
        low += count;
        high += count;
        length -= count;
    }
}

/* ---- starting ------------------------------------------------------------------------------------------------------- */

static uint64_t low_bits(size_t count) { return count >= 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1; }

/* How many of the draws are below the order: order / 256^draw_bytes. */
static double acceptance_of(const pet_order *order) {
    double acceptance = 0;
    for (size_t i = 0; i < order->draw_bytes; i++)
        acceptance = (acceptance + (double)(order->limbs[i / 8] >> 8 * (i % 8) & 0xff)) / 256;
    return acceptance;
}

/* As many steps between two double rounds as collect nearly every part of a batch: the mean and 2.5 standard deviations. */
static unsigned steps_for(const pet_order *order, draw_layout layout) {
    const int parts = parts_of(layout);
    double mean = (double)BATCH_WORDS / (double)order->words_per_draw / parts * acceptance_of(order);
    double enough = mean;
    while ((enough - mean) * (enough - mean) < 2.5 * 2.5 * mean) enough += 0.25; /* the C library's root may not be there */
    return 1 + (unsigned)(enough / (GAPS / parts));
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

/* What lies behind the batch stays all ones. */
static void set_slots(drawer *d) {
    memset(d->words, 0xff, sizeof d->words);
    if (d->layout == STRADDLING) {
        for (int w = FIRST_SLOT; w < END_OF_SLOTS; w++) d->slots[w - FIRST_SLOT] = (uint16_t)slot_of(w);
        return;
    }
    for (int i = 0; i < PARTS * PART_SLOTS; i++) {
        const int draw = i / PART_SLOTS * 64 + i % PART_SLOTS, word = draw * (int)d->words_per_draw;
        d->slots[i] = (uint16_t)slot_of(i % PART_SLOTS == 64 || word > BATCH_WORDS ? BATCH_WORDS : word);
    }
}

/* Start at a position of the keystream of a seed. */
static void start_drawing(drawer *d, const uint8_t *seed, uint64_t position, const pet_order *order) {
    static size_t (*const advance[])(drawer *, uint64_t *, uint64_t *) = {
        [ONE_WORD] = next_batch_one_word,
        [TWO_WORDS] = next_batch_two_words,
        [FOUR_WORDS] = next_batch_four_words,
        [STRADDLING] = next_batch_straddling,
    };
    start_keystream(&d->stream, seed, position / BATCH_WORDS);
    set_order(d, order, position);
    d->next_batch = advance[d->layout];
    set_slots(d);
    d->position = position;
    memset(d->chances, 0, sizeof d->chances);
    uint64_t unused[2];
    d->next_batch(d, &unused[0], &unused[1]);
    /* The stream starts within this batch: what lies before the position is used up. */
    size_t used = position % BATCH_WORDS;
    if (d->layout == STRADDLING) used += d->words_per_draw - 1;
    used /= (size_t)words_per_chance(d->layout);
    for (size_t i = 0; i < PARTS; i++) d->chances[i] &= ~low_bits(used > 64 * i ? used - 64 * i : 0);
}

#endif
