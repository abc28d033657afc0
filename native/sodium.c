/* Calls of libsodium, many at a time: the loops of pet_kernels.h around functions that the caller brings.
 *
 * What a message is and whose keys these are is not known here, nor libsodium itself: nothing is linked with it. */
#include <string.h>

#include "pet_kernels.h"

static enum pet_opened open_signed(pet_box_open open_box, pet_sign_open verify, uint8_t *box, size_t size, uint8_t *public_key,
                                   uint8_t *secret_key, const uint8_t *expected, size_t expected_bytes, size_t expected_place,
                                   size_t key_place) {
    if (size < PET_SEAL_BYTES) return PET_CLOSED;
    uint8_t *plain = box + PET_SEAL_BYTES;
    size_t plain_size = size - PET_SEAL_BYTES;
    if (open_box(plain, box, size, public_key, secret_key) != 0) return PET_CLOSED;
    if (plain_size < expected_place + expected_bytes || plain_size < key_place + PET_PUBLIC_KEY_BYTES) return PET_UNEXPECTED;
    if (memcmp(plain + expected_place, expected, expected_bytes) != 0) return PET_UNEXPECTED;
    return verify(NULL, NULL, plain, plain_size, plain + key_place) == 0 ? PET_SIGNED : PET_FORGED;
}

void pet_open_signed(pet_box_open open_box, pet_sign_open verify, uint8_t *states, uint8_t **boxes, const size_t *sizes,
                     size_t count, uint8_t *public_key, uint8_t *secret_key, const uint8_t *expected, size_t expected_bytes,
                     size_t expected_place, size_t key_place) {
    for (size_t i = 0; i < count; i++) {
        states[i] = (uint8_t)open_signed(open_box, verify, boxes[i], sizes[i], public_key, secret_key,
                                         expected + i * expected_bytes, expected_bytes, expected_place, key_place);
    }
}

void pet_verify_groups(pet_sign_open verify, size_t *valid, const size_t *group_sizes, size_t group_count, uint8_t **items,
                       const size_t *sizes, uint8_t **keys) {
    for (size_t group = 0, first = 0; group < group_count; first += group_sizes[group++]) {
        size_t i = 0;
        while (i < group_sizes[group] && verify(NULL, NULL, items[first + i], sizes[first + i], keys[first + i]) == 0) i++;
        valid[group] = i;
    }
}
