/* Integers of 64 bits in vectors of 256 bits, where AVX2 has no instruction of its own, and names for those that it has. */
#ifndef PET_AVX2_INTEGERS_H
#define PET_AVX2_INTEGERS_H

#include <immintrin.h>

#include "vectors.h"

PET_INLINE __m256i spread32(uint32_t x) { return _mm256_set1_epi32((int)x); }
PET_INLINE __m256i spread64(uint64_t x) { return _mm256_set1_epi64x((long long)x); }
PET_INLINE __m256i add64(__m256i a, __m256i b) { return _mm256_add_epi64(a, b); }
PET_INLINE __m256i sub64(__m256i a, __m256i b) { return _mm256_sub_epi64(a, b); }

/* Products of the low halves, and halves moved. */
PET_INLINE __m256i multiply32(__m256i a, __m256i b) { return _mm256_mul_epu32(a, b); }
PET_INLINE __m256i high_half(__m256i x) { return _mm256_srli_epi64(x, 32); }
PET_INLINE __m256i to_high_half(__m256i x) { return _mm256_slli_epi64(x, 32); }

/* The low halves of the products of 64 bits. */
PET_INLINE __m256i multiply64(__m256i a, __m256i b) {
    const __m256i crossed = _mm256_add_epi64(multiply32(high_half(a), b), multiply32(a, high_half(b)));
    return _mm256_add_epi64(multiply32(a, b), to_high_half(crossed));
}

/* All ones where a < b, unsigned: AVX2 compares signed numbers only. */
PET_INLINE __m256i below64(__m256i a, __m256i b) {
    const __m256i sign = spread64(UINT64_C(1) << 63);
    return _mm256_cmpgt_epi64(_mm256_xor_si256(b, sign), _mm256_xor_si256(a, sign));
}

#endif
