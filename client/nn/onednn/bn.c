/* Batch normalisation, with the ReLU behind it fused where there is one.
 *
 * oneDNN's variance is the biased one, so the second moment of a batch is variance + mean^2, and back. */
#include "client/nn/onednn/step.h"

#include <string.h>

#define BN_EPSILON 1e-5f
#define BN_PADDING 16u /* floats of the widest vector: kernels may read per-channel rows in whole vectors */

static unsigned flags(const struct net *net, const struct node *node)
{
    return dnnl_use_scale | dnnl_use_shift | (node->relu ? (unsigned)dnnl_fuse_norm_relu : 0u) |
           (net->mode == NET_EVAL ? (unsigned)dnnl_use_global_stats : 0u);
}

int bn_describe(struct net *net, const struct node *node, int src, int *dst, struct err *err)
{
    dnnl_batch_normalization_desc_t op;
    dnnl_prop_kind_t kind = net->mode == NET_EVAL ? dnnl_forward_inference : dnnl_forward_training;
    struct step *step = net_append_step(net, STEP_BN, node, src);
    step->dst = *dst = net_append_map(net, &net->maps[src].md);
    const dnnl_memory_desc_t *md = &net->maps[src].md;
    int rc = dnn_check(dnnl_batch_normalization_forward_desc_init(&op, kind, md, BN_EPSILON, flags(net, node)),
                       node->scale->name, err);
    if (rc == 0) {
        rc = dnn_describe(&net->dnn, &op, NULL, node->scale->name, &step->forward_desc, err);
    }
    if (rc != 0 || net->mode != NET_TRAIN) {
        return rc;
    }
    rc =
        dnn_check(dnnl_batch_normalization_backward_desc_init(&op, dnnl_backward, md, md, BN_EPSILON, flags(net, node)),
                  node->scale->name, err);
    return rc ? rc : dnn_describe(&net->dnn, &op, step->forward_desc, node->scale->name, &step->backward_desc, err);
}

/* A row of one float a channel with a buffer of its own. */
static int channel_row(struct net *net, const struct step *step, int *buffer, dnnl_memory_t *memory, struct err *err)
{
    uint32_t channels = (uint32_t)step->node->scale->count;
    dnnl_dims_t dims = {channels};
    dnnl_memory_desc_t md;
    size_t bytes = (channels + BN_PADDING - 1) / BN_PADDING * BN_PADDING * sizeof(float);
    int rc;
    if ((rc = dnn_check(dnnl_memory_desc_init_by_tag(&md, 1, dims, dnnl_f32, dnnl_x), "channels", err)) ||
        (rc = dnn_buffer_new(&net->dnn, bytes, buffer, err))) {
        return rc;
    }
    return dnn_memory(&net->dnn, &md, *buffer, memory, err);
}

static int bind_workspace(struct net *net, struct step *step, dnnl_memory_t *memory, struct err *err)
{
    const dnnl_memory_desc_t *md = dnn_md(step->forward_desc, dnnl_query_workspace_md);
    if (net->mode == NET_BATCH) {
        step->workspace = net->workspace;
    } else {
        int rc = dnn_buffer_new(&net->dnn, 0, &step->workspace, err);
        if (rc != 0) {
            return rc;
        }
    }
    return dnn_memory(&net->dnn, md, step->workspace, memory, err);
}

