/* Packed vectors and totals, LANES values at a time, in place as far as the memory reaches and through a small buffer at its
 * end. Included at the end of avx2_elements.h and avx512_elements.h, which say what a `lanes` is and how to unpack and pack it. */
#ifndef PET_PACKED_ACCESS_H
#define PET_PACKED_ACCESS_H

/* ---- packed vectors ------------------------------------------------------------------------------------------------- */

enum { LANE_BUFFER_BYTES = LANES * 16 + 64 }; /* the widest packed elements, and what a load or store touches behind them */

/* Up to which index elements can be loaded or stored in place. */
static size_t in_place_end(size_t length, const element_format *format, const int planes) {
    const size_t width = format->element_bytes, reach = reach_of(format, planes);
    return length * width >= reach ? (length * width - reach) / width + 1 : 0;
}

PET_INLINE size_t rest_of(size_t index, size_t length) { return length - index < LANES ? length - index : LANES; }

/* Elements index to index + LANES - 1 of a packed vector; behind its end come zeros. */
PET_INLINE lanes load_packed(const uint8_t *packed, size_t index, size_t length, size_t in_place, const element_format *format,
                             const int planes) {
    const size_t width = format->element_bytes;
    if (__builtin_expect(index < in_place, 1)) return unpack(packed + index * width, format, planes);
    uint8_t buffer[LANE_BUFFER_BYTES] = {0};
    memcpy(buffer, packed + index * width, rest_of(index, length) * width);
    return unpack(buffer, format, planes);
}

PET_INLINE void store_packed(uint8_t *packed, size_t index, size_t length, size_t in_place, lanes elements,
                             const element_format *format, const int planes) {
    const size_t width = format->element_bytes;
    if (__builtin_expect(index < in_place, 1)) {
        pack(packed + index * width, elements, format, planes);
        return;
    }
    uint8_t buffer[LANE_BUFFER_BYTES];
    pack(buffer, elements, format, planes);
    memcpy(packed + index * width, buffer, rest_of(index, length) * width);
}

/* ---- totals --------------------------------------------------------------------------------------------------------- */

/* Values index to index + LANES - 1 of a total; behind its end come zeros. */
PET_INLINE lanes load_total(const uint64_t *total, size_t plane_stride, size_t index, size_t length, const int planes) {
    lanes values = {load_words(total, index, length), load_words(total, index, length)};
    if (planes == 2) values.high = load_words(total + plane_stride, index, length);
    return values;
}

PET_INLINE void store_total(uint64_t *total, size_t plane_stride, size_t index, size_t length, lanes values, const int planes) {
    store_words(total, index, length, values.low);
    if (planes == 2) store_words(total + plane_stride, index, length, values.high);
}

#endif
