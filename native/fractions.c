/* Global models as fractions in the bincode of num-bigint (spec 5.6): writing them in lowest terms, and reading them.
 *
 * There is one version of this for all variants. The bytes that are read come from a peer: nothing in them is believed before
 * it is checked. Nothing here is secret. */
#include "short_fractions.h"

enum {
    HEAD_BYTES = 9,                                              /* sign, and the number of 32-bit limbs */
    WEIGHT_LIMBS = PET_DIFFERENCE_LIMBS + PET_RATIO_LIMBS,       /* a numerator that is written */
    READ_LIMBS = PET_MAX_FRACTION_LIMBS / 2,                     /* an integer that is read */
    FLOAT_LIMBS = 17,                                            /* the largest double as an integer; or 2^1074 */
    TOLERANCE_BITS = 20,                                         /* a value may exceed its type by 2^-20 of the range */
};

/* ---- writing ------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint8_t *bytes;
    size_t capacity, used;
} output_buffer;

static size_t words_of(const uint64_t *limbs, size_t count) { return (pet_limbs_bits(limbs, count) + 31) / 32; }

static void write_integer(output_buffer *output, const uint64_t *limbs, size_t words, int is_negative) {
    uint8_t *bytes = output->bytes + output->used;
    bytes[0] = words == 0 ? 0 : is_negative ? 0xff : 1;
    pet_store64(bytes + 1, words);
    pet_limbs_store(bytes + HEAD_BYTES, 4 * words, limbs);
    output->used += HEAD_BYTES + 4 * words;
}

/* Write one fraction; 0 if it does not fit. */
static int write_fraction(output_buffer *output, const uint64_t *numerator, size_t numerator_count, int is_negative,
                          const uint64_t *denominator, size_t denominator_count) {
    size_t numerator_words = words_of(numerator, numerator_count), denominator_words = words_of(denominator, denominator_count);
    if (output->capacity - output->used < 2 * HEAD_BYTES + 4 * (numerator_words + denominator_words)) return 0;
    write_integer(output, numerator, numerator_words, is_negative);
    write_integer(output, denominator, denominator_words, 0);
    return 1;
}

/* Tell the caller how far the writing came. */
static int finish(const output_buffer *output, size_t written, size_t length, size_t *used, size_t *done) {
    if (written == 0 && length > 0) return PET_BUFFER_TOO_SMALL;
    *used = output->used;
    *done = written;
    return PET_OK;
}

/* ---- lowest terms -------------------------------------------------------------------------------------------------- */

static uint64_t gcd64(uint64_t a, uint64_t b) {
    while (a) {
        a >>= __builtin_ctzll(a);
        uint64_t smaller = a < b ? a : b;
        a = a < b ? b - a : a - b;
        b = smaller;
    }
    return b;
}

/* a = the odd part of the greatest common divisor of a and b, both not 0, b odd; its limbs. b is overwritten. */
static size_t odd_gcd(uint64_t *a, uint64_t *b, size_t count) {
    uint64_t *larger = a, *smaller = b;
    size_t left = count;
    while ((left = pet_limbs_count(larger, left)) > 0) {
        pet_limbs_shift_right(larger, left, larger, left, pet_limbs_twos(larger));
        if (left == 1 && pet_limbs_count(smaller, count) == 1) {
            smaller[0] = gcd64(larger[0], smaller[0]);
            break;
        }
        size_t smaller_count = pet_limbs_count(smaller, count);
        if (smaller_count > left) left = smaller_count;
        if (pet_limbs_are_less(larger, smaller, left)) {
            uint64_t *swap = larger;
            larger = smaller;
            smaller = swap;
        }
        pet_limbs_subtract(larger, larger, smaller, left);
    }
    size_t gcd_count = pet_limbs_count(smaller, count);
    if (smaller != a) memcpy(a, smaller, gcd_count * sizeof *a);
    return gcd_count;
}

