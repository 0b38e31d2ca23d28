#include "client/nn/net_plan.h"

#include "client/nn/blas.h"
#include "client/nn/onednn/onednn.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

#define ALIGN 16u /* floats: one cache line */

/* bf16 has to be clearly faster, since it is less exact. */
#define CLEARLY 1.03

static uint64_t aligned(uint64_t offset)
{
    return (offset + ALIGN - 1) / ALIGN * ALIGN;
}

struct map net_plan_map(const struct net_plan *plan, uint32_t map)
{
    struct shape shape = plan->topology->maps[map];
    return (struct map){plan->batch, shape.channels, shape.side, map == 0 ? MAP_PLANES : plan->format, plan->type};
}

static int choose_backend(struct net_plan *plan, const struct compute *compute, struct err *err)
{
    bool onednn = onednn_present();
    if (compute->backend == COMPUTE_ONEDNN && !onednn) {
        return err_set(err, ERR_CONFIG, "compute.backend: this program was built without oneDNN; use openblas or auto");
    }
    plan->backend = onednn && compute->backend != COMPUTE_OPENBLAS ? conv_onednn() : conv_im2col();
    plan->format = MAP_PIXELS;
    if (plan->backend == conv_im2col()) {
        return 0;
    }
    bool whole = onednn_has_avx512();
    for (uint32_t i = 1; i < plan->topology->maps_count; i++) {
        whole = whole && plan->topology->maps[i].channels % MAP_BLOCK == 0;
    }
    plan->format = whole ? MAP_BLOCKS : MAP_PIXELS;
    return 0;
}

/* Whether bf16 makes the sum of all passes clearly shorter than the best of f32. */
static int bf16_pays(struct net_plan *plan, const struct compute *compute, bool *pays, struct err *err)
{
    double f32 = 0, bf16 = 0;
    *pays = true;
    for (uint32_t i = 0; i < plan->topology->nodes_count; i++) {
        const struct node *node = &plan->topology->nodes[i];
        for (int pass = 0; node->kind == NODE_CONV && pass < CONV_PASSES; pass++) {
            if (pass == CONV_BACKWARD_DATA && node->src == 0) {
                continue;
            }
            const struct choice *c;
            int rc = choices_find(compute->choices, &plan->convs[i].shape, (enum conv_pass)pass, &c, err);
            if (rc != 0) {
                return rc;
            }
            /* Of the key encoder as well, and for as many images as will run. */
            double times = (pass == CONV_FORWARD ? 2.0 : 1.0) * plan->batch / c->shape.src.n, whole, half;
            (void)choice_best(c, MAP_F32, compute->winograd, &whole);
            (void)choice_best(c, MAP_BF16, compute->winograd, &half);
            f32 += times * whole;
            bf16 += times * half;
            *pays = *pays && half > 0;
        }
    }
    *pays = *pays && bf16 * CLEARLY < f32;
    return 0;
}

static void set_type(struct net_plan *plan, enum map_type type)
{
    plan->type = type;
    for (uint32_t i = 0; i < plan->topology->nodes_count; i++) {
        plan->convs[i].shape.src.type = plan->convs[i].shape.dst.type = type;
    }
}

static int choose_type(struct net_plan *plan, const struct compute *compute, struct err *err)
{
    bool possible = plan->format == MAP_BLOCKS && onednn_has_bf16();
    if (compute->precision == COMPUTE_BF16 && !possible) {
        const char *why = plan->backend != conv_onednn() ? "it needs the onednn backend"
                          : !onednn_has_bf16()           ? "this processor has no bf16 instructions (avx512_bf16)"
                                                         : "model.width is not a multiple of 16";
        return err_set(err, ERR_CONFIG, "compute.precision: bf16 is not possible here: %s; use f32 or auto", why);
    }
    bool bf16 = compute->precision == COMPUTE_BF16;
    if (compute->precision == COMPUTE_ANY && possible && compute->choices && plan->trains) {
        int rc = bf16_pays(plan, compute, &bf16, err);
        if (rc != 0) {
            return rc;
        }
    }
    set_type(plan, bf16 ? MAP_BF16 : MAP_F32);
    return 0;
}

