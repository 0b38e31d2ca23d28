#include "server/agg/norm.h"

#include "common/vec/squares.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double norm_of(const struct layout *layout, const float *update)
{
    return sqrt(squares_sum(update, layout->trainable_end));
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
