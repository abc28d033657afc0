/* Eight blocks of keystream as vectors of 256 bits: what keystream.h asks for. */
#ifndef PET_AVX2_ROWS_H
#define PET_AVX2_ROWS_H

#include "avx2_integers.h"

enum { BLOCKS = 8 };
typedef __m256i row;

PET_INLINE row spread_row(uint32_t x) { return spread32(x); }
PET_INLINE row count_up(void) { return _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0); }
PET_INLINE row add_rows(row a, row b) { return _mm256_add_epi32(a, b); }
PET_INLINE row xor_rows(row a, row b) { return _mm256_xor_si256(a, b); }
PET_INLINE void store_row(uint32_t *words, row x) { _mm256_store_si256((__m256i *)words, x); }
PET_INLINE __m256i twice(__m128i x) { return _mm256_broadcastsi128_si256(x); }

/* AVX2 has no rotate: by 16 and 8 a byte shuffle is one operation instead of three. */
PET_INLINE row rotate_row(row x, const int distance) {
    const __m128i by16 = _mm_set_epi8(13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2);
    const __m128i by8 = _mm_set_epi8(14, 13, 12, 15, 10, 9, 8, 11, 6, 5, 4, 7, 2, 1, 0, 3);
    if (distance == 16) return _mm256_shuffle_epi8(x, twice(by16));
    if (distance == 8) return _mm256_shuffle_epi8(x, twice(by8));
    return _mm256_or_si256(_mm256_slli_epi32(x, distance), _mm256_srli_epi32(x, 32 - distance));
}

#endif
