/* Differences of totals and masks become weights: part of memory_loops.h, which says for which orders, and includes it.
 *
 * Floats are a product of doubles. Integers must be the exact fraction, truncated: the quotient is estimated in doubles, which
 * is wrong by one at most, and the rest that it leaves tells whether it is. That rest is below twice the denominator, so it is
 * right modulo 2^64, however large the numbers are that it is the difference of. */
#ifndef PET_UNMASK_LOOPS_H
#define PET_UNMASK_LOOPS_H

/* What unmasking needs, and whether a difference was outside the bounds. */
typedef struct {
    void *model;
    const uint64_t *total;
    size_t plane_stride;
    const uint8_t *mask;
    size_t length;
    const pet_order *order;
    decoding_numbers numbers;
    uint64_t numerator, denominator; /* of the ratio, for integers */
} unmasking;

/* Differences, moved so that the lowest allowed is 0, and the highest then. */
PET_INLINE lanes above_lowest(const decoding_numbers *numbers, lanes difference, const int planes) {
    return sub(difference, spread_wide((uint64_t)numbers->lowest, (uint64_t)(numbers->lowest >> 64)), planes);
}
PET_INLINE lanes allowed_range(const decoding_numbers *numbers) {
    const wide_integer range = numbers->highest - numbers->lowest;
    return spread_wide((uint64_t)range, (uint64_t)(range >> 64));
}

/* The index of the first difference outside the bounds: there is one. */
PET_INLINE size_t find_outside_with(const unmasking *u, const int planes) {
    const element_format format = format_of(u->order);
    const size_t in_place = in_place_end(u->length, &format, planes);
    const lanes range = allowed_range(&u->numbers);
    for (size_t i = 0;; i += LANES) {
        const lanes difference =
            load_difference(u->total, u->plane_stride, u->mask, i, u->length, in_place, &format, planes);
        const unsigned found = above(above_lowest(&u->numbers, difference, planes), range, planes);
        if (found) return i + _tzcnt_u32(found);
    }
}

/* Note what lies outside the bounds; what lies behind the end is none of ours. */
PET_INLINE void check_bounds(const unmasking *u, watch *outside, unsigned *outside_at_end, lanes difference, lanes range,
                             size_t index, const int planes) {
    const lanes moved = above_lowest(&u->numbers, difference, planes);
    if (__builtin_expect(index + LANES <= u->length, 1))
        watch_for(outside, moved, range, planes);
    else
        *outside_at_end = above(moved, range, planes) & ((1u << (u->length - index)) - 1);
}

/* ---- floats ----------------------------------------------------------------------------------------------------------- */

/* Returns 0 if a difference was outside the bounds. */
PET_INLINE int unmask_with(const unmasking *u, const int data_type, const int planes) {
    const element_format format = format_of(u->order);
    const decoder d = decoder_of(&u->numbers);
    const size_t length = u->length, size = weight_size(data_type), in_place = in_place_end(length, &format, planes);
    const int streamed = is_streamed(length * size);
    const lanes range = allowed_range(&u->numbers);
    watch outside = watch_nothing();
    unsigned outside_at_end = 0;
    piece_buffer piece;
    for (size_t done = 0, count; done < length; done += count) {
        count = least(length - done, PIECE);
        for (size_t i = 0; i < count; i += LANES) {
            const lanes difference =
                load_difference(u->total, u->plane_stride, u->mask, done + i, length, in_place, &format, planes);
            check_bounds(u, &outside, &outside_at_end, difference, range, done + i, planes);
            store_lanes(piece.bytes + i * size, decode(&d, difference, data_type, planes), data_type);
        }
        send_piece((uint8_t *)u->model + done * size, piece.bytes, count * size, streamed);
    }
    end_streaming();
    return !watch_found(&outside, range, planes) && !outside_at_end;
}

/* ---- integers --------------------------------------------------------------------------------------------------------- */

