/* Eight blocks of keystream as pairs of vectors of 128 bits: what keystream.h asks for.
 *
 * Pairs, because the rounds of one vector wait for their own results: two fill each other's gaps, and 32 registers hold both
 * states. */
#ifndef PET_NEON_ROWS_H
#define PET_NEON_ROWS_H

#include <arm_neon.h>

#include "vectors.h"

enum { BLOCKS = 8 };

/* Blocks 0 to 3, and 4 to 7. */
typedef struct {
    uint32x4_t first, second;
} row;

PET_INLINE row spread_row(uint32_t x) { return (row){vdupq_n_u32(x), vdupq_n_u32(x)}; }
PET_INLINE row count_up(void) {
    static const uint32_t lanes[BLOCKS] = {0, 1, 2, 3, 4, 5, 6, 7};
    return (row){vld1q_u32(lanes), vld1q_u32(lanes + 4)};
}
PET_INLINE row add_rows(row a, row b) { return (row){vaddq_u32(a.first, b.first), vaddq_u32(a.second, b.second)}; }
PET_INLINE row xor_rows(row a, row b) { return (row){veorq_u32(a.first, b.first), veorq_u32(a.second, b.second)}; }
PET_INLINE void store_row(uint32_t *words, row x) {
    vst1q_u32(words, x.first);
    vst1q_u32(words + 4, x.second);
}

/* NEON has no rotate: by 16 it is the exchange of halves, by 8 a byte shuffle, else a shift and a shift that inserts. */
PET_INLINE uint32x4_t rotate4(uint32x4_t x, const int distance) {
    static const uint8_t by8[16] = {3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14};
    switch (distance) {
    case 16: return vreinterpretq_u32_u16(vrev32q_u16(vreinterpretq_u16_u32(x)));
    case 8: return vreinterpretq_u32_u8(vqtbl1q_u8(vreinterpretq_u8_u32(x), vld1q_u8(by8)));
    case 12: return vsriq_n_u32(vshlq_n_u32(x, 12), x, 20);
    default: return vsriq_n_u32(vshlq_n_u32(x, 7), x, 25); /* 7, the last distance of a quarter-round */
    }
}
PET_INLINE row rotate_row(row x, const int distance) {
    return (row){rotate4(x.first, distance), rotate4(x.second, distance)};
}

#endif
