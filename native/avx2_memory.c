/* The half of the AVX2 variant that waits for memory: memory_loops.h with four lanes. avx2.c has the half that draws. */
#include "avx2_elements.h"
#include "avx2_real.h"
#include "memory_loops.h"

static int runs_here(void) { return pet_avx2_kernels.runs_here(); }

const pet_kernel_table pet_avx2_memory_kernels = {.name = "avx2", .runs_here = runs_here, MEMORY_MEMBERS};
