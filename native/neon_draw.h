/* What drawing needs of NEON: eight blocks as pairs of vectors of 128 bits, and the comparison of their words with an order.
 * Part of neon.c, included nowhere else; the drawing itself is in vertical_draw.h.
 *
 * Pairs, because the rounds of one vector wait for their own results: two fill each other's gaps, and 32 registers hold both
 * states. */
#ifndef PET_NEON_DRAW_H
#define PET_NEON_DRAW_H

#include "neon_elements.h"

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

/* Set the bit in each lane whose masked word is not above the limit. */
PET_INLINE uint32x4_t add_bit(uint32x4_t bits, uint32x4_t top, uint32x4_t mask, uint32x4_t limit, uint32_t bit) {
    return vorrq_u32(bits, vandq_u32(vcleq_u32(vandq_u32(top, mask), limit), vdupq_n_u32(bit)));
}

/* A bit for each draw of `width` aligned words (1, 2 or 4), in the order of the stream: 1 where the masked top word is not
 * above the limit. Each lane gathers the bits of its block, row by row; then the lanes have only to be narrowed. */
PET_INLINE void find_chances(uint64_t chances[2], const row x[16], uint32_t top_mask, uint32_t top_limit, const int width) {
    const uint32x4_t mask = vdupq_n_u32(top_mask), limit = vdupq_n_u32(top_limit);
    row bits = spread_row(0);
#pragma GCC unroll 16
    for (int i = 0; i < 16 / width; i++) {
        const row top = x[width * i + width - 1];
        bits.first = add_bit(bits.first, top.first, mask, limit, UINT32_C(1) << i);
        bits.second = add_bit(bits.second, top.second, mask, limit, UINT32_C(1) << i);
    }
    const uint16x8_t by_block = vcombine_u16(vmovn_u32(bits.first), vmovn_u32(bits.second));
    if (width == 1) {
        vst1q_u64(chances, vreinterpretq_u64_u16(by_block));
        return;
    }
    uint64_t narrow = vget_lane_u64(vreinterpret_u64_u8(vmovn_u16(by_block)), 0);
    if (width == 4) { /* four bits of each byte */
        narrow = (narrow | narrow >> 4) & UINT64_C(0x00ff00ff00ff00ff);
        narrow = (narrow | narrow >> 8) & UINT64_C(0x0000ffff0000ffff);
        narrow = (narrow | narrow >> 16) & UINT64_C(0x00000000ffffffff);
    }
    chances[0] = narrow;
    chances[1] = 0;
}

#endif
