/* The half of the AVX2 variant that draws: avx2_draw.h from eight blocks of keystream at once, avx2_loops.h does the rest.
 * avx2_memory.c has the other half. */
#include "avx2_wide.h"
#include "vertical_draw.h"

/* What avx2_loops.h draws from. */
typedef drawer source;

static void start_source(source *s, const uint8_t *seed, uint64_t position, const pet_order *order) {
    start_drawing(s, seed, position, order);
}
static void draw_from(source *s, uint64_t *low, uint64_t *high, size_t length) { draw(s, low, high, length); }
static uint64_t position_of(const source *s) { return s->position; }

static const pet_kernel_table *const memory_kernels = &pet_avx2_memory_kernels;

#include "avx2_loops.h"
#include "wide_loops.h"

static int runs_here(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
}

const pet_kernel_table pet_avx2_kernels = {.name = "avx2", .runs_here = runs_here, LOOP_MEMBERS};
const pet_kernel_table pet_avx2_wide_kernels = {.name = "avx2", .runs_here = runs_here, WIDE_MEMBERS};
