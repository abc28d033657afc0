/* What the files of the portable variant share: its kernels by name, and elements in their two forms.
 *
 * portable.c draws and adds, masking.c encodes weights, unmasking.c decodes differences, fractions.c writes and reads global
 * models. */
#ifndef PET_PORTABLE_H
#define PET_PORTABLE_H

#include "multi_limb.h"

/* An order, a sum of two elements, or an element: in as many limbs as `order` has planes, with one to spare. */
enum { PET_ELEMENT_LIMBS = PET_MAX_ORDER_LIMBS + 1 };

int pet_expand_portable(uint8_t *elements, size_t length, const uint8_t *seed, uint64_t *position, const pet_order *order);
int pet_mask_weights_portable(uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *elements,
                              const pet_order *order, const pet_encoding *encoding, uint64_t *clipped_count, size_t *bad_index);
int pet_update_portable(uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *seed,
                        uint64_t *position, const pet_order *order, const pet_encoding *encoding, uint64_t *clipped_count,
                        size_t *bad_index);
int pet_unmask_portable(void *model, int data_type, const uint64_t *total, size_t plane_stride, const uint8_t *mask,
                        size_t length, const pet_order *order, const pet_decoding *decoding, size_t *bad_index);

/* How many bytes of an argument are left when leading zeros are dropped. */
static inline size_t pet_significant_bytes(pet_integer integer) {
    while (integer.size > 0 && integer.bytes[integer.size - 1] == 0) integer.size--;
    return integer.size;
}

/* limbs = an argument whose size is checked; the number of limbs that it needs. */
static inline size_t pet_load_integer(uint64_t *limbs, size_t count, pet_integer integer) {
    pet_limbs_load(limbs, count, integer.bytes, pet_significant_bytes(integer));
    return pet_limbs_count(limbs, count);
}

/* Load and store one element of up to 8 bytes. Two overlapping halves reach every width without touching a neighbour. */
static inline uint64_t pet_load_narrow(const uint8_t *bytes, size_t element_bytes) {
    if (element_bytes >= 4) {
        return pet_load32(bytes) | (uint64_t)pet_load32(bytes + element_bytes - 4) << (8 * (element_bytes - 4));
    }
    uint64_t value = 0;
    for (size_t i = 0; i < element_bytes; i++) value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static inline void pet_store_narrow(uint8_t *bytes, size_t element_bytes, uint64_t value) {
    if (element_bytes >= 4) {
        pet_store32(bytes, (uint32_t)value);
        pet_store32(bytes + element_bytes - 4, (uint32_t)(value >> (8 * (element_bytes - 4))));
    } else {
        for (size_t i = 0; i < element_bytes; i++) bytes[i] = (uint8_t)(value >> (8 * i));
    }
}

/* Element i of a total, in order->planes limbs. */
static inline void pet_load_total(uint64_t *limbs, const uint64_t *total, size_t plane_stride, size_t i,
                                  const pet_order *order) {
    for (size_t p = 0; p < order->planes; p++) limbs[p] = total[p * plane_stride + i];
}

static inline void pet_store_total(uint64_t *total, size_t plane_stride, size_t i, const uint64_t *limbs,
                                   const pet_order *order) {
    for (size_t p = 0; p < order->planes; p++) total[p * plane_stride + i] = limbs[p];
}

/* difference = (total[i] - mask[i]) mod order; the total is reduced and the mask valid. */
static inline void pet_load_difference(uint64_t *difference, const uint64_t *total, size_t plane_stride, const uint8_t *mask,
                                       size_t i, const pet_order *order) {
    uint64_t element[PET_ELEMENT_LIMBS];
    pet_load_total(difference, total, plane_stride, i, order);
    pet_limbs_load(element, order->planes, mask + i * order->element_bytes, order->element_bytes);
    uint64_t borrow = pet_limbs_subtract(difference, difference, element, order->planes);
    pet_limbs_add_masked(difference, order->limbs, pet_mask_if(borrow), order->planes);
}

/* pet_capacity, for an order that is parsed: the quotient bit by bit. */
static inline uint64_t pet_order_capacity(const pet_order *order) {
    uint64_t largest[PET_ELEMENT_LIMBS], one[PET_ELEMENT_LIMBS] = {1}, room[PET_ELEMENT_LIMBS + 1], step[PET_ELEMENT_LIMBS + 1];
    size_t planes = order->planes;
    uint64_t capacity = 0;
    pet_limbs_subtract(largest, order->limbs, one, planes);
    if (64 * planes >= pet_limbs_bits(largest, planes) + 32) return UINT32_MAX;
    memset(room, 0xff, planes * sizeof *room);
    room[planes] = 0;
    for (size_t shift = 32; shift-- > 0;) {
        pet_limbs_shift_left(step, planes + 1, largest, planes, shift);
        uint64_t fits = 1 ^ pet_limbs_are_less(room, step, planes + 1);
        pet_limbs_subtract_once(room, step, planes + 1);
        capacity |= fits << shift;
    }
    return capacity;
}

#endif
