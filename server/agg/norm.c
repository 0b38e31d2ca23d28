#include "server/agg/norm.h"

#include "common/vec/squares.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *norm_part_name(enum norm_part part)
{
    return part == NORM_TRAINED ? "trained parameters" : "statistics of batch normalisation";
}

/* Where the part begins; its numbers. */
static uint64_t begin_of(const struct layout *layout, enum norm_part part, uint64_t *count)
{
    uint64_t trained = layout->trainable_end;
    *count = part == NORM_TRAINED ? trained : layout->total - trained;
    return part == NORM_TRAINED ? 0 : trained;
}

double norm_of(const struct layout *layout, enum norm_part part, const float *numbers)
{
    uint64_t count;
    const float *x = numbers + begin_of(layout, part, &count);
    return sqrt(squares_sum(x, count));
}

void norm_scale(const struct layout *layout, enum norm_part part, float *update, double factor)
{
    uint64_t count;
    float *x = update + begin_of(layout, part, &count);
    for (uint64_t i = 0; i < count; i++) {
        x[i] = (float)((double)x[i] * factor);
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
