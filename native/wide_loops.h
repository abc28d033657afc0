/* The loops over vectors whose elements are wider than what avx2_loops.h has, where the keystream is the limit: expansion, sums
 * of masks, updates. wide_totals.h adds and checks such elements; everything else about them is portable code.
 *
 * Included by a variant's own file, after wide_draw.h and avx2_loops.h. */
#ifndef PET_WIDE_LOOPS_H
#define PET_WIDE_LOOPS_H

#include "wide_draw.h"
#include "wide_totals.h"

enum {
    WIDE_PIECE_BYTES = 16 * 1024,  /* draws that are added while they are in the first-level cache */
    WIDE_SLICE_BYTES = 256 * 1024, /* of a total that stays in the second-level cache for one seed after the other */
    WIDE_UPDATE_PIECE = 1024,      /* elements */
    MAX_PLANES = PET_MAX_ORDER_LIMBS + 1,
};

static int covers_wide(const pet_order *order) { return order->planes > 2; }

/* Draws of 128 bits: an element is as short as those of avx2_loops.h, and is drawn as they are, but the sum of two is longer. */
static int is_short(const pet_order *order) { return order->draw_bytes <= 16; }

/* ---- expansion ------------------------------------------------------------------------------------------------------- */

/* Draw packed elements. The last ones, behind which a copy would reach beyond the vector, go through a buffer. */
static void draw_packed(wide_drawer *d, uint8_t *elements, size_t length, size_t width) {
    const size_t copied = copied_bytes(d);
    const size_t in_place = length * width >= copied ? (length * width - copied) / width + 1 : 0;
    uint8_t buffer[2 * COPY_SLACK + PET_MAX_ORDER_BYTES];
    draw_wide(d, elements, width, in_place);
    draw_wide(d, buffer, width, length - in_place);
    memcpy(elements + in_place * width, buffer, (length - in_place) * width);
}

static int expand_wide(uint8_t *elements, size_t length, const uint8_t *seed, uint64_t *position, const pet_order *order) {
    if (is_short(order)) return expand(elements, length, seed, position, order);
    wide_drawer d;
    start_wide(&d, seed, *position, order);
    draw_packed(&d, elements, length, order->element_bytes);
    *position = d.position;
    return PET_OK;
}

/* ---- sums of masks --------------------------------------------------------------------------------------------------- */

/* A sum of elements in the lanes of planes, and that sum minus the order: which of the two is right shows in the last plane. */
typedef struct {
    plane sum[MAX_PLANES], reduced[MAX_PLANES];
    carries carry, borrow;
} modular_sum;

PET_INLINE void add_plane(modular_sum *s, size_t p, plane total, plane element, const pet_order *order) {
    s->sum[p] = add_planes(total, element, &s->carry);
    s->reduced[p] = subtract_planes(s->sum[p], spread_plane(order->limbs[p]), &s->borrow);
}

PET_INLINE void store_sum(uint64_t *total, size_t plane_stride, size_t left, const modular_sum *s, size_t planes) {
    for (size_t p = 0; p < planes; p++)
        store_plane(total + p * plane_stride, left, choose_plane(s->borrow, s->sum[p], s->reduced[p]));
}

/* total[i] = (total[i] + draw i) mod order for the first lanes of a total; `left` of them exist. */
PET_INLINE void add_group(uint64_t *total, size_t plane_stride, size_t left, const uint8_t *draws, size_t draw_stride,
                          const pet_order *order) {
    modular_sum s = {.carry = no_carries(), .borrow = no_carries()};
    for (size_t first = 0; first < order->planes; first += SUM_LANES) {
        plane elements[SUM_LANES];
        load_planes(elements, draws + 8 * first, draw_stride);
#pragma GCC unroll 8
        for (size_t i = 0; i < SUM_LANES; i++) {
            const size_t p = first + i;
            if (p == order->planes) break;
            add_plane(&s, p, load_plane(total + p * plane_stride, left), elements[i], order);
        }
    }
    store_sum(total, plane_stride, left, &s, order->planes);
}

