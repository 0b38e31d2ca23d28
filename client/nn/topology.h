/* The network as a list: which operations follow each other on which maps. Pure arithmetic on a layout, so that the
 * planner, the memory estimate and the count of operations cannot disagree.
 *
 * A map is what flows between operations, [batch, channels, side, side]; map 0 is the image, the last map is the pooled
 * backbone [batch, channels, 1, 1]. Every map but map 0 is written by one node and read by one or two later ones. */
#ifndef STARLING_NN_TOPOLOGY_H
#define STARLING_NN_TOPOLOGY_H

#include "common/vec/layout.h"

#include <stdbool.h>

enum node_kind {
    NODE_CONV, /* weight, kernel, stride, padding (kernel - 1) / 2 */
    NODE_BN,   /* scale, shift, mean, square; then the map `other` is added where `residual`; then ReLU where `relu` */
    NODE_MAX,  /* maximum over kernel x kernel, padding (kernel - 1) / 2 */
    NODE_AVERAGE, /* mean over the whole map */
};

struct node {
    enum node_kind kind;
    uint32_t src, other, dst; /* maps */
    uint32_t kernel, stride;
    bool residual, relu;
    const struct tensor *weight, *scale, *shift, *mean, *square; /* of the layout */
};

struct shape {
    uint32_t channels, side;
};

struct topology {
    struct node *nodes;
    struct shape *maps;
    uint32_t nodes_count, maps_count;
};

/* Keeps pointers into the layout. ERR_NOMEM; ERR_CONFIG for a layout whose tensors are not those of its spec. */
int topology_new(const struct layout *layout, struct topology **out, struct err *err);
void topology_free(struct topology *topology);

#endif
