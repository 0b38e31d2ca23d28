/* Nets for tests: one call each for what takes a plan, weights and a net, in the layout's own order of parameters. */
#ifndef STARLING_TESTS_NET_SUPPORT_H
#define STARLING_TESTS_NET_SUPPORT_H

#include "tests/unit/client/nn/nn_support.h"

#include "client/nn/net.h"
#include "client/nn/onednn/onednn.h"

/* The ways to compute. A way that this machine lacks is left out by its name in the test's output, never passed over in
 * silence. */
enum test_way { WAY_ONEDNN, WAY_OPENBLAS, WAY_WINOGRAD, WAY_BF16, WAYS };
static const char *const test_way_names[WAYS] = {"oneDNN f32", "OpenBLAS", "Winograd", "bf16"};

static inline bool test_way_exists(enum test_way way)
{
    bool exists = way == WAY_OPENBLAS || (way == WAY_BF16       ? onednn_has_bf16()
                                          : way == WAY_WINOGRAD ? onednn_has_avx512()
                                                                : onednn_present());
    if (!exists) {
        print_message("    not on this machine: %s\n", test_way_names[way]);
    }
    return exists;
}

static inline struct compute test_compute(enum test_way way, struct choices *choices)
{
    return (struct compute){.backend = way == WAY_OPENBLAS ? COMPUTE_OPENBLAS
                                       : way == WAY_ONEDNN ? COMPUTE_AUTO
                                                           : COMPUTE_ONEDNN,
                            .precision = way == WAY_BF16 ? COMPUTE_BF16 : COMPUTE_F32,
                            .winograd = way == WAY_WINOGRAD,
                            .choices = way == WAY_WINOGRAD ? choices : NULL};
}

/* Measures, and then lets Winograd win wherever it exists, however slow it is: tiles of 2 or of 4 in turn. */
static inline void test_force_winograd(struct choices *choices, uint32_t turn)
{
    for (uint32_t i = 0; i < choices->count; i++) {
        for (int type = MAP_F32; type <= MAP_BF16; type++) {
            double *time = choices->all[i].time[type];
            for (int method = CONV_DIRECT; method < CHOICE_METHODS; method++) {
                time[method] = time[method] > 0 ? 1e12 : 0;
            }
            int winner = (i + turn) % 2 ? CONV_WINOGRAD2 : CONV_WINOGRAD4;
            time[winner] = time[winner] > 0 ? 1 : 0;
        }
    }
}

/* Whether all passes that could run by Winograd do. */
static inline bool test_all_winograd(const struct net_plan *plan)
{
    for (uint32_t i = 0; i < plan->topology->nodes_count; i++) {
        const struct net_conv *conv = &plan->convs[i];
        bool can = plan->topology->nodes[i].kind == NODE_CONV && conv->shape.kernel == 3 && conv->shape.stride == 1 &&
                   conv->shape.src.format == MAP_BLOCKS;
        for (int pass = 0; can && pass < CONV_PASSES; pass++) {
            if (conv->methods[pass] != CONV_WINOGRAD2 && conv->methods[pass] != CONV_WINOGRAD4) {
                return false;
            }
        }
    }
    return true;
}

struct test_net {
    struct net_plan *plan;
    struct net_weights *weights;
    struct net *net;
    float *native, *grad, *part;
};

static inline void test_net_fini(struct test_net *t)
{
    net_free(t->net);
    net_weights_free(t->weights);
    net_plan_free(t->plan);
    mem_free(t->native);
    mem_free(t->grad);
    mem_free(t->part);
    *t = (struct test_net){0};
}

/* Takes the plan over, also when it fails. */
static inline int test_net_from(struct net_plan *plan, enum net_mode mode, struct test_net *out, struct err *err)
{
    *out = (struct test_net){.plan = plan};
    int rc = net_weights_new(plan, mode, NULL, &out->weights, err);
    rc = rc ? rc : net_new(plan, mode, NULL, &out->net, err);
    out->native = mem_new_aligned(plan->total, sizeof(float));
    out->grad = mem_new_aligned(plan->trainable_end, sizeof(float));
    out->part = mem_new_aligned(net_part_floats(plan), sizeof(float));
    if (rc == 0 && (!out->native || !out->grad || !out->part)) {
        rc = err_set(err, ERR_NOMEM, "out of memory");
    }
    if (rc != 0) {
        test_net_fini(out);
    }
    return rc;
}

static inline int test_net_new(const struct layout *layout, uint32_t batch, enum net_mode mode, enum test_way way,
                               struct test_net *out, struct err *err)
{
    struct net_plan *plan;
    struct choices choices = {0};
    struct compute compute = test_compute(way, &choices);
    *out = (struct test_net){0};
    int rc = net_plan_new(layout, batch, mode != NET_EVAL, &compute, &plan, err);
    if (rc == 0 && way == WAY_WINOGRAD && mode != NET_EVAL) {
        test_force_winograd(&choices, batch);
        net_plan_free(plan);
        rc = net_plan_new(layout, batch, true, &compute, &plan, err);
        assert_true(rc != 0 || test_all_winograd(plan));
    }
    choices_fini(&choices);
    return rc ? rc : test_net_from(plan, mode, out, err);
}

static inline void test_net_forward(struct test_net *t, const float *params, const float *images, float *backbone,
                                    float *features, float *stats)
{
    struct err err;
    int rc = net_pack(t->plan, params, t->native, &err);
    net_weights_set(t->weights, t->native);
    for (uint32_t i = 0; i < net_weights_items(t->weights) && rc == 0; i++) {
        rc = net_weights_prepare(t->weights, i, &err);
    }
    rc = rc ? rc : net_forward(t->net, t->weights, images, backbone, features, stats, &err);
    if (rc != 0) {
        fail_msg("%s", err.text);
    }
}

/* Whether the gradient is finite; grad [trainable_end], in the layout's order. */
static inline bool test_net_backward(struct test_net *t, const float *dfeatures, float *grad)
{
    struct err err;
    struct net_gradient gradient = {.total = t->grad, .part = t->part};
    int rc = net_backward(t->net, t->weights, dfeatures, &gradient, &err);
    rc = rc ? rc : net_unpack_gradient(t->plan, t->grad, grad, &err);
    if (rc != 0) {
        fail_msg("%s", err.text);
    }
    return gradient.finite;
}

#endif
