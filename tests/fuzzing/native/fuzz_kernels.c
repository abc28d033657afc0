/* Fuzz the kernels with libFuzzer: every variant of this machine against the portable code, on buffers of exactly the size that
 * is needed, so that the address sanitizer sees one byte too much. Compiled and run by tests/fuzzing/fuzz_native.py.
 *
 * An input is a row of choices: the kernel, an order, a length, and bytes for the arrays; where it ends, zeros follow. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pet_kernels.h"

enum { MAX_FUZZED_ORDER_BYTES = 40, MAX_FUZZED_LENGTH = 80, MAX_FUZZED_PLANES = 6, VECTORS = 3 };

typedef struct {
    const uint8_t *bytes;
    size_t left;
} reader;

static uint8_t take(reader *input) {
    if (!input->left) return 0;
    input->left--;
    return *input->bytes++;
}

static uint8_t *take_bytes(reader *input, size_t size) {
    uint8_t *bytes = malloc(size ? size : 1);
    for (size_t i = 0; i < size; i++) bytes[i] = take(input);
    return bytes;
}

static void fail(const char *what, int variant) {
    fprintf(stderr, "%s: variant %d differs from portable\n", what, variant);
    abort();
}

typedef struct {
    uint8_t order[MAX_FUZZED_ORDER_BYTES];
    size_t order_bytes, length, element_bytes, planes;
} shape;

static int take_shape(reader *input, shape *found) {
    found->order_bytes = 1 + take(input) % MAX_FUZZED_ORDER_BYTES;
    for (size_t i = 0; i < found->order_bytes; i++) found->order[i] = take(input);
    found->length = take(input) % (MAX_FUZZED_LENGTH + 1);
    found->element_bytes = pet_element_bytes(found->order, found->order_bytes);
    found->planes = pet_planes(found->order, found->order_bytes);
    return found->element_bytes != 0;
}

/* Bytes of length elements; made valid, which most kernels ask for, unless raw. */
static uint8_t *take_elements(reader *input, const shape *s, int raw) {
    uint8_t *elements = take_bytes(input, s->length * s->element_bytes);
    if (raw) return elements;
    for (size_t i = 0; i < s->length; i++) {
        uint8_t *element = elements + i * s->element_bytes;
        if (pet_find_invalid(PET_VARIANT_PORTABLE, element, 1, s->order, s->order_bytes) == 0) element[s->element_bytes - 1] = 0;
        if (pet_find_invalid(PET_VARIANT_PORTABLE, element, 1, s->order, s->order_bytes) == 0) memset(element, 0, s->element_bytes);
    }
    return elements;
}

static uint64_t *total_of(const shape *s, const uint8_t *elements) {
    uint64_t *total = calloc(s->planes * s->length + 1, sizeof *total);
    size_t bad;
    pet_aggregate(PET_VARIANT_PORTABLE, total, s->length, s->length, &elements, 1, s->order, s->order_bytes, &bad);
    return total;
}

static void fuzz_drawing(reader *input, const shape *s, int variant) {
    uint8_t *seeds = take_bytes(input, 2 * PET_SEED_BYTES);
    uint64_t start = take(input), positions[2][2] = {{start, start}, {start, start}};
    uint8_t *expected = malloc(s->length * s->element_bytes + 1), *got = malloc(s->length * s->element_bytes);
    int status = pet_expand(PET_VARIANT_PORTABLE, expected, s->length, seeds, &positions[0][0], s->order, s->order_bytes);
    if (status != pet_expand(variant, got, s->length, seeds, &positions[1][0], s->order, s->order_bytes)) fail("expand", variant);
    if (positions[0][0] != positions[1][0] || (s->length && memcmp(expected, got, s->length * s->element_bytes))) fail("expand", variant);
    uint64_t *totals[2] = {calloc(s->planes * s->length + 1, 8), calloc(s->planes * s->length + 1, 8)};
    pet_sum_masks(PET_VARIANT_PORTABLE, totals[0], s->length, s->length, seeds, 2, positions[0], s->order, s->order_bytes);
    pet_sum_masks(variant, totals[1], s->length, s->length, seeds, 2, positions[1], s->order, s->order_bytes);
    if (memcmp(totals[0], totals[1], 8 * s->planes * s->length) || memcmp(positions[0], positions[1], sizeof positions[0])) fail("sum", variant);
    free(seeds), free(expected), free(got), free(totals[0]), free(totals[1]);
}

