/* Weights to elements and back with doubles, four at a time. Part of a variant's own file, included nowhere else; it knows
 * scales, offsets and bounds, not where they come from.
 *
 * Masking is exact although doubles are not: a scale is kept as the sum of two doubles, a product as the sum of two, and where
 * that sum is too close to an integer to tell its floor, the lane is done again in integers. Unmasking need not be exact. */
#ifndef PET_AVX2_REAL_H
#define PET_AVX2_REAL_H

#include "avx2_elements.h"
#include "scales.h"

/* ---- masking -------------------------------------------------------------------------------------------------------- */

#define INTEGER_LIMIT 0x1p51 /* below this in magnitude a double is turned into an integer by one addition */

typedef struct {
    __m256d scale_high, scale_low;
    __m256d least_weight, greatest_weight; /* beyond these a weight is clipped, whatever it is; none within overflows */
    __m256d least, greatest;               /* - offset and offset, where doubles hold them */
    __m256d doubt;                         /* what part of a product its error may be: 0 for an exact scale */
    four offset, twice_offset;
    int is_wide; /* whether products go beyond what one double holds exactly */
} encoder;

/* Returns 0 where the vectors cannot do it: integers of 64 bits, extreme scales and offsets, groups that are too small. */
static int prepare_encoder(encoder *e, const pet_order *order, const pet_encoding *encoding, int data_type) {
    const double_pair scale = fraction(encoding->scale_numerator, encoding->scale_denominator);
    const wide_integer offset = saturated(encoding->offset);
    const wide_integer largest = wide(order->limbs[1], order->limbs[0]) - 1;
    /* A product must not vanish below the smallest double: its floor would be 0 instead of -1. */
    const double least_scale = data_type == PET_F64 ? 1 : 0x1p-600;
    if (data_type == PET_I64 || !scale.fits || scale.high < least_scale || offset > largest / 2 || offset >> 100 != 0) return 0;
    e->is_wide = offset >= (wide_integer)INTEGER_LIMIT;
    if (e->is_wide && order->planes == 1) return 0;
    const double limit = (double)offset, weight_limit = 2 * (limit + 1) / scale.high;
    e->scale_high = _mm256_set1_pd(scale.high);
    e->scale_low = _mm256_set1_pd(scale.low);
    e->least_weight = _mm256_set1_pd(-weight_limit);
    e->greatest_weight = _mm256_set1_pd(weight_limit);
    e->least = _mm256_set1_pd(-limit);
    e->greatest = _mm256_set1_pd(limit);
    e->doubt = _mm256_set1_pd(scale.is_exact ? 0 : 0x1p-101);
    e->offset = spread_wide((uint64_t)offset, (uint64_t)(offset >> 64));
    e->twice_offset = spread_wide((uint64_t)(2 * offset), (uint64_t)(2 * offset >> 64));
    return 1;
}

