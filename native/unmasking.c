/* The portable variant, part three: the difference of a total and a mask becomes a weight.
 *
 * The differences are a sum over participants, which everybody may know, so their values may steer branches. */
#include "fraction_values.h"

/* What is computed once per call. */
typedef struct {
    uint64_t offset[PET_DIFFERENCE_LIMBS];
    size_t difference_limbs;
    pet_scaled ratio;                            /* for floats: numerator / denominator */
    uint64_t numerator[PET_RATIO_LIMBS];         /* for integers: shifted with the denominator */
    uint64_t denominator[PET_RATIO_LIMBS];       /* shifted until its highest bit is set */
    size_t numerator_limbs, denominator_limbs;
    uint64_t reciprocal;
} decoder;

static void prepare_decoder(decoder *d, const pet_order *order, const pet_decoding *decoding) {
    uint64_t numerator[PET_RATIO_LIMBS], denominator[PET_RATIO_LIMBS];
    size_t offset_limbs = pet_load_integer(d->offset, PET_DIFFERENCE_LIMBS, decoding->offset);
    d->difference_limbs = offset_limbs > order->planes ? offset_limbs : order->planes;
    size_t numerator_limbs = pet_load_integer(numerator, PET_RATIO_LIMBS, decoding->numerator);
    d->denominator_limbs = pet_load_integer(denominator, PET_RATIO_LIMBS, decoding->denominator);
    d->ratio = pet_scaled_quotient(pet_leading_bits(numerator, numerator_limbs),
                                   pet_leading_bits(denominator, d->denominator_limbs));
    size_t distance = (size_t)__builtin_clzll(denominator[d->denominator_limbs - 1]);
    pet_limbs_shift_left(d->numerator, PET_RATIO_LIMBS, numerator, numerator_limbs, distance);
    pet_limbs_shift_left(d->denominator, PET_RATIO_LIMBS, denominator, d->denominator_limbs, distance);
    d->numerator_limbs = pet_limbs_count(d->numerator, PET_RATIO_LIMBS);
    d->reciprocal = pet_reciprocal(d->denominator[d->denominator_limbs - 1]);
}

/* magnitude = |difference - offset|; whether it is negative. The difference is extended to difference_limbs. */
static int take_offset(uint64_t *magnitude, const decoder *d, uint64_t *difference, size_t planes) {
    for (size_t i = planes; i < d->difference_limbs; i++) difference[i] = 0;
    int is_negative = (int)pet_limbs_are_less(difference, d->offset, d->difference_limbs);
    if (is_negative) {
        pet_limbs_subtract(magnitude, d->offset, difference, d->difference_limbs);
    } else {
        pet_limbs_subtract(magnitude, difference, d->offset, d->difference_limbs);
    }
    return is_negative;
}

/* floor(magnitude * numerator / denominator), at most limit. */
static uint64_t scale_integer(const uint64_t *magnitude, const decoder *d, uint64_t limit) {
    uint64_t dividend[PET_DIFFERENCE_LIMBS + 2 * PET_RATIO_LIMBS + 2];
    size_t count = pet_limbs_count(magnitude, d->difference_limbs);
    pet_limbs_multiply(dividend, magnitude, count, d->numerator, d->numerator_limbs);
    count += d->numerator_limbs;
    uint64_t quotient = pet_small_quotient(dividend, count, d->denominator, d->denominator_limbs, d->reciprocal);
    return quotient < limit ? quotient : limit;
}

/* The index of the first difference outside the bounds, or length. */
static size_t find_out_of_range(const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                                const pet_order *order, const pet_decoding *decoding) {
    uint64_t lowest[PET_ELEMENT_LIMBS], highest[PET_ELEMENT_LIMBS], difference[PET_ELEMENT_LIMBS] = {0};
    size_t lowest_limbs = pet_load_integer(lowest, PET_ELEMENT_LIMBS, decoding->lowest);
    size_t highest_limbs = pet_load_integer(highest, PET_ELEMENT_LIMBS, decoding->highest);
    size_t count = lowest_limbs > highest_limbs ? lowest_limbs : highest_limbs;
    if (count < order->planes) count = order->planes;
    for (size_t i = 0; i < length; i++) {
        pet_load_difference(difference, total, plane_stride, mask, i, order);
        if (pet_limbs_are_less(difference, lowest, count) || pet_limbs_are_less(highest, difference, count)) return i;
    }
    return length;
}

int pet_unmask_portable(void *model, int data_type, const uint64_t *total, size_t plane_stride, const uint8_t *mask,
                        size_t length, const pet_order *order, const pet_decoding *decoding, size_t *bad_index) {
    size_t out_of_range = find_out_of_range(total, plane_stride, mask, length, order, decoding);
    if (out_of_range != length) {
        *bad_index = out_of_range;
        return PET_OUT_OF_RANGE;
    }
    decoder d;
    prepare_decoder(&d, order, decoding);
    for (size_t i = 0; i < length; i++) {
        uint64_t difference[PET_DIFFERENCE_LIMBS], magnitude[PET_DIFFERENCE_LIMBS];
        pet_load_difference(difference, total, plane_stride, mask, i, order);
        int is_negative = take_offset(magnitude, &d, difference, order->planes);
        if (data_type == PET_F32 || data_type == PET_F64) {
            pet_scaled leading = pet_leading_bits(magnitude, d.difference_limbs);
            if (leading.mantissa) leading = pet_scaled_product(leading, d.ratio);
            pet_store_float(model, data_type, i, leading, is_negative);
        } else {
            uint64_t value = scale_integer(magnitude, &d, pet_integer_limit(data_type, is_negative));
            pet_store_integer(model, data_type, i, value, is_negative);
        }
    }
    return PET_OK;
}
