/* The loops over vectors that are drawn, with 256-bit registers, for orders whose totals have one or two 64-bit planes, that
 * is, elements of up to 16 bytes. Wider orders, and what is rare, go to the portable variant; memory_loops.h has what draws
 * nothing.
 *
 * Included by a variant's own file, which brings a source of draws (vertical_draw.h, and for AVX-512 avx512_dense.h beside it):
 * the type and start_source, draw_from, position_of, and the kernels that mask with (memory_kernels). avx2_elements.h has the
 * arithmetic. A loop is written once, for a constant number of planes, and instantiated for one and for two. */
#ifndef PET_AVX2_LOOPS_H
#define PET_AVX2_LOOPS_H

#include "avx2_elements.h"

/* Draws are made piece by piece: 8 KiB for each plane stay in the first-level cache until they are used. */
enum { PIECE = 1024, UPDATE_PIECE = 4 * PIECE, SEED_PIECE = 16 * PIECE };

typedef struct {
    uint64_t words[2 * PIECE]; /* a total with planes PIECE apart */
} scratch;

/* Run one of the two instances of a kernel. */
#define FOR_PLANES(order, kernel, ...) ((order)->planes == 1 ? kernel(__VA_ARGS__, 1) : kernel(__VA_ARGS__, 2))

PET_INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Two planes hold twice the order, so a draw has at most 128 bits. */
static int covers(const pet_order *order) { return order->planes <= 2; }

/* ---- drawing -------------------------------------------------------------------------------------------------------- */

/* Planes that no draw writes are zero from the start. */
static void clear(scratch *draws) { memset(draws->words + PIECE, 0, PIECE * sizeof draws->words[0]); }

static void draw_piece(source *s, scratch *draws, size_t length) { draw_from(s, draws->words, draws->words + PIECE, length); }

PET_INLINE void pack_with(uint8_t *elements, const uint64_t *total, size_t plane_stride, size_t length, const pet_order *order,
                          const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format, planes);
    for (size_t i = 0; i < length; i += LANES)
        store_packed(elements, i, length, in_place, load_total(total, plane_stride, i, length, planes), &format, planes);
}

static int pack_total(uint8_t *elements, const uint64_t *total, size_t plane_stride, size_t length, const pet_order *order) {
    FOR_PLANES(order, pack_with, elements, total, plane_stride, length, order);
    return PET_OK;
}

static void expand_from(source *s, uint8_t *elements, size_t length, const pet_order *order) {
    scratch draws;
    clear(&draws);
    for (size_t done = 0, count; done < length; done += count) {
        count = least(length - done, PIECE);
        draw_piece(s, &draws, count);
        pack_total(elements + done * order->element_bytes, draws.words, PIECE, count, order);
    }
}

static int expand(uint8_t *elements, size_t length, const uint8_t *seed, uint64_t *position, const pet_order *order) {
    source s;
    start_source(&s, seed, *position, order);
    expand_from(&s, elements, length, order);
    *position = position_of(&s);
    return PET_OK;
}

PET_INLINE void add_piece(uint64_t *total, size_t plane_stride, size_t length, const scratch *draws, const pet_order *order,
                          const int planes) {
    const element_format format = format_of(order);
    for (size_t i = 0; i < length; i += LANES) {
        four sum = add_mod(load_total(total, plane_stride, i, length, planes),
                           load_total(draws->words, PIECE, i, length, planes), &format, planes);
        store_total(total, plane_stride, i, length, sum, planes);
    }
}

static void add_draws(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *seed, uint64_t *position,
                      const pet_order *order) {
    source s;
    scratch draws;
    clear(&draws);
    start_source(&s, seed, *position, order);
    for (size_t done = 0, count; done < length; done += count) {
        count = least(length - done, PIECE);
        draw_piece(&s, &draws, count);
        FOR_PLANES(order, add_piece, total + done, plane_stride, count, &draws, order);
    }
    *position = position_of(&s);
}

/* The total goes through the second-level cache in pieces that are long beside the batch or so that starting a seed anew costs.
 */
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
    const size_t size = weight_size(data_type), at_once = 32 / size;
    const uint8_t *bytes = weights;
    const __m256i exponent = data_type == PET_F32 ? spread32(0x7f800000) : spread64(UINT64_C(0x7ff) << 52);
    for (size_t i = 0; i < length; i += at_once) {
        __m256i x = _mm256_setzero_si256();
        if (length - i >= at_once)
            x = _mm256_loadu_si256((const __m256i *)(bytes + i * size));
        else
            memcpy(&x, bytes + i * size, (length - i) * size);
        x = _mm256_and_si256(x, exponent);
        x = data_type == PET_F32 ? _mm256_cmpeq_epi32(x, exponent) : _mm256_cmpeq_epi64(x, exponent);
        unsigned found = (unsigned)_mm256_movemask_epi8(x);
        if (found) return i + _tzcnt_u32(found) / size;
    }
    return length;
}

/* Pieces of masks are packed where the masked elements will be, and masked there while they are in the cache. Preparing an
 * encoding takes as long as drawing some hundred elements, so these pieces are longer. */
static int update(uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *seed, uint64_t *position,
                  const pet_order *order, const pet_encoding *encoding, uint64_t *clipped_count, size_t *bad_index) {
    const size_t bad = find_not_finite(weights, data_type, length);
    if (bad < length) {
        *bad_index = bad;
        return PET_NOT_FINITE;
    }
    const pet_kernel_table *kernels = covers(order) ? memory_kernels : &pet_portable_kernels;
    const uint8_t *first = weights;
    source s;
    start_source(&s, seed, *position, order);
    *clipped_count = 0;
    for (size_t done = 0, count; done < length; done += count) {
        uint8_t *piece = masked + done * order->element_bytes;
        uint64_t clipped_in_piece = 0;
        count = least(length - done, UPDATE_PIECE);
        expand_from(&s, piece, count, order);
        kernels->mask_weights(piece, first + done * weight_size(data_type), data_type, count, piece, order, encoding,
                              &clipped_in_piece, bad_index);
        *clipped_count += clipped_in_piece;
    }
    *position = position_of(&s);
    return PET_OK;
}

/* What these loops fill of a variant's table. */
#define LOOP_MEMBERS .covers = covers, .expand = expand, .sum_masks = sum_masks, .update = update

#endif
