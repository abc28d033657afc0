/* What drawing needs of AVX-512: thirty-two blocks as pairs of vectors of 512 bits, and the comparison of their words with an
 * order. Part of avx512.c, included nowhere else; the drawing itself is in vertical_draw.h.
 *
 * Two vectors, because the rounds of one wait for their own results most of the time: the rounds of two fill each other's gaps,
 * and 32 registers hold both states. */
#ifndef PET_AVX512_DRAW_H
#define PET_AVX512_DRAW_H

#include "avx2_elements.h"

enum { BLOCKS = 32 };

/* Blocks 0 to 15, and 16 to 31. */
typedef struct {
    __m512i first, second;
} row;

typedef uint32_t sixteen __attribute__((vector_size(64)));

PET_INLINE __m512i spread16(uint32_t x) { return _mm512_set1_epi32((int)x); }
PET_INLINE row spread_row(uint32_t x) { return (row){spread16(x), spread16(x)}; }
PET_INLINE row count_up(void) {
    const __m512i first = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return (row){first, _mm512_add_epi32(first, spread16(16))};
}
PET_INLINE row add_rows(row a, row b) {
    return (row){_mm512_add_epi32(a.first, b.first), _mm512_add_epi32(a.second, b.second)};
}
PET_INLINE row xor_rows(row a, row b) {
    return (row){_mm512_xor_si512(a.first, b.first), _mm512_xor_si512(a.second, b.second)};
}
/* Written so, the distance may be a parameter; compilers make one rotation of it. */
PET_INLINE __m512i rotate16(__m512i x, const int distance) {
    return (__m512i)((sixteen)x << distance | (sixteen)x >> (32 - distance));
}
PET_INLINE row rotate_row(row x, const int distance) {
    return (row){rotate16(x.first, distance), rotate16(x.second, distance)};
}
PET_INLINE void store_row(uint32_t *words, row x) {
    _mm512_store_si512(words, x.first);
    _mm512_store_si512(words + 16, x.second);
}

/* Set the bit in each lane whose masked word is not above the limit. */
PET_INLINE __m512i add_bit(__m512i bits, __m512i top, __m512i mask, __m512i limit, uint32_t bit) {
    return _mm512_mask_or_epi32(bits, _mm512_cmple_epu32_mask(_mm512_and_si512(top, mask), limit), bits, spread16(bit));
}

/* Narrow lanes of 16, 8 or 4 bits and store them one after the other. */
PET_INLINE void store_bits(uint64_t *chances, __m512i bits, const int width) {
    if (width == 1) {
        _mm256_storeu_si256((__m256i *)chances, _mm512_cvtepi32_epi16(bits));
    } else if (width == 2) {
        _mm_storeu_si128((__m128i *)chances, _mm512_cvtepi32_epi8(bits));
    } else {
        bits = _mm512_or_si512(bits, _mm512_srli_epi64(bits, 28)); /* four bits of each of two lanes make a byte */
        _mm_storel_epi64((__m128i *)chances, _mm512_cvtepi64_epi8(bits));
    }
}

/* A bit for each draw of `width` aligned words (1, 2 or 4), in the order of the stream: 1 where the masked top word is not
 * above the limit. Each lane gathers the bits of its block, row by row; then the lanes have only to be narrowed. */
PET_INLINE void find_chances(uint64_t *chances, const row x[16], uint32_t top_mask, uint32_t top_limit, const int width) {
    const __m512i mask = spread16(top_mask), limit = spread16(top_limit);
    row bits = spread_row(0);
#pragma GCC unroll 16
    for (int i = 0; i < 16 / width; i++) {
        const row top = x[width * i + width - 1];
        bits.first = add_bit(bits.first, top.first, mask, limit, UINT32_C(1) << i);
        bits.second = add_bit(bits.second, top.second, mask, limit, UINT32_C(1) << i);
    }
    store_bits(chances, bits.first, width);
    store_bits(chances + 4 / width, bits.second, width);
}

#endif
