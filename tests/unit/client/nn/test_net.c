/* Every operation's gradient, alone and in whole encoders, against finite differences; and what the modes of a net
 * promise of each other. */
#include "tests/unit/client/nn/net_support.h"

/* The loss is a fixed random combination of the features. */
struct probe {
    struct test_net *net;
    const float *images, *weights;
    float *features;
    size_t n;
};

static double probe_value(void *ctx, const float *params)
{
    struct probe *probe = ctx;
    test_net_forward(probe->net, params, probe->images, NULL, probe->features, NULL);
    return test_dot(probe->weights, probe->features, probe->n);
}

/* Checks every trained tensor of the layout. Takes the net and the parameters over. */
static void check_gradients(const struct layout *layout, struct test_net *net, uint32_t batch, float *params,
                            double tolerance)
{
    size_t n = (size_t)batch * layout->spec.features;
    float *images = test_normal(5, (size_t)batch * 3 * layout->spec.input * layout->spec.input);
    float *weights = test_normal(6, n), *features = test_floats(n), *grad = test_floats(layout->trainable_end);
    struct probe probe = {net, images, weights, features, n};
    (void)probe_value(&probe, params);
    assert_true(test_net_backward(net, weights, grad));
    for (uint32_t i = 0; i < layout->count; i++) {
        const struct tensor *tensor = &layout->tensors[i];
        if (tensor->offset < layout->trainable_end) {
            test_gradient(tensor->name, (struct test_function){probe_value, &probe, params}, grad, tensor->offset,
                          tensor->count, 0.002, tolerance);
        }
    }
    test_net_fini(net);
    mem_free(images);
    mem_free(weights);
    mem_free(features);
    mem_free(grad);
    mem_free(params);
}

/* In a whole encoder thousands of ReLUs turn within the smallest step that rounding allows, hence the wider tolerance;
 * the golden files hold the same gradients to 1e-4. */
static void check_encoder(const struct model_spec *spec, uint32_t batch)
{
    struct layout *layout = test_layout(spec);
    for (enum test_way way = WAY_ONEDNN; way <= WAY_OPENBLAS; way++) {
        struct test_net net;
        struct err err;
        if (!test_way_exists(way)) {
            continue;
        }
        if (test_net_new(layout, batch, NET_TRAIN, way, &net, &err) != 0) {
            fail_msg("%s", err.text);
        }
        check_gradients(layout, &net, batch, test_params(layout, 3), 0.04);
    }
    layout_free(layout);
}

static void small_stem(void **state)
{
    (void)state;
    check_encoder(&(struct model_spec){.block = MODEL_BLOCK_BASIC,
                                       .stages = 4,
                                       .blocks = {1, 1, 1, 1},
                                       .width = 8,
                                       .stem = MODEL_STEM_SMALL,
                                       .input = 16,
                                       .features = 16},
                  4);
}

static void large_stem(void **state)
{
    (void)state;
    check_encoder(&(struct model_spec){.block = MODEL_BLOCK_BASIC,
                                       .stages = 4,
                                       .blocks = {1, 1, 1, 1},
                                       .width = 8,
                                       .stem = MODEL_STEM_LARGE,
                                       .input = 32,
                                       .features = 16},
                  4);
}

/* Two blocks a stage: identity shortcuts, whose maps have two readers. 12 channels fill no vector. */
static void identity_shortcuts(void **state)
{
    (void)state;
    check_encoder(&(struct model_spec){.block = MODEL_BLOCK_BASIC,
                                       .stages = 2,
                                       .blocks = {2, 2},
                                       .width = 12,
                                       .stem = MODEL_STEM_SMALL,
                                       .input = 9,
                                       .features = 16},
                  4);
}

static void bottleneck(void **state)
{
    (void)state;
    check_encoder(&(struct model_spec){.block = MODEL_BLOCK_BOTTLENECK,
                                       .stages = 2,
                                       .blocks = {2, 1},
                                       .width = 8,
                                       .stem = MODEL_STEM_SMALL,
                                       .input = 8,
                                       .features = 16},
                  4);
}

