/* The AVX2 variant of the kernels of pet-1: field_loops.h with vectors of 256 bits. */
#include "fields.h"

#include "avx2_fields.h"

#define PET_FIELDS_OF_VARIANT pet_avx2_fields
#include "field_loops.h"
