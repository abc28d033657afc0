/* The public functions of pet-1 in pet_kernels.h: each checks its arguments once, and calls a variant.
 *
 * They cut a sum of expansions into slices that stay in the cache, and they take back what was added before an element was
 * refused. Arithmetic is the variants' (fields.h). */
#include "fields.h"

static int is_order(uint64_t order) {
    return (order > UINT64_C(1) << 31 && order < UINT64_C(1) << 32) || order > UINT64_C(1) << 63;
}

static int is_field(uint64_t order) { return order == PET_Z32_ORDER || order == PET_Z64_ORDER; }

/* Find the variant's kernels and the order: what every kernel begins with. */
static int enter(int variant, uint64_t order, const pet_field_table **kernels, pet_field *field) {
    *kernels = pet_find_fields(variant);
    *field = (pet_field){order, order >> 32 != 0};
    if (*kernels == NULL) return PET_BAD_VARIANT;
    return is_order(order) ? PET_OK : PET_BAD_ORDER;
}

#define ENTER(variant, order)                                 \
    const pet_field_table *kernels;                           \
    pet_field field;                                          \
    const int status = enter(variant, order, &kernels, &field); \
    if (status != PET_OK) return status

/* ---- expansions ------------------------------------------------------------------------------------------------------ */

/* Add the expansions of all keys to a slice. */
static void add_keys(const pet_field_table *kernels, uint8_t *slice, uint64_t first, size_t length, const uint8_t *keys,
                     size_t key_count, const pet_field *field) {
    for (size_t k = 0; k < key_count; k++) kernels->expand_add(slice, keys + PET_SEED_BYTES * k, first, length, field);
}

/* What stays in the first-level cache while key after key is added to it. 32 and 64 KiB were no faster. */
enum { SLICE_BYTES = 16 * PET_BATCH_BYTES };

int pet_field_expand_add(int variant, uint8_t *vector, uint64_t first, size_t length, const uint8_t *keys, size_t key_count,
                         uint64_t factor, uint64_t order) {
    ENTER(variant, order);
    const uint64_t most = UINT64_C(1) << 32;
    if (factor >= order || (factor != 1 && !is_field(order)) || first > most || length > most - first) return PET_BAD_ARGUMENT;
    if (factor == 1 && key_count == 1) { /* nothing comes back to a slice */
        kernels->expand_add(vector, keys, first, length, &field);
        return PET_OK;
    }
    const size_t width = pet_field_width(field.is_wide), slice_length = SLICE_BYTES / width;
    _Alignas(64) uint8_t sums[SLICE_BYTES];
    /* Slices begin with a batch of keystream, so that none is drawn twice. */
    for (size_t done = 0, count; done < length; done += count) {
        const size_t room = slice_length - (size_t)((first + done) % slice_length);
        count = length - done < room ? length - done : room;
        uint8_t *slice = vector + done * width;
        if (factor == 1) {
            add_keys(kernels, slice, first + done, count, keys, key_count, &field);
        } else { /* one product for all keys */
            memset(sums, 0, count * width);
            add_keys(kernels, sums, first + done, count, keys, key_count, &field);
            kernels->multiply_add(slice, sums, count, factor, &field);
        }
    }
    return PET_OK;
}

/* ---- fixed point ----------------------------------------------------------------------------------------------------- */

static int is_float_type(int data_type) { return data_type == PET_F32 || data_type == PET_F64; }

/* The index of the first weight that is NaN or infinite: there is one. */
static size_t find_not_finite(const void *weights, size_t length, int data_type) {
    size_t i = 0;
    for (; i < length; i++) {
        const double weight = data_type == PET_F32 ? (double)((const float *)weights)[i] : ((const double *)weights)[i];
        if (!(weight - weight == 0)) break;
    }
    return i;
}