int bn_bind(struct net *net, struct step *step, struct err *err)
{
    dnnl_memory_t src, dst, scale, shift, mean, variance, workspace = NULL, dsrc, ddst, dscale, dshift;
    bool keeps = step->node->relu && net->mode != NET_EVAL;
    int rc;
    if ((rc = net_map_memory(net, step->src, &src, err)) || (rc = net_map_memory(net, step->dst, &dst, err)) ||
        (rc = channel_row(net, step, &step->scale, &scale, err)) ||
        (rc = channel_row(net, step, &step->shift, &shift, err)) ||
        (rc = channel_row(net, step, &step->mean, &mean, err)) ||
        (rc = channel_row(net, step, &step->variance, &variance, err)) ||
        (rc = keeps ? bind_workspace(net, step, &workspace, err) : 0) ||
        (rc = dnn_call_init(&net->dnn, step->forward_desc, &step->forward, err))) {
        return rc;
    }
    dnn_call_arg(&step->forward, DNNL_ARG_SRC, src);
    dnn_call_arg(&step->forward, DNNL_ARG_DST, dst);
    dnn_call_arg(&step->forward, DNNL_ARG_SCALE, scale);
    dnn_call_arg(&step->forward, DNNL_ARG_SHIFT, shift);
    dnn_call_arg(&step->forward, DNNL_ARG_MEAN, mean);
    dnn_call_arg(&step->forward, DNNL_ARG_VARIANCE, variance);
    if (keeps) {
        dnn_call_arg(&step->forward, DNNL_ARG_WORKSPACE, workspace);
    }
    if (net->mode != NET_TRAIN) {
        return 0;
    }
    if ((rc = channel_row(net, step, &step->dscale, &dscale, err)) ||
        (rc = channel_row(net, step, &step->dshift, &dshift, err)) || (rc = net_dst_gradient(net, step, &ddst, err)) ||
        (rc = net_src_gradient(net, step, &dsrc, err)) ||
        (rc = dnn_call_init(&net->dnn, step->backward_desc, &step->backward, err))) {
        return rc;
    }
    dnn_call_arg(&step->backward, DNNL_ARG_SRC, src);
    dnn_call_arg(&step->backward, DNNL_ARG_MEAN, mean);
    dnn_call_arg(&step->backward, DNNL_ARG_VARIANCE, variance);
    dnn_call_arg(&step->backward, DNNL_ARG_SCALE, scale);
    dnn_call_arg(&step->backward, DNNL_ARG_SHIFT, shift);
    dnn_call_arg(&step->backward, DNNL_ARG_DIFF_DST, ddst);
    dnn_call_arg(&step->backward, DNNL_ARG_DIFF_SRC, dsrc);
    dnn_call_arg(&step->backward, DNNL_ARG_DIFF_SCALE, dscale);
    dnn_call_arg(&step->backward, DNNL_ARG_DIFF_SHIFT, dshift);
    if (keeps) {
        dnn_call_arg(&step->backward, DNNL_ARG_WORKSPACE, workspace);
    }
    return 0;
}

int bn_forward(struct net *net, struct step *step, const float *params, float *stats, struct err *err)
{
    const struct node *node = step->node;
    size_t channels = node->scale->count;
    float *mean = dnn_data(&net->dnn, step->mean), *variance = dnn_data(&net->dnn, step->variance);
    memcpy(dnn_data(&net->dnn, step->scale), params + node->scale->offset, channels * sizeof(float));
    memcpy(dnn_data(&net->dnn, step->shift), params + node->shift->offset, channels * sizeof(float));
    if (net->mode == NET_EVAL) {
        for (size_t c = 0; c < channels; c++) {
            double m = (double)params[node->mean->offset + c];
            double v = (double)params[node->square->offset + c] - m * m;
            mean[c] = (float)m;
            variance[c] = v > 0 ? (float)v : 0;
        }
    }
    int rc = dnn_run(&net->dnn, &step->forward, err);
    if (rc == 0 && stats && net->mode != NET_EVAL) {
        float *means = stats + (node->mean->offset - net->layout->trainable_end);
        float *squares = stats + (node->square->offset - net->layout->trainable_end);
        for (size_t c = 0; c < channels; c++) {
            means[c] = mean[c];
            squares[c] = variance[c] + mean[c] * mean[c];
        }
    }
    return rc;
}

int bn_backward(struct net *net, struct step *step, float *grad, struct err *err)
{
    const struct node *node = step->node;
    int rc = dnn_run(&net->dnn, &step->backward, err);
    if (rc != 0) {
        return rc;
    }
    const float *dscale = dnn_data(&net->dnn, step->dscale), *dshift = dnn_data(&net->dnn, step->dshift);
    for (size_t c = 0; c < node->scale->count; c++) {
        grad[node->scale->offset + c] += dscale[c];
        grad[node->shift->offset + c] += dshift[c];
    }
    return 0;
}
