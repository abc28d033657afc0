/* What drawing needs of AVX-512: sixteen blocks as vectors of 512 bits, and the comparison of their words with an order. Part
 * of avx512.c, included nowhere else; the drawing itself is in vertical_draw.h. */
#ifndef PET_AVX512_DRAW_H
#define PET_AVX512_DRAW_H

#include "avx2_elements.h"

enum { BLOCKS = 16 };
typedef __m512i row;

PET_INLINE row spread_row(uint32_t x) { return _mm512_set1_epi32((int)x); }
PET_INLINE row count_up(void) { return _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
PET_INLINE row add_rows(row a, row b) { return _mm512_add_epi32(a, b); }
PET_INLINE row xor_rows(row a, row b) { return _mm512_xor_si512(a, b); }
PET_INLINE void store_row(uint32_t *words, row x) { _mm512_store_si512(words, x); }

/* The instruction takes its distance as a constant in its encoding, so it is a macro. */
#define rotate_row(x, distance) _mm512_rol_epi32(x, distance)

/* A bit for each draw of `width` aligned words (1, 2 or 4), in the order of the stream: 1 where the masked top word is not above
 * the limit. Each lane gathers the bits of its block, row by row; then the lanes have only to be narrowed. */
PET_INLINE void find_chances(uint64_t *chances, const row x[16], uint32_t top_mask, uint32_t top_limit, const int width) {
    const row mask = spread_row(top_mask), limit = spread_row(top_limit);
    row bits = _mm512_setzero_si512();
#pragma GCC unroll 16
    for (int i = 0; i < 16 / width; i++) {
        const row top = _mm512_and_si512(x[width * i + width - 1], mask);
        bits = _mm512_mask_or_epi32(bits, _mm512_cmple_epu32_mask(top, limit), bits, spread_row(UINT32_C(1) << i));
    }
    if (width == 1) {
        _mm256_storeu_si256((__m256i *)chances, _mm512_cvtepi32_epi16(bits));
    } else if (width == 2) {
        _mm_storeu_si128((__m128i *)chances, _mm512_cvtepi32_epi8(bits));
    } else {
        bits = _mm512_or_si512(bits, _mm512_srli_epi64(bits, 28)); /* four bits of each of two lanes make a byte */
        _mm_storel_epi64((__m128i *)chances, _mm512_cvtepi64_epi8(bits));
    }
}

#include "vertical_draw.h"

#endif
