/* The two loops of a fixed-point sum, once for each instruction set. They compute the same bits: which one runs can be
 * seen by the clock alone. */
#ifndef STARLING_VEC_FIXED_KERNELS_H
#define STARLING_VEC_FIXED_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fixed_kernel {
    const char *name;
    /* Whether the magnitude of each of [count] values, as bits, is below `limit`; NaN is above infinity. */
    bool (*within)(const float *values, size_t count, int32_t limit);
    /* sums[i] += weight * round(values[i] * scale), halves to even. scale: a power of two; each product is below
     * 2^FIXED_BITS. */
    void (*add)(const float *values, size_t count, double scale, int64_t weight, int64_t *sums);
};

/* Variant i that this processor has, 0 being the portable one; NULL behind the last. */
const struct fixed_kernel *fixed_variant(uint32_t i);
/* The last of them, which is the fastest. */
const struct fixed_kernel *fixed_best(void);

#endif
