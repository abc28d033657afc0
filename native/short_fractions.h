/* Fractions whose numbers are short: a magnitude and a denominator of up to two limbs, as every bounded config has. Part of
 * fractions.c, which has the general case.
 *
 * All weights of a model share a denominator, so what it can have in common with a magnitude is found out once per call: its
 * small prime factors, and the rough rest without any. A magnitude is divisible by a prime p exactly if its product with the
 * inverse of p modulo 2^128 is at most 2^128 / p, and that product is then the quotient: no division, and no gcd but with the
 * rough rest. Those wait for themselves most of the time, so four of them run side by side. */
#ifndef PET_SHORT_FRACTIONS_H
#define PET_SHORT_FRACTIONS_H

#include "fraction_values.h"

enum {
    MAX_SMALL_FACTOR = 255,
    MAX_SMALL_FACTOR_COUNT = 26, /* the product of more odd primes is beyond 128 bits */
    SIDE_BY_SIDE = 4,
    SHORT_RECORD_BYTES = 2 * 9 + 24 + 16 + 8, /* the widest record, and what its last store writes too much */
};

typedef struct {
    pet_u128 inverse, largest_quotient;
    int exponent;
} small_factor;

/* (element - offset) * numerator / denominator. */
typedef struct {
    pet_u128 offset, denominator;
    uint64_t numerator;
    uint64_t rough; /* the denominator without its small factors */
    int twos, factor_count;
    small_factor factors[MAX_SMALL_FACTOR_COUNT];
} short_ratio;

/* A weight in lowest terms, but for the numerator of the ratio. */
typedef struct {
    pet_u128 magnitude, denominator;
    int is_negative;
} short_weight;

static inline pet_u128 two_limbs(const uint64_t *limbs, size_t count) {
    return count > 1 ? (pet_u128)limbs[1] << 64 | limbs[0] : limbs[0];
}

static inline int twos_of(pet_u128 x) {
    uint64_t low = (uint64_t)x, high = (uint64_t)(x >> 64);
    return low ? __builtin_ctzll(low) : high ? 64 + __builtin_ctzll(high) : 128;
}

/* The inverse of an odd number modulo 2^128: each step doubles the number of right bits, of which 3 x ^ 2 has five. */
static pet_u128 inverse_of(uint64_t odd) {
    pet_u128 inverse = (3 * odd) ^ 2;
    for (int i = 0; i < 5; i++) inverse *= 2 - odd * inverse;
    return inverse;
}

/* Returns 0 where the numbers are too long. numerator / denominator is in lowest terms. */
static int prepare_short_ratio(short_ratio *ratio, const uint64_t *offset, size_t difference_count, const uint64_t *numerator,
                               size_t numerator_count, const uint64_t *denominator, size_t denominator_count) {
    if (difference_count > 2 || numerator_count != 1 || denominator_count > 2) return 0;
    ratio->offset = two_limbs(offset, difference_count);
    ratio->denominator = two_limbs(denominator, denominator_count);
    ratio->numerator = numerator[0];
    ratio->twos = twos_of(ratio->denominator);
    ratio->factor_count = 0;
    pet_u128 rest = ratio->denominator >> ratio->twos;
    for (uint64_t p = 3; p <= MAX_SMALL_FACTOR; p += 2) {
        int exponent = 0;
        for (; rest % p == 0; rest /= p) exponent++;
        if (exponent) ratio->factors[ratio->factor_count++] = (small_factor){inverse_of(p), ~(pet_u128)0 / p, exponent};
    }
    ratio->rough = (uint64_t)rest;
    return rest >> 64 == 0;
}

/* Cancel everything but what the magnitude shares with the rough rest. */
static inline short_weight cancel_small_factors(const short_ratio *ratio, pet_u128 element) {
    short_weight weight = {.denominator = ratio->denominator, .is_negative = element < ratio->offset};
    weight.magnitude = weight.is_negative ? ratio->offset - element : element - ratio->offset;
    if (weight.magnitude == 0) return (short_weight){0, 1, 0};
    int twos = twos_of(weight.magnitude);
    if (twos > ratio->twos) twos = ratio->twos;
    weight.magnitude >>= twos;
    weight.denominator >>= twos;
    for (int i = 0; i < ratio->factor_count; i++) {
        const small_factor *factor = &ratio->factors[i];
        for (int left = factor->exponent; left > 0; left--) {
            const pet_u128 quotient = weight.magnitude * factor->inverse;
            if (quotient > factor->largest_quotient) break;
            weight.magnitude = quotient;
            weight.denominator *= factor->inverse;
        }
    }
    return weight;
}

