/* The layout: the same network as PyTorch's, three regions without gaps, names and fingerprints that stay; the first
 * weights. */
#include "common/base/mem.h"
#include "common/vec/layout.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct model_spec resnet18 = {
    .stages = 4, .blocks = {2, 2, 2, 2}, .width = 64, .input = 32, .features = 128};
static const struct model_spec narrow = {.stages = 2, .blocks = {1, 1}, .width = 4, .input = 8, .features = 8};
static const struct model_spec resnet50 = {.block = MODEL_BLOCK_BOTTLENECK,
                                           .stages = 4,
                                           .blocks = {3, 4, 6, 3},
                                           .width = 64,
                                           .stem = MODEL_STEM_LARGE,
                                           .input = 224,
                                           .features = 128};

static struct layout *make(const struct model_spec *spec)
{
    struct layout *layout;
    struct err err = {0};
    if (layout_new(spec, &layout, &err)) {
        fail_msg("%s", err.text);
    }
    return layout;
}

/* Counts of trained parameters: the same encoders built of torch.nn modules, counted by numel(). */
static void test_counts(void **state)
{
    (void)state;
    struct layout *layout = make(&resnet18);
    assert_int_equal(layout->trainable_end, 11497152);
    assert_int_equal(layout->total - layout->trainable_end, 9600); /* two a channel of 20 BN layers */
    assert_int_equal(layout->backbone, 512);
    layout_free(layout);
    const struct model_spec thin = {.stages = 4, .blocks = {1, 1, 1, 1}, .width = 16, .input = 32, .features = 128};
    layout = make(&thin);
    assert_int_equal(layout->trainable_end, 340560);
    layout_free(layout);
    /* torchvision's resnet50 has 25,557,032 with a classifier of 2048 x 1000 + 1000; ours has the head in its place. */
    layout = make(&resnet50);
    assert_int_equal(layout->trainable_end, 25557032 - 2049000 + (2048 * 2048 + 2048) + (128 * 2048 + 128));
    assert_int_equal(layout->backbone, 2048);
    layout_free(layout);
}

static int region(const struct layout *layout, uint64_t offset)
{
    return offset < layout->decay_end ? 0 : offset < layout->trainable_end ? 1 : 2;
}

static void check_invariants(const struct layout *layout)
{
    static const int want[] = {
        [TENSOR_CONV] = 0,     [TENSOR_LINEAR] = 0,  [TENSOR_BIAS] = 1,     [TENSOR_BN_SCALE] = 1,
        [TENSOR_BN_SHIFT] = 1, [TENSOR_BN_MEAN] = 2, [TENSOR_BN_SQUARE] = 2};
    uint64_t offset = 0;
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        assert_int_equal(tensor->offset, offset); /* in order, without gaps */
        assert_int_equal(tensor->count,
                         (uint64_t)tensor->shape[0] * tensor->shape[1] * tensor->shape[2] * tensor->shape[3]);
        assert_int_equal(region(layout, tensor->offset), want[tensor->kind]);
        assert_int_equal(region(layout, tensor->offset + tensor->count - 1), want[tensor->kind]);
        for (uint32_t d = tensor->dims; d < 4; d++) {
            assert_int_equal(tensor->shape[d], 1);
        }
        assert_ptr_equal(layout_find(layout, tensor->name), tensor); /* hence names are unique */
        offset += tensor->count;
    }
    assert_int_equal(offset, layout->total);
}

static void test_invariants(void **state)
{
    (void)state;
    const struct model_spec *const specs[] = {&resnet18, &narrow, &resnet50};
    for (int i = 0; i < 3; i++) {
        struct layout *layout = make(specs[i]);
        check_invariants(layout);
        layout_free(layout);
    }
}

