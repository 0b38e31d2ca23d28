/* The engine against PyTorch: features, statistics and every gradient of four encoders; the three losses; ten steps of
 * training; by every way to compute that there is. The files' byte table is in make_golden.py.
 *
 * The files hold float64 results, so what is compared is our rounding alone. Each comparison is also shown a planted
 * error that it has to refuse. */
#include "tests/golden/golden.h"
#include "tests/unit/client/nn/net_support.h"

#include "client/nn/loss.h"
#include "client/nn/moco.h"
#include "client/nn/watch.h"

/* Relative to the norm of what is compared. */
struct tolerance {
    double features, grad, loss, steps;
};
/* bf16 keeps 8 bits of every map; PyTorch's own autocast is off by 0.174 in the worst tensor of net_wide.bin. */
static const struct tolerance tolerances[WAYS] = {
    {1e-5, 1e-4, 1e-4, 1e-4}, {1e-5, 1e-4, 1e-4, 1e-4}, {1e-5, 1e-4, 1e-4, 1e-4}, {0.02, 0.25, 0.01, 0.02}};

static float *room(size_t n)
{
    float *out = mem_new_aligned(n, sizeof *out);
    assert_non_null(out);
    return out;
}

static void near(const char *what, const float *a, const float *b, size_t n, double tolerance)
{
    double off = test_distance(a, b, n);
    if (!(off <= tolerance)) {
        fail_msg("%s: off by %g of its norm, %g allowed", what, off, tolerance);
    }
}

static struct layout *read_layout(const struct golden *golden, uint32_t *batch)
{
    const uint32_t *n = numbers(golden, "spec", 11);
    struct model_spec spec = {.block = n[0],
                              .stages = n[1],
                              .blocks = {n[2], n[3], n[4], n[5]},
                              .width = n[6],
                              .stem = n[7],
                              .input = n[8],
                              .features = n[9]};
    struct layout *layout;
    struct err err;
    if (layout_new(&spec, &layout, &err) != 0) {
        fail_msg("%s", err.text);
    }
    *batch = n[10];
    return layout;
}

static void check_gradients(const struct layout *layout, float *grad, const float *golden, double tolerance)
{
    for (uint32_t i = 0; i < layout->count; i++) {
        const struct tensor *tensor = &layout->tensors[i];
        if (tensor->offset >= layout->trainable_end) {
            continue;
        }
        float *part = grad + tensor->offset;
        const float *truth = golden + tensor->offset;
        near(tensor->name, part, truth, tensor->count, tolerance);
        /* The same comparison refuses a tensor that is scaled and one that is missing. */
        for (uint64_t j = 0; j < tensor->count; j++) {
            part[j] *= tolerance > 0.01 ? 1.5f : 1.05f;
        }
        assert_true(test_distance(part, truth, tensor->count) > tolerance);
        memset(part, 0, tensor->count * sizeof *part);
        assert_true(test_distance(part, truth, tensor->count) > tolerance);
    }
}

