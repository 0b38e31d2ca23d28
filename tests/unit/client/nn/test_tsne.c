/* The map: clusters stay together and apart from each other, the same seed draws the same map. */
#include "client/nn/tsne.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define N        150u
#define D        20u
#define CLUSTERS 3u

static void draw(float *rows, float apart)
{
    struct rng rng;
    rng_init(&rng, 4, RNG_TEST, 0, 0, 0);
    for (uint32_t i = 0; i < N; i++) {
        for (uint32_t j = 0; j < D; j++) {
            rows[i * D + j] = rng_normal(&rng) + (j == i % CLUSTERS ? apart : 0);
        }
    }
}

/* Share of rows whose nearest other one in the map is of their cluster. */
static double together(const float *places)
{
    uint32_t right = 0;
    for (uint32_t i = 0; i < N; i++) {
        uint32_t nearest = i;
        double least = INFINITY;
        for (uint32_t j = 0; j < N; j++) {
            double distance =
                hypot((double)(places[2 * i] - places[2 * j]), (double)(places[2 * i + 1] - places[2 * j + 1]));
            if (j != i && distance < least) {
                least = distance;
                nearest = j;
            }
        }
        right += nearest % CLUSTERS == i % CLUSTERS;
    }
    return (double)right / N;
}

static void clusters_of_features_are_clusters_of_the_map(void **state)
{
    (void)state;
    float rows[N * D], places[2 * N], again[2 * N];
    struct err err;
    draw(rows, 12);
    assert_int_equal(tsne(rows, N, D, 1, places, &err), 0);
    assert_true(together(places) > 0.99);
    assert_int_equal(tsne(rows, N, D, 1, again, &err), 0);
    assert_memory_equal(places, again, sizeof places);
    draw(rows, 0); /* without clusters there are none to be seen */
    assert_int_equal(tsne(rows, N, D, 1, places, &err), 0);
    assert_true(together(places) < 0.55);
}

static void what_cannot_be_drawn_is_refused(void **state)
{
    (void)state;
    static const float rows[4 * 2] = {0, 0, 0, 0, 1, 0, 0, 1}; /* zero rows and equal ones are no trouble */
    float places[8];
    struct err err;
    assert_int_equal(tsne(rows, 4, 2, 1, places, &err), 0);
    for (uint32_t i = 0; i < 8; i++) {
        assert_true(isfinite(places[i]));
    }
    assert_int_equal(tsne(rows, 3, 2, 1, places, &err), ERR_DATA);
    assert_int_equal(tsne(rows, TSNE_ROWS_MAX + 1, 2, 1, places, &err), ERR_DATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clusters_of_features_are_clusters_of_the_map),
        cmocka_unit_test(what_cannot_be_drawn_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