/* Single operations. A layout by hand: up to four convolutions, a BN, a head. */
#define OP_CHANNELS 16u
#define OP_SIDE     9u

struct op {
    struct layout layout;
    struct tensor tensors[16];
    struct topology *topology;
    enum test_way way;
};

static const struct tensor *op_tensor(struct op *op, const char *name, enum tensor_kind kind, uint32_t a, uint32_t b,
                                      uint32_t kernel)
{
    struct layout *layout = &op->layout;
    struct tensor *tensor = &op->tensors[layout->count++];
    *tensor = (struct tensor){.kind = kind, .dims = 4, .shape = {a, b, kernel, kernel}, .offset = layout->total};
    (void)snprintf(tensor->name, sizeof tensor->name, "%s", name);
    tensor->count = (uint64_t)a * b * kernel * kernel;
    layout->total += tensor->count;
    layout->trainable_end = kind == TENSOR_BN_MEAN || kind == TENSOR_BN_SQUARE ? layout->trainable_end : layout->total;
    return tensor;
}

static void op_init(struct op *op, enum test_way way)
{
    memset(op, 0, sizeof *op);
    op->way = way;
    op->layout.tensors = op->tensors;
    op->layout.backbone = OP_CHANNELS;
    op->layout.spec.features = 8;
    op->layout.spec.input = OP_SIDE;
    (void)op_tensor(op, "head.0.weight", TENSOR_LINEAR, OP_CHANNELS, OP_CHANNELS, 1);
    (void)op_tensor(op, "head.0.bias", TENSOR_BIAS, OP_CHANNELS, 1, 1);
    (void)op_tensor(op, "head.1.weight", TENSOR_LINEAR, 8, OP_CHANNELS, 1);
    (void)op_tensor(op, "head.1.bias", TENSOR_BIAS, 8, 1, 1);
    op->topology = mem_new(1, sizeof *op->topology);
    assert_non_null(op->topology);
    op->topology->nodes = mem_new(16, sizeof *op->topology->nodes);
    op->topology->maps = mem_new(16, sizeof *op->topology->maps);
    assert_true(op->topology->nodes && op->topology->maps);
    op->topology->maps[op->topology->maps_count++] = (struct shape){3, OP_SIDE};
}

static struct node *op_node(struct op *op, enum node_kind kind, uint32_t src, uint32_t channels, uint32_t stride)
{
    struct topology *t = op->topology;
    struct node *node = &t->nodes[t->nodes_count++];
    *node = (struct node){.kind = kind, .src = src, .dst = t->maps_count, .stride = stride};
    t->maps[t->maps_count++] = (struct shape){channels, (t->maps[src].side + stride - 1) / stride};
    return node;
}

static uint32_t op_conv(struct op *op, const char *name, uint32_t src, uint32_t kernel, uint32_t stride)
{
    uint32_t in = op->topology->maps[src].channels;
    struct node *node = op_node(op, NODE_CONV, src, OP_CHANNELS, stride);
    node->kernel = kernel;
    node->weight = op_tensor(op, name, TENSOR_CONV, OP_CHANNELS, in, kernel);
    return node->dst;
}

/* After all trained tensors. residual: a map to add, or 0. */
static uint32_t op_bn(struct op *op, uint32_t src, bool relu, uint32_t residual)
{
    struct node *node = op_node(op, NODE_BN, src, OP_CHANNELS, 1);
    node->relu = relu;
    node->residual = residual != 0;
    node->other = residual;
    node->scale = op_tensor(op, "bn.scale", TENSOR_BN_SCALE, OP_CHANNELS, 1, 1);
    node->shift = op_tensor(op, "bn.shift", TENSOR_BN_SHIFT, OP_CHANNELS, 1, 1);
    node->mean = op_tensor(op, "bn.mean", TENSOR_BN_MEAN, OP_CHANNELS, 1, 1);
    node->square = op_tensor(op, "bn.square", TENSOR_BN_SQUARE, OP_CHANNELS, 1, 1);
    return node->dst;
}

