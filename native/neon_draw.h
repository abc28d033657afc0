/* What drawing needs of NEON: eight blocks as pairs of vectors (neon_rows.h), and the comparison of their words with an order.
 * Part of neon.c, included nowhere else; the drawing itself is in vertical_draw.h. */
#ifndef PET_NEON_DRAW_H
#define PET_NEON_DRAW_H

#include "neon_elements.h"
#include "neon_rows.h"

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
