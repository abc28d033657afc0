/* Calls kernels for somebody in another process: requests come in on the standard input, answers go out on the standard output.
 * So kernels for another processor can be tested in an emulator from Python, which is tests/kernels/emulated.py.
 *
 * A request is a name in NAME_BYTES, the number of arguments, then 24 bytes for each argument: its kind, the number, size or
 * index, and at which address modulo ALIGNMENT a buffer is to lie; then the contents of the buffers. An answer is the
 * result, then the contents of the buffers. Numbers are uint64_t, little-endian. It ends with exit status 1 where a request is
 * bad, and 2 where a kernel wrote beside a buffer. */
#define _POSIX_C_SOURCE 200112L /* posix_memalign */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pet_kernels.h"

/* The address sanitizer has guards of its own, right beside a buffer. */
#ifdef __SANITIZE_ADDRESS__
enum { GUARD_BYTES = 0 };
#else
enum { GUARD_BYTES = 64 };
#endif
enum { NAME_BYTES = 32, MAX_ARGUMENTS = 16, MAX_VECTORS = 64, ALIGNMENT = 64, GUARD = 0xa5 };

enum { NUMBER = 0, BUFFER = 1, SAME_BUFFER = 2 }; /* the last: as the argument of that index, before it */

typedef struct {
    uint64_t kind, number, misalignment;
} description;

typedef struct {
    uint64_t number;
    size_t size;
    uint8_t *bytes, *memory;
} argument;

static void fail(int status, const char *what) {
    fprintf(stderr, "driver: %s\n", what);
    exit(status);
}

static void read_exactly(void *target, size_t size) {
    if (size > 0 && fread(target, 1, size, stdin) != size) fail(1, "expected more of a request");
}

/* ---- buffers between guards, at the address that is asked for ------------------------------------------------------------ */

static void place(argument *a, const description *d) {
    a->number = a->size = (size_t)d->number;
    a->memory = NULL;
    if (d->kind != BUFFER) return;
    size_t before = d->misalignment % ALIGNMENT + GUARD_BYTES, whole = before + a->size + GUARD_BYTES;
    void *memory;
    if (posix_memalign(&memory, ALIGNMENT, whole) != 0) fail(1, "expected memory");
    a->memory = memory;
    a->bytes = a->memory + before;
    memset(a->memory, GUARD, whole);
    read_exactly(a->bytes, a->size);
}

static void check_guards(const argument *a) {
    for (size_t i = 1; i <= GUARD_BYTES; i++) {
        if (a->bytes[-(ptrdiff_t)i] != GUARD) fail(2, "a kernel wrote before a buffer");
        if (a->bytes[a->size + i - 1] != GUARD) fail(2, "a kernel wrote behind a buffer");
    }
}

/* ---- calls --------------------------------------------------------------------------------------------------------------- */

static pet_integer integer(const argument *a) { return (pet_integer){a->bytes, a->size}; }

static pet_encoding encoding(const argument *a) {
    return (pet_encoding){integer(a), integer(a + 1), integer(a + 2), integer(a + 3)};
}

static pet_decoding decoding(const argument *a) {
    return (pet_decoding){integer(a), integer(a + 1), integer(a + 2), integer(a + 3), integer(a + 4), integer(a + 5)};
}

#define IS(text) (strcmp(name, text) == 0)
#define N(i) a[i].number
#define B(i) a[i].bytes
#define WORDS(i) ((uint64_t *)a[i].bytes)
#define SIZES(i) ((size_t *)a[i].bytes)
#define ORDER(i) a[i].bytes, a[i].size

static uint64_t call_aggregate(const argument *a, int variant) {
    const uint8_t *vectors[MAX_VECTORS];
    size_t count = (size_t)a[4].number;
    if (count > MAX_VECTORS) fail(1, "expected fewer vectors");
    for (size_t k = 0; k < count; k++) vectors[k] = a[5].bytes + k * (a[5].size / count);
    return (uint64_t)pet_aggregate(variant, (uint64_t *)a[1].bytes, a[2].number, a[3].number, vectors, count, a[6].bytes,
                                   a[6].size, (size_t *)a[7].bytes);
}

