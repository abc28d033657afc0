/* The NEON loops over whole vectors, for orders whose totals have one or two 64-bit planes, that is, elements of up to 16
 * bytes. Part of neon.c, included nowhere else; neon_elements.h has the arithmetic. A loop is written once, for a constant
 * number of planes, and instantiated for one and for two. */
#ifndef PET_NEON_LOOPS_H
#define PET_NEON_LOOPS_H

#include "neon_elements.h"
#include "scales.h"

/* Draws are made piece by piece: 8 KiB for each plane stay in the first-level cache until they are used. */
enum { PIECE = 1024, SEED_PIECE = 16 * PIECE, VECTORS_AT_ONCE = 8 };

typedef struct {
    uint64_t words[2 * PIECE]; /* a total with planes PIECE apart; the second stays 0 where draws do not reach it */
} scratch;

/* Run one of the two instances of a kernel. */
#define FOR_PLANES(order, kernel, ...) ((order)->planes == 1 ? kernel(__VA_ARGS__, 1) : kernel(__VA_ARGS__, 2))

PET_INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Two planes hold twice the order, so a draw has at most 128 bits. */
static int covers(const pet_order *order) { return order->planes <= 2; }

/* ---- drawing -------------------------------------------------------------------------------------------------------- */

PET_INLINE void pack_with(uint8_t *elements, const uint64_t *total, size_t plane_stride, size_t length, const pet_order *order,
                          const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format);
    for (size_t i = 0; i < length; i += LANES)
        store_packed(elements, i, length, in_place, load_total(total, plane_stride, i, length, planes), &format, planes);
}

static int pack_total(uint8_t *elements, const uint64_t *total, size_t plane_stride, size_t length, const pet_order *order) {
    FOR_PLANES(order, pack_with, elements, total, plane_stride, length, order);
    return PET_OK;
}

/* What wide_loops.h draws from as well, where draws are short. */
typedef drawer source;

static void start_source(source *s, const uint8_t *seed, uint64_t position, const pet_order *order) {
    start_drawing(s, seed, position, order);
}
static void draw_piece(source *s, scratch *draws, size_t length) { draw(s, draws->words, draws->words + PIECE, length); }
static uint64_t position_of(const source *s) { return s->position; }

static int expand(uint8_t *elements, size_t length, const uint8_t *seed, uint64_t *position, const pet_order *order) {
    source s;
    scratch draws = {{0}};
    start_source(&s, seed, *position, order);
    for (size_t done = 0, count; done < length; done += count) {
        count = least(length - done, PIECE);
        draw_piece(&s, &draws, count);
        pack_total(elements + done * order->element_bytes, draws.words, PIECE, count, order);
    }
    *position = position_of(&s);
    return PET_OK;
}

PET_INLINE void add_piece(uint64_t *total, size_t plane_stride, size_t length, const scratch *draws, const pet_order *order,
                          const int planes) {
    const element_format format = format_of(order);
    for (size_t i = 0; i < length; i += LANES) {
        two sum = add_mod(load_total(total, plane_stride, i, length, planes),
                          load_total(draws->words, PIECE, i, length, planes), &format, planes);
        store_total(total, plane_stride, i, length, sum, planes);
    }
}

static void add_draws(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *seed, uint64_t *position,
                      const pet_order *order) {
    source s;
    scratch draws = {{0}};
    start_source(&s, seed, *position, order);
    for (size_t done = 0, count; done < length; done += count) {
        count = least(length - done, PIECE);
        draw_piece(&s, &draws, count);
        FOR_PLANES(order, add_piece, total + done, plane_stride, count, &draws, order);
    }
    *position = position_of(&s);
}

static int sum_masks(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *seeds, size_t seed_count,
                     uint64_t *positions, const pet_order *order) {
    for (size_t done = 0, count; done < length; done += count) {
        count = least(length - done, SEED_PIECE);
        for (size_t k = 0; k < seed_count; k++)
            add_draws(total + done, plane_stride, count, seeds + PET_SEED_BYTES * k, &positions[k], order);
    }
    return PET_OK;
}

/* ---- masking -------------------------------------------------------------------------------------------------------- */

static size_t weight_size(int data_type) { return data_type == PET_F32 || data_type == PET_I32 ? 4 : 8; }

/* The index of the first weight that is NaN or infinite, or length: one whose exponent is all ones. */
static size_t find_not_finite(const void *weights, int data_type, size_t length) {
    if (data_type != PET_F32 && data_type != PET_F64) return length;
    const uint8_t *bytes = weights;
    const uint64_t exponent = data_type == PET_F32 ? 0x7f800000 : UINT64_C(0x7ff) << 52;
    for (size_t i = 0; i < length; i++) {
        const uint64_t bits = data_type == PET_F32 ? pet_load32(bytes + 4 * i) : pet_load64(bytes + 8 * i);
        if ((bits & exponent) == exponent) return i;
    }
    return length;
}

/* What a piece of masking needs. */
typedef struct {
    const pet_order *order;
    const pet_encoding *encoding;
    const void *weights;
    int data_type;
} masking;