/* The whole table of a small network, to the byte: this is what fingerprints are made of, on both sides of the wire. */
static void test_table(void **state)
{
    (void)state;
    static const char want[] = "stem.conv.weight conv 4x3x3x3 0\n"
                               "stage0.0.conv1.weight conv 4x4x3x3 108\n"
                               "stage0.0.conv2.weight conv 4x4x3x3 252\n"
                               "stage1.0.conv1.weight conv 8x4x3x3 396\n"
                               "stage1.0.conv2.weight conv 8x8x3x3 684\n"
                               "stage1.0.short.conv.weight conv 8x4x1x1 1260\n"
                               "head.0.weight linear 8x8 1292\n"
                               "head.1.weight linear 8x8 1356\n"
                               "stem.bn.scale bn_scale 4 1420\n"
                               "stem.bn.shift bn_shift 4 1424\n"
                               "stage0.0.bn1.scale bn_scale 4 1428\n"
                               "stage0.0.bn1.shift bn_shift 4 1432\n"
                               "stage0.0.bn2.scale bn_scale 4 1436\n"
                               "stage0.0.bn2.shift bn_shift 4 1440\n"
                               "stage1.0.bn1.scale bn_scale 8 1444\n"
                               "stage1.0.bn1.shift bn_shift 8 1452\n"
                               "stage1.0.bn2.scale bn_scale 8 1460\n"
                               "stage1.0.bn2.shift bn_shift 8 1468\n"
                               "stage1.0.short.bn.scale bn_scale 8 1476\n"
                               "stage1.0.short.bn.shift bn_shift 8 1484\n"
                               "head.0.bias bias 8 1492\n"
                               "head.1.bias bias 8 1500\n"
                               "stem.bn.mean bn_mean 4 1508\n"
                               "stem.bn.square bn_square 4 1512\n"
                               "stage0.0.bn1.mean bn_mean 4 1516\n"
                               "stage0.0.bn1.square bn_square 4 1520\n"
                               "stage0.0.bn2.mean bn_mean 4 1524\n"
                               "stage0.0.bn2.square bn_square 4 1528\n"
                               "stage1.0.bn1.mean bn_mean 8 1532\n"
                               "stage1.0.bn1.square bn_square 8 1540\n"
                               "stage1.0.bn2.mean bn_mean 8 1548\n"
                               "stage1.0.bn2.square bn_square 8 1556\n"
                               "stage1.0.short.bn.mean bn_mean 8 1564\n"
                               "stage1.0.short.bn.square bn_square 8 1572\n";
    struct layout *layout = make(&narrow);
    struct buf table;
    buf_init(&table, 65536);
    assert_int_equal(layout_table(layout, &table), 0);
    assert_int_equal(table.len, sizeof want - 1);
    assert_memory_equal(table.data, want, table.len);
    struct hash128 hash = hash_of(want, sizeof want - 1);
    assert_true(hash_equal(&hash, &layout->fingerprint));
    for (size_t max = 0; max < sizeof want; max += 7) {
        struct buf small;
        buf_init(&small, max);
        assert_int_equal(layout_table(layout, &small), ERR_LIMIT);
        buf_fini(&small);
    }
    buf_fini(&table);
    layout_free(layout);
}

static void check_shape(const struct layout *layout, const char *name, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const struct tensor *tensor = layout_find(layout, name);
    if (!tensor) {
        fail_msg("%s is missing", name);
        return;
    }
    assert_int_equal(tensor->shape[0], a);
    assert_int_equal(tensor->shape[1], b);
    assert_int_equal(tensor->shape[2], c);
    assert_int_equal(tensor->shape[3], d);
}

static void test_bottleneck(void **state)
{
    (void)state;
    struct layout *layout = make(&resnet50);
    check_shape(layout, "stem.conv.weight", 64, 3, 7, 7);
    check_shape(layout, "stage0.0.conv1.weight", 64, 64, 1, 1);
    check_shape(layout, "stage0.0.conv2.weight", 64, 64, 3, 3);
    check_shape(layout, "stage0.0.conv3.weight", 256, 64, 1, 1);
    check_shape(layout, "stage0.0.bn3.square", 256, 1, 1, 1);
    check_shape(layout, "stage0.0.short.conv.weight", 256, 64, 1, 1); /* the channels change, stride 1 */
    check_shape(layout, "stage0.1.conv1.weight", 64, 256, 1, 1);
    check_shape(layout, "stage3.0.short.conv.weight", 2048, 1024, 1, 1);
    check_shape(layout, "head.1.weight", 128, 2048, 1, 1);
    assert_null(layout_find(layout, "stage0.1.short.conv.weight"));
    assert_null(layout_find(layout, "stage3.3.conv1.weight"));
    layout_free(layout);
    layout = make(&resnet18);
    assert_null(layout_find(layout, "stage0.0.short.conv.weight"));
    assert_null(layout_find(layout, "stage0.0.conv3.weight"));
    check_shape(layout, "stage1.0.short.bn.scale", 128, 1, 1, 1);
    layout_free(layout);
}

static void test_fingerprints_differ(void **state)
{
    (void)state;
    struct model_spec specs[6] = {narrow, narrow, narrow, narrow, narrow, narrow};
    specs[1].width = 5;
    specs[2].blocks[1] = 2;
    specs[3].features = 9;
    specs[4].stem = MODEL_STEM_LARGE;
    specs[5].block = MODEL_BLOCK_BOTTLENECK;
    struct layout *layouts[6];
    for (int i = 0; i < 6; i++) {
        layouts[i] = make(&specs[i]);
        for (int j = 0; j < i; j++) {
            assert_false(hash_equal(&layouts[i]->fingerprint, &layouts[j]->fingerprint));
        }
    }
    for (int i = 0; i < 6; i++) {
        layout_free(layouts[i]);
    }
    /* What lies behind the stages says nothing, and is not kept. */
    struct model_spec noisy = narrow;
    noisy.blocks[2] = 77;
    struct layout *a = make(&narrow), *b = make(&noisy);
    assert_true(hash_equal(&a->fingerprint, &b->fingerprint));
    assert_memory_equal(&a->spec, &b->spec, sizeof a->spec);
    layout_free(a);
    layout_free(b);
}

