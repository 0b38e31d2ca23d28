/* The losses: gradients against finite differences, and the cases that have an answer on paper. */
#include "tests/unit/client/nn/nn_support.h"

#include "client/nn/loss.h"

#define B  5u
#define D  12u
#define N  17u
#define M  9u
#define K  3u /* neighbours */
#define T  0.3f
#define BY 0.6f /* weight */

enum form { CONTRAST, ENTROPY, POSITIVES };

struct fixture {
    enum form form;
    struct loss_negatives all;
    const uint32_t *near_image; /* [M] or NULL */
    float *k, *negatives, *remote, *dq, *scratch;
};

static double value(void *ctx, const float *q)
{
    struct fixture *f = ctx;
    const struct loss_candidates near = {.n = M, .rows = f->remote, .image = f->near_image, .own = f->all.own};
    double loss = 0, accuracy;
    memset(f->dq, 0, B * D * sizeof *f->dq);
    switch (f->form) {
    case CONTRAST:
        loss_contrast(B, D, q, f->k, &f->all, T, f->dq, &loss, &accuracy, f->scratch);
        break;
    case ENTROPY:
        loss_matching_entropy(B, D, q, &near, K, T, BY, f->dq, &loss, f->scratch);
        break;
    case POSITIVES:
        loss_matching_positives(B, D, q, f->k, &near, &f->all, K, T, BY, f->dq, &loss, f->scratch);
        break;
    }
    return loss;
}

static struct fixture fixture(enum form form)
{
    struct fixture f = {form,
                        {.n = N},
                        NULL,
                        test_unit_rows(1, B, D),
                        test_unit_rows(2, N, D),
                        test_unit_rows(3, M, D),
                        test_floats(B * D),
                        test_floats(B * (N + 2 * M + 1))};
    /* Some negatives are remote features, as in training. */
    memcpy(f.negatives + 4 * D, f.remote, 5 * D * sizeof(float));
    f.all.rows = f.negatives;
    return f;
}

static void fixture_fini(struct fixture *f)
{
    mem_free(f->k);
    mem_free(f->negatives);
    mem_free(f->remote);
    mem_free(f->dq);
    mem_free(f->scratch);
}

static void check_form(enum form form)
{
    struct fixture f = fixture(form);
    float *q = test_unit_rows(4, B, D), *grad = test_floats(B * D);
    (void)value(&f, q);
    memcpy(grad, f.dq, B * D * sizeof *grad);
    test_gradient("q", (struct test_function){value, &f, q}, grad, 0, B * D, 0.005, 0.01);
    mem_free(q);
    mem_free(grad);
    fixture_fini(&f);
}

static void contrast_gradient(void **state)
{
    (void)state;
    check_form(CONTRAST);
}

static void entropy_gradient(void **state)
{
    (void)state;
    check_form(ENTROPY);
}

static void positives_gradient(void **state)
{
    (void)state;
    check_form(POSITIVES);
}

static void gradients_accumulate(void **state)
{
    (void)state;
    float *q = test_unit_rows(4, B, D);
    struct fixture f = fixture(CONTRAST);
    double loss, accuracy;
    (void)value(&f, q);
    float *once = test_floats(B * D);
    memcpy(once, f.dq, B * D * sizeof *once);
    loss_contrast(B, D, q, f.k, &f.all, T, f.dq, &loss, &accuracy, f.scratch);
    for (size_t i = 0; i < B * D; i++) {
        assert_true(fabsf(f.dq[i] - 2 * once[i]) <= 1e-6f);
    }
    mem_free(once);
    mem_free(q);
    fixture_fini(&f);
}

/* q = k and negatives orthogonal to it: the loss is log(1 + n exp(-1/t)). */
static void contrast_on_paper(void **state)
{
    (void)state;
    float q[D] = {1}, negatives[3 * D] = {0}, dq[D] = {0}, scratch[4];
    const struct loss_negatives all = {.n = 3, .rows = negatives};
    double loss, accuracy;
    for (size_t i = 0; i < 3; i++) {
        negatives[i * D + i + 1] = 1;
    }
    loss_contrast(1, D, q, q, &all, 0.5f, dq, &loss, &accuracy, scratch);
    assert_true(fabs(loss - log(1 + 3 * exp(-2))) < 1e-6);
    assert_true(accuracy > 0.999);
    double p = exp(-2) / (1 + 3 * exp(-2)); /* of each negative */
    assert_true(fabs((double)dq[0] + 3 * p / 0.5) < 1e-6);
    assert_true(fabs((double)dq[1] - p / 0.5) < 1e-6);
    /* A negative that is nearer than the positive. */
    negatives[0] = 1;
    float k[D] = {0, 1};
    loss_contrast(1, D, q, k, &all, 0.5f, dq, &loss, &accuracy, scratch);
    assert_true(accuracy < 0.001);
}

