/* What a contribution must be, and what becomes of the others: declined with the reason, and not in the sum. */
#include "tests/unit/server/session/world.h"

static struct world w;
static struct site sites[SITES];

/* Three sites in round 1; 0 has its contribution ready to offer. */
static int set_up(void **state)
{
    (void)state;
    world_init(&w);
    for (uint32_t i = 0; i < SITES; i++) {
        site_init(&sites[i], i);
    }
    world_start(&w);
    for (uint32_t i = 0; i < 3; i++) {
        join(&w, &sites[i]);
    }
    (void)hear(&w, 0, MSG_ROUND);
    train(&w, &sites[0], 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < SITES; i++) {
        site_fini(&sites[i]);
    }
    world_fini(&w);
    return 0;
}

/* The others deliver; the checkpoint must be that of the two of them (site 0 stays away from the sum). The round would
 * wait for its deadline, since min_clients is 3; so a fourth site makes it three. */
static void the_sum_is_that_of(const uint32_t *numbers, uint32_t count)
{
    double weight = 0;
    float *params = mem_new((size_t)w.layout->total, sizeof *params);
    params_init(w.layout, w.plan.seed, params);
    for (uint32_t s = 0; s < count; s++) {
        weight += (double)sites[numbers[s]].offer.offer.report.images;
    }
    for (uint64_t i = 0; i < w.layout->total; i++) {
        double mean = 0;
        for (uint32_t s = 0; s < count; s++) {
            const struct site *site = &sites[numbers[s]];
            mean += (double)site->offer.offer.report.images * (double)site->update[i];
        }
        assert_true(fabs((double)w.disk.params[i] - ((double)params[i] + mean / weight)) < 1e-6);
    }
    mem_free(params);
    assert_int_equal(w.disk.summary.accepted, count);
}

/* After site 0's only contribution was declined: three others make the round. */
static void others_make_the_round(void)
{
    static const uint32_t others[] = {1, 2, 3};
    join(&w, &sites[3]); /* Admitted at once: 0 is not waited for any more. */
    for (uint32_t i = 0; i < 3; i++) {
        deliver(&w, &sites[others[i]]);
    }
    assert_int_equal(w.disk.round, 1);
    the_sum_is_that_of(others, 3);
    struct msg end = hear(&w, 0, MSG_ROUND_END);
    assert_false(end.round_end.counted);
    assert_int_equal(w.disk.summary.declined, 1);
    assert_int_equal(w.disk.counted_count, 3);
}

static void nan_is_declined_and_not_in_the_sum(void **state)
{
    (void)state;
    sites[0].update[w.layout->total / 2] = NAN;
    describe_offer(&w, &sites[0], 1);
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    struct msg declined = hear_declined(&w, 0, DECLINE_NOT_FINITE);
    assert_non_null(strstr(declined.declined.text, "not finite"));
    assert_true(logged(&w, "contribution_declined name=site-0 round=1 reason=\"not finite\""));
    others_make_the_round();
}

static void bad_features_take_the_update_with_them(void **state)
{
    (void)state;
    sites[0].features[D * 3] += 0.5f; /* Not of unit length: the contribution is one unit. */
    describe_offer(&w, &sites[0], 1);
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    (void)hear_declined(&w, 0, DECLINE_FEATURES);
    others_make_the_round();
    struct msg keep; /* Three owners, none of them site 0. */
    assert_int_equal(status_of(&w, &keep).bank_contributors, 3);
    msg_fini(&keep);
}

static void other_contents_are_declined_too(void **state)
{
    (void)state;
    sites[0].update[0] = 1e6f;
    describe_offer(&w, &sites[0], 1);
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    (void)hear_declined(&w, 0, DECLINE_RANGE);

    train(&w, &sites[0], 1);
    sites[0].features[5] = INFINITY;
    describe_offer(&w, &sites[0], 1);
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    (void)hear_declined(&w, 0, DECLINE_NOT_FINITE);

    train(&w, &sites[0], 1);
    sites[0].update[7] += 1; /* other bytes than were announced */
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    (void)hear_declined(&w, 0, DECLINE_HASH);
    assert_true(logged(&w, "upload_damaged name=site-0 round=1 uploads=3"));

    train(&w, &sites[0], 1);
    sites[0].features[7] += 1;
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    (void)hear_declined(&w, 0, DECLINE_HASH);

    train(&w, &sites[0], 1); /* A good one after all these counts. */
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ACCEPTED);
    deliver(&w, &sites[1]);
    deliver(&w, &sites[2]);
    the_sum_is_that_of((const uint32_t[]){0, 1, 2}, 3);
    assert_int_equal(w.disk.summary.declined, 4);
}