static void op_check(struct op *op, uint32_t last)
{
    struct node *node = op_node(op, NODE_AVERAGE, last, OP_CHANNELS, 1);
    node->kernel = op->topology->maps[last].side;
    op->topology->maps[node->dst].side = 1;
    float *params = test_normal(9, op->layout.total);
    for (uint32_t i = 0; i < op->layout.count; i++) {
        const struct tensor *tensor = &op->tensors[i];
        bool weight = tensor->kind == TENSOR_CONV || tensor->kind == TENSOR_LINEAR;
        float by = weight ? 1 / sqrtf((float)(tensor->count / tensor->shape[0])) : 0.3f;
        for (uint64_t j = 0; j < tensor->count; j++) {
            params[tensor->offset + j] = params[tensor->offset + j] * by + (tensor->kind == TENSOR_BN_SCALE ? 1 : 0);
        }
    }
    const struct compute compute = test_compute(op->way, NULL);
    struct net_plan *plan;
    struct test_net net;
    struct err err;
    int rc = net_plan_new_from(&op->layout, op->topology, 4, true, &compute, &plan, &err);
    rc = rc ? rc : test_net_from(plan, NET_TRAIN, &net, &err);
    if (rc != 0) {
        fail_msg("%s", err.text);
    }
    check_gradients(&op->layout, &net, 4, params, 0.015);
}

static void op_convolution(enum test_way way)
{
    static const uint32_t kernels[] = {1, 3, 7}, strides[] = {1, 2};
    for (size_t i = 0; i < 6; i++) {
        struct op op;
        op_init(&op, way);
        /* The first one's gradient passes through the second. */
        uint32_t map = op_conv(&op, "first", 0, 3, 1);
        op_check(&op, op_conv(&op, "second", map, kernels[i % 3], strides[i / 3]));
    }
}

/* The mean over a normalised map is its shift whatever came before, so a sum with a ReLU stands behind BN. */
static void op_batch_norm(enum test_way way)
{
    struct op op;
    op_init(&op, way);
    uint32_t a = op_conv(&op, "branch", 0, 3, 1), b = op_conv(&op, "other", 0, 1, 1);
    op_check(&op, op_bn(&op, a, true, b));
}

static void op_batch_norm_relu(enum test_way way)
{
    struct op op;
    op_init(&op, way);
    op_check(&op, op_bn(&op, op_conv(&op, "conv", 0, 3, 1), true, 0));
}

/* Without a ReLU neither the sum nor a mask is written. */
static void op_batch_norm_alone(enum test_way way)
{
    struct op op;
    op_init(&op, way);
    struct node *node = op_node(&op, NODE_MAX, op_bn(&op, op_conv(&op, "conv", 0, 3, 1), false, 0), OP_CHANNELS, 2);
    node->kernel = 3;
    op_check(&op, node->dst);
}

static void op_max_pool(enum test_way way)
{
    struct op op;
    op_init(&op, way);
    struct node *node = op_node(&op, NODE_MAX, op_conv(&op, "conv", 0, 3, 1), OP_CHANNELS, 2);
    node->kernel = 3;
    op_check(&op, node->dst);
}

/* One map with two readers, and the sum that joins them again. */
static void op_sum(enum test_way way)
{
    struct op op;
    op_init(&op, way);
    uint32_t trunk = op_conv(&op, "trunk", 0, 3, 1);
    op_check(&op, op_bn(&op, op_conv(&op, "branch", trunk, 3, 1), true, trunk));
}

static void operations(void **state)
{
    (void)state;
    for (enum test_way way = WAY_ONEDNN; way <= WAY_OPENBLAS; way++) {
        if (test_way_exists(way)) {
            op_convolution(way);
            op_batch_norm(way);
            op_batch_norm_relu(way);
            op_batch_norm_alone(way);
            op_max_pool(way);
            op_sum(way);
        }
    }
}

/* What the modes promise of each other. */
static const struct model_spec tiny = {.block = MODEL_BLOCK_BASIC,
                                       .stages = 2,
                                       .blocks = {1, 1},
                                       .width = 8,
                                       .stem = MODEL_STEM_LARGE,
                                       .input = 16,
                                       .features = 8};

