/* The portable variant, part one: drawing elements from the keystream, and totals. Plain C for every order; the other variants
 * hand on to it what they do not cover, and tests hold them against it.
 *
 * It knows no weight: masking.c and unmasking.c do. */
#include "portable.h"

/* ---- keystream: ChaCha20 with a 64-bit counter and nonce 0, LANES blocks at a time ------------------------------------- */

enum { LANES = 4, BATCH_WORDS = 16 * LANES, MAX_WORDS_PER_DRAW = PET_MAX_ORDER_BYTES / 4 };

/* One word of LANES blocks. Vectors of GCC and Clang: plain arithmetic, compiled to what the machine has. */
typedef uint32_t lanes __attribute__((vector_size(4 * LANES)));

typedef struct {
    uint32_t key[8];
    uint64_t next_block;
    size_t begin, end; /* the words that are not used up */
    uint32_t words[MAX_WORDS_PER_DRAW + BATCH_WORDS];
} keystream;

static inline lanes rotate(lanes value, int distance) { return value << distance | value >> (32 - distance); }

static inline void quarter_round(lanes *a, lanes *b, lanes *c, lanes *d) {
    *a += *b, *d = rotate(*d ^ *a, 16);
    *c += *d, *b = rotate(*b ^ *c, 12);
    *a += *b, *d = rotate(*d ^ *a, 8);
    *c += *d, *b = rotate(*b ^ *c, 7);
}

static void generate_batch(keystream *stream, uint32_t *words) {
    static const uint32_t sigma[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}; /* "expand 32-byte k" */
    lanes start[16] = {{0}}, state[16];
    for (int i = 0; i < 4; i++) start[i] += sigma[i];
    for (int i = 0; i < 8; i++) start[4 + i] += stream->key[i];
    for (int lane = 0; lane < LANES; lane++) {
        start[12][lane] = (uint32_t)(stream->next_block + (uint64_t)lane);
        start[13][lane] = (uint32_t)((stream->next_block + (uint64_t)lane) >> 32);
    }
    memcpy(state, start, sizeof state);
    for (int i = 0; i < 10; i++) {
        for (int k = 0; k < 4; k++) quarter_round(&state[k], &state[4 + k], &state[8 + k], &state[12 + k]);
        for (int k = 0; k < 4; k++) {
            quarter_round(&state[k], &state[4 + (k + 1) % 4], &state[8 + (k + 2) % 4], &state[12 + (k + 3) % 4]);
        }
    }
    for (int i = 0; i < 16; i++) {
        state[i] += start[i];
        for (int lane = 0; lane < LANES; lane++) words[16 * lane + i] = state[i][lane];
    }
    stream->next_block += LANES;
}

static void open_keystream(keystream *stream, const uint8_t *seed, uint64_t position) {
    for (int i = 0; i < 8; i++) stream->key[i] = pet_load32(seed + 4 * i);
    stream->next_block = position / 16;
    generate_batch(stream, stream->words);
    stream->begin = position % 16;
    stream->end = BATCH_WORDS;
}

/* How many words are used up since the seed. */
static uint64_t keystream_position(const keystream *stream) {
    return 16 * stream->next_block - (uint64_t)(stream->end - stream->begin);
}

/* The next `count` words, used up by this call. */
static inline const uint32_t *take_words(keystream *stream, size_t count) {
    while (stream->end - stream->begin < count) {
        stream->end -= stream->begin;
        memmove(stream->words, stream->words + stream->begin, stream->end * sizeof *stream->words);
        stream->begin = 0;
        generate_batch(stream, stream->words + stream->end);
        stream->end += BATCH_WORDS;
    }
    stream->begin += count;
    return stream->words + stream->begin - count;
}

/* ---- draws --------------------------------------------------------------------------------------------------------- */

/* The next draw below an order of up to 8 bytes. Branches on the rejection of a draw, as the specification has it. */
static inline uint64_t draw_narrow(keystream *stream, const pet_order *order) {
    uint64_t used_bits = UINT64_MAX >> (64 - 8 * order->draw_bytes);
    for (;;) {
        const uint32_t *words = take_words(stream, order->words_per_draw);
        uint64_t value = words[0];
        if (order->words_per_draw == 2) value |= (uint64_t)words[1] << 32;
        value &= used_bits;
        if (value < order->limbs[0]) return value;
    }
}

