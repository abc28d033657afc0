/* Writing outputs that no cache will hold: past the caches, in whole lines. Part of a variant's own file, included nowhere
 * else.
 *
 * An ordinary store reads the line that it writes to first, a third more traffic for most kernels here. A store past the caches
 * does not, but takes whole aligned lines; so a kernel fills a piece that stays in the first-level cache, and the piece is sent
 * on from there, whatever the address and the width of the elements. */
#ifndef PET_STREAMING_H
#define PET_STREAMING_H

#include <immintrin.h>

#include "internal.h"

enum {
    PIECE = 512, /* elements: at 16 bytes each a quarter of the smallest first-level cache in use */
    LINE_BYTES = 64,
    STREAMED_BYTES = 4 << 20,                  /* outputs from this size on: about what one core gets of a shared cache */
    PIECE_BYTES = PIECE * 16 + 2 * LINE_BYTES, /* with room for what the last store writes too much */
};

typedef struct {
    _Alignas(64) uint8_t bytes[PIECE_BYTES];
} piece_buffer;

static inline int is_streamed(size_t size) { return size >= STREAMED_BYTES; }

static inline void stream_line(uint8_t *line, const uint8_t *bytes) {
    for (int i = 0; i < LINE_BYTES; i += 32)
        _mm256_stream_si256((__m256i *)(line + i), _mm256_loadu_si256((const __m256i *)(bytes + i)));
}

/* Copy a piece past the caches; ordinary stores for the lines at its ends, which it shares with its neighbours. */
static inline void stream_piece(uint8_t *output, const uint8_t *bytes, size_t size) {
    size_t done = -(uintptr_t)output % LINE_BYTES;
    if (done > size) done = size;
    memcpy(output, bytes, done);
    for (; done + LINE_BYTES <= size; done += LINE_BYTES) stream_line(output + done, bytes + done);
    memcpy(output + done, bytes + done, size - done);
}

static inline void send_piece(uint8_t *output, const uint8_t *bytes, size_t size, int streamed) {
    if (streamed)
        stream_piece(output, bytes, size);
    else
        memcpy(output, bytes, size);
}

/* Stores past the caches are ordered against nothing: other threads see them after this. */
static inline void end_streaming(void) { _mm_sfence(); }

#endif
