/* The kernels of pet-1 in plain C, for every machine, and what the vector variants leave over.
 *
 * Blocks of keystream are computed 16 at a time, word by word in rows of 16: a row is 16 neighbouring elements, so nothing is
 * transposed, and a compiler makes vectors of the loops over a row. No branch and no index depends on a key or an element, but for
 * a draw that is not below the order, which the specification makes again. */
#include "fields.h"

enum { LANES = PET_BATCH_BLOCKS, WORDS = 16 };

typedef uint32_t rows[WORDS][LANES];

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

uint64_t pet_field_draw_again(const uint8_t *key, uint64_t index, const pet_field *field) {
    rows x;
    const size_t batch_length = pet_batch_length(field->is_wide);
    uint64_t value = field->order;
    for (uint64_t stream = 1; value >= field->order; stream++) {
        make_batch(x, key, index / batch_length, stream);
        value = drawn_at(x, index % batch_length, field->is_wide);
    }
    return value;
}

/* Add elements `from` to `to` of a batch. */
static void add_batch(uint8_t *vector, const uint8_t *key, uint64_t batch, size_t from, size_t to, const pet_field *field) {
    rows x;
    const int is_wide = field->is_wide;
    make_batch(x, key, batch, 0);
    for (size_t place = from; place < to; place++) {
        uint64_t value = drawn_at(x, place, is_wide);
        if (value >= field->order) value = pet_field_draw_again(key, batch * pet_batch_length(is_wide) + place, field);
        value = pet_field_plus(pet_field_load(vector, place - from, is_wide), value, field->order);
        pet_field_store(vector, place - from, value, is_wide);
    }
}

static void expand_add(uint8_t *vector, const uint8_t *key, uint64_t first, size_t length, const pet_field *field) {
    const size_t width = pet_field_width(field->is_wide), batch_length = pet_batch_length(field->is_wide);
    for (size_t done = 0; done < length;) {
        const size_t from = (size_t)((first + done) % batch_length);
        const size_t count = length - done < batch_length - from ? length - done : batch_length - from;
        add_batch(vector + done * width, key, (first + done) / batch_length, from, from + count, field);
        done += count;
    }
}

/* ---- fixed point ----------------------------------------------------------------------------------------------------------- */

static inline double weight_at(const void *weights, size_t i, int data_type) {
    return data_type == PET_F32 ? (double)((const float *)weights)[i] : ((const double *)weights)[i];
}

/* One rounded operation a line: setup.py forbids to fuse a product with the sum after it. */
static int encode(uint8_t *elements, const void *weights, int data_type, size_t length, const pet_fixed_point *how,
                  const pet_field *field, uint64_t *clipped_count) {
    int is_finite = 1;
    for (size_t i = 0; i < length; i++) {
        const double weight = weight_at(weights, i, data_type), scaled = weight * how->scalar;
        is_finite &= weight - weight == 0;
        double inside = scaled > how->bound ? how->bound : scaled;
        inside = inside < -how->bound ? -how->bound : inside;
        *clipped_count += inside != scaled;
        const double product = (inside + how->bound) * how->factor;
        const double rounded = product + 0.5; /* its whole part is what truncation leaves: it is not negative */
        /* What is not a number becomes the top: its element is undefined, its conversion must not be. */
        pet_field_store(elements, i, (uint64_t)(rounded < how->top ? rounded : how->top), field->is_wide);
    }
    return is_finite;
}

static int decode(void *model, int data_type, const uint8_t *elements, size_t length, const pet_mean *mean,
                  const pet_field *field) {
    int is_good = 1;
    for (size_t i = 0; i < length; i++) {
        const uint64_t value = pet_field_load(elements, i, field->is_wide), rest = mean->highest - value;
        is_good &= value <= mean->highest;
        /* 2 * value - highest as sign and magnitude: exact, and rounded once. */
        const double magnitude = (double)(value < rest ? rest - value : value - rest);
        const double weight = mean->bound * (value < rest ? -magnitude : magnitude) / mean->unit;
        if (data_type == PET_F32) ((float *)model)[i] = (float)weight;
        else ((double *)model)[i] = weight;
    }
    return is_good;
}

/* ---- vectors ----------------------------------------------------------------------------------------------------------------- */

static size_t find_above(const uint8_t *elements, size_t length, uint64_t highest, const pet_field *field) {
    for (size_t i = 0; i < length; i++) {
        if (pet_field_load(elements, i, field->is_wide) > highest) return i;
    }
    return length;
}

static size_t add(uint8_t *total, const uint8_t *vector, size_t length, const pet_field *field) {
    const int is_wide = field->is_wide;
    for (size_t i = 0; i < length; i++) {
        const uint64_t value = pet_field_load(vector, i, is_wide);
        if (value >= field->order) return i;
        pet_field_store(total, i, pet_field_plus(pet_field_load(total, i, is_wide), value, field->order), is_wide);
    }
    return length;
}

static size_t subtract(uint8_t *total, const uint8_t *vector, size_t length, const pet_field *field) {
    const int is_wide = field->is_wide;
    for (size_t i = 0; i < length; i++) {
        const uint64_t value = pet_field_load(vector, i, is_wide);
        if (value >= field->order) return i;
        pet_field_store(total, i, pet_field_minus(pet_field_load(total, i, is_wide), value, field->order), is_wide);
    }
    return length;
}

static void multiply_add(uint8_t *total, const uint8_t *vector, size_t length, uint64_t factor, const pet_field *field) {
    const int is_wide = field->is_wide;
    for (size_t i = 0; i < length; i++) {
        const uint64_t product = pet_field_times(pet_field_load(vector, i, is_wide), factor, is_wide);
        pet_field_store(total, i, pet_field_plus(pet_field_load(total, i, is_wide), product, field->order), is_wide);
    }
}

static uint64_t dot(const uint8_t *left, const uint8_t *right, size_t length, const pet_field *field) {
    const int is_wide = field->is_wide;
    uint64_t sum = 0;
    for (size_t i = 0; i < length; i++) {
        const uint64_t product = pet_field_times(pet_field_load(left, i, is_wide), pet_field_load(right, i, is_wide), is_wide);
        sum = pet_field_plus(sum, product, field->order);
    }
    return sum;
}

const pet_field_table pet_portable_fields = {
    .expand_add = expand_add,
    .add = add,
    .subtract = subtract,
    .encode = encode,
    .decode = decode,
    .multiply_add = multiply_add,
    .dot = dot,
    .find_above = find_above,
};