static int choose_methods(struct net_plan *plan, struct net_conv *conv, const struct compute *compute, struct err *err)
{
    const struct choice *c;
    double ns;
    bool candidates = plan->backend == conv_onednn() && plan->trains && compute->winograd && compute->choices &&
                      plan->format == MAP_BLOCKS && conv->shape.kernel == 3 && conv->shape.stride == 1 &&
                      conv->shape.src.format == MAP_BLOCKS;
    struct conv_shape shape = conv->shape;
    shape.src.type = shape.dst.type = MAP_F32;
    for (int pass = 0; pass < CONV_PASSES; pass++) {
        conv->methods[pass] = plan->backend == conv_onednn() ? CONV_DIRECT : CONV_IM2COL;
        int rc = candidates ? choices_find(compute->choices, &shape, (enum conv_pass)pass, &c, err) : 0;
        if (rc != 0) {
            return rc;
        }
        if (candidates) {
            conv->methods[pass] = choice_best(c, plan->type, true, &ns);
        }
        if (candidates && ns == 0) {
            return err_set(err, ERR_CONFIG, "compute.precision: bf16 is not accurate on this machine; use f32 or auto");
        }
    }
    int rc = plan->backend->format_new(&conv->shape, plan->trains, &conv->format, err);
    if (rc == ERR_CONFIG && plan->format == MAP_PIXELS && plan->backend == conv_onednn()) {
        /* Three channels that lie as planes are no shape for oneDNN where the other maps lie as pixels. */
        for (int pass = 0; pass < CONV_PASSES; pass++) {
            conv->methods[pass] = CONV_IM2COL;
        }
        rc = conv_im2col()->format_new(&conv->shape, plan->trains, &conv->format, err);
    }
    return rc;
}

static struct net_conv *conv_of(const struct net_plan *plan, const struct tensor *tensor)
{
    for (uint32_t i = 0; i < plan->topology->nodes_count; i++) {
        if (plan->topology->nodes[i].kind == NODE_CONV && plan->topology->nodes[i].weight == tensor) {
            return &plan->convs[i];
        }
    }
    return NULL;
}

/* Statistics have no gaps between them, so that a batch's can be folded in as one row. */
static void settle_offsets(struct net_plan *plan)
{
    const struct layout *layout = plan->layout;
    uint64_t at = 0;
    for (uint32_t i = 0; i < layout->count; i++) {
        const struct tensor *tensor = &layout->tensors[i];
        const struct net_conv *conv = conv_of(plan, tensor);
        bool statistics = tensor->offset >= layout->trainable_end;
        at = statistics && tensor->offset > layout->trainable_end ? at : aligned(at);
        plan->offsets[i] = at;
        if (tensor->offset == layout->decay_end) {
            plan->decay_end = at;
        }
        if (tensor->offset == layout->trainable_end) {
            plan->trainable_end = at;
        }
        at += conv ? conv->format->floats : tensor->count;
    }
    plan->total = at;
    plan->trainable_end = layout->trainable_end == layout->total ? aligned(at) : plan->trainable_end;
    plan->total = plan->total > plan->trainable_end ? plan->total : plan->trainable_end;
}

static int settle(struct net_plan *plan, const struct compute *compute, struct err *err)
{
    struct topology *t = plan->topology;
    plan->convs = mem_new(t->nodes_count, sizeof *plan->convs);
    plan->offsets = mem_new(plan->layout->count, sizeof *plan->offsets);
    if (!plan->convs || !plan->offsets) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    int rc = choose_backend(plan, compute, err);
    for (uint32_t i = 0; i < t->nodes_count && rc == 0; i++) {
        const struct node *node = &t->nodes[i];
        plan->convs[i].shape = (struct conv_shape){net_plan_map(plan, node->src), net_plan_map(plan, node->dst),
                                                   node->kernel, node->stride};
    }
    rc = rc ? rc : choose_type(plan, compute, err);
    for (uint32_t i = 0; i < t->nodes_count && rc == 0; i++) {
        rc = t->nodes[i].kind == NODE_CONV ? choose_methods(plan, &plan->convs[i], compute, err) : 0;
    }
    if (rc == 0) {
        settle_offsets(plan);
    }
    return rc;
}

