/* A fraction of large integers as the sum of two doubles: how the vector variants take scales and ratios apart once per call.
 * It knows neither vectors nor what a fraction stands for. */
#ifndef PET_SCALES_H
#define PET_SCALES_H

#include "vectors.h"

/* value * 2^exponent, exactly if lost is 0, else rounded down; the top bit of value is bit 125 (or value is 0). */
typedef struct {
    wide_integer value;
    int exponent, lost;
} scaled_integer;

static size_t significant_bytes(pet_integer n) {
    while (n.size > 0 && n.bytes[n.size - 1] == 0) n.size--;
    return n.size;
}

static scaled_integer scaled(pet_integer n) {
    scaled_integer result = {0, 0, 0};
    size_t size = significant_bytes(n), first = size > 15 ? size - 15 : 0;
    for (size_t i = size; i > first; i--) result.value = result.value << 8 | n.bytes[i - 1];
    for (size_t i = 0; i < first; i++) result.lost |= n.bytes[i] != 0;
    result.exponent = 8 * (int)first;
    for (; result.value != 0 && result.value >> 125 == 0; result.exponent--) result.value <<= 1;
    return result;
}

/* An integer, or the largest that 128 bits hold if it is larger. */
static wide_integer saturated(pet_integer n) {
    wide_integer value = 0;
    size_t size = significant_bytes(n);
    if (size > sizeof value) return ~(wide_integer)0;
    for (size_t i = size; i > 0; i--) value = value << 8 | n.bytes[i - 1];
    return value;
}

/* high + low, where low is below one unit in the last place of high. */
typedef struct {
    double high, low;
    int is_exact; /* the fraction is high itself; otherwise high + low is at most 2^-104 of it too small */
    int fits;     /* it lies between 2^-800 and 2^800, so nothing here overflows or gets denormal */
} double_pair;

static double power_of_two(int exponent) {
    uint64_t bits = (uint64_t)(1023 + exponent) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

static double_pair fraction(pet_integer numerator, pet_integer denominator) {
    const int bits = 106; /* of the quotient, or one more */
    scaled_integer p = scaled(numerator), q = scaled(denominator);
    double_pair result = {0, 0, 0, 0};
    const int exponent = p.exponent - q.exponent - bits;
    if (p.value == 0 || q.value == 0 || exponent < -900 || exponent > 690) return result;
    wide_integer quotient = p.value >= q.value, rest = quotient ? p.value - q.value : p.value;
    for (int i = 0; i < bits; i++) {
        rest <<= 1;
        quotient = quotient << 1 | (rest >= q.value);
        if (quotient & 1) rest -= q.value;
    }
    const int low_size = quotient >> bits ? 54 : 53;
    uint64_t low = (uint64_t)(quotient & (((wide_integer)1 << low_size) - 1)), dropped = low & (low_size - 53);
    result.high = (double)(uint64_t)(quotient >> low_size) * power_of_two(exponent + low_size);
    result.low = (double)(low - dropped) * power_of_two(exponent);
    result.is_exact = rest == 0 && low == 0 && !p.lost && !q.lost;
    result.fits = 1;
    return result;
}

#endif