static void check_net(const char *name, enum test_way way)
{
    const struct tolerance *most = &tolerances[way];
    struct golden golden;
    struct err err;
    uint32_t batch;
    golden_open(&golden, name);
    struct layout *layout = read_layout(&golden, &batch);
    size_t c = (size_t)batch * layout->backbone, d = (size_t)batch * layout->spec.features;
    size_t stats_count = layout->total - layout->trainable_end;
    const float *params = floats(&golden, "params", layout->total);
    const float *images = floats(&golden, "images", (size_t)batch * 3 * layout->spec.input * layout->spec.input);
    float *backbone = room(c), *features = room(d), *stats = room(stats_count), *grad = room(layout->trainable_end);
    struct test_net net;
    if (test_net_new(layout, batch, NET_TRAIN, way, &net, &err) != 0) {
        fail_msg("%s: %s", test_way_names[way], err.text);
    }
    test_net_forward(&net, params, images, backbone, features, stats);
    assert_true(test_net_backward(&net, floats(&golden, "dfeatures", d), grad));
    test_net_fini(&net);
    near("backbone", backbone, floats(&golden, "backbone", c), c, most->features);
    near("features", features, floats(&golden, "features", d), d, most->features);
    near("stats", stats, floats(&golden, "stats", stats_count), stats_count, most->features);
    check_gradients(layout, grad, floats(&golden, "grad", layout->trainable_end), most->grad);

    assert_int_equal(test_net_new(layout, batch, NET_EVAL, way, &net, NULL), 0);
    test_net_forward(&net, params, images, backbone, features, NULL);
    test_net_fini(&net);
    near("eval backbone", backbone, floats(&golden, "eval_backbone", c), c, most->features);
    near("eval features", features, floats(&golden, "eval_features", d), d, most->features);
    assert_true(test_distance(features, floats(&golden, "features", d), d) > 1e-2); /* the modes differ */
    mem_free(backbone);
    mem_free(features);
    mem_free(stats);
    mem_free(grad);
    mem_free(golden.bytes);
    layout_free(layout);
}

static void both_backends(void (*check)(const char *name, enum test_way way), const char *name)
{
    for (enum test_way way = WAY_ONEDNN; way <= WAY_OPENBLAS; way++) {
        if (test_way_exists(way)) {
            check(name, way);
        }
    }
}

static void every_way(void (*check)(const char *name, enum test_way way), const char *name)
{
    both_backends(check, name);
    for (enum test_way way = WAY_WINOGRAD; way < WAYS; way++) {
        if (test_way_exists(way)) {
            check(name, way);
        }
    }
}

static void small_stem(void **state)
{
    (void)state;
    both_backends(check_net, "net_small.bin");
}

static void large_stem(void **state)
{
    (void)state;
    both_backends(check_net, "net_large.bin");
}

static void bottleneck(void **state)
{
    (void)state;
    both_backends(check_net, "net_bottleneck.bin");
}

/* Of whole vectors, which Winograd and bf16 want. */
static void wide(void **state)
{
    (void)state;
    every_way(check_net, "net_wide.bin");
}

static void check_loss(const struct golden *golden, const char *name, double loss, float *dq, size_t n)
{
    char key[33];
    (void)snprintf(key, sizeof key, "%s_loss", name);
    double truth = (double)*floats(golden, key, 1);
    if (!(fabs(loss - truth) <= 1e-5 * fabs(truth))) {
        fail_msg("%s: loss %g, should be %g", name, loss, truth);
    }
    (void)snprintf(key, sizeof key, "%s_dq", name);
    const float *dtruth = floats(golden, key, n);
    near(key, dq, dtruth, n, 1e-4);
    memset(dq, 0, n * sizeof *dq);
    assert_true(test_distance(dq, dtruth, n) > 0.5);
}

static void losses(void **state)
{
    (void)state;
    struct golden golden;
    golden_open(&golden, "losses.bin");
    const uint32_t *sizes = numbers(&golden, "sizes", 5);
    uint32_t B = sizes[0], d = sizes[1], n = sizes[2], m = sizes[3], neighbours = sizes[4];
    float t = *floats(&golden, "temperature", 1), weight = *floats(&golden, "weight", 1);
    const float *q = floats(&golden, "q", (size_t)B * d), *k = floats(&golden, "k", (size_t)B * d);
    const float *negatives = floats(&golden, "negatives", (size_t)n * d);
    const float *remote = floats(&golden, "remote", (size_t)m * d);
    float *dq = room((size_t)B * d), *scratch = room((size_t)B * (n + 2 * m));
    const struct loss_negatives all = {.n = n, .rows = negatives};
    const struct loss_candidates near_by = {.n = m, .rows = remote};
    double loss, accuracy;
    loss_contrast(B, d, q, k, &all, t, dq, &loss, &accuracy, scratch);
    check_loss(&golden, "contrast", loss, dq, (size_t)B * d);
    assert_true(fabs(accuracy - (double)*floats(&golden, "accuracy", 1)) < 1e-6);
    loss_matching_entropy(B, d, q, &near_by, neighbours, t, weight, dq, &loss, scratch);
    check_loss(&golden, "entropy", loss, dq, (size_t)B * d);
    loss_matching_positives(B, d, q, k, &near_by, &all, neighbours, t, weight, dq, &loss, scratch);
    check_loss(&golden, "positives", loss, dq, (size_t)B * d);
    mem_free(dq);
    mem_free(scratch);
    mem_free(golden.bytes);
}

