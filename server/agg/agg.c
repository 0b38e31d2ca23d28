#include "server/agg/agg.h"

#include "common/base/mem.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "models travel as they lie in memory, which is little-endian");

struct agg {
    const struct layout *layout;
    struct optimiser optimiser;
    struct bytes *model;
    struct bytes *state; /* of the optimiser; NULL: it has none */
    int64_t *sum;        /* [total] */
    int32_t *shifts;     /* [tensors]; a function of the model */
    uint64_t weight;
};

static int take_state(struct agg *agg, const float *state)
{
    uint64_t floats = optimiser_floats(&agg->optimiser, agg->layout);
    if (floats == 0) {
        return 0;
    }
    agg->state = bytes_new((size_t)floats * sizeof *state);
    if (!agg->state) {
        return ERR_NOMEM;
    }
    if (state) {
        memcpy(agg->state->data, state, agg->state->len);
    } else {
        optimiser_begin(&agg->optimiser, agg->layout, (float *)(void *)agg->state->data);
    }
    return 0;
}

int agg_new(const struct layout *layout, const float *params, const struct optimiser *optimiser, const float *state,
            struct agg **out)
{
    *out = NULL;
    struct agg *agg = mem_new(1, sizeof *agg);
    if (!agg) {
        return ERR_NOMEM;
    }
    agg->layout = layout;
    agg->optimiser = *optimiser;
    agg->model = bytes_copy(params, (size_t)layout->total * sizeof *params);
    agg->sum = mem_new_aligned((size_t)layout->total, sizeof *agg->sum);
    agg->shifts = mem_new(layout->count, sizeof *agg->shifts);
    if (!agg->model || !agg->sum || !agg->shifts || take_state(agg, state) != 0) {
        agg_free(agg);
        return ERR_NOMEM;
    }
    fixed_shifts(layout, agg_params(agg), agg->shifts);
    *out = agg;
    return 0;
}

void agg_free(struct agg *agg)
{
    if (agg) {
        bytes_unref(agg->model);
        bytes_unref(agg->state);
        mem_free(agg->sum);
        mem_free(agg->shifts);
        mem_free(agg);
    }
}

struct bytes *agg_model(const struct agg *agg)
{
    return agg->model;
}

const float *agg_params(const struct agg *agg)
{
    return (const float *)(const void *)agg->model->data;
}

uint64_t agg_weight(const struct agg *agg)
{
    return agg->weight;
}

enum fixed_verdict agg_add(struct agg *agg, const float *update, uint64_t weight, uint32_t *tensor)
{
    enum fixed_verdict verdict = fixed_add(agg->layout, agg->shifts, update, weight, agg->sum, tensor);
    agg->weight += verdict == FIXED_OK ? weight : 0;
    return verdict;
}

enum fixed_verdict agg_check(const struct agg *agg, const float *update, uint32_t *tensor)
{
    return fixed_check(agg->layout, agg->shifts, update, tensor);
}

void agg_take_back(struct agg *agg, const float *update, uint64_t weight)
{
    fixed_subtract(agg->layout, agg->shifts, update, weight, agg->sum);
    agg->weight -= weight;
}

int agg_apply(struct agg *agg, const struct rule *rule, const struct updates *updates, bool *kept, struct err *err)
{
    agg->weight = RULE_WEIGHT;
    return rule_apply(rule, agg->layout, agg->shifts, updates, agg->sum, kept, err);
}

int agg_finish(const struct agg *agg, struct bytes **next, struct bytes **next_state)
{
    *next = bytes_new((size_t)agg->layout->total * sizeof(float));
    *next_state = agg->state ? bytes_new(agg->state->len) : NULL;
    if (!*next || (agg->state && !*next_state)) {
        bytes_unref(*next);
        bytes_unref(*next_state);
        *next = *next_state = NULL;
        return ERR_NOMEM;
    }
    float *params = (float *)(void *)(*next)->data;
    const float *state = agg->state ? (const float *)(const void *)agg->state->data : NULL;
    float *state_then = *next_state ? (float *)(void *)(*next_state)->data : NULL;
    fixed_apply(agg->layout, agg->shifts, agg->sum, agg->weight, agg_params(agg), params);
    if (agg->optimiser.kind != OPTIMISER_NONE || agg->optimiser.learning_rate != 1) {
        optimiser_step(&agg->optimiser, agg->layout, agg->shifts, agg->sum, agg->weight, state, agg_params(agg),
                       state_then, params);
    }
    return 0;
}

void agg_restart(struct agg *agg, const struct bytes *next)
{
    agg->weight = 0;
    memset(agg->sum, 0, (size_t)agg->layout->total * sizeof *agg->sum);
    fixed_shifts(agg->layout, (const float *)(const void *)next->data, agg->shifts);
}

void agg_adopt(struct agg *agg, struct bytes *next, struct bytes *next_state)
{
    bytes_unref(agg->model);
    bytes_unref(agg->state);
    agg->model = next;
    agg->state = next_state;
}
