/* Contributions that lie, through the coordinator: rules that look at all updates of a round, by way of the spool, and
 * a disk that fails them; updates that are too long, against the rounds before, against each other, and across a
 * restart.
 */
#include "server/agg/norm.h"
#include "tests/support/simdisk.h"
#include "tests/unit/server/session/world.h"

static struct world w;
static struct site sites[SITES];
static struct simdisk disk;
static struct spool spool;

static void begin(uint32_t rule, uint32_t least)
{
    world_init(&w);
    simdisk_init(&disk);
    assert_int_equal(spool_open(&disk.disk, "state", true, &spool, NULL), 0);
    w.plan.aggregation.rule = rule;
    w.plan.aggregation.norm_limit = 10;
    w.plan.min_clients = least;
    w.options.spool = rule == AGGREGATION_MEAN ? NULL : &spool;
}

static void end(void)
{
    world_fini(&w);
    simdisk_fini(&disk);
}

static int set_up(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < SITES; i++) {
        site_init(&sites[i], i);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < SITES; i++) {
        site_fini(&sites[i]);
    }
    end();
    return 0;
}

static void join_all(uint32_t count)
{
    world_start(&w);
    for (uint32_t s = 0; s < count; s++) {
        join(&w, &sites[s]);
    }
}

/* ROUND was heard or will be: trains, multiplies the update's parts, and uploads. What is answered is left in the
 * inbox.
 */
static void offer_parts(uint32_t s, double trained, double statistics)
{
    struct msg round = hear(&w, s, MSG_ROUND);
    train(&w, &sites[s], round.round.round);
    norm_scale(w.layout, NORM_TRAINED, sites[s].update, trained);
    norm_scale(w.layout, NORM_STATISTICS, sites[s].update, statistics);
    describe_offer(&w, &sites[s], round.round.round);
    say(&w, s, sites[s].offer);
    answer_grants(&w, &sites[s]);
}

static void offer_times(uint32_t s, double factor)
{
    offer_parts(s, factor, 1);
}

/* Of one part a multiple, and the other as it is. */
static void offer_longer(uint32_t s, enum norm_part part, double factor)
{
    offer_parts(s, part == NORM_TRAINED ? factor : 1, part == NORM_STATISTICS ? factor : 1);
}

static void accepted(uint32_t s)
{
    (void)hear(&w, s, MSG_ACCEPTED);
}

static float *model_now(void)
{
    return copy_of(coordinator_params(w.c), (size_t)w.layout->total * sizeof(float));
}

/* ---- Rules ---- */

static void the_middle_of_three_counts(void **state)
{
    (void)state;
    begin(AGGREGATION_MEDIAN, 3);
    join_all(3);
    for (uint32_t round = 1; round <= 2; round++) {
        float *before = model_now();
        for (uint32_t s = 0; s < 3; s++) {
            offer_times(s, s == 1 ? -9 : 1);
            accepted(s);
        }
        assert_int_equal(w.disk.round, round);
        for (uint64_t i = 0; i < w.layout->total; i++) {
            double a = (double)sites[0].update[i], b = (double)sites[1].update[i], c = (double)sites[2].update[i];
            double middle = fmax(fmin(a, b), fmin(fmax(a, b), c));
            assert_true(fabs((double)w.disk.params[i] - ((double)before[i] + middle)) < 1e-6);
        }
        for (uint32_t s = 0; s < 3; s++) {
            (void)hear(&w, s, MSG_ROUND_END);
        }
        mem_free(before);
    }
    assert_int_equal(w.disk.summary.accepted, 3);
    assert_int_equal(w.disk.summary.images, 10 + 13 + 16);
}

/* The same checkpoint, byte for byte, for all six orders, and for each rule. */
static void the_order_of_arrival_leaves_no_trace(void **state)
{
    (void)state;
    static const uint32_t rules[] = {AGGREGATION_MEDIAN, AGGREGATION_TRIMMED, AGGREGATION_KRUM};
    for (int r = 0; r < 3; r++) {
        float *first = NULL;
        double norms[NORM_PARTS][NORM_ROUNDS];
        for (uint32_t turn = 0; turn < 10; turn++) {
            begin(rules[r], 5);
            join_all(5);
            for (uint32_t k = 0; k < 5; k++) {
                uint32_t s = turn < 5 ? (k + turn) % 5 : (4 - k + turn) % 5;
                offer_times(s, s == 3 ? -8 : 1);
                accepted(s);
            }
            assert_int_equal(w.disk.round, 1);
            if (first) {
                assert_memory_equal(w.disk.params, first, (size_t)w.layout->total * sizeof *first);
                assert_memory_equal(w.disk.norms, norms, sizeof norms);
            } else {
                first = copy_of(w.disk.params, (size_t)w.layout->total * sizeof *first);
                memcpy(norms, w.disk.norms, sizeof norms);
            }
            assert_int_equal(logged(&w, "update_left_out name=site-3 round=1 rule=krum"), rules[r] == AGGREGATION_KRUM);
            if (r < 2 || turn < 9) {
                end();
            }
        }
        mem_free(first);
    }
}