static void check_figures(uint32_t step, const struct moco_step *out, const float *truth, double tolerance)
{
    double off = fmax(fabs(out->loss_contrast - (double)truth[0]), fabs(out->loss_matching - (double)truth[1]));
    if (!(off <= tolerance * fabs((double)truth[0]))) {
        fail_msg("step %u: losses %g and %g, should be %g and %g", step, out->loss_contrast, out->loss_matching,
                 (double)truth[0], (double)truth[1]);
    }
    assert_true(fabs(out->loss - out->loss_contrast - out->loss_matching) < 1e-9);
    /* A rank may turn where logits are rounded to 8 bits. */
    assert_true(tolerance > 1e-3 || fabs(out->accuracy - (double)truth[2]) < 1e-6);
    assert_true(fabs(out->remote_share - (double)truth[3]) < 1e-6);
}

static void check_steps(const char *name, enum test_way way)
{
    const struct tolerance *most = &tolerances[way];
    struct choices choices = {0};
    struct golden golden;
    uint32_t batch;
    golden_open(&golden, name);
    struct layout *layout = read_layout(&golden, &batch);
    const uint32_t *o = numbers(&golden, "options", 7);
    const float *rates = floats(&golden, "rates", 8);
    uint32_t d = layout->spec.features, K = o[1], m = o[2], steps = o[5];
    struct moco_options options = {.batch = batch,
                                   .bn_groups = o[0],
                                   .threads = 2,
                                   .queue = K,
                                   .temperature = rates[4],
                                   .key_momentum = rates[3],
                                   .sgd_momentum = rates[1],
                                   .weight_decay = rates[2],
                                   .fusion_share = rates[7],
                                   .matching = (enum moco_matching)o[3],
                                   .neighbours = o[4],
                                   .matching_temperature = rates[5],
                                   .seed = o[6],
                                   .compute = test_compute(way, &choices)};
    size_t view = (size_t)batch * 3 * layout->spec.input * layout->spec.input;
    const float *views = floats(&golden, "views", (size_t)steps * 2 * view);
    const float *figures = floats(&golden, "figures", (size_t)steps * 4);
    const float *params = floats(&golden, "params", layout->total);
    struct moco *moco;
    assert_int_equal(moco_new(layout, &options, &moco, NULL), 0);
    if (way == WAY_WINOGRAD) {
        test_force_winograd(&choices, 0);
        moco_free(moco);
        assert_int_equal(moco_new(layout, &options, &moco, NULL), 0);
    }
    float *query = room(layout->total), *key = room(layout->total);
    float *carry = room(moco_carry_bytes(moco) / sizeof(float));
    memcpy(carry, floats(&golden, "queue", (size_t)K * d), (size_t)K * d * sizeof *carry);
    memset(carry + (size_t)K * d, 0xff, K * sizeof *carry);
    memcpy(carry + (size_t)K * (d + 1), params, layout->total * sizeof *carry);
    const struct moco_round round = {.params = params,
                                     .carry = carry,
                                     .remote = floats(&golden, "remote", (size_t)m * d),
                                     .m = m,
                                     .matching_weight = rates[6]};
    assert_int_equal(moco_begin(moco, &round, NULL), 0);
    for (uint32_t step = 0; step < steps; step++) {
        struct moco_step out;
        const float *view1 = views + 2 * step * view;
        assert_int_equal(moco_step(moco, NULL, view1, view1 + view, rates[0], &out, NULL), 0);
        check_figures(step, &out, figures + (size_t)step * 4, most->loss);
    }
    assert_int_equal(moco_carry_save(moco, carry, NULL), 0);
    assert_int_equal(moco_query(moco, query, NULL), 0);
    assert_int_equal(moco_key(moco, key, NULL), 0);
    near("query", query, floats(&golden, "query", layout->total), layout->total, most->steps);
    near("key", key, floats(&golden, "key", layout->total), layout->total, most->steps);
    near("queue", carry, floats(&golden, "last_queue", (size_t)K * d), (size_t)K * d, most->steps);
    /* Training went somewhere, and the key encoder is another than the query encoder. */
    assert_true(test_distance(query, params, layout->trainable_end) > 1e-2);
    assert_true(test_distance(key, query, layout->trainable_end) > 5e-3);
    mem_free(query);
    mem_free(key);
    choices_fini(&choices);
    mem_free(carry);
    moco_free(moco);
    mem_free(golden.bytes);
    layout_free(layout);
}