/* limbs /= divisor, which divides them; the number of limbs left. */
static size_t divide_exactly(uint64_t *limbs, size_t count, const uint64_t *divisor, size_t divisor_count) {
    uint64_t dividend[PET_RATIO_LIMBS + 2], shifted[PET_RATIO_LIMBS], quotient[PET_RATIO_LIMBS + 1];
    if (divisor_count == 1 && divisor[0] == 1) return count;
    size_t distance = (size_t)__builtin_clzll(divisor[divisor_count - 1]), quotient_count = count + 1 - divisor_count;
    pet_limbs_shift_left(dividend, count + 1, limbs, count, distance);
    pet_limbs_shift_left(shifted, divisor_count, divisor, divisor_count, distance);
    pet_limbs_divide(quotient, quotient_count, dividend, shifted, divisor_count, pet_reciprocal(shifted[divisor_count - 1]));
    memcpy(limbs, quotient, quotient_count * sizeof *limbs);
    return pet_limbs_count(limbs, quotient_count);
}

/* Divide two integers, both not 0, by what they have in common; their numbers of limbs are updated. At most PET_RATIO_LIMBS. */
static void cancel(uint64_t *a, size_t *a_count, uint64_t *b, size_t *b_count) {
    uint64_t gcd[PET_RATIO_LIMBS], other[PET_RATIO_LIMBS];
    size_t a_twos = pet_limbs_twos(a), b_twos = pet_limbs_twos(b), twos = a_twos < b_twos ? a_twos : b_twos;
    if (*a_count == 1 && *b_count == 1) {
        uint64_t common = gcd64(a[0], b[0] >> b_twos) << twos;
        a[0] /= common;
        b[0] /= common;
        return;
    }
    if (twos) {
        pet_limbs_shift_right(a, *a_count, a, *a_count, twos);
        pet_limbs_shift_right(b, *b_count, b, *b_count, twos);
        *a_count = pet_limbs_count(a, *a_count);
        *b_count = pet_limbs_count(b, *b_count);
    }
    size_t count = *a_count > *b_count ? *a_count : *b_count;
    pet_limbs_shift_right(gcd, count, a, *a_count, 0);
    pet_limbs_shift_right(other, count, b, *b_count, b_twos - twos);
    size_t gcd_count = odd_gcd(gcd, other, count);
    *a_count = divide_exactly(a, *a_count, gcd, gcd_count);
    *b_count = divide_exactly(b, *b_count, gcd, gcd_count);
}

int pet_encode_fractions_portable(uint8_t *bytes, size_t capacity, size_t *used, size_t *done, const uint8_t *elements,
                                  size_t length, const pet_order *order, const pet_decoding *decoding) {
    output_buffer output = {bytes, capacity, 0};
    uint64_t offset[PET_RATIO_LIMBS], ratio_numerator[PET_RATIO_LIMBS], ratio_denominator[PET_RATIO_LIMBS];
    size_t offset_count = pet_load_integer(offset, PET_RATIO_LIMBS, decoding->offset);
    size_t difference_count = offset_count > order->planes ? offset_count : order->planes;
    size_t ratio_numerator_count = pet_load_integer(ratio_numerator, PET_RATIO_LIMBS, decoding->numerator);
    size_t ratio_denominator_count = pet_load_integer(ratio_denominator, PET_RATIO_LIMBS, decoding->denominator);
    cancel(ratio_numerator, &ratio_numerator_count, ratio_denominator, &ratio_denominator_count);
    size_t i = 0;
    short_ratio short_form;
    if (prepare_short_ratio(&short_form, offset, difference_count, ratio_numerator, ratio_numerator_count, ratio_denominator,
                            ratio_denominator_count))
        i = encode_short_fractions(bytes, capacity, &output.used, elements, length, order->element_bytes, &short_form);
    for (; i < length; i++) {
        uint64_t magnitude[PET_DIFFERENCE_LIMBS], denominator[PET_RATIO_LIMBS], numerator[WEIGHT_LIMBS];
        size_t count, numerator_count = 0, denominator_count = 1;
        pet_limbs_load(magnitude, difference_count, elements + i * order->element_bytes, order->element_bytes);
        int is_negative = (int)pet_limbs_are_less(magnitude, offset, difference_count);
        pet_limbs_subtract(magnitude, is_negative ? offset : magnitude, is_negative ? magnitude : offset, difference_count);
        denominator[0] = 1; /* zero is 0 / 1 */
        if ((count = pet_limbs_count(magnitude, difference_count)) > 0) {
            memcpy(denominator, ratio_denominator, ratio_denominator_count * sizeof *denominator);
            denominator_count = ratio_denominator_count;
            cancel(magnitude, &count, denominator, &denominator_count);
            pet_limbs_multiply(numerator, magnitude, count, ratio_numerator, ratio_numerator_count);
            numerator_count = count + ratio_numerator_count;
        }
        if (!write_fraction(&output, numerator, numerator_count, is_negative, denominator, denominator_count)) break;
    }
    return finish(&output, i, length, used, done);
}

