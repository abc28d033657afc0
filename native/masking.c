/* The portable variant, part two: weights become elements, exactly.
 *
 * A weight is taken apart into a mantissa and a power of two and laid into a window of fixed position and width: wide enough
 * that a weight above it is clamped and one below it is less than a step. So the arithmetic is the same for every weight, and
 * the only thing that steers time is the encoding, which says nothing about a weight:
 *
 *     steps = floor(window * multiplier / 2^shift / divisor)
 *
 * where multiplier and divisor are the scale without its powers of two. Whatever is lost in the shift and the division matters
 * only for a negative weight, whose floor is one step further from 0. */
#include <math.h>

#include "portable.h"

enum {
    SCALE_LIMBS = PET_MAX_SCALE_BYTES / 8 + 2,       /* the scale, shifted by up to 63 bits */
    STEP_LIMBS = PET_MAX_ORDER_LIMBS + 3,            /* a clamped weight in steps, or the sum with an element */
    WINDOW_LIMBS = PET_MAX_ORDER_LIMBS + 2,          /* offset plus 55 bits */
    PRODUCT_LIMBS = WINDOW_LIMBS + SCALE_LIMBS,
    DIVIDEND_LIMBS = STEP_LIMBS + SCALE_LIMBS + 1,
};

/* The public part: computed once per call. */
typedef struct {
    int data_type;
    int is_zero;        /* the scale is 0 */
    int is_narrow;      /* everything fits one or two limbs */
    int is_double;      /* a weight and the scale fit one limb, steps and elements two */
    int64_t precision;  /* bits of a mantissa; 0 for integers */
    int64_t alignment;  /* the window's lowest bit stands for 2^-alignment */
    int64_t saturation; /* window 2^saturation: what is certainly clamped counts as this */
    size_t window_limbs, multiplier_limbs, divisor_limbs, quotient_limbs, step_limbs;
    size_t shift;
    uint64_t multiplier[SCALE_LIMBS];
    uint64_t divisor[SCALE_LIMBS]; /* its highest bit set; divisor_limbs is 0 where nothing is divided */
    uint64_t reciprocal;
    /* For is_double, where the divisor's normalisation is a shift of the dividend and not part of the multiplier. */
    uint64_t double_multiplier;
    size_t double_shift, normalisation;
    uint64_t offset[STEP_LIMBS], order[STEP_LIMBS];
} encoder;

/* A weight: (-1)^is_negative * mantissa * 2^(shift - alignment); has_remainder tells that something was cut off. */
typedef struct {
    uint64_t mantissa, is_negative, has_remainder;
    int64_t shift;
} parts;

/* ---- the public part ------------------------------------------------------------------------------------------------- */

/* Choose the window: a weight of at least 2^ceiling is clamped; a float whose lowest bit lies below the window is less than one
 * step, because the window reaches `precision` bits below a step. */
static void place_window(encoder *e, int64_t numerator_bits, int64_t denominator_bits, int64_t offset_bits) {
    int64_t ceiling = offset_bits + 1 + denominator_bits - numerator_bits;
    if (e->precision) {
        e->alignment = e->precision + numerator_bits - denominator_bits;
    } else {
        e->alignment = ceiling < 0 ? -ceiling : 0;
        if (ceiling > 64) ceiling = 64; /* beyond every integer */
    }
    e->saturation = ceiling + e->alignment;
    e->window_limbs = (size_t)e->saturation / 64 + 1;
    if (!e->precision && e->saturation == 64) e->window_limbs = 1; /* 2^64 is never reached */
}