/* Add the next draws of a seed to a slice of a total; draws of up to 128 bits, whose third plane is 0. */
static void add_short_draws(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *seed, uint64_t *position,
                            const pet_order *order) {
    source from;
    scratch draws;
    start_source(&from, seed, *position, order);
    for (size_t done = 0, count; done < length; done += count) {
        count = least(length - done, PIECE);
        draw_piece(&from, &draws, count);
        for (size_t i = 0; i < count; i += SUM_LANES) {
            const size_t left = count - i;
            uint64_t *first = total + done + i;
            modular_sum s = {.carry = no_carries(), .borrow = no_carries()};
            add_plane(&s, 0, load_plane(first, left), load_plane(draws.words + i, left), order);
            add_plane(&s, 1, load_plane(first + plane_stride, left), load_plane(draws.words + PIECE + i, left), order);
            add_plane(&s, 2, load_plane(first + 2 * plane_stride, left), spread_plane(0), order);
            store_sum(first, plane_stride, left, &s, 3);
        }
    }
    *position = position_of(&from);
}

/* The same for draws of many words. */
static void add_wide_draws(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *seed, uint64_t *position,
                           const pet_order *order) {
    wide_drawer d;
    _Alignas(64) uint8_t draws[WIDE_PIECE_BYTES + SUM_LANES * COPY_SLACK];
    start_wide(&d, seed, *position, order);
    const size_t stride = copied_bytes(&d), piece = WIDE_PIECE_BYTES / stride / SUM_LANES * SUM_LANES;
    for (size_t done = 0, count; done < length; done += count) {
        count = least(length - done, piece);
        draw_wide(&d, draws, stride, count);
        for (size_t i = 0; i < count; i += SUM_LANES)
            add_group(total + done + i, plane_stride, count - i, draws + i * stride, stride, order);
    }
    *position = d.position;
}

static int sum_masks_wide(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *seeds, size_t seed_count,
                          uint64_t *positions, const pet_order *order) {
    const size_t slice = WIDE_SLICE_BYTES / (8 * order->planes);
    for (size_t done = 0, count; done < length; done += count) {
        count = least(length - done, slice);
        for (size_t k = 0; k < seed_count; k++) {
            const uint8_t *seed = seeds + PET_SEED_BYTES * k;
            if (is_short(order))
                add_short_draws(total + done, plane_stride, count, seed, &positions[k], order);
            else
                add_wide_draws(total + done, plane_stride, count, seed, &positions[k], order);
        }
    }
    return PET_OK;
}

/* ---- updates --------------------------------------------------------------------------------------------------------- */

/* Portable code masks the draws of a piece while they are in the cache. */
static int update_wide(uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *seed,
                       uint64_t *position, const pet_order *order, const pet_encoding *encoding, uint64_t *clipped_count,
                       size_t *bad_index) {
    if (is_short(order))
        return update(masked, weights, data_type, length, seed, position, order, encoding, clipped_count, bad_index);
    const size_t width = order->element_bytes, bad = find_not_finite(weights, data_type, length);
    if (bad < length) {
        *bad_index = bad;
        return PET_NOT_FINITE;
    }
    const uint8_t *first = weights;
    wide_drawer d;
    start_wide(&d, seed, *position, order);
    *clipped_count = 0;
    for (size_t done = 0, count; done < length; done += count) {
        uint8_t *piece = masked + done * width;
        uint64_t clipped_in_piece = 0;
        count = least(length - done, WIDE_UPDATE_PIECE);
        draw_packed(&d, piece, count, width);
        pet_portable_kernels.mask_weights(piece, first + done * weight_size(data_type), data_type, count, piece, order, encoding,
                                          &clipped_in_piece, bad_index);
        *clipped_count += clipped_in_piece;
    }
    *position = d.position;
    return PET_OK;
}

/* What these loops fill of a variant's second table. */
#define WIDE_MEMBERS                                                                                                   \
    .covers = covers_wide, .expand = expand_wide, .sum_masks = sum_masks_wide, .update = update_wide,                 \
    .aggregate = aggregate_wide, .find_invalid = find_invalid_wide

#endif