static double load_float(const void *values, int data_type, size_t i) {
    return data_type == PET_F32 ? (double)((const float *)values)[i] : ((const double *)values)[i];
}

int pet_encode_floats_portable(uint8_t *bytes, size_t capacity, size_t *used, size_t *done, const void *values, int data_type,
                               size_t length, size_t *bad_index) {
    for (size_t i = 0; i < length; i++) {
        if (!isfinite(load_float(values, data_type, i))) {
            *bad_index = i;
            return PET_NOT_FINITE;
        }
    }
    output_buffer output = {bytes, capacity, 0};
    size_t i = 0;
    for (; i < length; i++) {
        double value = load_float(values, data_type, i);
        uint64_t bits, numerator[FLOAT_LIMBS] = {0}, denominator[FLOAT_LIMBS] = {0}, one = 1;
        memcpy(&bits, &value, sizeof bits);
        int exponent = (int)(bits >> 52 & 0x7ff), is_normal = exponent != 0;
        uint64_t mantissa = (bits & (UINT64_MAX >> 12)) | (uint64_t)is_normal << 52;
        int twos = mantissa ? __builtin_ctzll(mantissa) : 0;
        exponent = mantissa ? exponent + !is_normal - 1075 + twos : 0;
        mantissa >>= twos;
        pet_limbs_shift_left(numerator, FLOAT_LIMBS, &mantissa, 1, exponent > 0 ? (size_t)exponent : 0);
        pet_limbs_shift_left(denominator, FLOAT_LIMBS, &one, 1, exponent < 0 ? (size_t)-exponent : 0);
        if (!write_fraction(&output, numerator, FLOAT_LIMBS, value < 0, denominator, FLOAT_LIMBS)) break;
    }
    return finish(&output, i, length, used, done);
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *bytes;
    size_t size, used;
} input_buffer;

/* An integer, checked; limbs without leading zeros. */
typedef struct {
    int sign;
    size_t count;
    uint64_t limbs[READ_LIMBS];
} integer_value;

/* 0 if the bytes are not an integer in normal form. */
static int read_integer(input_buffer *input, integer_value *integer) {
    if (input->size - input->used < HEAD_BYTES) return 0;
    const uint8_t *bytes = input->bytes + input->used;
    uint64_t words = pet_load64(bytes + 1);
    if (words > PET_MAX_FRACTION_LIMBS || input->size - input->used - HEAD_BYTES < 4 * words) return 0;
    if (bytes[0] != 0 && bytes[0] != 1 && bytes[0] != 0xff) return 0;
    if ((bytes[0] == 0) != (words == 0)) return 0;
    if (words && pet_load32(bytes + HEAD_BYTES + 4 * (words - 1)) == 0) return 0;
    integer->sign = bytes[0] == 0xff ? -1 : bytes[0];
    integer->count = (size_t)(words + 1) / 2;
    pet_limbs_load(integer->limbs, integer->count, bytes + HEAD_BYTES, 4 * (size_t)words);
    input->used += HEAD_BYTES + 4 * (size_t)words;
    return 1;
}

/* Whether |numerator| / denominator > largest * 2^shift, largest having two limbs. */
static int is_above(const integer_value *numerator, const integer_value *denominator, const uint64_t largest[2], size_t shift) {
    enum { LIMIT_LIMBS = READ_LIMBS + FLOAT_LIMBS + 2 };
    uint64_t product[READ_LIMBS + 2], limit[LIMIT_LIMBS], magnitude[LIMIT_LIMBS] = {0};
    pet_limbs_multiply(product, denominator->limbs, denominator->count, largest, 2);
    pet_limbs_shift_left(limit, LIMIT_LIMBS, product, denominator->count + 2, shift);
    memcpy(magnitude, numerator->limbs, numerator->count * sizeof *magnitude);
    return (int)pet_limbs_are_less(limit, magnitude, LIMIT_LIMBS);
}