struct run {
    float *backbone, *features, *stats;
};

static struct run run(const struct layout *layout, enum net_mode mode, const float *params, const float *images)
{
    struct run out = {test_floats(6 * layout->backbone), test_floats(6 * layout->spec.features),
                      test_floats(layout->total - layout->trainable_end)};
    struct test_net net;
    assert_int_equal(test_net_new(layout, 6, mode, WAY_ONEDNN, &net, NULL), 0);
    /* Twice: what one forward leaves behind must not reach the next. */
    for (int i = 0; i < 2; i++) {
        test_net_forward(&net, params, images, out.backbone, out.features, out.stats);
    }
    test_net_fini(&net);
    return out;
}

static void run_fini(struct run *run)
{
    mem_free(run->backbone);
    mem_free(run->features);
    mem_free(run->stats);
}

static void assert_close(const float *a, const float *b, size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++) {
        if (!(fabs((double)a[i] - (double)b[i]) <= tolerance * (1 + fabs((double)b[i])))) {
            fail_msg("element %zu: %g is not %g", i, (double)a[i], (double)b[i]);
        }
    }
}

static void modes_agree(void **state)
{
    (void)state;
    struct layout *layout = test_layout(&tiny);
    float *params = test_params(layout, 4), *images = test_normal(8, (size_t)6 * 3 * 16 * 16);
    size_t stats = layout->total - layout->trainable_end, n = (size_t)6 * layout->spec.features;
    struct run train = run(layout, NET_TRAIN, params, images), batch = run(layout, NET_BATCH, params, images);
    assert_close(train.features, batch.features, n, 1e-5);
    assert_close(train.backbone, batch.backbone, (size_t)6 * layout->backbone, 1e-5);
    assert_close(train.stats, batch.stats, stats, 1e-5);

    struct run other = run(layout, NET_EVAL, params, images);
    double wrong = 0;
    memcpy(params + layout->trainable_end, batch.stats, stats * sizeof(float));
    struct run eval = run(layout, NET_EVAL, params, images);
    for (size_t i = 0; i < n; i++) {
        wrong = fmax(wrong, fabs((double)other.features[i] - (double)batch.features[i]));
    }
    assert_close(eval.features, batch.features, n, 1e-4); /* with the batch's own statistics as the running ones */
    assert_true(wrong > 1e-2);                            /* with others it is another function */
    run_fini(&train);
    run_fini(&batch);
    run_fini(&eval);
    run_fini(&other);
    mem_free(params);
    mem_free(images);
    layout_free(layout);
}

/* The first group's gradient overwrites, a later one's is added. */
static void backward_adds_up(void **state)
{
    (void)state;
    struct layout *layout = test_layout(&tiny);
    size_t n = layout->trainable_end;
    float *params = test_params(layout, 4), *images = test_normal(8, (size_t)6 * 3 * 16 * 16);
    float *dfeatures = test_normal(10, (size_t)6 * layout->spec.features), *once = test_floats(n),
          *again = test_floats(n);
    struct test_net net;
    assert_int_equal(test_net_new(layout, 6, NET_TRAIN, WAY_ONEDNN, &net, NULL), 0);
    test_net_forward(&net, params, images, NULL, NULL, NULL);
    assert_true(test_net_backward(&net, dfeatures, once));
    for (uint64_t i = 0; i < net.plan->trainable_end; i++) {
        net.grad[i] = 8;
    }
    test_net_forward(&net, params, images, NULL, NULL, NULL);
    assert_true(test_net_backward(&net, dfeatures, again));
    assert_memory_equal(once, again, n * sizeof *once);
    struct net_gradient more = {.total = net.grad, .part = net.part, .group = 1};
    assert_int_equal(net_backward(net.net, net.weights, dfeatures, &more, NULL), 0);
    assert_int_equal(net_unpack_gradient(net.plan, net.grad, again, NULL), 0);
    for (size_t i = 0; i < n; i++) { /* the second pass reads gradients of maps that the first has overwritten */
        assert_true(fabsf(again[i] - 2 * once[i]) <= 1e-5f * (1 + fabsf(once[i])));
    }
    dfeatures[3] = NAN;
    assert_false(test_net_backward(&net, dfeatures, again));
    test_net_fini(&net);
    mem_free(params);
    mem_free(images);
    mem_free(dfeatures);
    mem_free(once);
    mem_free(again);
    layout_free(layout);
}

