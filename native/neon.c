/* The NEON variant: neon_draw.h draws from eight blocks of keystream at once, neon_loops.h does the rest. Encoding weights and
 * reducing totals stay with portable code: masking waits for the keystream, and totals are reduced rarely. */
#include "neon_wide.h"
#include "vertical_draw.h"
#include "neon_loops.h"
#include "neon_unmask.h"
#include "wide_loops.h"

/* Every processor with 64-bit Arm instructions has NEON. */
static int runs_here(void) { return 1; }

const pet_kernel_table pet_neon_kernels = {
    .name = "neon",
    .runs_here = runs_here,
    .covers = covers,
    .expand = expand,
    .sum_masks = sum_masks,
    .update = update,
    .find_invalid = find_invalid,
    .aggregate = aggregate,
    .subtract = subtract,
    .pack = pack_total,
    .unmask_elements = unmask_elements,
    .unmask = unmask,
};
const pet_kernel_table pet_neon_wide_kernels = {.name = "neon", .runs_here = runs_here, WIDE_MEMBERS};
