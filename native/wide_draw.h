/* Drawing elements of many words from a keystream; it knows seeds, positions and an order, and never what the draws are for.
 * Included by a variant's own file after avx2_wide.h or avx512_wide.h.
 *
 * A draw is longer than a block may have left, so here a batch is put into the order of the stream, and what was left of the
 * last batch lies before it: every draw is one run of words.
 *
 *      the last words of the batch before      | the batch                                          | zeros
 *      ... [ a draw of ten words across the border ] [ the next one           ] [ ...
 *                                                  ^ its top word                          ^
 *
 * As with short draws the top word is looked at first, and that between the rounds of the next batch; so there are two buffers.
 * What has a chance is copied and compared with the order as a whole, several words at once: of the words that differ from the
 * order's, the highest decides, so with a bit for each word that is below and for each that is above, the larger of these two
 * numbers does. */
#ifndef PET_WIDE_DRAW_H
#define PET_WIDE_DRAW_H

#include "keystream.h"

enum {
    MIN_WORDS = 4, /* of a draw whose totals have more than two planes */
    MAX_WORDS = (PET_MAX_ORDER_BYTES / 4 + 2 + 15) / 16 * 16, /* of a draw, or of the planes of an element; whole chunks */
    STREAM_WORDS = MAX_WORDS + BATCH_WORDS + MAX_WORDS,
};

typedef struct {
    keystream stream;
    uint32_t words[2][STREAM_WORDS];
    uint32_t order[MAX_WORDS], mask[MAX_WORDS]; /* mask: which bits of the words are the draw's */
    uint16_t tops[BATCH_WORDS / MIN_WORDS + 1]; /* the top words of draws with a chance */
    size_t next, end;                             /* which of them are still to collect */
    uint64_t base;                                /* the position of the batch that they are in */
    uint64_t position;                            /* behind the last draw that was handed out */
    const uint32_t *batch;                        /* that batch */
    int newest;                                   /* which buffer has the batch after it */
    size_t first_top;                             /* in the newest batch, from its start */
    unsigned words_per_draw, chunks, steps;
} wide_drawer;

/* As many bytes behind an element are overwritten, at most, by copying it. */
enum { COPY_SLACK = 4 * MAX_WORDS };

/* Bytes that a copied draw takes. */
PET_INLINE size_t copied_bytes(const wide_drawer *d) { return sizeof(uint32_t) * CHUNK_WORDS * d->chunks; }

/* Compute a batch, and meanwhile list the draws of the newest that have a chance. Then that one is to collect, and the one
 * just computed the newest. */
static void next_wide_batch(wide_drawer *d) {
    const uint32_t *batch = d->words[d->newest] + MAX_WORDS;
    const uint32_t top_mask = d->mask[d->words_per_draw - 1], top_limit = d->order[d->words_per_draw - 1];
    uint32_t *next = d->words[1 - d->newest];
    size_t top = d->first_top, count = 0;
    row x[ROWS];
    const row counter = begin_batch(&d->stream, x, count_up());
#pragma GCC unroll 9
    for (int i = 0; i < GAPS; i++) {
        for (unsigned k = d->steps; k > 0; k--) {
            /* With none left a step stays where it is, in the zeros behind the batch. */
            const size_t is_inside = top < BATCH_WORDS;
            d->tops[count] = (uint16_t)top;
            count += ((batch[top] & top_mask) <= top_limit) & is_inside;
            top += d->words_per_draw & (0 - is_inside);
        }
        double_round(x);
    }
    end_batch(&d->stream, x, counter);
    memcpy(next, batch + BATCH_WORDS - MAX_WORDS, MAX_WORDS * sizeof *next);
    store_stream(next + MAX_WORDS, x);
    d->batch = batch;
    d->base = (d->stream.next_number - 2) * BATCH_WORDS;
    d->newest = 1 - d->newest;
    d->first_top = top - BATCH_WORDS;
    d->next = 0;
    d->end = count;
}

/* Copy a draw, with zeros behind it; 1 if it is below the order. */
PET_INLINE size_t copy_draw(const wide_drawer *d, uint8_t *target, const uint32_t *draw) {
    uint32_t is_below = 0;
    for (unsigned i = 0; i < CHUNK_WORDS * d->chunks; i += CHUNK_WORDS) {
        uint32_t below, above;
        copy_chunk(target + sizeof *draw * i, draw + i, d->mask + i, d->order + i, &below, &above);
        is_below = (below > above) | ((below == above) & is_below);
    }
    return is_below;
}

/* The next `length` draws, `stride` bytes apart. Zeros follow each up to copied_bytes, until the next overwrites them. */
static void draw_wide(wide_drawer *d, uint8_t *elements, size_t stride, size_t length) {
    while (length > 0) {
        while (d->next < d->end && length > 0) {
            const size_t top = d->tops[d->next++];
            const size_t is_below = copy_draw(d, elements, d->batch + top + 1 - d->words_per_draw);
            if (is_below) d->position = d->base + top + 1;
            elements += stride & (0 - is_below);
            length -= is_below;
        }
        if (length > 0) next_wide_batch(d);
    }
}

/* Start at a position of the keystream of a seed. */
static void start_wide(wide_drawer *d, const uint8_t *seed, uint64_t position, const pet_order *order) {
    const size_t words = order->words_per_draw, top_bytes = order->draw_bytes - 4 * (words - 1);
    const size_t room = words > 2 * order->planes ? words : 2 * order->planes;
    memset(d->words, 0, sizeof d->words);
    memset(d->mask, 0, sizeof d->mask);
    memset(d->mask, 0xff, (words - 1) * sizeof d->mask[0]);
    d->mask[words - 1] = UINT32_MAX >> (32 - 8 * top_bytes);
    for (size_t i = 0; i < MAX_WORDS; i++)
        d->order[i] = i < words ? (uint32_t)(order->limbs[i / 2] >> (32 * (i % 2))) : 0;
    d->words_per_draw = (unsigned)words;
    d->chunks = (unsigned)((room + CHUNK_WORDS - 1) / CHUNK_WORDS);
    d->steps = (unsigned)((BATCH_WORDS + words - 1) / words + GAPS - 1) / GAPS;
    d->position = position;
    d->newest = 0;
    start_keystream(&d->stream, seed, position / BATCH_WORDS);
    d->first_top = BATCH_WORDS; /* there is no batch yet to look at */
    next_wide_batch(d);
    d->first_top = position % BATCH_WORDS + words - 1;
}

#endif