/* |value| * numerator / denominator, truncated, with the sign of the value; one plane. */
PET_INLINE word_lanes scale_integers(word_lanes value, reals ratio, word_lanes numerator, word_lanes denominator) {
    const word_lanes zero = spread64(0), one = spread64(1);
    const lane_mask is_negative = below_zero(value);
    const word_lanes magnitude = choose_words(is_negative, sub64(zero, value), value);
    word_lanes quotient = integers_of(truncated(to_double_unsigned((lanes){magnitude, zero}, 1) * ratio));
    const word_lanes rest = sub64(multiply64(magnitude, numerator), multiply64(quotient, denominator));
    const word_lanes smaller = choose_words(below_zero(rest), sub64(quotient, one), quotient);
    quotient = choose_words(below_zero(sub64(rest, denominator)), smaller, add64(quotient, one));
    return choose_words(is_negative, sub64(zero, quotient), quotient);
}

/* As unmask_with; the rare numbers that do not fit are for portable code. */
PET_INLINE int unmask_integers_with(const unmasking *u, const int data_type) {
    const element_format format = format_of(u->order);
    const size_t length = u->length, size = weight_size(data_type), in_place = in_place_end(length, &format, 1);
    const int streamed = is_streamed(length * size);
    const lanes range = allowed_range(&u->numbers);
    const word_lanes offset = spread64((uint64_t)u->numbers.offset);
    const word_lanes numerator = spread64(u->numerator), denominator = spread64(u->denominator);
    const reals ratio = spread_real(u->numbers.ratio.high);
    watch outside = watch_nothing();
    unsigned outside_at_end = 0;
    piece_buffer piece;
    for (size_t done = 0, count; done < length; done += count) {
        count = least(length - done, PIECE);
        for (size_t i = 0; i < count; i += LANES) {
            const lanes difference =
                load_difference(u->total, u->plane_stride, u->mask, done + i, length, in_place, &format, 1);
            check_bounds(u, &outside, &outside_at_end, difference, range, done + i, 1);
            const word_lanes values = sub64(difference.low, offset);
            store_integers(piece.bytes + i * size, scale_integers(values, ratio, numerator, denominator), data_type);
        }
        send_piece((uint8_t *)u->model + done * size, piece.bytes, count * size, streamed);
    }
    end_streaming();
    return !watch_found(&outside, range, 1) && !outside_at_end;
}

/* Whether the rest is right modulo 2^64 and the estimate wrong by one at most. */
static int fits_integers(unmasking *u, const pet_decoding *decoding) {
    const wide_integer numerator = saturated(decoding->numerator), denominator = saturated(decoding->denominator);
    const double largest = (double)u->order->limbs[0] + (double)u->numbers.offset;
    u->numerator = (uint64_t)numerator;
    u->denominator = (uint64_t)denominator;
    return u->order->planes == 1 && numerator >> 64 == 0 && denominator >> 62 == 0 && u->numbers.offset >> 62 == 0 &&
           largest * u->numbers.ratio.high < 0x1p50;
}

/* ---- any weights ------------------------------------------------------------------------------------------------------ */

static int unmask(void *model, int data_type, const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                  const pet_order *order, const pet_decoding *decoding, size_t *bad_index) {
    unmasking u = {.model = model, .total = total, .plane_stride = plane_stride, .mask = mask, .length = length,
                   .order = order};
    const int is_integer = data_type == PET_I32 || data_type == PET_I64;
    if (!find_decoding_numbers(&u.numbers, order, decoding, data_type) || (is_integer && !fits_integers(&u, decoding)))
        return pet_portable_kernels.unmask(model, data_type, total, plane_stride, mask, length, order, decoding, bad_index);
    int is_within = 0;
    switch (data_type) {
    case PET_F32: is_within = FOR_PLANES(order, unmask_with, &u, PET_F32); break;
    case PET_F64: is_within = FOR_PLANES(order, unmask_with, &u, PET_F64); break;
    case PET_I32: is_within = unmask_integers_with(&u, PET_I32); break;
    case PET_I64: is_within = unmask_integers_with(&u, PET_I64); break;
    }
    if (is_within) return PET_OK;
    *bad_index = FOR_PLANES(order, find_outside_with, &u);
    return PET_OUT_OF_RANGE;
}

#endif
