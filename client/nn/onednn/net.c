/* A net: plans the steps of a topology for oneDNN and runs them. The switches here are the table of contents of the
 * other files in this folder. */
#include "client/nn/onednn/step.h"

#include "client/nn/blas.h"
#include "client/nn/elementwise.h"
#include "common/base/mem.h"

#include <string.h>

struct step *net_append_step(struct net *net, enum step_kind kind, const struct node *node, int src)
{
    struct step *step = &net->steps[net->steps_count++];
    *step = (struct step){.kind = kind, .node = node, .src = src, .dsrc = DNN_NONE};
    return step;
}

int net_append_map(struct net *net, const dnnl_memory_desc_t *md)
{
    struct net_map *map = &net->maps[net->maps_count];
    *map = (struct net_map){.md = *md, .floats = dnnl_memory_desc_get_size(md) / sizeof(float)};
    return net->maps_count++;
}

int net_map_memory(struct net *net, int map, dnnl_memory_t *memory, struct err *err)
{
    return dnn_memory(&net->dnn, &net->maps[map].md, net->maps[map].data, memory, err);
}

int net_dst_gradient(struct net *net, const struct step *step, dnnl_memory_t *memory, struct err *err)
{
    const struct net_map *map = &net->maps[step->dst];
    return dnn_memory(&net->dnn, &map->md, map->grad[0], memory, err);
}

int net_src_gradient(struct net *net, const struct step *step, dnnl_memory_t *memory, struct err *err)
{
    return dnn_memory(&net->dnn, &net->maps[step->src].md, step->dsrc, memory, err);
}

static int describe_add(struct net *net, const struct node *node, int src, int other, int *dst, struct err *err)
{
    int rc = reorder_describe(net, other, &net->maps[src].md, &other, err);
    if (rc == 0) {
        struct step *step = net_append_step(net, STEP_ADD, node, src);
        step->other = other;
        step->dst = *dst = net_append_map(net, &net->maps[src].md);
    }
    return rc;
}

static int describe_node(struct net *net, const struct node *node, int *map, struct err *err)
{
    switch (node->kind) {
    case NODE_CONV:
        return conv_describe(net, node, map[node->src], &map[node->dst], err);
    case NODE_BN:
        return bn_describe(net, node, map[node->src], &map[node->dst], err);
    case NODE_ADD:
        return describe_add(net, node, map[node->src], map[node->other], &map[node->dst], err);
    case NODE_MAX:
    case NODE_AVERAGE:
        return pool_describe(net, node, map[node->src], &map[node->dst], err);
    }
    return err_set(err, ERR_FAILED, "unknown node");
}

/* All steps, from the image in the caller's plain layout to the pooled rows in the same. */
static int describe(struct net *net, struct err *err)
{
    const struct topology *t = net->topology;
    int *map = mem_new(t->maps_count, sizeof *map); /* of the topology -> of the net */
    if (!map) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    dnnl_memory_desc_t plain;
    dnnl_dims_t images = {net->batch, t->maps[0].channels, t->maps[0].side, t->maps[0].side};
    int rc = dnn_check(dnnl_memory_desc_init_by_tag(&plain, 4, images, dnnl_f32, dnnl_nchw), "images", err);
    if (rc == 0) {
        map[0] = net_append_map(net, &plain);
    }
    for (uint32_t i = 0; i < t->nodes_count && rc == 0; i++) {
        rc = describe_node(net, &t->nodes[i], map, err);
    }
    if (rc == 0) {
        dnnl_dims_t pooled = {net->batch, t->maps[t->maps_count - 1].channels, 1, 1};
        rc = dnn_check(dnnl_memory_desc_init_by_tag(&plain, 4, pooled, dnnl_f32, dnnl_nchw), "pooled rows", err);
    }
    if (rc == 0) {
        rc = reorder_describe(net, map[t->maps_count - 1], &plain, &map[0], err);
    }
    mem_free(map);
    return rc;
}

static int bind(struct net *net, struct step *step, struct err *err)
{
    switch (step->kind) {
    case STEP_CONV:
        return conv_bind(net, step, err);
    case STEP_BN:
        return bn_bind(net, step, err);
    case STEP_POOL:
        return pool_bind(net, step, err);
    case STEP_REORDER:
        return reorder_bind(net, step, err);
    case STEP_ADD:
        return 0;
    }
    return 0;
}

static int plan(struct net *net, struct err *err)
{
    int rc;
    if ((rc = dnn_init(&net->dnn, err)) || (rc = describe(net, err)) || (rc = place_forward(net, err)) ||
        (rc = net->mode == NET_TRAIN ? place_backward(net, err) : 0) ||
        (rc = dnn_buffer_new(&net->dnn, 0, &net->workspace, err)) ||
        (rc = dnn_buffer_new(&net->dnn, 0, &net->weight_gradient, err))) {
        return rc;
    }
    for (int i = 0; i < net->steps_count; i++) {
        if ((rc = bind(net, &net->steps[i], err))) {
            return rc;
        }
    }
    return dnn_allocate(&net->dnn, err);
}

