/* kNN against a plain count, and both judges on data whose answer is known. */
#include "tests/unit/client/nn/nn_support.h"

#include "client/nn/judge.h"

#define CLASSES 4u
#define D       10u

/* Class c lies around e_c; `spread` says how far. Labels go round. */
static float *blobs(uint64_t name, uint32_t n, float spread, uint32_t *labels)
{
    float *rows = test_normal(name, (size_t)n * D);
    for (uint32_t i = 0; i < n; i++) {
        labels[i] = i % CLASSES;
        for (uint32_t j = 0; j < D; j++) {
            rows[(size_t)i * D + j] = rows[(size_t)i * D + j] * spread + (j == labels[i] ? 1 : 0);
        }
    }
    return rows;
}

static double cosine(const float *a, const float *b)
{
    double norm = sqrt(test_dot(a, a, D) * test_dot(b, b, D));
    return norm > 0 ? test_dot(a, b, D) / norm : 0;
}

/* The same vote, by taking the nearest that is left k times. */
static double plain_knn(const float *train, const uint32_t *train_labels, uint32_t n, const float *test,
                        const uint32_t *test_labels, uint32_t test_n, uint32_t k, double temperature)
{
    uint32_t right = 0;
    for (uint32_t i = 0; i < test_n; i++) {
        bool *taken = mem_new(n, sizeof *taken);
        double votes[CLASSES] = {0};
        for (uint32_t round = 0; round < k; round++) {
            uint32_t best = n;
            double most = -2;
            for (uint32_t j = 0; j < n; j++) {
                double c = cosine(train + (size_t)j * D, test + (size_t)i * D);
                if (!taken[j] && c > most) {
                    most = c;
                    best = j;
                }
            }
            taken[best] = true;
            votes[train_labels[best]] += exp(most / temperature);
        }
        uint32_t answer = 0;
        for (uint32_t c = 1; c < CLASSES; c++) {
            answer = votes[c] > votes[answer] ? c : answer;
        }
        right += answer == test_labels[i];
        mem_free(taken);
    }
    return (double)right / test_n;
}

static void knn_is_the_plain_count(void **state)
{
    (void)state;
    uint32_t train_labels[150], test_labels[140];
    float *train = blobs(1, 150, 0.5f, train_labels), *test = blobs(2, 140, 0.5f, test_labels);
    static const uint32_t ks[] = {1, 7, 60, 150};
    for (size_t i = 0; i < 4; i++) {
        double top1;
        assert_int_equal(
            judge_knn(train, train_labels, 150, test, test_labels, 140, D, CLASSES, ks[i], 0.1f, &top1, NULL), 0);
        double plain = plain_knn(train, train_labels, 150, test, test_labels, 140, ks[i], 0.1);
        assert_true(fabs(top1 - plain) < 1e-9);
        assert_true(top1 > 0.5 && top1 < 1); /* neither trivial nor hopeless */
    }
    mem_free(train);
    mem_free(test);
}

static void knn_at_the_edges(void **state)
{
    (void)state;
    float train[2 * D] = {0}, test[2 * D] = {0};
    uint32_t train_labels[] = {3, 1}, test_labels[] = {1, 3};
    double top1;
    train[0] = 100; /* length does not count */
    train[D + 1] = 0.01f;
    test[1] = 5;
    test[D] = 1e-3f;
    assert_int_equal(judge_knn(train, train_labels, 2, test, test_labels, 2, D, CLASSES, 200, 0.1f, &top1, NULL), 0);
    assert_true(top1 > 0.999);
    /* A zero row is equally near to all: with one vote each, the lower class. */
    memset(test, 0, sizeof test);
    assert_int_equal(judge_knn(train, train_labels, 2, test, test_labels, 2, D, CLASSES, 200, 0.1f, &top1, NULL), 0);
    assert_true(fabs(top1 - 0.5) < 1e-9);
    struct err err;
    assert_int_equal(judge_knn(train, train_labels, 0, test, test_labels, 2, D, CLASSES, 5, 0.1f, &top1, &err),
                     ERR_DATA);
    assert_int_equal(judge_linear(train, train_labels, 2, test, test_labels, 0, D, CLASSES, &top1, NULL, &err),
                     ERR_DATA);
}

/* Features that are shifted and scaled apart, and a class that no cosine tells: only the linear probe can, through
 * standardising and its bias. Shuffled labels give chance. */
static void linear_probe(void **state)
{
    (void)state;
    enum { N = 600 };
    uint32_t *labels = mem_new(N, sizeof *labels), *test_labels = mem_new(N, sizeof *labels);
    float *train = blobs(3, N, 0.25f, labels), *test = blobs(4, N, 0.25f, test_labels);
    for (size_t i = 0; i < (size_t)N * D; i++) {
        float scale = i % D == 1 ? 1000 : i % D == 2 ? 0.001f : 1;
        train[i] = (train[i] + 7) * scale;
        test[i] = (test[i] + 7) * scale;
        if (i % D == D - 1) {
            train[i] = test[i] = 42; /* constant */
        }
    }
    double top1, again, shuffled;
    assert_int_equal(judge_linear(train, labels, N, test, test_labels, N, D, CLASSES, &top1, NULL, NULL), 0);
    assert_int_equal(judge_linear(train, labels, N, test, test_labels, N, D, CLASSES, &again, NULL, NULL), 0);
    assert_true(top1 > 0.93);
    assert_true(memcmp(&top1, &again, sizeof top1) == 0);
    struct rng rng;
    rng_init(&rng, 1, RNG_TEST, 0, 0, 0);
    rng_permute(&rng, labels, N);
    assert_int_equal(judge_linear(train, labels, N, test, test_labels, N, D, CLASSES, &shuffled, NULL, NULL), 0);
    assert_true(shuffled < 0.4);
    /* Fewer rows than a minibatch. */
    assert_int_equal(judge_linear(test, test_labels, 20, test, test_labels, 20, D, CLASSES, &top1, NULL, NULL), 0);
    assert_true(top1 > 0.99);
    mem_free(train);
    mem_free(test);
    mem_free(labels);
    mem_free(test_labels);
}

static void memory_runs_out(void **state)
{
    (void)state;
    uint32_t labels[40];
    float *rows = blobs(5, 40, 0.3f, labels);
    double top1;
    int rc = ERR_NOMEM;
    for (uint64_t n = 1; rc != 0; n++) {
        mem_fail_after(n);
        rc = judge_knn(rows, labels, 40, rows, labels, 40, D, CLASSES, 5, 0.1f, &top1, NULL);
        mem_fail_after(0);
        assert_true(rc == 0 || (rc == ERR_NOMEM && n < 100));
    }
    rc = ERR_NOMEM;
    for (uint64_t n = 1; rc != 0; n++) {
        mem_fail_after(n);
        rc = judge_linear(rows, labels, 40, rows, labels, 40, D, CLASSES, &top1, NULL, NULL);
        mem_fail_after(0);
        assert_true(rc == 0 || (rc == ERR_NOMEM && n < 100));
    }
    mem_free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knn_is_the_plain_count),
        cmocka_unit_test(knn_at_the_edges),
        cmocka_unit_test(linear_probe),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
