#include "client/nn/net_inside.h"

#include "common/base/mem.h"

static const enum conv_pass passes[2] = {CONV_FORWARD, CONV_BACKWARD_DATA};

static int new_node(struct net_weights *weights, uint32_t i, struct err *err)
{
    const struct net_conv *conv = &weights->plan->convs[i];
    struct net_prepared *node = &weights->nodes[i];
    bool by_data = weights->backward && weights->plan->topology->nodes[i].src != 0;
    for (int k = 0; k < (by_data ? 2 : 1); k++) {
        int rc =
            conv_kernel_new(conv->format, &conv->shape, passes[k], conv->methods[passes[k]], &node->kernels[k], err);
        if (rc != 0) {
            return rc;
        }
        size_t bytes = node->kernels[k]->prepared;
        if (weights->lender) {
            node->copies[k] = weights->lender->nodes[i].copies[k];
        } else if (bytes > 0 && !(node->copies[k] = mem_new_aligned(bytes, 1))) {
            return err_set(err, ERR_NOMEM, "out of memory (%zu bytes of weights)", bytes);
        }
    }
    return 0;
}

int net_weights_new(const struct net_plan *plan, enum net_mode mode, const struct net_weights *lender,
                    struct net_weights **out, struct err *err)
{
    *out = NULL;
    struct net_weights *weights = mem_new(1, sizeof *weights);
    if (!weights) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    weights->plan = plan;
    weights->backward = mode == NET_TRAIN;
    weights->lender = lender;
    weights->nodes = mem_new(plan->topology->nodes_count, sizeof *weights->nodes);
    int rc = weights->nodes ? 0 : err_set(err, ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; i < plan->topology->nodes_count && rc == 0; i++) {
        rc = plan->topology->nodes[i].kind == NODE_CONV ? new_node(weights, i, err) : 0;
    }
    if (rc != 0) {
        net_weights_free(weights);
        return rc;
    }
    *out = weights;
    return 0;
}

void net_weights_free(struct net_weights *weights)
{
    if (!weights) {
        return;
    }
    for (uint32_t i = 0; weights->nodes && i < weights->plan->topology->nodes_count; i++) {
        for (int k = 0; k < 2; k++) {
            struct conv_kernel *kernel = weights->nodes[i].kernels[k];
            if (kernel) {
                kernel->backend->kernel_free(kernel);
            }
            if (!weights->lender) {
                mem_free(weights->nodes[i].copies[k]);
            }
        }
    }
    mem_free(weights->nodes);
    mem_free(weights);
}

void net_weights_set(struct net_weights *weights, const float *native)
{
    weights->native = native;
}

uint32_t net_weights_items(const struct net_weights *weights)
{
    return weights->plan->topology->nodes_count;
}

int net_weights_prepare(struct net_weights *weights, uint32_t item, struct err *err)
{
    const struct net_prepared *node = &weights->nodes[item];
    for (int k = 0; k < 2; k++) {
        if (node->copies[k]) {
            const struct tensor *weight = weights->plan->topology->nodes[item].weight;
            const float *native = weights->native + net_plan_offset(weights->plan, weight);
            int rc = node->kernels[k]->backend->prepare(node->kernels[k], native, node->copies[k], err);
            if (rc != 0) {
                return rc;
            }
        }
    }
    return 0;
}
