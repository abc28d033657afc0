/* The contract of pet's kernels: what each computes, what must hold on entry, what each error code means.
 *
 * Kernels know arrays, lengths and an order. They never know a mask config, a message or a phase, and they work for any
 * order, those of xaynet's 240 configs and others.
 *
 * Words used below
 *   element    an integer in [0, order)
 *   packed     elements as on the wire: each in element_bytes little-endian bytes, where element_bytes is what order - 1
 *              needs; no padding between them. A packed vector may start at any address.
 *   total      a running sum of vectors. Not packed: plane p holds bits 64p to 64p + 63 of every element as uint64_t, and
 *              plane p of element i is total[p * plane_stride + i]. There are as many planes as 2 * (order - 1) needs, so
 *              one more element can always be added. plane_stride >= length, so a range of a total is a total.
 *   reduced    every value of a total is below order. A total may also hold unreduced sums, up to the capacity of its
 *              planes: the caller counts (pet_capacity) and calls pet_reduce in time.
 *   position   how many 32-bit words of the keystream of a seed are used up. Kernels that draw take it in and give it back,
 *              so a vector can be drawn in pieces.
 *   order      little-endian, order_bytes long, the top byte not 0; that is the number of bytes one draw takes.
 *
 * Every other multi-byte integer argument (pet_integer) is little-endian and unsigned; leading zero bytes and length 0 (the
 * number 0) are allowed.
 *
 * Rules that hold everywhere
 *   - No allocation, no I/O, no global but the cache of the CPU's features. Re-entrant; buffers of one call are not touched
 *     by another thread during the call.
 *   - Buffers do not overlap unless it says so. No alignment is asked of uint8_t buffers; uint64_t and model buffers are
 *     aligned as their type.
 *   - On any error every output is as it was on entry, but for outputs that a single pass over the data writes while it checks:
 *     masked or elements after PET_NOT_FINITE (pet_mask_weights, pet_field_encode), model after PET_OUT_OF_RANGE (pet_unmask,
 *     pet_field_decode). Their contents are then undefined (and the elements are lost where masked was the same buffer).
 *   - Secret values steer no branch and no index, with two exceptions, marked where they happen: whether a draw is rejected
 *     (part of the specification, and independent of the accepted value), and the correction of a rounding in masking.
 *
 * Every kernel takes the variant to run as its first argument: PET_VARIANT_BEST, or one of the others, for tests and
 * benchmarks. A variant without code of its own for an order hands the work to the portable one (pet_variant_covers tells).
 */
#ifndef PET_KERNELS_H
#define PET_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* The cffi build reads what stands between the two markers. */
/* cffi: begin */

enum pet_status {
    PET_OK = 0,
    PET_BAD_VARIANT = 1,      /* the variant is unknown or cannot run on this machine */
    PET_BAD_ORDER = 2,        /* order below 2, its top byte 0, or longer than PET_MAX_ORDER_BYTES */
    PET_BAD_ARGUMENT = 3,     /* an integer argument outside its stated range, or an unknown data type */
    PET_INVALID_ELEMENT = 4,  /* an element of a packed vector is not below the order */
    PET_NOT_FINITE = 5,       /* a weight is NaN or infinite */
    PET_OUT_OF_RANGE = 6,     /* an unmasked value lies outside the bounds given in pet_decoding */
    PET_BUFFER_TOO_SMALL = 7, /* not even one record fits the output */
    PET_MALFORMED = 8,        /* bytes that are not the encoding they should be */
};

enum pet_variant { PET_VARIANT_BEST = 0, PET_VARIANT_PORTABLE = 1, PET_VARIANT_AVX2 = 2, PET_VARIANT_AVX512 = 3, PET_VARIANT_NEON = 4 };

enum pet_data_type { PET_F32 = 0, PET_F64 = 1, PET_I32 = 2, PET_I64 = 3 };

/* Bounds: widest order of the 240 configs is 268 bytes; the others follow from f64 scalars (2^-1074) and 10^324 steps. */
enum { PET_SEED_BYTES = 32, PET_MAX_ORDER_BYTES = 272, PET_MAX_SCALE_BYTES = 432, PET_MAX_RATIO_BYTES = 432 };

typedef struct {
    const uint8_t *bytes;
    size_t size;
} pet_integer;

/* How a weight becomes an element: floor(weight * scale_numerator / scale_denominator), clamped to [-offset, offset],
 * plus offset. In the words of the specification (3.4) the scale is scalar * E and the offset is A * E, both exact.
 * 2 * offset < order unless the group is one of those that xaynet made a hair too small (spec 2.4); the sum with the mask is
 * taken modulo the order in any case. scale_numerator, scale_denominator: at most PET_MAX_SCALE_BYTES; the denominator
 * is not 0. offset: at most PET_MAX_ORDER_BYTES. */
