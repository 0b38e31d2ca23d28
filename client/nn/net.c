/* Runs a planned network: convolutions by their kernels, everything else by simd.h. */
#include "client/nn/net_inside.h"

#include "client/nn/simd/simd.h"
#include "common/base/mem.h"

#include <string.h>

#define BN_EPSILON 1e-5f

static uint32_t channels_of(const struct net *net, const struct node *node)
{
    return net->maps[node->dst].map.channels;
}

static int new_kernels(struct net *net, size_t *scratch, struct err *err)
{
    const struct topology *t = net->plan->topology;
    for (uint32_t i = 0; i < t->nodes_count; i++) {
        const struct net_conv *conv = &net->plan->convs[i];
        for (int pass = 0; t->nodes[i].kind == NODE_CONV && pass < (net->mode == NET_TRAIN ? CONV_PASSES : 1); pass++) {
            struct conv_kernel **kernel = &net->steps[i].kernels[pass];
            if (pass == CONV_BACKWARD_DATA && t->nodes[i].src == 0) {
                continue;
            }
            int rc =
                conv_kernel_new(conv->format, &conv->shape, (enum conv_pass)pass, conv->methods[pass], kernel, err);
            if (rc != 0) {
                return rc;
            }
            *scratch = (*kernel)->scratch > *scratch ? (*kernel)->scratch : *scratch;
        }
    }
    return 0;
}

