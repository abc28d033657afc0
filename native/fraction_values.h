/* Fractions of multi-limb integers as values of a data type: shared by unmasking.c and fractions.c.
 *
 * Nothing here is secret: these are global models. So it may branch, and does. */
#ifndef PET_FRACTION_VALUES_H
#define PET_FRACTION_VALUES_H

#include <float.h>
#include <math.h>

#include "portable.h"

enum { PET_RATIO_LIMBS = PET_MAX_RATIO_BYTES / 8 + 1, PET_DIFFERENCE_LIMBS = PET_RATIO_LIMBS };

/* mantissa * 2^exponent, with the mantissa's highest bit set, or 0. */
typedef struct {
    uint64_t mantissa;
    int64_t exponent;
} pet_scaled;

/* The leading 64 bits of an integer; the rest is cut off. */
static inline pet_scaled pet_leading_bits(const uint64_t *limbs, size_t count) {
    count = pet_limbs_count(limbs, count);
    if (count == 0) return (pet_scaled){0, 0};
    int unused = __builtin_clzll(limbs[count - 1]);
    uint64_t mantissa = limbs[count - 1] << unused;
    if (unused && count > 1) mantissa |= limbs[count - 2] >> (64 - unused);
    return (pet_scaled){mantissa, 64 * (int64_t)(count - 1) - unused};
}

static inline pet_scaled pet_scale_up(uint64_t mantissa, int64_t exponent) {
    int unused = __builtin_clzll(mantissa);
    return (pet_scaled){mantissa << unused, exponent - unused};
}

/* Products and quotients, not 0, of leading bits: each loses less than 2^-62 of its value. */
static inline pet_scaled pet_scaled_product(pet_scaled a, pet_scaled b) {
    return pet_scale_up((uint64_t)((pet_u128)a.mantissa * b.mantissa >> 64), a.exponent + b.exponent + 64);
}

static inline pet_scaled pet_scaled_quotient(pet_scaled a, pet_scaled b) {
    return pet_scale_up((uint64_t)(((pet_u128)a.mantissa << 63) / b.mantissa), a.exponent - b.exponent - 63);
}

/* 2^exponent, for -1022 <= exponent <= 1023. */
static inline double pet_power_of_two(int64_t exponent) {
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* The double nearest to a value, at most one unit off where it is subnormal; beyond the largest one, that. */
static inline double pet_scaled_to_double(pet_scaled value) {
    if (value.mantissa == 0) return 0;
    if (value.exponent > 960) return DBL_MAX;
    if (value.exponent < -1200) return 0;
    /* In two steps, because the power itself may lie outside the doubles; only the second can round. */
    int64_t half = value.exponent / 2;
    double nearest = (double)value.mantissa * pet_power_of_two(half) * pet_power_of_two(value.exponent - half);
    return nearest < DBL_MAX ? nearest : DBL_MAX;
}

/* Store a float of either width. */
static inline void pet_store_float(void *model, int data_type, size_t i, pet_scaled magnitude, int is_negative) {
    double value = pet_scaled_to_double(magnitude);
    if (data_type == PET_F32) {
        if (value > (double)FLT_MAX) value = (double)FLT_MAX;
        ((float *)model)[i] = (float)(is_negative ? -value : value);
    } else {
        ((double *)model)[i] = is_negative ? -value : value;
    }
}

/* The largest magnitude of an integer type, for one sign. */
static inline uint64_t pet_integer_limit(int data_type, int is_negative) {
    return (data_type == PET_I32 ? (uint64_t)INT32_MAX : (uint64_t)INT64_MAX) + (uint64_t)is_negative;
}

/* Store an integer of either width; the magnitude is within the limit. */
static inline void pet_store_integer(void *model, int data_type, size_t i, uint64_t magnitude, int is_negative) {
    int64_t value = is_negative ? -(int64_t)(magnitude - (magnitude != 0)) - (magnitude != 0) : (int64_t)magnitude;
    if (data_type == PET_I32) {
        ((int32_t *)model)[i] = (int32_t)value;
    } else {
        ((int64_t *)model)[i] = value;
    }
}

/* floor(dividend / divisor), or UINT64_MAX where it is more. Both are the same power of two too large, such that the divisor's
 * highest bit is set. dividend: room for divisor_count + 2 limbs at least, overwritten. */
static inline uint64_t pet_small_quotient(uint64_t *dividend, size_t dividend_count, const uint64_t *divisor,
                                          size_t divisor_count, uint64_t reciprocal) {
    uint64_t quotient[2];
    size_t bits = pet_limbs_bits(dividend, dividend_count);
    if (bits > 64 * divisor_count + 64) return UINT64_MAX;
    for (size_t i = dividend_count; i < divisor_count + 2; i++) dividend[i] = 0;
    pet_limbs_divide(quotient, 2, dividend, divisor, divisor_count, reciprocal);
    return quotient[1] ? UINT64_MAX : quotient[0];
}

#endif