typedef struct {
    pet_integer order, offset, scale_numerator, scale_denominator;
} pet_encoding;

/* How a difference d (an element: total - mask) becomes a weight: (d - offset) * numerator / denominator. lowest and highest
 * bound d; outside lies PET_OUT_OF_RANGE. A value inside them but beyond the data type becomes the nearest finite value.
 * numerator, denominator: at most PET_MAX_RATIO_BYTES, neither is 0. offset (scalars' share, n * A * E) may exceed the
 * order; at most PET_MAX_RATIO_BYTES. lowest and highest: at most PET_MAX_ORDER_BYTES. */
typedef struct {
    pet_integer order, offset, numerator, denominator, lowest, highest;
} pet_decoding;

/* ---- which variant runs -------------------------------------------------------------------------------------------- */

/* The name ("portable", "avx2", "avx512", "neon") of a variant that is compiled in and can run on this machine, or NULL.
 * PET_VARIANT_BEST gives the name of the variant that it stands for. */
const char *pet_variant_name(int variant);

/* 1 where the variant has code of its own for drawing below this order, 0 where portable code does the work. */
int pet_variant_covers(int variant, const uint8_t *order, size_t order_bytes);

/* ---- sizes --------------------------------------------------------------------------------------------------------- */

size_t pet_element_bytes(const uint8_t *order, size_t order_bytes); /* 0 for a bad order */
size_t pet_planes(const uint8_t *order, size_t order_bytes);        /* 0 for a bad order */

/* How many values below the order the planes of a total can hold the sum of: floor((2^(64 * planes) - 1) / (order - 1)),
 * or UINT32_MAX if that is less. 0 for a bad order. */
uint64_t pet_capacity(const uint8_t *order, size_t order_bytes);

/* ---- drawing ------------------------------------------------------------------------------------------------------- */

/* elements[i] = the next draw below order, for 0 <= i < length; packed.
 *
 * The keystream is ChaCha20 with the seed as key, nonce 0 and a 64-bit block counter from 0 (spec 3.1). One attempt takes the
 * next ceil(order_bytes / 4) words; the first order_bytes bytes of them are the value and the rest is dropped; a value that is
 * not below order is rejected and the next attempt made.
 *
 * Time depends on which draws are rejected, not on the elements. */
int pet_expand(int variant, uint8_t *elements, size_t length, const uint8_t *seed, uint64_t *position,
               const uint8_t *order, size_t order_bytes);

/* total[i] = (total[i] + sum over k of the next draw of seed k) mod order. No mask is stored: the work goes piece by piece,
 * each small enough for the cache. seeds: seed_count x 32 bytes; positions: seed_count, each taken and given back.
 * On entry the total is reduced; on return it is. */
int pet_sum_masks(int variant, uint64_t *total, size_t plane_stride, size_t length, const uint8_t *seeds, size_t seed_count,
                  uint64_t *positions, const uint8_t *order, size_t order_bytes);

/* ---- masking ------------------------------------------------------------------------------------------------------- */

/* masked[i] = (encode(weights[i]) + elements[i]) mod order, with encode as described at pet_encoding. weights: length values of
 * data_type. masked and elements are packed and may be the same buffer. clipped_count: set to the number of weights that
 * the clamp changed. PET_NOT_FINITE: bad_index is set to the first weight that is NaN or infinite; masked is undefined. */
int pet_mask_weights(int variant, uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *elements,
                     const pet_encoding *encoding, uint64_t *clipped_count, size_t *bad_index);

/* pet_expand and pet_mask_weights in one pass: masked[i] = (encode(weights[i]) + next draw) mod order. */
int pet_update(int variant, uint8_t *masked, const void *weights, int data_type, size_t length, const uint8_t *seed,
               uint64_t *position, const pet_encoding *encoding, uint64_t *clipped_count, size_t *bad_index);

/* ---- totals -------------------------------------------------------------------------------------------------------- */

/* The index of the first element that is not below order, or length. */
size_t pet_find_invalid(int variant, const uint8_t *elements, size_t length, const uint8_t *order, size_t order_bytes);

/* total[i] += vectors[0][i] + ... + vectors[vector_count - 1][i], unreduced: the caller keeps the capacity of the planes.
 * Every element is checked; PET_INVALID_ELEMENT leaves the total as it was and sets bad_vector to the first vector that
 * holds an invalid element. */
int pet_aggregate(int variant, uint64_t *total, size_t plane_stride, size_t length, const uint8_t *const *vectors,
                  size_t vector_count, const uint8_t *order, size_t order_bytes, size_t *bad_vector);

