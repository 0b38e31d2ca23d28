/* The layout of an encoder: which tensors it has, in which order, and where each lies in one flat float vector.
 *
 * Both sides build it from the plan's model, so that an update needs no description on the wire: a fingerprint of the
 * tensor table is enough. The flat vector has three regions, so that the optimiser walks memory once:
 *
 *   [0, decay_end)              weights (convolutions, linear): trained, with weight decay
 *   [decay_end, trainable_end)  BN scales and shifts, linear biases: trained, no weight decay
 *   [trainable_end, total)      BN statistics: running mean and running second moment, not trained
 *
 * BN keeps E[x] and E[x^2] in place of the variance, because the average of second moments over sites is right by
 * itself: the variance comes back as E[x^2] - E[x]^2, clamped at zero, and so includes how far the sites' means lie
 * apart.
 *
 * Convolution weights are OIHW, linear weights are [out, in], all row-major, as PyTorch has them. */
#ifndef STARLING_VEC_LAYOUT_H
#define STARLING_VEC_LAYOUT_H

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/hash.h"

#include <stdint.h>

enum model_block { MODEL_BLOCK_BASIC, MODEL_BLOCK_BOTTLENECK };
enum model_stem {
    MODEL_STEM_SMALL, /* 3x3 stride 1, for images of 32 to 64 pixels */
    MODEL_STEM_LARGE, /* 7x7 stride 2, then 3x3 max pooling of stride 2 */
};

#define MODEL_STAGES_MAX 4
/* The `model:` of the plan. ResNet (He et al., CVPR 2016), stage s has blocks[s] blocks of width << s channels. */
struct model_spec {
    uint32_t block; /* enum model_block */
    uint32_t stages;
    uint32_t blocks[MODEL_STAGES_MAX];
    uint32_t width;
    uint32_t stem;     /* enum model_stem */
    uint32_t input;    /* pixels a side */
    uint32_t features; /* d, the width of the projection that is exchanged */
};

enum tensor_kind {
    TENSOR_CONV,   /* [out, in, kh, kw] */
    TENSOR_LINEAR, /* [out, in] */
    TENSOR_BIAS,   /* [out] */
    TENSOR_BN_SCALE,
    TENSOR_BN_SHIFT,
    TENSOR_BN_MEAN,
    TENSOR_BN_SQUARE, /* running second moment E[x^2] */
};

#define LAYOUT_TOTAL_MAX (UINT64_C(1) << 31) /* floats */
#define LAYOUT_TABLE_MAX ((size_t)1 << 20)   /* bytes of layout_table */

#define TENSOR_NAME_MAX 48
struct tensor {
    char name[TENSOR_NAME_MAX]; /* as in "stage1.0.conv1.weight", see layout.c for the table */
    enum tensor_kind kind;
    uint32_t dims;
    uint32_t shape[4]; /* unused ones are 1 */
    uint64_t offset;   /* in floats */
    uint64_t count;
};

struct layout {
    struct model_spec spec;
    uint32_t count; /* tensors, in order of offset */
    struct tensor *tensors;
    uint64_t decay_end, trainable_end, total;
    uint32_t backbone; /* channels of the pooled backbone output, what eval and embed use */
    struct hash128 fingerprint;
};

/* ERR_CONFIG with the reason for a spec that makes no network (zero sizes, stages that would shrink the map below one
 * pixel, more than 2^31 parameters); ERR_NOMEM. *out is NULL on failure. */
int layout_new(const struct model_spec *spec, struct layout **out, struct err *err);
void layout_free(struct layout *layout);
/* NULL when there is no such tensor. */
const struct tensor *layout_find(const struct layout *layout, const char *name);
/* The tensor table as text, one line "name kind 64x3x3x3 offset" for each tensor; the fingerprint is its XXH3-128.
 * ERR_LIMIT, ERR_NOMEM. */
int layout_table(const struct layout *layout, struct buf *out);

/* The first global model: weights uniform in +-sqrt(6 / fan_in) for convolutions (He et al., ICCV 2015) and
 * +-sqrt(1 / fan_in) for linear layers, BN scale 1 and shift 0, mean 0 and square 1, biases 0. A function of spec and
 * seed, the same bits on every machine. params: [layout->total]. */
void params_init(const struct layout *layout, uint64_t seed, float *params);

#endif
