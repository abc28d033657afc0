/* Elements and totals in AVX-512 registers, eight at a time: avx2_elements.h, twice as wide. Part of avx512_memory.c, included
 * nowhere else; it knows arrays, lengths and an order, not what they stand for.
 *
 *   packed, 6 bytes each      aaaaaabbbbbbccccccddddddeeeeee....    one load of 64 bytes
 *   shuffle of words          aaaaaabbbbbb....  ccccccdddddd....    two elements to each 128 bits: they start at an even byte
 *   shuffle of bytes          aaaaaa00bbbbbb00  cccccc00dddddd00    low
 *
 *   packed, 9 bytes each      aaaaaaaaabbbbbbbbbccccccccc....       two loads of 64 bytes, 4 elements apart
 *   shuffle of words          aaaaaaaaab......  abbbbbbbbb......    one element to each 128 bits, from the even byte before it
 *   of bytes                  aaaaaaaaa0000000  bbbbbbbbb0000000
 *   shuffles of two vectors   aaaaaaaabbbbbbbb  ccccccccdddddddd    low
 *                             a0000000b0000000  c0000000d0000000    high
 *
 * Loads and stores may reach behind the last element; then they go through a small buffer. */
#ifndef PET_AVX512_ELEMENTS_H
#define PET_AVX512_ELEMENTS_H

#include <immintrin.h>

#include "vectors.h"

enum { LANES = 8 };

typedef __m512i word_lanes;
typedef struct {
    __m512i low, high; /* high is unused with one plane */
} lanes;

/* What a kernel needs to know about an order, in registers. */
typedef struct {
    size_t element_bytes;
    __m512i gather_words, unpack, pack, scatter_words; /* shuffles; scatter_words for one plane only */
    lanes order, largest;                              /* largest: order - 1 */
} element_format;

PET_INLINE __m512i spread64(uint64_t x) { return _mm512_set1_epi64((long long)x); }
PET_INLINE lanes spread_wide(uint64_t low, uint64_t high) { return (lanes){spread64(low), spread64(high)}; }

static element_format format_of(const pet_order *order) {
    element_format format = {.element_bytes = order->element_bytes};
    uint8_t unpack[64], pack[64];
    uint16_t gather_words[32], scatter_words[32];
    const size_t width = order->element_bytes, per_part = order->planes == 1 ? 2 : 1, slot = 16 / per_part;
    const size_t part_bytes = per_part * width; /* packed bytes that 128 bits take */
    for (size_t i = 0; i < 64; i++) {
        const size_t part = i / 16, byte = i % 16, is_odd = part * part_bytes % 2;
        unpack[i] = byte % slot < width ? (uint8_t)(is_odd + byte / slot * width + byte % slot) : 0x80;
        pack[i] = byte < part_bytes ? (uint8_t)(byte / width * slot + byte % width) : 0x80;
    }
    for (size_t i = 0; i < 32; i++) {
        gather_words[i] = (uint16_t)((i / 8 * part_bytes / 2 + i % 8) % 32);
        scatter_words[i] = (uint16_t)(2 * i < 4 * part_bytes ? 2 * i / part_bytes * 8 + 2 * i % part_bytes / 2 : 0);
    }
    format.gather_words = _mm512_loadu_si512(gather_words);
    format.unpack = _mm512_loadu_si512(unpack);
    format.pack = _mm512_loadu_si512(pack);
    format.scatter_words = _mm512_loadu_si512(scatter_words);
    format.order = spread_wide(order->limbs[0], order->limbs[1]);
    format.largest = spread_wide(order->limbs[0] - 1, order->limbs[1] - (order->limbs[0] == 0));
    return format;
}

/* ---- arithmetic ----------------------------------------------------------------------------------------------------- */

PET_INLINE __m512i add64(__m512i a, __m512i b) { return _mm512_add_epi64(a, b); }
PET_INLINE __m512i sub64(__m512i a, __m512i b) { return _mm512_sub_epi64(a, b); }

/* Products of the low halves, and halves moved. */
PET_INLINE __m512i multiply32(__m512i a, __m512i b) { return _mm512_mul_epu32(a, b); }
PET_INLINE __m512i high_half(__m512i x) { return _mm512_srli_epi64(x, 32); }
PET_INLINE __m512i to_high_half(__m512i x) { return _mm512_slli_epi64(x, 32); }

PET_INLINE __m512i multiply64(__m512i a, __m512i b) { return _mm512_mullo_epi64(a, b); } /* the low halves of the products */

PET_INLINE lanes add(lanes a, lanes b, const int planes) {
    lanes sum = {add64(a.low, b.low), b.low};
    if (planes == 2) {
        const __m512i high = add64(a.high, b.high);
        sum.high = _mm512_mask_sub_epi64(high, _mm512_cmplt_epu64_mask(sum.low, a.low), high, spread64(UINT64_MAX));
    }
    return sum;
}

PET_INLINE lanes sub(lanes a, lanes b, const int planes) {
    lanes difference = {sub64(a.low, b.low), b.low};
    if (planes == 2) {
        const __m512i high = sub64(a.high, b.high);
        difference.high = _mm512_mask_add_epi64(high, _mm512_cmplt_epu64_mask(a.low, b.low), high, spread64(UINT64_MAX));
    }
    return difference;
}

/* A bit for each lane that is negative. */
PET_INLINE __mmask8 negative(lanes a, const int planes) { return _mm512_movepi64_mask(planes == 2 ? a.high : a.low); }

