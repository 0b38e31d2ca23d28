/* A small plan and its layout, for the tests of the swarm. */
#ifndef STARLING_TESTS_SWARM_SUPPORT_H
#define STARLING_TESTS_SWARM_SUPPORT_H

#include "client/swarm/chain.h"
#include "common/base/mem.h"
#include "common/vec/fixed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static inline void small_plan(struct plan *plan)
{
    config_defaults(&plan_set, plan);
    plan->rounds = 5;
    plan->batch = 8;
    plan->bn_groups = 2;
    plan->model.width = 8;
    plan->model.stages = 1;
    plan->model.blocks[0] = 1;
    plan->model.input = 8;
    plan->model.features = 8;
    plan->fusion.remote = 4;
    plan->fusion.upload = 20;
    assert_int_equal(plan_check(plan, NULL), 0);
}

/* What the server makes of contributions: the sum of common/vec/fixed.h. */
struct summed {
    const struct layout *layout;
    float *model; /* [total], of the open round */
    float *room;
    int32_t *shifts;
    int64_t *sum;
    uint64_t weight;
};

static inline void summed_open(struct summed *s)
{
    fixed_shifts(s->layout, s->model, s->shifts);
    memset(s->sum, 0, s->layout->total * sizeof *s->sum);
    s->weight = 0;
}

static inline void summed_init(struct summed *s, const struct layout *layout, uint64_t seed)
{
    *s = (struct summed){.layout = layout};
    s->model = mem_new(layout->total, sizeof *s->model);
    s->room = mem_new(layout->total, sizeof *s->room);
    s->shifts = mem_new(layout->count, sizeof *s->shifts);
    s->sum = mem_new(layout->total, sizeof *s->sum);
    params_init(layout, seed, s->model);
    summed_open(s);
}

static inline void summed_fini(struct summed *s)
{
    mem_free(s->model);
    mem_free(s->room);
    mem_free(s->shifts);
    mem_free(s->sum);
}

static inline void summed_add(struct summed *s, uint32_t form, const void *update, uint64_t len, uint64_t weight)
{
    uint32_t at;
    assert_int_equal(quant_update_decode((enum quant)form, s->layout, update, len, s->room, &at), QUANT_OK);
    assert_int_equal(fixed_add(s->layout, s->shifts, s->room, weight, s->sum, NULL), FIXED_OK);
    s->weight += weight;
}

static inline void summed_close(struct summed *s)
{
    fixed_apply(s->layout, s->shifts, s->sum, s->weight, s->model, s->model);
    summed_open(s);
}

#endif
