/* What the variants share: the parsed order, the table that each variant fills, little-endian loads and stores.
 * Never installed, never seen by Python. */
#ifndef PET_INTERNAL_H
#define PET_INTERNAL_H

#include <string.h>

#include "pet_kernels.h"

/* The orders of pet-1/z32 and pet-1/z64. */
#define PET_Z32_ORDER UINT64_C(0xfffffffb)
#define PET_Z64_ORDER UINT64_C(0xffffffff00000001)

enum { PET_MAX_ORDER_LIMBS = PET_MAX_ORDER_BYTES / 8 };

/* An order, checked and taken apart once per call by dispatch.c. */
typedef struct {
    uint64_t limbs[PET_MAX_ORDER_LIMBS + 1]; /* least significant first, the rest 0 */
    size_t draw_bytes;                       /* what the order needs */
    size_t words_per_draw;                   /* 32-bit words of keystream that one attempt takes */
    size_t element_bytes;                    /* what order - 1 needs */
    size_t planes;                           /* 64-bit planes of a total: what 2 * (order - 1) needs */
} pet_order;

/* One variant. dispatch.c has checked every argument when it calls, and has parsed encoding->order and decoding->order into
 * `order`. A member may be NULL: then the next narrower variant's is called. Variants other than portable are only called for
 * orders they cover. */
typedef struct {
    const char *name;
    int (*runs_here)(void); /* asked once */
    int (*covers)(const pet_order *order);
    int (*expand)(uint8_t *elements, size_t length, const uint8_t *seed, uint64_t *position, const pet_order *order);
    int (*sum_masks)(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *seeds, size_t seed_count,
                     uint64_t *positions, const pet_order *order);
    int (*mask_weights)(uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *elements,
                        const pet_order *order, const pet_encoding *encoding, uint64_t *clipped_count, size_t *bad_index);
    int (*update)(uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *seed, uint64_t *position,
                  const pet_order *order, const pet_encoding *encoding, uint64_t *clipped_count, size_t *bad_index);
    size_t (*find_invalid)(const uint8_t *elements, size_t length, const pet_order *order);
    int (*aggregate)(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *const *vectors, size_t vector_count,
                     const pet_order *order, size_t *bad_vector);
    int (*subtract)(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *elements, const pet_order *order);
    int (*reduce)(uint64_t *total, size_t plane_stride, size_t length, uint64_t bound, const pet_order *order);
    int (*pack)(uint8_t *elements, const uint64_t *total, size_t plane_stride, size_t length, const pet_order *order);
    int (*unmask_elements)(uint8_t *elements, const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                           const pet_order *order);
    int (*unmask)(void *model, int data_type, const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                  const pet_order *order, const pet_decoding *decoding, size_t *bad_index);
} pet_kernel_table;

extern const pet_kernel_table pet_portable_kernels;
#if defined(__x86_64__) || defined(_M_X64)
extern const pet_kernel_table pet_avx2_kernels, pet_avx512_kernels;
extern const pet_kernel_table pet_avx2_wide_kernels, pet_avx512_wide_kernels; /* what else these have, for wider orders */
extern const pet_kernel_table pet_avx2_memory_kernels, pet_avx512_memory_kernels; /* of these what draws nothing */
#elif defined(__aarch64__)
extern const pet_kernel_table pet_neon_kernels, pet_neon_wide_kernels;
#endif

/* Fractions (fractions.c) have one version for all variants, so they stand outside the table; dispatch.c has checked the
 * arguments of these as well. */
int pet_encode_fractions_portable(uint8_t *output, size_t capacity, size_t *used, size_t *done, const uint8_t *elements,
                                  size_t length, const pet_order *order, const pet_decoding *decoding);
int pet_encode_floats_portable(uint8_t *output, size_t capacity, size_t *used, size_t *done, const void *values, int data_type,
                               size_t length, size_t *bad_index);
int pet_decode_fractions_portable(void *model, int data_type, size_t length, const uint8_t *input, size_t size, size_t *used,
                                  size_t *bad_index);

/* portable.c has these for every variant's own use: what is rare, or wider than a variant's vectors. They are the members
 * of pet_portable_kernels; call them through the table. */

/* ---- little-endian loads and stores: by construction, never by cast ---------------------------------------------------- */

static inline uint32_t pet_load32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static inline uint64_t pet_load64(const uint8_t *bytes) {
    return (uint64_t)pet_load32(bytes) | (uint64_t)pet_load32(bytes + 4) << 32;
}

static inline void pet_store32(uint8_t *bytes, uint32_t value) {
    for (int i = 0; i < 4; i++) bytes[i] = (uint8_t)(value >> (8 * i));
}

static inline void pet_store64(uint8_t *bytes, uint64_t value) {
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(value >> (8 * i));
}

#endif
