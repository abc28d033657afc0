/* What the kernels of pet-1 need of AVX-512: sixteen blocks of keystream as vectors of 512 bits, sixteen elements of 4 bytes or
 * eight of 8 in a vector, and eight doubles. Part of avx512_fields.c, included nowhere else; the loops are in field_loops.h. */
#ifndef PET_AVX512_FIELDS_H
#define PET_AVX512_FIELDS_H

#include <immintrin.h>

#include "streaming.h"
#include "vectors.h"

enum { BLOCKS = 16, VECTOR_BYTES = 64, ROW_VECTORS = 1 };
typedef __m512i row, lanes;
typedef __m512d reals;

/* ---- keystream ------------------------------------------------------------------------------------------------------- */

typedef uint32_t sixteen __attribute__((vector_size(64)));

PET_INLINE row spread_row(uint32_t x) { return _mm512_set1_epi32((int)x); }
PET_INLINE row add_rows(row a, row b) { return _mm512_add_epi32(a, b); }
PET_INLINE row xor_rows(row a, row b) { return _mm512_xor_si512(a, b); }
/* Written so, the distance may be a parameter; compilers make one rotation of it. */
PET_INLINE row rotate_row(row x, const int distance) {
    return (row)((sixteen)x << distance | (sixteen)x >> (32 - distance));
}
PET_INLINE row least_words(row a, row b) { return _mm512_min_epu32(a, b); }
PET_INLINE row most_words(row a, row b) { return _mm512_max_epu32(a, b); }
PET_INLINE int any_below(row x, uint32_t limit) { return _mm512_cmplt_epu32_mask(x, spread_row(limit)) != 0; }
PET_INLINE int any_not_below(row x, uint32_t limit) { return _mm512_cmpge_epu32_mask(x, spread_row(limit)) != 0; }
PET_INLINE lanes row_vector(row x, const int i) { return (void)i, x; }

/* The blocks in the lanes: with elements of two words so that the interleaves of two rows are neighbours. */
PET_INLINE row block_order(const int is_wide) {
    return is_wide ? _mm512_set_epi32(15, 14, 7, 6, 13, 12, 5, 4, 11, 10, 3, 2, 9, 8, 1, 0)
                   : _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}
PET_INLINE lanes interleaved(row low, row high, const int i) {
    return i == 0 ? _mm512_unpacklo_epi32(low, high) : _mm512_unpackhi_epi32(low, high);
}

/* ---- arithmetic below an order --------------------------------------------------------------------------------------- */

PET_INLINE lanes load(const uint8_t *bytes) { return _mm512_loadu_si512(bytes); }
PET_INLINE void store(uint8_t *bytes, lanes x) { _mm512_storeu_si512(bytes, x); }
PET_INLINE lanes spread(uint64_t x, const int is_wide) {
    return is_wide ? _mm512_set1_epi64((long long)x) : _mm512_set1_epi32((int)x);
}

/* Of an order: what is missing to the power of two above it. Adding it to a value is raising it: sums then carry where they
 * pass the order. */
typedef struct {
    lanes gap;
} modulus;

PET_INLINE modulus modulus_of(const pet_field *field, const int is_wide) { return (modulus){spread(0 - field->order, is_wide)}; }

PET_INLINE lanes raise(lanes x, const modulus *m, const int is_wide) {
    return is_wide ? _mm512_add_epi64(x, m->gap) : _mm512_add_epi32(x, m->gap);
}

/* a + b mod order, b being raised: four instructions with the raising, which narrow draws have for nothing. */
PET_INLINE lanes plus_raised(lanes a, lanes b, const modulus *m, const int is_wide) {
    if (is_wide) {
        const lanes sum = _mm512_add_epi64(a, b);
        return _mm512_mask_sub_epi64(sum, _mm512_cmpge_epu64_mask(sum, b), sum, m->gap);
    }
    const lanes sum = _mm512_add_epi32(a, b);
    return _mm512_mask_sub_epi32(sum, _mm512_cmpge_epu32_mask(sum, b), sum, m->gap);
}

PET_INLINE lanes minus(lanes a, lanes b, const modulus *m, const int is_wide) {
    if (is_wide) {
        const lanes difference = _mm512_sub_epi64(a, b);
        return _mm512_mask_sub_epi64(difference, _mm512_cmplt_epu64_mask(a, b), difference, m->gap);
    }
    const lanes difference = _mm512_sub_epi32(a, b);
    return _mm512_mask_sub_epi32(difference, _mm512_cmplt_epu32_mask(a, b), difference, m->gap);
}

/* Gather values of which one may be above a limit, and tell. */
PET_INLINE lanes watch(lanes seen, lanes x, lanes limit, const int is_wide) {
    (void)limit;
    return is_wide ? _mm512_max_epu64(seen, x) : _mm512_max_epu32(seen, x);
}
PET_INLINE int was_above(lanes seen, lanes limit, const int is_wide) {
    return is_wide ? _mm512_cmpgt_epu64_mask(seen, limit) != 0 : _mm512_cmpgt_epu32_mask(seen, limit) != 0;
}

/* ---- products -------------------------------------------------------------------------------------------------------- */

