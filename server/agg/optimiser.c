/* The server's optimiser, a tensor at a time; see optimiser.h. */
#include "server/agg/optimiser.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

uint64_t optimiser_floats(const struct optimiser *optimiser, const struct layout *layout)
{
    return (uint64_t)optimiser->kind * layout->trainable_end; /* none, momentum, adam: 0, 1, 2 vectors */
}

void optimiser_begin(const struct optimiser *optimiser, const struct layout *layout, float *state)
{
    uint64_t each = layout->trainable_end;
    for (uint64_t i = 0; i < optimiser_floats(optimiser, layout); i++) {
        state[i] = i < each ? 0 : (float)(optimiser->epsilon * optimiser->epsilon);
    }
}

/* The step of one parameter, whose mean update is d. */
static double step(const struct optimiser *o, double d, const float *state, uint64_t each, float *next_state)
{
    if (o->kind == OPTIMISER_NONE) {
        return o->learning_rate * d;
    }
    if (o->kind == OPTIMISER_MOMENTUM) {
        double v = o->momentum * (double)state[0] + d;
        next_state[0] = (float)v;
        return o->learning_rate * v;
    }
    double v = o->momentum * (double)state[0] + (1 - o->momentum) * d;
    double s = o->beta2 * (double)state[each] + (1 - o->beta2) * (d * d);
    next_state[0] = (float)v;
    next_state[each] = (float)s;
    return o->learning_rate * v / (sqrt(s) + o->epsilon);
}

void optimiser_step(const struct optimiser *optimiser, const struct layout *layout, const int32_t *shifts,
                    const int64_t *sum, uint64_t weight, const float *state, const float *global, float *next_state,
                    float *next)
{
    uint64_t each = layout->trainable_end;
    for (uint32_t t = 0; t < layout->count && layout->tensors[t].offset < each; t++) {
        uint64_t begin = layout->tensors[t].offset, end = begin + layout->tensors[t].count;
        double scale = ldexp((double)weight, shifts[t]);
        for (uint64_t i = begin; i < end; i++) {
            double d = (double)sum[i] / scale;
            bool has_state = optimiser->kind != OPTIMISER_NONE;
            double moved = step(optimiser, d, has_state ? state + i : NULL, each, has_state ? next_state + i : NULL);
            next[i] = (float)((double)global[i] + moved);
        }
    }
}