/* The next draw below any order, in order->planes limbs. Branches on the rejection of a draw; a draw that could be accepted is
 * compared to its last limb, so the time says nothing about an accepted value. */
static void draw_wide(uint64_t *value, keystream *stream, const pet_order *order) {
    size_t words = order->words_per_draw, top = (order->draw_bytes - 1) / 8;
    uint64_t used_bits = UINT64_MAX >> (8 * (8 * (top + 1) - order->draw_bytes));
    uint64_t draw[PET_ELEMENT_LIMBS + 1];
    for (;;) {
        const uint32_t *source = take_words(stream, words);
        for (size_t i = 0; i <= top; i++) {
            draw[i] = source[2 * i] | (2 * i + 1 < words ? (uint64_t)source[2 * i + 1] << 32 : 0);
        }
        draw[top] &= used_bits;
        if (draw[top] <= order->limbs[top] && pet_limbs_are_less(draw, order->limbs, top + 1)) break;
    }
    for (size_t p = 0; p < order->planes; p++) value[p] = p <= top ? draw[p] : 0;
}

int pet_expand_portable(uint8_t *elements, size_t length, const uint8_t *seed, uint64_t *position, const pet_order *order) {
    keystream stream;
    open_keystream(&stream, seed, *position);
    for (size_t i = 0; i < length; i++) {
        uint8_t *element = elements + i * order->element_bytes;
        if (order->draw_bytes <= 8) {
            pet_store_narrow(element, order->element_bytes, draw_narrow(&stream, order));
        } else {
            uint64_t value[PET_ELEMENT_LIMBS];
            draw_wide(value, &stream, order);
            pet_limbs_store(element, order->element_bytes, value);
        }
    }
    *position = keystream_position(&stream);
    return PET_OK;
}

/* Add the next draws of one seed to a piece of a total, unreduced. */
static void add_draws(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *seed, uint64_t *position,
                      const pet_order *order) {
    keystream stream;
    open_keystream(&stream, seed, *position);
    if (order->draw_bytes <= 8 && order->planes == 1) {
        for (size_t i = 0; i < length; i++) total[i] += draw_narrow(&stream, order);
    } else {
        for (size_t i = 0; i < length; i++) {
            uint64_t sum[PET_ELEMENT_LIMBS], value[PET_ELEMENT_LIMBS];
            draw_wide(value, &stream, order);
            pet_load_total(sum, total, plane_stride, i, order);
            pet_limbs_add(sum, sum, value, order->planes);
            pet_store_total(total, plane_stride, i, sum, order);
        }
    }
    *position = keystream_position(&stream);
}

static int reduce(uint64_t *total, size_t plane_stride, size_t length, uint64_t bound, const pet_order *order);

static int sum_masks(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *seeds, size_t seed_count,
                     uint64_t *positions, const pet_order *order) {
    enum { PIECE = 1024 }; /* elements: with one plane 8 KiB, a quarter of the smallest first-level cache in use */
    uint64_t capacity = pet_order_capacity(order);
    for (size_t begin = 0; begin < length; begin += PIECE) {
        size_t piece_length = length - begin < PIECE ? length - begin : PIECE;
        uint64_t bound = 1;
        for (size_t k = 0; k < seed_count; k++) {
            if (bound == capacity) {
                reduce(total + begin, plane_stride, piece_length, bound, order);
                bound = 1;
            }
            add_draws(total + begin, plane_stride, piece_length, seeds + PET_SEED_BYTES * k, positions + k, order);
            bound++;
        }
        reduce(total + begin, plane_stride, piece_length, bound, order);
    }
    return PET_OK;
}

/* ---- totals -------------------------------------------------------------------------------------------------------- */

static size_t find_invalid(const uint8_t *elements, size_t length, const pet_order *order) {
    size_t width = order->element_bytes, limbs = (order->draw_bytes + 7) / 8;
    uint64_t element[PET_ELEMENT_LIMBS];
    for (size_t i = 0; i < length; i++) {
        if (width <= 8 && limbs == 1) {
            if (pet_load_narrow(elements + i * width, width) >= order->limbs[0]) return i;
        } else {
            pet_limbs_load(element, limbs, elements + i * width, width);
            if (!pet_limbs_are_less(element, order->limbs, limbs)) return i;
        }
    }
    return length;
}