static int place_extras(struct net *net, struct err *err)
{
    const struct topology *t = net->plan->topology;
    for (uint32_t i = 0; i < t->nodes_count; i++) {
        const struct node *node = &t->nodes[i];
        int rc = 0;
        if (node->kind == NODE_BN) {
            rc = buffers_new(&net->buffers, 2 * channels_of(net, node) * sizeof(float), &net->steps[i].stats, err);
        } else if (node->kind == NODE_MAX && net->mode == NET_TRAIN) {
            rc = buffers_new(&net->buffers, map_elements(&net->maps[node->dst].map), &net->steps[i].best, err);
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* Everything but kernels and memory. */
static int sketch(const struct net_plan *plan, enum net_mode mode, struct net *net, struct err *err)
{
    const struct topology *t = plan->topology;
    *net = (struct net){.plan = plan, .mode = mode};
    net->maps = mem_new(t->maps_count, sizeof *net->maps);
    net->steps = mem_new(t->nodes_count, sizeof *net->steps);
    if (!net->maps || !net->steps) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    if (mode != NET_EVAL && !plan->trains) {
        return err_set(err, ERR_STATE, "this plan is one for evaluation");
    }
    for (uint32_t i = 0; i < t->maps_count; i++) {
        net->maps[i] = (struct net_map){.map = net_plan_map(plan, i), .data = BUFFER_NONE};
    }
    for (uint32_t i = 0; i < t->nodes_count; i++) {
        net->steps[i] = (struct net_step){.dsrc = BUFFER_NONE, .best = BUFFER_NONE, .stats = BUFFER_NONE};
    }
    int rc = place_forward(net, err);
    rc = rc || mode != NET_TRAIN ? rc : place_backward(net, err);
    return rc ? rc : place_extras(net, err);
}

static void net_fini(struct net *net)
{
    for (uint32_t i = 0; net->steps && i < net->plan->topology->nodes_count; i++) {
        for (int pass = 0; pass < CONV_PASSES; pass++) {
            struct conv_kernel *kernel = net->steps[i].kernels[pass];
            if (kernel) {
                kernel->backend->kernel_free(kernel);
            }
        }
    }
    buffers_fini(&net->buffers);
    head_fini(&net->head);
    mem_free(net->pooled);
    mem_free(net->dpooled);
    mem_free(net->maps);
    mem_free(net->steps);
}

int net_memory(const struct net_plan *plan, enum net_mode mode, uint64_t *bytes, struct err *err)
{
    struct net net;
    int rc = sketch(plan, mode, &net, err);
    *bytes = buffers_bytes(&net.buffers);
    net_fini(&net);
    return rc;
}

int net_new(const struct net_plan *plan, enum net_mode mode, const struct net *lender, struct net **out,
            struct err *err)
{
    *out = NULL;
    struct net *net = mem_new(1, sizeof *net);
    if (!net) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    size_t scratch = 0, pooled = (size_t)plan->batch * plan->layout->backbone;
    int rc = sketch(plan, mode, net, err);
    rc = rc ? rc : new_kernels(net, &scratch, err);
    rc = rc ? rc : buffers_new(&net->buffers, scratch, &net->scratch, err);
    rc = rc ? rc : buffers_allocate(&net->buffers, lender ? &lender->buffers : NULL, err);
    rc = rc ? rc : head_init(&net->head, plan, mode == NET_TRAIN, err);
    if (rc == 0) {
        net->pooled = mem_new_aligned(pooled, sizeof(float));
        net->dpooled = mem_new_aligned(mode == NET_TRAIN ? pooled : 0, sizeof(float));
        rc = net->pooled && net->dpooled ? 0 : err_set(err, ERR_NOMEM, "out of memory");
    }
    if (rc != 0) {
        net_free(net);
        return rc;
    }
    *out = net;
    return 0;
}

void net_free(struct net *net)
{
    if (net) {
        net_fini(net);
        mem_free(net);
    }
}

uint64_t net_bytes(const struct net *net)
{
    return buffers_bytes(&net->buffers);
}

static void *data_of(const struct net *net, uint32_t map)
{
    return buffers_data(&net->buffers, net->maps[map].data);
}

/* The images as the first convolution reads them. */
static const void *source_of(const struct net *net, const struct node *node)
{
    return node->src == 0 && net->maps[0].data == BUFFER_NONE ? net->images : data_of(net, node->src);
}

static const void *weights_of(const struct net_weights *weights, uint32_t node, enum conv_pass pass)
{
    const void *copy = weights->nodes[node].copies[pass == CONV_FORWARD ? 0 : 1];
    return copy ? copy : weights->native + net_plan_offset(weights->plan, weights->plan->topology->nodes[node].weight);
}

static const float *param(const struct net *net, const struct net_weights *weights, const struct tensor *tensor)
{
    return weights->native + net_plan_offset(net->plan, tensor);
}

static void running_statistics(const struct net *net, const struct net_weights *weights, const struct node *node,
                               float *mean, float *variance)
{
    const float *means = param(net, weights, node->mean), *squares = param(net, weights, node->square);
    for (uint32_t c = 0; c < channels_of(net, node); c++) {
        double m = (double)means[c], v = (double)squares[c] - m * m;
        mean[c] = (float)m;
        variance[c] = v > 0 ? (float)v : 0;
    }
}

static void bn_forward(struct net *net, const struct net_weights *weights, uint32_t i, float *stats)
{
    const struct node *node = &net->plan->topology->nodes[i];
    uint32_t channels = channels_of(net, node);
    float *mean = buffers_data(&net->buffers, net->steps[i].stats), *variance = mean + channels;
    struct bn_forward op = {.map = net->maps[node->dst].map,
                            .x = data_of(net, node->src),
                            .residual = node->residual ? data_of(net, node->other) : NULL,
                            .y = data_of(net, node->dst),
                            .relu = node->relu,
                            .given = net->mode == NET_EVAL,
                            .mean = mean,
                            .variance = variance,
                            .scale = param(net, weights, node->scale),
                            .shift = param(net, weights, node->shift),
                            .epsilon = BN_EPSILON};
    if (op.given) {
        running_statistics(net, weights, node, mean, variance);
    }
    simd()->bn_forward(&op);
    if (stats && !op.given) {
        float *means = stats + (node->mean->offset - net->plan->layout->trainable_end);
        float *squares = stats + (node->square->offset - net->plan->layout->trainable_end);
        for (uint32_t c = 0; c < channels; c++) {
            means[c] = mean[c];
            squares[c] = variance[c] + mean[c] * mean[c];
        }
    }
}

static int node_forward(struct net *net, const struct net_weights *weights, uint32_t i, float *stats, struct err *err)
{
    const struct node *node = &net->plan->topology->nodes[i];
    struct conv_kernel *kernel = net->steps[i].kernels[CONV_FORWARD];
    void *dst = data_of(net, node->dst);
    switch (node->kind) {
    case NODE_CONV:
        return kernel->backend->run(kernel, source_of(net, node), weights_of(weights, i, CONV_FORWARD), dst,
                                    buffers_data(&net->buffers, net->scratch), err);
    case NODE_BN:
        bn_forward(net, weights, i, stats);
        return 0;
    case NODE_MAX:
        simd()->max_forward(&(struct max_pool){net->maps[node->src].map, net->maps[node->dst].map,
                                               data_of(net, node->src), dst,
                                               buffers_data(&net->buffers, net->steps[i].best)});
        return 0;
    case NODE_AVERAGE:
        simd()->average_forward(&net->maps[node->src].map, data_of(net, node->src), net->pooled);
        return 0;
    }
    return 0;
}

int net_forward(struct net *net, const struct net_weights *weights, const float *images, float *backbone,
                float *features, float *stats, struct err *err)
{
    const struct layout *layout = net->plan->layout;
    net->images = images;
    if (net->plan->type == MAP_BF16) {
        simd()->to_bf16(data_of(net, 0), images, map_elements(&net->maps[0].map));
    }
    for (uint32_t i = 0; i < net->plan->topology->nodes_count; i++) {
        int rc = node_forward(net, weights, i, stats, err);
        if (rc != 0) {
            return rc;
        }
    }
    if (backbone) {
        memcpy(backbone, net->pooled, (size_t)net->plan->batch * layout->backbone * sizeof *backbone);
    }
    if (features || net->mode == NET_TRAIN) {
        head_forward(&net->head, weights->native, net->pooled);
    }
    if (features) {
        memcpy(features, net->head.features, (size_t)net->plan->batch * layout->spec.features * sizeof *features);
    }
    return 0;
}

struct segment {
    uint64_t offset, count; /* in the native vector */
};

/* Adds a part of the gradient to the total when it is its turn. Its segments lie in gradient->part, one behind the
 * other. */
static int store_part(struct net_gradient *gradient, uint32_t part, const struct segment *segments, uint32_t count,
                      struct err *err)
{
    uint64_t all = 0;
    for (uint32_t i = 0; i < count; i++) {
        all += segments[i].count;
    }
    gradient->finite = simd()->all_finite(gradient->part, all) && gradient->finite; /* others need not wait for this */
    if (gradient->turns && !turns_begin(gradient->turns, gradient->group, part)) {
        return err_set(err, ERR_STATE, "a group before this one failed");
    }
    const float *from = gradient->part;
    for (uint32_t i = 0; i < count; i++) {
        simd()->accumulate(gradient->total + segments[i].offset, from, segments[i].count, gradient->group == 0);
        from += segments[i].count;
    }
    if (gradient->turns) {
        turns_end(gradient->turns, part);
    }
    return 0;
}

static int conv_backward(struct net *net, const struct net_weights *weights, uint32_t i, struct net_gradient *gradient,
                         struct err *err)
{
    const struct node *node = &net->plan->topology->nodes[i];
    const struct net_step *step = &net->steps[i];
    const struct segment segment = {net_plan_offset(net->plan, node->weight), net->plan->convs[i].format->floats};
    void *ddst = buffers_data(&net->buffers, net->maps[node->dst].grad[0]);
    void *scratch = buffers_data(&net->buffers, net->scratch);
    struct conv_kernel *by_weights = step->kernels[CONV_BACKWARD_WEIGHTS];
    struct conv_kernel *by_data = step->kernels[CONV_BACKWARD_DATA];
    int rc = by_weights->backend->run(by_weights, source_of(net, node), ddst, gradient->part, scratch, err);
    rc = rc ? rc : store_part(gradient, i, &segment, 1, err);
    if (rc == 0 && by_data) {
        rc = by_data->backend->run(by_data, ddst, weights_of(weights, i, CONV_BACKWARD_DATA),
                                   buffers_data(&net->buffers, step->dsrc), scratch, err);
    }
    return rc;
}

static int bn_backward(struct net *net, const struct net_weights *weights, uint32_t i, struct net_gradient *gradient,
                       struct err *err)
{
    const struct node *node = &net->plan->topology->nodes[i];
    const struct net_map *dst = &net->maps[node->dst];
    uint32_t channels = channels_of(net, node);
    const float *mean = buffers_data(&net->buffers, net->steps[i].stats);
    const struct segment segments[] = {{net_plan_offset(net->plan, node->scale), channels},
                                       {net_plan_offset(net->plan, node->shift), channels}};
    simd()->bn_backward(&(struct bn_backward){
        .map = dst->map,
        .x = data_of(net, node->src),
        .y = node->relu ? data_of(net, node->dst) : NULL,
        .dy = buffers_data(&net->buffers, dst->grad[0]),
        .dy2 = dst->grads == 2 ? buffers_data(&net->buffers, dst->grad[1]) : NULL,
        .dx = buffers_data(&net->buffers, net->steps[i].dsrc),
        .mean = mean,
        .variance = mean + channels,
        .scale = param(net, weights, node->scale),
        .dscale = gradient->part,
        .dshift = gradient->part + channels,
        .epsilon = BN_EPSILON,
    });
    return store_part(gradient, i, segments, 2, err);
}

static int head_part(struct net *net, const struct net_weights *weights, const float *dfeatures,
                     struct net_gradient *gradient, struct err *err)
{
    const struct head *head = &net->head;
    uint64_t c = head->c, d = head->d;
    const struct segment segments[] = {
        {head->weight1, c * c}, {head->weight2, d * c}, {head->bias1, c}, {head->bias2, d}};
    head_backward(&net->head, weights->native, net->pooled, dfeatures, net->dpooled, gradient->part);
    return store_part(gradient, net_parts(net->plan) - 1, segments, 4, err);
}

static int node_backward(struct net *net, const struct net_weights *weights, uint32_t i, struct net_gradient *gradient,
                         struct err *err)
{
    const struct node *node = &net->plan->topology->nodes[i];
    const struct net_map *dst = &net->maps[node->dst];
    void *dsrc = buffers_data(&net->buffers, net->steps[i].dsrc);
    void *ddst = dst->grads > 0 ? buffers_data(&net->buffers, dst->grad[0]) : NULL;
    if (node->kind != NODE_BN && dst->grads == 2) {
        simd()->add(&dst->map, ddst, buffers_data(&net->buffers, dst->grad[1]));
    }
    switch (node->kind) {
    case NODE_CONV:
        return conv_backward(net, weights, i, gradient, err);
    case NODE_BN:
        return bn_backward(net, weights, i, gradient, err);
    case NODE_MAX:
        simd()->max_backward(&net->maps[node->src].map, &dst->map, dsrc, ddst,
                             buffers_data(&net->buffers, net->steps[i].best));
        return 0;
    case NODE_AVERAGE:
        simd()->average_backward(&net->maps[node->src].map, dsrc, net->dpooled);
        return 0;
    }
    return 0;
}

uint32_t net_parts(const struct net_plan *plan)
{
    return plan->topology->nodes_count + 1; /* the nodes' and the head's */
}

uint64_t net_part_floats(const struct net_plan *plan)
{
    uint64_t c = plan->layout->backbone, d = plan->layout->spec.features, most = c * c + d * c + c + d;
    for (uint32_t i = 0; i < plan->topology->nodes_count; i++) {
        const struct node *node = &plan->topology->nodes[i];
        uint64_t floats = node->kind == NODE_CONV ? plan->convs[i].format->floats
                                                  : 2 * (uint64_t)plan->topology->maps[node->dst].channels;
        most = floats > most ? floats : most;
    }
    return most;
}

int net_backward(struct net *net, const struct net_weights *weights, const float *dfeatures,
                 struct net_gradient *gradient, struct err *err)
{
    gradient->finite = true;
    if (net->mode != NET_TRAIN) {
        return err_set(err, ERR_STATE, "this net was planned for forward passes only");
    }
    int rc = head_part(net, weights, dfeatures, gradient, err);
    for (uint32_t i = net->plan->topology->nodes_count; i-- > 0 && rc == 0;) {
        rc = node_backward(net, weights, i, gradient, err);
    }
    return rc;
}
