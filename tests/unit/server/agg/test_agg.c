/* The aggregate: exact means, whole contributions or none, the same bits for every order, and want of memory; what the
 * optimisers make of the mean, against their closed forms. */
#include "tests/unit/server/agg/agg_support.h"

#include <math.h>
#include <string.h>

enum { SITES = UPDATES - 2 };

static const uint64_t weights[SITES] = {1, 1000, 37, 250000, 3};

static const struct optimiser momentum = {.kind = OPTIMISER_MOMENTUM, .learning_rate = 0.7, .momentum = 0.8},
                              adam = {.kind = OPTIMISER_ADAM,
                                      .learning_rate = 0.01,
                                      .momentum = 0.9,
                                      .beta2 = 0.99,
                                      .epsilon = 1e-3};

static struct agg *make_with(const struct optimiser *optimiser)
{
    struct agg *agg;
    assert_int_equal(agg_new(layout, params, optimiser, NULL, &agg), 0);
    return agg;
}

static struct agg *make(void)
{
    return make_with(&none);
}

static void add(struct agg *agg, const float *update, uint64_t weight)
{
    assert_int_equal(agg_add(agg, update, weight, NULL), FIXED_OK);
}

static struct bytes *finish(const struct agg *agg)
{
    struct bytes *next, *state;
    assert_int_equal(agg_finish(agg, &next, &state), 0);
    assert_null(state); /* none has none */
    return next;
}

static void the_next_model_is_the_weighted_mean(void **state)
{
    (void)state;
    struct agg *agg = make();
    for (int s = 0; s < SITES; s++) {
        add(agg, updates[s], weights[s]);
    }
    assert_int_equal(agg_weight(agg), 1 + 1000 + 37 + 250000 + 3);
    struct bytes *next = finish(agg);
    const float *values = (const float *)(const void *)next->data;
    for (size_t i = 0; i < total; i++) {
        double mean = 0, weight = 0;
        for (int s = 0; s < SITES; s++) {
            mean += (double)weights[s] * (double)updates[s][i];
            weight += (double)weights[s];
        }
        assert_true(fabs((double)values[i] - ((double)params[i] + mean / weight)) < 1e-6);
    }
    agg_restart(agg, next);
    agg_adopt(agg, next, NULL);
    assert_ptr_equal(agg_model(agg), next);
    assert_ptr_equal(agg_params(agg), values);
    assert_int_equal(agg_weight(agg), 0);
    agg_free(agg);
}

static void the_order_of_arrival_leaves_no_trace(void **state)
{
    (void)state;
    struct bytes *reference = NULL;
    for (uint64_t seed = 0; seed < 12; seed++) {
        uint32_t order[SITES] = {0, 1, 2, 3, 4};
        struct rng rng;
        rng_init(&rng, seed, RNG_TEST, 0, 0, 0);
        rng_permute(&rng, order, SITES);
        struct agg *agg = make();
        for (int s = 0; s < SITES; s++) {
            add(agg, updates[order[s]], weights[order[s]]);
        }
        struct bytes *next = finish(agg);
        if (reference) {
            assert_memory_equal(next->data, reference->data, next->len);
            bytes_unref(next);
        } else {
            reference = next;
        }
        agg_free(agg);
    }
    bytes_unref(reference);
}

/* The next model after site 2's update, and one of site 0's whose last number is not finite. `forgets` is the planted
 * mistake: what of it was added before that number was met is left in the sum. */
static struct bytes *with_a_refused_one(bool forgets)
{
    struct agg *agg = make();
    float *bad = mem_new(total, sizeof *bad), *nothing = mem_new(total, sizeof *nothing);
    uint32_t tensor = UINT32_MAX;
    add(agg, updates[2], 5);
    memcpy(bad, updates[0], total * sizeof *bad);
    bad[total - 1] = NAN;
    assert_int_equal(agg_add(agg, bad, 7, &tensor), FIXED_NOT_FINITE);
    assert_int_equal(tensor, layout->count - 1);
    assert_int_equal(agg_weight(agg), 5);
    if (forgets) {
        bad[total - 1] = 0;
        add(agg, bad, 7);
        agg_take_back(agg, nothing, 7); /* its weight alone */
    }
    struct bytes *next = finish(agg);
    mem_free(bad);
    mem_free(nothing);
    agg_free(agg);
    return next;
}

