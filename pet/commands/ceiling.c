/* The limits of this machine, measured in the same run as the kernels that are compared with them (`pet bench`).
 *
 *   cc -O3 -mavx2 -pthread ceiling.c -o ceiling && ./ceiling [threads] [bytes]
 *
 * `bytes` is the size of one array, 64 MiB by default; three of them should exceed every cache. The output is one JSON object:
 *   keystream_ns_per_kib   ChaCha20 alone: as many blocks side by side as fit a vector, ten double rounds and the final
 *                          additions, nothing put into stream order, nothing drawn.
 *   memory_gb_per_s        a[i] = b[i] + k * c[i] over three arrays of `bytes`, 24 bytes counted per element; the faster of
 *                          ordinary stores, which read a line before they write it, and stores past the caches.
 *   reads_gb_per_s         a[i] += b0[i] + ... + b7[i]: eight different arrays added to a ninth, together as large as the three
 *                          arrays above, 72 bytes counted per element (the total once, as the kernels count it).
 * Each is the best of PASSES passes with all threads at work. The width of a vector follows the flags of the compiler, so
 * compile for the instruction set of the back-end in question.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

enum {
    BLOCKS = VECTOR_BYTES / 4, /* one 32-bit word of each block per vector */
    BLOCK_BYTES = 64,
    KEYSTREAM_KIB = 4096,
    SOURCES = 8, /* arrays that are read and added to one */
    PASSES = 12,
    MAX_THREADS = 256,
};

typedef uint32_t words __attribute__((vector_size(VECTOR_BYTES)));

static inline words rotate_bits(words x, int bits) { return (x << bits) | (x >> (32 - bits)); }

/* AVX2 has no rotate instruction: there, rotating by whole bytes is one shuffle where shifting is three operations. Clang finds
 * the shuffle by itself and does not know gcc's name for it. */
#if defined(__AVX2__) && !defined(__AVX512F__) && !defined(__clang__)
typedef uint8_t octets __attribute__((vector_size(VECTOR_BYTES)));

static inline words rotate_bytes(words x, int bytes) {
    octets index;
    for (int i = 0; i < VECTOR_BYTES; i++) index[i] = (uint8_t)((i & ~3) | ((i - bytes) & 3));
    return (words)__builtin_shuffle((octets)x, index);
}

#define ROTATE_16(x) rotate_bytes(x, 2)
#define ROTATE_8(x) rotate_bytes(x, 1)
#else
#define ROTATE_16(x) rotate_bits(x, 16)
#define ROTATE_8(x) rotate_bits(x, 8)
#endif

static inline __attribute__((always_inline)) void quarter_round(words *a, words *b, words *c, words *d) {
    *a += *b; *d = ROTATE_16(*d ^ *a);
    *c += *d; *b = rotate_bits(*b ^ *c, 12);
    *a += *b; *d = ROTATE_8(*d ^ *a);
    *c += *d; *b = rotate_bits(*b ^ *c, 7);
}

static void chacha20_blocks(const words initial[16], words output[16]) {
    words x[16];
    for (int i = 0; i < 16; i++) x[i] = initial[i];
    /* Rolled, the compiler keeps moving the state between registers: a seventh slower. */
#pragma GCC unroll 10
    for (int double_round = 0; double_round < 10; double_round++) {
        for (int i = 0; i < 4; i++) quarter_round(&x[i], &x[4 + i], &x[8 + i], &x[12 + i]);
        for (int i = 0; i < 4; i++) quarter_round(&x[i], &x[4 + (i + 1) % 4], &x[8 + (i + 2) % 4], &x[12 + (i + 3) % 4]);
    }
    for (int i = 0; i < 16; i++) output[i] = x[i] + initial[i];
}

typedef struct {
    int index, thread_count;
    size_t bytes; /* of one array of the triad */
    double *memory; /* three such arrays */
} job;

static void *run_keystream(void *argument) {
    const job *mine = argument;
    words initial[16], output[16];
    for (int i = 0; i < 16; i++) initial[i] = (words){0} + (uint32_t)(0x9e3779b9u * (unsigned)(i + 1 + mine->index));
    for (int i = 0; i < BLOCKS; i++) initial[12][i] = (uint32_t)i;
    for (int batch = 0; batch < KEYSTREAM_KIB * 1024 / (BLOCKS * BLOCK_BYTES); batch++) {
        chacha20_blocks(initial, output);
        initial[12] += BLOCKS;
        __asm__ volatile("" : : "r"(output) : "memory"); /* or the compiler drops what nobody reads */
    }
    return NULL;
}

