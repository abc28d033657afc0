/* The public functions of pet_kernels.h: each checks its arguments once, takes the order apart and calls a variant.
 *
 * This file holds the only global of the C code, the features of this CPU. It computes on no vector. */
#include <stdatomic.h>

#include "fields.h"
#include "portable.h"

#if defined(__x86_64__) && !defined(PET_WITHOUT_AVX2)
#define PET_WITH_AVX2
#endif
#if defined(__x86_64__) && !defined(PET_WITHOUT_AVX512)
#define PET_WITH_AVX512
#endif
#if defined(__aarch64__) && !defined(PET_WITHOUT_NEON)
#define PET_WITH_NEON
#endif

/* ---- which variant runs -------------------------------------------------------------------------------------------- */

typedef struct {
    int variant;
    const pet_kernel_table *kernels;
    const pet_field_table *fields; /* of the variant's first rung */
} rung;

/* From widest to portable; a variant that is not compiled in has no rung, one in several parts has several. */
static const rung ladder[] = {
#ifdef PET_WITH_AVX512
    {PET_VARIANT_AVX512, &pet_avx512_kernels, &pet_avx512_fields},
    {PET_VARIANT_AVX512, &pet_avx512_memory_kernels, NULL},
    {PET_VARIANT_AVX512, &pet_avx512_wide_kernels, NULL},
#endif
#ifdef PET_WITH_AVX2
    {PET_VARIANT_AVX2, &pet_avx2_kernels, &pet_avx2_fields},
    {PET_VARIANT_AVX2, &pet_avx2_memory_kernels, NULL},
    {PET_VARIANT_AVX2, &pet_avx2_wide_kernels, NULL},
#endif
#ifdef PET_WITH_NEON
    {PET_VARIANT_NEON, &pet_neon_kernels, &pet_neon_fields},
    {PET_VARIANT_NEON, &pet_neon_wide_kernels, NULL},
#endif
    {PET_VARIANT_PORTABLE, &pet_portable_kernels, &pet_portable_fields},
};
enum { RUNGS = sizeof ladder / sizeof ladder[0], FEATURES_KNOWN = 1 << 30 };

/* Bit i: rung i can run here. Two threads that find out at once write the same value. */
static atomic_uint cached_features;

static int runs_here(int i) {
    unsigned features = atomic_load_explicit(&cached_features, memory_order_relaxed);
    if (!features) {
        features = FEATURES_KNOWN;
        for (int k = 0; k < RUNGS; k++) features |= (unsigned)(ladder[k].kernels->runs_here() != 0) << k;
        atomic_store_explicit(&cached_features, features, memory_order_relaxed);
    }
    return features >> i & 1;
}

/* The rung to start from, or RUNGS if the variant is unknown, left out or cannot run here. */
static int first_rung(int variant) {
    int i = 0;
    while (i < RUNGS && !(runs_here(i) && (variant == PET_VARIANT_BEST || variant == ladder[i].variant))) i++;
    return i;
}

const char *pet_variant_name(int variant) {
    int i = first_rung(variant);
    return i < RUNGS ? ladder[i].kernels->name : NULL;
}

const pet_field_table *pet_find_fields(int variant) {
    int i = first_rung(variant);
    return i < RUNGS ? ladder[i].fields : NULL;
}

static int parse_order(pet_order *order, const uint8_t *bytes, size_t size);

int pet_variant_covers(int variant, const uint8_t *order_bytes, size_t size) {
    pet_order order;
    int first = first_rung(variant);
    if (first == RUNGS || parse_order(&order, order_bytes, size) != PET_OK) return 0;
    for (int i = first; i < RUNGS && ladder[i].variant == ladder[first].variant; i++) {
        if (ladder[i].kernels->covers(&order)) return 1;
    }
    return 0;
}

/* Call the first variant from rung i downwards that covers the order and has the kernel: portable has all of them. */
#define CALL(i, kernel, ...)                                                                          \
    for (;; (i)++) {                                                                                  \
        const pet_kernel_table *kernels = ladder[i].kernels;                                          \
        if (kernels->kernel && runs_here(i) && kernels->covers(&order)) return kernels->kernel(__VA_ARGS__); \
    }

/* ---- arguments ----------------------------------------------------------------------------------------------------- */

