/* The kernels that wait for memory: everything that touches each weight once and draws nothing, for orders whose totals have
 * one or two 64-bit planes, that is, elements of up to 16 bytes. Wider orders, and what is rare, go to narrower variants.
 *
 * Included by avx2_memory.c and avx512_memory.c after the headers that bring their vectors: elements (a `lanes` holds LANES of
 * them) and reals. A loop is written once, for a constant number of planes, and instantiated for one and for two. */
#ifndef PET_MEMORY_LOOPS_H
#define PET_MEMORY_LOOPS_H

#include "streaming.h"

/* Run one of the two instances of a kernel. */
#define FOR_PLANES(order, kernel, ...) ((order)->planes == 1 ? kernel(__VA_ARGS__, 1) : kernel(__VA_ARGS__, 2))

PET_INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

static int covers(const pet_order *order) { return order->planes <= 2; }

/* ---- totals --------------------------------------------------------------------------------------------------------- */

PET_INLINE size_t find_invalid_with(const uint8_t *elements, size_t length, const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format, planes);
    for (size_t i = 0; i < length; i += LANES) {
        const unsigned found = above(load_packed(elements, i, length, in_place, &format, planes), format.largest, planes);
        if (found) return i + _tzcnt_u32(found);
    }
    return length;
}

static size_t find_invalid(const uint8_t *elements, size_t length, const pet_order *order) {
    return FOR_PLANES(order, find_invalid_with, elements, length, order);
}

enum { FETCHED_AHEAD = 1024 }; /* bytes */

/* Add vectors to a total, unchecked but for one answer: 1 if all elements were valid. Subtracts instead if asked to: sums wrap,
 * so that takes away exactly what was added. */
PET_INLINE int accumulate_with(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *const *vectors,
                               const size_t count, const int subtracts, const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format, planes);
    watch invalid = watch_nothing();
    for (size_t i = 0; i < length; i += LANES) {
        lanes sum = load_total(total, plane_stride, i, length, planes);
#pragma GCC unroll 8
        for (size_t k = 0; k < count; k++) {
            const lanes element = load_packed(vectors[k], i, length, in_place, &format, planes);
            /* Several vectors are more streams than the prefetchers of some processors follow. */
            if (count > 1) _mm_prefetch((const char *)vectors[k] + i * format.element_bytes + FETCHED_AHEAD, _MM_HINT_T0);
            watch_for(&invalid, element, format.largest, planes);
            sum = subtracts ? sub(sum, element, planes) : add(sum, element, planes);
        }
        store_total(total, plane_stride, i, length, sum, planes);
    }
    return !watch_found(&invalid, format.largest, planes);
}

enum { VECTORS_AT_ONCE = 8 };

/* For a constant count the loop over vectors is unrolled. */
static int accumulate(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *const *vectors, size_t count,
                      const pet_order *order) {
    switch (count) {
    case 1: return FOR_PLANES(order, accumulate_with, total, plane_stride, length, vectors, 1, 0, order);
    case VECTORS_AT_ONCE:
        return FOR_PLANES(order, accumulate_with, total, plane_stride, length, vectors, VECTORS_AT_ONCE, 0, order);
    default: return FOR_PLANES(order, accumulate_with, total, plane_stride, length, vectors, count, 0, order);
    }
}

static int aggregate(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *const *vectors, size_t vector_count,
                     const pet_order *order, size_t *bad_vector) {
    for (size_t done = 0, count; done < vector_count; done += count) {
        count = least(vector_count - done, VECTORS_AT_ONCE);
        if (accumulate(total, plane_stride, length, vectors + done, count, order)) continue;
        FOR_PLANES(order, accumulate_with, total, plane_stride, length, vectors, done + count, 1, order);
        *bad_vector = done;
        while (find_invalid(vectors[*bad_vector], length, order) == length) ++*bad_vector;
        return PET_INVALID_ELEMENT;
    }
    return PET_OK;
}

PET_INLINE lanes load_difference(const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t index, size_t length,
                                 size_t in_place, const element_format *format, const int planes) {
    return sub_mod(load_total(total, plane_stride, index, length, planes),
                   load_packed(mask, index, length, in_place, format, planes), format, planes);
}

PET_INLINE void subtract_with(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *elements,
                              const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format, planes);
    for (size_t i = 0; i < length; i += LANES) {
        const lanes difference = load_difference(total, plane_stride, elements, i, length, in_place, &format, planes);
        store_total(total, plane_stride, i, length, difference, planes);
    }
}

static int subtract(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *elements, const pet_order *order) {
    FOR_PLANES(order, subtract_with, total, plane_stride, length, elements, order);
    return PET_OK;
}

/* quotient * order, for a quotient in the low half of each word. */
PET_INLINE lanes times_order(word_lanes quotient, const element_format *format, const int planes) {
    const word_lanes low = multiply32(quotient, format->order.low), middle = multiply32(quotient, high_half(format->order.low));
    lanes product = add((lanes){low, spread64(0)}, (lanes){to_high_half(middle), high_half(middle)}, planes);
    if (planes == 2) {
        const word_lanes high = multiply32(quotient, high_half(format->order.high));
        product.high = add64(product.high, add64(multiply32(quotient, format->order.high), to_high_half(high)));
    }
    return product;
}

