/* Who gets what: nothing is lost or given twice, and each kind of split has the shape it promises. */
#include "tests/unit/client/data/data_support.h"

#include "client/data/split_plan.h"

#include <math.h>

#define N       2000u
#define CLASSES 10u

static uint32_t labels[N], client_of[N];
static uint32_t held[64][CLASSES], totals[64]; /* by client */

static struct split_spec spec_of(const char *text)
{
    struct split_spec spec;
    struct err err;
    if (split_parse(text, &spec, &err)) {
        fail_msg("%s", err.text);
    }
    return spec;
}

/* Splits and counts; returns how many images nobody got. */
static uint32_t run(const char *text, uint32_t clients, uint64_t seed)
{
    struct split_spec spec = spec_of(text);
    struct err err;
    uint32_t nobody = 0;
    for (uint32_t i = 0; i < N; i++) {
        labels[i] = i / (N / CLASSES);
        client_of[i] = 12345;
    }
    if (split_plan(&spec, labels, N, CLASSES, clients, seed, client_of, &err)) {
        fail_msg("%s", err.text);
    }
    memset(held, 0, sizeof held);
    memset(totals, 0, sizeof totals);
    for (uint32_t i = 0; i < N; i++) {
        if (client_of[i] == SPLIT_NOBODY) {
            nobody++;
            continue;
        }
        assert_true(client_of[i] < clients);
        held[client_of[i]][labels[i]]++;
        totals[client_of[i]]++;
    }
    for (uint32_t c = 0; c < clients; c++) {
        assert_true(totals[c] > 0);
    }
    return nobody;
}

static void iid_deals_evenly_and_mixes(void **state)
{
    (void)state;
    assert_int_equal(run("iid", 7, 1), 0);
    for (uint32_t c = 0; c < 7; c++) {
        assert_in_range(totals[c], N / 7, N / 7 + 1);
        for (uint32_t k = 0; k < CLASSES; k++) {
            assert_in_range(held[c][k], 10, 50); /* 28.6 expected */
        }
    }
}

static void classes_are_as_many_as_asked_and_shared_evenly(void **state)
{
    (void)state;
    const struct {
        const char *text;
        uint32_t clients, each;
    } cases[] = {{"classes:2", 5, 2},  {"classes:2", 7, 2},   {"classes:3", 10, 3},
                 {"classes:1", 10, 1}, {"classes:10", 3, 10}, {"classes:4", 31, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(run(cases[i].text, cases[i].clients, 3), 0);
        uint32_t fewest = UINT32_MAX, most = 0;
        for (uint32_t c = 0; c < cases[i].clients; c++) {
            uint32_t classes = 0;
            for (uint32_t k = 0; k < CLASSES; k++) {
                classes += held[c][k] > 0;
            }
            assert_int_equal(classes, cases[i].each);
        }
        for (uint32_t k = 0; k < CLASSES; k++) {
            uint32_t holders = 0, smallest = UINT32_MAX, largest = 0;
            for (uint32_t c = 0; c < cases[i].clients; c++) {
                if (held[c][k]) {
                    holders++;
                    smallest = held[c][k] < smallest ? held[c][k] : smallest;
                    largest = held[c][k] > largest ? held[c][k] : largest;
                }
            }
            assert_true(largest - smallest <= 1);
            fewest = holders < fewest ? holders : fewest;
            most = holders > most ? holders : most;
        }
        assert_true(fewest >= 1 && most - fewest <= 1);
    }
}

static void classes_that_nobody_holds_are_left_out(void **state)
{
    (void)state;
    assert_int_equal(run("classes:2", 3, 3), 4 * N / CLASSES);
}

static double unevenness(const char *text, uint32_t clients)
{
    double sum = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        assert_int_equal(run(text, clients, seed), 0);
        for (uint32_t k = 0; k < CLASSES; k++) {
            for (uint32_t c = 0; c < clients; c++) {
                double share = (double)held[c][k] * CLASSES / N;
                sum += share * share / (20 * CLASSES);
            }
        }
    }
    return sum;
}

/* For Dirichlet(a) over n clients the shares' squares sum to (a + 1) / (n a + 1) on average. */
static void dirichlet_has_the_right_second_moment(void **state)
{
    (void)state;
    assert_true(fabs(unevenness("dirichlet:0.1", 5) - 1.1 / 1.5) < 0.06);
    assert_true(fabs(unevenness("dirichlet:1", 5) - 2.0 / 6) < 0.04);
    assert_true(fabs(unevenness("dirichlet:1000", 5) - 1001.0 / 5001) < 0.002);
    assert_true(unevenness("dirichlet:0.001", 5) > 0.95); /* beyond the range of a double without logs */
}

static void the_seed_decides(void **state)
{
    (void)state;
    static const char *const kinds[] = {"iid", "classes:2", "dirichlet:0.5"};
    uint32_t first[N];
    for (size_t i = 0; i < 3; i++) {
        (void)run(kinds[i], 5, 1);
        memcpy(first, client_of, sizeof first);
        (void)run(kinds[i], 5, 1);
        assert_memory_equal(first, client_of, sizeof first);
        (void)run(kinds[i], 5, 2);
        assert_memory_not_equal(first, client_of, sizeof first);
    }
}

static void impossible_splits_are_refused(void **state)
{
    (void)state;
    struct split_spec iid = spec_of("iid"), two = spec_of("classes:2"), eleven = spec_of("classes:11"),
                      uneven = spec_of("dirichlet:0.5");
    struct err err;
    assert_int_equal(split_plan(&two, NULL, N, 0, 5, 1, client_of, &err), ERR_DATA);
    assert_int_equal(split_plan(&uneven, NULL, N, 0, 5, 1, client_of, &err), ERR_DATA);
    assert_int_equal(split_plan(&iid, NULL, N, 0, 5, 1, client_of, &err), 0);
    assert_int_equal(split_plan(&iid, NULL, 4, 0, 5, 1, client_of, &err), ERR_DATA);
    assert_int_equal(split_plan(&eleven, labels, N, CLASSES, 5, 1, client_of, &err), ERR_DATA);
    /* One class of one image, held by two of the four clients. */
    struct split_spec one = spec_of("classes:1");
    uint32_t few[40];
    for (uint32_t i = 0; i < 40; i++) {
        few[i] = i == 0;
    }
    assert_int_equal(split_plan(&one, few, 40, 2, 4, 1, client_of, &err), ERR_DATA);
}

static void only_the_three_kinds_are_understood(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "IID",
                                      "iid ",
                                      "classes",
                                      "classes:",
                                      "classes:0",
                                      "classes:-1",
                                      "classes:2x",
                                      "dirichlet:0",
                                      "dirichlet:nan",
                                      "classes:1.5",
                                      "dirichlet:",
                                      "dirichlet:1e9",
                                      "dirichlet:-1",
                                      "classes:99999999999"};
    struct split_spec spec;
    struct err err;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(split_parse(bad[i], &spec, &err), ERR_USAGE);
    }
    spec = spec_of("dirichlet:0.25");
    assert_int_equal(spec.kind, SPLIT_DIRICHLET);
    assert_true(spec.alpha > 0.249 && spec.alpha < 0.251);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(iid_deals_evenly_and_mixes),
        cmocka_unit_test(classes_are_as_many_as_asked_and_shared_evenly),
        cmocka_unit_test(classes_that_nobody_holds_are_left_out),
        cmocka_unit_test(dirichlet_has_the_right_second_moment),
        cmocka_unit_test(the_seed_decides),
        cmocka_unit_test(impossible_splits_are_refused),
        cmocka_unit_test(only_the_three_kinds_are_understood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