static int parse_order(pet_order *order, const uint8_t *bytes, size_t size) {
    if (size == 0 || size > PET_MAX_ORDER_BYTES || bytes[size - 1] == 0 || (size == 1 && bytes[0] < 2)) return PET_BAD_ORDER;
    memset(order, 0, sizeof *order);
    pet_limbs_load(order->limbs, PET_MAX_ORDER_LIMBS, bytes, size);
    uint64_t largest[PET_MAX_ORDER_LIMBS + 1], one[PET_MAX_ORDER_LIMBS + 1] = {1};
    pet_limbs_subtract(largest, order->limbs, one, PET_MAX_ORDER_LIMBS + 1);
    size_t bits = pet_limbs_bits(largest, PET_MAX_ORDER_LIMBS + 1);
    order->draw_bytes = size;
    order->words_per_draw = (size + 3) / 4;
    order->element_bytes = (bits + 7) / 8;
    order->planes = (bits + 1 + 63) / 64;
    return PET_OK;
}

/* Find the rung and the order: what every kernel begins with. */
static int enter(int variant, const uint8_t *order_bytes, size_t size, int *i, pet_order *order) {
    *i = first_rung(variant);
    return *i == RUNGS ? PET_BAD_VARIANT : parse_order(order, order_bytes, size);
}

#define ENTER(variant, bytes, size)                                   \
    int rung_index;                                                   \
    pet_order order;                                                  \
    int status = enter(variant, bytes, size, &rung_index, &order);    \
    if (status != PET_OK) return status

static int is_data_type(int data_type) {
    return data_type == PET_F32 || data_type == PET_F64 || data_type == PET_I32 || data_type == PET_I64;
}

/* Whether the integer is below the order or equal to it. */
static int is_within_order(pet_integer integer, const pet_order *order) {
    uint64_t limbs[PET_MAX_ORDER_LIMBS + 1] = {0};
    size_t size = pet_significant_bytes(integer);
    if (size > PET_MAX_ORDER_BYTES) return 0;
    pet_limbs_load(limbs, PET_MAX_ORDER_LIMBS, integer.bytes, size);
    return !pet_limbs_are_less(order->limbs, limbs, PET_MAX_ORDER_LIMBS + 1);
}

static int check_encoding(const pet_encoding *encoding, const pet_order *order, int data_type) {
    size_t denominator = pet_significant_bytes(encoding->scale_denominator);
    int is_good = is_data_type(data_type) && is_within_order(encoding->offset, order) && denominator > 0 &&
                  denominator <= PET_MAX_SCALE_BYTES && pet_significant_bytes(encoding->scale_numerator) <= PET_MAX_SCALE_BYTES;
    return is_good ? PET_OK : PET_BAD_ARGUMENT;
}

static int check_ratio(const pet_decoding *decoding) {
    size_t numerator = pet_significant_bytes(decoding->numerator), denominator = pet_significant_bytes(decoding->denominator);
    int is_good = numerator > 0 && numerator <= PET_MAX_RATIO_BYTES && denominator > 0 && denominator <= PET_MAX_RATIO_BYTES &&
                  pet_significant_bytes(decoding->offset) <= PET_MAX_RATIO_BYTES;
    return is_good ? PET_OK : PET_BAD_ARGUMENT;
}

static int check_bounds(const pet_decoding *decoding) {
    size_t lowest = pet_significant_bytes(decoding->lowest), highest = pet_significant_bytes(decoding->highest);
    return lowest <= PET_MAX_ORDER_BYTES && highest <= PET_MAX_ORDER_BYTES ? PET_OK : PET_BAD_ARGUMENT;
}

/* ---- sizes --------------------------------------------------------------------------------------------------------- */

size_t pet_element_bytes(const uint8_t *order_bytes, size_t size) {
    pet_order order;
    return parse_order(&order, order_bytes, size) == PET_OK ? order.element_bytes : 0;
}

size_t pet_planes(const uint8_t *order_bytes, size_t size) {
    pet_order order;
    return parse_order(&order, order_bytes, size) == PET_OK ? order.planes : 0;
}

uint64_t pet_capacity(const uint8_t *order_bytes, size_t size) {
    pet_order order;
    return parse_order(&order, order_bytes, size) == PET_OK ? pet_order_capacity(&order) : 0;
}

/* ---- the kernels --------------------------------------------------------------------------------------------------- */

int pet_expand(int variant, uint8_t *elements, size_t length, const uint8_t *seed, uint64_t *position,
               const uint8_t *order_bytes, size_t size) {
    ENTER(variant, order_bytes, size);
    CALL(rung_index, expand, elements, length, seed, position, &order);
}

int pet_sum_masks(int variant, uint64_t *total, size_t plane_stride, size_t length, const uint8_t *seeds, size_t seed_count,
                  uint64_t *positions, const uint8_t *order_bytes, size_t size) {
    ENTER(variant, order_bytes, size);
    CALL(rung_index, sum_masks, total, plane_stride, length, seeds, seed_count, positions, &order);
}

int pet_mask_weights(int variant, uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *elements,
                     const pet_encoding *encoding, uint64_t *clipped_count, size_t *bad_index) {
    ENTER(variant, encoding->order.bytes, encoding->order.size);
    if ((status = check_encoding(encoding, &order, data_type)) != PET_OK) return status;
    CALL(rung_index, mask_weights, masked, weights, data_type, length, elements, &order, encoding, clipped_count, bad_index);
}