PET_INLINE lanes add64(lanes a, lanes b) { return _mm512_add_epi64(a, b); }
PET_INLINE lanes multiply32(lanes a, lanes b) { return _mm512_mul_epu32(a, b); }
PET_INLINE lanes high_half(lanes x) { return _mm512_srli_epi64(x, 32); }
PET_INLINE lanes low_half(lanes x) { return _mm512_and_si512(x, spread(UINT32_MAX, 1)); }
PET_INLINE lanes to_high_half(lanes x) { return _mm512_slli_epi64(x, 32); }
/* The even words of one and the odd words of another. */
PET_INLINE lanes blend_words(lanes even, lanes odd) { return _mm512_mask_mov_epi32(even, 0xaaaa, odd); }
/* 5 * x + 5 for words below 8: what a high word is worth modulo 2^32 - 5, raised. */
PET_INLINE lanes raised_multiples(lanes x) {
    return _mm512_permutexvar_epi32(x, _mm512_castsi256_si512(_mm256_set_epi32(40, 35, 30, 25, 20, 15, 10, 5)));
}

/* a - b and a + b modulo 2^64 - 2^32 + 1, not reduced: what a borrow or a carry leaves is off by 2^32 - 1. */
PET_INLINE lanes subtract_folding(lanes a, lanes b) {
    const lanes difference = _mm512_sub_epi64(a, b);
    return _mm512_mask_sub_epi64(difference, _mm512_cmplt_epu64_mask(a, b), difference, spread(UINT32_MAX, 1));
}
PET_INLINE lanes add_folding(lanes a, lanes b) {
    const lanes sum = _mm512_add_epi64(a, b);
    return _mm512_mask_add_epi64(sum, _mm512_cmplt_epu64_mask(sum, b), sum, spread(UINT32_MAX, 1));
}
PET_INLINE lanes reduce_once(lanes x, const modulus *m) { return _mm512_min_epu64(x, _mm512_add_epi64(x, m->gap)); }

/* ---- doubles ------------------------------------------------------------------------------------------------------------ */

PET_INLINE reals spread_real(double x) { return _mm512_set1_pd(x); }
PET_INLINE reals least_reals(reals a, reals b) { return _mm512_min_pd(a, b); }
PET_INLINE reals most_reals(reals a, reals b) { return _mm512_max_pd(a, b); }
/* a * b + c and c - a * b, rounded once. */
PET_INLINE reals multiply_and_add(reals a, reals b, reals c) { return _mm512_fmadd_pd(a, b, c); }
PET_INLINE reals subtract_product(reals c, reals a, reals b) { return _mm512_fnmadd_pd(a, b, c); }
PET_INLINE reals load_reals(const uint8_t *bytes, const int data_type) {
    return data_type == PET_F32 ? _mm512_cvtps_pd(_mm256_loadu_ps((const float *)bytes)) : _mm512_loadu_pd(bytes);
}
PET_INLINE lanes gather_bits(lanes seen, reals x) { return _mm512_or_si512(seen, _mm512_castpd_si512(x)); }
PET_INLINE int has_bits(lanes seen) { return _mm512_test_epi64_mask(seen, seen) != 0; }
PET_INLINE lanes count_unequal(lanes counts, reals a, reals b) {
    return _mm512_mask_add_epi64(counts, _mm512_cmp_pd_mask(a, b, _CMP_NEQ_UQ), counts, spread(1, 1));
}

/* The integers below doubles that are not negative: up to 2^52 as elements of 8 bytes, up to 2^32 of 4. */
PET_INLINE lanes truncated_wide(reals x) { return _mm512_cvttpd_epu64(x); }
PET_INLINE lanes truncated_narrow(reals x, reals y) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvttpd_epu32(x)), _mm512_cvttpd_epu32(y), 1);
}

/* Half of a vector of narrow elements as doubles. */
PET_INLINE reals narrow_reals(lanes x, const int i) {
    return _mm512_cvtepu32_pd(i == 0 ? _mm512_castsi512_si256(x) : _mm512_extracti64x4_epi64(x, 1));
}
/* x - highest / 2 for wide elements not above it: two exact parts, and a sum that is rounded once. */
PET_INLINE reals wide_half_differences(lanes x, uint64_t highest) {
    const lanes whole = _mm512_sub_epi64(x, spread(highest >> 1, 1)), low = low_half(whole);
    const reals low_part = _mm512_cvtepi64_pd(low) - spread_real(0.5 * (double)(highest & 1));
    return _mm512_cvtepi64_pd(_mm512_sub_epi64(whole, low)) + low_part;
}

enum { STREAMS = 1 };
/* Past the caches, where the address is aligned. */
PET_INLINE void store_reals(uint8_t *bytes, reals x, const int data_type, const int streamed) {
    if (data_type == PET_F32) {
        const __m256 narrow = _mm512_cvtpd_ps(x);
        if (streamed) _mm256_stream_ps((float *)bytes, narrow);
        else _mm256_storeu_ps((float *)bytes, narrow);
    } else if (streamed) {
        _mm512_stream_pd((double *)bytes, x);
    } else {
        _mm512_storeu_pd(bytes, x);
    }
}

#endif