/* A double travels as its bits. */
static double real(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The kernels of pet-1. */
static int call_field(const char *name, const argument *a, uint64_t *result) {
    const int variant = (int)N(0);
    if (IS("pet_field_expand_add")) *result = (uint64_t)pet_field_expand_add(variant, B(1), N(2), N(3), B(4), N(5), N(6), N(7));
    else if (IS("pet_field_encode"))
        *result = (uint64_t)pet_field_encode(variant, B(1), B(2), (int)N(3), N(4), real(N(5)), real(N(6)), N(7), N(8), WORDS(9),
                                             SIZES(10));
    else if (IS("pet_field_decode"))
        *result = (uint64_t)pet_field_decode(variant, B(1), (int)N(2), B(3), N(4), real(N(5)), N(6), real(N(7)), N(8), SIZES(9));
    else if (IS("pet_field_add")) *result = (uint64_t)pet_field_add(variant, B(1), B(2), N(3), N(4), SIZES(5));
    else if (IS("pet_field_subtract")) *result = (uint64_t)pet_field_subtract(variant, B(1), B(2), N(3), N(4), SIZES(5));
    else if (IS("pet_field_multiply_add")) *result = (uint64_t)pet_field_multiply_add(variant, B(1), B(2), N(3), N(4), N(5));
    else if (IS("pet_field_dot")) *result = (uint64_t)pet_field_dot(variant, WORDS(1), B(2), B(3), N(4), N(5));
    else if (IS("pet_field_find_above")) *result = (uint64_t)pet_field_find_above(variant, B(1), N(2), N(3), N(4));
    else return 0;
    return 1;
}

/* The first argument is the variant, the others are those of pet_kernels.h in their order; an encoding or a decoding is the
 * integers it holds, the order among them. */
static uint64_t call(const char *name, const argument *a) {
    const int variant = (int)a[0].number;
    if (IS("pet_variant_name")) {
        const char *found = pet_variant_name(variant);
        if (found != NULL) strncpy((char *)B(1), found, a[1].size);
        return found != NULL;
    }
    if (IS("pet_variant_covers")) return (uint64_t)pet_variant_covers(variant, ORDER(1));
    if (IS("pet_expand")) return (uint64_t)pet_expand(variant, B(1), N(2), B(3), WORDS(4), ORDER(5));
    if (IS("pet_sum_masks")) return (uint64_t)pet_sum_masks(variant, WORDS(1), N(2), N(3), B(4), N(5), WORDS(6), ORDER(7));
    if (IS("pet_mask_weights")) {
        const pet_encoding how = encoding(a + 6);
        return (uint64_t)pet_mask_weights(variant, B(1), B(2), (int)N(3), N(4), B(5), &how, WORDS(10), SIZES(11));
    }
    if (IS("pet_update")) {
        const pet_encoding how = encoding(a + 7);
        return (uint64_t)pet_update(variant, B(1), B(2), (int)N(3), N(4), B(5), WORDS(6), &how, WORDS(11), SIZES(12));
    }
    if (IS("pet_find_invalid")) return (uint64_t)pet_find_invalid(variant, B(1), N(2), ORDER(3));
    if (IS("pet_aggregate")) return call_aggregate(a, variant);
    if (IS("pet_subtract")) return (uint64_t)pet_subtract(variant, WORDS(1), N(2), N(3), B(4), ORDER(5));
    if (IS("pet_reduce")) return (uint64_t)pet_reduce(variant, WORDS(1), N(2), N(3), N(4), ORDER(5));
    if (IS("pet_pack")) return (uint64_t)pet_pack(variant, B(1), WORDS(2), N(3), N(4), ORDER(5));
    if (IS("pet_unmask_elements"))
        return (uint64_t)pet_unmask_elements(variant, B(1), WORDS(2), N(3), B(4), N(5), ORDER(6));
    if (IS("pet_unmask")) {
        const pet_decoding how = decoding(a + 7);
        return (uint64_t)pet_unmask(variant, B(1), (int)N(2), WORDS(3), N(4), B(5), N(6), &how, SIZES(13));
    }
    uint64_t result;
    if (!call_field(name, a, &result)) fail(1, "expected the name of a kernel");
    return result;
}

int main(void) {
    char name[NAME_BYTES];
    while (fread(name, 1, sizeof name, stdin) == sizeof name) {
        uint64_t count;
        description descriptions[MAX_ARGUMENTS];
        argument arguments[MAX_ARGUMENTS];
        read_exactly(&count, sizeof count);
        if (count < 1 || count > MAX_ARGUMENTS || name[NAME_BYTES - 1] != 0) fail(1, "expected a name and its arguments");
        read_exactly(descriptions, count * sizeof *descriptions);
        for (size_t i = 0; i < count; i++) {
            place(&arguments[i], &descriptions[i]);
            if (descriptions[i].kind == SAME_BUFFER) arguments[i].bytes = arguments[descriptions[i].number].bytes;
        }
        uint64_t result = call(name, arguments);
        fwrite(&result, sizeof result, 1, stdout);
        for (size_t i = 0; i < count; i++) {
            if (arguments[i].memory == NULL) continue;
            check_guards(&arguments[i]);
            fwrite(arguments[i].bytes, 1, arguments[i].size, stdout);
            free(arguments[i].memory);
        }
        fflush(stdout);
    }
    return 0;
}
