/* Sums that do not depend on the order of arrival: fixed point with one binary shift per tensor.
 *
 * A contribution's delta x (float) with integer weight w (images) adds w * llrint(x * 2^shift) to a 64-bit integer.
 * Integer addition is associative and commutative, so any order and any number of threads give the same bits. The
 * shift is a function of the round's global model, hence the same for all; it accepts |x| * 2^shift < 2^FIXED_BITS.
 * With weights that sum to at most FIXED_WEIGHT_MAX nothing can overflow: 2^36 * 2^26 = 2^62. */
#ifndef STARLING_VEC_FIXED_H
#define STARLING_VEC_FIXED_H

#include "common/vec/layout.h"

#include <stdbool.h>

#define FIXED_BITS       36
#define FIXED_WEIGHT_MAX (UINT64_C(1) << 26)

/* shifts: [layout->count]. */
void fixed_shifts(const struct layout *layout, const float *global, int32_t *shifts);

enum fixed_verdict { FIXED_OK, FIXED_NOT_FINITE, FIXED_OUT_OF_RANGE };
/* sum[i] += weight * round(delta[i] * 2^shift), for a whole delta [total] or, where it does not fit, for none of it:
 * the sum then is what it was, to the bit. *tensor (may be NULL) is the first offending tensor. */
enum fixed_verdict fixed_add(const struct layout *layout, const int32_t *shifts, const float *delta, uint64_t weight,
                             int64_t *sum, uint32_t *tensor);
/* Whether fixed_add would take it. */
enum fixed_verdict fixed_check(const struct layout *layout, const int32_t *shifts, const float *delta,
                               uint32_t *tensor);
/* Takes out again, to the bit, what fixed_add added with the same arguments. */
void fixed_subtract(const struct layout *layout, const int32_t *shifts, const float *delta, uint64_t weight,
                    int64_t *sum);

/* next = global + sum / (weight * 2^shift), rounded once to float. `next` may be `global`. weight > 0.
 * Error against the exact mean: at most 2^-(shift+1) plus half an ulp of the result (the double arithmetic between them
 * adds less than 2^-15 of the former). */
void fixed_apply(const struct layout *layout, const int32_t *shifts, const int64_t *sum, uint64_t weight,
                 const float *global, float *next);

#endif