static void fuzz_totals(reader *input, const shape *s, int variant) {
    uint8_t *raw[VECTORS];
    for (int i = 0; i < VECTORS; i++) raw[i] = take_elements(input, s, take(input) & 1);
    uint64_t *totals[2] = {calloc(s->planes * s->length + 1, 8), calloc(s->planes * s->length + 1, 8)};
    size_t bad[2] = {0, 0};
    const uint8_t *const *vectors = (const uint8_t *const *)raw;
    int status = pet_aggregate(PET_VARIANT_PORTABLE, totals[0], s->length, s->length, vectors, VECTORS, s->order, s->order_bytes, &bad[0]);
    if (status != pet_aggregate(variant, totals[1], s->length, s->length, vectors, VECTORS, s->order, s->order_bytes, &bad[1]) || bad[0] != bad[1])
        fail("aggregate", variant);
    for (int i = 0; i < VECTORS; i++)
        if (pet_find_invalid(PET_VARIANT_PORTABLE, raw[i], s->length, s->order, s->order_bytes) !=
            pet_find_invalid(variant, raw[i], s->length, s->order, s->order_bytes))
            fail("find_invalid", variant);
    if (memcmp(totals[0], totals[1], 8 * s->planes * s->length)) fail("aggregate", variant);
    uint64_t bound = VECTORS < pet_capacity(s->order, s->order_bytes) ? VECTORS : 1;
    if (status == PET_OK && bound == VECTORS) {
        uint8_t *packed[2] = {malloc(s->length * s->element_bytes + 1), malloc(s->length * s->element_bytes)};
        pet_reduce(PET_VARIANT_PORTABLE, totals[0], s->length, s->length, bound, s->order, s->order_bytes);
        pet_reduce(variant, totals[1], s->length, s->length, bound, s->order, s->order_bytes);
        pet_subtract(PET_VARIANT_PORTABLE, totals[0], s->length, s->length, raw[0], s->order, s->order_bytes);
        pet_subtract(variant, totals[1], s->length, s->length, raw[0], s->order, s->order_bytes);
        if (memcmp(totals[0], totals[1], 8 * s->planes * s->length)) fail("reduce, subtract", variant);
        pet_pack(PET_VARIANT_PORTABLE, packed[0], totals[0], s->length, s->length, s->order, s->order_bytes);
        pet_pack(variant, packed[1], totals[1], s->length, s->length, s->order, s->order_bytes);
        if (s->length && memcmp(packed[0], packed[1], s->length * s->element_bytes)) fail("pack", variant);
        free(packed[0]), free(packed[1]);
    }
    for (int i = 0; i < VECTORS; i++) free(raw[i]);
    free(totals[0]), free(totals[1]);
}

