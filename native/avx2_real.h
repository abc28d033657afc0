/* Weights to elements and back with doubles, four at a time. Part of a variant's own file, included nowhere else; it knows
 * scales, offsets and bounds (scales.h), not where they come from. */
#ifndef PET_AVX2_REAL_H
#define PET_AVX2_REAL_H

#include "avx2_elements.h"
#include "encoding_method.h"

typedef __m256d reals;
typedef __m256i lane_mask; /* all ones or zeros */
typedef __m256i lane_counts;

PET_INLINE unsigned mask_bits(lane_mask mask) { return (unsigned)top_bits(mask); }
PET_INLINE lane_mask without(lane_mask mask, lane_mask taken) { return _mm256_andnot_si256(taken, mask); }
PET_INLINE lane_counts count_none(void) { return _mm256_setzero_si256(); }
PET_INLINE lane_counts count_lanes(lane_counts counts, lane_mask mask) { return sub64(counts, mask); }

PET_INLINE reals spread_real(double x) { return _mm256_set1_pd(x); }
PET_INLINE __m256d clamp(__m256d x, __m256d lowest, __m256d highest) {
    return _mm256_max_pd(_mm256_min_pd(x, highest), lowest);
}
PET_INLINE __m256d absolute(__m256d x) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), x); }
PET_INLINE __m256d truncated(__m256d x) { return _mm256_round_pd(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC); }
PET_INLINE __m256d nearest(__m256d x) { return _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* How far each number lies from the nearest integer. */
PET_INLINE __m256d distance(__m256d x) { return absolute(_mm256_sub_pd(x, nearest(x))); }

/* ---- integers and doubles ---------------------------------------------------------------------------------------------- */

/* Adding 1.5 * 2^52 leaves an integer, signed, in the low bits of the double. */
PET_INLINE __m256i to_integer(__m256d x) {
    const __m256d shift = _mm256_set1_pd(0x1.8p52);
    return sub64(_mm256_castpd_si256(_mm256_add_pd(x, shift)), _mm256_castpd_si256(shift));
}
PET_INLINE four sign_extended(__m256i x) { return (four){x, _mm256_cmpgt_epi64(_mm256_setzero_si256(), x)}; }

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

/* With two planes each half of the high one is exact, so only the last two additions round. */
PET_INLINE __m256d to_double_unsigned(four value, const int planes) {
    if (planes == 1) return from_unsigned(value.low);
    const __m256d two64 = _mm256_set1_pd(0x1p64);
    const __m256d sum = _mm256_fmadd_pd(from_low_half(value.high), two64, from_unsigned(value.low));
    return _mm256_fmadd_pd(from_high_half(value.high), two64, sum);
}

/* The nearest integer, which is below 2^32, in the low half of each word. */
PET_INLINE __m256i nearest_word(__m256d x) { return _mm256_castpd_si256(_mm256_add_pd(x, _mm256_set1_pd(0x1p52))); }

/* The upper 16 bits carry the sign: in the mantissa of 1.5 * 2^68, whose lowest bit is worth 2^16, they add to it or take away.
 */
PET_INLINE __m256d from_signed(__m256i x) {
    const __m256d low_base = _mm256_set1_pd(0x1p52), high_base = _mm256_set1_pd(0x1.8p68);
    __m256i upper = _mm256_blend_epi16(_mm256_srai_epi32(x, 16), _mm256_setzero_si256(), 0x33);
    __m256d high = _mm256_castsi256_pd(add64(upper, _mm256_castpd_si256(high_base)));
    __m256d low = _mm256_castsi256_pd(_mm256_blend_epi16(x, _mm256_castpd_si256(low_base), 0x88));
    return _mm256_add_pd(_mm256_sub_pd(high, _mm256_set1_pd(0x1.8p68 + 0x1p52)), low);
}

/* Doubles that are integers below 2^51 in magnitude. */
PET_INLINE __m256i integers_of(__m256d x) { return to_integer(x); }

PET_INLINE lane_mask below_zero(__m256i x) { return _mm256_cmpgt_epi64(_mm256_setzero_si256(), x); }
PET_INLINE __m256i choose_words(lane_mask mask, __m256i a, __m256i b) { return _mm256_blendv_epi8(b, a, mask); }

/* ---- weights in memory ------------------------------------------------------------------------------------------------ */

/* Integers of 64 bits are brought between the limits of exact doubles: beyond them they are clipped in any case. */
PET_INLINE __m256d from_long(__m256i x) {
    const __m256i highest = spread64(UINT64_C(1) << 52), lowest = sub64(_mm256_setzero_si256(), highest);
    x = _mm256_blendv_epi8(x, highest, _mm256_cmpgt_epi64(x, highest));
    return from_signed(_mm256_blendv_epi8(x, lowest, _mm256_cmpgt_epi64(lowest, x)));
}

PET_INLINE __m256d load_lanes(const uint8_t *bytes, const int data_type) {
    switch (data_type) {
    case PET_F32: return _mm256_cvtps_pd(_mm_loadu_ps((const float *)bytes));
    case PET_I32: return _mm256_cvtepi32_pd(load16(bytes));
    case PET_I64: return from_long(_mm256_loadu_si256((const __m256i *)bytes));
    default: return _mm256_loadu_pd((const double *)bytes);
    }
}

PET_INLINE void store_lanes(uint8_t *bytes, __m256d weights, const int data_type) {
    if (data_type == PET_F64)
        _mm256_storeu_pd((double *)bytes, weights);
    else
        _mm_storeu_ps((float *)bytes, _mm256_cvtpd_ps(weights));
}

/* Integers; what a narrower type cannot hold becomes its nearest value. */
PET_INLINE void store_integers(uint8_t *bytes, __m256i weights, const int data_type) {
    if (data_type == PET_I64) {
        _mm256_storeu_si256((__m256i *)bytes, weights);
        return;
    }
    const __m256i highest = spread64(INT32_MAX), lowest = _mm256_set1_epi64x(INT32_MIN);
    weights = choose_words(_mm256_cmpgt_epi64(weights, highest), highest, weights);
    weights = choose_words(_mm256_cmpgt_epi64(lowest, weights), lowest, weights);
    const __m256i low_halves = _mm256_permutevar8x32_epi32(weights, _mm256_set_epi32(7, 5, 3, 1, 6, 4, 2, 0));
    _mm_storeu_si128((__m128i *)bytes, _mm256_castsi256_si128(low_halves));
}

/* Lanes with NaN or infinity: the exponent is all ones. */
PET_INLINE lane_mask not_finite(__m256d weights) {
    const __m256i exponent = spread64(UINT64_C(0x7ff) << 52);
    return _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_castpd_si256(weights), exponent), exponent);
}

