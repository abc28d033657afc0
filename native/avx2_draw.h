/* What drawing needs of AVX2: eight blocks as vectors of 256 bits, and the comparison of their words with an order. Part of
 * avx2.c, included nowhere else; the drawing itself is in vertical_draw.h. */
#ifndef PET_AVX2_DRAW_H
#define PET_AVX2_DRAW_H

#include "avx2_elements.h"
#include "avx2_rows.h"

/* All ones where the top word of a draw is not above the order's. */
PET_INLINE __m256i has_chance(__m256i top, __m256i mask, __m256i limit) {
    top = _mm256_and_si256(top, mask);
    return _mm256_cmpeq_epi32(_mm256_min_epu32(top, limit), top);
}
/* Four rows of comparisons to bytes: byte 4 * (b mod 4) + i of half b / 4 is row i of block b. */
PET_INLINE __m256i pack_rows(__m256i row0, __m256i row1, __m256i row2, __m256i row3) {
    const __m256i by_block = twice(_mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0));
    __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(row0, row1), _mm256_packs_epi32(row2, row3));
    return _mm256_shuffle_epi8(packed, by_block);
}

PET_INLINE uint64_t bits_of(__m256i bytes) { return (uint32_t)_mm256_movemask_epi8(bytes); }
PET_INLINE uint64_t first16(uint64_t bits) { return bits & 0xffff; }
PET_INLINE uint64_t last16(uint64_t bits) { return bits >> 16; }

/* Rows packed by block to bits in the order of the stream: 4, 8 or 16 rows in 1, 2 or 4 vectors. */
PET_INLINE void to_stream_order(uint64_t chances[2], const __m256i *packed, const int vectors) {
    chances[1] = 0;
    if (vectors == 1) {
        chances[0] = bits_of(packed[0]);
        return;
    }
    __m256i low = _mm256_unpacklo_epi32(packed[0], packed[1]), high = _mm256_unpackhi_epi32(packed[0], packed[1]);
    if (vectors == 2) {
        const uint64_t blocks0145 = bits_of(low), blocks2367 = bits_of(high);
        chances[0] = first16(blocks0145) | first16(blocks2367) << 16 | last16(blocks0145) << 32 | last16(blocks2367) << 48;
        return;
    }
    __m256i low2 = _mm256_unpacklo_epi32(packed[2], packed[3]), high2 = _mm256_unpackhi_epi32(packed[2], packed[3]);
    const uint64_t blocks04 = bits_of(_mm256_unpacklo_epi64(low, low2)), blocks15 = bits_of(_mm256_unpackhi_epi64(low, low2));
    const uint64_t blocks26 = bits_of(_mm256_unpacklo_epi64(high, high2)),
                   blocks37 = bits_of(_mm256_unpackhi_epi64(high, high2));
    chances[0] = first16(blocks04) | first16(blocks15) << 16 | first16(blocks26) << 32 | first16(blocks37) << 48;
    chances[1] = last16(blocks04) | last16(blocks15) << 16 | last16(blocks26) << 32 | last16(blocks37) << 48;
}

/* A bit for each draw of `width` aligned words (1, 2 or 4), in the order of the stream: 1 where the masked top word is not
 * above the limit. */
PET_INLINE void find_chances(uint64_t chances[2], const row x[16], uint32_t top_mask, uint32_t top_limit, const int width) {
    const __m256i mask = spread32(top_mask), limit = spread32(top_limit);
    const int vectors = 4 / width;
    __m256i packed[4];
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) {
        const __m256i *top = x + 4 * width * i + width - 1;
        packed[i] = pack_rows(has_chance(top[0], mask, limit), has_chance(top[width], mask, limit),
                              has_chance(top[2 * width], mask, limit), has_chance(top[3 * width], mask, limit));
    }
    to_stream_order(chances, packed, vectors);
}

#endif
