/* Which buffer each map and each gradient lies in.
 *
 * Forward: a training net keeps every map, since backward reads them; the others give a map's buffer back after its
 * last reader and normalise in place.
 *
 * Backward, in reverse order: a gradient's buffer is taken when it is written and given back when the step that
 * consumes it is done. The gradient by a residual sum is the gradient by both its terms, so its buffer is shared. */
#include "client/nn/net_inside.h"

static void read_done(struct net *net, uint32_t map)
{
    if (--net->maps[map].readers == 0 && net->mode != NET_TRAIN && net->maps[map].data != BUFFER_NONE) {
        buffers_release(&net->buffers, net->maps[map].data);
    }
}

static int place_node(struct net *net, const struct node *node, struct err *err)
{
    struct net_map *src = &net->maps[node->src], *dst = &net->maps[node->dst];
    int rc = 0;
    if (node->kind == NODE_BN && net->mode != NET_TRAIN && src->readers == 1) {
        dst->data = src->data;
        buffers_share(&net->buffers, dst->data);
    } else if (node->kind != NODE_AVERAGE) {
        rc = buffers_acquire(&net->buffers, map_bytes(&dst->map), &dst->data, err);
    }
    read_done(net, node->src);
    if (node->residual) {
        read_done(net, node->other);
    }
    return rc;
}

int place_forward(struct net *net, struct err *err)
{
    const struct topology *t = net->plan->topology;
    for (uint32_t i = 0; i < t->nodes_count; i++) {
        net->maps[t->nodes[i].src].readers++;
        if (t->nodes[i].residual) {
            net->maps[t->nodes[i].other].readers++;
        }
    }
    /* bf16 nets have a copy of the images. */
    int rc = net->plan->type == MAP_F32
                 ? 0
                 : buffers_acquire(&net->buffers, map_bytes(&net->maps[0].map), &net->maps[0].data, err);
    for (uint32_t i = 0; i < t->nodes_count && rc == 0; i++) {
        rc = place_node(net, &t->nodes[i], err);
    }
    return rc;
}

static void add_gradient(struct net_map *map, int buffer)
{
    map->grad[map->grads++] = buffer;
}

static int place_gradient(struct net *net, const struct node *node, struct net_step *step, struct err *err)
{
    struct net_map *src = &net->maps[node->src], *dst = &net->maps[node->dst];
    int rc = 0;
    if (node->residual) {
        buffers_share(&net->buffers, dst->grad[0]);
        add_gradient(&net->maps[node->other], dst->grad[0]);
    }
    if (node->src == 0) {
        return 0; /* nobody wants the gradient by the image */
    }
    if (node->kind == NODE_BN && net->buffers.all[dst->grad[0]].users == 1) {
        step->dsrc = dst->grad[0];
        buffers_share(&net->buffers, step->dsrc);
    } else {
        rc = buffers_acquire(&net->buffers, map_bytes(&src->map), &step->dsrc, err);
    }
    if (rc == 0) {
        add_gradient(src, step->dsrc);
    }
    return rc;
}

int place_backward(struct net *net, struct err *err)
{
    const struct topology *t = net->plan->topology;
    int rc = 0;
    for (uint32_t i = t->nodes_count; i-- > 0 && rc == 0;) {
        const struct net_map *dst = &net->maps[t->nodes[i].dst];
        rc = place_gradient(net, &t->nodes[i], &net->steps[i], err);
        for (int k = 0; k < dst->grads && rc == 0; k++) {
            buffers_release(&net->buffers, dst->grad[k]);
        }
    }
    return rc;
}
