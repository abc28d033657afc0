/* SHA-256 of equal parts of a vector, sixteen at a time, and CRC-32, with instructions that not all processors have.
 *
 * The instructions for SHA-256 itself wait for each other, and give 1.4 GB/s, or 1.7 for two messages in turns; sixteen in the lanes
 * of wide vectors give twice as much. What cannot run here is left to the caller's libraries (PET_BAD_VARIANT). Sources: FIPS
 * 180-4; Gopal and others, Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction (Intel, 2009). */
#include "internal.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define WITH(instructions) __attribute__((target(instructions)))
#define INLINE_WITH(instructions) static inline __attribute__((always_inline, target(instructions)))
#endif

/* ---- SHA-256 ----------------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__) && !defined(PET_WITHOUT_AVX512)

enum { BLOCK_BYTES = 64, WORDS = 8, ROUNDS = 64, LANES = 16 };

static const uint32_t first_state[WORDS] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                            0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static const uint32_t round_constants[ROUNDS] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

#define ROTATED(x, bits) _mm512_ror_epi32(x, bits)
#define XOR3(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0x96)
#define CHOICE(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0xca)
#define MAJORITY(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0xe8)
#define PLUS(x, y) _mm512_add_epi32(x, y)

/* Make of a block of each lane its words, one vector for each word. */
INLINE_WITH("avx512f,avx512bw") void transpose(__m512i w[LANES], const uint8_t *const blocks[LANES]) {
    const __m512i swapped = _mm512_set4_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203);
    __m512i pairs[LANES], fours[LANES];
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i += 2) {
        const __m512i even = _mm512_loadu_si512(blocks[i]), odd = _mm512_loadu_si512(blocks[i + 1]);
        pairs[i] = _mm512_unpacklo_epi32(even, odd);
        pairs[i + 1] = _mm512_unpackhi_epi32(even, odd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 4) {
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const __m512i low = _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0x44), high = _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0xee);
        const __m512i low_next = _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0x44);
        const __m512i high_next = _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0xee);
        w[j] = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(low, low_next, 0x88), swapped);
        w[4 + j] = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(low, low_next, 0xdd), swapped);
        w[8 + j] = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(high, high_next, 0x88), swapped);
        w[12 + j] = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(high, high_next, 0xdd), swapped);
    }
}

/* Hash one more block of each lane; w[i] holds word i of all. Words change their names from round to round, and not places. */
INLINE_WITH("avx512f,avx512bw") void hash_words(__m512i state[WORDS], __m512i w[LANES]) {
    __m512i s[WORDS];
#pragma GCC unroll 8
    for (int i = 0; i < WORDS; i++) s[i] = state[i];
#pragma GCC unroll 64
    for (int i = 0; i < ROUNDS; i++) {
        __m512i *now = &w[i % LANES];
        if (i >= LANES) {
            const __m512i older = w[(i + 1) % LANES], newer = w[(i + 14) % LANES];
            const __m512i from_older = XOR3(ROTATED(older, 7), ROTATED(older, 18), _mm512_srli_epi32(older, 3));
            const __m512i from_newer = XOR3(ROTATED(newer, 17), ROTATED(newer, 19), _mm512_srli_epi32(newer, 10));
            *now = PLUS(PLUS(*now, from_older), PLUS(w[(i + 9) % LANES], from_newer));
        }
        enum { A, B, C, D, E, F, G, H };
#define WORD(letter) s[(letter - i + ROUNDS) % WORDS]
        const __m512i e = WORD(E), a = WORD(A);
        const __m512i taken = PLUS(PLUS(WORD(H), *now), _mm512_set1_epi32((int)round_constants[i]));
        const __m512i first = PLUS(PLUS(taken, CHOICE(e, WORD(F), WORD(G))), XOR3(ROTATED(e, 6), ROTATED(e, 11), ROTATED(e, 25)));
        const __m512i second = PLUS(XOR3(ROTATED(a, 2), ROTATED(a, 13), ROTATED(a, 22)), MAJORITY(a, WORD(B), WORD(C)));
        WORD(D) = PLUS(WORD(D), first);
        WORD(H) = PLUS(first, second);
#undef WORD
    }
#pragma GCC unroll 8
    for (int i = 0; i < WORDS; i++) state[i] = PLUS(state[i], s[i]);
}

