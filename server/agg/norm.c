#include "server/agg/norm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LANES 8u

double norm_of(const struct layout *layout, const float *update)
{
    double lanes[LANES] = {0}, sum = 0;
    uint64_t whole = layout->trainable_end / LANES * LANES;
    for (uint64_t i = 0; i < whole; i += LANES) {
        for (size_t l = 0; l < LANES; l++) {
            lanes[l] += (double)update[i + l] * (double)update[i + l];
        }
    }
    for (uint64_t i = whole; i < layout->trainable_end; i++) {
        lanes[i - whole] += (double)update[i] * (double)update[i];
    }
    for (size_t l = 0; l < LANES; l++) {
        sum += lanes[l];
    }
    return sqrt(sum);
}

void norm_scale(const struct layout *layout, float *update, double factor)
{
    for (uint64_t i = 0; i < layout->trainable_end; i++) {
        update[i] = (float)((double)update[i] * factor);
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double norm_median(double *norms, uint32_t count)
{
    if (count == 0) {
        return 0;
    }
    qsort(norms, count, sizeof *norms, ascending);
    return norms[(count - 1) / 2];
}

double norm_usual(const double *history)
{
    double known[NORM_ROUNDS];
    uint32_t count = 0;
    for (uint32_t i = 0; i < NORM_ROUNDS; i++) {
        if (history[i] > 0) {
            known[count++] = history[i];
        }
    }
    return norm_median(known, count);
}

void norm_push(double *history, double median)
{
    memmove(history + 1, history, (NORM_ROUNDS - 1) * sizeof *history);
    history[0] = median;
}
