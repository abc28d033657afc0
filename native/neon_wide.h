/* What draws of many words need of NEON: a batch of keystream put into stream order, the comparison of long integers, and sums
 * of two of them side by side. Part of neon.c, included nowhere else; wide_draw.h and wide_loops.h use it. */
#ifndef PET_NEON_WIDE_H
#define PET_NEON_WIDE_H

#include "neon_draw.h"
#include "keystream.h"

enum { CHUNK_WORDS = 4, SUM_LANES = 2 };

/* ---- the stream ------------------------------------------------------------------------------------------------------ */

/* Four rows of four blocks to four words of each block, 16 words apart. */
PET_INLINE void transpose4(uint32_t *words, uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
    const uint64x2_t even01 = vreinterpretq_u64_u32(vtrn1q_u32(a, b)), odd01 = vreinterpretq_u64_u32(vtrn2q_u32(a, b));
    const uint64x2_t even23 = vreinterpretq_u64_u32(vtrn1q_u32(c, d)), odd23 = vreinterpretq_u64_u32(vtrn2q_u32(c, d));
    vst1q_u32(words, vreinterpretq_u32_u64(vzip1q_u64(even01, even23)));
    vst1q_u32(words + ROWS, vreinterpretq_u32_u64(vzip1q_u64(odd01, odd23)));
    vst1q_u32(words + 2 * ROWS, vreinterpretq_u32_u64(vzip2q_u64(even01, even23)));
    vst1q_u32(words + 3 * ROWS, vreinterpretq_u32_u64(vzip2q_u64(odd01, odd23)));
}

/* The words of a batch in the order of the stream. */
PET_INLINE void store_stream(uint32_t *words, const row x[ROWS]) {
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; i += 4) {
        transpose4(words + i, x[i].first, x[i + 1].first, x[i + 2].first, x[i + 3].first);
        transpose4(words + 4 * ROWS + i, x[i].second, x[i + 1].second, x[i + 2].second, x[i + 3].second);
    }
}

/* Copy the words of a chunk that the mask leaves; a byte for each that is below, or above, the same word of the order. */
PET_INLINE void copy_chunk(uint8_t *target, const uint32_t *source, const uint32_t *mask, const uint32_t *order,
                           uint32_t *below_order, uint32_t *above_order) {
    const uint32x4_t limit = vld1q_u32(order), x = vandq_u32(vld1q_u32(source), vld1q_u32(mask));
    const uint16x8_t both = vcombine_u16(vmovn_u32(vcltq_u32(x, limit)), vmovn_u32(vcgtq_u32(x, limit)));
    const uint32x2_t bytes = vreinterpret_u32_u8(vmovn_u16(both));
    vst1q_u8(target, vreinterpretq_u8_u32(x));
    *below_order = vget_lane_u32(bytes, 0);
    *above_order = vget_lane_u32(bytes, 1);
}

/* ---- sums of two integers side by side, a 64-bit plane at a time -------------------------------------------------------- */

typedef uint64x2_t plane;
typedef uint64x2_t carries; /* all ones in each lane with a carry or a borrow */

PET_INLINE plane spread_plane(uint64_t x) { return vdupq_n_u64(x); }
PET_INLINE carries no_carries(void) { return vdupq_n_u64(0); }
PET_INLINE plane load_plane(const uint64_t *words, size_t left) { return load_words(words, left); }
PET_INLINE void store_plane(uint64_t *words, size_t left, plane x) { store_words(words, left, x); }

/* Two planes of two integers that lie one after the other, `stride` bytes apart. */
PET_INLINE void load_planes(plane planes[SUM_LANES], const uint8_t *integers, size_t stride) {
    const plane first = vreinterpretq_u64_u8(vld1q_u8(integers)), second = vreinterpretq_u64_u8(vld1q_u8(integers + stride));
    planes[0] = vzip1q_u64(first, second);
    planes[1] = vzip2q_u64(first, second);
}

/* Where the carry comes in, a sum of 2^64 - 1 turns 0 and carries as well; it then has not carried before. */
PET_INLINE plane add_planes(plane a, plane b, carries *carry) {
    const plane sum = vaddq_u64(a, b), result = vsubq_u64(sum, *carry);
    *carry = vorrq_u64(vcltq_u64(sum, a), vandq_u64(*carry, vceqzq_u64(result)));
    return result;
}

PET_INLINE plane subtract_planes(plane a, plane b, carries *borrow) {
    const plane difference = vsubq_u64(a, b), result = vaddq_u64(difference, *borrow);
    *borrow = vorrq_u64(vcltq_u64(a, b), vandq_u64(*borrow, vceqzq_u64(difference)));
    return result;
}

PET_INLINE plane choose_plane(carries is_set, plane then, plane otherwise) { return vbslq_u64(is_set, then, otherwise); }

#endif
