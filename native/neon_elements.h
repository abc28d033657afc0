/* Elements and totals in NEON registers, two at a time. Part of neon.c, included nowhere else; it knows arrays, lengths and an
 * order, not what they stand for.
 *
 * Two elements are one vector of their low 64 bits and, where totals have two planes, one of their high 64 bits. Each helper
 * takes the number of planes as a constant, so that the branches on it vanish.
 *
 *   packed, 6 bytes each    aaaaaabbbbbb....                    one load of 16 bytes
 *   one byte shuffle        aaaaaa00bbbbbb00                    low
 *
 *   packed, 9 bytes each    aaaaaaaaa.......  bbbbbbbbb.......  two loads of 16 bytes, 1 element apart
 *   shuffles, interleaves   aaaaaaaabbbbbbbb  a0000000b0000000  low, high
 *
 * Loads and stores of 16 bytes may reach behind the last element; then it goes through a small buffer. */
#ifndef PET_NEON_ELEMENTS_H
#define PET_NEON_ELEMENTS_H

#include <arm_neon.h>

#include "vectors.h"

enum { LANES = 2 };

typedef struct {
    uint64x2_t low, high; /* high is unused with one plane */
} two;

/* What a kernel needs to know about an order, in registers. */
typedef struct {
    size_t element_bytes;
    uint8x16_t unpack, pack; /* byte shuffles */
    two order;
} element_format;

PET_INLINE two spread_wide(uint64_t low, uint64_t high) { return (two){vdupq_n_u64(low), vdupq_n_u64(high)}; }

static element_format format_of(const pet_order *order) {
    uint8_t unpack[16], pack[16];
    const size_t width = order->element_bytes, per_vector = order->planes == 1 ? 2 : 1, slot = 16 / per_vector;
    for (size_t i = 0; i < 16; i++) {
        unpack[i] = i % slot < width ? (uint8_t)(i / slot * width + i % slot) : 0x80;
        pack[i] = i < per_vector * width ? (uint8_t)(i / width * slot + i % width) : 0x80;
    }
    return (element_format){width, vld1q_u8(unpack), vld1q_u8(pack), spread_wide(order->limbs[0], order->limbs[1])};
}

/* ---- arithmetic ----------------------------------------------------------------------------------------------------- */

/* All ones where a < b. */
PET_INLINE uint64x2_t below(two a, two b, const int planes) {
    const uint64x2_t low = vcltq_u64(a.low, b.low);
    if (planes == 1) return low;
    return vorrq_u64(vcltq_u64(a.high, b.high), vandq_u64(vceqq_u64(a.high, b.high), low));
}

PET_INLINE two add(two a, two b, const int planes) {
    two sum = {vaddq_u64(a.low, b.low), b.low};
    if (planes == 2) sum.high = vsubq_u64(vaddq_u64(a.high, b.high), vcltq_u64(sum.low, a.low)); /* all ones: - (-1) carries */
    return sum;
}

PET_INLINE two sub(two a, two b, const int planes) {
    two difference = {vsubq_u64(a.low, b.low), b.low};
    if (planes == 2) difference.high = vaddq_u64(vsubq_u64(a.high, b.high), vcltq_u64(a.low, b.low));
    return difference;
}

PET_INLINE two choose(uint64x2_t condition, two then, two otherwise, const int planes) {
    two chosen = {vbslq_u64(condition, then.low, otherwise.low), condition};
    if (planes == 2) chosen.high = vbslq_u64(condition, then.high, otherwise.high);
    return chosen;
}

/* An order is at most half of what the planes hold, so the sum of two elements fits. */
PET_INLINE two add_mod(two a, two b, const element_format *format, const int planes) {
    const two sum = add(a, b, planes);
    return choose(below(sum, format->order, planes), sum, sub(sum, format->order, planes), planes);
}
PET_INLINE two sub_mod(two a, two b, const element_format *format, const int planes) {
    const two difference = sub(a, b, planes);
    return choose(below(a, b, planes), add(difference, format->order, planes), difference, planes);
}

