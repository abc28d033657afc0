/* What the kernels of pet-1 need of AVX2: eight blocks of keystream as vectors of 256 bits (avx2_rows.h), eight elements of 4 bytes
 * or four of 8 in a vector, and four doubles. Part of avx2_fields.c, included nowhere else; the loops are in field_loops.h.
 *
 * AVX2 compares signed numbers only, and has a maximum of unsigned ones for 32 bits but none for 64: wide elements are compared
 * with 2^63 added to both sides. */
#ifndef PET_AVX2_FIELDS_H
#define PET_AVX2_FIELDS_H

#include "avx2_rows.h"
#include "streaming.h"

enum { VECTOR_BYTES = 32, ROW_VECTORS = 1 };
typedef __m256i lanes;
typedef __m256d reals;

/* ---- keystream ------------------------------------------------------------------------------------------------------- */

PET_INLINE row least_words(row a, row b) { return _mm256_min_epu32(a, b); }
PET_INLINE row most_words(row a, row b) { return _mm256_max_epu32(a, b); }
PET_INLINE int any_not_below(row x, uint32_t limit) {
    return _mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_max_epu32(x, spread32(limit)), x)) != 0;
}
PET_INLINE int any_below(row x, uint32_t limit) {
    return _mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_min_epu32(x, spread32(limit - 1)), x)) != 0;
}
PET_INLINE lanes row_vector(row x, const int i) { return (void)i, x; }

/* The blocks in the lanes: with elements of two words so that the interleaves of two rows are neighbours. */
PET_INLINE row block_order(const int is_wide) {
    return is_wide ? _mm256_set_epi32(7, 6, 3, 2, 5, 4, 1, 0) : _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
}
PET_INLINE lanes interleaved(row low, row high, const int i) {
    return i == 0 ? _mm256_unpacklo_epi32(low, high) : _mm256_unpackhi_epi32(low, high);
}

/* ---- arithmetic below an order --------------------------------------------------------------------------------------- */

PET_INLINE lanes load(const uint8_t *bytes) { return _mm256_loadu_si256((const __m256i *)bytes); }
PET_INLINE void store(uint8_t *bytes, lanes x) { _mm256_storeu_si256((__m256i *)bytes, x); }
PET_INLINE lanes spread(uint64_t x, const int is_wide) { return is_wide ? spread64(x) : spread32((uint32_t)x); }

/* Of an order: what it lacks to the power of two above it, and what is added to raise a value by that: for wide elements with
 * 2^63, which `lower` takes away from a sum together with the raising. */
typedef struct {
    lanes gap, raise, lower;
} modulus;

PET_INLINE modulus modulus_of(const pet_field *field, const int is_wide) {
    const uint64_t gap = 0 - field->order, sign = is_wide ? UINT64_C(1) << 63 : 0;
    return (modulus){spread(gap, is_wide), spread(gap + sign, is_wide), spread(sign - gap, is_wide)};
}

PET_INLINE lanes raise(lanes x, const modulus *m, const int is_wide) {
    return is_wide ? _mm256_add_epi64(x, m->raise) : _mm256_add_epi32(x, m->raise);
}

/* a + b mod order, b being raised: a sum that carries has passed the order; the raising is taken out of any other. */
PET_INLINE lanes plus_raised(lanes a, lanes b, const modulus *m, const int is_wide) {
    if (is_wide) {
        const lanes sum = _mm256_add_epi64(a, b), carried = _mm256_cmpgt_epi64(b, sum);
        return _mm256_add_epi64(_mm256_add_epi64(sum, m->lower), _mm256_and_si256(carried, m->gap));
    }
    const lanes sum = _mm256_add_epi32(a, b), stayed = _mm256_cmpeq_epi32(_mm256_max_epu32(sum, b), sum);
    return _mm256_sub_epi32(sum, _mm256_and_si256(stayed, m->gap));
}

PET_INLINE lanes minus(lanes a, lanes b, const modulus *m, const int is_wide) {
    if (is_wide) {
        const lanes difference = _mm256_sub_epi64(a, b);
        return _mm256_sub_epi64(difference, _mm256_and_si256(below64(a, b), m->gap));
    }
    const lanes difference = _mm256_sub_epi32(a, b), stayed = _mm256_cmpeq_epi32(_mm256_max_epu32(a, b), a);
    return _mm256_sub_epi32(difference, _mm256_andnot_si256(stayed, m->gap));
}

/* Gather values of which one may be above a limit, and tell: the greatest of narrow ones, and for wide ones whether there was
 * one. */
PET_INLINE lanes watch(lanes seen, lanes x, lanes limit, const int is_wide) {
    return is_wide ? _mm256_or_si256(seen, below64(limit, x)) : _mm256_max_epu32(seen, x);
}
PET_INLINE int was_above(lanes seen, lanes limit, const int is_wide) {
    if (is_wide) return _mm256_movemask_epi8(seen) != 0;
    return _mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_max_epu32(seen, limit), limit)) != -1;
}

/* ---- products -------------------------------------------------------------------------------------------------------- */

PET_INLINE lanes low_half(lanes x) { return _mm256_blend_epi32(x, _mm256_setzero_si256(), 0xaa); }
/* The even words of one and the odd words of another. */
PET_INLINE lanes blend_words(lanes even, lanes odd) { return _mm256_blend_epi32(even, odd, 0xaa); }
/* 5 * x + 5 for words below 8: what a high word is worth modulo 2^32 - 5, raised. */
PET_INLINE lanes raised_multiples(lanes x) {
    return _mm256_permutevar8x32_epi32(_mm256_set_epi32(40, 35, 30, 25, 20, 15, 10, 5), x);
}

