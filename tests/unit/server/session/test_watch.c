/* The measures of a representation: means over who says them, weighted by images, in the order of names; seen in the
 * status; and the alarm: once when a collapse begins, once when it ends, also across a restart. */
#include "tests/unit/server/session/world.h"

static struct world w;
static struct site sites[3];

static int set_up(void **state)
{
    (void)state;
    world_init(&w);
    w.plan.rounds = 20;
    sites_init(sites, 3);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sites_fini(sites, 3);
    world_fini(&w);
    return 0;
}

/* One round in which each site reports these measures of the aggregated encoder; rank 0: none. */
static void round_of(const double deviations[3], const double ranks[3])
{
    w.lines.len = 0;
    for (uint32_t s = 0; s < 3; s++) {
        (void)pass_over(&w, s, MSG_ROUND_END);
        struct msg round = hear(&w, s, MSG_ROUND);
        train(&w, &sites[s], round.round.round);
        if (ranks[s] > 0) {
            sites[s].offer.offer.report.aggregate = (struct watch){true, 0.5, -2, deviations[s], ranks[s]};
            sites[s].offer.offer.report.own = (struct watch){true, 0.25, -1, deviations[s] / 2, ranks[s]};
        }
        say(&w, s, sites[s].offer);
        answer_grants(&w, &sites[s]);
        (void)hear(&w, s, MSG_ACCEPTED);
    }
}

static void same_round(double deviation, double rank)
{
    round_of((double[]){deviation, deviation, deviation}, (double[]){rank, rank, rank});
}

static void begin(void)
{
    world_start(&w);
    for (uint32_t s = 0; s < 3; s++) {
        join(&w, &sites[s]);
    }
}

static bool alarmed(void)
{
    struct msg keep;
    struct msg_status_reply reply = status_of(&w, &keep);
    bool alarm = reply.alarm[0] != 0;
    assert_true(!alarm || strstr(reply.alarm, "learning_rate"));
    msg_fini(&keep);
    return alarm;
}

static void near(double got, double want)
{
    assert_true(fabs(got - want) < 1e-12);
}

static void means_are_of_those_who_measured(void **state)
{
    (void)state;
    begin();
    round_of((double[]){0.8, 0, 0.5}, (double[]){10, 0, 20});
    double weight = 10 + 16; /* images of the first and the last site */
    near(w.disk.summary.aggregate.deviation, (10 * 0.8 + 16 * 0.5) / weight);
    near(w.disk.summary.aggregate.rank, (10 * 10 + 16 * 20) / weight);
    near(w.disk.summary.own.deviation, (10 * 0.4 + 16 * 0.25) / weight);
    assert_true(logged(&w, "contribution_accepted name=site-0 round=1 images=10"));
    assert_true(logged(&w, "own_feature_std=0.4 own_effective_rank=10"));

    struct msg keep;
    struct msg_status_reply reply = status_of(&w, &keep);
    assert_true(reply.history[0].aggregate.measured && reply.history[0].own.measured);
    near(reply.history[0].aggregate.rank, w.disk.summary.aggregate.rank);
    assert_true(reply.clients[0].own.measured && !reply.clients[1].own.measured);
    near(reply.clients[2].aggregate.deviation, 0.5);
    msg_fini(&keep);

    same_round(0, 0);
    assert_false(w.disk.summary.aggregate.measured);
    assert_true(logged(&w, "round_durable round=2"));
    assert_false(logged(&w, "feature_std"));
}

static void a_collapse_is_told_once_and_its_end_too(void **state)
{
    (void)state;
    begin();
    same_round(0.01, 1); /* the first round's model is untrained */
    assert_false(logged(&w, "representation_"));
    assert_false(alarmed());
    same_round(0.06, 1.2);
    assert_false(logged(&w, "representation_"));
    same_round(0.04, 9); /* by the deviation alone */
    assert_true(logged(&w, "representation_collapsed round=3"));
    assert_true(alarmed());
    same_round(0.9, 1.02); /* by the rank alone, and told already */
    assert_false(logged(&w, "representation_"));
    assert_true(alarmed());
    same_round(0, 0); /* says nothing, so it ends nothing */
    assert_false(logged(&w, "representation_"));
    assert_true(alarmed());
    same_round(0.9, 30);
    assert_true(logged(&w, "representation_recovered round=6"));
    assert_false(alarmed());
    same_round(0.9, 30);
    assert_false(logged(&w, "representation_"));
    same_round(0.03, 30);
    assert_true(logged(&w, "representation_collapsed round=8"));
}

static void a_restart_neither_forgets_nor_repeats(void **state)
{
    (void)state;
    begin();
    same_round(0.9, 30);
    same_round(0.03, 30);
    assert_true(logged(&w, "representation_collapsed round=2"));
    world_crash(&w);
    begin();
    assert_true(alarmed());
    same_round(0.03, 30);
    assert_false(logged(&w, "representation_"));
    same_round(0.9, 30);
    assert_true(logged(&w, "representation_recovered round=4"));
    world_crash(&w);
    begin();
    assert_false(alarmed());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(means_are_of_those_who_measured),
        TEST(a_collapse_is_told_once_and_its_end_too),
        TEST(a_restart_neither_forgets_nor_repeats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
