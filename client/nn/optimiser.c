#include "client/nn/optimiser.h"

#include <stdbool.h>

/* A chunk's gradient is summed on the stack, so that the other arrays pass by once. */
#define CHUNK 1024u

static void sum_groups(const struct optimiser *o, uint64_t begin, uint32_t n, float *restrict sum)
{
    const float *first = o->grads[0] + begin;
    for (uint32_t i = 0; i < n; i++) {
        sum[i] = first[i];
    }
    for (uint32_t group = 1; group < o->groups; group++) {
        const float *grad = o->grads[group] + begin;
        for (uint32_t i = 0; i < n; i++) {
            sum[i] += grad[i];
        }
    }
}

static void update(const struct optimiser *o, uint64_t begin, uint32_t n, float decay, const float *restrict grad)
{
    float *restrict p = o->params + begin, *restrict v = o->velocity + begin, *restrict key = o->key + begin;
    const float rate = o->learning_rate, momentum = o->momentum, keep = o->key_momentum, take = 1 - keep;
    for (uint32_t i = 0; i < n; i++) {
        v[i] = momentum * v[i] + (grad[i] + decay * p[i]);
        p[i] -= rate * v[i];
        key[i] = keep * key[i] + take * p[i];
    }
}

void optimiser_step(const struct optimiser *o, uint64_t begin, uint64_t end)
{
    float sum[CHUNK];
    while (begin < end) {
        bool decays = begin < o->decay_end;
        uint64_t stop = decays && o->decay_end < end ? o->decay_end : end;
        uint32_t n = stop - begin < CHUNK ? (uint32_t)(stop - begin) : CHUNK;
        sum_groups(o, begin, n, sum);
        update(o, begin, n, decays ? o->weight_decay : 0, sum);
        begin += n;
    }
}
