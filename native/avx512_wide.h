/* What draws of many words need of AVX-512: a batch of keystream put into stream order, the comparison of long integers, and
 * sums of eight of them side by side. Part of avx512.c, included nowhere else; wide_draw.h and wide_loops.h use it. */
#ifndef PET_AVX512_WIDE_H
#define PET_AVX512_WIDE_H

#include "avx512_draw.h"
#include "keystream.h"

enum { CHUNK_WORDS = 16, SUM_LANES = 8 };

/* Four vectors of four times 128 bits: the i-th quarters of all of them become vector i. */
PET_INLINE void transpose_quarters(__m512i out[4], __m512i a, __m512i b, __m512i c, __m512i d) {
    const __m512i even_ab = _mm512_shuffle_i32x4(a, b, 0x88), odd_ab = _mm512_shuffle_i32x4(a, b, 0xdd);
    const __m512i even_cd = _mm512_shuffle_i32x4(c, d, 0x88), odd_cd = _mm512_shuffle_i32x4(c, d, 0xdd);
    out[0] = _mm512_shuffle_i32x4(even_ab, even_cd, 0x88);
    out[1] = _mm512_shuffle_i32x4(odd_ab, odd_cd, 0x88);
    out[2] = _mm512_shuffle_i32x4(even_ab, even_cd, 0xdd);
    out[3] = _mm512_shuffle_i32x4(odd_ab, odd_cd, 0xdd);
}

/* ---- the stream ------------------------------------------------------------------------------------------------------ */

/* Sixteen rows of sixteen blocks to the blocks one after the other. */
PET_INLINE void transpose_blocks(uint32_t *words, const __m512i x[ROWS]) {
    __m512i fours[16];
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        const __m512i low01 = _mm512_unpacklo_epi32(x[i], x[i + 1]), high01 = _mm512_unpackhi_epi32(x[i], x[i + 1]);
        const __m512i low23 = _mm512_unpacklo_epi32(x[i + 2], x[i + 3]), high23 = _mm512_unpackhi_epi32(x[i + 2], x[i + 3]);
        fours[i] = _mm512_unpacklo_epi64(low01, low23);
        fours[i + 1] = _mm512_unpackhi_epi64(low01, low23);
        fours[i + 2] = _mm512_unpacklo_epi64(high01, high23);
        fours[i + 3] = _mm512_unpackhi_epi64(high01, high23);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i blocks[4];
        transpose_quarters(blocks, fours[i], fours[4 + i], fours[8 + i], fours[12 + i]);
        for (int k = 0; k < 4; k++) _mm512_store_si512(words + ROWS * (4 * k + i), blocks[k]);
    }
}

/* The words of a batch in the order of the stream. */
PET_INLINE void store_stream(uint32_t *words, const row x[ROWS]) {
    __m512i first[ROWS], second[ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) {
        first[i] = x[i].first;
        second[i] = x[i].second;
    }
    transpose_blocks(words, first);
    transpose_blocks(words + 16 * ROWS, second);
}

/* Copy the words of a chunk that the mask leaves; a bit for each that is below, or above, the same word of the order. */
PET_INLINE void copy_chunk(uint8_t *target, const uint32_t *source, const uint32_t *mask, const uint32_t *order,
                           uint32_t *below, uint32_t *above) {
    const __m512i limit = _mm512_load_si512(order);
    const __m512i x = _mm512_and_si512(_mm512_loadu_si512(source), _mm512_load_si512(mask));
    _mm512_storeu_si512(target, x);
    *below = _mm512_cmplt_epu32_mask(x, limit);
    *above = _mm512_cmpgt_epu32_mask(x, limit);
}

/* ---- sums of eight integers side by side, a 64-bit plane at a time ----------------------------------------------------- */

typedef __m512i plane;
typedef __mmask8 carries; /* a bit for each lane with a carry or a borrow */

PET_INLINE plane spread_plane(uint64_t x) { return _mm512_set1_epi64((long long)x); }
PET_INLINE carries no_carries(void) { return 0; }

PET_INLINE __mmask8 first_lanes(size_t left) { return (__mmask8)(left >= SUM_LANES ? 0xff : (1u << left) - 1); }
PET_INLINE plane load_plane(const uint64_t *words, size_t left) { return _mm512_maskz_loadu_epi64(first_lanes(left), words); }
PET_INLINE void store_plane(uint64_t *words, size_t left, plane x) {
    _mm512_mask_storeu_epi64(words, first_lanes(left), x);
}

/* Eight planes of eight integers that lie one after the other, `stride` bytes apart. */
PET_INLINE void load_planes(plane planes[SUM_LANES], const uint8_t *integers, size_t stride) {
    plane even[4], odd[4], out[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        const plane a = _mm512_loadu_si512(integers + 2 * i * stride), b = _mm512_loadu_si512(integers + (2 * i + 1) * stride);
        even[i] = _mm512_unpacklo_epi64(a, b);
        odd[i] = _mm512_unpackhi_epi64(a, b);
    }
    transpose_quarters(out, even[0], even[1], even[2], even[3]);
    for (int i = 0; i < 4; i++) planes[2 * i] = out[i];
    transpose_quarters(out, odd[0], odd[1], odd[2], odd[3]);
    for (int i = 0; i < 4; i++) planes[2 * i + 1] = out[i];
}

/* Where the carry comes in, a sum of 2^64 - 1 turns 0 and carries as well; it then has not carried before. */
PET_INLINE plane add_planes(plane a, plane b, carries *carry) {
    const plane sum = _mm512_add_epi64(a, b), ones = spread_plane(UINT64_MAX);
    const carries came_in = *carry;
    *carry = (carries)(_mm512_cmplt_epu64_mask(sum, a) | _mm512_mask_cmpeq_epi64_mask(came_in, sum, ones));
    return _mm512_mask_sub_epi64(sum, came_in, sum, ones);
}

PET_INLINE plane subtract_planes(plane a, plane b, carries *borrow) {
    const plane difference = _mm512_sub_epi64(a, b);
    const carries came_in = *borrow;
    *borrow = (carries)(_mm512_cmplt_epu64_mask(a, b) | _mm512_mask_testn_epi64_mask(came_in, difference, difference));
    return _mm512_mask_add_epi64(difference, came_in, difference, spread_plane(UINT64_MAX));
}

PET_INLINE plane choose_plane(carries is_set, plane then, plane otherwise) {
    return _mm512_mask_mov_epi64(otherwise, is_set, then);
}

#endif