/* The ways to compute against each other, on a net of whole vectors. */
static void ways_agree(void **state)
{
    (void)state;
    /* Relative to the norm of what is compared: features, then gradients. One ReLU that turns by Winograd's rounding
     * moves a gradient of this small net by 3e-4 (test_conv.c holds the kernels to 5e-6), and bf16 has 8 bits. Less
     * than the lower bound would mean that the way was not taken. */
    static const double most[WAYS][2] = {{0, 0}, {1e-6, 2e-5}, {1e-5, 1e-3}, {0.02, 0.1}};
    static const double least[WAYS] = {0, 1e-9, 1e-8, 1e-3};
    const struct model_spec spec = {.block = MODEL_BLOCK_BASIC,
                                    .stages = 2,
                                    .blocks = {2, 1},
                                    .width = 16,
                                    .stem = MODEL_STEM_SMALL,
                                    .input = 16,
                                    .features = 16};
    struct layout *layout = test_layout(&spec);
    size_t d = (size_t)8 * spec.features, n = layout->trainable_end;
    float *params = test_params(layout, 4), *images = test_normal(8, (size_t)8 * 3 * 16 * 16);
    float *dfeatures = test_normal(10, d), *features[WAYS] = {0}, *grads[WAYS] = {0};
    for (enum test_way way = WAY_ONEDNN; way < WAYS; way++) {
        struct test_net net;
        struct err err;
        if (!test_way_exists(way)) {
            continue;
        }
        if (test_net_new(layout, 8, NET_TRAIN, way, &net, &err) != 0) {
            fail_msg("%s: %s", test_way_names[way], err.text);
        }
        features[way] = test_floats(d);
        grads[way] = test_floats(n);
        test_net_forward(&net, params, images, NULL, features[way], NULL);
        assert_true(test_net_backward(&net, dfeatures, grads[way]));
        test_net_fini(&net);
        if (way == WAY_ONEDNN || !features[WAY_ONEDNN]) {
            continue;
        }
        double off = test_distance(features[way], features[WAY_ONEDNN], d);
        double slope = test_distance(grads[way], grads[WAY_ONEDNN], n);
        print_message("    %s: features off by %.2g, gradient by %.2g\n", test_way_names[way], off, slope);
        assert_true(off <= most[way][0] && slope <= most[way][1]);
        assert_true(slope >= least[way]);
    }
    for (enum test_way way = WAY_ONEDNN; way < WAYS; way++) {
        mem_free(features[way]);
        mem_free(grads[way]);
    }
    mem_free(params);
    mem_free(images);
    mem_free(dfeatures);
    layout_free(layout);
}

static void what_is_not_there_is_refused(void **state)
{
    (void)state;
    struct layout *layout = test_layout(&tiny); /* of width 8 */
    struct net_plan *plan;
    struct net_weights *weights;
    struct net *net;
    struct err err;
    struct net_gradient gradient = {0};
    const struct compute plain = {0}, bf16 = {.precision = COMPUTE_BF16};
    assert_int_equal(net_plan_new(layout, 0, true, &plain, &plan, &err), ERR_CONFIG);
    assert_null(plan);
    assert_int_equal(net_plan_new(layout, 2, true, &bf16, &plan, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "compute.precision"));
    assert_int_equal(net_plan_new(layout, 2, false, &plain, &plan, &err), 0);
    assert_int_equal(net_new(plan, NET_TRAIN, NULL, &net, &err), ERR_STATE);
    net_plan_free(plan);
    assert_int_equal(net_plan_new(layout, 2, true, &plain, &plan, &err), 0);
    assert_int_equal(net_weights_new(plan, NET_BATCH, NULL, &weights, &err), 0);
    assert_int_equal(net_new(plan, NET_BATCH, NULL, &net, &err), 0);
    assert_int_equal(net_backward(net, weights, NULL, &gradient, &err), ERR_STATE);
    net_free(net);
    net_weights_free(weights);
    net_plan_free(plan);
    layout_free(layout);
}

