/* The kernels of the derivation pet-1, for every machine: elements of 4 or 8 bytes below an order of 32 or 64 bits
 * (docs/spec/profile.md 3, 4 and 11).
 *
 * Blocks of keystream are computed 16 at a time, word by word in rows of 16: a row is 16 neighbouring elements, so nothing is
 * transposed, and a compiler makes vectors of the loops over a row. No branch and no index depends on a key or an element, but for
 * a draw that is not below the order, which the specification makes again. */
#include "portable.h"

/* Fixed point is one rounded operation a line: no product may be fused with the sum after it. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

enum { LANES = 16, WORDS = 16, BATCH_BYTES = 4 * LANES * WORDS };

typedef uint32_t rows[WORDS][LANES];

/* What the loops need of an order: its bytes, and whether it is one that can multiply. */
typedef struct {
    uint64_t order;
    int is_wide;
} field;

static int is_order(uint64_t order) {
    return (order > UINT64_C(1) << 31 && order < UINT64_C(1) << 32) || order > UINT64_C(1) << 63;
}

static int is_field(uint64_t order) { return order == PET_Z32_ORDER || order == PET_Z64_ORDER; }

static field field_of(uint64_t order) {
    field result = {order, order >> 32 != 0};
    return result;
}

static inline uint64_t load(const uint8_t *elements, size_t i, int is_wide) {
    return is_wide ? pet_load64(elements + 8 * i) : pet_load32(elements + 4 * i);
}

static inline void store(uint8_t *elements, size_t i, uint64_t value, int is_wide) {
    if (is_wide) pet_store64(elements + 8 * i, value);
    else pet_store32(elements + 4 * i, (uint32_t)value);
}

/* ---- arithmetic below an order --------------------------------------------------------------------------------------- */

/* a + b mod order; a sum of 64 bits may wrap once, and is then the true one less 2^64. */
static inline uint64_t plus(uint64_t a, uint64_t b, uint64_t order) {
    const uint64_t sum = a + b;
    return sum - (order & -(uint64_t)((sum < a) | (sum >= order)));
}

static inline uint64_t minus(uint64_t a, uint64_t b, uint64_t order) { return a - b + (order & -(uint64_t)(a < b)); }

/* a * b mod 2^32 - 5: 2^32 is 5 there. Two folds leave less than 2^32 + 30. */
static inline uint64_t times_narrow(uint64_t a, uint64_t b) {
    uint64_t product = a * b;
    product = (product >> 32) * 5 + (product & UINT32_MAX);
    product = (product >> 32) * 5 + (product & UINT32_MAX);
    return product - (PET_Z32_ORDER & -(uint64_t)(product >= PET_Z32_ORDER));
}

/* a * b mod 2^64 - 2^32 + 1: 2^64 is 2^32 - 1 there, and 2^96 is -1. */
static inline uint64_t times_wide(uint64_t a, uint64_t b) {
    const uint64_t a0 = a & UINT32_MAX, a1 = a >> 32, b0 = b & UINT32_MAX, b1 = b >> 32;
    const uint64_t bottom = a0 * b0, left = a1 * b0, right = a0 * b1;
    const uint64_t carried = (bottom >> 32) + (left & UINT32_MAX) + (right & UINT32_MAX);
    uint64_t low = (bottom & UINT32_MAX) | carried << 32;
    const uint64_t high = a1 * b1 + (left >> 32) + (right >> 32) + (carried >> 32);
    low -= PET_Z64_ORDER & -(uint64_t)(low >= PET_Z64_ORDER);
    return plus(minus(low, high >> 32, PET_Z64_ORDER), (high & UINT32_MAX) * UINT32_MAX, PET_Z64_ORDER);
}

static inline uint64_t times(uint64_t a, uint64_t b, int is_wide) { return is_wide ? times_wide(a, b) : times_narrow(a, b); }

/* ---- keystream --------------------------------------------------------------------------------------------------------- */

#define ROTATE(x, n) ((x) << (n) | (x) >> (32 - (n)))
#define QUARTER(x, a, b, c, d)                                       \
    for (int i = 0; i < LANES; i++) {                                \
        x[a][i] += x[b][i]; x[d][i] = ROTATE(x[d][i] ^ x[a][i], 16); \
        x[c][i] += x[d][i]; x[b][i] = ROTATE(x[b][i] ^ x[c][i], 12); \
        x[a][i] += x[b][i]; x[d][i] = ROTATE(x[d][i] ^ x[a][i], 8);  \
        x[c][i] += x[d][i]; x[b][i] = ROTATE(x[b][i] ^ x[c][i], 7);  \
    }

