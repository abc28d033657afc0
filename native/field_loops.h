/* The loops of the kernels of pet-1, written once for vectors of any length. Included by a variant's <name>_fields.c after the
 * header that brings its vectors: rows of keystream, lanes of elements, doubles.
 *
 * A loop is written for a constant width of elements and instantiated for both. Whole vectors are its work; the few elements
 * left over go to portable code. */
#ifndef PET_FIELD_LOOPS_H
#define PET_FIELD_LOOPS_H

/* Run one of the two instances of a loop. */
#define FOR_WIDTHS(field, loop, ...) ((field)->is_wide ? loop(__VA_ARGS__, 1) : loop(__VA_ARGS__, 0))

#include "field_keystream.h"

/* How far ahead of a loop that multiplies, or reads only, memory is asked for: prefetchers of the processor stop at the end of
 * each page. */
enum { AHEAD_BYTES = 4096 };
PET_INLINE void fetch(const void *bytes) { __builtin_prefetch((const void *)((uintptr_t)bytes + AHEAD_BYTES)); }

enum { GROUP = 4 }; /* vectors that are checked together, before the first of them changes anything */

/* ---- vectors ----------------------------------------------------------------------------------------------------------- */

PET_INLINE size_t change_with(uint8_t *total, const uint8_t *vector, size_t length, const pet_field *field, const int subtracts,
                              const int is_wide) {
    const modulus m = modulus_of(field, is_wide);
    const lanes largest = spread(field->order - 1, is_wide);
    const size_t width = pet_field_width(is_wide), step = GROUP * VECTOR_BYTES, bytes = length * width / step * step;
    for (size_t at = 0; at < bytes; at += step) {
        lanes x[GROUP], seen = spread(0, is_wide);
#pragma GCC unroll 4
        for (int k = 0; k < GROUP; k++) {
            x[k] = load(vector + at + k * VECTOR_BYTES);
            seen = watch(seen, x[k], largest, is_wide);
        }
        if (__builtin_expect(was_above(seen, largest, is_wide), 0)) return at / width;
#pragma GCC unroll 4
        for (int k = 0; k < GROUP; k++) {
            uint8_t *target = total + at + k * VECTOR_BYTES;
            const lanes old = load(target);
            store(target, subtracts ? minus(old, x[k], &m, is_wide) : plus_raised(old, raise(x[k], &m, is_wide), &m, is_wide));
        }
    }
    const size_t done = bytes / width;
    return done + (subtracts ? pet_portable_fields.subtract : pet_portable_fields.add)(total + bytes, vector + bytes,
                                                                                       length - done, field);
}

static size_t add_vector(uint8_t *total, const uint8_t *vector, size_t length, const pet_field *field) {
    return FOR_WIDTHS(field, change_with, total, vector, length, field, 0);
}

static size_t subtract_vector(uint8_t *total, const uint8_t *vector, size_t length, const pet_field *field) {
    return FOR_WIDTHS(field, change_with, total, vector, length, field, 1);
}

PET_INLINE size_t find_above_with(const uint8_t *elements, size_t length, uint64_t highest, const pet_field *field,
                                  const int is_wide) {
    const lanes limit = spread(highest, is_wide);
    const size_t width = pet_field_width(is_wide), step = GROUP * VECTOR_BYTES, bytes = length * width / step * step;
    size_t at = 0;
    for (; at < bytes; at += step) {
        lanes seen = spread(0, is_wide);
#pragma GCC unroll 4
        for (int k = 0; k < GROUP; k++) seen = watch(seen, load(elements + at + k * VECTOR_BYTES), limit, is_wide);
        if (was_above(seen, limit, is_wide)) break;
    }
    return at / width + pet_portable_fields.find_above(elements + at, length - at / width, highest, field);
}

static size_t find_above(const uint8_t *elements, size_t length, uint64_t highest, const pet_field *field) {
    return FOR_WIDTHS(field, find_above_with, elements, length, highest, field);
}

/* ---- products ---------------------------------------------------------------------------------------------------------- */

/* old + x * factor modulo 2^32 - 5, where 2^32 is 5: products of 64 bits in even and odd words are folded once; the high word
 * that is left, 5 at most, says what to add to the low one. */
PET_INLINE lanes multiply_add_narrow(lanes old, lanes x, lanes factor, const modulus *m) {
    const lanes five = spread(5, 1);
    lanes even = add64(multiply32(x, factor), low_half(old)), odd = add64(multiply32(high_half(x), factor), high_half(old));
    even = add64(low_half(even), multiply32(high_half(even), five));
    odd = add64(low_half(odd), multiply32(high_half(odd), five));
    const lanes low = blend_words(even, to_high_half(odd)), high = blend_words(high_half(even), odd);
    return plus_raised(low, raised_multiples(high), m, 0);
}

