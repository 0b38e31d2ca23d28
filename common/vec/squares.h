/* The sum of squares of many numbers in double, in an order that is the same on every processor: eight sums, of which
 * sum l takes the numbers l, l + 8, l + 16, ..., added at last from the first to the last. (A product of two floats is
 * exact in a double, so that a fused multiply-add changes nothing.) */
#ifndef STARLING_VEC_SQUARES_H
#define STARLING_VEC_SQUARES_H

#include <stddef.h>
#include <stdint.h>

double squares_sum(const float *values, uint64_t count);

/* For tests: the same by variant i, 0 being the portable one; NULL behind the last that this processor has. */
typedef double squares_fn(const float *values, uint64_t count);
squares_fn *squares_variant(uint32_t i);

#endif