static void a_refused_update_is_not_in_the_sum(void **state)
{
    (void)state;
    struct agg *agg = make();
    add(agg, updates[2], 5);
    struct bytes *expected = finish(agg), *next = with_a_refused_one(false), *wrong = with_a_refused_one(true);
    assert_memory_equal(next->data, expected->data, next->len);
    assert_memory_not_equal(wrong->data, expected->data, wrong->len);
    bytes_unref(next);
    bytes_unref(wrong);

    float *bad = mem_new(total, sizeof *bad);
    uint32_t tensor = UINT32_MAX;
    memcpy(bad, updates[0], total * sizeof *bad);
    bad[layout->tensors[1].offset] = 1e9f;
    assert_int_equal(agg_add(agg, bad, 3, &tensor), FIXED_OUT_OF_RANGE);
    assert_int_equal(tensor, 1);
    mem_free(bad);
    add(agg, updates[1], 1000); /* One that was in and is taken back is not in it either. */
    add(agg, updates[3], 37);
    agg_take_back(agg, updates[1], 1000);
    agg_take_back(agg, updates[3], 37);
    next = finish(agg);
    assert_int_equal(agg_weight(agg), 5);
    assert_memory_equal(next->data, expected->data, next->len);
    bytes_unref(next);
    bytes_unref(expected);
    agg_free(agg);
}

/* A sum that were not emptied would show in the second round. */
static void a_round_starts_from_nothing(void **state)
{
    (void)state;
    struct agg *agg = make(), *fresh;
    add(agg, updates[0], 7);
    struct bytes *first = finish(agg);
    agg_restart(agg, first);
    agg_adopt(agg, first, NULL);
    add(agg, updates[1], 3);
    struct bytes *second = finish(agg);

    assert_int_equal(agg_new(layout, agg_params(agg), &none, NULL, &fresh), 0);
    add(fresh, updates[1], 3);
    struct bytes *expected = finish(fresh);
    assert_memory_equal(second->data, expected->data, second->len);
    bytes_unref(second);
    bytes_unref(expected);
    agg_free(agg);
    agg_free(fresh);
}

static void want_of_memory_is_told_and_may_pass(void **state)
{
    (void)state;
    struct agg *agg = NULL;
    uint64_t n = 0;
    do {
        mem_fail_after(++n);
        int rc = agg_new(layout, params, &adam, NULL, &agg);
        mem_fail_after(0);
        assert_int_equal(rc, agg ? 0 : ERR_NOMEM);
    } while (!agg);
    assert_in_range(n, 8, 10); /* the state's too: each allocation failed once */
    add(agg, updates[0], 1);
    struct bytes *next, *next_state;
    for (n = 1; n <= 4; n++) {
        mem_fail_after(n);
        assert_int_equal(agg_finish(agg, &next, &next_state), ERR_NOMEM);
        mem_fail_after(0);
        assert_null(next);
        assert_null(next_state);
    }
    assert_int_equal(agg_finish(agg, &next, &next_state), 0);
    bytes_unref(next);
    bytes_unref(next_state);
    agg_free(agg);
    agg_free(NULL);
}

/* ---- Optimisers ---- */

enum { ROUNDS = 6 };

static const float *floats_of(const struct bytes *bytes)
{
    return (const float *)(const void *)bytes->data;
}

/* Round r: site r of the five alone, so that the mean update is known exactly. */
static void one_round(struct agg *agg, int r)
{
    struct bytes *next, *next_state;
    add(agg, updates[r % SITES], weights[r % SITES]);
    assert_int_equal(agg_finish(agg, &next, &next_state), 0);
    agg_restart(agg, next);
    agg_adopt(agg, next, next_state);
}

/* FedAvgM after R rounds is x0 + lr * sum over r of d_r * (1 + m + ... + m^(R-1-r)); FedAdam's moments are the weighted
 * sums of their definition. Written out as sums, in double, apart from the recursion. */
static double closed_form(const struct optimiser *o, size_t i, int rounds)
{
    double x = (double)params[i];
    for (int n = 1; n <= rounds; n++) { /* the steps one after the other, each from its sums */
        double v = 0, s = pow(o->beta2, n) * o->epsilon * o->epsilon;
        for (int r = 0; r < n; r++) {
            double d = (double)updates[r % SITES][i];
            v += pow(o->momentum, n - 1 - r) * d;
            s += (1 - o->beta2) * pow(o->beta2, n - 1 - r) * d * d;
        }
        x += o->learning_rate * (o->kind == OPTIMISER_ADAM ? (1 - o->momentum) * v / (sqrt(s) + o->epsilon) : v);
    }
    return x;
}

static void optimisers_have_their_closed_forms(void **state)
{
    (void)state;
    const struct optimiser *const all[] = {&momentum, &adam};
    for (int k = 0; k < 2; k++) {
        struct agg *agg = make_with(all[k]);
        double moved = 0;
        for (int r = 0; r < ROUNDS; r++) {
            one_round(agg, r);
        }
        for (size_t i = 0; i < total; i++) {
            double plain = (double)params[i], got = (double)agg_params(agg)[i];
            for (int r = 0; r < ROUNDS; r++) {
                plain += (double)updates[r % SITES][i];
            }
            bool trained = i < layout->trainable_end;
            double want = trained ? closed_form(all[k], i, ROUNDS) : plain;
            assert_true(fabs(got - want) < 4e-6); /* a few roundings to float each */
            moved += trained ? fabs(want - plain) : 0;
        }
        assert_true(moved / (double)layout->trainable_end > 0.01); /* the plain mean would not pass */
        agg_free(agg);
    }
}