/* The binary algorithm for several numbers at once, with an odd one; numbers[i] = the greatest common divisor. */
static void gcd_side_by_side(uint64_t numbers[SIDE_BY_SIDE], uint64_t odd) {
    uint64_t smaller[SIDE_BY_SIDE], is_any_left = 1;
    for (int i = 0; i < SIDE_BY_SIDE; i++) smaller[i] = odd;
    while (is_any_left) {
        is_any_left = 0;
        for (int i = 0; i < SIDE_BY_SIDE; i++) {
            const uint64_t a = numbers[i] >> (__builtin_ctzll(numbers[i] | 1ULL << 63) & 63), b = smaller[i];
            /* Of 0, which is done, nothing is taken: it stays 0, and the smaller one as well. */
            smaller[i] = a != 0 && a < b ? a : b;
            numbers[i] = a == 0 ? 0 : a < b ? b - a : a - b;
            is_any_left |= numbers[i];
        }
    }
    for (int i = 0; i < SIDE_BY_SIDE; i++) numbers[i] = smaller[i];
}

static void cancel_rough_factors(const short_ratio *ratio, short_weight weights[SIDE_BY_SIDE]) {
    uint64_t shared[SIDE_BY_SIDE];
    for (int i = 0; i < SIDE_BY_SIDE; i++) {
        const pet_u128 magnitude = weights[i].magnitude;
        shared[i] = magnitude >> 64 ? (uint64_t)(magnitude % ratio->rough) : (uint64_t)magnitude % ratio->rough;
    }
    gcd_side_by_side(shared, ratio->rough);
    for (int i = 0; i < SIDE_BY_SIDE; i++) {
        if (shared[i] == 1 || weights[i].magnitude == 0) continue;
        weights[i].magnitude /= shared[i];
        weights[i].denominator /= shared[i];
    }
}

/* Write a sign, a count of 32-bit words and three limbs, of which only the words that count are kept; the bytes to keep. */
static inline size_t write_short_integer(uint8_t *bytes, uint64_t low, uint64_t middle, uint64_t high, int is_negative) {
    const size_t words = high     ? 6 - (size_t)__builtin_clzll(high) / 32
                         : middle ? 4 - (size_t)__builtin_clzll(middle) / 32
                         : low    ? 2 - (size_t)__builtin_clzll(low) / 32
                                  : 0;
    bytes[0] = words == 0 ? 0 : is_negative ? 0xff : 1;
    pet_store64(bytes + 1, words);
    pet_store64(bytes + 9, low);
    if (words > 2) pet_store64(bytes + 17, middle);
    if (words > 4) pet_store64(bytes + 25, high);
    return 9 + 4 * words;
}

/* The bytes of one weight; SHORT_RECORD_BYTES may be touched. */
static inline size_t write_short_weight(uint8_t *bytes, const short_ratio *ratio, short_weight weight) {
    const pet_u128 low = (pet_u128)(uint64_t)weight.magnitude * ratio->numerator;
    const pet_u128 high = (weight.magnitude >> 64) * ratio->numerator + (low >> 64);
    size_t used = write_short_integer(bytes, (uint64_t)low, (uint64_t)high, (uint64_t)(high >> 64), weight.is_negative);
    return used + write_short_integer(bytes + used, (uint64_t)weight.denominator, (uint64_t)(weight.denominator >> 64), 0, 0);
}

/* Write the fractions of as many elements as there is ample room for, a multiple of SIDE_BY_SIDE; their number. */
static size_t encode_short_fractions(uint8_t *output, size_t capacity, size_t *used, const uint8_t *elements, size_t length,
                                     size_t element_bytes, const short_ratio *ratio) {
    size_t i = 0;
    for (; i + SIDE_BY_SIDE <= length && capacity - *used >= SIDE_BY_SIDE * SHORT_RECORD_BYTES; i += SIDE_BY_SIDE) {
        short_weight weights[SIDE_BY_SIDE];
        for (int k = 0; k < SIDE_BY_SIDE; k++) {
            uint64_t limbs[2];
            const uint8_t *element = elements + (i + (size_t)k) * element_bytes;
            if (element_bytes <= 8) {
                limbs[0] = pet_load_narrow(element, element_bytes);
                limbs[1] = 0;
            } else {
                limbs[0] = pet_load64(element);
                limbs[1] = pet_load64(element + element_bytes - 8) >> (8 * (16 - element_bytes));
            }
            weights[k] = cancel_small_factors(ratio, two_limbs(limbs, 2));
        }
        if (ratio->rough > 1) cancel_rough_factors(ratio, weights);
        for (int k = 0; k < SIDE_BY_SIDE; k++) *used += write_short_weight(output + *used, ratio, weights[k]);
    }
    return i;
}

#endif
