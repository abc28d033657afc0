/* Fixed point of pet-1 in vectors of doubles: every operation is rounded once, in the order of docs/spec/profile.md 4.1. Part of
 * field_loops.h. */
#ifndef PET_FIELD_REALS_H
#define PET_FIELD_REALS_H

enum { REALS = VECTOR_BYTES / 8, STEP = 2 * REALS }; /* a vector of narrow elements is two of doubles */

PET_INLINE size_t weight_bytes(const int data_type) { return data_type == PET_F32 ? 4 : 8; }

/* ---- encode -------------------------------------------------------------------------------------------------------------- */

typedef struct {
    reals scalar, bound, negative_bound, factor, top;
    lanes clipped, not_finite; /* counts, and bits where a weight was not finite */
} encoder;

PET_INLINE reals encode_reals(encoder *e, reals weights) {
    const reals scaled = weights * e->scalar;
    const reals inside = most_reals(least_reals(scaled, e->bound), e->negative_bound);
    e->clipped = count_unequal(e->clipped, inside, scaled);
    e->not_finite = gather_bits(e->not_finite, weights - weights);
    const reals product = (inside + e->bound) * e->factor;
    return least_reals(product + spread_real(0.5), e->top);
}

PET_INLINE int encode_with(uint8_t *elements, const void *weights, size_t length, const pet_fixed_point *how,
                           const pet_field *field, uint64_t *clipped_count, const int data_type, const int is_wide) {
    encoder e = {spread_real(how->scalar), spread_real(how->bound), spread_real(-how->bound), spread_real(how->factor),
                 spread_real(how->top), spread(0, 1), spread(0, 1)};
    const uint8_t *bytes = weights;
    const size_t whole = length / STEP * STEP, width = pet_field_width(is_wide), size = weight_bytes(data_type);
    for (size_t i = 0; i < whole; i += STEP) {
        fetch(bytes + i * size);
        fetch(elements + i * width);
        const reals first = encode_reals(&e, load_reals(bytes + i * size, data_type));
        const reals second = encode_reals(&e, load_reals(bytes + (i + REALS) * size, data_type));
        if (is_wide) {
            store(elements + i * width, truncated_wide(first));
            store(elements + i * width + VECTOR_BYTES, truncated_wide(second));
        } else {
            store(elements + i * width, truncated_narrow(first, second));
        }
    }
    uint8_t counts[VECTOR_BYTES];
    store(counts, e.clipped);
    for (size_t i = 0; i < REALS; i++) *clipped_count += pet_load64(counts + 8 * i);
    const int rest_is_finite = pet_portable_fields.encode(elements + whole * width, bytes + whole * size, data_type,
                                                          length - whole, how, field, clipped_count);
    return rest_is_finite && !has_bits(e.not_finite);
}

static int encode(uint8_t *elements, const void *weights, int data_type, size_t length, const pet_fixed_point *how,
                  const pet_field *field, uint64_t *clipped_count) {
    return data_type == PET_F32
               ? FOR_WIDTHS(field, encode_with, elements, weights, length, how, field, clipped_count, PET_F32)
               : FOR_WIDTHS(field, encode_with, elements, weights, length, how, field, clipped_count, PET_F64);
}

/* ---- decode -------------------------------------------------------------------------------------------------------------- */

/* Models from this size on go past the caches: nothing reads them at once, and a second-level cache holds no more. */
enum { STREAMED_MODEL_BYTES = 1 << 20 };

/* numerator / unit, rounded once, without a division, which takes longer than all the rest: the inverse in two doubles gives one
 * of the two neighbours of the quotient, and its remainder, which is exact, the nearest (Markstein; the first double of the
 * inverse is rounded to nearest, and nothing overflows or underflows within the bounds below). */
PET_INLINE reals quotient_of(reals numerator, reals unit, reals inverse, reals rest_of_inverse) {
    const reals quotient = multiply_and_add(numerator, inverse, numerator * rest_of_inverse);
    return multiply_and_add(subtract_product(numerator, unit, quotient), inverse, quotient);
}

static int may_multiply(const pet_mean *mean) {
    return mean->bound >= 0x1p-400 && mean->bound <= 0x1p400 && mean->unit <= 0x1p64;
}

/* Whole steps, one vector of doubles after the other; returns what was seen of the elements. */
PET_INLINE lanes decode_steps(uint8_t *model, const uint8_t *elements, size_t length, const pet_mean *mean, const int data_type,
                              const int streamed, const int is_wide) {
    /* The double of the bound times an element less half of the highest, which are exact: one operation less. */
    const reals bound = spread_real(2 * mean->bound), half = spread_real(0.5 * (double)mean->highest);
    const reals unit = spread_real(mean->unit), inverse = spread_real(1 / mean->unit);
    const reals rest_of_inverse = subtract_product(spread_real(1), unit, inverse) / unit;
    const lanes limit = spread(mean->highest, is_wide);
    const size_t width = pet_field_width(is_wide), size = weight_bytes(data_type);
    lanes seen = spread(0, is_wide), x = seen;
    for (size_t i = 0; i < length; i += STEP) {
        fetch(elements + i * width);
#pragma GCC unroll 2
        for (int k = 0; k < 2; k++) {
            if (is_wide || k == 0) {
                x = load(elements + (i + (size_t)k * REALS) * width);
                seen = watch(seen, x, limit, is_wide);
            }
            reals difference;
            if (is_wide) difference = wide_half_differences(x, mean->highest);
            else difference = narrow_reals(x, k) - half;
            const reals weights = quotient_of(bound * difference, unit, inverse, rest_of_inverse);
            store_reals(model + (i + (size_t)k * REALS) * size, weights, data_type, streamed);
        }
    }
    return seen;
}

PET_INLINE int decode_with(uint8_t *model, const uint8_t *elements, size_t length, const pet_mean *mean, const pet_field *field,
                           const int data_type, const int is_wide) {
    const size_t width = pet_field_width(is_wide), size = weight_bytes(data_type);
    const int streamed = STREAMS && length * size >= STREAMED_MODEL_BYTES;
    /* Stores past the caches take whole aligned lines: what is before the first is portable code's. */
    size_t before = streamed ? -(uintptr_t)model % LINE_BYTES / size : 0;
    const size_t whole = (length - before) / STEP * STEP, after = before + whole;
    const uint8_t *middle = elements + before * width;
    const lanes seen = streamed ? decode_steps(model + before * size, middle, whole, mean, data_type, 1, is_wide)
                                : decode_steps(model, middle, whole, mean, data_type, 0, is_wide);
    if (streamed) end_streaming();
    const int ends_are_good =
        pet_portable_fields.decode(model, data_type, elements, before, mean, field) &
        pet_portable_fields.decode(model + after * size, data_type, elements + after * width, length - after, mean, field);
    return ends_are_good && !was_above(seen, spread(mean->highest, is_wide), is_wide);
}

static int decode(void *model, int data_type, const uint8_t *elements, size_t length, const pet_mean *mean,
                  const pet_field *field) {
    if (!may_multiply(mean)) return pet_portable_fields.decode(model, data_type, elements, length, mean, field);
    return data_type == PET_F32 ? FOR_WIDTHS(field, decode_with, model, elements, length, mean, field, PET_F32)
                                : FOR_WIDTHS(field, decode_with, model, elements, length, mean, field, PET_F64);
}

#endif