PET_INLINE __m256d clamp(__m256d x, __m256d lowest, __m256d highest) {
    return _mm256_max_pd(_mm256_min_pd(x, highest), lowest);
}
PET_INLINE __m256d absolute(__m256d x) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), x); }
PET_INLINE __m256d truncated(__m256d x) { return _mm256_round_pd(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC); }
PET_INLINE __m256d nearest(__m256d x) { return _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

/* Adding 1.5 * 2^52 leaves an integer, signed, in the low bits of the double. */
PET_INLINE __m256i to_integer(__m256d x) {
    const __m256d shift = _mm256_set1_pd(0x1.8p52);
    return sub64(_mm256_castpd_si256(_mm256_add_pd(x, shift)), _mm256_castpd_si256(shift));
}
PET_INLINE four sign_extended(__m256i x) { return (four){x, _mm256_cmpgt_epi64(_mm256_setzero_si256(), x)}; }

/* floor(weight * scale) = floor + correction, where not in doubt. */
typedef struct {
    __m256d floor, correction, doubt;
} scaled_weights;

/* weight * scale = product + error up to the doubt, and |error| is at most half a unit in the last place of product. So an
 * integer can lie between product and product + error only if product is an integer itself. */
PET_INLINE scaled_weights scale_weights(const encoder *e, __m256d weights) {
    weights = clamp(weights, e->least_weight, e->greatest_weight);
    __m256d estimate = _mm256_mul_pd(weights, e->scale_high);
    __m256d error = _mm256_fmadd_pd(weights, e->scale_low, _mm256_fmsub_pd(weights, e->scale_high, estimate));
    __m256d product = _mm256_add_pd(estimate, error);
    error = _mm256_sub_pd(error, _mm256_sub_pd(product, estimate));
    __m256d floor = _mm256_floor_pd(product);
    __m256d is_integer = _mm256_cmp_pd(floor, product, _CMP_EQ_OQ);
    __m256d distance = absolute(_mm256_sub_pd(error, nearest(error)));
    __m256d is_close = _mm256_cmp_pd(distance, _mm256_mul_pd(absolute(product), e->doubt), _CMP_LT_OQ);
    return (scaled_weights){floor, _mm256_and_pd(is_integer, _mm256_floor_pd(error)), _mm256_and_pd(is_integer, is_close)};
}

/* encode(weights). doubtful: all ones in each lane that must be done again; clipped: in each that the clamp changed. */
PET_INLINE four encode(const encoder *e, __m256d weights, __m256i *doubtful, __m256i *clipped, const int planes) {
    scaled_weights scaled = scale_weights(e, weights);
    __m256d floor = _mm256_add_pd(scaled.floor, scaled.correction);
    __m256d clamped = clamp(floor, e->least, e->greatest);
    *doubtful = _mm256_castpd_si256(scaled.doubt);
    *clipped = _mm256_castpd_si256(_mm256_cmp_pd(clamped, floor, _CMP_NEQ_OQ));
    return add(sign_extended(to_integer(clamped)), e->offset, planes);
}

/* The same where the offset is beyond INTEGER_LIMIT, with two planes: floor = upper * 2^51 + lower, and the clamp is in
 * integers. */
PET_INLINE four encode_wide(const encoder *e, __m256d weights, __m256i *doubtful, __m256i *clipped) {
    scaled_weights scaled = scale_weights(e, weights);
    __m256d upper = truncated(_mm256_mul_pd(scaled.floor, _mm256_set1_pd(0x1p-51)));
    __m256d lower = _mm256_fnmadd_pd(upper, _mm256_set1_pd(0x1p51), scaled.floor);
    __m256i shifted = to_integer(upper);
    /* There is no arithmetic shift of 64 bits: made positive by 2^52 it is the logical one. */
    __m256i high = sub64(_mm256_srli_epi64(add64(shifted, spread64(UINT64_C(1) << 52)), 13), spread64(UINT64_C(1) << 39));
    four sum = add((four){_mm256_slli_epi64(shifted, 51), high}, e->offset, 2);
    sum = add(sum, sign_extended(add64(to_integer(lower), to_integer(scaled.correction))), 2);
    __m256i too_small = negative(sum, 2), too_large = negative(sub(e->twice_offset, sum, 2), 2);
    four clamped = {_mm256_blendv_epi8(sum.low, e->twice_offset.low, too_large),
                    _mm256_blendv_epi8(sum.high, e->twice_offset.high, too_large)};
    *doubtful = _mm256_castpd_si256(scaled.doubt);
    *clipped = _mm256_or_si256(too_small, too_large);
    return (four){_mm256_andnot_si256(too_small, clamped.low), _mm256_andnot_si256(too_small, clamped.high)};
}

/* ---- unmasking ------------------------------------------------------------------------------------------------------ */

typedef struct {
    __m256d ratio_high, ratio_low;
    __m256d least, greatest; /* finite value of the data type */
    four offset, lowest, highest;
    int checks; /* whether an element may lie outside [lowest, highest] at all */
} decoder;

/* Returns 0 where the vectors cannot do it: integers, and offsets or ratios beyond what 128 bits and doubles hold. */
static int prepare_decoder(decoder *d, const pet_order *order, const pet_decoding *decoding, int data_type) {
    const double_pair ratio = fraction(decoding->numerator, decoding->denominator);
    const wide_integer end = wide(order->limbs[1], order->limbs[0]);
    const wide_integer offset = saturated(decoding->offset);
    wide_integer lowest = saturated(decoding->lowest), highest = saturated(decoding->highest);
    if ((data_type != PET_F32 && data_type != PET_F64) || !ratio.fits || offset >> (64 * order->planes - 2) != 0) return 0;
    d->checks = lowest > 0 || highest < end - 1;
    if (lowest > end) lowest = end;
    if (highest > end - 1) highest = end - 1;
    d->ratio_high = _mm256_set1_pd(ratio.high);
    d->ratio_low = _mm256_set1_pd(ratio.low);
    const double largest = data_type == PET_F32 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023;
    d->least = _mm256_set1_pd(-largest);
    d->greatest = _mm256_set1_pd(largest);
    d->offset = spread_wide((uint64_t)offset, (uint64_t)(offset >> 64));
    d->lowest = spread_wide((uint64_t)lowest, (uint64_t)(lowest >> 64));
    d->highest = spread_wide((uint64_t)highest, (uint64_t)(highest >> 64));
    return 1;
}

/* A bit for each lane whose difference lies outside the bounds. */
PET_INLINE int outside(const decoder *d, four difference, const int planes) {
    return top_bits(_mm256_or_si256(top_of(sub(difference, d->lowest, planes), planes),
                                    top_of(sub(d->highest, difference, planes), planes)));
}

/* Integers to doubles: a number in the low bits of a power of two's mantissa adds itself to that power, which is then
 * subtracted. */
PET_INLINE __m256d from_low_half(__m256i x) {
    const __m256d base = _mm256_set1_pd(0x1p52);
    return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_blend_epi32(_mm256_castpd_si256(base), x, 0x55)), base);
}
PET_INLINE __m256d from_high_half(__m256i x) {
    const __m256d base = _mm256_set1_pd(0x1p84); /* the lowest bit of its mantissa is worth 2^32 */
    return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(_mm256_srli_epi64(x, 32), _mm256_castpd_si256(base))), base);
}
PET_INLINE __m256d from_unsigned(__m256i x) { return _mm256_add_pd(from_high_half(x), from_low_half(x)); }

