/* Convolutions without bias. The caller's weights are plain OIHW; each pass has them reordered into the blocked layout
 * that its primitive wants, and the gradient is added to the caller's vector by a reorder as well. */
#include "client/nn/onednn/step.h"

#include <string.h>

struct conv_shape {
    dnnl_dims_t weights, strides, padding;
    dnnl_memory_desc_t plain, any_weights;
};

static int conv_shape(const struct node *node, struct conv_shape *shape, struct err *err)
{
    const struct tensor *weight = node->weight;
    for (int i = 0; i < 4; i++) {
        shape->weights[i] = weight->shape[i];
    }
    for (int i = 0; i < 2; i++) {
        shape->strides[i] = node->stride;
        shape->padding[i] = (node->kernel - 1) / 2;
    }
    int rc =
        dnn_check(dnnl_memory_desc_init_by_tag(&shape->plain, 4, shape->weights, dnnl_f32, dnnl_oihw), "weights", err);
    return rc ? rc
              : dnn_check(
                    dnnl_memory_desc_init_by_tag(&shape->any_weights, 4, shape->weights, dnnl_f32, dnnl_format_tag_any),
                    "weights", err);
}

static int describe_backward(struct net *net, const struct node *node, struct step *step, struct err *err)
{
    struct conv_shape shape;
    const dnnl_memory_desc_t *src = &net->maps[step->src].md, *dst = &net->maps[step->dst].md;
    dnnl_convolution_desc_t op;
    int rc = conv_shape(node, &shape, err);
    if (rc == 0) {
        rc = dnn_check(dnnl_convolution_backward_weights_desc_init(&op, dnnl_convolution_direct, src,
                                                                   &shape.any_weights, NULL, dst, shape.strides,
                                                                   shape.padding, shape.padding),
                       node->weight->name, err);
    }
    if (rc == 0) {
        rc = dnn_describe(&net->dnn, &op, step->forward_desc, node->weight->name, &step->weights_desc, err);
    }
    if (rc != 0 || node->src == 0) {
        return rc; /* nobody wants the gradient by the image */
    }
    rc = dnn_check(dnnl_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, src, &shape.any_weights, dst,
                                                            shape.strides, shape.padding, shape.padding),
                   node->weight->name, err);
    return rc ? rc : dnn_describe(&net->dnn, &op, step->forward_desc, node->weight->name, &step->backward_desc, err);
}

int conv_describe(struct net *net, const struct node *node, int src, int *dst, struct err *err)
{
    struct conv_shape shape;
    struct shape out = net->topology->maps[node->dst];
    const dnnl_memory_desc_t *now = &net->maps[src].md;
    dnnl_dims_t dst_dims = {net->batch, out.channels, out.side, out.side};
    dnnl_memory_desc_t any_src, any_dst;
    dnnl_convolution_desc_t op;
    dnnl_primitive_desc_t desc;
    dnnl_prop_kind_t kind = net->mode == NET_TRAIN ? dnnl_forward_training : dnnl_forward_inference;
    int rc;
    if ((rc = conv_shape(node, &shape, err)) ||
        (rc = dnn_check(dnnl_memory_desc_init_by_tag(&any_src, 4, now->dims, dnnl_f32, dnnl_format_tag_any), "map",
                        err)) ||
        (rc = dnn_check(dnnl_memory_desc_init_by_tag(&any_dst, 4, dst_dims, dnnl_f32, dnnl_format_tag_any), "map",
                        err)) ||
        (rc = dnn_check(dnnl_convolution_forward_desc_init(&op, kind, dnnl_convolution_direct, &any_src,
                                                           &shape.any_weights, NULL, &any_dst, shape.strides,
                                                           shape.padding, shape.padding),
                        node->weight->name, err)) ||
        (rc = dnn_describe(&net->dnn, &op, NULL, node->weight->name, &desc, err)) ||
        (rc = reorder_describe(net, src, dnn_md(desc, dnnl_query_src_md), &src, err))) {
        return rc;
    }
    struct step *step = net_append_step(net, STEP_CONV, node, src);
    step->forward_desc = desc;
    step->dst = *dst = net_append_map(net, dnn_md(desc, dnnl_query_dst_md));
    return net->mode == NET_TRAIN ? describe_backward(net, node, step, err) : 0;
}

/* A reorder between the caller's plain weights and the blocked memory that `desc` wants for its weights. */
static int bind_load(struct net *net, const struct step *step, dnnl_primitive_desc_t desc, struct dnn_call *call,
                     dnnl_memory_t *plain, dnnl_memory_t *blocked, struct err *err)
{
    struct conv_shape shape;
    dnnl_primitive_desc_t reorder;
    int buffer, rc;
    if ((rc = conv_shape(step->node, &shape, err)) || (rc = dnn_buffer_new(&net->dnn, 0, &buffer, err)) ||
        (rc = dnn_memory(&net->dnn, &shape.plain, DNN_NONE, plain, err)) ||
        (rc = dnn_memory(&net->dnn, dnn_md(desc, dnnl_query_weights_md), buffer, blocked, err)) ||
        (rc = dnn_describe_reorder(&net->dnn, &shape.plain, dnn_md(desc, dnnl_query_weights_md), false, &reorder,
                                   err)) ||
        (rc = dnn_call_init(&net->dnn, reorder, call, err))) {
        return rc;
    }
    dnn_call_arg(call, DNNL_ARG_FROM, *plain);
    dnn_call_arg(call, DNNL_ARG_TO, *blocked);
    return 0;
}