/* Write the digests of up to 16 parts: all have the same length, so the block behind them is the same. */
WITH("avx512f,avx512bw") static void digest_sixteen(uint8_t *digests, const uint8_t *heads, const uint8_t *data, size_t count,
                                                    size_t part_bytes) {
    const uint8_t *blocks[LANES];
    __m512i state[WORDS], w[LANES];
    uint32_t words[WORDS][LANES];
    for (int i = 0; i < WORDS; i++) state[i] = _mm512_set1_epi32((int)first_state[i]);
    for (size_t k = 0; k < LANES; k++) blocks[k] = heads + (k < count ? k : 0) * PET_HEAD_BYTES;
    transpose(w, blocks);
    hash_words(state, w);
    for (size_t k = 0; k < LANES; k++) blocks[k] = data + (k < count ? k : 0) * part_bytes;
    for (size_t done = 0; done < part_bytes; done += BLOCK_BYTES) {
        transpose(w, blocks);
        hash_words(state, w);
        for (int k = 0; k < LANES; k++) blocks[k] += BLOCK_BYTES;
    }
    const uint64_t bits = 8 * (uint64_t)(PET_HEAD_BYTES + part_bytes);
    for (int i = 0; i < LANES; i++) w[i] = _mm512_setzero_si512();
    w[0] = _mm512_set1_epi32(INT32_MIN);
    w[14] = _mm512_set1_epi32((int)(uint32_t)(bits >> 32));
    w[15] = _mm512_set1_epi32((int)(uint32_t)bits);
    hash_words(state, w);
    for (int i = 0; i < WORDS; i++) _mm512_storeu_si512(words[i], state[i]);
    for (size_t k = 0; k < count; k++) {
        uint8_t *digest = digests + k * PET_DIGEST_BYTES;
        for (size_t i = 0; i < PET_DIGEST_BYTES; i++) digest[i] = (uint8_t)(words[i / 4][k] >> (24 - 8 * (i % 4)));
    }
}

int pet_digest_parts(uint8_t *digests, const uint8_t *heads, const uint8_t *data, size_t count, size_t part_bytes) {
    if (part_bytes == 0 || part_bytes % BLOCK_BYTES != 0) return PET_BAD_ARGUMENT;
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))) return PET_BAD_VARIANT;
    for (size_t k = 0; k < count; k += LANES) {
        const size_t together = count - k < LANES ? count - k : LANES;
        digest_sixteen(digests + k * PET_DIGEST_BYTES, heads + k * PET_HEAD_BYTES, data + k * part_bytes, together, part_bytes);
    }
    return PET_OK;
}

#else

int pet_digest_parts(uint8_t *digests, const uint8_t *heads, const uint8_t *data, size_t count, size_t part_bytes) {
    (void)digests, (void)heads, (void)data, (void)count, (void)part_bytes;
    return PET_BAD_VARIANT;
}

#endif

/* ---- CRC-32 ------------------------------------------------------------------------------------------------------------ */

#if defined(__x86_64__)

enum { LANE_BYTES = 16 };

INLINE_WITH("pclmul,sse4.1") __m128i load_lane(const uint8_t *bytes) { return _mm_loadu_si128((const __m128i *)bytes); }

/* Move a lane forward by as many bits as the two constants are for, onto what stands there. */
INLINE_WITH("pclmul,sse4.1") __m128i fold(__m128i lane, __m128i by, __m128i onto) {
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(lane, by, 0x00), _mm_clmulepi64_si128(lane, by, 0x11)), onto);
}

/* The constants are powers of x modulo the polynomial, bits reversed: for sixteen lanes, for four, for one, for half a lane, and for
 * the last reduction. */
#define BY_SIXTEEN 0x1322d1430, 0x11542778a
#define BY_FOUR 0x1c6e41596, 0x154442bd4

