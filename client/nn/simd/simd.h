/* Everything in a step that is neither a convolution nor a matrix product: normalisation, ReLU, residual sums, pooling,
 * the optimiser and the exponentials of the losses. Written once on vectors of 16 floats (body.h) and compiled for each
 * instruction set, so that there is no code without a portable twin. All variants give the same bits: the order of
 * every sum is written down, and no multiply is fused with an add. */
#ifndef STARLING_NN_SIMD_H
#define STARLING_NN_SIMD_H

#include "client/nn/map.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Batch normalisation of x with what stands behind it; maps in MAP_PIXELS or MAP_BLOCKS, all alike. */
struct bn_forward {
    struct map map;
    const void *x, *residual; /* residual: NULL or a map that is added */
    void *y;                  /* may be x or residual */
    bool relu;
    bool given;             /* mean and variance are read instead of written */
    float *mean, *variance; /* [channels]; the biased variance */
    const float *scale, *shift;
    float epsilon;
};

struct bn_backward {
    struct map map;
    const void *x, *y; /* y: forward's output, whose zeros mask the gradient; NULL without a ReLU */
    void *dy;          /* overwritten by the masked sum g of both gradients, where there is a mask or a second one */
    const void *dy2;   /* a second gradient by y, or NULL */
    void *dx;          /* may be dy, which g is then lost from */
    const float *mean, *variance, *scale;
    float *dscale, *dshift; /* [channels], overwritten */
    float epsilon;
};

/* 3x3 maximum of stride 2 and padding 1; `best` keeps for each output which of the nine it was. */
struct max_pool {
    struct map src, dst;
    const void *x;
    void *y;
    uint8_t *best; /* as many as y has elements; NULL where no backward pass follows */
};

/* SGD with momentum and weight decay, and the key encoder that follows: one pass over flat memory. */
struct optimiser {
    float *params, *velocity, *key;
    const float *grad;
    uint64_t decay_end;
    float learning_rate, momentum, weight_decay, key_momentum;
};

struct simd {
    const char *name;
    void (*bn_forward)(const struct bn_forward *op);
    void (*bn_backward)(const struct bn_backward *op);
    void (*max_forward)(const struct max_pool *op);
    /* x, y: gradients; x is overwritten. */
    void (*max_backward)(const struct map *src, const struct map *dst, void *dx, const void *dy, const uint8_t *best);
    /* y [n, channels] f32: the mean over the pixels, and the gradient back. */
    void (*average_forward)(const struct map *map, const void *x, float *y);
    void (*average_backward)(const struct map *map, void *dx, const float *dy);
    void (*add)(const struct map *map, void *y, const void *x); /* y += x */
    void (*to_bf16)(uint16_t *out, const float *x, size_t n);   /* rounds to nearest even; NaN stays NaN */
    bool (*all_finite)(const float *x, size_t n);
    /* y := x where `first`, else y += x. */
    void (*accumulate)(float *y, const float *x, size_t n, bool first);
    /* values[i] := exp(values[i] - top), for values up to top; the sum is returned. Below exp(-87) it is 0. The error
     * is under 2 units in the last place. */
    double (*exponentials)(float *values, size_t n, float top);
    float (*largest)(const float *values, size_t n); /* -inf for none */
    void (*scale)(float *values, size_t n, float by);
    /* For i in [begin, end), as torch.optim.SGD has it:
     *   g = grad (+ weight_decay * p below decay_end);  v = momentum * v + g;  p -= learning_rate * v
     *   key = key_momentum * key + (1 - key_momentum) * p */
    void (*optimise)(const struct optimiser *op, uint64_t begin, uint64_t end);
};

/* The best variant for this processor. */
const struct simd *simd(void);
/* Variant i that this processor has, 0 being the portable one; NULL behind the last. */
const struct simd *simd_variant(uint32_t i);

#endif