/* The quotient is below 2^32, so its estimate in doubles, rounded to the nearest integer, leaves a rest between - order and
 * order. */
PET_INLINE void reduce_with(uint64_t *total, size_t plane_stride, size_t length, const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const double divisor = (double)wide(order->limbs[1], order->limbs[0]);
    const reals inverse = spread_real(1 / divisor);
    for (size_t i = 0; i < length; i += LANES) {
        const lanes value = load_total(total, plane_stride, i, length, planes);
        const word_lanes quotient = nearest_word(to_double_unsigned(value, planes) * inverse);
        const lanes rest = sub(value, times_order(quotient, &format, planes), planes);
        store_total(total, plane_stride, i, length, wrap(rest, &format, planes), planes);
    }
}

static int reduce(uint64_t *total, size_t plane_stride, size_t length, uint64_t bound, const pet_order *order) {
    (void)bound;
    FOR_PLANES(order, reduce_with, total, plane_stride, length, order);
    return PET_OK;
}

/* ---- outputs of elements ---------------------------------------------------------------------------------------------- */

/* elements = total - mask, or the total itself if there is no mask. */
PET_INLINE void pack_with(uint8_t *elements, const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                          const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t width = format.element_bytes, in_place = in_place_end(length, &format, planes);
    const int streamed = is_streamed(length * width);
    piece_buffer piece;
    for (size_t done = 0, count; done < length; done += count) {
        count = streamed ? least(length - done, PIECE) : length;
        uint8_t *target = streamed ? piece.bytes : elements;
        const size_t target_in_place = streamed ? count : in_place;
        for (size_t i = 0; i < count; i += LANES) {
            const lanes values = mask ? load_difference(total, plane_stride, mask, done + i, length, in_place, &format, planes)
                                      : load_total(total, plane_stride, done + i, length, planes);
            store_packed(target, i, count, target_in_place, values, &format, planes);
        }
        if (streamed) stream_piece(elements + done * width, piece.bytes, count * width);
    }
    end_streaming();
}

static int pack_total(uint8_t *elements, const uint64_t *total, size_t plane_stride, size_t length, const pet_order *order) {
    FOR_PLANES(order, pack_with, elements, total, plane_stride, NULL, length, order);
    return PET_OK;
}

static int unmask_elements(uint8_t *elements, const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                           const pet_order *order) {
    FOR_PLANES(order, pack_with, elements, total, plane_stride, mask, length, order);
    return PET_OK;
}

/* ---- masking -------------------------------------------------------------------------------------------------------- */

PET_INLINE size_t weight_size(int data_type) { return data_type == PET_F32 || data_type == PET_I32 ? 4 : 8; }

/* Weights index to index + LANES - 1; behind the end come zeros. */
PET_INLINE reals load_weights(const void *weights, const int data_type, size_t index, size_t length) {
    const uint8_t *bytes = (const uint8_t *)weights + index * weight_size(data_type);
    if (__builtin_expect(index + LANES <= length, 1)) return load_lanes(bytes, data_type);
    uint8_t buffer[LANES * 8] = {0};
    memcpy(buffer, bytes, (length - index) * weight_size(data_type));
    return load_lanes(buffer, data_type);
}

/* What masking needs, and what it gives besides elements. */
typedef struct {
    uint8_t *masked;
    const void *weights;
    size_t length;
    const uint8_t *elements;
    const pet_order *order;
    const pet_encoding *encoding;
    encoding_numbers numbers;
    uint64_t clipped_count;
    int found_not_finite;
} masking;

/* Encode a weight in integers: mask an element 0 with the portable kernel. */
static void encode_in_integers(masking *m, uint64_t value[2], size_t index, int data_type) {
    const uint8_t *weight = (const uint8_t *)m->weights + index * weight_size(data_type);
    uint8_t element[16] = {0};
    uint64_t clipped_count = 0;
    size_t bad_index;
    pet_portable_kernels.mask_weights(element, weight, data_type, 1, element, m->order, m->encoding, &clipped_count,
                                      &bad_index);
    m->clipped_count += clipped_count;
    value[0] = pet_load64(element);
    value[1] = pet_load64(element + 8);
}

/* Do lanes in doubt again, with products of two doubles if that was not done, else in integers. Out of line: it is rare. */
static __attribute__((noinline)) encoded encode_again(masking *m, encoded once, reals weights, size_t index, int data_type,
                                                      encoding_method method) {
    if (method == SHORT_PRODUCTS) {
        const encoder e = encoder_of(&m->numbers);
        once = encode(&e, weights, LONG_PRODUCTS, 2);
    }
    uint64_t words[2 * LANES];
    store_total(words, LANES, 0, LANES, once.element, 2);
    for (unsigned left = mask_bits(once.doubtful); left; left &= left - 1) {
        const size_t lane = _tzcnt_u32(left);
        uint64_t value[2];
        encode_in_integers(m, value, index + lane, data_type);
        words[lane] = value[0];
        words[LANES + lane] = value[1];
    }
    once.element = load_total(words, LANES, 0, LANES, 2);
    once.clipped = without(once.clipped, once.doubtful);
    return once;
}