int pet_field_encode(int variant, uint8_t *elements, const void *weights, int data_type, size_t length, double scalar,
                     double bound, uint64_t levels, uint64_t order, uint64_t *clipped_count, size_t *bad_index) {
    ENTER(variant, order);
    const int is_good = is_float_type(data_type) && scalar >= 0 && scalar <= 1 && bound > 0 && bound <= 0x1p1000 &&
                        levels >= 1 && levels < order && levels <= UINT64_C(1) << 52;
    if (!is_good) return PET_BAD_ARGUMENT;
    const pet_fixed_point how = {scalar, bound, (double)levels / (2.0 * bound), (double)levels};
    uint64_t clipped = 0;
    if (!kernels->encode(elements, weights, data_type, length, &how, &field, &clipped)) {
        *bad_index = find_not_finite(weights, length, data_type);
        return PET_NOT_FINITE;
    }
    *clipped_count = clipped;
    return PET_OK;
}

int pet_field_decode(int variant, void *model, int data_type, const uint8_t *elements, size_t length, double bound,
                     uint64_t highest, double unit, uint64_t order, size_t *bad_index) {
    ENTER(variant, order);
    const int is_good = is_float_type(data_type) && bound > 0 && bound <= 0x1p1000 && highest < order && unit >= 1;
    if (!is_good) return PET_BAD_ARGUMENT;
    const pet_mean mean = {bound, unit, highest};
    if (kernels->decode(model, data_type, elements, length, &mean, &field)) return PET_OK;
    *bad_index = kernels->find_above(elements, length, highest, &field);
    return PET_OUT_OF_RANGE;
}

/* ---- vectors --------------------------------------------------------------------------------------------------------- */

size_t pet_field_find_above(int variant, const uint8_t *elements, size_t length, uint64_t highest, uint64_t order) {
    const pet_field_table *kernels;
    pet_field field;
    /* The contract has no room for a status here: an order or variant that is refused makes every element too large. */
    if (enter(variant, order, &kernels, &field) != PET_OK) return 0;
    return kernels->find_above(elements, length, highest, &field);
}

typedef size_t (*change)(uint8_t *total, const uint8_t *vector, size_t length, const pet_field *field);

/* Change a total by a vector; where an element is refused, take back what was done before it. */
static int change_total(const pet_field_table *kernels, change forth, change back, uint8_t *total, const uint8_t *vector,
                        size_t length, const pet_field *field, size_t *bad_index) {
    const size_t done = forth(total, vector, length, field), width = pet_field_width(field->is_wide);
    if (done == length) return PET_OK;
    back(total, vector, done, field);
    *bad_index = done + kernels->find_above(vector + done * width, length - done, field->order - 1, field);
    return PET_INVALID_ELEMENT;
}

int pet_field_add(int variant, uint8_t *total, const uint8_t *vector, size_t length, uint64_t order, size_t *bad_index) {
    ENTER(variant, order);
    return change_total(kernels, kernels->add, kernels->subtract, total, vector, length, &field, bad_index);
}

int pet_field_subtract(int variant, uint8_t *total, const uint8_t *vector, size_t length, uint64_t order, size_t *bad_index) {
    ENTER(variant, order);
    return change_total(kernels, kernels->subtract, kernels->add, total, vector, length, &field, bad_index);
}

int pet_field_multiply_add(int variant, uint8_t *total, const uint8_t *vector, size_t length, uint64_t factor, uint64_t order) {
    ENTER(variant, order);
    if (!is_field(order)) return PET_BAD_ORDER;
    if (factor >= order) return PET_BAD_ARGUMENT;
    kernels->multiply_add(total, vector, length, factor, &field);
    return PET_OK;
}

int pet_field_dot(int variant, uint64_t *result, const uint8_t *left, const uint8_t *right, size_t length, uint64_t order) {
    ENTER(variant, order);
    if (!is_field(order)) return PET_BAD_ORDER;
    if (*result >= order) return PET_BAD_ARGUMENT;
    *result = pet_field_plus(*result, kernels->dot(left, right, length, &field), order);
    return PET_OK;
}
