/* The numbers behind masking and unmasking in doubles, worked out once per call: scales and ratios as sums of two doubles,
 * offsets and bounds in 128 bits. Shared by the vector variants; nothing here works on a weight, and nothing is a vector.
 *
 * Masking is exact although doubles are not: a scale is kept as the sum of two doubles, a product as the sum of two, and where
 * that sum is too close to an integer to tell its floor, the lane is done again in integers. Unmasking need not be exact. */
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

/* ---- masking -------------------------------------------------------------------------------------------------------- */

#define INTEGER_LIMIT 0x1p51 /* below this in magnitude a double is turned into an integer by one addition */

typedef struct {
    double_pair scale;
    double limit;        /* the offset, rounded */
    double weight_limit; /* beyond it a weight is clipped, whatever it is; none within overflows */
    double doubt;        /* within what part of a product of an integer its floor is open: 0 where it never is */
    double tie;          /* within what part of a product of an integer it is that integer: 0 where that is open */
    wide_integer offset;
    int is_wide;         /* whether products go beyond what one double holds exactly */
} encoding_numbers;

/* How many bits an integer has from its highest to its lowest that is set. */
static size_t odd_bits(pet_integer n) {
    const size_t size = significant_bytes(n);
    if (size == 0) return 0;
    size_t zeros = 0;
    while ((n.bytes[zeros / 8] >> zeros % 8 & 1) == 0) zeros++;
    return 8 * size - (size_t)(__builtin_clz(n.bytes[size - 1]) - 24) - zeros;
}

/* Whether a product that lies within 2^-102 of itself of an integer is that integer. Let the scale be 2^k * p / q, with p and q
 * odd, and a weight m * 2^e, where m has some bits. Then the product is a multiple of 2^(e + k) / q or, where e + k > 0, of
 * 1 / q, and so is its distance from an integer; the former is 1 / (m * p) of the product, which is below 2 * (offset + 1) or
 * will be clipped. This is why one weight in three, say, can be an exact tie with a scalar of 1 / 3, and none a near one. */
static int has_exact_ties(const pet_encoding *encoding, int data_type) {
    static const size_t weight_bits[] = {[PET_F32] = 24, [PET_F64] = 53, [PET_I32] = 32, [PET_I64] = 53};
    const size_t offset_bits = 8 * significant_bytes(encoding->offset);
    return odd_bits(encoding->scale_numerator) + weight_bits[data_type] <= 101 &&
           odd_bits(encoding->scale_denominator) + offset_bits <= 98;
}

/* Returns 0 where doubles cannot do it: extreme scales and offsets, groups that are too small, integers of 64 bits that are
 * clipped only beyond what doubles hold. */
static inline int find_encoding_numbers(encoding_numbers *numbers, const pet_order *order, const pet_encoding *encoding,
                                        int data_type) {
    const double_pair scale = fraction(encoding->scale_numerator, encoding->scale_denominator);
    const wide_integer offset = saturated(encoding->offset);
    const wide_integer largest = wide(order->limbs[1], order->limbs[0]) - 1;
    /* A product must not vanish below the smallest double: its floor would be 0 instead of -1. */
    const double least_scale = data_type == PET_F64 ? 1 : 0x1p-600;
    if (!scale.fits || scale.high < least_scale || offset > largest / 2 || offset >> 100 != 0) return 0;
    *numbers = (encoding_numbers){.scale = scale, .limit = (double)offset, .offset = offset};
    numbers->weight_limit = 2 * (numbers->limit + 1) / scale.high;
    /* A product with its error term is within 2^-103 of itself of the exact one. */
    const int has_ties = has_exact_ties(encoding, data_type);
    numbers->doubt = scale.is_exact || has_ties ? 0 : 0x1p-101;
    numbers->tie = !scale.is_exact && has_ties ? 0x1p-103 : 0;
    numbers->is_wide = offset >= (wide_integer)INTEGER_LIMIT;
    return (data_type != PET_I64 || numbers->weight_limit < 0x1p52) && (!numbers->is_wide || order->planes == 2);
}

/* ---- unmasking ------------------------------------------------------------------------------------------------------ */

typedef struct {
    double_pair ratio;
    double largest; /* finite value of the data type */
    wide_integer offset, lowest, highest;
} decoding_numbers;

/* Returns 0 where doubles cannot do it: offsets or ratios beyond what 128 bits and doubles hold, and bounds that
 * leave nothing. */
static int find_decoding_numbers(decoding_numbers *numbers, const pet_order *order, const pet_decoding *decoding,
                                 int data_type) {
    const double_pair ratio = fraction(decoding->numerator, decoding->denominator);
    const wide_integer end = wide(order->limbs[1], order->limbs[0]), offset = saturated(decoding->offset);
    const wide_integer lowest = saturated(decoding->lowest);
    wide_integer highest = saturated(decoding->highest);
    if (!ratio.fits || offset >> (64 * order->planes - 2) != 0) return 0;
    if (highest > end - 1) highest = end - 1;
    if (lowest > highest) return 0;
    numbers->lowest = lowest;
    numbers->highest = highest;
    numbers->ratio = ratio;
    numbers->offset = offset;
    numbers->largest = data_type == PET_F32 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023;
    return 1;
}

#endif