/* Krum of five: a sixth site makes up for one that is refused. With five the operator is told, once; the sixth comes
 * while the first round is open. */
static void krum_wants_a_spare_client(void **state)
{
    (void)state;
    for (uint32_t sites_here = 5; sites_here <= 6; sites_here++) {
        begin(AGGREGATION_KRUM, 5);
        join_all(5);
        for (uint32_t round = 1; round <= 2; round++) {
            for (uint32_t s = 5; s < sites_here && round == 1; s++) {
                join(&w, &sites[s]);
            }
            for (uint32_t s = 0; s < 5; s++) {
                offer_times(s, 1);
                accepted(s);
            }
            for (uint32_t s = 5; s < sites_here && round == 2; s++) {
                offer_times(s, 1);
                accepted(s);
            }
            for (uint32_t s = 0; s < sites_here; s++) {
                (void)hear(&w, s, MSG_ROUND_END);
            }
            assert_int_equal(w.disk.round, round);
            assert_int_equal(logged(&w, "krum_without_spare clients=5 min_clients=5 byzantine=1"),
                             sites_here == 5 && round == 1);
            w.lines.len = 0;
        }
        if (sites_here < 6) {
            end();
        }
    }
}

/* The first round is stuck by a lie: the log says why at once, and not again when a sixth site has freed it. */
static void krum_that_is_stuck_wants_a_spare_client(void **state)
{
    (void)state;
    begin(AGGREGATION_KRUM, 5);
    join_all(5);
    for (uint32_t s = 0; s < 4; s++) {
        offer_times(s, 1);
        accepted(s);
    }
    assert_false(logged(&w, "krum_without_spare"));
    offer_times(4, NAN);
    (void)hear_declined(&w, 4, DECLINE_NOT_FINITE);
    assert_true(logged(&w, "round_stuck round=1 refused=1 delivered=4"));
    assert_true(logged(&w, "krum_without_spare clients=5 min_clients=5 byzantine=1"));
    w.lines.len = 0;
    join(&w, &sites[5]);
    offer_times(5, 1);
    accepted(5);
    assert_int_equal(w.disk.round, 1);
    assert_false(logged(&w, "krum_without_spare"));
}

/* The server's disk is full while an update is to be spooled: the client is told to try again, the status says why
 * nobody gets on, and what counts in the end is what was written. */
static void a_full_disk_is_waited_for(void **state)
{
    (void)state;
    begin(AGGREGATION_MEDIAN, 3);
    join_all(3);
    float *before = model_now();
    offer_times(0, 1);
    accepted(0);
    disk.full = true;
    offer_times(1, 1);
    struct msg bye = hear(&w, 1, MSG_BYE), keep;
    assert_int_equal(bye.bye.code, -ERR_TEMPFAIL);
    assert_true(
        logged(&w, "spool_failed name=site-1 round=1 waits_for=\"disk space: state/spool/update-site-1: create"));
    assert_non_null(strstr(status_of(&w, &keep).waits_for, "disk space: state/spool/update-site-1"));
    msg_fini(&keep);
    offer_times(2, 1);
    (void)hear(&w, 2, MSG_BYE);
    assert_string_equal(coordinator_phase(w.c), "OPEN");
    disk.full = false;
    for (uint32_t s = 1; s < 3; s++) {
        join(&w, &sites[s]);
        offer_times(s, 1);
        accepted(s);
    }
    assert_int_equal(w.disk.round, 1);
    assert_int_equal(w.disk.summary.accepted, 3);
    for (uint64_t i = 0; i < w.layout->total; i++) {
        float a = sites[0].update[i], b = sites[1].update[i], c = sites[2].update[i];
        float middle = fmaxf(fminf(a, b), fminf(fmaxf(a, b), c));
        assert_true(fabs((double)w.disk.params[i] - ((double)before[i] + (double)middle)) < 1e-6);
    }
    mem_free(before);
}

