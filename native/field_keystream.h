/* Expansions of pet-1 from vertical batches of keystream: a row holds one word of neighbouring blocks, and these are neighbouring
 * elements. Part of field_loops.h.
 *
 * The final addition of ChaCha20 also raises a narrow draw by what the order lacks to 2^32: a draw that is not below the order
 * wraps, and a sum with what stands in the vector carries where it passes the order. */
#ifndef PET_FIELD_KEYSTREAM_H
#define PET_FIELD_KEYSTREAM_H

#include "keystream.h"

enum { HALVES = PET_BATCH_BLOCKS / BLOCKS }; /* of a batch of pet-1 */

typedef struct {
    keystream stream;
    row last[ROWS]; /* the final additions, and for row 12 what is added to its counter words */
} expansion;

/* Start at a batch of pet-1. */
PET_INLINE void start_expansion(expansion *e, const uint8_t *key, uint64_t batch, const pet_field *field, const int is_wide) {
    const row raised = spread_row(is_wide ? 0 : (uint32_t)(0 - field->order));
    start_keystream(&e->stream, key, batch * HALVES);
    for (int i = 0; i < ROWS; i++) e->last[i] = i == 12 ? raised : add_rows(e->stream.initial[i], raised);
}

/* Put the rows of a half in their places in a batch of elements: add them there, or just store what they hold. */
PET_INLINE void place_rows(uint8_t *batch, const row x[ROWS], int half, const modulus *m, const int adds, const int is_wide) {
    uint8_t *target = batch + half * BLOCKS * (int)pet_field_width(is_wide);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) {
        /* A row of narrow elements, or one of the two halves of the elements that two rows make. */
        enum { OF_NARROW = 4 * PET_BATCH_BLOCKS, OF_WIDE = 8 * PET_BATCH_BLOCKS };
#pragma GCC unroll 2
        for (int k = 0; k < ROW_VECTORS; k++) {
            const int wide_half = i % 2 * ROW_VECTORS + k;
            uint8_t *place = is_wide ? target + i / 2 * OF_WIDE + wide_half * VECTOR_BYTES : target + i * OF_NARROW + k * VECTOR_BYTES;
            lanes values = is_wide ? interleaved(x[i / 2 * 2], x[i / 2 * 2 + 1], wide_half) : row_vector(x[i], k);
            if (adds) {
                if (is_wide) values = raise(values, m, 1);
                values = plus_raised(load(place), values, m, is_wide);
            }
            store(place, values);
        }
    }
}

/* Add a half in which a draw may not be below the order, one element after the other. Out of line: it is rare. */
static __attribute__((noinline)) void add_repaired(uint8_t *batch, const row x[ROWS], int half, const uint8_t *key, uint64_t index,
                                                   const pet_field *field) {
    uint8_t drawn[PET_BATCH_BYTES];
    const int is_wide = field->is_wide;
    const modulus m = modulus_of(field, is_wide);
    if (is_wide) place_rows(drawn, x, half, &m, 0, 1);
    else place_rows(drawn, x, half, &m, 0, 0);
    for (size_t i = 0; i < pet_batch_length(is_wide); i++) {
        if ((int)(i % PET_BATCH_BLOCKS) / BLOCKS != half) continue;
        uint64_t value = pet_field_load(drawn, i, is_wide);
        if (!is_wide) value = (uint32_t)(value + field->order); /* not raised any longer, modulo 2^32 */
        /* The retry: it says nothing about the element that takes its place. */
        if (value >= field->order) value = pet_field_draw_again(key, index + i, field);
        pet_field_store(batch, i, pet_field_plus(pet_field_load(batch, i, is_wide), value, field->order), is_wide);
    }
}

enum { FETCHED_AHEAD = 2 * PET_BATCH_BYTES };

/* Ask for what the batch after the next will be added to: across the rounds in between, no load is seen early enough. */
PET_INLINE void fetch_ahead(const uint8_t *batch) {
    const uintptr_t address = (uintptr_t)batch + FETCHED_AHEAD;
#pragma GCC unroll 16
    for (int i = 0; i < PET_BATCH_BYTES; i += 64) __builtin_prefetch((const void *)(address + (uintptr_t)i), 1);
}

/* Add the next batch, whose first element is `index`. */
PET_INLINE void add_batch(uint8_t *batch, expansion *e, const uint8_t *key, uint64_t index, const modulus *m,
                          const pet_field *field, const int is_wide) {
    fetch_ahead(batch);
    for (int half = 0; half < HALVES; half++) {
        row x[ROWS];
        const row counter = begin_batch(&e->stream, x, block_order(is_wide));
#pragma GCC unroll 9
        for (int gap = 0; gap < GAPS; gap++) double_round(x);
        /* The least raised narrow draw, or the greatest top word of a wide one: where that is the order's, all are looked at. */
        row seen = spread_row(is_wide ? 0 : UINT32_MAX);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++) {
            if (i == 12) x[i] = add_rows(x[i], counter);
            x[i] = add_rows(x[i], e->last[i]);
            if (!is_wide) seen = least_words(seen, x[i]);
            else if (i % 2) seen = most_words(seen, x[i]);
        }
        const int may_repeat = is_wide ? any_not_below(seen, (uint32_t)(field->order >> 32))
                                       : any_below(seen, (uint32_t)(0 - field->order));
        if (__builtin_expect(may_repeat, 0)) {
            row copy[ROWS]; /* so that x need not be in memory */
            for (int i = 0; i < ROWS; i++) copy[i] = x[i];
            add_repaired(batch, copy, half, key, index, field);
        } else {
            place_rows(batch, x, half, m, 1, is_wide);
        }
    }
}

PET_INLINE void expand_add_with(uint8_t *vector, const uint8_t *key, uint64_t first, size_t length, const pet_field *field,
                                const int is_wide) {
    const size_t width = pet_field_width(is_wide), batch_length = pet_batch_length(is_wide);
    const modulus m = modulus_of(field, is_wide);
    expansion e;
    start_expansion(&e, key, first / batch_length, field, is_wide);
    for (size_t done = 0, count; done < length; done += count) {
        const uint64_t index = first + done;
        const size_t from = (size_t)(index % batch_length);
        uint8_t *target = vector + done * width;
        count = length - done < batch_length - from ? length - done : batch_length - from;
        if (count == batch_length) {
            add_batch(target, &e, key, index, &m, field, is_wide);
        } else { /* part of a batch */
            uint8_t drawn[PET_BATCH_BYTES] = {0};
            add_batch(drawn, &e, key, index - from, &m, field, is_wide);
            pet_portable_fields.add(target, drawn + from * width, count, field);
        }
    }
}

static void expand_add(uint8_t *vector, const uint8_t *key, uint64_t first, size_t length, const pet_field *field) {
    FOR_WIDTHS(field, expand_add_with, vector, key, first, length, field);
}

#endif