PET_INLINE void mask_with(masking *m, const int data_type, const encoding_method method, const int planes) {
    const element_format format = format_of(m->order);
    const encoder e = encoder_of(&m->numbers);
    const size_t length = m->length, width = format.element_bytes, in_place = in_place_end(length, &format, planes);
    const int streamed = is_streamed(length * width);
    lane_counts clipped = count_none();
    unsigned found_not_finite = 0;
    piece_buffer piece; /* in any case: masked and elements may be the same, and a store writes too much */
    for (size_t done = 0, count; done < length; done += count) {
        count = least(length - done, PIECE);
        for (size_t i = 0; i < count; i += LANES) {
            const reals weights = load_weights(m->weights, data_type, done + i, length);
            if (data_type == PET_F32 || data_type == PET_F64) found_not_finite |= mask_bits(not_finite(weights));
            encoded now = encode(&e, weights, method, planes);
            /* The correction of a rounding, a branch on secret values that the contract allows. Lanes behind the end hold
             * weight 0, which is never in doubt. */
            if (__builtin_expect(mask_bits(now.doubtful) != 0, 0))
                now = encode_again(m, now, weights, done + i, data_type, method);
            clipped = count_lanes(clipped, now.clipped);
            const lanes element = load_packed(m->elements, done + i, length, in_place, &format, planes);
            pack(piece.bytes + i * width, add_mod(element, now.element, &format, planes), &format, planes);
        }
        send_piece(m->masked + done * width, piece.bytes, count * width, streamed);
    }
    end_streaming();
    uint64_t counts[LANES];
    store_words(counts, 0, LANES, clipped);
    for (int lane = 0; lane < LANES; lane++) m->clipped_count += counts[lane];
    m->found_not_finite = found_not_finite != 0;
}

/* Methods for short weights. */
PET_INLINE void mask_short(masking *m, const int data_type, encoding_method method) {
    switch (method) {
    case EXACT_PRODUCTS: FOR_PLANES(m->order, mask_with, m, data_type, EXACT_PRODUCTS); break;
    case SHORT_PRODUCTS: FOR_PLANES(m->order, mask_with, m, data_type, SHORT_PRODUCTS); break;
    case LONG_PRODUCTS: FOR_PLANES(m->order, mask_with, m, data_type, LONG_PRODUCTS); break;
    case WIDE_PRODUCTS: mask_with(m, data_type, WIDE_PRODUCTS, 2); break;
    }
}

PET_INLINE void mask_long(masking *m, const int data_type, encoding_method method) {
    if (method == WIDE_PRODUCTS)
        mask_with(m, data_type, WIDE_PRODUCTS, 2);
    else
        FOR_PLANES(m->order, mask_with, m, data_type, LONG_PRODUCTS);
}

/* The index of the first weight that is NaN or infinite: there is one. */
static size_t find_not_finite(const void *weights, int data_type) {
    size_t i = 0;
    if (data_type == PET_F32)
        while (!mask_bits(not_finite(spread_real((double)((const float *)weights)[i])))) i++;
    else
        while (!mask_bits(not_finite(spread_real(((const double *)weights)[i])))) i++;
    return i;
}

static int mask_weights(uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *elements,
                        const pet_order *order, const pet_encoding *encoding, uint64_t *clipped_count, size_t *bad_index) {
    masking m = {.masked = masked, .weights = weights, .length = length, .elements = elements, .order = order,
                 .encoding = encoding};
    if (!find_encoding_numbers(&m.numbers, order, encoding, data_type))
        return pet_portable_kernels.mask_weights(masked, weights, data_type, length, elements, order, encoding, clipped_count,
                                                 bad_index);
    const encoding_method method = method_for(&m.numbers, data_type);
    switch (data_type) {
    case PET_F32: mask_short(&m, PET_F32, method); break;
    case PET_I32: mask_short(&m, PET_I32, method); break;
    case PET_F64: mask_long(&m, PET_F64, method); break;
    case PET_I64: mask_short(&m, PET_I64, method); break;
    }
    if (m.found_not_finite) {
        *bad_index = find_not_finite(weights, data_type);
        return PET_NOT_FINITE;
    }
    *clipped_count = m.clipped_count;
    return PET_OK;
}

#include "unmask_loops.h"

/* What these loops fill of a variant's table. */
#define MEMORY_MEMBERS                                                                                                      \
    .covers = covers, .mask_weights = mask_weights, .find_invalid = find_invalid, .aggregate = aggregate,                  \
    .subtract = subtract, .reduce = reduce, .pack = pack_total, .unmask_elements = unmask_elements, .unmask = unmask

#endif