/* Portable code masks the draws of a piece while they are in the cache. */
static uint64_t update_by_portable(uint8_t *masked, const masking *m, size_t length, source *s) {
    const size_t width = m->order->element_bytes, size = weight_size(m->data_type);
    uint64_t clipped_count = 0;
    scratch draws = {{0}};
    for (size_t done = 0, count; done < length; done += count) {
        uint8_t *piece = masked + done * width;
        const uint8_t *first = (const uint8_t *)m->weights + done * size;
        uint64_t clipped_in_piece = 0;
        size_t bad_index;
        count = least(length - done, PIECE);
        draw_piece(s, &draws, count);
        pack_total(piece, draws.words, PIECE, count, m->order);
        pet_portable_kernels.mask_weights(piece, first, m->data_type, count, piece, m->order, m->encoding, &clipped_in_piece,
                                          &bad_index);
        clipped_count += clipped_in_piece;
    }
    return clipped_count;
}

static int update(uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *seed, uint64_t *position,
                  const pet_order *order, const pet_encoding *encoding, uint64_t *clipped_count, size_t *bad_index) {
    const size_t bad = find_not_finite(weights, data_type, length);
    if (bad < length) {
        *bad_index = bad;
        return PET_NOT_FINITE;
    }
    const masking m = {order, encoding, weights, data_type};
    source s;
    start_source(&s, seed, *position, order);
    *clipped_count = update_by_portable(masked, &m, length, &s);
    *position = position_of(&s);
    return PET_OK;
}

/* ---- totals --------------------------------------------------------------------------------------------------------- */

PET_INLINE size_t find_invalid_with(const uint8_t *elements, size_t length, const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format);
    for (size_t i = 0; i < length; i += LANES) {
        two element = load_packed(elements, i, length, in_place, &format, planes);
        unsigned valid = lane_bits(below(element, format.order, planes));
        if (valid != 3) return i + (valid & 1); /* what lies behind the end is 0, and valid */
    }
    return length;
}

static size_t find_invalid(const uint8_t *elements, size_t length, const pet_order *order) {
    return FOR_PLANES(order, find_invalid_with, elements, length, order);
}

/* Add vectors to a total, unchecked but for one answer: 1 if all elements were valid. Subtracts instead if asked to: sums wrap,
 * so that takes away exactly what was added. */
PET_INLINE int accumulate_with(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *const *vectors,
                               const size_t count, const int subtracts, const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format);
    uint64x2_t good = vdupq_n_u64(UINT64_MAX);
    for (size_t i = 0; i < length; i += LANES) {
        two sum = load_total(total, plane_stride, i, length, planes);
        for (size_t k = 0; k < count; k++) {
            two element = load_packed(vectors[k], i, length, in_place, &format, planes);
            good = vandq_u64(good, below(element, format.order, planes));
            sum = subtracts ? sub(sum, element, planes) : add(sum, element, planes);
        }
        store_total(total, plane_stride, i, length, sum, planes);
    }
    return lane_bits(good) == 3;
}

static int aggregate(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *const *vectors, size_t vector_count,
                     const pet_order *order, size_t *bad_vector) {
    for (size_t done = 0, count; done < vector_count; done += count) {
        count = least(vector_count - done, VECTORS_AT_ONCE);
        if (FOR_PLANES(order, accumulate_with, total, plane_stride, length, vectors + done, count, 0, order)) continue;
        FOR_PLANES(order, accumulate_with, total, plane_stride, length, vectors, done + count, 1, order);
        *bad_vector = done;
        while (find_invalid(vectors[*bad_vector], length, order) == length) ++*bad_vector;
        return PET_INVALID_ELEMENT;
    }
    return PET_OK;
}

PET_INLINE two load_difference(const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t index, size_t length,
                               size_t in_place, const element_format *format, const int planes) {
    return sub_mod(load_total(total, plane_stride, index, length, planes),
                   load_packed(mask, index, length, in_place, format, planes), format, planes);
}

PET_INLINE void subtract_with(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *elements,
                              const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format);
    for (size_t i = 0; i < length; i += LANES)
        store_total(total, plane_stride, i, length,
                    load_difference(total, plane_stride, elements, i, length, in_place, &format, planes), planes);
}

static int subtract(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *elements, const pet_order *order) {
    FOR_PLANES(order, subtract_with, total, plane_stride, length, elements, order);
    return PET_OK;
}

PET_INLINE void unmask_elements_with(uint8_t *elements, const uint64_t *total, size_t plane_stride, const uint8_t *mask,
                                     size_t length, const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format);
    for (size_t i = 0; i < length; i += LANES)
        store_packed(elements, i, length, in_place,
                     load_difference(total, plane_stride, mask, i, length, in_place, &format, planes), &format, planes);
}

static int unmask_elements(uint8_t *elements, const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                           const pet_order *order) {
    FOR_PLANES(order, unmask_elements_with, elements, total, plane_stride, mask, length, order);
    return PET_OK;
}

#endif