/* A round does not open before the disk has room for its updates. */
static void no_room_no_round(void **state)
{
    (void)state;
    struct msg keep;
    begin(AGGREGATION_MEDIAN, 3);
    disk.full = true;
    join_all(3);
    assert_string_equal(coordinator_phase(w.c), "WAITING");
    assert_true(logged(&w, "round_held round=1 room=0 waits_for=\"disk space: aggregation.rule keeps the updates"));
    assert_non_null(strstr(status_of(&w, &keep).waits_for, "disk space"));
    msg_fini(&keep);
    advance(&w, 20000);
    assert_string_equal(coordinator_phase(w.c), "WAITING");
    assert_true(logged(&w, "still_waiting round=1 state=WAITING"));
    disk.full = false;
    advance(&w, 30000);
    assert_string_equal(coordinator_phase(w.c), "OPEN");
    hear_nothing(&w, PEERS - 1);
}

/* The spool is read when the round closes; a disk that fails then is tried again, as it is for a save. */
static void a_failed_rule_is_tried_again(void **state)
{
    (void)state;
    begin(AGGREGATION_MEDIAN, 3);
    join_all(3);
    for (uint32_t s = 0; s < 3; s++) {
        w.hold_jobs = s == 2;
        offer_times(s, 1);
        if (s < 2) {
            accepted(s);
        }
    }
    run_job(&w); /* ABSORB */
    disk.dies_after = disk.operations;
    run_job(&w); /* AGGREGATE */
    assert_string_equal(coordinator_phase(w.c), "AGGREGATING");
    assert_true(logged(&w, "aggregation_failed round=1 reason=\"the disk: state/spool/update-site-0: read"));
    disk.dies_after = UINT64_MAX;
    w.hold_jobs = false;
    advance(&w, 1000);
    assert_int_equal(w.disk.round, 1);
}

/* ---- Images ---- */

/* Nobody counts for more images than it was ready with. */
static void a_claim_of_more_images_is_refused(void **state)
{
    (void)state;
    begin(AGGREGATION_MEAN, 1);
    join_all(1); /* 100 images */
    struct msg round = hear(&w, 0, MSG_ROUND);
    train(&w, &sites[0], round.round.round);
    sites[0].offer.offer.report.images = 101;
    say(&w, 0, sites[0].offer);
    struct msg declined = hear_declined(&w, 0, DECLINE_WEIGHT);
    assert_string_equal(declined.declined.text, "a contribution of 101 images by a client that is ready with 100");
    sites[0].offer.offer.report.images = 100;
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    accepted(0);
    assert_int_equal(w.disk.summary.images, 100);
}

/* ---- Lengths ---- */

static struct msg too_long(uint32_t s)
{
    return hear_declined(&w, s, DECLINE_NORM);
}

static void come_back(uint32_t s)
{
    struct msg bye = hear(&w, s, MSG_BYE);
    assert_int_equal(bye.bye.code, -ERR_TEMPFAIL);
    struct msg welcome = greet(&w, &sites[s]);
    assert_false(welcome.welcome.has_counted);
    say(&w, s, ready_of(&w));
}

/* The first round has nothing to compare with but itself. `limit` 0 is the planted mistake: then the lie counts. */
static double first_round(double limit, enum norm_part part, const uint32_t *order)
{
    char text[MSG_TEXT_MAX];
    begin(AGGREGATION_MEAN, 2);
    w.plan.clients_per_round = 0;
    w.plan.aggregation.norm_limit = limit;
    join_all(2); /* opens it */
    join(&w, &sites[2]);
    for (uint32_t k = 0; k < 2; k++) {
        offer_longer(order[k], part, order[k] == 1 ? 50 : 1);
        accepted(order[k]);
    }
    if (limit == 0) {
        assert_int_equal(w.disk.round, 1);
        return 0;
    }
    (void)snprintf(text, sizeof text, "round_recalled round=1 part=\"%s\" usual=", norm_part_name(part));
    assert_true(logged(&w, text));
    assert_string_equal(coordinator_phase(w.c), "OPEN");
    for (uint32_t k = 0; k < 2; k++) {
        come_back(order[k]);
        (void)hear(&w, order[k], MSG_ROUND);
        say(&w, order[k], sites[order[k]].offer);
        answer_grants(&w, &sites[order[k]]);
    }
    struct msg declined = too_long(1);
    (void)snprintf(text, sizeof text, "the length of the update's %s is", norm_part_name(part));
    assert_non_null(strstr(declined.declined.text, text));
    assert_non_null(strstr(declined.declined.text, "aggregation.norm_limit"));
    accepted(0);
    offer_times(2, 1);
    accepted(2);
    assert_int_equal(w.disk.round, 1);
    return w.disk.norms[part][0];
}