static void fuzz_masking(reader *input, const shape *s, int variant) {
    int data_type = take(input) % 4;
    size_t width = data_type == PET_F32 || data_type == PET_I32 ? 4 : 8;
    uint8_t *elements = take_elements(input, s, 0), *weights = take_bytes(input, s->length * width);
    uint8_t scale[8], one = 1, denominator = (uint8_t)(1 + take(input) % 7);
    for (size_t i = 0; i < sizeof scale; i++) scale[i] = i < 4 ? take(input) : 0;
    scale[0] |= 1;
    uint8_t offset[MAX_FUZZED_ORDER_BYTES] = {0};
    memcpy(offset, s->order, s->order_bytes);
    for (size_t i = 0; i < s->order_bytes; i++) /* below half of the order */
        offset[i] = (uint8_t)(s->order[i] >> 2 | (i + 1 < s->order_bytes ? s->order[i + 1] << 6 : 0));
    pet_encoding encoding = {{s->order, s->order_bytes}, {offset, s->order_bytes}, {scale, sizeof scale}, {&denominator, 1}};
    uint8_t *masked[2] = {malloc(s->length * s->element_bytes + 1), malloc(s->length * s->element_bytes)};
    uint64_t clipped[2] = {0, 0};
    size_t bad[2] = {0, 0};
    int status = pet_mask_weights(PET_VARIANT_PORTABLE, masked[0], weights, data_type, s->length, elements, &encoding, &clipped[0], &bad[0]);
    if (status != pet_mask_weights(variant, masked[1], weights, data_type, s->length, elements, &encoding, &clipped[1], &bad[1]))
        fail("mask_weights", variant);
    if (status == PET_OK && (clipped[0] != clipped[1] || (s->length && memcmp(masked[0], masked[1], s->length * s->element_bytes))))
        fail("mask_weights", variant);
    if (status == PET_NOT_FINITE && bad[0] != bad[1]) fail("mask_weights", variant);
    if (status == PET_OK && data_type >= PET_I32) { /* integers come back to the bit */
        uint64_t *total = total_of(s, masked[0]);
        uint8_t *models[2] = {malloc(s->length * width + 1), malloc(s->length * width)};
        pet_decoding decoding = {{s->order, s->order_bytes}, {offset, s->order_bytes}, {&denominator, 1}, {scale, sizeof scale}, {&one, 0}, {s->order, s->order_bytes}};
        status = pet_unmask(PET_VARIANT_PORTABLE, models[0], data_type, total, s->length, elements, s->length, &decoding, &bad[0]);
        if (status != pet_unmask(variant, models[1], data_type, total, s->length, elements, s->length, &decoding, &bad[1])) fail("unmask", variant);
        if (status == PET_OK && s->length && memcmp(models[0], models[1], s->length * width)) fail("unmask", variant);
        free(total), free(models[0]), free(models[1]);
    }
    free(elements), free(weights), free(masked[0]), free(masked[1]);
}

static void fuzz_fractions(reader *input) {
    int data_type = take(input) % 4;
    size_t length = take(input) % 5, width = data_type == PET_F32 || data_type == PET_I32 ? 4 : 8, used, bad, size = input->left;
    uint8_t *bytes = take_bytes(input, size), *model = malloc(length * width + 1);
    pet_decode_fractions(PET_VARIANT_BEST, model, data_type, length, bytes, size, &used, &bad);
    if (data_type < PET_I32 && size >= width) { /* what is written for a float reads back as that float */
        uint8_t output[512], *values = malloc(width), back[8];
        size_t done, written;
        memcpy(values, bytes, width);
        if (pet_encode_floats(PET_VARIANT_BEST, output, sizeof output, &written, &done, values, data_type, 1, &bad) == PET_OK && done == 1) {
            int status = pet_decode_fractions(PET_VARIANT_BEST, back, data_type, 1, output, written, &used, &bad);
            uint8_t zero[8] = {0}, minus_zero[8] = {0};
            minus_zero[width - 1] = 0x80;
            if (status != PET_OK || used != written || (memcmp(back, values, width) && !(memcmp(values, minus_zero, width) == 0 && memcmp(back, zero, width) == 0)))
                fail("fractions of floats", 0);
        }
        free(values);
    }
    free(bytes), free(model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    reader input = {data, size};
    int choice = take(&input) % 4;
    if (choice == 3) {
        fuzz_fractions(&input);
        return 0;
    }
    shape s;
    if (!take_shape(&input, &s)) return 0;
    for (int variant = PET_VARIANT_PORTABLE + 1; variant <= PET_VARIANT_NEON; variant++) {
        if (pet_variant_name(variant) == NULL) continue;
        reader again = input;
        if (choice == 0) fuzz_drawing(&again, &s, variant);
        if (choice == 1) fuzz_totals(&again, &s, variant);
        if (choice == 2) fuzz_masking(&again, &s, variant);
    }
    return 0;
}
