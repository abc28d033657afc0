/* The half of the AVX-512 variant that draws: avx512_draw.h draws from thirty-two blocks of keystream at once, avx512_dense.h
 * collects where many draws are accepted, and avx2_loops.h does the rest, which is little, with 256 bits. avx512_memory.c has
 * the other half. */
#include "avx512_dense.h"

/* What updates mask with. On processors of 2019 its 512-bit multiplications lowered the clock for the ChaCha20 around them,
 * and cost a tenth; on later ones they save as much. */
static const pet_kernel_table *const memory_kernels = &pet_avx512_memory_kernels;

#include "avx2_loops.h"
#include "wide_loops.h"

static int runs_here(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
}

const pet_kernel_table pet_avx512_kernels = {.name = "avx512", .runs_here = runs_here, LOOP_MEMBERS};
const pet_kernel_table pet_avx512_wide_kernels = {.name = "avx512", .runs_here = runs_here, WIDE_MEMBERS};
