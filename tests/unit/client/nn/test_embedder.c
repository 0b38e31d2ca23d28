/* Features of a set: the same bits for any number of threads, and those of a net that sees the same images. */
#include "tests/unit/client/nn/net_support.h"

#include "client/nn/embedder.h"

#define IMAGES 71u /* two chunks and a part */

static const struct model_spec spec = {.block = MODEL_BLOCK_BASIC,
                                       .stages = 2,
                                       .blocks = {1, 1},
                                       .width = 8,
                                       .stem = MODEL_STEM_LARGE,
                                       .input = 16,
                                       .features = 8};

struct set {
    const float *images;
    size_t image;
};

static void fetch(void *ctx, uint32_t i, float *image)
{
    const struct set *set = ctx;
    assert_true(i < IMAGES);
    memcpy(image, set->images + i * set->image, set->image * sizeof *image);
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    struct layout *layout = test_layout(&spec);
    float *params = test_params(layout, 1), *images = test_normal(2, (size_t)IMAGES * 3 * 16 * 16);
    struct set set = {images, (size_t)3 * 16 * 16};
    size_t c = (size_t)IMAGES * layout->backbone, d = (size_t)IMAGES * layout->spec.features;
    float *first = test_floats(c + d), *backbone = test_floats(c), *features = test_floats(d);
    for (uint32_t threads = 1; threads <= 3; threads++) {
        struct embedder *embedder;
        assert_int_equal(embedder_new(layout, params, threads, &embedder, NULL), 0);
        /* With one thread, more images than two chunks and then few: what is left in the buffers must not matter. */
        assert_int_equal(embedder_run(embedder, IMAGES, fetch, &set, backbone, features, NULL), 0);
        if (threads == 1) {
            memcpy(first, backbone, c * sizeof *first);
            memcpy(first + c, features, d * sizeof *first);
        }
        assert_memory_equal(first, backbone, c * sizeof *first);
        assert_memory_equal(first + c, features, d * sizeof *first);
        memset(features, 0, d * sizeof *features);
        assert_int_equal(embedder_run(embedder, 3, fetch, &set, NULL, features, NULL), 0);
        assert_memory_equal(first + c, features, 3 * layout->spec.features * sizeof *first);
        assert_true(features[3 * layout->spec.features] == 0); /* no row too many */
        memset(backbone, 0, c * sizeof *backbone);
        assert_int_equal(embedder_run(embedder, IMAGES, fetch, &set, backbone, NULL, NULL), 0);
        assert_memory_equal(first, backbone, c * sizeof *first);
        assert_int_equal(embedder_run(embedder, 0, fetch, &set, backbone, features, NULL), 0);
        embedder_free(embedder);
    }
    struct test_net net;
    assert_int_equal(test_net_new(layout, IMAGES, NET_EVAL, WAY_ONEDNN, &net, NULL), 0);
    test_net_forward(&net, params, images, backbone, features, NULL);
    for (size_t i = 0; i < c; i++) {
        assert_true(fabsf(backbone[i] - first[i]) <= 1e-4f * (1 + fabsf(first[i])));
    }
    for (size_t i = 0; i < d; i++) {
        assert_true(fabsf(features[i] - first[c + i]) <= 1e-4f);
    }
    assert_true(fabsf(features[0] - features[layout->spec.features]) > 1e-3f); /* images differ */
    test_net_fini(&net);
    mem_free(params);
    mem_free(images);
    mem_free(first);
    mem_free(backbone);
    mem_free(features);
    layout_free(layout);
}

static void memory_runs_out(void **state)
{
    (void)state;
    struct layout *layout = test_layout(&spec);
    float *params = test_params(layout, 1);
    struct embedder *embedder = NULL;
    int rc = ERR_NOMEM;
    for (uint64_t n = 1; rc != 0; n += 3) {
        mem_fail_after(n);
        rc = embedder_new(layout, params, 1, &embedder, NULL);
        mem_fail_after(0);
        assert_true(rc == 0 ? embedder != NULL : rc == ERR_NOMEM && embedder == NULL);
    }
    embedder_free(embedder);
    assert_int_equal(embedder_new(layout, params, 0, &embedder, NULL), ERR_CONFIG);
    mem_free(params);
    layout_free(layout);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_change_no_bit), cmocka_unit_test(memory_runs_out)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
