/* The half of the AVX-512 variant that waits for memory: memory_loops.h with eight lanes. avx512.c has the half that draws.
 *
 * Apart from that half, because vectors of 512 bits serve here: a loop that draws nothing loses nothing where 512-bit
 * multiplications lower the clock. */
#include "avx512_elements.h"
#include "avx512_real.h"
#include "memory_loops.h"

static int runs_here(void) { return pet_avx512_kernels.runs_here(); }

const pet_kernel_table pet_avx512_memory_kernels = {.name = "avx512", .runs_here = runs_here, MEMORY_MEMBERS};