/* ---- masking -------------------------------------------------------------------------------------------------------- */

typedef struct {
    __m256d scale_high, scale_low;
    __m256d least_weight, greatest_weight; /* beyond these a weight is clipped, whatever it is */
    __m256d least, greatest;               /* - offset and offset, where doubles hold them */
    __m256d doubt, tie;                    /* as in scales.h */
    four offset, twice_offset;
} encoder;

static encoder encoder_of(const encoding_numbers *numbers) {
    const wide_integer offset = numbers->offset;
    return (encoder){
        .scale_high = _mm256_set1_pd(numbers->scale.high),
        .scale_low = _mm256_set1_pd(numbers->scale.low),
        .least_weight = _mm256_set1_pd(-numbers->weight_limit),
        .greatest_weight = _mm256_set1_pd(numbers->weight_limit),
        .least = _mm256_set1_pd(-numbers->limit),
        .greatest = _mm256_set1_pd(numbers->limit),
        .doubt = _mm256_set1_pd(numbers->doubt),
        .tie = _mm256_set1_pd(numbers->tie),
        .offset = spread_wide((uint64_t)offset, (uint64_t)(offset >> 64)),
        .twice_offset = spread_wide((uint64_t)(2 * offset), (uint64_t)(2 * offset >> 64)),
    };
}

typedef struct {
    four element;
    lane_mask doubtful, clipped;
} encoded;

/* floor(weight * scale) = floor + correction, where not in doubt. */
typedef struct {
    __m256d floor, correction, doubt;
} scaled_weights;

/* weight * scale = product + error up to the doubt, and |error| is at most half a unit in the last place of product. So an
 * integer can lie between product and product + error only if product is an integer itself. Raising the error makes it at least
 * that integer where it is a tie, and otherwise changes no floor. */