/* The 16 blocks of a batch in a stream: x[word][block]. */
static void make_batch(rows x, const uint8_t *key, uint64_t batch, uint64_t stream) {
    static const uint32_t sigma[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    rows start;
    for (int i = 0; i < LANES; i++) {
        const uint64_t counter = LANES * batch + (uint64_t)i;
        for (int word = 0; word < 4; word++) start[word][i] = sigma[word];
        for (int word = 0; word < 8; word++) start[4 + word][i] = pet_load32(key + 4 * word);
        start[12][i] = (uint32_t)counter;
        start[13][i] = (uint32_t)(counter >> 32);
        start[14][i] = (uint32_t)stream;
        start[15][i] = (uint32_t)(stream >> 32);
    }
    memcpy(x, start, sizeof start);
    for (int round = 0; round < 10; round++) {
        QUARTER(x, 0, 4, 8, 12)
        QUARTER(x, 1, 5, 9, 13)
        QUARTER(x, 2, 6, 10, 14)
        QUARTER(x, 3, 7, 11, 15)
        QUARTER(x, 0, 5, 10, 15)
        QUARTER(x, 1, 6, 11, 12)
        QUARTER(x, 2, 7, 8, 13)
        QUARTER(x, 3, 4, 9, 14)
    }
    for (int word = 0; word < WORDS; word++) {
        for (int i = 0; i < LANES; i++) x[word][i] += start[word][i];
    }
}

static inline uint64_t drawn_at(rows x, size_t place, int is_wide) {
    const size_t lane = place % LANES, word = place / LANES;
    return is_wide ? x[2 * word][lane] | (uint64_t)x[2 * word + 1][lane] << 32 : x[word][lane];
}

/* Draw one element of a batch again, from the next streams, until it is below the order. */
static uint64_t draw_again(const uint8_t *key, uint64_t batch, size_t place, const field *f) {
    rows x;
    uint64_t value = f->order;
    for (uint64_t stream = 1; value >= f->order; stream++) {
        make_batch(x, key, batch, stream);
        value = drawn_at(x, place, f->is_wide);
    }
    return value;
}

/* Add elements `from` to `to` of a batch of one key, times a factor, to vector[0] and following. */
static void add_batch(uint8_t *vector, const uint8_t *key, uint64_t batch, size_t from, size_t to, uint64_t factor, const field *f) {
    rows x;
    const int is_wide = f->is_wide;
    make_batch(x, key, batch, 0);
    for (size_t place = from; place < to; place++) {
        uint64_t value = drawn_at(x, place, is_wide);
        if (value >= f->order) value = draw_again(key, batch, place, f);
        if (factor != 1) value = times(value, factor, is_wide);
        store(vector, place - from, plus(load(vector, place - from, is_wide), value, f->order), is_wide);
    }
}

int pet_field_expand_add(int variant, uint8_t *vector, uint64_t first, size_t length, const uint8_t *keys, size_t key_count,
                         uint64_t factor, uint64_t order) {
    if (pet_variant_name(variant) == NULL) return PET_BAD_VARIANT;
    if (!is_order(order)) return PET_BAD_ORDER;
    const uint64_t most = UINT64_C(1) << 32;
    if (factor >= order || (factor != 1 && !is_field(order)) || first > most || length > most - first) return PET_BAD_ARGUMENT;
    const field f = field_of(order);
    const size_t width = f.is_wide ? 8 : 4, batch_length = BATCH_BYTES / width;
    /* All keys for one batch, then the next: the batch stays in the first cache. */
    for (size_t done = 0; done < length;) {
        const uint64_t batch = (first + done) / batch_length;
        const size_t from = (size_t)((first + done) % batch_length);
        const size_t count = length - done < batch_length - from ? length - done : batch_length - from;
        for (size_t k = 0; k < key_count; k++) {
            add_batch(vector + done * width, keys + PET_SEED_BYTES * k, batch, from, from + count, factor, &f);
        }
        done += count;
    }
    return PET_OK;
}

/* ---- fixed point ----------------------------------------------------------------------------------------------------------- */

static inline double weight_at(const void *weights, size_t i, int data_type) {
    return data_type == PET_F32 ? (double)((const float *)weights)[i] : ((const double *)weights)[i];
}

int pet_field_encode(int variant, uint8_t *elements, const void *weights, int data_type, size_t length, double scalar,
                     double bound, uint64_t levels, uint64_t order, uint64_t *clipped_count, size_t *bad_index) {
    if (pet_variant_name(variant) == NULL) return PET_BAD_VARIANT;
    if (!is_order(order)) return PET_BAD_ORDER;
    const int is_good = (data_type == PET_F32 || data_type == PET_F64) && scalar >= 0 && scalar <= 1 && bound > 0 &&
                        bound <= 0x1p1000 && levels >= 1 && levels < order && levels <= UINT64_C(1) << 52;
    if (!is_good) return PET_BAD_ARGUMENT;
    const double top = (double)levels, factor = top / (2.0 * bound);
    const int is_wide = order >> 32 != 0;
    uint64_t clipped = 0;
    for (size_t i = 0; i < length; i++) {
        const double weight = weight_at(weights, i, data_type), scaled = weight * scalar;
        if (!(weight - weight == 0)) {
            *bad_index = i;
            return PET_NOT_FINITE;
        }
        double inside = scaled > bound ? bound : scaled;
        inside = inside < -bound ? -bound : inside;
        clipped += inside != scaled;
        const double product = (inside + bound) * factor;
        const double rounded = product + 0.5; /* its whole part is what truncation leaves: it is not negative */
        store(elements, i, (uint64_t)(rounded > top ? top : rounded), is_wide);
    }
    *clipped_count = clipped;
    return PET_OK;
}

int pet_field_decode(int variant, void *model, int data_type, const uint8_t *elements, size_t length, double bound,
                     uint64_t highest, double unit, uint64_t order, size_t *bad_index) {
    if (pet_variant_name(variant) == NULL) return PET_BAD_VARIANT;
    if (!is_order(order)) return PET_BAD_ORDER;
    const int is_good = (data_type == PET_F32 || data_type == PET_F64) && bound > 0 && bound <= 0x1p1000 && highest < order && unit >= 1;
    if (!is_good) return PET_BAD_ARGUMENT;
    const int is_wide = order >> 32 != 0;
    for (size_t i = 0; i < length; i++) {
        const uint64_t value = load(elements, i, is_wide), rest = highest - value;
        if (value > highest) {
            *bad_index = i;
            return PET_OUT_OF_RANGE;
        }
        /* 2 * value - highest as sign and magnitude: exact, and rounded once. */
        const double magnitude = (double)(value < rest ? rest - value : value - rest);
        const double mean = bound * (value < rest ? -magnitude : magnitude) / unit;
        if (data_type == PET_F32) ((float *)model)[i] = (float)mean;
        else ((double *)model)[i] = mean;
    }
    return PET_OK;
}

/* ---- vectors ----------------------------------------------------------------------------------------------------------------- */

size_t pet_field_find_above(int variant, const uint8_t *elements, size_t length, uint64_t highest, uint64_t order) {
    /* The contract has no room for a status here: an order or variant that is refused makes every element too large. */
    if (pet_variant_name(variant) == NULL || !is_order(order)) return 0;
    const int is_wide = order >> 32 != 0;
    for (size_t i = 0; i < length; i++) {
        if (load(elements, i, is_wide) > highest) return i;
    }
    return length;
}

static int check_vector(int variant, const uint8_t *vector, size_t length, uint64_t order, size_t *bad_index) {
    if (pet_variant_name(variant) == NULL) return PET_BAD_VARIANT;
    if (!is_order(order)) return PET_BAD_ORDER;
    *bad_index = pet_field_find_above(variant, vector, length, order - 1, order);
    return *bad_index < length ? PET_INVALID_ELEMENT : PET_OK;
}

int pet_field_add(int variant, uint8_t *total, const uint8_t *vector, size_t length, uint64_t order, size_t *bad_index) {
    const int status = check_vector(variant, vector, length, order, bad_index), is_wide = order >> 32 != 0;
    if (status != PET_OK) return status;
    for (size_t i = 0; i < length; i++) store(total, i, plus(load(total, i, is_wide), load(vector, i, is_wide), order), is_wide);
    return PET_OK;
}

int pet_field_subtract(int variant, uint8_t *total, const uint8_t *vector, size_t length, uint64_t order, size_t *bad_index) {
    const int status = check_vector(variant, vector, length, order, bad_index), is_wide = order >> 32 != 0;
    if (status != PET_OK) return status;
    for (size_t i = 0; i < length; i++) store(total, i, minus(load(total, i, is_wide), load(vector, i, is_wide), order), is_wide);
    return PET_OK;
}

int pet_field_multiply_add(int variant, uint8_t *total, const uint8_t *vector, size_t length, uint64_t factor, uint64_t order) {
    if (pet_variant_name(variant) == NULL) return PET_BAD_VARIANT;
    if (!is_field(order)) return PET_BAD_ORDER;
    if (factor >= order) return PET_BAD_ARGUMENT;
    const int is_wide = order == PET_Z64_ORDER;
    for (size_t i = 0; i < length; i++) {
        const uint64_t product = times(load(vector, i, is_wide), factor, is_wide);
        store(total, i, plus(load(total, i, is_wide), product, order), is_wide);
    }
    return PET_OK;
}

int pet_field_dot(int variant, uint64_t *result, const uint8_t *left, const uint8_t *right, size_t length, uint64_t order) {
    if (pet_variant_name(variant) == NULL) return PET_BAD_VARIANT;
    if (!is_field(order)) return PET_BAD_ORDER;
    if (*result >= order) return PET_BAD_ARGUMENT;
    const int is_wide = order == PET_Z64_ORDER;
    uint64_t sum = *result;
    for (size_t i = 0; i < length; i++) sum = plus(sum, times(load(left, i, is_wide), load(right, i, is_wide), is_wide), order);
    *result = sum;
    return PET_OK;
}