/* What is said before a net is built is what it holds, but for the scratch memory; forward-only nets hold a fraction of
 * what training does. */
static void memory_is_estimated(void **state)
{
    (void)state;
    struct model_spec specs[] = {
        {.block = MODEL_BLOCK_BASIC,
         .stages = 4,
         .blocks = {2, 2, 2, 2},
         .width = 16,
         .stem = MODEL_STEM_SMALL,
         .input = 32,
         .features = 128},
        {.block = MODEL_BLOCK_BASIC,
         .stages = 3,
         .blocks = {1, 1, 1},
         .width = 32,
         .stem = MODEL_STEM_LARGE,
         .input = 64,
         .features = 64},
    };
    for (size_t i = 0; i < 2; i++) {
        struct layout *layout = test_layout(&specs[i]);
        uint64_t bytes[3];
        for (int mode = NET_TRAIN; mode <= NET_EVAL; mode++) {
            struct test_net net;
            assert_int_equal(test_net_new(layout, 16, (enum net_mode)mode, WAY_ONEDNN, &net, NULL), 0);
            uint64_t said;
            bytes[mode] = net_bytes(net.net);
            assert_int_equal(net_memory(net.plan, (enum net_mode)mode, &said, NULL), 0);
            assert_true(said <= bytes[mode] && said >= bytes[mode] / 2);
            test_net_fini(&net);
        }
        assert_true(bytes[NET_BATCH] < bytes[NET_TRAIN] / 3);
        layout_free(layout);
    }
}

static void operations_are_counted(void **state)
{
    (void)state;
    struct layout *layout = test_layout(&(struct model_spec){.block = MODEL_BLOCK_BASIC,
                                                             .stages = 4,
                                                             .blocks = {2, 2, 2, 2},
                                                             .width = 64,
                                                             .stem = MODEL_STEM_SMALL,
                                                             .input = 32,
                                                             .features = 128});
    double gflops = (double)net_flops(layout) * 1e-9; /* ResNet-18 with a 3x3 stem: 0.557 G multiply-adds */
    assert_true(gflops > 1.10 && gflops < 1.13);
    layout_free(layout);
}

/* Each allocation fails in turn: the net is refused whole, and nothing leaks (the sanitizer watches). */
static void memory_runs_out(void **state)
{
    (void)state;
    struct model_spec spec = {.block = MODEL_BLOCK_BASIC,
                              .stages = 1,
                              .blocks = {1},
                              .width = 8,
                              .stem = MODEL_STEM_LARGE,
                              .input = 8,
                              .features = 4};
    struct layout *layout = test_layout(&spec);
    for (enum test_way way = WAY_ONEDNN; way <= WAY_OPENBLAS; way++) {
        struct test_net net;
        struct err err;
        int rc = ERR_NOMEM;
        uint64_t n = 0;
        while (rc != 0) {
            mem_fail_after(++n);
            rc = test_net_new(layout, 2, NET_TRAIN, way, &net, &err);
            mem_fail_after(0);
            assert_true(rc == 0 ? net.net != NULL : rc == ERR_NOMEM && net.net == NULL);
        }
        assert_true(n > 30);
        test_net_fini(&net);
    }
    layout_free(layout);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operations),
        cmocka_unit_test(small_stem),
        cmocka_unit_test(large_stem),
        cmocka_unit_test(identity_shortcuts),
        cmocka_unit_test(bottleneck),
        cmocka_unit_test(modes_agree),
        cmocka_unit_test(backward_adds_up),
        cmocka_unit_test(ways_agree),
        cmocka_unit_test(what_is_not_there_is_refused),
        cmocka_unit_test(memory_is_estimated),
        cmocka_unit_test(operations_are_counted),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
