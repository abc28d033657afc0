/* The loops over vectors that are drawn, with 256-bit registers, for orders whose totals have one or two 64-bit planes, that
 * is, elements of up to 16 bytes. Wider orders, and what is rare, go to the portable variant; memory_loops.h has what draws
 * nothing.
 *
 * Included by a variant's own file, which brings a source of draws (vertical_draw.h, and for AVX-512 avx512_dense.h beside it):
 * the type and start_source, draw_from, position_of. avx2_elements.h has the arithmetic,
 * avx2_real.h turns weights into elements and back. A loop is written once, for a constant number of planes, and instantiated
 * for one and for two. */
#ifndef PET_AVX2_LOOPS_H
#define PET_AVX2_LOOPS_H

#include "avx2_elements.h"
#include "avx2_real.h"

/* Draws are made piece by piece: 8 KiB for each plane stay in the first-level cache until they are used. */
enum { PIECE = 1024, SEED_PIECE = 16 * PIECE };

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

static int expand(uint8_t *elements, size_t length, const uint8_t *seed, uint64_t *position, const pet_order *order) {
    source s;
    scratch draws;
    clear(&draws);
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

PET_INLINE __m256d load_weights(const void *weights, const int data_type, size_t index, size_t length) {
    const size_t size = weight_size(data_type);
    const uint8_t *bytes = (const uint8_t *)weights + index * size;
    uint8_t buffer[32] = {0};
    if (__builtin_expect(index + LANES > length, 0)) {
        memcpy(buffer, bytes, (length - index) * size);
        bytes = buffer;
    }
    return load_lanes(bytes, data_type);
}

/* What a piece of masking needs. */
typedef struct {
    encoding_numbers numbers;
    const pet_order *order;
    const pet_encoding *encoding;
    const void *weights;
    int data_type;
    uint64_t clipped_count;
} masking;

/* Do the lanes in doubt again, in integers: mask an element 0 with the portable kernel. Out of line, because it is rare. */
static __attribute__((noinline)) void encode_again(masking *m, four *values, size_t index, int lanes) {
    uint64_t redone[2 * LANES];
    store_total(redone, LANES, 0, LANES, *values, 2);
    for (; lanes; lanes &= lanes - 1) {
        const size_t lane = _tzcnt_u32((unsigned)lanes);
        const uint8_t *weight = (const uint8_t *)m->weights + (index + lane) * weight_size(m->data_type);
        uint8_t zero[16] = {0}, value[16] = {0};
        uint64_t clipped_count = 0;
        size_t bad_index;
        pet_portable_kernels.mask_weights(value, weight, m->data_type, 1, zero, m->order, m->encoding, &clipped_count,
                                          &bad_index);
        m->clipped_count += clipped_count;
        redone[lane] = pet_load64(value);
        redone[LANES + lane] = pet_load64(value + 8);
    }
    *values = load_total(redone, LANES, 0, LANES, 2);
}

/* values[i] = (values[i] + encode(weights[first + i])) mod order. */
PET_INLINE void mask_piece(masking *m, scratch *values, size_t first, size_t length, const int data_type,
                           const encoding_method method, const int planes) {
    const element_format format = format_of(m->order);
    const encoder e = encoder_of(&m->numbers);
    __m256i clipped_count = _mm256_setzero_si256();
    for (size_t i = 0; i < length; i += LANES) {
        encoded now = encode(&e, load_weights(m->weights, data_type, first + i, first + length), method, planes);
        /* The correction of a rounding, a branch on secret values that the contract allows. Lanes behind the end hold weight 0,
         * which is never in doubt. */
        if (__builtin_expect(mask_bits(now.doubtful) != 0, 0)) {
            now.clipped = without(now.clipped, now.doubtful);
            encode_again(m, &now.element, first + i, (int)mask_bits(now.doubtful));
        }
        clipped_count = count_lanes(clipped_count, now.clipped);
        four sum = add_mod(load_total(values->words, PIECE, i, PIECE, planes), now.element, &format, planes);
        store_total(values->words, PIECE, i, PIECE, sum, planes);
    }
    uint64_t counts[LANES];
    store_words(counts, 0, LANES, clipped_count);
    for (int lane = 0; lane < LANES; lane++) m->clipped_count += counts[lane];
}

PET_INLINE void mask_typed(masking *m, scratch *values, size_t first, size_t length, const int data_type) {
    if (m->numbers.is_wide)
        mask_piece(m, values, first, length, data_type, WIDE_PRODUCTS, 2);
    else
        FOR_PLANES(m->order, mask_piece, m, values, first, length, data_type, LONG_PRODUCTS);
}

static void mask_scratch(masking *m, scratch *values, size_t first, size_t length) {
    switch (m->data_type) {
    case PET_F32: mask_typed(m, values, first, length, PET_F32); break;
    case PET_F64: mask_typed(m, values, first, length, PET_F64); break;
    case PET_I32: mask_typed(m, values, first, length, PET_I32); break;
    case PET_I64: mask_typed(m, values, first, length, PET_I64); break;
    }
}

/* Where only portable code can encode, it masks the draws of a piece while they are in the cache. */
static uint64_t update_by_portable(uint8_t *masked, const masking *m, size_t length, source *s) {
    const size_t width = m->order->element_bytes, size = weight_size(m->data_type);
    uint64_t clipped_count = 0;
    scratch draws;
    clear(&draws);
    for (size_t done = 0, count; done < length; done += count) {
        uint64_t clipped_in_piece = 0;
        size_t bad_index;
        count = least(length - done, PIECE);
        draw_piece(s, &draws, count);
        pack_total(masked + done * width, draws.words, PIECE, count, m->order);
        pet_portable_kernels.mask_weights(masked + done * width, (const uint8_t *)m->weights + done * size, m->data_type, count,
                                          masked + done * width, m->order, m->encoding, &clipped_in_piece, &bad_index);
        clipped_count += clipped_in_piece;
    }
    return clipped_count;
}

static uint64_t update_here(uint8_t *masked, masking *m, size_t length, source *s) {
    scratch values;
    for (size_t done = 0, count; done < length; done += count) {
        count = least(length - done, PIECE);
        clear(&values);
        draw_piece(s, &values, count);
        mask_scratch(m, &values, done, count);
        pack_total(masked + done * m->order->element_bytes, values.words, PIECE, count, m->order);
    }
    return m->clipped_count;
}

static int update(uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *seed, uint64_t *position,
                  const pet_order *order, const pet_encoding *encoding, uint64_t *clipped_count, size_t *bad_index) {
    const size_t bad = find_not_finite(weights, data_type, length);
    if (bad < length) {
        *bad_index = bad;
        return PET_NOT_FINITE;
    }
    masking m = {.order = order, .encoding = encoding, .weights = weights, .data_type = data_type, .clipped_count = 0};
    source s;
    start_source(&s, seed, *position, order);
    const int here = find_encoding_numbers(&m.numbers, order, encoding, data_type);
    *clipped_count = here ? update_here(masked, &m, length, &s) : update_by_portable(masked, &m, length, &s);
    *position = position_of(&s);
    return PET_OK;
}

/* What these loops fill of a variant's table. */
#define LOOP_MEMBERS .covers = covers, .expand = expand, .sum_masks = sum_masks, .update = update

#endif
