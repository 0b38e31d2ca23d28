/* One network planned for one batch size: memory, layouts and primitives are fixed by net_new; forward and backward
 * allocate nothing. A net is used by one thread at a time, for which OpenMP's thread count becomes 1; parameters
 * are passed in and never kept. The layout is kept by reference.
 *
 * Projection head: pooled backbone [n, c] -> linear c x c -> ReLU -> linear d x c -> L2 normalisation -> features [n,
 * d] (MoCo v2, Chen et al. 2020). What is exchanged and contrasted are the features; eval and embed use the backbone.
 */
#ifndef STARLING_NN_NET_H
#define STARLING_NN_NET_H

#include "common/vec/layout.h"

enum net_mode {
    NET_TRAIN, /* BN by the batch's statistics; forward keeps what backward needs */
    NET_BATCH, /* BN by the batch's statistics; forward only (the key encoder) */
    NET_EVAL,  /* BN by the running statistics in params; forward only */
};

struct net;

/* ERR_NOMEM, ERR_CONFIG (an empty batch), ERR_FAILED (with oneDNN's reason). */
int net_new(const struct layout *layout, uint32_t batch, enum net_mode mode, struct net **out, struct err *err);
void net_free(struct net *net);

/* images: [batch, 3, input, input], normalised floats. backbone: [batch, layout->backbone] or NULL. features: [batch,
 * d] or NULL. stats (not NET_EVAL; may be NULL): [total - trainable_end], in the layout's order: the batch's mean and
 * second moment of every BN, to be folded into the running ones by the caller. ERR_FAILED. */
int net_forward(struct net *net, const float *params, const float *images, float *backbone, float *features,
                float *stats, struct err *err);
/* NET_TRAIN, after net_forward with the same params. dfeatures: [batch, d], gradient by the normalised features.
 * grad: [trainable_end], accumulated into. */
int net_backward(struct net *net, const float *params, const float *dfeatures, float *grad, struct err *err);

/* Bytes a net of this kind holds, for messages before it is built (upper estimate). */
uint64_t net_memory(const struct layout *layout, uint32_t batch, enum net_mode mode);
/* Multiply-adds times two of one image's forward pass, convolutions counted as direct. */
uint64_t net_flops(const struct layout *layout);

#endif