/* Without negatives there is nothing to tell apart; with them there is. */
static void no_negatives(void **state)
{
    (void)state;
    float *q = test_unit_rows(4, B, D);
    struct fixture f = fixture(CONTRAST);
    assert_true(value(&f, q) > 0.1);
    f.all.n = 0;
    assert_true(fabs(value(&f, q)) < 1e-7);
    assert_true(test_dot(f.dq, f.dq, B * D) < 1e-12);
    f.form = POSITIVES;
    assert_true(fabs(value(&f, q)) < 1e-7);
    mem_free(q);
    fixture_fini(&f);
}

/* Rows that show the query's own image leave the sum, for this query alone: as if they were not there. */
static void own_images_are_no_negatives(void **state)
{
    (void)state;
    static const uint32_t image[N] = {4, 1, 9, 9, 0, 3, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 2}, own[B] = {4, 3, 2, 1, 0};
    float *q = test_unit_rows(4, B, D), *rows = test_floats(N * D);
    for (enum form form = CONTRAST; form <= POSITIVES; form++) {
        struct fixture f = fixture(form);
        f.all.image = image;
        double every = value(&f, q), loss = 0;
        f.all.own = own;
        double without = value(&f, q);
        float masked[B * D];
        memcpy(masked, f.dq, sizeof masked);
        test_gradient("q", (struct test_function){value, &f, q}, masked, 0, B * D, 0.005, 0.01);
        if (form == ENTROPY) { /* has no negatives */
            assert_true(without == every);
            fixture_fini(&f);
            continue;
        }
        assert_true(every > without + 1e-3); /* what it would be with them */
        for (uint32_t i = 0; i < B; i++) {   /* one query at a time, against a list without its own */
            struct loss_negatives rest = {.rows = rows};
            double one = 0, accuracy;
            for (uint32_t j = 0; j < N; j++) {
                if (image[j] != own[i]) {
                    memcpy(rows + (size_t)rest.n++ * D, f.negatives + (size_t)j * D, D * sizeof *rows);
                }
            }
            memset(f.dq, 0, D * sizeof *f.dq);
            if (form == CONTRAST) {
                loss_contrast(1, D, q + (size_t)i * D, f.k + (size_t)i * D, &rest, T, f.dq, &one, &accuracy, f.scratch);
            } else {
                const struct loss_candidates near = {.n = M, .rows = f.remote};
                loss_matching_positives(1, D, q + (size_t)i * D, f.k + (size_t)i * D, &near, &rest, K, T, BY, f.dq,
                                        &one, f.scratch);
            }
            loss += one / B;
        }
        assert_true(fabs(loss - without) < 1e-6);
        fixture_fini(&f);
    }
    mem_free(q);
    mem_free(rows);
}

/* With candidates that show the query's own image, a loss is what it is without them. */
static void own_images_are_no_neighbours(void **state)
{
    (void)state;
    for (enum form form = ENTROPY; form <= POSITIVES; form++) {
        struct fixture f = fixture(form);
        float *q = test_unit_rows(4, B, D), *rows = test_floats(M * D);
        uint32_t own[B], image[M], none[N];
        for (uint32_t j = 0; j < N; j++) {
            none[j] = 1000;
        }
        for (uint32_t i = 0; i < B; i++) {
            own[i] = i;
        }
        for (uint32_t j = 0; j < M; j++) {
            image[j] = j % (B + 1);
        }
        double every = value(&f, q), loss = 0;
        f.near_image = image;
        f.all.image = none;
        f.all.own = own;
        double without = value(&f, q);
        assert_true(fabs(every - without) > 1e-4); /* what it would be with them */
        test_gradient("q", (struct test_function){value, &f, q}, f.dq, 0, B * D, 0.005, 0.01);
        for (uint32_t i = 0; i < B; i++) {
            struct loss_candidates rest = {.rows = rows};
            double one = 0;
            for (uint32_t j = 0; j < M; j++) {
                if (image[j] != own[i]) {
                    memcpy(rows + (size_t)rest.n++ * D, f.remote + (size_t)j * D, D * sizeof *rows);
                }
            }
            const float *here = q + (size_t)i * D;
            const struct loss_negatives all = {.n = N, .rows = f.negatives};
            memset(f.dq, 0, D * sizeof *f.dq);
            if (form == ENTROPY) {
                loss_matching_entropy(1, D, here, &rest, K, T, BY, f.dq, &one, f.scratch);
            } else {
                loss_matching_positives(1, D, here, f.k + (size_t)i * D, &rest, &all, K, T, BY, f.dq, &one, f.scratch);
            }
            loss += one / B;
        }
        assert_true(fabs(loss - without) < 1e-6);
        mem_free(q);
        mem_free(rows);
        fixture_fini(&f);
    }
}