static void prepare_encoder(encoder *e, const pet_encoding *encoding, const pet_order *order, int data_type) {
    static const int64_t precisions[] = {[PET_F32] = 24, [PET_F64] = 53, [PET_I32] = 0, [PET_I64] = 0};
    uint64_t numerator[SCALE_LIMBS], denominator[SCALE_LIMBS];
    memset(e, 0, sizeof *e);
    pet_load_integer(numerator, SCALE_LIMBS, encoding->scale_numerator);
    pet_load_integer(denominator, SCALE_LIMBS, encoding->scale_denominator);
    pet_load_integer(e->offset, STEP_LIMBS, encoding->offset);
    memcpy(e->order, order->limbs, sizeof order->limbs);
    size_t numerator_bits = pet_limbs_bits(numerator, SCALE_LIMBS), denominator_bits = pet_limbs_bits(denominator, SCALE_LIMBS);
    size_t offset_bits = pet_limbs_bits(e->offset, STEP_LIMBS), order_bits = pet_limbs_bits(e->order, STEP_LIMBS);
    e->data_type = data_type;
    e->is_zero = numerator_bits == 0;
    if (e->is_zero) numerator[0] = numerator_bits = 1; /* any number would do: mantissas are set to 0 */
    e->precision = precisions[data_type];
    place_window(e, (int64_t)numerator_bits, (int64_t)denominator_bits, (int64_t)offset_bits);

    size_t numerator_twos = pet_limbs_twos(numerator), denominator_twos = pet_limbs_twos(denominator);
    size_t odd_bits = denominator_bits - denominator_twos;
    size_t normalisation = odd_bits == 1 ? 0 : (64 - odd_bits % 64) % 64;
    int64_t shift = e->alignment + (int64_t)denominator_twos - (int64_t)numerator_twos - (int64_t)normalisation;
    pet_limbs_shift_right(numerator, SCALE_LIMBS, numerator, SCALE_LIMBS, numerator_twos);
    pet_limbs_shift_right(denominator, SCALE_LIMBS, denominator, SCALE_LIMBS, denominator_twos);
    pet_limbs_shift_left(e->multiplier, SCALE_LIMBS, numerator, SCALE_LIMBS, shift < 0 ? (size_t)-shift : 0);
    e->normalisation = normalisation;
    shift += (int64_t)normalisation;
    e->is_double = pet_limbs_bits(numerator, SCALE_LIMBS) + (shift < 0 ? (size_t)-shift : 0) <= 64 && shift < 128;
    e->double_shift = shift < 0 ? 0 : (size_t)shift;
    e->double_multiplier = e->is_double && shift < 0 ? numerator[0] << -shift : numerator[0];
    shift -= (int64_t)normalisation;
    pet_limbs_shift_left(e->divisor, SCALE_LIMBS, denominator, SCALE_LIMBS, normalisation);
    e->shift = shift < 0 ? 0 : (size_t)shift;
    e->multiplier_limbs = pet_limbs_count(e->multiplier, SCALE_LIMBS);
    e->divisor_limbs = odd_bits == 1 ? 0 : pet_limbs_count(e->divisor, SCALE_LIMBS);
    if (e->divisor_limbs) e->reciprocal = pet_reciprocal(e->divisor[e->divisor_limbs - 1]);
    /* The window is at most 2^saturation, so the quotient is below 4 * 2^offset_bits. */
    e->quotient_limbs = (offset_bits + 2) / 64 + 1;
    e->step_limbs = order_bits / 64 + 1 > e->quotient_limbs ? order_bits / 64 + 1 : e->quotient_limbs;
    if (e->step_limbs * 64 < order_bits + 2) e->step_limbs++;
    e->is_narrow = e->window_limbs == 1 && e->multiplier_limbs == 1 && e->divisor_limbs <= 1 && e->step_limbs == 1;
    e->is_narrow = e->is_narrow && e->shift < 128; /* a C shift of the whole product is undefined */
    e->is_double = e->is_double && e->window_limbs == 1 && e->divisor_limbs <= 1 && offset_bits <= 125 && order_bits <= 128;
}

/* ---- one weight ------------------------------------------------------------------------------------------------------ */

