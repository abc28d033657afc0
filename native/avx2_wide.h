/* What draws of many words need of AVX2: a batch of keystream put into stream order, the comparison of long integers, and sums
 * of four of them side by side. Part of avx2.c, included nowhere else; wide_draw.h and wide_loops.h use it. */
#ifndef PET_AVX2_WIDE_H
#define PET_AVX2_WIDE_H

#include "avx2_draw.h"
#include "keystream.h"

enum { CHUNK_WORDS = 8, SUM_LANES = 4 };

/* ---- the stream ------------------------------------------------------------------------------------------------------ */

/* Eight rows of eight blocks to eight words of each block, 16 words apart. */
PET_INLINE void transpose_half(uint32_t *words, const row *x) {
    row pairs[8], fours[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        pairs[2 * i] = _mm256_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        store_row(words + ROWS * i, _mm256_permute2x128_si256(fours[i], fours[4 + i], 0x20));
        store_row(words + ROWS * (4 + i), _mm256_permute2x128_si256(fours[i], fours[4 + i], 0x31));
    }
}

/* The words of a batch in the order of the stream. */
PET_INLINE void store_stream(uint32_t *words, const row x[ROWS]) {
    transpose_half(words, x);
    transpose_half(words + 8, x + 8);
}

/* Copy the words of a chunk that the mask leaves; a bit for each that is below, or above, the same word of the order. */
PET_INLINE void copy_chunk(uint8_t *target, const uint32_t *source, const uint32_t *mask, const uint32_t *order,
                           uint32_t *below, uint32_t *above) {
    const __m256i limit = _mm256_load_si256((const __m256i *)order);
    const __m256i x = _mm256_and_si256(_mm256_loadu_si256((const __m256i *)source), _mm256_load_si256((const __m256i *)mask));
    const __m256i at_most = _mm256_cmpeq_epi32(_mm256_min_epu32(x, limit), x);
    const uint32_t equal = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(x, limit)));
    const uint32_t not_above = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(at_most));
    _mm256_storeu_si256((__m256i *)target, x);
    *below = not_above & ~equal;
    *above = not_above ^ 0xff;
}

/* ---- sums of four integers side by side, a 64-bit plane at a time ------------------------------------------------------ */

typedef __m256i plane;
typedef __m256i carries; /* all ones in each lane with a carry or a borrow */

PET_INLINE plane spread_plane(uint64_t x) { return spread64(x); }
PET_INLINE carries no_carries(void) { return _mm256_setzero_si256(); }

PET_INLINE plane load_plane(const uint64_t *words, size_t left) {
    if (__builtin_expect(left >= SUM_LANES, 1)) return _mm256_loadu_si256((const __m256i *)words);
    return _mm256_maskload_epi64((const long long *)words, lanes_left(left));
}

PET_INLINE void store_plane(uint64_t *words, size_t left, plane x) {
    if (__builtin_expect(left >= SUM_LANES, 1))
        _mm256_storeu_si256((__m256i *)words, x);
    else
        _mm256_maskstore_epi64((long long *)words, lanes_left(left), x);
}

/* Four planes of four integers that lie one after the other, `stride` bytes apart. */
PET_INLINE void load_planes(plane planes[SUM_LANES], const uint8_t *integers, size_t stride) {
    plane x[4];
    for (int i = 0; i < 4; i++) x[i] = _mm256_loadu_si256((const __m256i *)(integers + (size_t)i * stride));
    const plane even01 = _mm256_unpacklo_epi64(x[0], x[1]), odd01 = _mm256_unpackhi_epi64(x[0], x[1]);
    const plane even23 = _mm256_unpacklo_epi64(x[2], x[3]), odd23 = _mm256_unpackhi_epi64(x[2], x[3]);
    planes[0] = _mm256_permute2x128_si256(even01, even23, 0x20);
    planes[1] = _mm256_permute2x128_si256(odd01, odd23, 0x20);
    planes[2] = _mm256_permute2x128_si256(even01, even23, 0x31);
    planes[3] = _mm256_permute2x128_si256(odd01, odd23, 0x31);
}

/* Where the carry comes in, a sum of 2^64 - 1 turns 0 and carries as well; it then has not carried before. */
PET_INLINE plane add_planes(plane a, plane b, carries *carry) {
    const plane sum = add64(a, b), result = sub64(sum, *carry);
    const carries turned = _mm256_and_si256(*carry, _mm256_cmpeq_epi64(result, _mm256_setzero_si256()));
    *carry = _mm256_or_si256(below64(sum, a), turned);
    return result;
}

PET_INLINE plane subtract_planes(plane a, plane b, carries *borrow) {
    const plane difference = sub64(a, b), result = add64(difference, *borrow);
    const carries turned = _mm256_and_si256(*borrow, _mm256_cmpeq_epi64(difference, _mm256_setzero_si256()));
    *borrow = _mm256_or_si256(below64(a, b), turned);
    return result;
}

PET_INLINE plane choose_plane(carries is_set, plane then, plane otherwise) {
    return _mm256_blendv_epi8(otherwise, then, is_set);
}

#endif
