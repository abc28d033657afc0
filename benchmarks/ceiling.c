/* What this machine can do at most, measured in the same run as the kernels it is held against (`pet bench`).
 *
 *   cc -O3 -mavx2 -pthread ceiling.c -o ceiling && ./ceiling [threads]
 *
 * Two numbers, as one JSON object:
 *   keystream_ns_per_kib   ChaCha20 alone: as many blocks side by side as fit a vector, ten double rounds and the final
 *                          additions, nothing put into stream order, nothing drawn. No expansion of a mask gets below it.
 *   memory_gb_per_s        a[i] = b[i] + k * c[i] over arrays beyond every cache, 24 bytes counted per element. No kernel that
 *                          touches each weight once gets above it.
 * Each is the best of PASSES passes with all threads at work. The width of a vector follows the flags of the compiler, so
 * compile for the instruction set of the back-end in question.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

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
    TRIAD_ELEMENTS = 8 * 1024 * 1024, /* three arrays of 64 MiB, beyond what one core gets of any cache */
    PASSES = 12,
    MAX_THREADS = 256,
};

typedef uint32_t words __attribute__((vector_size(VECTOR_BYTES)));
typedef uint8_t octets __attribute__((vector_size(VECTOR_BYTES)));

/* Without a rotate instruction, turning by whole bytes is one shuffle where shifting is three operations. */
static inline words rotate_bytes(words x, int bytes) {
    octets index;
    for (int i = 0; i < VECTOR_BYTES; i++) index[i] = (uint8_t)((i & ~3) | ((i - bytes) & 3));
    return (words)__builtin_shuffle((octets)x, index);
}

static inline words rotate_bits(words x, int bits) { return (x << bits) | (x >> (32 - bits)); }

#if defined(__AVX2__) && !defined(__AVX512F__)
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
    double *target, *left, *right;
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
    size_t first = (size_t)TRIAD_ELEMENTS * mine->index / mine->thread_count;
    size_t last = (size_t)TRIAD_ELEMENTS * (mine->index + 1) / mine->thread_count;
    for (size_t i = first; i < last; i++) mine->target[i] = mine->left[i] + 3.0 * mine->right[i];
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
    double *memory = malloc(3 * sizeof(double) * TRIAD_ELEMENTS);
    if (!memory) {
        fprintf(stderr, "memory: expected %zu MB, got none\n", 3 * sizeof(double) * TRIAD_ELEMENTS / 1000000);
        return 1;
    }
    for (size_t i = 0; i < 3 * (size_t)TRIAD_ELEMENTS; i++) memory[i] = (double)i;
    static job jobs[MAX_THREADS];
    for (int i = 0; i < thread_count; i++)
        jobs[i] = (job){i, thread_count, memory, memory + TRIAD_ELEMENTS, memory + 2 * (size_t)TRIAD_ELEMENTS};
    double keystream = best_ns(run_keystream, jobs, thread_count) / ((double)KEYSTREAM_KIB * thread_count);
    double triad = best_ns(run_triad, jobs, thread_count);
    printf("{\"vector_bytes\": %d, \"threads\": %d, \"keystream_ns_per_kib\": %.1f, \"memory_gb_per_s\": %.2f}\n", VECTOR_BYTES,
           thread_count, keystream, 24.0 * TRIAD_ELEMENTS / triad);
    free(memory);
    return 0;
}
