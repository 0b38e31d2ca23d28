/* Every instruction set that this processor has gives the bits of the portable variant; and the portable variant is
 * right where no other test looks. */
#include "tests/unit/client/nn/nn_support.h"

#include "client/nn/simd/simd.h"

#include <float.h>

#define N    3u
#define SIDE 7u

/* 40 channels: two full vectors and half a one where they lie as pixels. */
static const struct map maps[] = {
    {N, 32, SIDE, MAP_BLOCKS, MAP_F32},  {N, 32, SIDE, MAP_BLOCKS, MAP_BF16}, {N, 40, SIDE, MAP_PIXELS, MAP_F32},
    {N, 40, SIDE, MAP_PIXELS, MAP_BF16}, {N, 5, SIDE, MAP_PIXELS, MAP_F32},
};

/* Random numbers of the map's type. */
static void *data(const struct map *map, uint64_t name)
{
    float *floats = test_normal(name, map_elements(map));
    if (map->type == MAP_F32) {
        return floats;
    }
    uint16_t *halves = mem_new_aligned(map_elements(map), sizeof *halves);
    assert_non_null(halves);
    simd_variant(0)->to_bf16(halves, floats, map_elements(map));
    mem_free(floats);
    return halves;
}

/* All that one variant computes on one map, in a row. */
#define PARTS 8
struct outcome {
    void *part[PARTS];
    size_t bytes[PARTS];
};

static void run(const struct simd *simd, const struct map *map, struct outcome *out)
{
    struct map half = *map;
    half.side = (SIDE + 1) / 2;
    size_t channels = map->channels, bytes = map_bytes(map);
    void *x = data(map, 1), *residual = data(map, 2), *y = data(map, 3), *dy = data(map, 4), *dy2 = data(map, 5);
    void *dx = data(map, 6), *pooled = data(&half, 7), *dpooled = data(&half, 8);
    float *rows = test_floats(8 * channels), *scale = test_normal(9, channels), *shift = test_normal(10, channels);
    float *average = test_floats(N * channels);
    uint8_t *best = mem_new(map_elements(&half), 1);
    assert_non_null(best);
    simd->bn_forward(
        &(struct bn_forward){*map, x, residual, y, true, false, rows, rows + channels, scale, shift, 1e-5f});
    simd->bn_backward(&(struct bn_backward){*map, x, y, dy, dy2, dx, rows, rows + channels, scale, rows + 2 * channels,
                                            rows + 3 * channels, 1e-5f});
    simd->max_forward(&(struct max_pool){*map, half, x, pooled, best});
    simd->max_backward(map, &half, residual, dpooled, best);
    simd->average_forward(map, x, average);
    simd->average_backward(map, dy2, average);
    simd->add(map, x, residual);
    mem_free(dpooled);
    mem_free(best);
    mem_free(scale);
    mem_free(shift);
    *out = (struct outcome){{x, residual, y, dy, dy2, dx, pooled, rows},
                            {bytes, bytes, bytes, bytes, bytes, bytes, map_bytes(&half), 8 * channels * sizeof(float)}};
    mem_free(average);
}

static void fini(struct outcome *out)
{
    for (size_t i = 0; i < PARTS; i++) {
        mem_free(out->part[i]);
    }
}

static void maps_agree(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof maps / sizeof maps[0]; m++) {
        struct outcome first, more;
        run(simd_variant(0), &maps[m], &first);
        for (uint32_t variant = 1; simd_variant(variant); variant++) {
            run(simd_variant(variant), &maps[m], &more);
            for (size_t i = 0; i < PARTS; i++) {
                if (memcmp(first.part[i], more.part[i], first.bytes[i]) != 0) {
                    fail_msg("%s differs in part %zu of map %zu", simd_variant(variant)->name, i, m);
                }
            }
            fini(&more);
        }
        fini(&first);
    }
}

