/* What the kernels of pet-1 need of NEON: eight blocks of keystream as pairs of vectors of 128 bits (neon_rows.h), four elements of 4
 * bytes or two of 8 in a vector, and two doubles. Part of neon_fields.c, included nowhere else; the loops are in field_loops.h. */
#ifndef PET_NEON_FIELDS_H
#define PET_NEON_FIELDS_H

#include "neon_rows.h"

enum { VECTOR_BYTES = 16, ROW_VECTORS = 2 };
typedef uint32x4_t lanes; /* whatever the width of the elements */
typedef float64x2_t reals;

PET_INLINE uint64x2_t to_wide(lanes x) { return vreinterpretq_u64_u32(x); }
PET_INLINE lanes from_wide(uint64x2_t x) { return vreinterpretq_u32_u64(x); }

/* ---- keystream ------------------------------------------------------------------------------------------------------- */

PET_INLINE row least_words(row a, row b) { return (row){vminq_u32(a.first, b.first), vminq_u32(a.second, b.second)}; }
PET_INLINE row most_words(row a, row b) { return (row){vmaxq_u32(a.first, b.first), vmaxq_u32(a.second, b.second)}; }
PET_INLINE int any_not_below(row x, uint32_t limit) { return vmaxvq_u32(vmaxq_u32(x.first, x.second)) >= limit; }
PET_INLINE int any_below(row x, uint32_t limit) { return vminvq_u32(vminq_u32(x.first, x.second)) < limit; }
PET_INLINE lanes row_vector(row x, const int i) { return i == 0 ? x.first : x.second; }

/* The blocks in the lanes; interleaves of two rows are neighbours as they are. */
PET_INLINE row block_order(const int is_wide) { return (void)is_wide, count_up(); }
PET_INLINE lanes interleaved(row low, row high, const int i) {
    const lanes even = row_vector(low, i / 2), odd = row_vector(high, i / 2);
    return i % 2 == 0 ? vzip1q_u32(even, odd) : vzip2q_u32(even, odd);
}

/* ---- arithmetic below an order --------------------------------------------------------------------------------------- */

PET_INLINE lanes load(const uint8_t *bytes) { return vreinterpretq_u32_u8(vld1q_u8(bytes)); }
PET_INLINE void store(uint8_t *bytes, lanes x) { vst1q_u8(bytes, vreinterpretq_u8_u32(x)); }
PET_INLINE lanes spread(uint64_t x, const int is_wide) { return is_wide ? from_wide(vdupq_n_u64(x)) : vdupq_n_u32((uint32_t)x); }

/* Of an order: what it lacks to the power of two above it. Adding it to a value is raising it: sums then carry where they pass
 * the order. */
typedef struct {
    lanes gap;
} modulus;

PET_INLINE modulus modulus_of(const pet_field *field, const int is_wide) { return (modulus){spread(0 - field->order, is_wide)}; }

PET_INLINE lanes sum_of_lanes(lanes a, lanes b, const int is_wide) {
    return is_wide ? from_wide(vaddq_u64(to_wide(a), to_wide(b))) : vaddq_u32(a, b);
}
PET_INLINE lanes difference_of_lanes(lanes a, lanes b, const int is_wide) {
    return is_wide ? from_wide(vsubq_u64(to_wide(a), to_wide(b))) : vsubq_u32(a, b);
}
/* All ones where a < b. */
PET_INLINE lanes below(lanes a, lanes b, const int is_wide) {
    return is_wide ? from_wide(vcltq_u64(to_wide(a), to_wide(b))) : vcltq_u32(a, b);
}

PET_INLINE lanes raise(lanes x, const modulus *m, const int is_wide) { return sum_of_lanes(x, m->gap, is_wide); }

/* a + b mod order, b being raised. */
PET_INLINE lanes plus_raised(lanes a, lanes b, const modulus *m, const int is_wide) {
    const lanes sum = sum_of_lanes(a, b, is_wide);
    return difference_of_lanes(sum, vbicq_u32(m->gap, below(sum, b, is_wide)), is_wide);
}

PET_INLINE lanes minus(lanes a, lanes b, const modulus *m, const int is_wide) {
    return difference_of_lanes(difference_of_lanes(a, b, is_wide), vandq_u32(m->gap, below(a, b, is_wide)), is_wide);
}

/* Gather values of which one may be above a limit, and tell. */
PET_INLINE lanes watch(lanes seen, lanes x, lanes limit, const int is_wide) {
    return vorrq_u32(seen, below(limit, x, is_wide));
}
PET_INLINE int was_above(lanes seen, lanes limit, const int is_wide) { return (void)limit, (void)is_wide, vmaxvq_u32(seen) != 0; }

/* ---- products -------------------------------------------------------------------------------------------------------- */