/* total[i] = (total[i] - elements[i]) mod order. On entry the total is reduced; on return it is. */
int pet_subtract(int variant, uint64_t *total, size_t plane_stride, size_t length, const uint8_t *elements,
                 const uint8_t *order, size_t order_bytes);

/* total[i] = total[i] mod order. On entry every value is below bound * order; 1 <= bound <= pet_capacity. */
int pet_reduce(int variant, uint64_t *total, size_t plane_stride, size_t length, uint64_t bound, const uint8_t *order,
               size_t order_bytes);

/* elements = total, packed. On entry the total is reduced. */
int pet_pack(int variant, uint8_t *elements, const uint64_t *total, size_t plane_stride, size_t length, const uint8_t *order,
             size_t order_bytes);

/* ---- unmasking ----------------------------------------------------------------------------------------------------- */

/* elements[i] = (total[i] - mask[i]) mod order, packed. On entry the total is reduced and the mask valid. */
int pet_unmask_elements(int variant, uint8_t *elements, const uint64_t *total, size_t plane_stride, const uint8_t *mask,
                        size_t length, const uint8_t *order, size_t order_bytes);

/* model[i] = the weight of ((total[i] - mask[i]) mod order), with the weight as described at pet_decoding.
 * On entry the total is reduced and the mask valid. model: length values of data_type. Floating-point results are within
 * one unit in the last place of the exact fraction (two for f64); integers are the exact fraction truncated towards zero.
 * PET_OUT_OF_RANGE: bad_index is set to the first element outside [lowest, highest]; model is undefined. */
int pet_unmask(int variant, void *model, int data_type, const uint64_t *total, size_t plane_stride, const uint8_t *mask,
               size_t length, const pet_decoding *decoding, size_t *bad_index);

/* ---- fractions: the bincode of a global model (spec 5.6), without its count ------------------------------------------ */

/* Write the weights of as many differences as fit, each as a fraction in lowest terms. used: set to the number of bytes
 * written, done: to the number of elements. lowest and highest are ignored. PET_BUFFER_TOO_SMALL if length > 0 and not even
 * one fits. */
int pet_encode_fractions(int variant, uint8_t *output, size_t capacity, size_t *used, size_t *done, const uint8_t *elements,
                         size_t length, const pet_decoding *decoding);

/* The same for finite floats, each as its exact dyadic fraction in lowest terms. values: PET_F32 or PET_F64.
 * PET_NOT_FINITE: bad_index is set to the first that is NaN or infinite, and nothing is written. */
int pet_encode_floats(int variant, uint8_t *output, size_t capacity, size_t *used, size_t *done, const void *values,
                      int data_type, size_t length, size_t *bad_index);

/* Read length fractions, as above but not necessarily in lowest terms, into model. used: set to the number of bytes read.
 * Accuracy as pet_unmask. A value beyond the data type by no more than 2^-20 of its range (|value| <= |limit| * (1 + 2^-20), limit
 * being the type's least or greatest value), as the masking error can cause, becomes the nearest value of the type; one farther outside:
 * PET_OUT_OF_RANGE. A sign outside {-1, 0, 1}, a sign that contradicts the
 * magnitude, a leading zero limb, a denominator that is not positive, more than PET_MAX_FRACTION_LIMBS limbs, or a record that
 * does not fit size: PET_MALFORMED. Both set bad_index. */
enum { PET_MAX_FRACTION_LIMBS = 1024 };
int pet_decode_fractions(int variant, void *model, int data_type, size_t length, const uint8_t *input, size_t size,
                         size_t *used, size_t *bad_index);

/* ---- the derivation pet-1 (docs/spec/profile.md) --------------------------------------------------------------------- */

/* A vector of pet-1 is packed and always valid: elements of 4 bytes below an order of 32 bits, or of 8 below one of 64. A sum of
 * vectors is a vector. Where something multiplies, the order is one of the two primes 2^32 - 5 and 2^64 - 2^32 + 1. An order
 * outside is PET_BAD_ORDER. */

/* vector[i] = (vector[i] + factor * sum over k of element first + i of the expansion of key k) mod order. No expansion is
 * stored. keys: key_count x 32 bytes. first + length <= 2^32. factor below the order; other than 1 for the primes only. */
int pet_field_expand_add(int variant, uint8_t *vector, uint64_t first, size_t length, const uint8_t *keys, size_t key_count,
                         uint64_t factor, uint64_t order);

/* elements[i] = the weight in fixed point: every operation is one of binary64, rounded once (docs/spec/profile.md 4.1).
 * data_type: PET_F32 or PET_F64. 0 <= scalar <= 1, 0 < bound <= 2^1000, 1 <= levels <= 2^52 and below the order.
 * elements may be the memory of the weights, where both have the same size.
 * PET_NOT_FINITE: bad_index is set to the first weight that is NaN or infinite; elements is undefined. Where it was the weights'
 * memory they are lost, and bad_index is any number up to length. */