static int store_as_float(void *model, int data_type, size_t i, const integer_value *numerator,
                          const integer_value *denominator) {
    int64_t numerator_bits = (int64_t)pet_limbs_bits(numerator->limbs, numerator->count);
    int64_t denominator_bits = (int64_t)pet_limbs_bits(denominator->limbs, denominator->count);
    int64_t bits = numerator_bits - denominator_bits, limit = data_type == PET_F32 ? 128 : 1024;
    /* The value lies between 2^(bits - 1) and 2^(bits + 1): only near the limit it takes an exact look. */
    if (bits > limit + 1) return PET_OUT_OF_RANGE;
    if (bits >= limit - 1) {
        uint64_t significand = data_type == PET_F32 ? ((uint64_t)1 << 24) - 1 : ((uint64_t)1 << 53) - 1;
        pet_u128 tolerated = (pet_u128)significand * (((uint64_t)1 << TOLERANCE_BITS) + 1);
        uint64_t largest[2] = {(uint64_t)tolerated, (uint64_t)(tolerated >> 64)};
        size_t shift = (data_type == PET_F32 ? 104 : 971) - TOLERANCE_BITS;
        if (is_above(numerator, denominator, largest, shift)) return PET_OUT_OF_RANGE;
    }
    pet_scaled value = pet_leading_bits(numerator->limbs, numerator->count);
    if (value.mantissa) value = pet_scaled_quotient(value, pet_leading_bits(denominator->limbs, denominator->count));
    pet_store_float(model, data_type, i, value, numerator->sign < 0);
    return PET_OK;
}

static int store_as_integer(void *model, int data_type, size_t i, const integer_value *numerator,
                            const integer_value *denominator) {
    uint64_t dividend[READ_LIMBS + 2], divisor[READ_LIMBS], quotient = 0;
    uint64_t limit = pet_integer_limit(data_type, numerator->sign < 0);
    size_t count = denominator->count;
    /* Beyond 2^64 it is out of every range. A denominator of no limbs is refused before; the compiler cannot know. */
    if (numerator->count > count + 1 || count == 0) return PET_OUT_OF_RANGE;
    if (numerator->count > 0) {
        size_t distance = (size_t)__builtin_clzll(denominator->limbs[count - 1]);
        pet_limbs_shift_left(dividend, count + 2, numerator->limbs, numerator->count, distance);
        pet_limbs_shift_left(divisor, count, denominator->limbs, count, distance);
        quotient = pet_small_quotient(dividend, count + 2, divisor, count, pet_reciprocal(divisor[count - 1]));
    }
    if (quotient > limit + (limit >> TOLERANCE_BITS)) return PET_OUT_OF_RANGE;
    pet_store_integer(model, data_type, i, quotient < limit ? quotient : limit, numerator->sign < 0);
    return PET_OK;
}

/* Read one fraction into model[i]. */
static int read_weight(input_buffer *input, void *model, int data_type, size_t i) {
    integer_value numerator, denominator;
    if (!read_integer(input, &numerator) || !read_integer(input, &denominator) || denominator.sign != 1) return PET_MALFORMED;
    int is_float = data_type == PET_F32 || data_type == PET_F64;
    return (is_float ? store_as_float : store_as_integer)(model, data_type, i, &numerator, &denominator);
}

int pet_decode_fractions_portable(void *model, int data_type, size_t length, const uint8_t *bytes, size_t size, size_t *used,
                                  size_t *bad_index) {
    input_buffer input = {bytes, size, 0};
    union {
        float f32;
        double f64;
        int32_t i32;
        int64_t i64;
    } scratch;
    /* Once to check, once to store: the model stays as it was if anything is wrong. */
    for (size_t i = 0; i < length; i++) {
        int status = read_weight(&input, &scratch, data_type, 0);
        if (status != PET_OK) {
            *bad_index = i;
            return status;
        }
    }
    input.used = 0;
    for (size_t i = 0; i < length; i++) (void)read_weight(&input, model, data_type, i);
    *used = input.used;
    return PET_OK;
}