/* old + x * factor modulo 2^64 - 2^32 + 1, where 2^64 is 2^32 - 1 and 2^96 is -1. */
PET_INLINE lanes multiply_add_wide(lanes old, lanes x, lanes factor, const modulus *m) {
    const lanes x1 = high_half(x), factor1 = high_half(factor);
    const lanes bottom = multiply32(x, factor), right = multiply32(x, factor1);
    const lanes left = add64(multiply32(x1, factor), high_half(bottom)), middle = add64(right, low_half(left));
    const lanes high = add64(add64(multiply32(x1, factor1), high_half(left)), high_half(middle));
    const lanes low = blend_words(bottom, to_high_half(middle));
    const lanes folded = subtract_folding(low, high_half(high));
    const lanes product = add_folding(folded, multiply32(high, spread(UINT32_MAX, 1)));
    return reduce_once(add_folding(product, old), m);
}

PET_INLINE void multiply_add_with(uint8_t *total, const uint8_t *vector, size_t length, uint64_t factor, const pet_field *field,
                                  const int is_wide) {
    const modulus m = modulus_of(field, is_wide);
    const lanes factors = spread(factor, 1);
    const size_t width = pet_field_width(is_wide), bytes = length * width / VECTOR_BYTES * VECTOR_BYTES;
    for (size_t at = 0; at < bytes; at += VECTOR_BYTES) {
        const lanes old = load(total + at), x = load(vector + at);
        fetch(total + at);
        fetch(vector + at);
        store(total + at, is_wide ? multiply_add_wide(old, x, factors, &m) : multiply_add_narrow(old, x, factors, &m));
    }
    pet_portable_fields.multiply_add(total + bytes, vector + bytes, length - bytes / width, factor, field);
}

static void multiply_add(uint8_t *total, const uint8_t *vector, size_t length, uint64_t factor, const pet_field *field) {
    FOR_WIDTHS(field, multiply_add_with, total, vector, length, factor, field);
}

/* A sum of products of 64 bits in each lane: modulo 2^64, and of the high halves alone, exact for 2^32 of them. The
 * difference is the sum of the low halves, so none has to be masked out. */
typedef struct {
    lanes whole, high;
} product_sums;

PET_INLINE void add_products(product_sums *sums, lanes products) {
    sums->whole = add64(sums->whole, products);
    sums->high = add64(sums->high, high_half(products));
}

/* Their sum over all lanes below the order. */
static uint64_t sum_of(const product_sums *sums, const pet_field *field) {
    uint8_t whole[VECTOR_BYTES], high[VECTOR_BYTES];
    uint64_t sum = 0;
    store(whole, sums->whole);
    store(high, sums->high);
    for (size_t i = 0; i < VECTOR_BYTES / 8; i++) {
        const uint64_t high_sum = pet_load64(high + 8 * i), low_sum = pet_load64(whole + 8 * i) - (high_sum << 32);
        const uint64_t times_2_32 =
            pet_field_times(high_sum % field->order, (UINT64_C(1) << 32) % field->order, field->is_wide);
        sum = pet_field_plus(sum, pet_field_plus(low_sum % field->order, times_2_32, field->order), field->order);
    }
    return sum;
}

/* The inner product of whole vectors, few enough of them for the sums. The words of wide elements have four products, of
 * weight 1, 2^32 (two of them) and 2^64. */
PET_INLINE uint64_t dot_piece(const uint8_t *left, const uint8_t *right, size_t bytes, const pet_field *field, const int is_wide) {
    const product_sums none = {spread(0, 1), spread(0, 1)};
    product_sums bottom = none, middle = none, top = none;
    for (size_t at = 0; at < bytes; at += VECTOR_BYTES) {
        fetch(left + at);
        fetch(right + at);
        const lanes x = load(left + at), y = load(right + at), x1 = high_half(x), y1 = high_half(y);
        add_products(&bottom, multiply32(x, y));
        add_products(&top, multiply32(x1, y1));
        if (!is_wide) continue;
        add_products(&middle, multiply32(x, y1));
        add_products(&middle, multiply32(x1, y));
    }
    const uint64_t first = sum_of(&bottom, field), last = sum_of(&top, field), shift = UINT64_C(1) << 32;
    if (!is_wide) return pet_field_plus(first, last, field->order);
    const uint64_t upper = pet_field_plus(sum_of(&middle, field), pet_field_times_wide(last, shift), field->order);
    return pet_field_plus(first, pet_field_times_wide(upper, shift), field->order);
}

static uint64_t dot(const uint8_t *left, const uint8_t *right, size_t length, const pet_field *field) {
    enum { MAX_PIECE_BYTES = 1 << 30 };
    const size_t width = pet_field_width(field->is_wide), bytes = length * width / VECTOR_BYTES * VECTOR_BYTES;
    uint64_t sum = pet_portable_fields.dot(left + bytes, right + bytes, length - bytes / width, field);
    for (size_t at = 0; at < bytes; at += MAX_PIECE_BYTES) {
        const size_t count = bytes - at < MAX_PIECE_BYTES ? bytes - at : MAX_PIECE_BYTES;
        sum = pet_field_plus(sum, FOR_WIDTHS(field, dot_piece, left + at, right + at, count, field), field->order);
    }
    return sum;
}

#include "field_reals.h"

const pet_field_table PET_FIELDS_OF_VARIANT = {
    .expand_add = expand_add,
    .add = add_vector,
    .subtract = subtract_vector,
    .encode = encode,
    .decode = decode,
    .multiply_add = multiply_add,
    .dot = dot,
    .find_above = find_above,
};

#endif