static inline parts split_float(const encoder *e, double weight) {
    uint64_t bits;
    memcpy(&bits, &weight, sizeof bits);
    uint64_t exponent = bits >> 52 & 0x7ff, fraction = bits & (UINT64_MAX >> 12);
    uint64_t is_normal = exponent != 0;
    uint64_t mantissa = fraction | is_normal << 52;
    /* Subnormals are brought to full precision, so that the exponent alone tells their size. */
    int64_t missing = __builtin_clzll(mantissa | 1) - 11;
    missing &= (int64_t)pet_mask_if(mantissa != 0);
    parts p;
    p.mantissa = mantissa << missing >> (53 - e->precision);
    p.shift = (int64_t)(exponent | (is_normal ^ 1)) - 1075 - missing + (53 - e->precision) + e->alignment;
    p.is_negative = bits >> 63;
    uint64_t is_below = pet_mask_if(p.shift < 0), is_above = pet_mask_if(p.shift > e->saturation - e->precision);
    is_above &= pet_mask_if(p.mantissa != 0);
    p.has_remainder = (p.mantissa & is_below) != 0;
    p.mantissa = (p.mantissa & ~is_below & ~is_above) | (1 & is_above);
    p.shift = (p.shift & ~(int64_t)is_below & ~(int64_t)is_above) | (e->saturation & (int64_t)is_above);
    return p;
}

static inline parts split_integer(const encoder *e, int64_t weight) {
    uint64_t is_negative = (uint64_t)weight >> 63, magnitude = ((uint64_t)weight ^ pet_mask_if(is_negative)) + is_negative;
    int64_t ceiling = e->saturation - e->alignment;
    uint64_t least_clamped = ceiling <= 0 ? 1 : ceiling < 64 ? (uint64_t)1 << ceiling : UINT64_MAX;
    uint64_t is_above = pet_mask_if(magnitude >= least_clamped);
    parts p = {.is_negative = is_negative, .has_remainder = 0};
    p.mantissa = (magnitude & ~is_above) | (1 & is_above);
    p.shift = e->saturation & (int64_t)is_above; /* below the ceiling alignment is 0, or the weight is */
    return p;
}

static inline parts split(const encoder *e, const void *weights, size_t i) {
    parts p;
    switch (e->data_type) {
    case PET_F32: p = split_float(e, ((const float *)weights)[i]); break;
    case PET_F64: p = split_float(e, ((const double *)weights)[i]); break;
    case PET_I32: p = split_integer(e, ((const int32_t *)weights)[i]); break;
    default: p = split_integer(e, ((const int64_t *)weights)[i]); break;
    }
    if (e->is_zero) p.mantissa = p.has_remainder = 0;
    return p;
}

/* The clamped weight in steps plus offset plus element, modulo the order, in one limb each. */
static inline uint64_t encode_narrow(const encoder *e, parts p, uint64_t element, uint64_t *is_clipped) {
    pet_u128 product = (pet_u128)(p.mantissa << p.shift) * e->multiplier[0];
    pet_u128 shifted = product >> e->shift;
    uint64_t lost = (product ^ shifted << e->shift) != 0, steps = (uint64_t)shifted;
    if (e->divisor_limbs) {
        steps = pet_divide_limb((uint64_t)(shifted >> 64), (uint64_t)shifted, e->divisor[0], e->reciprocal);
        lost |= (uint64_t)shifted != steps * e->divisor[0];
    }
    steps += p.is_negative & (lost | p.has_remainder);
    *is_clipped = steps > e->offset[0];
    steps = (steps & ~pet_mask_if(*is_clipped)) | (e->offset[0] & pet_mask_if(*is_clipped));
    uint64_t sum = e->offset[0] + ((steps ^ pet_mask_if(p.is_negative)) + p.is_negative) + element;
    for (int i = 0; i < 2; i++) sum -= e->order[0] & pet_mask_if(sum >= e->order[0]);
    return sum;
}

