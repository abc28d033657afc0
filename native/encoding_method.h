/* How products of weights with a scale are made exact: chosen once per call, for what the numbers need. */
#ifndef PET_ENCODING_METHOD_H
#define PET_ENCODING_METHOD_H

#include "scales.h"

typedef enum {
    EXACT_PRODUCTS, /* one multiplication: weights and scale are so short that a double holds their product */
    SHORT_PRODUCTS, /* one multiplication; where its error could change the floor, the lanes are done again as LONG_PRODUCTS */
    LONG_PRODUCTS,  /* the sum of two doubles; where that could change the floor, lanes are done again in integers */
    WIDE_PRODUCTS,  /* LONG_PRODUCTS that need two planes */
} encoding_method;

/* What part of a short product its error may be: half a unit from the multiplication, half from the scale, doubled. */
#define SHORT_PRODUCT_ERROR 0x1p-51
#define SHORT_PRODUCT_LIMIT 0x1p40 /* up to it, lanes are in doubt once in a thousand weights at most */

/* How many bits of a double's significand are used. */
static int significant_bits(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits & (UINT64_MAX >> 12)) | UINT64_C(1) << 52;
    return 53 - __builtin_ctzll(bits);
}

/* How many bits an integer up to a limit has at most, for limits below 2^52: one more than its exponent says. */
static int integer_bits(double limit) {
    int bits = 1;
    for (; bits < 53 && limit >= 1; bits++) limit /= 2;
    return bits;
}

static encoding_method method_for(const encoding_numbers *numbers, int data_type) {
    if (numbers->is_wide) return WIDE_PRODUCTS;
    if (data_type == PET_F64) return LONG_PRODUCTS;
    /* An integer beyond the weight limit is clipped, however its product is rounded. */
    const int weight_bits = data_type == PET_F32 ? 24 : integer_bits(numbers->weight_limit);
    if (numbers->scale.is_exact && significant_bits(numbers->scale.high) + weight_bits <= 53) return EXACT_PRODUCTS;
    /* Products of integers are often integers; as long ones these need not be done again. */
    const int ties_are_many = data_type != PET_F32 && numbers->tie > 0;
    return numbers->limit <= SHORT_PRODUCT_LIMIT && !ties_are_many ? SHORT_PRODUCTS : LONG_PRODUCTS;
}

#endif
