/* Integers of many 64-bit limbs, least significant first, in arrays whose length the caller gives.
 *
 * Everything here runs in time that depends on lengths and shift distances only, except where a comment says otherwise. Nothing
 * here knows an order, a weight or a fraction. */
#ifndef PET_MULTI_LIMB_H
#define PET_MULTI_LIMB_H

#include "internal.h"

typedef unsigned __int128 pet_u128;

/* All ones where the condition is 1, no bits where it is 0. */
static inline uint64_t pet_mask_if(uint64_t condition) { return 0 - condition; }

/* ---- bytes ----------------------------------------------------------------------------------------------------------- */

/* limbs = the integer in `size` bytes; size <= 8 * count. */
static inline void pet_limbs_load(uint64_t *limbs, size_t count, const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < count; i++) {
        uint64_t limb = 0;
        if (8 * i + 8 <= size) {
            limb = pet_load64(bytes + 8 * i);
        } else {
            for (size_t k = 8 * i; k < size; k++) limb |= (uint64_t)bytes[k] << (8 * (k % 8));
        }
        limbs[i] = limb;
    }
}

/* bytes = the low `size` bytes of the integer; size <= 8 * its length. */
static inline void pet_limbs_store(uint8_t *bytes, size_t size, const uint64_t *limbs) {
    size_t k = 0;
    for (; k + 8 <= size; k += 8) pet_store64(bytes + k, limbs[k / 8]);
    for (; k < size; k++) bytes[k] = (uint8_t)(limbs[k / 8] >> (8 * (k % 8)));
}

/* ---- sums ------------------------------------------------------------------------------------------------------------ */

/* out = a + b; the carry. All three may be the same. */
static inline uint64_t pet_limbs_add(uint64_t *out, const uint64_t *a, const uint64_t *b, size_t count) {
    uint64_t carry = 0;
    for (size_t i = 0; i < count; i++) {
        pet_u128 sum = (pet_u128)a[i] + b[i] + carry;
        out[i] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    }
    return carry;
}

/* out = a - b; the borrow. All three may be the same. */
static inline uint64_t pet_limbs_subtract(uint64_t *out, const uint64_t *a, const uint64_t *b, size_t count) {
    uint64_t borrow = 0;
    for (size_t i = 0; i < count; i++) {
        pet_u128 difference = (pet_u128)a[i] - b[i] - borrow;
        out[i] = (uint64_t)difference;
        borrow = (uint64_t)(difference >> 64) & 1;
    }
    return borrow;
}

/* 1 where a < b. */
static inline uint64_t pet_limbs_are_less(const uint64_t *a, const uint64_t *b, size_t count) {
    uint64_t borrow = 0;
    for (size_t i = 0; i < count; i++) borrow = (uint64_t)(((pet_u128)a[i] - b[i] - borrow) >> 64) & 1;
    return borrow;
}

/* a += b where mask is all ones; the carry. */
static inline uint64_t pet_limbs_add_masked(uint64_t *a, const uint64_t *b, uint64_t mask, size_t count) {
    uint64_t carry = 0;
    for (size_t i = 0; i < count; i++) {
        pet_u128 sum = (pet_u128)a[i] + (b[i] & mask) + carry;
        a[i] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    }
    return carry;
}

/* a -= b where a >= b. */
static inline void pet_limbs_subtract_once(uint64_t *a, const uint64_t *b, size_t count) {
    uint64_t mask = pet_mask_if(1 ^ pet_limbs_are_less(a, b, count)), borrow = 0;
    for (size_t i = 0; i < count; i++) {
        pet_u128 difference = (pet_u128)a[i] - (b[i] & mask) - borrow;
        a[i] = (uint64_t)difference;
        borrow = (uint64_t)(difference >> 64) & 1;
    }
}

/* out = mask ? b : a, limb by limb. */
static inline void pet_limbs_select(uint64_t *out, const uint64_t *a, const uint64_t *b, uint64_t mask, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = (a[i] & ~mask) | (b[i] & mask);
}

/* ---- sizes and shifts: for integers that are no secret ------------------------------------------------------------------ */

static inline size_t pet_bits64(uint64_t value) { return value ? 64 - (size_t)__builtin_clzll(value) : 0; }

/* How many limbs are left when leading zeros are dropped. The time tells that number. */
static inline size_t pet_limbs_count(const uint64_t *limbs, size_t count) {
    while (count > 0 && limbs[count - 1] == 0) count--;
    return count;
}

/* The bit length. The time tells the number of limbs. */
static inline size_t pet_limbs_bits(const uint64_t *limbs, size_t count) {
    count = pet_limbs_count(limbs, count);
    return count ? 64 * (count - 1) + pet_bits64(limbs[count - 1]) : 0;
}

/* How many low bits are 0; the integer is not 0. The time tells the number of limbs. */
static inline size_t pet_limbs_twos(const uint64_t *limbs) {
    size_t i = 0;
    while (limbs[i] == 0) i++;
    return 64 * i + (size_t)__builtin_ctzll(limbs[i]);
}

