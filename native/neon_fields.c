/* The NEON variant of the kernels of pet-1: field_loops.h with vectors of 128 bits. */
#include "fields.h"

#include "neon_fields.h"

#define PET_FIELDS_OF_VARIANT pet_neon_fields
#include "field_loops.h"
