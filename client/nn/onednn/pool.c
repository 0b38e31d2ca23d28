/* Pooling, and moving a map from one layout into another. Both are one primitive forward and one backward, without
 * parameters. */
#include "client/nn/onednn/step.h"

static dnnl_alg_kind_t algorithm(const struct node *node)
{
    return node->kind == NODE_MAX ? dnnl_pooling_max : dnnl_pooling_avg_exclude_padding;
}

int pool_describe(struct net *net, const struct node *node, int src, int *dst, struct err *err)
{
    struct shape out = net->topology->maps[node->dst];
    dnnl_dims_t dims = {net->batch, out.channels, out.side, out.side}, kernel = {node->kernel, node->kernel};
    int64_t pad = node->kind == NODE_MAX ? (node->kernel - 1) / 2 : 0;
    dnnl_dims_t strides = {node->stride, node->stride}, padding = {pad, pad};
    dnnl_memory_desc_t any_dst;
    dnnl_pooling_desc_t op;
    dnnl_prop_kind_t kind = net->mode == NET_TRAIN ? dnnl_forward_training : dnnl_forward_inference;
    struct step *step = net_append_step(net, STEP_POOL, node, src);
    int rc;
    if ((rc = dnn_check(dnnl_memory_desc_init_by_tag(&any_dst, 4, dims, dnnl_f32, dnnl_format_tag_any), "map", err)) ||
        (rc = dnn_check(dnnl_pooling_forward_desc_init(&op, kind, algorithm(node), &net->maps[src].md, &any_dst,
                                                       strides, kernel, padding, padding),
                        "pooling", err)) ||
        (rc = dnn_describe(&net->dnn, &op, NULL, "pooling", &step->forward_desc, err))) {
        return rc;
    }
    step->dst = *dst = net_append_map(net, dnn_md(step->forward_desc, dnnl_query_dst_md));
    if (net->mode != NET_TRAIN) {
        return 0;
    }
    rc = dnn_check(dnnl_pooling_backward_desc_init(&op, algorithm(node), &net->maps[src].md, &net->maps[*dst].md,
                                                   strides, kernel, padding, padding),
                   "pooling", err);
    return rc ? rc : dnn_describe(&net->dnn, &op, step->forward_desc, "pooling", &step->backward_desc, err);
}

int pool_bind(struct net *net, struct step *step, struct err *err)
{
    dnnl_memory_t src, dst, workspace = NULL, dsrc, ddst;
    bool keeps = step->node->kind == NODE_MAX && net->mode == NET_TRAIN;
    int rc;
    if ((rc = net_map_memory(net, step->src, &src, err)) || (rc = net_map_memory(net, step->dst, &dst, err)) ||
        (rc = dnn_call_init(&net->dnn, step->forward_desc, &step->forward, err))) {
        return rc;
    }
    dnn_call_arg(&step->forward, DNNL_ARG_SRC, src);
    dnn_call_arg(&step->forward, DNNL_ARG_DST, dst);
    if (keeps) {
        if ((rc = dnn_buffer_new(&net->dnn, 0, &step->workspace, err)) ||
            (rc = dnn_memory(&net->dnn, dnn_md(step->forward_desc, dnnl_query_workspace_md), step->workspace,
                             &workspace, err))) {
            return rc;
        }
        dnn_call_arg(&step->forward, DNNL_ARG_WORKSPACE, workspace);
    }
    if (net->mode != NET_TRAIN) {
        return 0;
    }
    if ((rc = net_dst_gradient(net, step, &ddst, err)) || (rc = net_src_gradient(net, step, &dsrc, err)) ||
        (rc = dnn_call_init(&net->dnn, step->backward_desc, &step->backward, err))) {
        return rc;
    }
    dnn_call_arg(&step->backward, DNNL_ARG_DIFF_DST, ddst);
    dnn_call_arg(&step->backward, DNNL_ARG_DIFF_SRC, dsrc);
    if (keeps) {
        dnn_call_arg(&step->backward, DNNL_ARG_WORKSPACE, workspace);
    }
    return 0;
}

int reorder_describe(struct net *net, int src, const dnnl_memory_desc_t *md, int *dst, struct err *err)
{
    if (dnnl_memory_desc_equal(&net->maps[src].md, md)) {
        *dst = src;
        return 0;
    }
    struct step *step = net_append_step(net, STEP_REORDER, NULL, src);
    int rc = dnn_describe_reorder(&net->dnn, &net->maps[src].md, md, false, &step->forward_desc, err);
    if (rc == 0 && net->mode == NET_TRAIN) {
        rc = dnn_describe_reorder(&net->dnn, md, &net->maps[src].md, false, &step->backward_desc, err);
    }
    step->dst = *dst = net_append_map(net, md);
    return rc;
}

int reorder_bind(struct net *net, struct step *step, struct err *err)
{
    dnnl_memory_t src, dst, dsrc, ddst;
    int rc;
    if ((rc = net_map_memory(net, step->src, &src, err)) || (rc = net_map_memory(net, step->dst, &dst, err)) ||
        (rc = dnn_call_init(&net->dnn, step->forward_desc, &step->forward, err))) {
        return rc;
    }
    dnn_call_arg(&step->forward, DNNL_ARG_FROM, src);
    dnn_call_arg(&step->forward, DNNL_ARG_TO, dst);
    if (step->dsrc == DNN_NONE) {
        return 0;
    }
    if ((rc = net_dst_gradient(net, step, &ddst, err)) || (rc = net_src_gradient(net, step, &dsrc, err)) ||
        (rc = dnn_call_init(&net->dnn, step->backward_desc, &step->backward, err))) {
        return rc;
    }
    dnn_call_arg(&step->backward, DNNL_ARG_FROM, ddst);
    dnn_call_arg(&step->backward, DNNL_ARG_TO, dsrc);
    return 0;
}