static void refuse(struct model_spec spec, const char *reason)
{
    struct layout *layout = (struct layout *)&spec;
    struct err err;
    assert_int_equal(layout_new(&spec, &layout, &err), ERR_CONFIG);
    assert_null(layout);
    if (!strstr(err.text, reason)) {
        fail_msg("\"%s\" does not say \"%s\"", err.text, reason);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    struct model_spec spec = narrow;
    static const struct {
        size_t offset;
        const char *reason;
    } sizes[] = {
        {offsetof(struct model_spec, stages), "stages"},     {offsetof(struct model_spec, blocks), "blocks"},
        {offsetof(struct model_spec, blocks) + 4, "blocks"}, {offsetof(struct model_spec, width), "width"},
        {offsetof(struct model_spec, input), "input"},       {offsetof(struct model_spec, features), "features"}};
    static const uint32_t wrong[] = {0, 65537, 0x80000000u, UINT32_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t w = 0; w < 4; w++) {
            spec = narrow;
            memcpy((char *)&spec + sizes[i].offset, &wrong[w], 4);
            refuse(spec, sizes[i].reason);
        }
    }
    spec = narrow;
    spec.block = 2;
    refuse(spec, "block");
    spec = narrow;
    spec.stem = 2;
    refuse(spec, "stem");
    spec = resnet50;
    spec.width = 1024;
    refuse(spec, "2^31");
    /* Three halvings of 4 pixels would be half a pixel; of 5 they are one, as convolutions with padding have it. */
    spec = resnet18;
    spec.input = 4;
    refuse(spec, "too small");
    spec.input = 5;
    layout_free(make(&spec));
    spec.input = 16;
    spec.stem = MODEL_STEM_LARGE;
    refuse(spec, "too small");
    spec.input = 17;
    layout_free(make(&spec));
}

static void test_each_allocation_fails(void **state)
{
    (void)state;
    struct layout *layout = NULL;
    int rc = ERR_NOMEM;
    uint64_t n = 0;
    while (rc == ERR_NOMEM) {
        struct err err;
        mem_fail_after(++n);
        rc = layout_new(&narrow, &layout, &err);
        mem_fail_after(0);
        assert_true((rc == 0) == (layout != NULL));
    }
    assert_int_equal(rc, 0);
    assert_true(n > 3);
    layout_free(layout);
    layout_free(NULL);
}

static float *init(const struct layout *layout, uint64_t seed)
{
    float *params = mem_new_aligned((size_t)layout->total, sizeof *params);
    params_init(layout, seed, params);
    return params;
}

static double bound_of(const struct tensor *tensor)
{
    double fan_in = (double)tensor->shape[1] * tensor->shape[2] * tensor->shape[3];
    return sqrt((tensor->kind == TENSOR_CONV ? 6 : 1) / fan_in);
}

/* Within the bounds, filling them, with the variance of a uniform distribution; and everything else in its place. */
static void test_init(void **state)
{
    (void)state;
    struct model_spec spec = resnet18;
    spec.width = 16;
    struct layout *layout = make(&spec);
    float *params = init(layout, 1);
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        const float *values = params + tensor->offset;
        bool drawn = tensor->kind == TENSOR_CONV || tensor->kind == TENSOR_LINEAR;
        double n = (double)tensor->count, sum = 0, squares = 0, largest = 0, bound = drawn ? bound_of(tensor) : 0;
        for (uint64_t i = 0; i < tensor->count; i++) {
            double value = (double)values[i];
            bool one = tensor->kind == TENSOR_BN_SCALE || tensor->kind == TENSOR_BN_SQUARE;
            assert_true(drawn || value == (one ? 1 : 0));
            sum += value;
            squares += value * value;
            largest = fabs(value) > largest ? fabs(value) : largest;
        }
        if (drawn) {
            assert_true(largest <= bound * (1 + 1e-6) && largest > bound * 0.95);
            assert_true(fabs(sum / n) < 6 * bound / sqrt(3 * n));
            assert_true(fabs(squares / n / (bound * bound / 3) - 1) < 6 * 0.9 / sqrt(n));
        }
    }
    mem_free(params);
    layout_free(layout);
}

/* Sites, servers and reports of different machines must start from the same bits. The constant was computed once; when
 * it changes, models of one seed are no longer the same models. */
static void test_init_bits(void **state)
{
    (void)state;
    struct layout *layout = make(&narrow);
    float *a = init(layout, 1), *b = init(layout, 1), *c = init(layout, 2);
    size_t bytes = (size_t)layout->total * sizeof *a;
    assert_memory_equal(a, b, bytes);
    char hex[HASH_HEX];
    struct hash128 hash = hash_of(a, bytes);
    assert_string_equal(hash_hex(&hash, hex), "02be018c264dc89d494a56ea41814766");
    uint32_t same = 0;
    for (uint64_t i = 0; i < layout->decay_end; i++) {
        same += a[i] == c[i];
    }
    assert_true(same < 5);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    layout_free(layout);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),    cmocka_unit_test(test_invariants),
        cmocka_unit_test(test_table),     cmocka_unit_test(test_bottleneck),
        cmocka_unit_test(test_refusals),  cmocka_unit_test(test_fingerprints_differ),
        cmocka_unit_test(test_init),      cmocka_unit_test(test_each_allocation_fails),
        cmocka_unit_test(test_init_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