int pet_update(int variant, uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *seed,
               uint64_t *position, const pet_encoding *encoding, uint64_t *clipped_count, size_t *bad_index) {
    ENTER(variant, encoding->order.bytes, encoding->order.size);
    if ((status = check_encoding(encoding, &order, data_type)) != PET_OK) return status;
    CALL(rung_index, update, masked, weights, data_type, length, seed, position, &order, encoding, clipped_count, bad_index);
}

size_t pet_find_invalid(int variant, const uint8_t *elements, size_t length, const uint8_t *order_bytes, size_t size) {
    int rung_index;
    pet_order order;
    /* The contract has no room for a status here. An order or variant that is refused makes every element invalid. */
    if (enter(variant, order_bytes, size, &rung_index, &order) != PET_OK) return 0;
    CALL(rung_index, find_invalid, elements, length, &order);
}

int pet_aggregate(int variant, uint64_t *total, size_t plane_stride, size_t length, const uint8_t *const *vectors,
                  size_t vector_count, const uint8_t *order_bytes, size_t size, size_t *bad_vector) {
    ENTER(variant, order_bytes, size);
    CALL(rung_index, aggregate, total, plane_stride, length, vectors, vector_count, &order, bad_vector);
}

int pet_subtract(int variant, uint64_t *total, size_t plane_stride, size_t length, const uint8_t *elements,
                 const uint8_t *order_bytes, size_t size) {
    ENTER(variant, order_bytes, size);
    CALL(rung_index, subtract, total, plane_stride, length, elements, &order);
}

int pet_reduce(int variant, uint64_t *total, size_t plane_stride, size_t length, uint64_t bound, const uint8_t *order_bytes,
               size_t size) {
    ENTER(variant, order_bytes, size);
    if (bound < 1 || bound > pet_order_capacity(&order)) return PET_BAD_ARGUMENT;
    CALL(rung_index, reduce, total, plane_stride, length, bound, &order);
}

int pet_pack(int variant, uint8_t *elements, const uint64_t *total, size_t plane_stride, size_t length,
             const uint8_t *order_bytes, size_t size) {
    ENTER(variant, order_bytes, size);
    CALL(rung_index, pack, elements, total, plane_stride, length, &order);
}

int pet_unmask_elements(int variant, uint8_t *elements, const uint64_t *total, size_t plane_stride, const uint8_t *mask,
                        size_t length, const uint8_t *order_bytes, size_t size) {
    ENTER(variant, order_bytes, size);
    CALL(rung_index, unmask_elements, elements, total, plane_stride, mask, length, &order);
}

int pet_unmask(int variant, void *model, int data_type, const uint64_t *total, size_t plane_stride, const uint8_t *mask,
               size_t length, const pet_decoding *decoding, size_t *bad_index) {
    ENTER(variant, decoding->order.bytes, decoding->order.size);
    if (!is_data_type(data_type)) return PET_BAD_ARGUMENT;
    if ((status = check_ratio(decoding)) != PET_OK || (status = check_bounds(decoding)) != PET_OK) return status;
    CALL(rung_index, unmask, model, data_type, total, plane_stride, mask, length, &order, decoding, bad_index);
}

/* Fractions are written once per round: there is one version of them, whatever the variant. */

int pet_encode_fractions(int variant, uint8_t *output, size_t capacity, size_t *used, size_t *done, const uint8_t *elements,
                         size_t length, const pet_decoding *decoding) {
    ENTER(variant, decoding->order.bytes, decoding->order.size);
    if ((status = check_ratio(decoding)) != PET_OK) return status;
    return pet_encode_fractions_portable(output, capacity, used, done, elements, length, &order, decoding);
}

int pet_encode_floats(int variant, uint8_t *output, size_t capacity, size_t *used, size_t *done, const void *values,
                      int data_type, size_t length, size_t *bad_index) {
    if (first_rung(variant) == RUNGS) return PET_BAD_VARIANT;
    if (data_type != PET_F32 && data_type != PET_F64) return PET_BAD_ARGUMENT;
    return pet_encode_floats_portable(output, capacity, used, done, values, data_type, length, bad_index);
}

int pet_decode_fractions(int variant, void *model, int data_type, size_t length, const uint8_t *input, size_t size,
                         size_t *used, size_t *bad_index) {
    if (first_rung(variant) == RUNGS) return PET_BAD_VARIANT;
    if (!is_data_type(data_type)) return PET_BAD_ARGUMENT;
    return pet_decode_fractions_portable(model, data_type, length, input, size, used, bad_index);
}
