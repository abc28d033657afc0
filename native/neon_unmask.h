/* Differences to weights with doubles, two at a time. Part of neon.c, included nowhere else; it knows ratios, offsets and
 * bounds, not where they come from. */
#ifndef PET_NEON_UNMASK_H
#define PET_NEON_UNMASK_H

#include "neon_loops.h"

typedef struct {
    float64x2_t ratio_high, ratio_low;
    float64x2_t least, greatest; /* finite value of the data type */
    two offset, lowest, highest;
    int checks; /* whether an element may lie outside [lowest, highest] at all */
} decoder;

PET_INLINE two spread_integer(wide_integer x) { return spread_wide((uint64_t)x, (uint64_t)(x >> 64)); }

/* Returns 0 where doubles cannot do it: integers are the portable code's. */
static int prepare_decoder(decoder *d, const pet_order *order, const pet_decoding *decoding, int data_type) {
    decoding_numbers numbers;
    if (data_type != PET_F32 && data_type != PET_F64) return 0;
    if (!find_decoding_numbers(&numbers, order, decoding, data_type)) return 0;
    d->ratio_high = vdupq_n_f64(numbers.ratio.high);
    d->ratio_low = vdupq_n_f64(numbers.ratio.low);
    d->least = vdupq_n_f64(-numbers.largest);
    d->greatest = vdupq_n_f64(numbers.largest);
    d->offset = spread_integer(numbers.offset);
    d->lowest = spread_integer(numbers.lowest);
    d->highest = spread_integer(numbers.highest);
    d->checks = numbers.lowest > 0 || numbers.highest < wide(order->limbs[1], order->limbs[0]) - 1;
    return 1;
}

/* The index of the first difference outside the bounds, or length. A pass of its own, so that the model is not touched if there
 * is one. */
PET_INLINE size_t find_outside_with(const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                                    const decoder *d, const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format);
    for (size_t i = 0; i < length; i += LANES) {
        two difference = load_difference(total, plane_stride, mask, i, length, in_place, &format, planes);
        unsigned found = lane_bits(vorrq_u64(below(difference, d->lowest, planes), below(d->highest, difference, planes)));
        if (found) return least(i + 1 - (found & 1), length);
    }
    return length;
}

/* A signed integer to the nearest double, with one plane; within 3/4 of a unit in the last place with two. */
PET_INLINE float64x2_t to_double(two value, const int planes) {
    if (planes == 1) return vcvtq_f64_s64(vreinterpretq_s64_u64(value.low));
    const uint64x2_t sign = vcltzq_s64(vreinterpretq_s64_u64(value.high));
    const two magnitude = sub((two){veorq_u64(value.low, sign), veorq_u64(value.high, sign)}, (two){sign, sign}, planes);
    /* The halves of the high word are exact as doubles; the whole might not be. */
    const float64x2_t upper_low = vcvtq_f64_u64(vandq_u64(magnitude.high, vdupq_n_u64(UINT32_MAX)));
    const float64x2_t upper_high = vcvtq_f64_u64(vshrq_n_u64(magnitude.high, 32));
    float64x2_t sum = vfmaq_f64(vcvtq_f64_u64(magnitude.low), upper_low, vdupq_n_f64(0x1p64));
    sum = vfmaq_f64(sum, upper_high, vdupq_n_f64(0x1p96));
    return vreinterpretq_f64_u64(vorrq_u64(vreinterpretq_u64_f64(sum), vandq_u64(sign, vdupq_n_u64(UINT64_C(1) << 63))));
}

/* The weights of differences; the second double of the ratio takes away half of the rounding. */
PET_INLINE float64x2_t decode(const decoder *d, two difference, const int planes) {
    const float64x2_t value = to_double(sub(difference, d->offset, planes), planes);
    const float64x2_t weight = vfmaq_f64(vmulq_f64(value, d->ratio_low), value, d->ratio_high);
    return vmaxq_f64(vminq_f64(weight, d->greatest), d->least);
}

PET_INLINE void store_weights(void *model, const int data_type, size_t index, size_t length, float64x2_t weights) {
    const int is_whole = index + LANES <= length;
    if (data_type == PET_F64) {
        double *target = (double *)model + index;
        if (is_whole)
            vst1q_f64(target, weights);
        else
            vst1q_lane_f64(target, weights, 0);
    } else {
        float *target = (float *)model + index;
        if (is_whole)
            vst1_f32(target, vcvt_f32_f64(weights));
        else
            vst1_lane_f32(target, vcvt_f32_f64(weights), 0);
    }
}

PET_INLINE void unmask_with(void *model, const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                            const decoder *d, const pet_order *order, const int data_type, const int planes) {
    const element_format format = format_of(order);
    const decoder constants = *d;
    const size_t in_place = in_place_end(length, &format);
    for (size_t i = 0; i < length; i += LANES) {
        two difference = load_difference(total, plane_stride, mask, i, length, in_place, &format, planes);
        store_weights(model, data_type, i, length, decode(&constants, difference, planes));
    }
}

static int unmask(void *model, int data_type, const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                  const pet_order *order, const pet_decoding *decoding, size_t *bad_index) {
    decoder d;
    if (!prepare_decoder(&d, order, decoding, data_type))
        return pet_portable_kernels.unmask(model, data_type, total, plane_stride, mask, length, order, decoding, bad_index);
    const size_t bad = d.checks ? FOR_PLANES(order, find_outside_with, total, plane_stride, mask, length, &d, order) : length;
    if (bad < length) {
        *bad_index = bad;
        return PET_OUT_OF_RANGE;
    }
    if (data_type == PET_F32)
        FOR_PLANES(order, unmask_with, model, total, plane_stride, mask, length, &d, order, PET_F32);
    else
        FOR_PLANES(order, unmask_with, model, total, plane_stride, mask, length, &d, order, PET_F64);
    return PET_OK;
}

#endif
