/* The inside of a net: maps, and steps that turn one map into the next.
 *
 * A step goes through four stages, always in network order: described (descriptors, which settle layouts), placed
 * (buffers for maps and their gradients, place.c), bound (primitives with their arguments), and then run forward and,
 * in reverse order, backward. conv.c, bn.c and pool.c have one function for each stage that differs by kind. */
#ifndef STARLING_NN_ONEDNN_STEP_H
#define STARLING_NN_ONEDNN_STEP_H

#include "client/nn/head.h"
#include "client/nn/net_parts.h"
#include "client/nn/onednn/dnn.h"

/* A map in the layout that oneDNN chose. Its gradient lies alike, in one buffer for each reader of the map, since a
 * backward convolution cannot add to what is there; who backs the map's writer up adds them. */
struct net_map {
    dnnl_memory_desc_t md;
    size_t floats; /* with padding */
    int readers;
    int data;    /* buffer */
    int grad[2]; /* buffers, `grads` of them */
    int grads;
};

enum step_kind { STEP_CONV, STEP_BN, STEP_ADD, STEP_POOL, STEP_REORDER };

struct step {
    enum step_kind kind;
    const struct node *node; /* NULL: STEP_REORDER */
    int src, other, dst;     /* maps; other: STEP_ADD only */
    int dsrc;                /* buffer that backward leaves the gradient by src in; DNN_NONE where nobody wants it */
    bool sum_first;          /* dst has two gradients, to be added before backward runs */
    dnnl_primitive_desc_t forward_desc, backward_desc, weights_desc;
    struct dnn_call forward, backward;
    int workspace; /* buffer that forward keeps for backward, STEP_BN and STEP_POOL */

    /* STEP_CONV. Weights in forward's and in backward's layout, their gradient in its own. The plain ends of the
     * reorders lie in the caller's vectors. */
    struct dnn_call backward_weights, load, load_backward, store;
    dnnl_memory_t plain_weights, plain_weights_backward, plain_dweights;

    /* STEP_BN: [channels] each, padded to whole vectors. */
    int scale, shift, mean, variance, dscale, dshift;
};

struct net {
    const struct layout *layout;
    struct topology *topology;
    uint32_t batch;
    enum net_mode mode;
    struct dnn dnn;
    struct net_map *maps;
    struct step *steps;
    int maps_count, steps_count;
    int workspace;       /* NET_BATCH: one for all, since nobody reads it */
    int weight_gradient; /* one for all: it leaves for the caller's vector at once */
    struct head head;
};

/* describe: appends the step (and a reorder before it where layouts differ) and the map it writes. */
int conv_describe(struct net *net, const struct node *node, int src, int *dst, struct err *err);
int bn_describe(struct net *net, const struct node *node, int src, int *dst, struct err *err);
int pool_describe(struct net *net, const struct node *node, int src, int *dst, struct err *err);
/* Map `src` in the layout `md`: itself where it lies so already. */
int reorder_describe(struct net *net, int src, const dnnl_memory_desc_t *md, int *dst, struct err *err);

int conv_bind(struct net *net, struct step *step, struct err *err);
int bn_bind(struct net *net, struct step *step, struct err *err);
int pool_bind(struct net *net, struct step *step, struct err *err);
int reorder_bind(struct net *net, struct step *step, struct err *err);

int conv_forward(struct net *net, struct step *step, const float *params, struct err *err);
int conv_backward(struct net *net, struct step *step, const float *params, float *grad, struct err *err);
int bn_forward(struct net *net, struct step *step, const float *params, float *stats, struct err *err);
int bn_backward(struct net *net, struct step *step, float *grad, struct err *err);

/* place.c */
int place_forward(struct net *net, struct err *err);
int place_backward(struct net *net, struct err *err);

/* net.c: helpers of the describing stage. */
struct step *net_append_step(struct net *net, enum step_kind kind, const struct node *node, int src);
int net_append_map(struct net *net, const dnnl_memory_desc_t *md);
/* Memory objects for a map and for the gradients on both sides of a step. */
int net_map_memory(struct net *net, int map, dnnl_memory_t *memory, struct err *err);
int net_dst_gradient(struct net *net, const struct step *step, dnnl_memory_t *memory, struct err *err);
int net_src_gradient(struct net *net, const struct step *step, dnnl_memory_t *memory, struct err *err);

#endif
