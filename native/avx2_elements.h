/* Elements and totals in AVX2 registers, four at a time. Part of a variant's own file, included nowhere else; it
 * knows arrays, lengths and an order, not what they stand for.
 *
 * Four elements are one vector of their low 64 bits and, where totals have two planes, one of their high 64 bits. Each helper
 * takes the number of planes as a constant, so that the branches on it vanish.
 *
 *   packed, 6 bytes each    aaaaaabbbbbb....  ccccccdddddd....    two loads of 16 bytes, 2 elements apart
 *   one byte shuffle        aaaaaa00bbbbbb00  cccccc00dddddd00    low
 *
 *   packed, 9 bytes each    aaaaaaaaa.......  ccccccccc.......    four loads of 16 bytes, 1 element apart
 *                           bbbbbbbbb.......  ddddddddd.......
 *   shuffles, interleaves   aaaaaaaabbbbbbbb  ccccccccdddddddd    low
 *                           a0000000b0000000  c0000000d0000000    high
 *
 * Loads and stores of 16 bytes may reach behind the last element; then it goes through a small buffer. */
#ifndef PET_AVX2_ELEMENTS_H
#define PET_AVX2_ELEMENTS_H

#include "avx2_integers.h"

enum { LANES = 4 };

typedef __m256i word_lanes;
typedef struct {
    __m256i low, high; /* high is unused with one plane */
} four, lanes;

/* What a kernel needs to know about an order, in registers. */
typedef struct {
    size_t element_bytes;
    __m256i unpack, pack; /* byte shuffles */
    four order, largest;  /* largest: order - 1 */
} element_format;

PET_INLINE four spread_wide(uint64_t low, uint64_t high) { return (four){spread64(low), spread64(high)}; }

static element_format format_of(const pet_order *order) {
    element_format format = {.element_bytes = order->element_bytes};
    uint8_t unpack[16], pack[16];
    const size_t width = order->element_bytes, per_lane = order->planes == 1 ? 2 : 1, slot = 16 / per_lane;
    for (size_t i = 0; i < 16; i++) {
        unpack[i] = i % slot < width ? (uint8_t)(i / slot * width + i % slot) : 0x80;
        pack[i] = i < per_lane * width ? (uint8_t)(i / width * slot + i % width) : 0x80;
    }
    format.unpack = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)unpack));
    format.pack = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)pack));
    format.order = spread_wide(order->limbs[0], order->limbs[1]);
    format.largest = spread_wide(order->limbs[0] - 1, order->limbs[1] - (order->limbs[0] == 0));
    return format;
}

/* ---- arithmetic ----------------------------------------------------------------------------------------------------- */

PET_INLINE four add(four a, four b, const int planes) {
    four sum = {add64(a.low, b.low), b.low};
    if (planes == 2) sum.high = sub64(add64(a.high, b.high), below64(sum.low, a.low)); /* all ones: - (-1) carries */
    return sum;
}

PET_INLINE four sub(four a, four b, const int planes) {
    four difference = {sub64(a.low, b.low), b.low};
    if (planes == 2) difference.high = add64(sub64(a.high, b.high), below64(a.low, b.low));
    return difference;
}

/* The vector whose top bits are the signs. */
PET_INLINE __m256i top_of(four a, const int planes) { return planes == 2 ? a.high : a.low; }

/* All ones where negative. */
PET_INLINE __m256i negative(four a, const int planes) { return _mm256_cmpgt_epi64(_mm256_setzero_si256(), top_of(a, planes)); }

PET_INLINE four mask_four(four a, __m256i mask, const int planes) {
    four masked = {_mm256_and_si256(a.low, mask), mask};
    if (planes == 2) masked.high = _mm256_and_si256(a.high, mask);
    return masked;
}

/* Add the order where negative. An order is at most half of what the planes hold, so a sign bit is to be had. */
PET_INLINE four wrap(four a, const element_format *format, const int planes) {
    return add(a, mask_four(format->order, negative(a, planes), planes), planes);
}
PET_INLINE four add_mod(four a, four b, const element_format *format, const int planes) {
    return wrap(sub(add(a, b, planes), format->order, planes), format, planes);
}
PET_INLINE four sub_mod(four a, four b, const element_format *format, const int planes) {
    return wrap(sub(a, b, planes), format, planes);
}