int net_plan_new_from(const struct layout *layout, struct topology *topology, uint32_t batch, bool trains,
                      const struct compute *compute, struct net_plan **out, struct err *err)
{
    *out = NULL;
    if (batch == 0) {
        topology_free(topology);
        return err_set(err, ERR_CONFIG, "a network needs a batch of at least one image");
    }
    blas_setup();
    struct net_plan *plan = mem_new(1, sizeof *plan);
    if (!plan) {
        topology_free(topology);
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    *plan = (struct net_plan){.layout = layout, .topology = topology, .batch = batch, .trains = trains};
    int rc = settle(plan, compute, err);
    if (rc != 0) {
        net_plan_free(plan);
        return rc;
    }
    *out = plan;
    return 0;
}

int net_plan_new(const struct layout *layout, uint32_t batch, bool trains, const struct compute *compute,
                 struct net_plan **out, struct err *err)
{
    *out = NULL;
    struct topology *topology;
    int rc = topology_new(layout, &topology, err);
    return rc ? rc : net_plan_new_from(layout, topology, batch, trains, compute, out, err);
}

void net_plan_free(struct net_plan *plan)
{
    if (!plan) {
        return;
    }
    for (uint32_t i = 0; plan->convs && i < plan->topology->nodes_count; i++) {
        if (plan->convs[i].format) {
            plan->convs[i].format->backend->format_free(plan->convs[i].format);
        }
    }
    topology_free(plan->topology);
    mem_free(plan->convs);
    mem_free(plan->offsets);
    mem_free(plan);
}

uint64_t net_plan_offset(const struct net_plan *plan, const struct tensor *tensor)
{
    return plan->offsets[tensor - plan->layout->tensors];
}

/* Tensors below `end`, one after the other. */
static int unpack(const struct net_plan *plan, uint64_t end, const float *native, float *plain, struct err *err)
{
    for (uint32_t i = 0; i < plan->layout->count; i++) {
        const struct tensor *tensor = &plan->layout->tensors[i];
        const struct net_conv *conv = conv_of(plan, tensor);
        if (tensor->offset >= end) {
            break;
        }
        if (conv) {
            int rc =
                conv->format->backend->unpack(conv->format, native + plan->offsets[i], plain + tensor->offset, err);
            if (rc != 0) {
                return rc;
            }
        } else {
            memcpy(plain + tensor->offset, native + plan->offsets[i], tensor->count * sizeof *plain);
        }
    }
    return 0;
}

int net_pack(const struct net_plan *plan, const float *params, float *native, struct err *err)
{
    memset(native, 0, plan->total * sizeof *native);
    for (uint32_t i = 0; i < plan->layout->count; i++) {
        const struct tensor *tensor = &plan->layout->tensors[i];
        const struct net_conv *conv = conv_of(plan, tensor);
        if (conv) {
            int rc = conv->format->backend->pack(conv->format, params + tensor->offset, native + plan->offsets[i], err);
            if (rc != 0) {
                return rc;
            }
        } else {
            memcpy(native + plan->offsets[i], params + tensor->offset, tensor->count * sizeof *native);
        }
    }
    return 0;
}

int net_unpack(const struct net_plan *plan, const float *native, float *params, struct err *err)
{
    return unpack(plan, plan->layout->total, native, params, err);
}

int net_unpack_gradient(const struct net_plan *plan, const float *native, float *grad, struct err *err)
{
    return unpack(plan, plan->layout->trainable_end, native, grad, err);
}

void net_plan_text(const struct net_plan *plan, char *out, size_t size)
{
    uint32_t passes = 0, winograd = 0;
    for (uint32_t i = 0; i < plan->topology->nodes_count; i++) {
        for (int pass = 0; plan->topology->nodes[i].kind == NODE_CONV && pass < CONV_PASSES; pass++) {
            passes += pass != CONV_BACKWARD_DATA || plan->topology->nodes[i].src != 0;
            winograd +=
                plan->convs[i].methods[pass] == CONV_WINOGRAD2 || plan->convs[i].methods[pass] == CONV_WINOGRAD4;
        }
    }
    (void)snprintf(out, size, "%s %s, Winograd in %u of %u passes", plan->backend->name,
                   plan->type == MAP_BF16 ? "bf16" : "f32", winograd, passes);
}
