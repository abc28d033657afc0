/* The loops over whole vectors, with 256-bit registers, for orders whose totals have one or two 64-bit planes, that is,
 * elements of up to 16 bytes. Wider orders, and what is rare, go to the portable variant.
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
    const size_t in_place = in_place_end(length, &format);
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
    const size_t size = data_type == PET_F64 ? 8 : 4;
    const uint8_t *bytes = (const uint8_t *)weights + index * size;
    uint8_t buffer[32] = {0};
    if (__builtin_expect(index + LANES > length, 0)) {
        memcpy(buffer, bytes, (length - index) * size);
        bytes = buffer;
    }
    if (data_type == PET_F64) return _mm256_loadu_pd((const double *)bytes);
    return data_type == PET_F32 ? _mm256_cvtps_pd(_mm_loadu_ps((const float *)bytes)) : _mm256_cvtepi32_pd(load16(bytes));
}

/* What a piece of masking needs. */
typedef struct {
    encoder encoder;
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
PET_INLINE void mask_piece(masking *m, scratch *values, size_t first, size_t length, const int data_type, const int is_wide,
                           const int planes) {
    const element_format format = format_of(m->order);
    const encoder e = m->encoder;
    __m256i clipped_count = _mm256_setzero_si256();
    for (size_t i = 0; i < length; i += LANES) {
        __m256i doubtful, clipped;
        __m256d weights = load_weights(m->weights, data_type, first + i, first + length);
        four encoded =
            is_wide ? encode_wide(&e, weights, &doubtful, &clipped) : encode(&e, weights, &doubtful, &clipped, planes);
        /* The correction of a rounding, a branch on secret values that the contract allows. Lanes behind the end hold weight 0,
         * which is never in doubt. */
        if (__builtin_expect(top_bits(doubtful), 0)) {
            clipped = _mm256_andnot_si256(doubtful, clipped);
            encode_again(m, &encoded, first + i, top_bits(doubtful));
        }
        clipped_count = sub64(clipped_count, clipped);
        four sum = add_mod(load_total(values->words, PIECE, i, PIECE, planes), encoded, &format, planes);
        store_total(values->words, PIECE, i, PIECE, sum, planes);
    }
    uint64_t counts[LANES];
    store_words(counts, 0, LANES, clipped_count);
    for (int lane = 0; lane < LANES; lane++) m->clipped_count += counts[lane];
}

PET_INLINE void mask_typed(masking *m, scratch *values, size_t first, size_t length, const int data_type) {
    if (m->encoder.is_wide)
        mask_piece(m, values, first, length, data_type, 1, 2);
    else
        FOR_PLANES(m->order, mask_piece, m, values, first, length, data_type, 0);
}

static void mask_scratch(masking *m, scratch *values, size_t first, size_t length) {
    switch (m->data_type) {
    case PET_F32: mask_typed(m, values, first, length, PET_F32); break;
    case PET_F64: mask_typed(m, values, first, length, PET_F64); break;
    case PET_I32: mask_typed(m, values, first, length, PET_I32); break;
    }
}

PET_INLINE void unpack_with(scratch *values, const uint8_t *elements, size_t length, const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format);
    for (size_t i = 0; i < length; i += LANES)
        store_total(values->words, PIECE, i, PIECE, load_packed(elements, i, length, in_place, &format, planes), planes);
}

static int mask_weights(uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *elements,
                        const pet_order *order, const pet_encoding *encoding, uint64_t *clipped_count, size_t *bad_index) {
    masking m = {.order = order, .encoding = encoding, .weights = weights, .data_type = data_type, .clipped_count = 0};
    if (!prepare_encoder(&m.encoder, order, encoding, data_type))
        return pet_portable_kernels.mask_weights(masked, weights, data_type, length, elements, order, encoding, clipped_count,
                                                 bad_index);
    const size_t bad = find_not_finite(weights, data_type, length);
    if (bad < length) {
        *bad_index = bad;
        return PET_NOT_FINITE;
    }
    scratch values;
    for (size_t done = 0, count; done < length; done += count) {
        count = least(length - done, PIECE);
        FOR_PLANES(order, unpack_with, &values, elements + done * order->element_bytes, count, order);
        mask_scratch(&m, &values, done, count);
        pack_total(masked + done * order->element_bytes, values.words, PIECE, count, order);
    }
    *clipped_count = m.clipped_count;
    return PET_OK;
}

/* The same where only portable code can encode: it masks the draws of a piece while they are in the cache. */
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
    const int here = prepare_encoder(&m.encoder, order, encoding, data_type);
    *clipped_count = here ? update_here(masked, &m, length, &s) : update_by_portable(masked, &m, length, &s);
    *position = position_of(&s);
    return PET_OK;
}

/* ---- totals --------------------------------------------------------------------------------------------------------- */

PET_INLINE size_t find_invalid_with(const uint8_t *elements, size_t length, const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format);
    for (size_t i = 0; i < length; i += LANES) {
        int found = top_bits(invalid(load_packed(elements, i, length, in_place, &format, planes), &format, planes));
        if (found) return i + _tzcnt_u32((unsigned)found);
    }
    return length;
}

static size_t find_invalid(const uint8_t *elements, size_t length, const pet_order *order) {
    return FOR_PLANES(order, find_invalid_with, elements, length, order);
}

/* Add vectors to a total, unchecked but for one answer: 1 if all elements were valid. Subtracts instead if told so: sums wrap,
 * so that takes away exactly what was added. */