static void ten_local_steps(void **state)
{
    (void)state;
    both_backends(check_steps, "steps_local.bin");
}

static void ten_fused_steps_with_entropy(void **state)
{
    (void)state;
    both_backends(check_steps, "steps_entropy.bin");
}

static void ten_fused_steps_with_positives(void **state)
{
    (void)state;
    both_backends(check_steps, "steps_positives.bin");
}

static void ten_wide_steps(void **state)
{
    (void)state;
    every_way(check_steps, "steps_wide.bin");
}

static bool is_near(double got, double want)
{
    return fabs(got - want) <= 1e-6 * (fabs(want) > 1 ? fabs(want) : 1); /* the wanted ones are rounded to float */
}

static void measures_without_labels(void **state)
{
    (void)state;
    struct golden golden;
    golden_open(&golden, "watch.bin");
    const uint32_t *sizes = find(&golden, "sizes")->data;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t n = sizes[2 * i], d = sizes[2 * i + 1];
        char q[16], k[16], wanted[16];
        (void)snprintf(q, sizeof q, "q%u", i);
        (void)snprintf(k, sizeof k, "k%u", i);
        (void)snprintf(wanted, sizeof wanted, "measures%u", i);
        const float *want = floats(&golden, wanted, 4), *rows = floats(&golden, q, (size_t)n * d);
        struct watch got, other;
        assert_int_equal(watch_measure(rows, floats(&golden, k, (size_t)n * d), n, d, &got, NULL), 0);
        const double measures[] = {got.alignment, got.uniformity, got.deviation, got.rank};
        for (uint32_t j = 0; j < 4; j++) {
            print_message("measure %u of %u x %u: %.7f, NumPy %.7f\n", j, n, d, measures[j], (double)want[j]);
            assert_true(is_near(measures[j], (double)want[j]));
        }
        /* One row less is another batch: the comparison sees it. */
        assert_int_equal(watch_measure(rows, floats(&golden, k, (size_t)n * d), 23, d, &other, NULL), 0);
        assert_false(is_near(other.rank, (double)want[3]));
        assert_false(is_near(other.uniformity, (double)want[1]));
    }
    mem_free(golden.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_stem),
        cmocka_unit_test(large_stem),
        cmocka_unit_test(bottleneck),
        cmocka_unit_test(wide),
        cmocka_unit_test(losses),
        cmocka_unit_test(ten_local_steps),
        cmocka_unit_test(ten_fused_steps_with_entropy),
        cmocka_unit_test(ten_fused_steps_with_positives),
        cmocka_unit_test(ten_wide_steps),
        cmocka_unit_test(measures_without_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