/* What the description alone tells: declined before a byte is asked for. */
static void descriptions_are_judged_before_the_upload(void **state)
{
    (void)state;
    struct msg_offer good = sites[0].offer.offer;
    struct msg offer = sites[0].offer;
#define DECLINED_WITH(change, reason)                                                                                  \
    do {                                                                                                               \
        offer.offer = good;                                                                                            \
        change;                                                                                                        \
        say(&w, 0, offer);                                                                                             \
        (void)hear_declined(&w, 0, reason);                                                                            \
        hear_nothing(&w, 0);                                                                                           \
    } while (0)
    DECLINED_WITH(offer.offer.update.layout = hash_of("x", 1), DECLINE_LAYOUT);
    DECLINED_WITH(offer.offer.update.kind = BLOB_FEATURES, DECLINE_LENGTH);
    DECLINED_WITH(offer.offer.update.round = 2, DECLINE_LENGTH);
    DECLINED_WITH(offer.offer.update.element = ELEMENT_F16, DECLINE_LENGTH);
    DECLINED_WITH(offer.offer.update.count--, DECLINE_LENGTH);
    DECLINED_WITH(offer.offer.update.bytes += 4, DECLINE_LENGTH);
    DECLINED_WITH(offer.offer.update.bytes = UINT64_C(1) << 40, DECLINE_LENGTH);
    DECLINED_WITH(offer.offer.features.kind = BLOB_UPDATE, DECLINE_FEATURES);
    DECLINED_WITH(offer.offer.features.round = 2, DECLINE_FEATURES);
    DECLINED_WITH(offer.offer.features.element = ELEMENT_I8, DECLINE_FEATURES);
    DECLINED_WITH(offer.offer.features.dimension = D / 2, DECLINE_FEATURES);
    DECLINED_WITH(offer.offer.features.encoder++, DECLINE_FEATURES);
    DECLINED_WITH(offer.offer.features.count = 0, DECLINE_FEATURES);
    DECLINED_WITH((offer.offer.features.count = (ROWS + 1) * D, offer.offer.features.bytes = (ROWS + 1) * D * 4),
                  DECLINE_FEATURES);
    DECLINED_WITH(offer.offer.features.count -= 1, DECLINE_FEATURES);
    DECLINED_WITH(offer.offer.features.bytes -= 4, DECLINE_FEATURES);
    DECLINED_WITH(offer.offer.report.images = 0, DECLINE_WEIGHT);
    DECLINED_WITH(offer.offer.report.images = (UINT64_C(1) << 26) + 1, DECLINE_WEIGHT);
    DECLINED_WITH(offer.offer.report.loss = (double)NAN, DECLINE_NOT_FINITE);
    DECLINED_WITH(offer.offer.report.remote_share = (double)INFINITY, DECLINE_NOT_FINITE);
    DECLINED_WITH(offer.offer.round = 0, DECLINE_STALE);
    DECLINED_WITH(offer.offer.round = 2, DECLINE_STALE);
}

static void weights_are_capped(void **state)
{
    (void)state;
    tear_down(NULL);
    world_init(&w);
    w.plan.weight_cap = 12;
    world_start(&w);
    for (uint32_t s = 0; s < 3; s++) {
        join(&w, &sites[s]);
    }
    for (uint32_t s = 0; s < 3; s++) {
        deliver(&w, &sites[s]);
    }
    assert_int_equal(w.disk.summary.images, 10 + 12 + 12); /* of 10, 13 and 16 */
    sites[1].offer.offer.report.images = sites[2].offer.offer.report.images = 12;
    the_sum_is_that_of((const uint32_t[]){0, 1, 2}, 3);
}

