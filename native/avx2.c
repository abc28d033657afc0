/* The AVX2 variant: avx2_draw.h draws from eight blocks of keystream at once, avx2_loops.h does the rest. */
#include "avx2_wide.h"
#include "vertical_draw.h"
#include "avx2_loops.h"
#include "wide_loops.h"

static int runs_here(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
}

const pet_kernel_table pet_avx2_kernels = {.name = "avx2", .runs_here = runs_here, LOOP_MEMBERS};
const pet_kernel_table pet_avx2_wide_kernels = {.name = "avx2", .runs_here = runs_here, WIDE_MEMBERS};