/* a - b and a + b modulo 2^64 - 2^32 + 1, not reduced: what a borrow or a carry leaves is off by 2^32 - 1, and a comparison
 * that holds is that number in its low half and as much in its high one. */
PET_INLINE lanes subtract_folding(lanes a, lanes b) {
    return _mm256_sub_epi64(_mm256_sub_epi64(a, b), high_half(below64(a, b)));
}
PET_INLINE lanes add_folding(lanes a, lanes b) {
    const lanes sum = _mm256_add_epi64(a, b);
    return _mm256_add_epi64(sum, high_half(below64(sum, b)));
}
PET_INLINE lanes reduce_once(lanes x, const modulus *m) {
    const lanes reduced = _mm256_add_epi64(x, m->gap);
    return _mm256_blendv_epi8(x, reduced, below64(reduced, x));
}

/* ---- doubles ------------------------------------------------------------------------------------------------------------ */

PET_INLINE reals spread_real(double x) { return _mm256_set1_pd(x); }
PET_INLINE reals least_reals(reals a, reals b) { return _mm256_min_pd(a, b); }
PET_INLINE reals most_reals(reals a, reals b) { return _mm256_max_pd(a, b); }
/* a * b + c and c - a * b, rounded once. */
PET_INLINE reals multiply_and_add(reals a, reals b, reals c) { return _mm256_fmadd_pd(a, b, c); }
PET_INLINE reals subtract_product(reals c, reals a, reals b) { return _mm256_fnmadd_pd(a, b, c); }
PET_INLINE reals load_reals(const uint8_t *bytes, const int data_type) {
    return data_type == PET_F32 ? _mm256_cvtps_pd(_mm_loadu_ps((const float *)bytes)) : _mm256_loadu_pd((const double *)bytes);
}
PET_INLINE lanes gather_bits(lanes seen, reals x) { return _mm256_or_si256(seen, _mm256_castpd_si256(x)); }
PET_INLINE int has_bits(lanes seen) { return !_mm256_testz_si256(seen, seen); }
PET_INLINE lanes count_unequal(lanes counts, reals a, reals b) {
    return _mm256_sub_epi64(counts, _mm256_castpd_si256(_mm256_cmp_pd(a, b, _CMP_NEQ_UQ)));
}

/* The integers below doubles that are not negative, up to 2^52: with 2^52 added they are the bits above those of 2^52. */
PET_INLINE lanes truncated_wide(reals x) {
    const reals whole = _mm256_round_pd(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC), base = spread_real(0x1p52);
    return _mm256_sub_epi64(_mm256_castpd_si256(whole + base), _mm256_castpd_si256(base));
}
PET_INLINE lanes truncated_narrow(reals x, reals y) {
    const __m256 low_words = _mm256_shuffle_ps(_mm256_castsi256_ps(truncated_wide(x)), _mm256_castsi256_ps(truncated_wide(y)),
                                               _MM_SHUFFLE(2, 0, 2, 0));
    return _mm256_permute4x64_epi64(_mm256_castps_si256(low_words), _MM_SHUFFLE(3, 1, 2, 0));
}

/* Half of a vector of narrow elements as doubles: below 2^52 they are the bits to set in a double of that size. */
PET_INLINE reals narrow_reals(lanes x, const int i) {
    const lanes wide = _mm256_cvtepu32_epi64(i == 0 ? _mm256_castsi256_si128(x) : _mm256_extracti128_si256(x, 1));
    const reals base = spread_real(0x1p52);
    return _mm256_castsi256_pd(_mm256_or_si256(wide, _mm256_castpd_si256(base))) - base;
}
/* x - highest / 2 for wide elements not above it: two exact parts, and a sum that is rounded once. With 2^63 added the high
 * words are the bits to set in a double of 2^84. */
PET_INLINE reals wide_half_differences(lanes x, uint64_t highest) {
    const lanes whole = _mm256_sub_epi64(x, spread64((highest >> 1) - (UINT64_C(1) << 63)));
    const reals base = spread_real(0x1p52), high_base = spread_real(0x1p84);
    const reals low = _mm256_castsi256_pd(_mm256_blend_epi32(whole, _mm256_castpd_si256(base), 0xaa)) - base;
    const reals high = _mm256_castsi256_pd(_mm256_or_si256(high_half(whole), _mm256_castpd_si256(high_base)));
    return (high - spread_real(0x1p84 + 0x1p63)) + (low - spread_real(0.5 * (double)(highest & 1)));
}

enum { STREAMS = 1 };
/* Past the caches, where the address is aligned. */
PET_INLINE void store_reals(uint8_t *bytes, reals x, const int data_type, const int streamed) {
    if (data_type == PET_F32) {
        const __m128 narrow = _mm256_cvtpd_ps(x);
        if (streamed) _mm_stream_ps((float *)bytes, narrow);
        else _mm_storeu_ps((float *)bytes, narrow);
    } else if (streamed) {
        _mm256_stream_pd((double *)bytes, x);
    } else {
        _mm256_storeu_pd((double *)bytes, x);
    }
}

#endif
