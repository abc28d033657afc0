/* The AVX-512 variant of the kernels of pet-1: field_loops.h with vectors of 512 bits. */
#include "fields.h"

#include "avx512_fields.h"

#define PET_FIELDS_OF_VARIANT pet_avx512_fields
#include "field_loops.h"
