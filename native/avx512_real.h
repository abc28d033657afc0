/* Weights to elements and back with doubles, eight at a time: avx2_real.h, twice as wide, with conversions between integers
 * and doubles in one instruction. Part of avx512_memory.c, included nowhere else; it knows scales, offsets and bounds
 * (scales.h), not where they come from. */
#ifndef PET_AVX512_REAL_H
#define PET_AVX512_REAL_H

#include "avx512_elements.h"
#include "encoding_method.h"

typedef __m512d reals;
typedef __mmask8 lane_mask;
typedef __m512i lane_counts;

PET_INLINE unsigned mask_bits(lane_mask mask) { return mask; }
PET_INLINE lane_mask without(lane_mask mask, lane_mask taken) { return (lane_mask)(mask & ~taken); }
PET_INLINE lane_counts count_none(void) { return _mm512_setzero_si512(); }
PET_INLINE lane_counts count_lanes(lane_counts counts, lane_mask mask) {
    return _mm512_mask_sub_epi64(counts, mask, counts, spread64(UINT64_MAX));
}

PET_INLINE reals spread_real(double x) { return _mm512_set1_pd(x); }
PET_INLINE reals clamp(reals x, reals lowest, reals highest) { return _mm512_max_pd(_mm512_min_pd(x, highest), lowest); }
PET_INLINE reals floored(reals x) { return _mm512_roundscale_pd(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
PET_INLINE reals truncated(reals x) { return _mm512_roundscale_pd(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC); }
/* How far each number lies from the nearest integer. */
PET_INLINE reals distance(reals x) {
    return _mm512_abs_pd(_mm512_reduce_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* ---- integers and doubles ---------------------------------------------------------------------------------------------- */

/* With two planes each half of the high one is exact, so only the last two additions round. */
PET_INLINE reals to_double_unsigned(lanes value, const int planes) {
    const reals low = _mm512_cvtepu64_pd(value.low);
    if (planes == 1) return low;
    const reals top = _mm512_cvtepu64_pd(high_half(value.high));
    const reals middle = _mm512_cvtepu64_pd(_mm512_and_si512(value.high, spread64(UINT32_MAX)));
    return _mm512_fmadd_pd(top, spread_real(0x1p96), _mm512_fmadd_pd(middle, spread_real(0x1p64), low));
}

/* The nearest integer, which is below 2^32, in the low half of each word. */
PET_INLINE __m512i nearest_word(reals x) { return _mm512_cvtpd_epu64(x); }

/* Doubles that are integers below 2^51 in magnitude. */
PET_INLINE __m512i integers_of(reals x) { return _mm512_cvtpd_epi64(x); }

PET_INLINE lane_mask below_zero(__m512i x) { return _mm512_movepi64_mask(x); }
PET_INLINE __m512i choose_words(lane_mask mask, __m512i a, __m512i b) { return _mm512_mask_blend_epi64(mask, b, a); }

/* ---- weights in memory ------------------------------------------------------------------------------------------------ */

/* Integers of 64 bits are brought between the limits of exact doubles: beyond them they are clipped in any case. */
PET_INLINE reals load_lanes(const uint8_t *bytes, const int data_type) {
    const __m512i limit = spread64(UINT64_C(1) << 52);
    switch (data_type) {
    case PET_F32: return _mm512_cvtps_pd(_mm256_loadu_ps((const float *)bytes));
    case PET_I32: return _mm512_cvtepi32_pd(_mm256_loadu_si256((const __m256i *)bytes));
    case PET_I64: {
        const __m512i weights = _mm512_min_epi64(_mm512_loadu_si512(bytes), limit);
        return _mm512_cvtepi64_pd(_mm512_max_epi64(weights, sub64(_mm512_setzero_si512(), limit)));
    }
    default: return _mm512_loadu_pd((const double *)bytes);
    }
}

PET_INLINE void store_lanes(uint8_t *bytes, reals weights, const int data_type) {
    if (data_type == PET_F64)
        _mm512_storeu_pd((double *)bytes, weights);
    else
        _mm256_storeu_ps((float *)bytes, _mm512_cvtpd_ps(weights));
}

/* Integers; what a narrower type cannot hold becomes its nearest value. */
PET_INLINE void store_integers(uint8_t *bytes, __m512i weights, const int data_type) {
    if (data_type == PET_I64)
        _mm512_storeu_si512(bytes, weights);
    else
        _mm256_storeu_si256((__m256i *)bytes, _mm512_cvtsepi64_epi32(weights));
}

/* Lanes with NaN or infinity. */
PET_INLINE lane_mask not_finite(reals weights) { return _mm512_fpclass_pd_mask(weights, 0x01 | 0x08 | 0x10 | 0x80); }

/* ---- masking -------------------------------------------------------------------------------------------------------- */

typedef struct {
    reals scale_high, scale_low;
    reals least_weight, greatest_weight; /* beyond these a weight is clipped, whatever it is */
    reals least, greatest;               /* - offset and offset, where doubles hold them */
    reals doubt, tie;                    /* as in scales.h */
    lanes offset, twice_offset;
} encoder;

static encoder encoder_of(const encoding_numbers *numbers) {
    const wide_integer offset = numbers->offset;
    return (encoder){
        .scale_high = spread_real(numbers->scale.high),
        .scale_low = spread_real(numbers->scale.low),
        .least_weight = spread_real(-numbers->weight_limit),
        .greatest_weight = spread_real(numbers->weight_limit),
        .least = spread_real(-numbers->limit),
        .greatest = spread_real(numbers->limit),
        .doubt = spread_real(numbers->doubt),
        .tie = spread_real(numbers->tie),
        .offset = spread_wide((uint64_t)offset, (uint64_t)(offset >> 64)),
        .twice_offset = spread_wide((uint64_t)(2 * offset), (uint64_t)(2 * offset >> 64)),
    };
}

typedef struct {
    lanes element;
    lane_mask doubtful, clipped;
} encoded;

/* floor(weight * scale) = floor + correction, where not in doubt. */
typedef struct {
    reals floor, correction;
    lane_mask doubtful;
} scaled_weights;

/* As in avx2_real.h: an integer can lie between product and product + error only if product is an integer itself. */
PET_INLINE scaled_weights scale_weights(const encoder *e, reals weights) {
    weights = clamp(weights, e->least_weight, e->greatest_weight);
    const reals estimate = _mm512_mul_pd(weights, e->scale_high);
    reals error = _mm512_fmadd_pd(weights, e->scale_low, _mm512_fmsub_pd(weights, e->scale_high, estimate));
    const reals product = _mm512_add_pd(estimate, error);
    error = _mm512_sub_pd(error, _mm512_sub_pd(product, estimate));
    const reals floor = floored(product);
    const lane_mask is_integer = _mm512_cmp_pd_mask(floor, product, _CMP_EQ_OQ);
    const reals bound = _mm512_mul_pd(_mm512_abs_pd(product), e->doubt);
    const reals correction = floored(_mm512_fmadd_pd(_mm512_abs_pd(product), e->tie, error));
    return (scaled_weights){floor, _mm512_maskz_mov_pd(is_integer, correction),
                            _mm512_mask_cmp_pd_mask(is_integer, distance(error), bound, _CMP_LT_OQ)};
}

/* Add the offset to integers, taken from doubles, that were clamped. */
PET_INLINE lanes add_offset(const encoder *e, reals integers, const int planes) {
    const __m512i low = _mm512_cvtpd_epi64(integers);
    return add((lanes){low, _mm512_srai_epi64(low, 63)}, e->offset, planes);
}

PET_INLINE encoded encode_clamped(const encoder *e, reals floor, lane_mask doubtful, const int planes) {
    const reals clamped = clamp(floor, e->least, e->greatest);
    return (encoded){add_offset(e, clamped, planes), doubtful, _mm512_cmp_pd_mask(clamped, floor, _CMP_NEQ_OQ)};
}

/* Where the offset is beyond INTEGER_LIMIT: floor = upper * 2^51 + lower, and the clamp is in integers. */
PET_INLINE encoded encode_wide(const encoder *e, reals weights) {
    const scaled_weights scaled = scale_weights(e, weights);
    const reals upper = truncated(_mm512_mul_pd(scaled.floor, spread_real(0x1p-51)));
    const reals lower = _mm512_fnmadd_pd(upper, spread_real(0x1p51), scaled.floor);
    const __m512i shifted = _mm512_cvtpd_epi64(upper);
    const __m512i rest = add64(_mm512_cvtpd_epi64(lower), _mm512_cvtpd_epi64(scaled.correction));
    lanes sum = add((lanes){_mm512_slli_epi64(shifted, 51), _mm512_srai_epi64(shifted, 13)}, e->offset, 2);
    sum = add(sum, (lanes){rest, _mm512_srai_epi64(rest, 63)}, 2);
    const lane_mask too_small = negative(sum, 2), too_large = negative(sub(e->twice_offset, sum, 2), 2);
    sum = choose(too_large, e->twice_offset, sum, 2);
    const lane_mask kept = (lane_mask)~too_small;
    const lanes clamped = {_mm512_maskz_mov_epi64(kept, sum.low), _mm512_maskz_mov_epi64(kept, sum.high)};
    return (encoded){clamped, scaled.doubtful, (lane_mask)(too_small | too_large)};
}

PET_INLINE encoded encode(const encoder *e, reals weights, const encoding_method method, const int planes) {
    if (method == WIDE_PRODUCTS) return encode_wide(e, weights);
    if (method == EXACT_PRODUCTS) return encode_clamped(e, floored(_mm512_mul_pd(weights, e->scale_high)), 0, planes);
    if (method == SHORT_PRODUCTS) {
        const reals product = _mm512_mul_pd(weights, e->scale_high);
        const reals bound = _mm512_mul_pd(_mm512_abs_pd(product), spread_real(SHORT_PRODUCT_ERROR));
        return encode_clamped(e, floored(product), _mm512_cmp_pd_mask(distance(product), bound, _CMP_LT_OQ), planes);
    }
    const scaled_weights scaled = scale_weights(e, weights);
    return encode_clamped(e, _mm512_add_pd(scaled.floor, scaled.correction), scaled.doubtful, planes);
}

/* ---- unmasking ------------------------------------------------------------------------------------------------------ */

typedef struct {
    reals ratio_high, ratio_low;
    reals least, greatest; /* finite value of the data type */
    lanes offset;
} decoder;

static decoder decoder_of(const decoding_numbers *numbers) {
    return (decoder){
        .ratio_high = spread_real(numbers->ratio.high),
        .ratio_low = spread_real(numbers->ratio.low),
        .least = spread_real(-numbers->largest),
        .greatest = spread_real(numbers->largest),
        .offset = spread_wide((uint64_t)numbers->offset, (uint64_t)(numbers->offset >> 64)),
    };
}

/* To the nearest double, with one plane; within 3/4 of a unit in the last place with two. */
PET_INLINE reals to_double(lanes value, const int planes) {
    if (planes == 1) return _mm512_cvtepi64_pd(value.low);
    const lane_mask is_negative = negative(value, planes);
    const lanes zero = spread_wide(0, 0);
    const reals magnitude = to_double_unsigned(choose(is_negative, sub(zero, value, planes), value, planes), planes);
    return _mm512_mask_sub_pd(magnitude, is_negative, _mm512_setzero_pd(), magnitude);
}

/* The weights of differences. For F64 the second double of the ratio takes away half of the rounding. */
PET_INLINE reals decode(const decoder *d, lanes difference, const int data_type, const int planes) {
    const reals value = to_double(sub(difference, d->offset, planes), planes);
    if (data_type == PET_F32) return clamp(_mm512_mul_pd(value, d->ratio_high), d->least, d->greatest);
    const reals weights = _mm512_fmadd_pd(value, d->ratio_high, _mm512_mul_pd(value, d->ratio_low));
    return clamp(weights, d->least, d->greatest);
}

#endif