static void add_vector(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *elements, const pet_order *order) {
    size_t width = order->element_bytes;
    if (order->planes == 1) {
        for (size_t i = 0; i < length; i++) total[i] += pet_load_narrow(elements + i * width, width);
        return;
    }
    for (size_t i = 0; i < length; i++) {
        uint64_t sum[PET_ELEMENT_LIMBS], element[PET_ELEMENT_LIMBS];
        pet_limbs_load(element, order->planes, elements + i * width, width);
        pet_load_total(sum, total, plane_stride, i, order);
        pet_limbs_add(sum, sum, element, order->planes);
        pet_store_total(total, plane_stride, i, sum, order);
    }
}

static int aggregate(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *const *vectors, size_t vector_count,
                     const pet_order *order, size_t *bad_vector) {
    for (size_t k = 0; k < vector_count; k++) {
        if (find_invalid(vectors[k], length, order) != length) {
            *bad_vector = k;
            return PET_INVALID_ELEMENT;
        }
    }
    for (size_t k = 0; k < vector_count; k++) add_vector(total, plane_stride, length, vectors[k], order);
    return PET_OK;
}

static int subtract(uint64_t *total, size_t plane_stride, size_t length, const uint8_t *elements, const pet_order *order) {
    for (size_t i = 0; i < length; i++) {
        uint64_t difference[PET_ELEMENT_LIMBS];
        pet_load_difference(difference, total, plane_stride, elements, i, order);
        pet_store_total(total, plane_stride, i, difference, order);
    }
    return PET_OK;
}

/* Subtract order * 2^shift where it fits, from the largest shift that can fit down to 0. The largest is below bound, so by the
 * limit on bound the shifted order fits the planes. */
static int reduce(uint64_t *total, size_t plane_stride, size_t length, uint64_t bound, const pet_order *order) {
    uint64_t shifted[32][PET_ELEMENT_LIMBS];
    size_t planes = order->planes, shifts = pet_bits64(bound - 1);
    for (size_t s = 0; s < shifts; s++) pet_limbs_shift_left(shifted[s], planes, order->limbs, planes, s);
    for (size_t i = 0; i < length; i++) {
        if (planes == 1) {
            uint64_t value = total[i];
            for (size_t s = shifts; s-- > 0;) value -= shifted[s][0] & pet_mask_if(value >= shifted[s][0]);
            total[i] = value;
            continue;
        }
        uint64_t value[PET_ELEMENT_LIMBS];
        pet_load_total(value, total, plane_stride, i, order);
        for (size_t s = shifts; s-- > 0;) pet_limbs_subtract_once(value, shifted[s], planes);
        pet_store_total(total, plane_stride, i, value, order);
    }
    return PET_OK;
}

static int pack(uint8_t *elements, const uint64_t *total, size_t plane_stride, size_t length, const pet_order *order) {
    size_t width = order->element_bytes;
    for (size_t i = 0; i < length; i++) {
        if (order->planes == 1) {
            pet_store_narrow(elements + i * width, width, total[i]);
        } else {
            uint64_t value[PET_ELEMENT_LIMBS];
            pet_load_total(value, total, plane_stride, i, order);
            pet_limbs_store(elements + i * width, width, value);
        }
    }
    return PET_OK;
}

static int unmask_elements(uint8_t *elements, const uint64_t *total, size_t plane_stride, const uint8_t *mask, size_t length,
                           const pet_order *order) {
    for (size_t i = 0; i < length; i++) {
        uint64_t difference[PET_ELEMENT_LIMBS];
        pet_load_difference(difference, total, plane_stride, mask, i, order);
        pet_limbs_store(elements + i * order->element_bytes, order->element_bytes, difference);
    }
    return PET_OK;
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

static int runs_here(void) { return 1; }

static int covers(const pet_order *order) {
    (void)order;
    return 1;
}

const pet_kernel_table pet_portable_kernels = {
    .name = "portable",
    .runs_here = runs_here,
    .covers = covers,
    .expand = pet_expand_portable,
    .sum_masks = sum_masks,
    .mask_weights = pet_mask_weights_portable,
    .update = pet_update_portable,
    .find_invalid = find_invalid,
    .aggregate = aggregate,
    .subtract = subtract,
    .reduce = reduce,
    .pack = pack,
    .unmask_elements = unmask_elements,
    .unmask = pet_unmask_portable,
};
