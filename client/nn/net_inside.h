/* The inside of a net, shared by the files that plan, place and run it. */
#ifndef STARLING_NN_NET_INSIDE_H
#define STARLING_NN_NET_INSIDE_H

#include "client/nn/buffers.h"
#include "client/nn/head.h"
#include "client/nn/net.h"

/* A map's gradient lies in one buffer for each reader of the map, since a backward convolution cannot add to what is
 * there; who backs the map's writer up adds them. */
struct net_map {
    struct map map;
    int readers;
    int data;    /* buffer; BUFFER_NONE: the caller's images */
    int grad[2]; /* buffers, `grads` of them */
    int grads;
};

/* What a node of the topology needs besides. */
struct net_step {
    int dsrc;  /* buffer of the gradient by src; BUFFER_NONE where nobody wants it */
    int best;  /* NODE_MAX: buffer of the positions */
    int stats; /* NODE_BN: buffer of mean and variance, [2, channels] */
    struct conv_kernel *kernels[CONV_PASSES];
};

struct net {
    const struct net_plan *plan;
    enum net_mode mode;
    struct buffers buffers;
    struct net_map *maps;
    struct net_step *steps;
    const float *images; /* of the pass that runs */
    int scratch;
    float *pooled, *dpooled; /* [batch, backbone] */
    struct head head;
};

struct net_weights {
    const struct net_plan *plan;
    const float *native;
    bool backward;
    const struct net_weights *lender;
    struct net_prepared {
        struct conv_kernel *kernels[2]; /* CONV_FORWARD, CONV_BACKWARD_DATA */
        void *copies[2];                /* NULL: the native ones are read */
    } * nodes;
};

/* place.c */
int place_forward(struct net *net, struct err *err);
int place_backward(struct net *net, struct err *err);

#endif
