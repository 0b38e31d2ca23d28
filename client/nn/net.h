/* One network planned for one batch size: memory, layouts and kernels are fixed by net_new; forward and backward
 * allocate nothing. A net is used by one thread at a time. Everything here speaks native order (net_plan.h).
 *
 * Projection head: pooled backbone [n, c] -> linear c x c -> ReLU -> linear d x c -> L2 normalisation -> features [n,
 * d] (MoCo v2, Chen et al. 2020). What is exchanged and contrasted are the features; eval and embed use the backbone.
 */
#ifndef STARLING_NN_NET_H
#define STARLING_NN_NET_H

#include "client/nn/net_plan.h"
#include "client/nn/turns.h"

enum net_mode {
    NET_TRAIN, /* BN by the batch's statistics; forward keeps what backward needs */
    NET_BATCH, /* BN by the batch's statistics; forward only (the key encoder) */
    NET_EVAL,  /* BN by the running statistics; forward only */
};

/* Parameters as the kernels read them: the native vector, and prepared copies where a pass wants another layout or
 * type. Shared by any number of nets. */
struct net_weights;

/* mode: NET_TRAIN prepares for backward as well. lender: NULL, or weights whose memory is used as well: the two take
 * turns, each is prepared again before it is read, and the lender is freed last. ERR_NOMEM, ERR_FAILED. */
int net_weights_new(const struct net_plan *plan, enum net_mode mode, const struct net_weights *lender,
                    struct net_weights **out, struct err *err);
void net_weights_free(struct net_weights *weights);
/* After `native` has changed all items are to be prepared again, by any threads in any order. */
void net_weights_set(struct net_weights *weights, const float *native);
uint32_t net_weights_items(const struct net_weights *weights);
int net_weights_prepare(struct net_weights *weights, uint32_t item, struct err *err);

struct net;

/* Keeps the plan by reference. NET_TRAIN and NET_BATCH want a plan that trains. lender: NULL, or a net whose memory is
 * used as well, so that the two take turns: what one has computed is lost when the other runs. It is freed last.
 * ERR_NOMEM, ERR_FAILED. */
int net_new(const struct net_plan *plan, enum net_mode mode, const struct net *lender, struct net **out,
            struct err *err);
void net_free(struct net *net);
/* Bytes of maps, gradients and scratch memory. */
uint64_t net_bytes(const struct net *net);
/* The same for a net that is not built: what a step will need, before it starts. Without the kernels' scratch memory.
 */
int net_memory(const struct net_plan *plan, enum net_mode mode, uint64_t *bytes, struct err *err);

/* images: [batch, 3, input, input], normalised floats; NET_TRAIN reads them again in backward. backbone: [batch,
 * layout->backbone] or NULL. features: [batch, d] or NULL. stats (not NET_EVAL; may be NULL): [total - trainable_end],
 * in the layout's order: the batch's mean and second moment of every BN, to be folded into the running ones by the
 * caller. ERR_FAILED. */
int net_forward(struct net *net, const struct net_weights *weights, const float *images, float *backbone,
                float *features, float *stats, struct err *err);
/* Where a gradient goes: it is added to what earlier groups left, tensor by tensor, as soon as a tensor's is known. So
 * one vector serves all groups, and the order of the sum is that of the groups. */
struct net_gradient {
    float *total;        /* native [trainable_end]; gaps are not touched */
    float *part;         /* [net_part_floats], of this thread */
    uint32_t group;      /* 0 overwrites total, the others add */
    struct turns *turns; /* of net_parts parts; NULL: nobody else adds */
    bool finite;         /* out: whether all of this group's is */
};

uint32_t net_parts(const struct net_plan *plan);
uint64_t net_part_floats(const struct net_plan *plan);
/* NET_TRAIN, after net_forward with the same weights. dfeatures: [batch, d], gradient by the normalised features.
 * ERR_STATE also when a group before this one gave up. */
int net_backward(struct net *net, const struct net_weights *weights, const float *dfeatures,
                 struct net_gradient *gradient, struct err *err);

/* Multiply-adds times two of one image's forward pass, convolutions counted as direct. */
uint64_t net_flops(const struct layout *layout);

#endif