/* Return the sum of four lanes and of what is behind them. */
INLINE_WITH("pclmul,sse4.1") uint32_t reduce(const __m128i lanes[4], const uint8_t *data, size_t size) {
    const __m128i by_one = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0), by_half = _mm_set_epi64x(0, 0x163cd6124);
    const __m128i polynomial = _mm_set_epi64x(0x1f7011641, 0x1db710641), low_words = _mm_setr_epi32(-1, 0, -1, 0);
    __m128i x = lanes[0];
    for (int i = 1; i < 4; i++) x = fold(x, by_one, lanes[i]);
    for (size_t done = 0; size - done >= LANE_BYTES; done += LANE_BYTES) x = fold(x, by_one, load_lane(data + done));
    x = _mm_xor_si128(_mm_srli_si128(x, 8), _mm_clmulepi64_si128(x, by_one, 0x10));
    x = _mm_xor_si128(_mm_srli_si128(x, 4), _mm_clmulepi64_si128(_mm_and_si128(x, low_words), by_half, 0x00));
    __m128i quotient = _mm_and_si128(_mm_clmulepi64_si128(_mm_and_si128(x, low_words), polynomial, 0x10), low_words);
    x = _mm_xor_si128(x, _mm_clmulepi64_si128(quotient, polynomial, 0x00));
    return (uint32_t)_mm_extract_epi32(x, 1);
}

WITH("pclmul,sse4.1") static uint32_t sum_lanes(uint32_t crc, const uint8_t *data, size_t size) {
    const __m128i by_four = _mm_set_epi64x(BY_FOUR);
    __m128i lanes[4];
    for (int i = 0; i < 4; i++) lanes[i] = load_lane(data + i * LANE_BYTES);
    lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi32_si128((int)crc));
    size_t done = sizeof lanes;
    for (; size - done >= sizeof lanes; done += sizeof lanes) {
        for (int i = 0; i < 4; i++) lanes[i] = fold(lanes[i], by_four, load_lane(data + done + (size_t)i * LANE_BYTES));
    }
    return reduce(lanes, data + done, size - done);
}

#if !defined(PET_WITHOUT_AVX512)

enum { WIDE_BYTES = 64 };

INLINE_WITH("avx512f") __m512i load_wide(const uint8_t *bytes) { return _mm512_loadu_si512(bytes); }

INLINE_WITH("avx512f,vpclmulqdq") __m512i fold_wide(__m512i lanes, __m512i by, __m512i onto) {
    const __m512i low = _mm512_clmulepi64_epi128(lanes, by, 0x00), high = _mm512_clmulepi64_epi128(lanes, by, 0x11);
    return XOR3(low, high, onto);
}

/* The same with four lanes in a vector, and four vectors. */
WITH("avx512f,vpclmulqdq,pclmul,sse4.1") static uint32_t sum_wide(uint32_t crc, const uint8_t *data, size_t size) {
    const __m512i by_sixteen = _mm512_broadcast_i32x4(_mm_set_epi64x(BY_SIXTEEN));
    const __m512i by_four = _mm512_broadcast_i32x4(_mm_set_epi64x(BY_FOUR));
    __m512i x[4];
    for (int i = 0; i < 4; i++) x[i] = load_wide(data + i * WIDE_BYTES);
    x[0] = _mm512_xor_si512(x[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
    size_t done = sizeof x;
    for (; size - done >= sizeof x; done += sizeof x) {
        for (int i = 0; i < 4; i++) x[i] = fold_wide(x[i], by_sixteen, load_wide(data + done + (size_t)i * WIDE_BYTES));
    }
    for (int i = 1; i < 4; i++) x[0] = fold_wide(x[0], by_four, x[i]);
    for (; size - done >= WIDE_BYTES; done += WIDE_BYTES) x[0] = fold_wide(x[0], by_four, load_wide(data + done));
    __m128i lanes[4];
    _mm512_storeu_si512(lanes, x[0]);
    return reduce(lanes, data + done, size - done);
}

static int can_sum_wide(void) { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq"); }

#endif

int pet_crc32(uint32_t *crc, const uint8_t *data, size_t size) {
    if (size < 4 * LANE_BYTES || size % LANE_BYTES != 0) return PET_BAD_ARGUMENT;
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1"))) return PET_BAD_VARIANT;
#if !defined(PET_WITHOUT_AVX512)
    if (size >= 4 * WIDE_BYTES && can_sum_wide()) {
        *crc = ~sum_wide(~*crc, data, size);
        return PET_OK;
    }
#endif
    *crc = ~sum_lanes(~*crc, data, size);
    return PET_OK;
}

#else

int pet_crc32(uint32_t *crc, const uint8_t *data, size_t size) {
    (void)crc, (void)data, (void)size;
    return PET_BAD_VARIANT;
}

#endif