PET_INLINE int accumulate_with(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *const *vectors,
                               const size_t count, const int subtracts, const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format);
    __m256i bad = _mm256_setzero_si256();
    for (size_t i = 0; i < length; i += LANES) {
        four sum = load_total(total, plane_stride, i, length, planes);
        for (size_t k = 0; k < count; k++) {
            four element = load_packed(vectors[k], i, length, in_place, &format, planes);
            bad = _mm256_or_si256(bad, invalid(element, &format, planes));
            sum = subtracts ? sub(sum, element, planes) : add(sum, element, planes);
        }
        store_total(total, plane_stride, i, length, sum, planes);
    }
    return top_bits(bad) == 0;
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

PET_INLINE void subtract_with(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *elements,
                              const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format);
    for (size_t i = 0; i < length; i += LANES) {
        four element = load_packed(elements, i, length, in_place, &format, planes);
        four difference = sub_mod(load_total(total, plane_stride, i, length, planes), element, &format, planes);
        store_total(total, plane_stride, i, length, difference, planes);
    }
}

static int subtract(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *elements, const pet_order *order) {
    FOR_PLANES(order, subtract_with, total, plane_stride, length, elements, order);
    return PET_OK;
}

/* One plane, order at most 2^62: the quotient is below 2^32, so an estimate in doubles is wrong by one at most. */
PET_INLINE __m256i remainder_of(__m256i value, const pet_order *order) {
    const __m256i divisor = spread64(order->limbs[0]), base = _mm256_castpd_si256(_mm256_set1_pd(0x1p52));
    __m256d estimate = _mm256_mul_pd(from_unsigned(value), _mm256_set1_pd(1.0 / (double)order->limbs[0]));
    /* Adding 2^52 leaves the quotient in the low half; the multiplications take only that. */
    __m256i quotient = _mm256_castpd_si256(_mm256_add_pd(estimate, _mm256_castsi256_pd(base)));
    __m256i high_product = _mm256_slli_epi64(_mm256_mul_epu32(quotient, _mm256_srli_epi64(divisor, 32)), 32);
    __m256i rest = sub64(value, add64(_mm256_mul_epu32(quotient, divisor), high_product));
    rest = add64(rest, _mm256_and_si256(divisor, _mm256_cmpgt_epi64(_mm256_setzero_si256(), rest)));
    return sub64(rest, _mm256_andnot_si256(_mm256_cmpgt_epi64(divisor, rest), divisor));
}

static int reduce(uint64_t *total, size_t plane_stride, size_t length, uint64_t bound, const pet_order *order) {
    if (order->planes != 1 || order->limbs[0] >> 62 != 0)
        return pet_portable_kernels.reduce(total, plane_stride, length, bound, order);
    for (size_t i = 0; i < length; i += LANES) store_words(total, i, length, remainder_of(load_words(total, i, length), order));
    return PET_OK;
}

/* ---- unmasking ------------------------------------------------------------------------------------------------------ */

PET_INLINE four load_difference(const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t index, size_t length,
                                size_t in_place, const element_format *format, const int planes) {
    return sub_mod(load_total(total, plane_stride, index, length, planes),
                   load_packed(mask, index, length, in_place, format, planes), format, planes);
}

PET_INLINE void unmask_elements_with(uint8_t *elements, const uint64_t *total, size_t plane_stride, const uint8_t *mask,
                                     size_t length, const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format);
    for (size_t i = 0; i < length; i += LANES) {
        four difference = load_difference(total, plane_stride, mask, i, length, in_place, &format, planes);
        store_packed(elements, i, length, in_place, difference, &format, planes);
    }
}

static int unmask_elements(uint8_t *elements, const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                           const pet_order *order) {
    FOR_PLANES(order, unmask_elements_with, elements, total, plane_stride, mask, length, order);
    return PET_OK;
}

/* The index of the first difference outside the bounds, or length. A pass of its own, so that the model is not touched if there
 * is one. */
PET_INLINE size_t find_outside_with(const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                                    const decoder *d, const pet_order *order, const int planes) {
    const element_format format = format_of(order);
    const size_t in_place = in_place_end(length, &format);
    for (size_t i = 0; i < length; i += LANES) {
        int found = outside(d, load_difference(total, plane_stride, mask, i, length, in_place, &format, planes), planes);
        if (found) {
            size_t index = i + _tzcnt_u32((unsigned)found);
            return index < length ? index : length;
        }
    }
    return length;
}

PET_INLINE void store_lanes(uint8_t *bytes, const int data_type, __m256d weights) {
    if (data_type == PET_F64)
        _mm256_storeu_pd((double *)bytes, weights);
    else
        _mm_storeu_ps((float *)bytes, _mm256_cvtpd_ps(weights));
}

PET_INLINE void store_weights(void *model, const int data_type, size_t index, size_t length, __m256d weights) {
    const size_t size = data_type == PET_F64 ? 8 : 4;
    uint8_t buffer[32], *bytes = (uint8_t *)model + index * size;
    if (__builtin_expect(index + LANES <= length, 1)) {
        store_lanes(bytes, data_type, weights);
        return;
    }
    store_lanes(buffer, data_type, weights);
    memcpy(bytes, buffer, (length - index) * size);
}

PET_INLINE void unmask_with(void *model, const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                            const decoder *d, const pet_order *order, const int data_type, const int planes) {
    const element_format format = format_of(order);
    const decoder constants = *d;
    const size_t in_place = in_place_end(length, &format);
    for (size_t i = 0; i < length; i += LANES) {
        four difference = load_difference(total, plane_stride, mask, i, length, in_place, &format, planes);
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

/* What these loops fill of a variant's table. */
#define LOOP_MEMBERS                                                                                             \
    .covers = covers, .expand = expand, .sum_masks = sum_masks, .mask_weights = mask_weights, .update = update, \
    .find_invalid = find_invalid, .aggregate = aggregate, .subtract = subtract, .reduce = reduce,               \
    .pack = pack_total, .unmask_elements = unmask_elements, .unmask = unmask

#endif