int pet_field_encode(int variant, uint8_t *elements, const void *weights, int data_type, size_t length, double scalar,
                     double bound, uint64_t levels, uint64_t order, uint64_t *clipped_count, size_t *bad_index);

/* model[i] = bound * (2 * elements[i] - highest) / unit: the difference exact, one product and one quotient of binary64, then
 * rounded to the data type. PET_OUT_OF_RANGE: bad_index is set to the first element above highest; model is undefined. */
int pet_field_decode(int variant, void *model, int data_type, const uint8_t *elements, size_t length, double bound,
                     uint64_t highest, double unit, uint64_t order, size_t *bad_index);

/* total[i] = (total[i] +- vector[i]) mod order. The vector is checked: PET_INVALID_ELEMENT leaves the total as it was and sets
 * bad_index to the first element that is not below the order. */
int pet_field_add(int variant, uint8_t *total, const uint8_t *vector, size_t length, uint64_t order, size_t *bad_index);
int pet_field_subtract(int variant, uint8_t *total, const uint8_t *vector, size_t length, uint64_t order, size_t *bad_index);

/* total[i] = (total[i] + factor * vector[i]) mod order, for the two primes; factor below the order. */
int pet_field_multiply_add(int variant, uint8_t *total, const uint8_t *vector, size_t length, uint64_t factor, uint64_t order);

/* result = (result + the inner product of two vectors) mod order, for the two primes; result below the order. */
int pet_field_dot(int variant, uint64_t *result, const uint8_t *left, const uint8_t *right, size_t length, uint64_t order);

/* The index of the first element above `highest`, or length. */
size_t pet_field_find_above(int variant, const uint8_t *elements, size_t length, uint64_t highest, uint64_t order);

/* ---- digests and checksums ------------------------------------------------------------------------------------------- */

/* What libraries compute as well, where a processor has instructions with which it is faster; PET_BAD_VARIANT elsewhere. No
 * variant is chosen. */

enum { PET_DIGEST_BYTES = 32, PET_HEAD_BYTES = 64 };

/* digests[k] = SHA-256(head k || part k): count heads of PET_HEAD_BYTES, and as many parts of part_bytes, one behind the other.
 * part_bytes: a multiple of 64 and not 0, else PET_BAD_ARGUMENT. */
int pet_digest_parts(uint8_t *digests, const uint8_t *heads, const uint8_t *data, size_t count, size_t part_bytes);

/* crc = the CRC-32 (that of zlib) of what it stands for so far, 0 for nothing, and of data. size: a multiple of 16, 64 or more, else
 * PET_BAD_ARGUMENT. */
int pet_crc32(uint32_t *crc, const uint8_t *data, size_t size);

/* ---- calls of another library, many at a time ------------------------------------------------------------------------ */

/* Python gives its lock away, and waits to have it back, once for many calls. What a box or a signature is worth is decided by
 * libsodium alone, whose functions the caller brings: crypto_box_seal_open and crypto_sign_open, with their types. */
typedef int (*pet_box_open)(unsigned char *, unsigned char *, unsigned long long, unsigned char *, unsigned char *);
typedef int (*pet_sign_open)(unsigned char *, unsigned long long *, unsigned char *, unsigned long long, unsigned char *);

enum { PET_SEAL_BYTES = 48, PET_PUBLIC_KEY_BYTES = 32 };

/* The outcome of a box: it does not open; it holds something else than expected; the signature is not valid; it is. */
enum pet_opened { PET_CLOSED = 0, PET_UNEXPECTED = 1, PET_FORGED = 2, PET_SIGNED = 3 };

/* Decrypt each box in its place, from byte PET_SEAL_BYTES on; then, where the plain text holds the expected bytes at
 * expected_place, verify that it is a signature and what was signed, with the key at key_place of the plain text.
 * states: for each box one of pet_opened. expected: expected_bytes for each box. The content of a closed box is undefined. */
void pet_open_signed(pet_box_open open_box, pet_sign_open verify, uint8_t *states, uint8_t **boxes, const size_t *sizes,
                     size_t count, uint8_t *public_key, uint8_t *secret_key, const uint8_t *expected, size_t expected_bytes,
                     size_t expected_place, size_t key_place);

/* Verify groups of signatures, each in its order up to the first that is not valid. items: a signature and what was signed, of
 * sizes bytes; keys: the public key of each. valid: for each group the number of those before the first that is not. */
void pet_verify_groups(pet_sign_open verify, size_t *valid, const size_t *group_sizes, size_t group_count, uint8_t **items,
                       const size_t *sizes, uint8_t **keys);

/* cffi: end */

#endif