/* With no momentum and a rate of 1 the step is the mean itself, to the last bit; a rate scales the step of none. */
static void without_momentum_it_is_the_plain_mean(void **state)
{
    (void)state;
    const struct optimiser idle = {.kind = OPTIMISER_MOMENTUM, .learning_rate = 1},
                           half = {.kind = OPTIMISER_NONE, .learning_rate = 0.5};
    struct agg *plain = make(), *same = make_with(&idle), *slow = make_with(&half);
    for (int r = 0; r < ROUNDS; r++) {
        one_round(plain, r);
        one_round(same, r);
        assert_memory_equal(agg_params(plain), agg_params(same), total * sizeof(float));
    }
    one_round(slow, 0);
    for (size_t i = 0; i < total; i++) {
        double share = i < layout->trainable_end ? 0.5 : 1;
        assert_true(fabs((double)agg_params(slow)[i] - ((double)params[i] + share * (double)updates[0][i])) < 1e-6);
    }
    agg_free(plain);
    agg_free(same);
    agg_free(slow);
}

/* Order, and a restart from what a checkpoint holds after each round. */
static void optimisers_forget_neither_at_restarts_nor_for_the_order(void **state)
{
    (void)state;
    const struct optimiser *const all[] = {&momentum, &adam};
    for (int k = 0; k < 2; k++) {
        struct agg *agg = make_with(all[k]), *other = make_with(all[k]);
        for (int r = 0; r < ROUNDS; r++) {
            for (int s = 0; s < SITES; s++) {
                add(agg, updates[s], weights[s] + (uint64_t)r);
                add(other, updates[SITES - 1 - s], weights[SITES - 1 - s] + (uint64_t)r);
            }
            struct bytes *next, *next_state, *other_next, *other_state;
            assert_int_equal(agg_finish(agg, &next, &next_state), 0);
            assert_int_equal(agg_finish(other, &other_next, &other_state), 0);
            assert_memory_equal(next->data, other_next->data, next->len);
            assert_int_equal(next_state->len, optimiser_floats(all[k], layout) * sizeof(float));
            assert_memory_equal(next_state->data, other_state->data, next_state->len);
            agg_restart(agg, next);
            agg_adopt(agg, next, next_state);
            agg_free(other);
            assert_int_equal(agg_new(layout, floats_of(other_next), all[k], floats_of(other_state), &other), 0);
            bytes_unref(other_next);
            bytes_unref(other_state);
        }
        agg_free(agg);
        agg_free(other);
    }
}

/* A finish whose save fails is finished again. `adopts_early` is the planted mistake: the state moves on before the
 * model is durable, and the momentum of the round counts twice. */
static struct bytes *finish_twice(const struct optimiser *optimiser, bool adopts_early)
{
    struct bytes *next, *next_state;
    struct agg *agg = make_with(optimiser);
    one_round(agg, 0);
    add(agg, updates[1], 7);
    assert_int_equal(agg_finish(agg, &next, &next_state), 0);
    bytes_unref(next);
    if (adopts_early) {
        agg_adopt(agg, bytes_ref(agg_model(agg)), next_state);
    } else {
        bytes_unref(next_state);
    }
    assert_int_equal(agg_finish(agg, &next, &next_state), 0);
    bytes_unref(next_state);
    agg_free(agg);
    return next;
}

static void a_repeated_finish_counts_once(void **state)
{
    (void)state;
    const struct optimiser *const all[] = {&momentum, &adam};
    for (int k = 0; k < 2; k++) {
        struct bytes *next, *next_state;
        struct agg *agg = make_with(all[k]);
        one_round(agg, 0);
        add(agg, updates[1], 7);
        assert_int_equal(agg_finish(agg, &next, &next_state), 0);
        struct bytes *again = finish_twice(all[k], false), *wrong = finish_twice(all[k], true);
        assert_memory_equal(again->data, next->data, next->len);
        assert_memory_not_equal(wrong->data, next->data, next->len);
        bytes_unref(next);
        bytes_unref(next_state);
        bytes_unref(again);
        bytes_unref(wrong);
        agg_free(agg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_model_is_the_weighted_mean),
        cmocka_unit_test(the_order_of_arrival_leaves_no_trace),
        cmocka_unit_test(a_refused_update_is_not_in_the_sum),
        cmocka_unit_test(a_round_starts_from_nothing),
        cmocka_unit_test(want_of_memory_is_told_and_may_pass),
        cmocka_unit_test(optimisers_have_their_closed_forms),
        cmocka_unit_test(without_momentum_it_is_the_plain_mean),
        cmocka_unit_test(optimisers_forget_neither_at_restarts_nor_for_the_order),
        cmocka_unit_test(a_repeated_finish_counts_once),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