static void a_repeated_offer_counts_once(void **state)
{
    (void)state;
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ACCEPTED);
    say(&w, 0, sites[0].offer);
    (void)hear(&w, 0, MSG_ACCEPTED); /* at once, without an upload */
    lose(&w, 0);
    join(&w, &sites[0]);
    hear_nothing(&w, 0); /* It is not invited to what it has delivered. */
    say(&w, 0, sites[0].offer);
    (void)hear(&w, 0, MSG_ACCEPTED);
    deliver(&w, &sites[1]);
    w.hold_jobs = true;
    (void)hear(&w, 2, MSG_ROUND);
    train(&w, &sites[2], 1);
    say(&w, 2, sites[2].offer);
    answer_grants(&w, &sites[2]);
    run_job(&w);
    say(&w, 0, sites[0].offer); /* while the model is made */
    (void)hear(&w, 0, MSG_ACCEPTED);
    w.hold_jobs = false;
    run_jobs(&w);
    the_sum_is_that_of((const uint32_t[]){0, 1, 2}, 3);
    assert_true(hear(&w, 0, MSG_ROUND_END).round_end.counted);
    (void)hear(&w, 0, MSG_ROUND);

    say(&w, 0, sites[0].offer); /* the round before: it is durable, and says so again */
    (void)hear(&w, 0, MSG_ACCEPTED);
    struct msg end = hear(&w, 0, MSG_ROUND_END);
    assert_int_equal(end.round_end.round, 1);
    assert_true(end.round_end.counted);
}

static void a_late_offer_is_declined(void **state)
{
    (void)state;
    join(&w, &sites[3]);
    advance(&w, DEADLINE_MS); /* extended, and site 3 is let in */
    for (uint32_t s = 1; s <= 3; s++) {
        w.hold_jobs = s == 3;
        (void)hear(&w, s, MSG_ROUND);
        train(&w, &sites[s], 1);
        say(&w, s, sites[s].offer);
        answer_grants(&w, &sites[s]);
    }
    run_job(&w);
    advance(&w, DEADLINE_MS); /* closes without site 0 */
    assert_string_equal(coordinator_phase(w.c), "AGGREGATING");
    say(&w, 0, sites[0].offer);
    (void)hear_declined(&w, 0, DECLINE_STALE);
    w.hold_jobs = false;
    run_jobs(&w);
    the_sum_is_that_of((const uint32_t[]){1, 2, 3}, 3);
    assert_false(hear(&w, 0, MSG_ROUND_END).round_end.counted);
    (void)hear(&w, 0, MSG_ROUND);
    say(&w, 0, sites[0].offer);
    (void)hear_declined(&w, 0, DECLINE_STALE);
}

/* A loop that was held up reads the offer before it sees that the deadline has passed. The offer then closes the round
 * itself, is not in it, and does not wait for a slot in the next one. */
static void an_offer_that_closes_its_round_is_late(void **state)
{
    (void)state;
    join(&w, &sites[3]);
    advance(&w, DEADLINE_MS); /* extended, and site 3 is let in */
    for (uint32_t s = 1; s <= 3; s++) {
        deliver(&w, &sites[s]);
    }
    w.now += DEADLINE_MS;
    say(&w, 0, sites[0].offer);
    (void)hear_declined(&w, 0, DECLINE_STALE);
    assert_int_equal(w.disk.round, 1);
    the_sum_is_that_of((const uint32_t[]){1, 2, 3}, 3);
    (void)hear(&w, 0, MSG_ROUND_END);
    (void)hear(&w, 0, MSG_ROUND);
    hear_nothing(&w, 0);
}

static void no_offer_at_done(void **state)
{
    (void)state;
    tear_down(NULL);
    world_init(&w);
    w.plan.rounds = w.plan.min_clients = 1;
    world_start(&w);
    join(&w, &sites[0]);
    deliver(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ROUND_END);
    train(&w, &sites[0], 2);
    say(&w, 0, sites[0].offer);
    (void)hear_declined(&w, 0, DECLINE_STALE);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(nan_is_declined_and_not_in_the_sum),
        TEST(bad_features_take_the_update_with_them),
        TEST(other_contents_are_declined_too),
        TEST(descriptions_are_judged_before_the_upload),
        TEST(weights_are_capped),
        TEST(a_repeated_offer_counts_once),
        TEST(a_late_offer_is_declined),
        TEST(an_offer_that_closes_its_round_is_late),
        TEST(no_offer_at_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