/* The same in two limbs each, of which an element may need all bits. */
static inline pet_u128 encode_double(const encoder *e, parts p, pet_u128 element, uint64_t *is_clipped) {
    const pet_u128 offset = (pet_u128)e->offset[1] << 64 | e->offset[0], order = (pet_u128)e->order[1] << 64 | e->order[0];
    pet_u128 product = (pet_u128)(p.mantissa << p.shift) * e->double_multiplier, steps = product >> e->double_shift;
    uint64_t lost = (product ^ steps << e->double_shift) != 0;
    if (e->divisor_limbs) {
        /* What the normalisation shifts out at the top is below 2^63, and so below the divisor. */
        uint64_t divisor = e->divisor[0], top = (uint64_t)(steps >> 64 >> (64 - e->normalisation) % 64);
        top &= pet_mask_if(e->normalisation != 0);
        pet_u128 dividend = steps << e->normalisation;
        uint64_t high = (uint64_t)(dividend >> 64), low = (uint64_t)dividend;
        uint64_t high_quotient = pet_divide_limb(top, high, divisor, e->reciprocal);
        uint64_t quotient = pet_divide_limb(high - high_quotient * divisor, low, divisor, e->reciprocal);
        steps = (pet_u128)high_quotient << 64 | quotient;
        lost |= low != quotient * divisor;
    }
    steps += p.is_negative & (lost | p.has_remainder);
    *is_clipped = steps > offset;
    steps -= (steps - offset) & (0 - (pet_u128)*is_clipped);
    pet_u128 encoded = offset + ((steps ^ (0 - (pet_u128)p.is_negative)) + p.is_negative);
    for (int i = 0; i < 2; i++) encoded -= order & (0 - (pet_u128)(encoded >= order));
    pet_u128 sum = encoded + element;
    return sum - (order & (0 - (pet_u128)((sum < encoded) | (sum >= order))));
}

/* window = mantissa * 2^shift, every limb computed alike. */
static inline void fill_window(uint64_t *window, const encoder *e, parts p) {
    for (size_t i = 0; i < e->window_limbs; i++) {
        int64_t left = p.shift - 64 * (int64_t)i, right = -left;
        uint64_t upwards = p.mantissa << (left & 63) & pet_mask_if((uint64_t)left < 64);
        uint64_t downwards = p.mantissa >> (right & 63) & pet_mask_if((uint64_t)(right - 1) < 63);
        window[i] = upwards | downwards;
    }
}

/* The magnitude of the weight in steps, rounded away from 0 where it is negative. */
static inline void count_steps(uint64_t *steps, const encoder *e, parts p) {
    uint64_t window[WINDOW_LIMBS], product[PRODUCT_LIMBS], dividend[DIVIDEND_LIMBS];
    size_t dividend_limbs = e->quotient_limbs + e->divisor_limbs;
    fill_window(window, e, p);
    pet_limbs_multiply(product, window, e->window_limbs, e->multiplier, e->multiplier_limbs);
    uint64_t lost = pet_limbs_shift_right(dividend, dividend_limbs, product, e->window_limbs + e->multiplier_limbs, e->shift);
    memset(steps, 0, e->step_limbs * sizeof *steps);
    if (e->divisor_limbs) {
        pet_limbs_divide(steps, e->quotient_limbs, dividend, e->divisor, e->divisor_limbs, e->reciprocal);
        for (size_t i = 0; i < e->divisor_limbs; i++) lost |= dividend[i];
    } else {
        memcpy(steps, dividend, e->quotient_limbs * sizeof *steps);
    }
    uint64_t carry = p.is_negative & ((lost != 0) | p.has_remainder);
    for (size_t i = 0; i < e->step_limbs; i++) {
        steps[i] += carry;
        carry &= steps[i] == 0;
    }
}

/* What encode_narrow does, in step_limbs limbs; sum holds the element on entry and the result on return. */
static void encode_wide(const encoder *e, parts p, uint64_t *sum, uint64_t *is_clipped) {
    uint64_t steps[STEP_LIMBS], difference[STEP_LIMBS];
    count_steps(steps, e, p);
    *is_clipped = pet_limbs_are_less(e->offset, steps, e->step_limbs);
    pet_limbs_select(steps, steps, e->offset, pet_mask_if(*is_clipped), e->step_limbs);
    pet_limbs_subtract(difference, e->offset, steps, e->step_limbs);
    pet_limbs_add(steps, e->offset, steps, e->step_limbs);
    pet_limbs_select(steps, steps, difference, pet_mask_if(p.is_negative), e->step_limbs);
    pet_limbs_add(sum, sum, steps, e->step_limbs);
    for (int i = 0; i < 2; i++) pet_limbs_subtract_once(sum, e->order, e->step_limbs);
}

