/* What the tests of this room begin with: a small layout, its first weights, and updates that are drawn. */
#ifndef STARLING_TESTS_AGG_SUPPORT_H
#define STARLING_TESTS_AGG_SUPPORT_H

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "server/agg/agg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { UPDATES = 7 };

static struct layout *layout;
static size_t total;
static float *params, *updates[UPDATES]; /* each [total] */

static const struct optimiser none = {.kind = OPTIMISER_NONE, .learning_rate = 1};

static int set_up(void **state)
{
    (void)state;
    const struct model_spec spec = {.stages = 1, .blocks = {1}, .width = 4, .input = 8, .features = 8};
    struct rng rng;
    if (layout_new(&spec, &layout, NULL) != 0) {
        return -1;
    }
    total = (size_t)layout->total;
    params = mem_new(total, sizeof *params);
    params_init(layout, 1, params);
    rng_init(&rng, 1, RNG_TEST, 0, 0, 0);
    for (int s = 0; s < UPDATES; s++) {
        updates[s] = mem_new(total, sizeof(float));
        for (size_t i = 0; i < total; i++) {
            updates[s][i] = rng_range(&rng, -0.1f, 0.1f);
        }
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int s = 0; s < UPDATES; s++) {
        mem_free(updates[s]);
    }
    mem_free(params);
    layout_free(layout);
    return 0;
}

#endif