/* out = a * 2^distance, cut to out_count limbs; out may not be a. */
static inline void pet_limbs_shift_left(uint64_t *out, size_t out_count, const uint64_t *a, size_t count, size_t distance) {
    size_t skipped = distance / 64, bits = distance % 64;
    for (size_t i = 0; i < out_count; i++) {
        uint64_t low = i > skipped && i - skipped - 1 < count ? a[i - skipped - 1] : 0;
        uint64_t high = i >= skipped && i - skipped < count ? a[i - skipped] : 0;
        out[i] = high << bits | (bits ? low >> (64 - bits) : 0);
    }
}

/* out = floor(a / 2^distance), cut to out_count limbs; not 0 if a bit was shifted out. out may be a. */
static inline uint64_t pet_limbs_shift_right(uint64_t *out, size_t out_count, const uint64_t *a, size_t count,
                                             size_t distance) {
    size_t skipped = distance / 64, bits = distance % 64;
    uint64_t lost = skipped < count && bits ? a[skipped] << (64 - bits) : 0;
    for (size_t i = 0; i < skipped && i < count; i++) lost |= a[i];
    for (size_t i = 0; i < out_count; i++) {
        uint64_t low = i + skipped < count ? a[i + skipped] : 0;
        uint64_t high = i + skipped + 1 < count ? a[i + skipped + 1] : 0;
        out[i] = low >> bits | (bits ? high << (64 - bits) : 0);
    }
    return lost;
}

/* ---- products and quotients ------------------------------------------------------------------------------------------ */

/* out = a * b; out has a_count + b_count limbs and is neither a nor b. */
static inline void pet_limbs_multiply(uint64_t *out, const uint64_t *a, size_t a_count, const uint64_t *b, size_t b_count) {
    memset(out, 0, a_count * sizeof *out);
    for (size_t k = 0; k < b_count; k++) {
        uint64_t carry = 0;
        for (size_t i = 0; i < a_count; i++) {
            pet_u128 product = (pet_u128)a[i] * b[k] + out[i + k] + carry;
            out[i + k] = (uint64_t)product;
            carry = (uint64_t)(product >> 64);
        }
        out[k + a_count] = carry;
    }
}

/* The reciprocal of a limb whose highest bit is set: floor((2^128 - 1) / divisor) - 2^64. */
static inline uint64_t pet_reciprocal(uint64_t divisor) {
    return (uint64_t)(((pet_u128)~divisor << 64 | UINT64_MAX) / divisor);
}

/* floor((high * 2^64 + low) / divisor), where high < divisor and the divisor's highest bit is set: algorithm 4 of Möller and
 * Granlund, "Improved division by invariant integers" (2011). The two corrections are masks, not branches. */
static inline uint64_t pet_divide_limb(uint64_t high, uint64_t low, uint64_t divisor, uint64_t reciprocal) {
    pet_u128 estimate = (pet_u128)reciprocal * high + ((pet_u128)high << 64 | low);
    uint64_t quotient = (uint64_t)(estimate >> 64) + 1;
    uint64_t remainder = low - quotient * divisor;
    uint64_t is_over = pet_mask_if(remainder > (uint64_t)estimate);
    quotient += is_over;
    remainder += divisor & is_over;
    return quotient + (remainder >= divisor);
}

/* quotient = floor(a / divisor), a = the remainder: long division (Knuth, volume 2, 4.3.1, algorithm D), its corrections as
 * masks. a has quotient_count + count limbs and is below divisor * 2^(64 * quotient_count); the divisor's highest bit is set. */
static inline void pet_limbs_divide(uint64_t *quotient, size_t quotient_count, uint64_t *a, const uint64_t *divisor,
                                    size_t count, uint64_t reciprocal) {
    uint64_t top = divisor[count - 1];
    for (size_t j = quotient_count; j-- > 0;) {
        uint64_t *window = a + j;
        uint64_t is_full = pet_mask_if(window[count] >= top);
        uint64_t digit = pet_divide_limb(window[count] & ~is_full, window[count - 1], top, reciprocal) | is_full;
        uint64_t carry = 0, borrow = 0;
        for (size_t i = 0; i < count; i++) {
            pet_u128 product = (pet_u128)divisor[i] * digit + carry;
            pet_u128 difference = (pet_u128)window[i] - (uint64_t)product - borrow;
            window[i] = (uint64_t)difference;
            borrow = (uint64_t)(difference >> 64) & 1;
            carry = (uint64_t)(product >> 64);
        }
        window[count] -= carry + borrow;
        /* The digit is at most two too large; then the window has gone below 0, which its top limb shows. */
        for (int correction = 0; correction < 2; correction++) {
            uint64_t is_negative = pet_mask_if(window[count] != 0);
            digit += is_negative;
            window[count] += pet_limbs_add_masked(window, divisor, is_negative, count);
        }
        quotient[j] = digit;
    }
}

#endif
