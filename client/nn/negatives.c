#include "client/nn/negatives.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { DRAW_LOCAL = 1, DRAW_REMOTE };

int negatives_init(struct negatives *negatives, uint32_t queue, uint32_t remote, uint32_t d, struct err *err)
{
    *negatives = (struct negatives){0};
    negatives->data = mem_new_aligned((size_t)queue * d, sizeof(float));
    negatives->image = mem_new(queue, sizeof *negatives->image);
    negatives->order = mem_new(queue > remote ? queue : remote, sizeof *negatives->order);
    if (!negatives->data || !negatives->image || !negatives->order) {
        negatives_fini(negatives);
        return err_set(err, ERR_NOMEM, "out of memory for %u negatives", queue);
    }
    return 0;
}

void negatives_fini(struct negatives *negatives)
{
    mem_free(negatives->data);
    mem_free(negatives->image);
    mem_free(negatives->order);
    *negatives = (struct negatives){0};
}

/* The first `count` of `order` become a sample of 0 .. n-1 without replacement; all of them in their own order. */
static void draw(uint32_t *order, uint32_t n, uint32_t count, struct rng *rng)
{
    for (uint32_t i = 0; i < n; i++) {
        order[i] = i;
    }
    if (count == n) {
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t j = i + rng_below(rng, n - i), item = order[i];
        order[i] = order[j];
        order[j] = item;
    }
}

void negatives_draw(struct negatives *negatives, const struct queue *queue, const float *remote, uint32_t m,
                    float share, uint64_t seed, uint64_t step)
{
    uint32_t wanted = (uint32_t)lround((double)share * queue->rows), d = queue->d;
    bool fused = m > 0 && wanted > 0;
    negatives->remote = !fused ? 0 : wanted < m ? wanted : m;
    negatives->local = !fused ? queue->rows : share >= 1 ? 0 : queue->rows - negatives->remote;
    struct rng rng;
    float *out = negatives->data;
    rng_init(&rng, seed, RNG_NEGATIVES, step, DRAW_REMOTE, 0);
    draw(negatives->order, m, negatives->remote, &rng);
    for (uint32_t i = 0; i < negatives->remote; i++, out += d) {
        memcpy(out, remote + (size_t)negatives->order[i] * d, d * sizeof *out);
        negatives->image[i] = QUEUE_NO_IMAGE;
    }
    rng_init(&rng, seed, RNG_NEGATIVES, step, DRAW_LOCAL, 0);
    draw(negatives->order, queue->rows, negatives->local, &rng);
    for (uint32_t i = 0; i < negatives->local; i++, out += d) {
        memcpy(out, queue_row(queue, negatives->order[i]), d * sizeof *out);
        negatives->image[negatives->remote + i] = queue_image(queue, negatives->order[i]);
    }
}
