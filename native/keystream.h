/* The ChaCha20 keystream of a seed, a batch of blocks at a time; it knows neither draws nor an order. Included by a variant's
 * own file after avx2_draw.h, avx512_draw.h or neon_draw.h, which define
 *
 *   BLOCKS             how many blocks a batch has: 8 or 32
 *   row                the same word of each block, and on it spread_row, add_rows, xor_rows, rotate_row, count_up
 *
 * A batch is vertical: row r of it is one vector that holds word r of all blocks. It is computed in steps, to do
 * other things between the rounds: the rounds wait for each other, and scalar work in between is free. */
#ifndef PET_KEYSTREAM_H
#define PET_KEYSTREAM_H

#include "vectors.h"

enum {
    ROWS = 16, /* words of a block */
    BATCH_WORDS = ROWS * BLOCKS,
    GAPS = 9, /* between the double rounds */
};

typedef struct {
    row initial[ROWS];     /* the state before round 1, but for row 12, the low counter word */
    row first_round[ROWS]; /* the state with everything done in round 1 that does not depend on row 12 */
    uint64_t next_number;  /* of the next batch */
} keystream;

/* A quarter-round without its first addition. */
#define QUARTER_REST(x, a, b, c, d)                   \
    do {                                              \
        x[d] = rotate_row(xor_rows(x[d], x[a]), 16);  \
        x[c] = add_rows(x[c], x[d]);                  \
        x[b] = rotate_row(xor_rows(x[b], x[c]), 12);  \
        x[a] = add_rows(x[a], x[b]);                  \
        x[d] = rotate_row(xor_rows(x[d], x[a]), 8);   \
        x[c] = add_rows(x[c], x[d]);                  \
        x[b] = rotate_row(xor_rows(x[b], x[c]), 7);   \
    } while (0)
#define QUARTER(x, a, b, c, d)       \
    do {                             \
        x[a] = add_rows(x[a], x[b]); \
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
 * start at multiples of BLOCKS, so the low word never overflows within one. */
static void set_high_counter(keystream *stream, uint32_t high) {
    stream->initial[13] = spread_row(high);
    row *x = stream->first_round;
    for (int i = 0; i < ROWS; i++) x[i] = stream->initial[i];
    x[0] = add_rows(x[0], x[4]);
    QUARTER(x, 1, 5, 9, 13);
    QUARTER(x, 2, 6, 10, 14);
    QUARTER(x, 3, 7, 11, 15);
}

/* Start at a batch of the keystream of a seed. */
static void start_keystream(keystream *stream, const uint8_t *seed, uint64_t number) {
    static const uint32_t sigma[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    row *x = stream->initial;
    for (int i = 0; i < 4; i++) x[i] = spread_row(sigma[i]);
    for (int i = 0; i < 8; i++) x[4 + i] = spread_row(pet_load32(seed + 4 * i));
    x[12] = x[14] = x[15] = spread_row(0);
    stream->next_number = number;
    set_high_counter(stream, (uint32_t)(number * BLOCKS >> 32));
}

/* The first double round of the next batch, whose blocks stand in the lanes as `order` says (count_up, or another order of the
 * same numbers); returns its low counter words. */
PET_INLINE row begin_batch(keystream *stream, row x[ROWS], row order) {
    const uint32_t first_block = (uint32_t)(stream->next_number * BLOCKS);
    if (first_block == 0) set_high_counter(stream, (uint32_t)(stream->next_number * BLOCKS >> 32));
    stream->next_number++;
    const row counter = add_rows(spread_row(first_block), order);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) x[i] = stream->first_round[i];
    x[12] = counter;
    QUARTER_REST(x, 0, 4, 8, 12);
    DIAGONALS(x);
    return counter;
}

/* One of the other nine. */
PET_INLINE void double_round(row x[ROWS]) {
    COLUMNS(x);
    DIAGONALS(x);
}

PET_INLINE void end_batch(const keystream *stream, row x[ROWS], row counter) {
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) x[i] = add_rows(x[i], i == 12 ? counter : stream->initial[i]);
}

#endif