static void check_first_round(enum norm_part part)
{
    static const uint32_t orders[2][2] = {{0, 1}, {1, 0}};
    float *first = NULL;
    for (int o = 0; o < 2; o++) {
        double usual = first_round(10, part, orders[o]);
        float *before = mem_new((size_t)w.layout->total, sizeof *before);
        params_init(w.layout, w.plan.seed, before);
        for (uint64_t i = 0; i < w.layout->total; i++) { /* The mean of sites 0 and 2. */
            double mean = (10 * (double)sites[0].update[i] + 16 * (double)sites[2].update[i]) / 26;
            assert_true(fabs((double)w.disk.params[i] - ((double)before[i] + mean)) < 1e-6);
        }
        mem_free(before);
        if (first) {
            assert_memory_equal(w.disk.params, first, (size_t)w.layout->total * sizeof *first);
        } else {
            first = copy_of(w.disk.params, (size_t)w.layout->total * sizeof *first);
        }
        double least = fmin(norm_of(w.layout, part, sites[0].update), norm_of(w.layout, part, sites[2].update));
        assert_true(usual == least);
        end();
    }
    (void)first_round(0, part, orders[0]);
    assert_memory_not_equal(w.disk.params, first, (size_t)w.layout->total * sizeof *first);
    mem_free(first);
}

static void the_first_round_judges_itself(void **state)
{
    (void)state;
    check_first_round(NORM_TRAINED);
    end();
    check_first_round(NORM_STATISTICS);
}

/* Where two of three sites' statistics stand still, some way is left to the third, and not any way. */
static void statistics_that_stand_still_are_a_measure(void **state)
{
    (void)state;
    for (int far = 0; far < 2; far++) {
        begin(AGGREGATION_MEAN, 3);
        join_all(3);
        double least = NORM_STATISTICS_LEAST * norm_of(w.layout, NORM_STATISTICS, coordinator_params(w.c));
        for (uint32_t s = 0; s < 3; s++) {
            offer_parts(s, 1, s < 2 ? 0 : far ? 20 : 2);
            accepted(s);
        }
        double length = norm_of(w.layout, NORM_STATISTICS, sites[2].update);
        assert_true(far ? length > 20 * least : length > least && length < 10 * least);
        assert_int_equal(logged(&w, "round_recalled round=1 part=\"statistics of batch normalisation\""), far);
        assert_int_equal(w.disk.round, !far);
        if (far) {
            come_back(2);
            (void)hear(&w, 2, MSG_ROUND);
            say(&w, 2, sites[2].offer);
            answer_grants(&w, &sites[2]);
            (void)too_long(2);
        } else {
            assert_true(w.disk.norms[NORM_STATISTICS][0] == least);
            end();
        }
    }
}

/* A round in which most have learned nothing (its learning rate is next to none, say) is no measure: whoever has
 * learned something is not too long beside them, whether something is known of earlier rounds or not; and what the next
 * round finds out holds again. */
static void where_nothing_is_learned_nobody_is_too_long(void **state)
{
    (void)state;
    enum { KNOWN = 2, FORGOTTEN = 8, AGAIN = 9, LIE = 10 };
    begin(AGGREGATION_MEAN, 3);
    w.plan.rounds = LIE;
    join_all(3);
    for (uint32_t round = 1; round <= LIE; round++) {
        bool learned = round == KNOWN || round >= AGAIN;
        for (uint32_t s = 0; s < 3; s++) {
            bool does = learned || (s == 2 && (round <= 3 || round == FORGOTTEN));
            offer_parts(s, s == 2 && round == LIE ? 50 : does, 1);
            if (s == 2 && round == LIE) {
                (void)too_long(s);
            } else {
                accepted(s);
            }
        }
        assert_int_equal(w.disk.round, round < LIE ? round : LIE - 1);
        assert_int_equal(w.disk.norms[NORM_TRAINED][0] > 0, learned);
        for (uint32_t s = 0; s < 3 && round < LIE; s++) {
            (void)hear(&w, s, MSG_ROUND_END);
        }
    }
    assert_false(logged(&w, "round_recalled"));
}