static int bind_backward_weights(struct net *net, struct step *step, dnnl_memory_t src, dnnl_memory_t ddst,
                                 struct err *err)
{
    struct conv_shape shape;
    dnnl_primitive_desc_t reorder;
    dnnl_memory_t dweights;
    const dnnl_memory_desc_t *md = dnn_md(step->weights_desc, dnnl_query_diff_weights_md);
    int rc;
    if ((rc = conv_shape(step->node, &shape, err)) ||
        (rc = dnn_memory(&net->dnn, md, net->weight_gradient, &dweights, err)) ||
        (rc = dnn_memory(&net->dnn, &shape.plain, DNN_NONE, &step->plain_dweights, err)) ||
        (rc = dnn_call_init(&net->dnn, step->weights_desc, &step->backward_weights, err)) ||
        (rc = dnn_describe_reorder(&net->dnn, md, &shape.plain, true, &reorder, err)) ||
        (rc = dnn_call_init(&net->dnn, reorder, &step->store, err))) {
        return rc;
    }
    dnn_call_arg(&step->backward_weights, DNNL_ARG_SRC, src);
    dnn_call_arg(&step->backward_weights, DNNL_ARG_DIFF_DST, ddst);
    dnn_call_arg(&step->backward_weights, DNNL_ARG_DIFF_WEIGHTS, dweights);
    dnn_call_arg(&step->store, DNNL_ARG_FROM, dweights);
    dnn_call_arg(&step->store, DNNL_ARG_TO, step->plain_dweights);
    return 0;
}

static int bind_backward_data(struct net *net, struct step *step, dnnl_memory_t ddst, struct err *err)
{
    dnnl_memory_t weights, dsrc;
    int rc;
    if ((rc = bind_load(net, step, step->backward_desc, &step->load_backward, &step->plain_weights_backward, &weights,
                        err)) ||
        (rc = net_src_gradient(net, step, &dsrc, err)) ||
        (rc = dnn_call_init(&net->dnn, step->backward_desc, &step->backward, err))) {
        return rc;
    }
    dnn_call_arg(&step->backward, DNNL_ARG_DIFF_DST, ddst);
    dnn_call_arg(&step->backward, DNNL_ARG_WEIGHTS, weights);
    dnn_call_arg(&step->backward, DNNL_ARG_DIFF_SRC, dsrc);
    return 0;
}

int conv_bind(struct net *net, struct step *step, struct err *err)
{
    dnnl_memory_t src, dst, ddst, weights;
    int rc;
    if ((rc = net_map_memory(net, step->src, &src, err)) || (rc = net_map_memory(net, step->dst, &dst, err)) ||
        (rc = bind_load(net, step, step->forward_desc, &step->load, &step->plain_weights, &weights, err)) ||
        (rc = dnn_call_init(&net->dnn, step->forward_desc, &step->forward, err))) {
        return rc;
    }
    dnn_call_arg(&step->forward, DNNL_ARG_SRC, src);
    dnn_call_arg(&step->forward, DNNL_ARG_WEIGHTS, weights);
    dnn_call_arg(&step->forward, DNNL_ARG_DST, dst);
    if (net->mode != NET_TRAIN) {
        return 0;
    }
    if ((rc = net_dst_gradient(net, step, &ddst, err)) || (rc = bind_backward_weights(net, step, src, ddst, err))) {
        return rc;
    }
    return step->dsrc == DNN_NONE ? 0 : bind_backward_data(net, step, ddst, err);
}

static int set_plain(dnnl_memory_t memory, const float *data, struct err *err)
{
    void *handle;
    memcpy(&handle, &data, sizeof handle); /* oneDNN takes a pointer to non-const also for what it only reads */
    return dnn_check(dnnl_memory_set_data_handle(memory, handle), "memory", err);
}

int conv_forward(struct net *net, struct step *step, const float *params, struct err *err)
{
    int rc;
    if ((rc = set_plain(step->plain_weights, params + step->node->weight->offset, err)) ||
        (rc = dnn_run(&net->dnn, &step->load, err))) {
        return rc;
    }
    return dnn_run(&net->dnn, &step->forward, err);
}

int conv_backward(struct net *net, struct step *step, const float *params, float *grad, struct err *err)
{
    int rc;
    if ((rc = set_plain(step->plain_dweights, grad + step->node->weight->offset, err)) ||
        (rc = dnn_run(&net->dnn, &step->backward_weights, err)) || (rc = dnn_run(&net->dnn, &step->store, err)) ||
        step->dsrc == DNN_NONE) {
        return rc;
    }
    if ((rc = set_plain(step->plain_weights_backward, params + step->node->weight->offset, err)) ||
        (rc = dnn_run(&net->dnn, &step->load_backward, err))) {
        return rc;
    }
    return dnn_run(&net->dnn, &step->backward, err);
}