static void *run_triad(void *argument) {
    const job *mine = argument;
    size_t elements = mine->bytes / sizeof(double);
    double *target = mine->memory;
    const double *left = target + elements, *right = left + elements;
    size_t first = elements * (size_t)mine->index / (size_t)mine->thread_count;
    size_t last = elements * (size_t)(mine->index + 1) / (size_t)mine->thread_count;
    for (size_t i = first; i < last; i++) target[i] = left[i] + 3.0 * right[i];
    return NULL;
}

/* The same past the caches, where the processor has such stores: kernels that write whole lines do without reading them. */
static void *run_streaming_triad(void *argument) {
#if defined(__SSE2__)
    const job *mine = argument;
    size_t elements = mine->bytes / sizeof(double);
    double *target = mine->memory;
    const double *left = target + elements, *right = left + elements;
    size_t first = elements * (size_t)mine->index / (size_t)mine->thread_count & ~(size_t)1;
    size_t last = elements * (size_t)(mine->index + 1) / (size_t)mine->thread_count & ~(size_t)1;
    for (size_t i = first; i < last; i += 2) {
        __m128d scaled = _mm_mul_pd(_mm_set1_pd(3.0), _mm_loadu_pd(right + i));
        _mm_stream_pd(target + i, _mm_add_pd(_mm_loadu_pd(left + i), scaled));
    }
    _mm_sfence();
    return NULL;
#else
    return run_triad(argument);
#endif
}

static size_t elements_of_reads(size_t bytes) { return 3 * bytes / sizeof(double) / (SOURCES + 1); }

static void *run_reads(void *argument) {
    const job *mine = argument;
    size_t elements = elements_of_reads(mine->bytes);
    double *target = mine->memory;
    const double *sources[SOURCES];
    for (size_t k = 0; k < SOURCES; k++) sources[k] = target + (k + 1) * elements;
    size_t first = elements * (size_t)mine->index / (size_t)mine->thread_count;
    size_t last = elements * (size_t)(mine->index + 1) / (size_t)mine->thread_count;
    for (size_t i = first; i < last; i++) {
        target[i] += ((sources[0][i] + sources[1][i]) + (sources[2][i] + sources[3][i])) +
                     ((sources[4][i] + sources[5][i]) + (sources[6][i] + sources[7][i]));
    }
    return NULL;
}

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double best_ns(void *(*work)(void *), job *jobs, int thread_count) {
    double best = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_t threads[MAX_THREADS];
        double start = now_ns();
        for (int i = 1; i < thread_count; i++) {
            if (pthread_create(&threads[i], NULL, work, &jobs[i])) {
                fprintf(stderr, "thread %d of %d: expected to start, did not\n", i + 1, thread_count);
                exit(1);
            }
        }
        work(&jobs[0]);
        for (int i = 1; i < thread_count; i++) pthread_join(threads[i], NULL);
        double elapsed = now_ns() - start;
        if (pass == 0 || elapsed < best) best = elapsed;
    }
    return best;
}

int main(int argc, char **argv) {
    int thread_count = argc > 1 ? atoi(argv[1]) : 1;
    if (thread_count < 1 || thread_count > MAX_THREADS) {
        fprintf(stderr, "threads: expected 1 to %d, got %s\n", MAX_THREADS, argv[1]);
        return 2;
    }
    size_t bytes = argc > 2 ? (size_t)strtoull(argv[2], NULL, 10) : 64 * 1024 * 1024;
    if (bytes < 1024 || bytes > SIZE_MAX / 3) {
        fprintf(stderr, "bytes: expected 1024 or more, got %s\n", argv[2]);
        return 2;
    }
    double *memory = malloc(3 * bytes);
    if (!memory) {
        fprintf(stderr, "memory: expected %zu MB, got none\n", 3 * bytes / 1000000);
        return 1;
    }
    for (size_t i = 0; i < 3 * bytes / sizeof(double); i++) memory[i] = (double)i;
    static job jobs[MAX_THREADS];
    for (int i = 0; i < thread_count; i++) jobs[i] = (job){i, thread_count, bytes, memory};
    double keystream = best_ns(run_keystream, jobs, thread_count) / ((double)KEYSTREAM_KIB * thread_count);
    double triad = best_ns(run_triad, jobs, thread_count), streaming = best_ns(run_streaming_triad, jobs, thread_count);
    if (streaming < triad) triad = streaming;
    double reads = best_ns(run_reads, jobs, thread_count);
    printf("{\"vector_bytes\": %d, \"threads\": %d, \"keystream_ns_per_kib\": %.1f, \"memory_gb_per_s\": %.2f, "
           "\"reads_gb_per_s\": %.2f}\n",
           VECTOR_BYTES, thread_count, keystream, 3.0 * (double)(bytes / sizeof(double)) * sizeof(double) / triad,
           (SOURCES + 1.0) * (double)elements_of_reads(bytes) * sizeof(double) / reads);
    free(memory);
    return 0;
}