PET_INLINE scaled_weights scale_weights(const encoder *e, __m256d weights) {
    weights = clamp(weights, e->least_weight, e->greatest_weight);
    __m256d estimate = _mm256_mul_pd(weights, e->scale_high);
    __m256d error = _mm256_fmadd_pd(weights, e->scale_low, _mm256_fmsub_pd(weights, e->scale_high, estimate));
    __m256d product = _mm256_add_pd(estimate, error);
    error = _mm256_sub_pd(error, _mm256_sub_pd(product, estimate));
    __m256d floor = _mm256_floor_pd(product);
    __m256d is_integer = _mm256_cmp_pd(floor, product, _CMP_EQ_OQ);
    __m256d is_close = _mm256_cmp_pd(distance(error), _mm256_mul_pd(absolute(product), e->doubt), _CMP_LT_OQ);
    const __m256d correction = _mm256_floor_pd(_mm256_fmadd_pd(absolute(product), e->tie, error));
    return (scaled_weights){floor, _mm256_and_pd(is_integer, correction), _mm256_and_pd(is_integer, is_close)};
}

PET_INLINE encoded encode_clamped(const encoder *e, __m256d floor, lane_mask doubtful, const int planes) {
    const __m256d clamped = clamp(floor, e->least, e->greatest);
    const __m256d clipped = _mm256_cmp_pd(clamped, floor, _CMP_NEQ_OQ);
    return (encoded){add(sign_extended(to_integer(clamped)), e->offset, planes), doubtful, _mm256_castpd_si256(clipped)};
}

/* Where the offset is beyond INTEGER_LIMIT, with two planes: floor = upper * 2^51 + lower, and the clamp is in
 * integers. */
PET_INLINE encoded encode_wide(const encoder *e, __m256d weights) {
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
    clamped.low = _mm256_andnot_si256(too_small, clamped.low);
    clamped.high = _mm256_andnot_si256(too_small, clamped.high);
    return (encoded){clamped, _mm256_castpd_si256(scaled.doubt), _mm256_or_si256(too_small, too_large)};
}

PET_INLINE encoded encode(const encoder *e, __m256d weights, const encoding_method method, const int planes) {
    if (method == WIDE_PRODUCTS) return encode_wide(e, weights);
    if (method == EXACT_PRODUCTS || method == SHORT_PRODUCTS) {
        const __m256d product = _mm256_mul_pd(weights, e->scale_high);
        __m256d doubtful = _mm256_setzero_pd();
        if (method == SHORT_PRODUCTS) {
            const __m256d bound = _mm256_mul_pd(absolute(product), _mm256_set1_pd(SHORT_PRODUCT_ERROR));
            doubtful = _mm256_cmp_pd(distance(product), bound, _CMP_LT_OQ);
        }
        return encode_clamped(e, _mm256_floor_pd(product), _mm256_castpd_si256(doubtful), planes);
    }
    const scaled_weights scaled = scale_weights(e, weights);
    return encode_clamped(e, _mm256_add_pd(scaled.floor, scaled.correction), _mm256_castpd_si256(scaled.doubt), planes);
}

/* ---- unmasking ------------------------------------------------------------------------------------------------------ */

typedef struct {
    __m256d ratio_high, ratio_low;
    __m256d least, greatest; /* finite value of the data type */
    four offset;
} decoder;

static decoder decoder_of(const decoding_numbers *numbers) {
    return (decoder){
        .ratio_high = _mm256_set1_pd(numbers->ratio.high),
        .ratio_low = _mm256_set1_pd(numbers->ratio.low),
        .least = _mm256_set1_pd(-numbers->largest),
        .greatest = _mm256_set1_pd(numbers->largest),
        .offset = spread_wide((uint64_t)numbers->offset, (uint64_t)(numbers->offset >> 64)),
    };
}

/* To the nearest double, with one plane; within 3/4 of a unit in the last place with two. */
PET_INLINE __m256d to_double(four value, const int planes) {
    if (planes == 1) return from_signed(value.low);
    __m256i sign = negative(value, planes);
    four flipped = {_mm256_xor_si256(value.low, sign), _mm256_xor_si256(value.high, sign)};
    __m256d sum = to_double_unsigned(sub(flipped, (four){sign, sign}, planes), planes);
    return _mm256_or_pd(sum, _mm256_and_pd(_mm256_castsi256_pd(sign), _mm256_set1_pd(-0.0)));
}

/* The weights of differences. For F64 the second double of the ratio takes away half of the rounding. */
PET_INLINE __m256d decode(const decoder *d, four difference, const int data_type, const int planes) {
    const __m256d value = to_double(sub(difference, d->offset, planes), planes);
    if (data_type == PET_F32) return clamp(_mm256_mul_pd(value, d->ratio_high), d->least, d->greatest);
    const __m256d weights = _mm256_fmadd_pd(value, d->ratio_high, _mm256_mul_pd(value, d->ratio_low));
    return clamp(weights, d->least, d->greatest);
}

#endif
