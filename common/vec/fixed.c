/* Fixed-point sums of updates.
 *
 * What a tensor accepts, its range R, is a power of two at least 16 times the largest value that it holds as the round
 * opens, and never less than 16 times a floor: a tensor of zeros must be able to move, and BN statistics leave their
 * starting values far behind in the first round. The shift is FIXED_BITS - log2(R), found with frexp and ldexp, which
 * are exact, so that every machine finds the same.
 *
 * A float below R has its last bit at R * 2^-24 or lower, so rounding never lifts it to R: |x * 2^shift| < 2^FIXED_BITS
 * holds for the rounded value too, and sums of weights up to FIXED_WEIGHT_MAX stay below 2^62. */
#include "common/vec/fixed.h"

#include <float.h>
#include <math.h>

#define RANGE_BITS       4 /* the range is 2^4 times the largest value */
#define FLOOR_TRAINED    0.125f
#define FLOOR_STATISTICS 4.0f

/* The least e with value <= 2^e, for value > 0. */
static int log2_above(float value)
{
    int exponent;
    float fraction = frexpf(value, &exponent);
    return fraction > 0.5f ? exponent : exponent - 1;
}

void fixed_shifts(const struct layout *layout, const float *global, int32_t *shifts)
{
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        float largest = tensor->offset < layout->trainable_end ? FLOOR_TRAINED : FLOOR_STATISTICS;
        for (uint64_t i = 0; i < tensor->count; i++) {
            float value = fabsf(global[tensor->offset + i]);
            largest = value > largest ? value : largest;
        }
        largest = largest > FLT_MAX ? FLT_MAX : largest; /* An infinity has no exponent. */
        shifts[t] = FIXED_BITS - RANGE_BITS - log2_above(largest);
    }
}

enum fixed_verdict fixed_check(const struct layout *layout, const int32_t *shifts, const float *delta, uint32_t *tensor)
{
    for (uint32_t t = 0; t < layout->count; t++) {
        const float *values = delta + layout->tensors[t].offset;
        double range = ldexp(1.0, FIXED_BITS - shifts[t]);
        bool finite = true, within = true;
        for (uint64_t i = 0; i < layout->tensors[t].count; i++) {
            double value = fabs((double)values[i]);
            finite &= value <= (double)FLT_MAX; /* false for NaN */
            within &= value < range;
        }
        if (!finite || !within) {
            if (tensor) {
                *tensor = t;
            }
            return finite ? FIXED_OUT_OF_RANGE : FIXED_NOT_FINITE;
        }
    }
    return FIXED_OK;
}

void fixed_add(const struct layout *layout, const int32_t *shifts, const float *delta, uint64_t weight, int64_t *sum)
{
    for (uint32_t t = 0; t < layout->count; t++) {
        const float *values = delta + layout->tensors[t].offset;
        int64_t *sums = sum + layout->tensors[t].offset;
        double scale = ldexp(1.0, shifts[t]);
        for (uint64_t i = 0; i < layout->tensors[t].count; i++) {
            sums[i] += (int64_t)weight * llrint((double)values[i] * scale);
        }
    }
}

void fixed_apply(const struct layout *layout, const int32_t *shifts, const int64_t *sum, uint64_t weight,
                 const float *global, float *next)
{
    for (uint32_t t = 0; t < layout->count; t++) {
        uint64_t begin = layout->tensors[t].offset, end = begin + layout->tensors[t].count;
        double scale = ldexp((double)weight, shifts[t]);
        for (uint64_t i = begin; i < end; i++) {
            next[i] = (float)((double)global[i] + (double)sum[i] / scale);
        }
    }
}