PET_INLINE int top_bits(__m256i x) { return _mm256_movemask_pd(_mm256_castsi256_pd(x)); }

/* A bit for each lane of a that is above b, both unsigned; b is below half of what the planes hold. */
PET_INLINE unsigned above(four a, four b, const int planes) {
    return (unsigned)top_bits(_mm256_or_si256(top_of(a, planes), top_of(sub(b, a, planes), planes)));
}

/* Whether any of many values was above a limit, gathered in top bits. */
typedef struct {
    __m256i found;
} watch;

PET_INLINE watch watch_nothing(void) { return (watch){_mm256_setzero_si256()}; }
PET_INLINE void watch_for(watch *w, four values, four limit, const int planes) {
    const __m256i is_above = _mm256_or_si256(top_of(values, planes), top_of(sub(limit, values, planes), planes));
    w->found = _mm256_or_si256(w->found, is_above);
}
PET_INLINE int watch_found(const watch *w, four limit, const int planes) {
    (void)limit, (void)planes;
    return top_bits(w->found) != 0;
}

/* ---- packed vectors ------------------------------------------------------------------------------------------------- */

/* How many bytes from the first of four elements on are touched. */
static size_t reach_of(const element_format *format, const int planes) {
    (void)planes;
    return 3 * format->element_bytes + 16;
}

PET_INLINE __m128i load16(const uint8_t *bytes) { return _mm_loadu_si128((const __m128i *)bytes); }
PET_INLINE void store16(uint8_t *bytes, __m128i x) { _mm_storeu_si128((__m128i *)bytes, x); }
PET_INLINE __m256i join(__m128i low, __m128i high) { return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1); }

PET_INLINE four unpack(const uint8_t *bytes, const element_format *format, const int planes) {
    const size_t width = format->element_bytes;
    if (planes == 1) {
        __m256i low = _mm256_shuffle_epi8(join(load16(bytes), load16(bytes + 2 * width)), format->unpack);
        return (four){low, low};
    }
    __m256i even = _mm256_shuffle_epi8(join(load16(bytes), load16(bytes + 2 * width)), format->unpack);
    __m256i odd = _mm256_shuffle_epi8(join(load16(bytes + width), load16(bytes + 3 * width)), format->unpack);
    return (four){_mm256_unpacklo_epi64(even, odd), _mm256_unpackhi_epi64(even, odd)};
}

/* Each store overwrites what the one before wrote too much. */
PET_INLINE void pack(uint8_t *bytes, four elements, const element_format *format, const int planes) {
    const size_t width = format->element_bytes;
    __m256i even = elements.low, odd = elements.low;
    if (planes == 2) {
        even = _mm256_unpacklo_epi64(elements.low, elements.high);
        odd = _mm256_shuffle_epi8(_mm256_unpackhi_epi64(elements.low, elements.high), format->pack);
    }
    even = _mm256_shuffle_epi8(even, format->pack);
    store16(bytes, _mm256_castsi256_si128(even));
    if (planes == 2) store16(bytes + width, _mm256_castsi256_si128(odd));
    store16(bytes + 2 * width, _mm256_extracti128_si256(even, 1));
    if (planes == 2) store16(bytes + 3 * width, _mm256_extracti128_si256(odd, 1));
}

/* ---- totals --------------------------------------------------------------------------------------------------------- */

/* All ones in as many lanes as are left. */
PET_INLINE __m256i lanes_left(size_t left) { return _mm256_cmpgt_epi64(spread64(left), _mm256_set_epi64x(3, 2, 1, 0)); }

PET_INLINE __m256i load_words(const uint64_t *words, size_t index, size_t length) {
    if (__builtin_expect(index + LANES <= length, 1)) return _mm256_loadu_si256((const __m256i *)(words + index));
    return _mm256_maskload_epi64((const long long *)(words + index), lanes_left(length - index));
}

PET_INLINE void store_words(uint64_t *words, size_t index, size_t length, __m256i x) {
    if (__builtin_expect(index + LANES <= length, 1))
        _mm256_storeu_si256((__m256i *)(words + index), x);
    else
        _mm256_maskstore_epi64((long long *)(words + index), lanes_left(length - index), x);
}

#include "packed_access.h"

#endif
