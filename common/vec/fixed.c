/* Fixed-point sums of updates.
 *
 * What a tensor accepts, its range R, is a power of two at least 16 times the largest value that it holds as the round
 * opens, and never less than 16 times a floor: a tensor of zeros must be able to move, and BN statistics leave their
 * starting values far behind in the first round. The shift is FIXED_BITS - log2(R), found with frexp and ldexp, which
 * are exact, so that every machine finds the same.
 *
 * A float below R has its last bit at R * 2^-24 or lower, so rounding never lifts it to R: |x * 2^shift| < 2^FIXED_BITS
 * holds for the rounded value too, and sums of weights up to FIXED_WEIGHT_MAX stay below 2^62.
 *
 * A model and its sum are larger than the caches, so what an addition costs is how often it reads them. They are read
 * once: each block is looked at, which brings it into the cache, and then added. Where a block is bad, what was added
 * before it is subtracted again, the same integers, which leaves the sum as it was to the bit. */
#include "common/vec/fixed.h"

#include "common/vec/fixed_kernels.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define RANGE_BITS       4 /* the range is 2^4 times the largest value */
#define FLOOR_TRAINED    0.125f
#define FLOOR_STATISTICS 4.0f
#define BLOCK            UINT64_C(512) /* numbers that are looked at before they are added */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

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

/* The least magnitude, as bits, that a tensor of this shift refuses: its range, or infinity. */
static int32_t limit_of(int32_t shift)
{
    double range = ldexp(1.0, FIXED_BITS - shift);
    float limit = range > (double)FLT_MAX ? INFINITY : (float)range;
    int32_t bits;
    memcpy(&bits, &limit, sizeof bits);
    return bits;
}

/* Of a tensor that is refused. */
static enum fixed_verdict verdict_of(const float *values, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) {
            return FIXED_NOT_FINITE;
        }
    }
    return FIXED_OUT_OF_RANGE;
}

/* Takes out of the sum what was added of the first `end` numbers. */
static void take_out(const struct layout *layout, const int32_t *shifts, const float *delta, uint64_t weight,
                     int64_t *sum, uint64_t end)
{
    const struct fixed_kernel *kernel = fixed_best();
    for (uint32_t t = 0; t < layout->count && layout->tensors[t].offset < end; t++) {
        uint64_t at = layout->tensors[t].offset, count = least(layout->tensors[t].count, end - at);
        kernel->add(delta + at, (size_t)count, ldexp(1.0, shifts[t]), -(int64_t)weight, sum + at);
    }
}

enum fixed_verdict fixed_add(const struct layout *layout, const int32_t *shifts, const float *delta, uint64_t weight,
                             int64_t *sum, uint32_t *tensor)
{
    const struct fixed_kernel *kernel = fixed_best();
    for (uint32_t t = 0; t < layout->count; t++) {
        uint64_t begin = layout->tensors[t].offset, end = begin + layout->tensors[t].count, count;
        double scale = ldexp(1.0, shifts[t]);
        int32_t limit = limit_of(shifts[t]);
        for (uint64_t at = begin; at < end; at += count) {
            count = least(BLOCK, end - at);
            if (!kernel->within(delta + at, (size_t)count, limit)) {
                take_out(layout, shifts, delta, weight, sum, at);
                if (tensor) {
                    *tensor = t;
                }
                return verdict_of(delta + begin, end - begin);
            }
            kernel->add(delta + at, (size_t)count, scale, (int64_t)weight, sum + at);
        }
    }
    return FIXED_OK;
}

enum fixed_verdict fixed_check(const struct layout *layout, const int32_t *shifts, const float *delta, uint32_t *tensor)
{
    const struct fixed_kernel *kernel = fixed_best();
    for (uint32_t t = 0; t < layout->count; t++) {
        const float *values = delta + layout->tensors[t].offset;
        uint64_t count = layout->tensors[t].count;
        if (!kernel->within(values, (size_t)count, limit_of(shifts[t]))) {
            if (tensor) {
                *tensor = t;
            }
            return verdict_of(values, count);
        }
    }
    return FIXED_OK;
}

void fixed_subtract(const struct layout *layout, const int32_t *shifts, const float *delta, uint64_t weight,
                    int64_t *sum)
{
    take_out(layout, shifts, delta, weight, sum, layout->total);
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
