/* Every operation's gradient, alone and in whole encoders, against finite differences; and what the modes of a net
 * promise of each other. */
#include "tests/unit/client/nn/nn_support.h"

#include "client/nn/net.h"
#include "client/nn/net_parts.h"

/* The loss is a fixed random combination of the features. */
struct probe {
    struct net *net;
    const float *images, *weights;
    float *features;
    size_t n;
};

static double probe_value(void *ctx, const float *params)
{
    struct probe *probe = ctx;
    struct err err;
    if (net_forward(probe->net, params, probe->images, NULL, probe->features, NULL, &err) != 0) {
        fail_msg("%s", err.text);
    }
    return test_dot(probe->weights, probe->features, probe->n);
}

/* Checks every trained tensor of the layout. Takes the net and the parameters over. */
static void check_gradients(const struct layout *layout, struct net *net, uint32_t batch, float *params,
                            double tolerance)
{
    size_t n = (size_t)batch * layout->spec.features;
    float *images = test_normal(5, (size_t)batch * 3 * layout->spec.input * layout->spec.input);
    float *weights = test_normal(6, n), *features = test_floats(n), *grad = test_floats(layout->trainable_end);
    struct probe probe = {net, images, weights, features, n};
    (void)probe_value(&probe, params);
    assert_int_equal(net_backward(net, params, weights, grad, NULL), 0);
    for (uint32_t i = 0; i < layout->count; i++) {
        const struct tensor *tensor = &layout->tensors[i];
        if (tensor->offset < layout->trainable_end) {
            test_gradient(tensor->name, (struct test_function){probe_value, &probe, params}, grad, tensor->offset,
                          tensor->count, 0.002, tolerance);
        }
    }
    net_free(net);
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
    struct net *net;
    struct err err;
    if (net_new(layout, batch, NET_TRAIN, &net, &err) != 0) {
        fail_msg("%s", err.text);
    }
    check_gradients(layout, net, batch, test_params(layout, 3), 0.04);
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

static void op_init(struct op *op)
{
    memset(op, 0, sizeof *op);
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

/* After all trained tensors. */
static uint32_t op_bn(struct op *op, uint32_t src, bool relu)
{
    struct node *node = op_node(op, NODE_BN, src, OP_CHANNELS, 1);
    node->relu = relu;
    node->scale = op_tensor(op, "bn.scale", TENSOR_BN_SCALE, OP_CHANNELS, 1, 1);
    node->shift = op_tensor(op, "bn.shift", TENSOR_BN_SHIFT, OP_CHANNELS, 1, 1);
    node->mean = op_tensor(op, "bn.mean", TENSOR_BN_MEAN, OP_CHANNELS, 1, 1);
    node->square = op_tensor(op, "bn.square", TENSOR_BN_SQUARE, OP_CHANNELS, 1, 1);
    return node->dst;
}

static uint32_t op_add(struct op *op, uint32_t a, uint32_t b)
{
    struct node *node = op_node(op, NODE_ADD, a, OP_CHANNELS, 1);
    node->other = b;
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
    struct net *net;
    struct err err;
    if (net_new_from(&op->layout, op->topology, 4, NET_TRAIN, &net, &err) != 0) {
        fail_msg("%s", err.text);
    }
    check_gradients(&op->layout, net, 4, params, 0.015);
}

static void op_convolution(void **state)
{
    (void)state;
    static const uint32_t kernels[] = {1, 3, 7}, strides[] = {1, 2};
    for (size_t i = 0; i < 6; i++) {
        struct op op;
        op_init(&op);
        /* The first one's gradient passes through the second. */
        uint32_t map = op_conv(&op, "first", 0, 3, 1);
        op_check(&op, op_conv(&op, "second", map, kernels[i % 3], strides[i / 3]));
    }
}

/* The mean over a normalised map is its shift whatever came before, so a sum with a ReLU stands behind BN. */
static void op_batch_norm(void **state)
{
    (void)state;
    struct op op;
    op_init(&op);
    uint32_t a = op_conv(&op, "branch", 0, 3, 1), b = op_conv(&op, "other", 0, 1, 1);
    op_check(&op, op_add(&op, op_bn(&op, a, false), b));
}

static void op_batch_norm_relu(void **state)
{
    (void)state;
    struct op op;
    op_init(&op);
    op_check(&op, op_bn(&op, op_conv(&op, "conv", 0, 3, 1), true));
}

static void op_max_pool(void **state)
{
    (void)state;
    struct op op;
    op_init(&op);
    struct node *node = op_node(&op, NODE_MAX, op_conv(&op, "conv", 0, 3, 1), OP_CHANNELS, 2);
    node->kernel = 3;
    op_check(&op, node->dst);
}

/* One map with two readers, and the sum that joins them again. */
static void op_sum(void **state)
{
    (void)state;
    struct op op;
    op_init(&op);
    uint32_t trunk = op_conv(&op, "trunk", 0, 3, 1);
    op_check(&op, op_add(&op, op_conv(&op, "branch", trunk, 3, 1), trunk));
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
    struct net *net;
    assert_int_equal(net_new(layout, 6, mode, &net, NULL), 0);
    /* Twice: what one forward leaves behind must not reach the next. */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(net_forward(net, params, images, out.backbone, out.features, out.stats, NULL), 0);
    }
    net_free(net);
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

static void backward_accumulates(void **state)
{
    (void)state;
    struct layout *layout = test_layout(&tiny);
    size_t n = layout->trainable_end;
    float *params = test_params(layout, 4), *images = test_normal(8, (size_t)6 * 3 * 16 * 16);
    float *dfeatures = test_normal(10, (size_t)6 * layout->spec.features), *once = test_floats(n),
          *more = test_floats(n);
    struct net *net;
    assert_int_equal(net_new(layout, 6, NET_TRAIN, &net, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        more[i] = 8;
    }
    assert_int_equal(net_forward(net, params, images, NULL, NULL, NULL, NULL), 0);
    assert_int_equal(net_backward(net, params, dfeatures, once, NULL), 0);
    assert_int_equal(net_forward(net, params, images, NULL, NULL, NULL, NULL), 0);
    assert_int_equal(net_backward(net, params, dfeatures, more, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        assert_true(fabsf(more[i] - 8 - once[i]) <= 1e-5f * (8 + fabsf(once[i])));
    }
    net_free(net);
    mem_free(params);
    mem_free(images);
    mem_free(dfeatures);
    mem_free(once);
    mem_free(more);
    layout_free(layout);
}

static void forward_nets_refuse_backward(void **state)
{
    (void)state;
    struct layout *layout = test_layout(&tiny);
    struct net *net;
    struct err err;
    assert_int_equal(net_new(layout, 0, NET_BATCH, &net, &err), ERR_CONFIG);
    assert_null(net);
    assert_int_equal(net_new(layout, 2, NET_BATCH, &net, &err), 0);
    assert_int_equal(net_backward(net, NULL, NULL, NULL, &err), ERR_STATE);
    net_free(net);
    layout_free(layout);
}

/* The estimate is an upper one and not a wild one; forward-only nets hold a fraction of what training does; and between
 * the image and the pooled rows no map changes its layout. */
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
            struct net *net;
            assert_int_equal(net_new(layout, 16, (enum net_mode)mode, &net, NULL), 0);
            bytes[mode] = net_bytes(net);
            uint64_t estimate = net_memory(layout, 16, (enum net_mode)mode);
            assert_true(bytes[mode] <= estimate);
            assert_true(estimate <= 3 * bytes[mode] + (16u << 20));
            assert_true(net_reorders(net) <= 2);
            net_free(net);
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
    struct net *net = NULL;
    struct err err;
    int rc = ERR_NOMEM;
    uint64_t n = 0;
    while (rc != 0) {
        mem_fail_after(++n);
        rc = net_new(layout, 2, NET_TRAIN, &net, &err);
        mem_fail_after(0);
        assert_true(rc == 0 ? net != NULL : rc == ERR_NOMEM && net == NULL);
    }
    assert_true(n > 50);
    net_free(net);
    layout_free(layout);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(op_convolution),
        cmocka_unit_test(op_batch_norm),
        cmocka_unit_test(op_batch_norm_relu),
        cmocka_unit_test(op_max_pool),
        cmocka_unit_test(op_sum),
        cmocka_unit_test(small_stem),
        cmocka_unit_test(large_stem),
        cmocka_unit_test(identity_shortcuts),
        cmocka_unit_test(bottleneck),
        cmocka_unit_test(modes_agree),
        cmocka_unit_test(backward_accumulates),
        cmocka_unit_test(forward_nets_refuse_backward),
        cmocka_unit_test(memory_is_estimated),
        cmocka_unit_test(operations_are_counted),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