/* One candidate left, and none: as many neighbours as there are, and no numbers out of nothing. */
static void too_few_candidates_are_fewer_neighbours(void **state)
{
    (void)state;
    const float q[D] = {1}, k[D] = {0, 1}, rows[3 * D] = {0.6f, 0.8f};
    const uint32_t own[1] = {4}, image[3] = {9, 4, 4}, all_own[3] = {4, 4, 4};
    struct loss_candidates near = {.n = 3, .rows = rows, .image = image, .own = own};
    const struct loss_candidates one = {.n = 1, .rows = rows};
    const struct loss_negatives none = {0};
    float dq[D] = {0}, expected[D] = {0}, scratch[9];
    double loss, truth;
    loss_matching_positives(1, D, q, k, &one, &none, 1, T, 1, expected, &truth, scratch);
    loss_matching_positives(1, D, q, k, &near, &none, 3, T, 1, dq, &loss, scratch);
    assert_true(loss == truth);
    assert_memory_equal(dq, expected, sizeof dq);
    loss_matching_entropy(1, D, q, &near, 3, T, 1, dq, &loss, scratch);
    assert_true(loss == 0); /* of one share */
    assert_memory_equal(dq, expected, sizeof dq);
    near.image = all_own;
    loss_matching_positives(1, D, q, k, &near, &none, 3, T, 1, dq, &loss, scratch);
    assert_true(loss == 0);
    loss_matching_entropy(1, D, q, &near, 3, T, 1, dq, &loss, scratch);
    assert_true(loss == 0);
    assert_memory_equal(dq, expected, sizeof dq);
}

/* Equal similarities: the entropy of K equal shares is log K, and its gradient zero; a single neighbour has none. */
static void entropy_on_paper(void **state)
{
    (void)state;
    float q[D] = {1}, remote[4 * D] = {0}, dq[D] = {0}, scratch[4];
    struct loss_candidates near = {.n = 4, .rows = remote};
    double loss;
    for (size_t i = 0; i < 4; i++) {
        remote[i * D] = i == 3 ? -1 : 0.5f; /* the last is far and must not count */
        remote[i * D + i + 1] = 0.8f;
    }
    loss_matching_entropy(1, D, q, &near, 3, T, 2, dq, &loss, scratch);
    assert_true(fabs(loss - 2 * log(3)) < 1e-6);
    assert_true(test_dot(dq, dq, D) < 1e-10);
    loss_matching_entropy(1, D, q, &near, 4, T, 2, dq, &loss, scratch);
    assert_true(loss > 2 * log(3) + 1e-3 && loss < 2 * log(4));
    loss_matching_entropy(1, D, q, &near, 1, T, 2, dq, &loss, scratch);
    assert_true(fabs(loss) < 1e-9);
}

/* A negative that is a copy of a chosen neighbour leaves the sum; a copy of one that is not chosen stays. */
static void positives_leave_their_copies_out(void **state)
{
    (void)state;
    float q[D] = {1}, k[D] = {0, 1}, dq[D] = {0}, scratch[3 + 2 * 2];
    float remote[2 * D] = {0}, negatives[3 * D] = {0};
    remote[1] = 1;    /* nearest to k */
    remote[D] = 1;    /* nearest to q, which does not choose */
    negatives[1] = 1; /* a copy of the first */
    negatives[D] = 1; /* a copy of the second */
    negatives[2 * D + 2] = 1;
    const struct loss_negatives all = {.n = 3, .rows = negatives};
    const struct loss_candidates near = {.n = 2, .rows = remote};
    double loss;
    loss_matching_positives(1, D, q, k, &near, &all, 1, 1, 1, dq, &loss, scratch);
    /* s_p = 0; the sum holds exp(0) for the positive, exp(1) and exp(0) for the negatives that stay. */
    assert_true(fabs(loss - log(2 + exp(1))) < 1e-6);
    assert_true(fabs(log(3 + exp(1)) - log(2 + exp(1))) > 0.1); /* what it would be with the copy */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contrast_gradient),
        cmocka_unit_test(entropy_gradient),
        cmocka_unit_test(positives_gradient),
        cmocka_unit_test(gradients_accumulate),
        cmocka_unit_test(own_images_are_no_negatives),
        cmocka_unit_test(own_images_are_no_neighbours),
        cmocka_unit_test(too_few_candidates_are_fewer_neighbours),
        cmocka_unit_test(contrast_on_paper),
        cmocka_unit_test(no_negatives),
        cmocka_unit_test(entropy_on_paper),
        cmocka_unit_test(positives_leave_their_copies_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
