/* The judges against scikit-learn (make_judge_golden.py): every single answer of the nearest neighbours; the linear
 * probe's accuracy, answers and objective. */
#include "tests/golden/golden.h"

#include "client/nn/judge.h"

struct room {
    struct golden golden;
    uint32_t train_n, test_n, d, classes, ways;
    const float *train, *test, *temperature;
    const uint32_t *train_labels, *test_labels, *k, *knn, *linear;
};

static int setup(void **state)
{
    struct room *r = mem_new(1, sizeof *r);
    assert_non_null(r);
    golden_open(&r->golden, "judge.bin");
    const uint32_t *sizes = numbers(&r->golden, "sizes", 5);
    r->train_n = sizes[0];
    r->test_n = sizes[1];
    r->d = sizes[2];
    r->classes = sizes[3];
    r->ways = sizes[4];
    r->train = floats(&r->golden, "train", (size_t)r->train_n * r->d);
    r->test = floats(&r->golden, "test", (size_t)r->test_n * r->d);
    r->train_labels = numbers(&r->golden, "train_labels", r->train_n);
    r->test_labels = numbers(&r->golden, "test_labels", r->test_n);
    r->k = numbers(&r->golden, "k", r->ways);
    r->temperature = floats(&r->golden, "temperature", r->ways);
    r->knn = numbers(&r->golden, "knn", (size_t)r->ways * r->test_n);
    r->linear = numbers(&r->golden, "linear", r->test_n);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct room *r = *state;
    mem_free(r->golden.bytes);
    mem_free(r);
    return 0;
}

static double share_equal(const uint32_t *a, const uint32_t *b, uint32_t n)
{
    uint32_t equal = 0;
    for (uint32_t i = 0; i < n; i++) {
        equal += a[i] == b[i];
    }
    return (double)equal / n;
}

/* What always answering the commonest class of the training rows would score. */
static double trivial(const struct room *r)
{
    uint32_t counts[64] = {0}, best = 0, right = 0;
    assert_true(r->classes <= 64);
    for (uint32_t i = 0; i < r->train_n; i++) {
        counts[r->train_labels[i]]++;
    }
    for (uint32_t c = 0; c < r->classes; c++) {
        best = counts[c] > counts[best] ? c : best;
    }
    for (uint32_t i = 0; i < r->test_n; i++) {
        right += r->test_labels[i] == best;
    }
    return (double)right / r->test_n;
}

/* A judge says how often it agrees with the labels it is given; given scikit-learn's answers, it must agree always. */
static double agreement(const struct room *r, uint32_t way, const uint32_t *labels)
{
    double top1;
    assert_int_equal(judge_knn(r->train, r->train_labels, r->train_n, r->test, labels, r->test_n, r->d, r->classes,
                               r->k[way], r->temperature[way], &top1, NULL),
                     0);
    return top1;
}

static void nearest_neighbours_give_every_answer(void **state)
{
    const struct room *r = *state;
    for (uint32_t way = 0; way < r->ways; way++) {
        const uint32_t *answers = r->knn + (size_t)way * r->test_n;
        double accuracy = share_equal(answers, r->test_labels, r->test_n);
        assert_true(agreement(r, way, answers) == 1);
        assert_true(agreement(r, way, r->test_labels) == accuracy);
        assert_true(accuracy > trivial(r) + 0.3 && accuracy < 0.95);
        for (uint32_t other = 0; other < r->ways; other++) { /* planted: another k, another temperature */
            assert_true(other == way || agreement(r, other, answers) < 1);
        }
    }
}

static void the_linear_probe_comes_near_the_optimum(void **state)
{
    const struct room *r = *state;
    const float *objectives = floats(&r->golden, "objective", 2);
    double top1, agrees, objective, least = (double)objectives[0];
    assert_int_equal(judge_linear(r->train, r->train_labels, r->train_n, r->test, r->test_labels, r->test_n, r->d,
                                  r->classes, &top1, &objective, NULL),
                     0);
    assert_int_equal(judge_linear(r->train, r->train_labels, r->train_n, r->test, r->linear, r->test_n, r->d,
                                  r->classes, &agrees, NULL, NULL),
                     0);
    double accuracy = share_equal(r->linear, r->test_labels, r->test_n);
    print_message("linear: %.4f, scikit-learn %.4f; same answer %.4f; objective %.6f, least %.6f\n", top1, accuracy,
                  agrees, objective, least);
    assert_true(fabs(top1 - accuracy) <= 0.005);
    assert_true(agrees >= 0.98);
    assert_true(objective > least - 1e-6); /* nothing is below the least */
    assert_true(objective < least * 1.01);
    assert_true((double)objectives[1] > least * 1.01); /* planted: the optimum of another penalty is refused */
    assert_true(accuracy > trivial(r) + 0.3 && accuracy < 0.95);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nearest_neighbours_give_every_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(the_linear_probe_comes_near_the_optimum, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
