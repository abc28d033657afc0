/* What the vector variants share that is no vector: how they inline, integers of 128 bits, bits of a word. It knows no
 * instruction set, and includes no header of one. */
#ifndef PET_VECTORS_H
#define PET_VECTORS_H

#include "internal.h"

#define PET_INLINE static inline __attribute__((always_inline))

typedef unsigned __int128 wide_integer;
PET_INLINE wide_integer wide(uint64_t high, uint64_t low) { return (wide_integer)high << 64 | low; }

/* The number of the first bit, or 64 where there is none: one instruction on x86-64 with BMI, two on aarch64. */
PET_INLINE int count_zeros(uint64_t bits) { return bits ? __builtin_ctzll(bits) : 64; }

#endif