PET_INLINE lanes choose(__mmask8 mask, lanes a, lanes b, const int planes) {
    lanes chosen = {_mm512_mask_blend_epi64(mask, b.low, a.low), a.low};
    if (planes == 2) chosen.high = _mm512_mask_blend_epi64(mask, b.high, a.high);
    return chosen;
}

/* Add the order where negative. An order is at most half of what the planes hold, so a sign bit is to be had; and a negative
 * number, taken as unsigned, is larger than its sum with the order. */
PET_INLINE lanes wrap(lanes a, const element_format *format, const int planes) {
    const lanes sum = add(a, format->order, planes);
    if (planes == 1) return (lanes){_mm512_min_epu64(a.low, sum.low), a.low};
    return choose(negative(a, planes), sum, a, planes);
}
PET_INLINE lanes add_mod(lanes a, lanes b, const element_format *format, const int planes) {
    return wrap(sub(add(a, b, planes), format->order, planes), format, planes);
}
PET_INLINE lanes sub_mod(lanes a, lanes b, const element_format *format, const int planes) {
    return wrap(sub(a, b, planes), format, planes);
}

/* A bit for each lane of a that is above b, unsigned. */
PET_INLINE unsigned above(lanes a, lanes b, const int planes) {
    const __mmask8 is_low_above = _mm512_cmpgt_epu64_mask(a.low, b.low);
    if (planes == 1) return is_low_above;
    return _mm512_cmpgt_epu64_mask(a.high, b.high) | _mm512_mask_cmpeq_epu64_mask(is_low_above, a.high, b.high);
}

/* Whether any of many values was above a limit: with one plane the largest of them tells. */
typedef struct {
    __m512i largest;
    unsigned found;
} watch;

PET_INLINE watch watch_nothing(void) { return (watch){_mm512_setzero_si512(), 0}; }
PET_INLINE void watch_for(watch *w, lanes values, lanes limit, const int planes) {
    if (planes == 1)
        w->largest = _mm512_max_epu64(w->largest, values.low);
    else
        w->found |= above(values, limit, planes);
}
PET_INLINE int watch_found(const watch *w, lanes limit, const int planes) {
    return planes == 1 ? _mm512_cmpgt_epu64_mask(w->largest, limit.low) != 0 : w->found != 0;
}

/* ---- packed vectors ------------------------------------------------------------------------------------------------- */

/* How many bytes from the first of eight elements on are touched. */
static size_t reach_of(const element_format *format, const int planes) {
    return planes == 1 ? 64 : 4 * format->element_bytes + 64;
}

PET_INLINE __m512i shuffle(__m512i bytes, const element_format *format) {
    return _mm512_shuffle_epi8(_mm512_permutexvar_epi16(format->gather_words, bytes), format->unpack);
}

PET_INLINE lanes unpack(const uint8_t *bytes, const element_format *format, const int planes) {
    const __m512i first = shuffle(_mm512_loadu_si512(bytes), format);
    if (planes == 1) return (lanes){first, first};
    const __m512i second = shuffle(_mm512_loadu_si512(bytes + 4 * format->element_bytes), format);
    const __m512i even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), odd = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
    return (lanes){_mm512_permutex2var_epi64(first, even, second), _mm512_permutex2var_epi64(first, odd, second)};
}

/* Store the packed element of each 128 bits; each store overwrites what the one before wrote too much. */
PET_INLINE void pack_four(uint8_t *bytes, __m512i elements, size_t width) {
    _mm_storeu_si128((__m128i *)bytes, _mm512_castsi512_si128(elements));
    _mm_storeu_si128((__m128i *)(bytes + width), _mm512_extracti64x2_epi64(elements, 1));
    _mm_storeu_si128((__m128i *)(bytes + 2 * width), _mm512_extracti64x2_epi64(elements, 2));
    _mm_storeu_si128((__m128i *)(bytes + 3 * width), _mm512_extracti64x2_epi64(elements, 3));
}

PET_INLINE void pack(uint8_t *bytes, lanes elements, const element_format *format, const int planes) {
    const size_t width = format->element_bytes;
    if (planes == 1) {
        const __m512i shuffled = _mm512_shuffle_epi8(elements.low, format->pack);
        _mm512_storeu_si512(bytes, _mm512_permutexvar_epi16(format->scatter_words, shuffled));
        return;
    }
    const __m512i first = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0), second = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    pack_four(bytes, _mm512_permutex2var_epi64(elements.low, first, elements.high), width);
    pack_four(bytes + 4 * width, _mm512_permutex2var_epi64(elements.low, second, elements.high), width);
}

/* ---- totals --------------------------------------------------------------------------------------------------------- */

PET_INLINE __mmask8 lanes_left(size_t left) { return (__mmask8)(left >= LANES ? 0xff : (1u << left) - 1); }

PET_INLINE __m512i load_words(const uint64_t *words, size_t index, size_t length) {
    if (__builtin_expect(index + LANES <= length, 1)) return _mm512_loadu_si512(words + index);
    return _mm512_maskz_loadu_epi64(lanes_left(length - index), words + index);
}

PET_INLINE void store_words(uint64_t *words, size_t index, size_t length, __m512i x) {
    if (__builtin_expect(index + LANES <= length, 1))
        _mm512_storeu_si512(words + index, x);
    else
        _mm512_mask_storeu_epi64(words + index, lanes_left(length - index), x);
}

#include "packed_access.h"

#endif