/* A bit for each lane that is all ones. */
PET_INLINE unsigned lane_bits(uint64x2_t x) {
    return (unsigned)(vgetq_lane_u64(x, 0) & 1) | (unsigned)(vgetq_lane_u64(x, 1) & 2);
}

/* ---- packed vectors ------------------------------------------------------------------------------------------------- */

/* Up to which index two elements can be loaded or stored in place. */
static size_t in_place_end(size_t length, const element_format *format) {
    const size_t width = format->element_bytes, reach = width + 16;
    return length * width >= reach ? (length * width - reach) / width + 1 : 0;
}

PET_INLINE uint64x2_t shuffle(uint8x16_t bytes, uint8x16_t indices) {
    return vreinterpretq_u64_u8(vqtbl1q_u8(bytes, indices));
}

PET_INLINE two unpack(const uint8_t *bytes, const element_format *format, const int planes) {
    const uint64x2_t first = shuffle(vld1q_u8(bytes), format->unpack);
    if (planes == 1) return (two){first, first};
    const uint64x2_t second = shuffle(vld1q_u8(bytes + format->element_bytes), format->unpack);
    return (two){vzip1q_u64(first, second), vzip2q_u64(first, second)};
}

/* The second store overwrites what the first wrote too much. */
PET_INLINE void pack(uint8_t *bytes, two elements, const element_format *format, const int planes) {
    if (planes == 1) {
        vst1q_u8(bytes, vqtbl1q_u8(vreinterpretq_u8_u64(elements.low), format->pack));
        return;
    }
    vst1q_u8(bytes, vreinterpretq_u8_u64(vzip1q_u64(elements.low, elements.high)));
    vst1q_u8(bytes + format->element_bytes, vreinterpretq_u8_u64(vzip2q_u64(elements.low, elements.high)));
}

/* Elements index and index + 1 of a packed vector; behind its end comes zero. */
PET_INLINE two load_packed(const uint8_t *packed, size_t index, size_t length, size_t in_place, const element_format *format,
                           const int planes) {
    const size_t width = format->element_bytes;
    if (__builtin_expect(index < in_place, 1)) return unpack(packed + index * width, format, planes);
    uint8_t buffer[LANES * 16] = {0};
    memcpy(buffer, packed + index * width, (index + LANES <= length ? LANES : 1) * width);
    return unpack(buffer, format, planes);
}

PET_INLINE void store_packed(uint8_t *packed, size_t index, size_t length, size_t in_place, two elements,
                             const element_format *format, const int planes) {
    const size_t width = format->element_bytes;
    if (__builtin_expect(index < in_place, 1)) {
        pack(packed + index * width, elements, format, planes);
        return;
    }
    uint8_t buffer[LANES * 16];
    pack(buffer, elements, format, planes);
    memcpy(packed + index * width, buffer, (index + LANES <= length ? LANES : 1) * width);
}

/* ---- totals --------------------------------------------------------------------------------------------------------- */

PET_INLINE uint64x2_t load_words(const uint64_t *words, size_t left) {
    if (__builtin_expect(left >= LANES, 1)) return vld1q_u64(words);
    return vcombine_u64(vld1_u64(words), vdup_n_u64(0));
}

PET_INLINE void store_words(uint64_t *words, size_t left, uint64x2_t x) {
    if (__builtin_expect(left >= LANES, 1))
        vst1q_u64(words, x);
    else
        vst1_u64(words, vget_low_u64(x));
}

/* Values index and index + 1 of a total; behind its end comes zero. */
PET_INLINE two load_total(const uint64_t *total, size_t plane_stride, size_t index, size_t length, const int planes) {
    two values = {load_words(total + index, length - index), vdupq_n_u64(0)};
    if (planes == 2) values.high = load_words(total + plane_stride + index, length - index);
    return values;
}

PET_INLINE void store_total(uint64_t *total, size_t plane_stride, size_t index, size_t length, two values, const int planes) {
    store_words(total + index, length - index, values.low);
    if (planes == 2) store_words(total + plane_stride + index, length - index, values.high);
}

#endif
