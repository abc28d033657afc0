/* Adding and checking packed vectors whose elements are wider than what memory_loops.h has: several elements at a time, limb by
 * limb. It knows arrays, lengths and an order.
 *
 * Included by a variant's own file after what says what a `plane` is: the same limb of SUM_LANES elements. Packed elements are
 * read as runs of SUM_LANES limbs each and transposed; what a run holds of the next element is masked off. */
#ifndef PET_WIDE_TOTALS_H
#define PET_WIDE_TOTALS_H

#include "vectors.h"

enum {
    RUN_BYTES = 8 * SUM_LANES,
    GROUP_BYTES = SUM_LANES * PET_MAX_ORDER_BYTES + 2 * RUN_BYTES, /* of a group of elements, and what runs reach behind it */
};

/* How packed elements of an order lie in limbs. */
typedef struct {
    const pet_order *order;
    size_t limbs;      /* of one element */
    uint64_t last_mask; /* the bits of its last limb that are its own */
} wide_format;

static wide_format wide_format_of(const pet_order *order) {
    const size_t limbs = (order->element_bytes + 7) / 8;
    return (wide_format){order, limbs, UINT64_MAX >> (8 * (8 * limbs - order->element_bytes))};
}

/* Add a group of elements to its place in a total, or take it away; or, without a total, only check it. Lanes of `invalid`
 * become ones where an element is not below the order. */
PET_INLINE void add_packed_group(uint64_t *total, size_t plane_stride, size_t left, const uint8_t *elements, int subtracts,
                                 const wide_format *format, plane *invalid) {
    const pet_order *order = format->order;
    const size_t planes = total ? order->planes : format->limbs;
    carries carry = no_carries(), borrow = no_carries();
    for (size_t first = 0; first < planes; first += SUM_LANES) {
        plane limbs[SUM_LANES];
        load_planes(limbs, elements + 8 * first, order->element_bytes);
#pragma GCC unroll 8
        for (size_t i = 0; i < SUM_LANES; i++) {
            const size_t p = first + i;
            if (p == planes) break;
            const uint64_t mask = p + 1 < format->limbs ? UINT64_MAX : p + 1 == format->limbs ? format->last_mask : 0;
            const plane limb = limbs[i] & spread_plane(mask);
            (void)subtract_planes(limb, spread_plane(order->limbs[p]), &borrow);
            if (!total) continue;
            const plane sum = load_plane(total + p * plane_stride, left);
            store_plane(total + p * plane_stride, left,
                        subtracts ? subtract_planes(sum, limb, &carry) : add_planes(sum, limb, &carry));
        }
    }
    *invalid = choose_plane(borrow, *invalid, spread_plane(UINT64_MAX));
}

static int is_any_set(plane invalid) {
    uint64_t words[SUM_LANES], any = 0;
    store_plane(words, SUM_LANES, invalid);
    for (size_t i = 0; i < SUM_LANES; i++) any |= words[i];
    return any != 0;
}

/* Where a group of a packed vector can be read: in place, or, near its end, a copy with zeros behind it. */
PET_INLINE const uint8_t *group_at(const uint8_t *elements, size_t index, size_t length, size_t width, uint8_t *buffer) {
    const size_t rest = (length - index) * width;
    if (__builtin_expect(rest >= SUM_LANES * width + 2 * RUN_BYTES, 1)) return elements + index * width;
    const size_t own = rest < SUM_LANES * width ? rest : SUM_LANES * width;
    memset(buffer, 0, GROUP_BYTES);
    memcpy(buffer, elements + index * width, own);
    return buffer;
}

/* Add vectors, or take them away; 1 if all elements were valid. */
static int accumulate_wide(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *const *vectors, size_t count,
                           int subtracts, const pet_order *order) {
    const wide_format format = wide_format_of(order);
    const size_t width = order->element_bytes;
    uint8_t buffer[GROUP_BYTES];
    plane invalid = spread_plane(0);
    for (size_t i = 0; i < length; i += SUM_LANES) {
        for (size_t k = 0; k < count; k++)
            add_packed_group(total + i, plane_stride, length - i, group_at(vectors[k], i, length, width, buffer), subtracts,
                             &format, &invalid);
    }
    return !is_any_set(invalid);
}

/* A group that holds an invalid element is looked at again, one by one. */
static size_t find_invalid_wide(const uint8_t *elements, size_t length, const pet_order *order) {
    const wide_format format = wide_format_of(order);
    const size_t width = order->element_bytes;
    uint8_t buffer[GROUP_BYTES];
    for (size_t i = 0; i < length; i += SUM_LANES) {
        plane invalid = spread_plane(0);
        add_packed_group(NULL, 0, 0, group_at(elements, i, length, width, buffer), 0, &format, &invalid);
        if (__builtin_expect(is_any_set(invalid), 0))
            return i + pet_portable_kernels.find_invalid(elements + i * width, length - i, order);
    }
    return length;
}

static int aggregate_wide(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *const *vectors,
                          size_t vector_count, const pet_order *order, size_t *bad_vector) {
    if (accumulate_wide(total, plane_stride, length, vectors, vector_count, 0, order)) return PET_OK;
    accumulate_wide(total, plane_stride, length, vectors, vector_count, 1, order);
    *bad_vector = 0;
    while (find_invalid_wide(vectors[*bad_vector], length, order) == length) ++*bad_vector;
    return PET_INVALID_ELEMENT;
}

#endif