int net_new_from(const struct layout *layout, struct topology *topology, uint32_t batch, enum net_mode mode,
                 struct net **out, struct err *err)
{
    *out = NULL;
    if (batch == 0) {
        topology_free(topology);
        return err_set(err, ERR_CONFIG, "a network needs a batch of at least one image");
    }
    blas_setup();
    dnn_single_thread();
    struct net *net = mem_new(1, sizeof *net);
    if (!net) {
        topology_free(topology);
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    net->layout = layout;
    net->topology = topology;
    net->batch = batch;
    net->mode = mode;
    /* Before each node there may be a reorder, and one behind the last. */
    size_t most = (size_t)topology->nodes_count * 2 + 2;
    net->steps = mem_new(most, sizeof *net->steps);
    net->maps = mem_new(most, sizeof *net->maps);
    int rc = net->steps && net->maps ? 0 : err_set(err, ERR_NOMEM, "out of memory");
    if (rc == 0) {
        rc = head_init(&net->head, layout, batch, mode == NET_TRAIN, err);
    }
    if (rc == 0) {
        rc = plan(net, err);
    }
    if (rc != 0) {
        net_free(net);
        return rc;
    }
    *out = net;
    return 0;
}

int net_new(const struct layout *layout, uint32_t batch, enum net_mode mode, struct net **out, struct err *err)
{
    *out = NULL;
    struct topology *topology;
    int rc = topology_new(layout, &topology, err);
    return rc ? rc : net_new_from(layout, topology, batch, mode, out, err);
}

void net_free(struct net *net)
{
    if (net) {
        dnn_fini(&net->dnn);
        head_fini(&net->head);
        topology_free(net->topology);
        mem_free(net->steps);
        mem_free(net->maps);
        mem_free(net);
    }
}

uint64_t net_bytes(const struct net *net)
{
    uint64_t sum = 0;
    for (int i = 0; i < net->dnn.buffers_count; i++) {
        sum += net->dnn.buffers[i].bytes;
    }
    return sum;
}

uint32_t net_reorders(const struct net *net)
{
    uint32_t count = 0;
    for (int i = 0; i < net->steps_count; i++) {
        count += net->steps[i].kind == STEP_REORDER;
    }
    return count;
}

static float *map_data(const struct net *net, int map)
{
    return dnn_data(&net->dnn, net->maps[map].data);
}

static int step_forward(struct net *net, struct step *step, const float *params, float *stats, struct err *err)
{
    switch (step->kind) {
    case STEP_CONV:
        return conv_forward(net, step, params, err);
    case STEP_BN:
        return bn_forward(net, step, params, stats, err);
    case STEP_POOL:
    case STEP_REORDER:
        return dnn_run(&net->dnn, &step->forward, err);
    case STEP_ADD:
        add_relu_forward(map_data(net, step->src), map_data(net, step->other), net->maps[step->dst].floats);
        return 0;
    }
    return 0;
}

int net_forward(struct net *net, const float *params, const float *images, float *backbone, float *features,
                float *stats, struct err *err)
{
    dnn_single_thread();
    memcpy(map_data(net, 0), images, net->maps[0].floats * sizeof *images);
    for (int i = 0; i < net->steps_count; i++) {
        int rc = step_forward(net, &net->steps[i], params, stats, err);
        if (rc != 0) {
            return rc;
        }
    }
    const float *pooled = map_data(net, net->maps_count - 1);
    if (backbone) {
        memcpy(backbone, pooled, net->maps[net->maps_count - 1].floats * sizeof *pooled);
    }
    if (features || net->mode == NET_TRAIN) {
        head_forward(&net->head, params, pooled);
    }
    if (features) {
        memcpy(features, net->head.features, (size_t)net->head.batch * net->head.d * sizeof *features);
    }
    return 0;
}

static int step_backward(struct net *net, struct step *step, const float *params, float *grad, struct err *err)
{
    const struct net_map *dst = &net->maps[step->dst];
    float *ddst = dnn_data(&net->dnn, dst->grad[0]);
    const float *more = dst->grads == 2 ? dnn_data(&net->dnn, dst->grad[1]) : NULL;
    if (step->sum_first) {
        add(ddst, more, dst->floats);
    }
    switch (step->kind) {
    case STEP_CONV:
        return conv_backward(net, step, params, grad, err);
    case STEP_BN:
        return bn_backward(net, step, grad, err);
    case STEP_POOL:
        return dnn_run(&net->dnn, &step->backward, err);
    case STEP_REORDER:
        return step->dsrc == DNN_NONE ? 0 : dnn_run(&net->dnn, &step->backward, err);
    case STEP_ADD:
        add_relu_backward(ddst, more, map_data(net, step->dst), dst->floats);
        return 0;
    }
    return 0;
}

int net_backward(struct net *net, const float *params, const float *dfeatures, float *grad, struct err *err)
{
    dnn_single_thread();
    if (net->mode != NET_TRAIN) {
        return err_set(err, ERR_STATE, "this net was planned for forward passes only");
    }
    const struct net_map *last = &net->maps[net->maps_count - 1];
    head_backward(&net->head, params, dnn_data(&net->dnn, last->data), dfeatures, dnn_data(&net->dnn, last->grad[0]),
                  grad);
    for (int i = net->steps_count; i-- > 0;) {
        int rc = step_backward(net, &net->steps[i], params, grad, err);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}