/* ---- kernels ------------------------------------------------------------------------------------------------------- */

/* The index of the first weight that is NaN or infinite, or length. */
static size_t find_not_finite(const void *weights, int data_type, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (data_type == PET_F32 && !isfinite(((const float *)weights)[i])) return i;
        if (data_type == PET_F64 && !isfinite(((const double *)weights)[i])) return i;
    }
    return length;
}

/* Encode weights and add them to elements; returns how many were clamped. masked and elements may be the same. */
static uint64_t encode_all(const encoder *e, uint8_t *masked, const void *weights, size_t length, const uint8_t *elements,
                           size_t element_bytes) {
    uint64_t clipped_count = 0, is_clipped;
    for (size_t i = 0; i < length; i++) {
        const uint8_t *element = elements + i * element_bytes;
        if (e->is_narrow) {
            uint64_t sum = encode_narrow(e, split(e, weights, i), pet_load_narrow(element, element_bytes), &is_clipped);
            pet_store_narrow(masked + i * element_bytes, element_bytes, sum);
        } else if (e->is_double) {
            uint64_t limbs[2];
            pet_limbs_load(limbs, 2, element, element_bytes);
            pet_u128 sum = encode_double(e, split(e, weights, i), (pet_u128)limbs[1] << 64 | limbs[0], &is_clipped);
            limbs[0] = (uint64_t)sum;
            limbs[1] = (uint64_t)(sum >> 64);
            pet_limbs_store(masked + i * element_bytes, element_bytes, limbs);
        } else {
            uint64_t sum[STEP_LIMBS];
            pet_limbs_load(sum, e->step_limbs, element, element_bytes);
            encode_wide(e, split(e, weights, i), sum, &is_clipped);
            pet_limbs_store(masked + i * element_bytes, element_bytes, sum);
        }
        clipped_count += is_clipped;
    }
    return clipped_count;
}

int pet_mask_weights_portable(uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *elements,
                              const pet_order *order, const pet_encoding *encoding, uint64_t *clipped_count,
                              size_t *bad_index) {
    size_t not_finite = find_not_finite(weights, data_type, length);
    if (not_finite != length) {
        *bad_index = not_finite;
        return PET_NOT_FINITE;
    }
    encoder e;
    prepare_encoder(&e, encoding, order, data_type);
    *clipped_count = encode_all(&e, masked, weights, length, elements, order->element_bytes);
    return PET_OK;
}

int pet_update_portable(uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *seed,
                        uint64_t *position, const pet_order *order, const pet_encoding *encoding, uint64_t *clipped_count,
                        size_t *bad_index) {
    size_t not_finite = find_not_finite(weights, data_type, length);
    if (not_finite != length) {
        *bad_index = not_finite;
        return PET_NOT_FINITE;
    }
    enum { PIECE = 1024 }; /* elements: the mask of one piece is still in cache when the weights are added */
    size_t weight_bytes = data_type == PET_F32 || data_type == PET_I32 ? 4 : 8;
    encoder e;
    prepare_encoder(&e, encoding, order, data_type);
    *clipped_count = 0;
    for (size_t begin = 0; begin < length; begin += PIECE) {
        size_t piece_length = length - begin < PIECE ? length - begin : PIECE;
        uint8_t *piece = masked + begin * order->element_bytes;
        pet_expand_portable(piece, piece_length, seed, position, order);
        *clipped_count += encode_all(&e, piece, (const uint8_t *)weights + begin * weight_bytes, piece_length, piece,
                                     order->element_bytes);
    }
    return PET_OK;
}