/* Later rounds know what was usual, and a restarted server knows it too. `forgets`: the planted mistake. */
static bool declined_after_restart(enum norm_part part, bool forgets)
{
    begin(AGGREGATION_MEAN, 1);
    join_all(1);
    offer_times(0, 1);
    accepted(0);
    (void)hear(&w, 0, MSG_ROUND_END);
    assert_true(w.disk.norms[part][0] == norm_of(w.layout, part, sites[0].update));
    world_crash(&w);
    if (forgets) {
        memset(w.disk.norms[part], 0, sizeof w.disk.norms[part]);
    }
    world_start(&w);
    join(&w, &sites[0]);
    offer_longer(0, part, 50);
    (void)pass_over(&w, 0, MSG_ALIVE);
    bool declined = w.peers[0].inbox[0].type == MSG_DECLINED;
    if (declined) {
        (void)too_long(0);
        assert_string_equal(coordinator_phase(w.c), "STUCK"); /* It would be so again. */
        struct msg keep;
        assert_non_null(strstr(status_of(&w, &keep).waits_for, "the length of the update's "));
        msg_fini(&keep);
    }
    return declined;
}

static void what_was_usual_is_durable(void **state)
{
    (void)state;
    for (enum norm_part part = 0; part < NORM_PARTS; part++) {
        assert_true(declined_after_restart(part, false));
        end();
        assert_false(declined_after_restart(part, true));
        if (part + 1 < NORM_PARTS) {
            end();
        }
    }
}

/* What is out of range, or no number, is told as that, however long it is. */
static void other_reasons_come_first(void **state)
{
    (void)state;
    begin(AGGREGATION_MEAN, 1);
    join_all(1);
    offer_times(0, 1);
    accepted(0);
    (void)hear(&w, 0, MSG_ROUND_END);
    struct msg round = hear(&w, 0, MSG_ROUND);
    train(&w, &sites[0], round.round.round);
    sites[0].update[3] = 1e30f;
    describe_offer(&w, &sites[0], round.round.round);
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    (void)hear_declined(&w, 0, DECLINE_RANGE);
    sites[0].update[3] = NAN;
    describe_offer(&w, &sites[0], round.round.round);
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    (void)hear_declined(&w, 0, DECLINE_NOT_FINITE);
}

/* Shortened to the limit, not declined: in round 2, which knows what is usual; and the other part is as it was sent. */
static void check_clipped(enum norm_part part)
{
    char text[128];
    begin(AGGREGATION_MEAN, 1);
    w.plan.aggregation.clip = 2;
    join_all(1);
    offer_times(0, 1);
    accepted(0);
    (void)hear(&w, 0, MSG_ROUND_END);
    double usual = norm_of(w.layout, part, sites[0].update);
    float *before = model_now();
    offer_longer(0, part, 5);
    accepted(0);
    assert_int_equal(w.disk.round, 2);
    (void)snprintf(text, sizeof text, "update_clipped name=site-0 round=2 part=\"%s\" norm=", norm_part_name(part));
    assert_true(logged(&w, text));
    double factor = 2 * usual / norm_of(w.layout, part, sites[0].update);
    uint64_t trained = w.layout->trainable_end;
    for (uint64_t i = 0; i < w.layout->total; i++) {
        double moved = (double)w.disk.params[i] - (double)before[i];
        double sent = (double)sites[0].update[i] * ((i < trained) == (part == NORM_TRAINED) ? factor : 1);
        assert_true(fabs(moved - sent) < 1e-6);
    }
    mem_free(before);
}

static void long_updates_are_clipped(void **state)
{
    (void)state;
    check_clipped(NORM_TRAINED);
    end();
    check_clipped(NORM_STATISTICS);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_middle_of_three_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_order_of_arrival_leaves_no_trace, set_up, tear_down),
        cmocka_unit_test_setup_teardown(krum_wants_a_spare_client, set_up, tear_down),
        cmocka_unit_test_setup_teardown(krum_that_is_stuck_wants_a_spare_client, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_disk_is_waited_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_room_no_round, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failed_rule_is_tried_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_claim_of_more_images_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_first_round_judges_itself, set_up, tear_down),
        cmocka_unit_test_setup_teardown(statistics_that_stand_still_are_a_measure, set_up, tear_down),
        cmocka_unit_test_setup_teardown(where_nothing_is_learned_nobody_is_too_long, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_usual_is_durable, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_reasons_come_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(long_updates_are_clipped, set_up, tear_down),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
