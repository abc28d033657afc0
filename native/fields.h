/* What the variants of the kernels of pet-1 share: the table that each fills, and arithmetic below an order on single elements
 * (docs/spec/profile.md 3, 4 and 11). fields.c has checked every argument before it calls a variant. */
#ifndef PET_FIELDS_H
#define PET_FIELDS_H

#include "internal.h"

/* Elements of 4 bytes below an order of 32 bits or, where it is wide, of 8 below one of 64. */
typedef struct {
    uint64_t order;
    int is_wide;
} pet_field;

/* How a weight becomes an element, and back. */
typedef struct {
    double scalar, bound, factor, top; /* factor: top / (2 * bound), rounded once */
} pet_fixed_point;
typedef struct {
    double bound, unit;
    uint64_t highest;
} pet_mean;

/* What a batch of 16 blocks of keystream holds. */
enum { PET_BATCH_BLOCKS = 16, PET_BATCH_BYTES = 64 * PET_BATCH_BLOCKS };

/* One variant. Where an element or a weight is refused, fields.c finds the first one and restores what has to be. */
typedef struct {
    /* Add elements `first` and following of the expansion of one key. */
    void (*expand_add)(uint8_t *vector, const uint8_t *key, uint64_t first, size_t length, const pet_field *field);
    /* Add a vector to a total, or subtract it, up to an element that is not below the order, or up to a few before it; return
     * how many were added. */
    size_t (*add)(uint8_t *total, const uint8_t *vector, size_t length, const pet_field *field);
    size_t (*subtract)(uint8_t *total, const uint8_t *vector, size_t length, const pet_field *field);
    /* Return 1 if all weights are finite, and how many were clipped then. */
    int (*encode)(uint8_t *elements, const void *weights, int data_type, size_t length, const pet_fixed_point *how,
                  const pet_field *field, uint64_t *clipped_count);
    /* Return 1 if no element is above the highest. */
    int (*decode)(void *model, int data_type, const uint8_t *elements, size_t length, const pet_mean *mean,
                  const pet_field *field);
    void (*multiply_add)(uint8_t *total, const uint8_t *vector, size_t length, uint64_t factor, const pet_field *field);
    uint64_t (*dot)(const uint8_t *left, const uint8_t *right, size_t length, const pet_field *field);
    size_t (*find_above)(const uint8_t *elements, size_t length, uint64_t highest, const pet_field *field);
} pet_field_table;

extern const pet_field_table pet_portable_fields;
#if defined(__x86_64__) || defined(_M_X64)
extern const pet_field_table pet_avx2_fields, pet_avx512_fields;
#elif defined(__aarch64__)
extern const pet_field_table pet_neon_fields;
#endif

/* The kernels of a variant, or NULL if it is unknown, left out or cannot run here: dispatch.c. */
const pet_field_table *pet_find_fields(int variant);

/* Draw one element of an expansion again, from the next streams, until it is below the order: portable_fields.c. */
uint64_t pet_field_draw_again(const uint8_t *key, uint64_t index, const pet_field *field);

/* ---- elements -------------------------------------------------------------------------------------------------------- */

static inline size_t pet_field_width(int is_wide) { return is_wide ? 8 : 4; }
static inline size_t pet_batch_length(int is_wide) { return PET_BATCH_BYTES / pet_field_width(is_wide); }

static inline uint64_t pet_field_load(const uint8_t *elements, size_t i, int is_wide) {
    return is_wide ? pet_load64(elements + 8 * i) : pet_load32(elements + 4 * i);
}

static inline void pet_field_store(uint8_t *elements, size_t i, uint64_t value, int is_wide) {
    if (is_wide) pet_store64(elements + 8 * i, value);
    else pet_store32(elements + 4 * i, (uint32_t)value);
}

/* a + b mod order; a sum of 64 bits may wrap once, and is then the true one less 2^64. */
static inline uint64_t pet_field_plus(uint64_t a, uint64_t b, uint64_t order) {
    const uint64_t sum = a + b;
    return sum - (order & -(uint64_t)((sum < a) | (sum >= order)));
}

static inline uint64_t pet_field_minus(uint64_t a, uint64_t b, uint64_t order) { return a - b + (order & -(uint64_t)(a < b)); }

/* a * b mod 2^32 - 5: 2^32 is 5 there. Two folds leave less than 2^32 + 30. */
static inline uint64_t pet_field_times_narrow(uint64_t a, uint64_t b) {
    uint64_t product = a * b;
    product = (product >> 32) * 5 + (product & UINT32_MAX);
    product = (product >> 32) * 5 + (product & UINT32_MAX);
    return product - (PET_Z32_ORDER & -(uint64_t)(product >= PET_Z32_ORDER));
}

/* a * b mod 2^64 - 2^32 + 1: 2^64 is 2^32 - 1 there, and 2^96 is -1. */
static inline uint64_t pet_field_times_wide(uint64_t a, uint64_t b) {
    const uint64_t a0 = a & UINT32_MAX, a1 = a >> 32, b0 = b & UINT32_MAX, b1 = b >> 32;
    const uint64_t bottom = a0 * b0, left = a1 * b0, right = a0 * b1;
    const uint64_t carried = (bottom >> 32) + (left & UINT32_MAX) + (right & UINT32_MAX);
    uint64_t low = (bottom & UINT32_MAX) | carried << 32;
    const uint64_t high = a1 * b1 + (left >> 32) + (right >> 32) + (carried >> 32);
    low -= PET_Z64_ORDER & -(uint64_t)(low >= PET_Z64_ORDER);
    return pet_field_plus(pet_field_minus(low, high >> 32, PET_Z64_ORDER), (high & UINT32_MAX) * UINT32_MAX, PET_Z64_ORDER);
}

static inline uint64_t pet_field_times(uint64_t a, uint64_t b, int is_wide) {
    return is_wide ? pet_field_times_wide(a, b) : pet_field_times_narrow(a, b);
}

#endif