/* The upper 16 bits carry the sign: in the mantissa of 1.5 * 2^68, whose lowest bit is worth 2^16, they add to it or take away.
 */
PET_INLINE __m256d from_signed(__m256i x) {
    const __m256d low_base = _mm256_set1_pd(0x1p52), high_base = _mm256_set1_pd(0x1.8p68);
    __m256i upper = _mm256_blend_epi16(_mm256_srai_epi32(x, 16), _mm256_setzero_si256(), 0x33);
    __m256d high = _mm256_castsi256_pd(add64(upper, _mm256_castpd_si256(high_base)));
    __m256d low = _mm256_castsi256_pd(_mm256_blend_epi16(x, _mm256_castpd_si256(low_base), 0x88));
    return _mm256_add_pd(_mm256_sub_pd(high, _mm256_set1_pd(0x1.8p68 + 0x1p52)), low);
}

/* To the nearest double, with one plane; within 3/4 of a unit in the last place with two. */
PET_INLINE __m256d to_double(four value, const int planes) {
    if (planes == 1) return from_signed(value.low);
    const __m256d two64 = _mm256_set1_pd(0x1p64);
    __m256i sign = negative(value, planes);
    four flipped = {_mm256_xor_si256(value.low, sign), _mm256_xor_si256(value.high, sign)};
    four magnitude = sub(flipped, (four){sign, sign}, planes);
    __m256d sum = _mm256_fmadd_pd(from_low_half(magnitude.high), two64, from_unsigned(magnitude.low));
    sum = _mm256_fmadd_pd(from_high_half(magnitude.high), two64, sum);
    return _mm256_or_pd(sum, _mm256_and_pd(_mm256_castsi256_pd(sign), _mm256_set1_pd(-0.0)));
}

/* The weights of differences; the second double of the ratio takes away half of the rounding. */
PET_INLINE __m256d decode(const decoder *d, four difference, const int planes) {
    __m256d value = to_double(sub(difference, d->offset, planes), planes);
    return clamp(_mm256_fmadd_pd(value, d->ratio_high, _mm256_mul_pd(value, d->ratio_low)), d->least, d->greatest);
}

#endif
