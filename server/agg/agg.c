#include "server/agg/agg.h"

#include "common/base/mem.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "models travel as they lie in memory, which is little-endian");

struct agg {
    const struct layout *layout;
    struct bytes *model;
    int64_t *sum;    /* [total] */
    int32_t *shifts; /* [tensors]; a function of the model */
    uint64_t weight;
};

int agg_new(const struct layout *layout, const float *params, struct agg **out)
{
    *out = NULL;
    struct agg *agg = mem_new(1, sizeof *agg);
    if (!agg) {
        return ERR_NOMEM;
    }
    agg->layout = layout;
    agg->model = bytes_copy(params, (size_t)layout->total * sizeof *params);
    agg->sum = mem_new_aligned((size_t)layout->total, sizeof *agg->sum);
    agg->shifts = mem_new(layout->count, sizeof *agg->shifts);
    if (!agg->model || !agg->sum || !agg->shifts) {
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

enum fixed_verdict agg_check(const struct agg *agg, const float *update, uint32_t *tensor)
{
    return fixed_check(agg->layout, agg->shifts, update, tensor);
}

void agg_add(struct agg *agg, const float *update, uint64_t weight)
{
    fixed_add(agg->layout, agg->shifts, update, weight, agg->sum);
    agg->weight += weight;
}

int agg_finish(const struct agg *agg, struct bytes **next)
{
    *next = bytes_new((size_t)agg->layout->total * sizeof(float));
    if (!*next) {
        return ERR_NOMEM;
    }
    fixed_apply(agg->layout, agg->shifts, agg->sum, agg->weight, agg_params(agg), (float *)(void *)(*next)->data);
    return 0;
}

void agg_restart(struct agg *agg, const struct bytes *next)
{
    agg->weight = 0;
    memset(agg->sum, 0, (size_t)agg->layout->total * sizeof *agg->sum);
    fixed_shifts(agg->layout, (const float *)(const void *)next->data, agg->shifts);
}

void agg_adopt(struct agg *agg, struct bytes *next)
{
    bytes_unref(agg->model);
    agg->model = next;
}