static void flat_memory_agrees(void **state)
{
    (void)state;
    const size_t n = 2085; /* no multiple of anything */
    float *last = NULL;
    double last_sum = 0;
    for (uint32_t variant = 0; simd_variant(variant); variant++) {
        const struct simd *simd = simd_variant(variant);
        float *all = test_normal(1, 6 * n);
        const struct optimiser optimiser = {.params = all,
                                            .velocity = all + n,
                                            .key = all + 2 * n,
                                            .grad = all + 3 * n,
                                            .decay_end = 700,
                                            .learning_rate = 0.1f,
                                            .momentum = 0.9f,
                                            .weight_decay = 0.01f,
                                            .key_momentum = 0.99f};
        simd->optimise(&optimiser, 0, 640); /* in pieces, as the workers take it */
        simd->optimise(&optimiser, 640, 1280);
        simd->optimise(&optimiser, 1280, n);
        simd->accumulate(all + 4 * n, all + 3 * n, n, false);
        float top = simd->largest(all + 5 * n, n);
        double sum = simd->exponentials(all + 5 * n, n, top);
        simd->scale(all + 4 * n, n, 0.3f);
        if (last) {
            assert_memory_equal(last, all, 6 * n * sizeof *all);
            assert_true(sum == last_sum);
        }
        mem_free(last);
        last = all;
        last_sum = sum;
    }
    mem_free(last);
}

/* Against the rule as it is written, element by element. */
static void the_optimiser_is_right(void **state)
{
    (void)state;
    const size_t n = 2085, decay_end = 700;
    float *all = test_normal(1, 4 * n), *before = test_normal(1, 4 * n);
    const struct optimiser optimiser = {.params = all,
                                        .velocity = all + n,
                                        .key = all + 2 * n,
                                        .grad = all + 3 * n,
                                        .decay_end = decay_end,
                                        .learning_rate = 0.1f,
                                        .momentum = 0.9f,
                                        .weight_decay = 0.01f,
                                        .key_momentum = 0.99f};
    simd()->optimise(&optimiser, 0, 512);
    simd()->optimise(&optimiser, 512, 1024);
    simd()->optimise(&optimiser, 1024, n);
    for (size_t i = 0; i < n; i++) {
        double g = (double)before[3 * n + i] + (i < decay_end ? 0.01 * (double)before[i] : 0);
        double v = 0.9 * (double)before[n + i] + g, p = (double)before[i] - 0.1 * v;
        double key = 0.99 * (double)before[2 * n + i] + 0.01 * p;
        assert_true(fabs((double)all[n + i] - v) < 1e-5 && fabs((double)all[i] - p) < 1e-5);
        assert_true(fabs((double)all[2 * n + i] - key) < 1e-5);
    }
    mem_free(all);
    mem_free(before);
}

static void exponentials_are_right(void **state)
{
    (void)state;
    float values[1000], reference[1000];
    double sum = 0;
    for (size_t i = 0; i < 1000; i++) {
        values[i] = reference[i] = -(float)i * 0.0871f;
    }
    double all = simd()->exponentials(values, 1000, 0);
    for (size_t i = 0; i < 1000; i++) {
        double truth = exp((double)reference[i]);
        assert_true(fabs((double)values[i] - truth) <= 2.4e-7 * truth || (reference[i] < -87 && values[i] == 0));
        sum += truth;
    }
    assert_true(fabs(all - sum) <= 1e-6 * sum);
    float edge[3] = {-INFINITY, -1000, 5};
    all = simd()->exponentials(edge, 3, 5);
    assert_true(edge[0] == 0 && edge[1] == 0 && edge[2] == 1 && all == 1);
}

/* Half-way cases go to the even neighbour, and NaN does not become a number. */
static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    const float in[] = {1, 1.00390625f, 1.01171875f, 1.004f, -1.01171875f, NAN, INFINITY, FLT_MAX};
    const uint16_t truth[] = {0x3f80, 0x3f80, 0x3f82, 0x3f81, 0xbf82, 0x7fc0, 0x7f80, 0x7f80};
    uint16_t out[8];
    for (uint32_t variant = 0; simd_variant(variant); variant++) {
        simd_variant(variant)->to_bf16(out, in, 8);
        assert_memory_equal(out, truth, sizeof truth);
    }
}

static void what_is_not_finite_is_found(void **state)
{
    (void)state;
    float *values = test_normal(1, 100);
    for (uint32_t variant = 0; simd_variant(variant); variant++) {
        const struct simd *simd = simd_variant(variant);
        assert_true(simd->all_finite(values, 100));
        for (size_t i = 0; i < 100; i++) {
            float saved = values[i];
            values[i] = i % 2 ? NAN : -INFINITY;
            assert_false(simd->all_finite(values, 100));
            assert_true(simd->all_finite(values, i));
            values[i] = saved;
        }
    }
    mem_free(values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_agree),
        cmocka_unit_test(flat_memory_agrees),
        cmocka_unit_test(the_optimiser_is_right),
        cmocka_unit_test(exponentials_are_right),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(what_is_not_finite_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