PET_INLINE lanes add64(lanes a, lanes b) { return sum_of_lanes(a, b, 1); }
PET_INLINE lanes multiply32(lanes a, lanes b) { return from_wide(vmull_u32(vmovn_u64(to_wide(a)), vmovn_u64(to_wide(b)))); }
PET_INLINE lanes high_half(lanes x) { return from_wide(vshrq_n_u64(to_wide(x), 32)); }
PET_INLINE lanes low_half(lanes x) { return vandq_u32(x, spread(UINT32_MAX, 1)); }
PET_INLINE lanes to_high_half(lanes x) { return from_wide(vshlq_n_u64(to_wide(x), 32)); }
/* The even words of one and the odd words of another. */
PET_INLINE lanes blend_words(lanes even, lanes odd) { return vbslq_u32(spread(UINT32_MAX, 1), even, odd); }
/* 5 * x + 5 for words below 8: what a high word is worth modulo 2^32 - 5, raised. */
PET_INLINE lanes raised_multiples(lanes x) { return vmlaq_n_u32(vdupq_n_u32(5), x, 5); }

/* a - b and a + b modulo 2^64 - 2^32 + 1, not reduced: what a borrow or a carry leaves is off by 2^32 - 1. */
PET_INLINE lanes subtract_folding(lanes a, lanes b) {
    return difference_of_lanes(difference_of_lanes(a, b, 1), high_half(below(a, b, 1)), 1);
}
PET_INLINE lanes add_folding(lanes a, lanes b) {
    const lanes sum = add64(a, b);
    return add64(sum, high_half(below(sum, b, 1)));
}
PET_INLINE lanes reduce_once(lanes x, const modulus *m) {
    const lanes reduced = add64(x, m->gap);
    return vbslq_u32(below(reduced, x, 1), reduced, x);
}

/* ---- doubles ------------------------------------------------------------------------------------------------------------ */

PET_INLINE reals spread_real(double x) { return vdupq_n_f64(x); }
PET_INLINE reals least_reals(reals a, reals b) { return vminq_f64(a, b); }
PET_INLINE reals most_reals(reals a, reals b) { return vmaxq_f64(a, b); }
/* a * b + c and c - a * b, rounded once. */
PET_INLINE reals multiply_and_add(reals a, reals b, reals c) { return vfmaq_f64(c, a, b); }
PET_INLINE reals subtract_product(reals c, reals a, reals b) { return vfmsq_f64(c, a, b); }
PET_INLINE reals load_reals(const uint8_t *bytes, const int data_type) {
    return data_type == PET_F32 ? vcvt_f64_f32(vld1_f32((const float *)bytes)) : vld1q_f64((const double *)bytes);
}
PET_INLINE lanes gather_bits(lanes seen, reals x) { return vorrq_u32(seen, vreinterpretq_u32_f64(x)); }
PET_INLINE int has_bits(lanes seen) { return vmaxvq_u32(seen) != 0; }
/* A comparison that holds is - 1. */
PET_INLINE lanes count_unequal(lanes counts, reals a, reals b) {
    return add64(counts, add64(from_wide(vceqq_f64(a, b)), spread(1, 1)));
}

/* The integers below doubles that are not negative: up to 2^52 as elements of 8 bytes, up to 2^32 of 4. */
PET_INLINE lanes truncated_wide(reals x) { return from_wide(vcvtq_u64_f64(x)); }
PET_INLINE lanes truncated_narrow(reals x, reals y) {
    return vcombine_u32(vmovn_u64(vcvtq_u64_f64(x)), vmovn_u64(vcvtq_u64_f64(y)));
}

/* Half of a vector of narrow elements as doubles. */
PET_INLINE reals narrow_reals(lanes x, const int i) {
    return vcvtq_f64_u64(vmovl_u32(i == 0 ? vget_low_u32(x) : vget_high_u32(x)));
}
/* x - highest / 2 for wide elements not above it: two exact parts, and a sum that is rounded once. */
PET_INLINE reals wide_half_differences(lanes x, uint64_t highest) {
    const lanes whole = difference_of_lanes(x, spread(highest >> 1, 1), 1), low = low_half(whole);
    const reals low_part = vcvtq_f64_u64(to_wide(low)) - spread_real(0.5 * (double)(highest & 1));
    return vcvtq_f64_s64(vreinterpretq_s64_u32(difference_of_lanes(whole, low, 1))) + low_part;
}

enum { STREAMS = 0, LINE_BYTES = 64 }; /* no store past the caches */
PET_INLINE void end_streaming(void) {}
PET_INLINE void store_reals(uint8_t *bytes, reals x, const int data_type, const int streamed) {
    (void)streamed;
    if (data_type == PET_F32) vst1_f32((float *)bytes, vcvt_f32_f64(x));
    else vst1q_f64((double *)bytes, x);
}

#endif
