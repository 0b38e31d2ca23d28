/* Deadlines, heartbeats, a full disk, stopping in every phase, and what STATUS says meanwhile. */
#include "tests/unit/server/session/world.h"

static struct world w;
static struct site sites[SITES];

static int set_up(void **state)
{
    (void)state;
    world_init(&w);
    w.plan.min_clients = 2;
    sites_init(sites, SITES);
    world_start(&w);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sites_fini(sites, SITES);
    world_fini(&w);
    return 0;
}

static void join_two(void)
{
    join(&w, &sites[0]);
    join(&w, &sites[1]);
}

static void status_says(const char *state, const char *waits_for, uint64_t remaining_ms)
{
    struct msg keep;
    struct msg_status_reply status = status_of(&w, &keep);
    assert_string_equal(status.state, state);
    assert_string_equal(status.waits_for, waits_for);
    assert_int_equal(status.remaining_ms, remaining_ms);
    msg_fini(&keep);
}

static void every_wait_has_its_sentence(void **state)
{
    (void)state;
    assert_true(logged(&w, "coordinator_started run="));
    status_says("WAITING", "2 more clients, 0 of 2 are ready", 0);
    join(&w, &sites[1]);
    status_says("WAITING", "1 more client, 1 of 2 are ready: site-1", 0);
    assert_true(logged(&w, "waiting round=1 for=\"1 more client, 1 of 2 are ready: site-1\""));
    join(&w, &sites[0]);
    status_says("OPEN", "2 of 2 clients: site-0, site-1", DEADLINE_MS);
    assert_true(logged(&w, "round_opened round=1 clients=2"));
    advance(&w, 100);
    lose(&w, 1);
    status_says("OPEN", "2 of 2 clients: site-0, site-1 (away)", DEADLINE_MS - 100);
    advance(&w, DEADLINE_MS / 10); /* It counts as absent. */
    status_says("OPEN", "1 of 2 clients: site-0", DEADLINE_MS - 100 - DEADLINE_MS / 10);
    w.hold_jobs = true;
    deliver(&w, (w.hold_jobs = false, &sites[0]));
    status_says("OPEN", "more clients, 1 of at least 2 have delivered", DEADLINE_MS - 100 - DEADLINE_MS / 10);
    join(&w, &sites[1]);
    (void)hear(&w, 1, MSG_ROUND);
    train(&w, &sites[1], 1);
    w.hold_jobs = true;
    say(&w, 1, sites[1].offer);
    answer_grants(&w, &sites[1]);
    run_job(&w);
    status_says("AGGREGATING", "the aggregation", 0);
    run_job(&w);
    status_says("SAVING", "the disk", 0);
}

static uint32_t times_logged(const char *event)
{
    uint32_t times = 0;
    (void)buf_append(&w.lines, "", 1);
    w.lines.len--;
    for (const char *at = (const char *)w.lines.data; (at = strstr(at, event)) != NULL; at++) {
        times++;
    }
    return times;
}

/* What does not move on is said again after idle_timeout, then twice that, ..., and how long it has been so. */
static void no_wait_is_silent(void **state)
{
    (void)state;
    join(&w, &sites[0]);
    advance(&w, IDLE_MS - 1);
    assert_false(logged(&w, "still_waiting"));
    advance(&w, 1);
    assert_true(logged(&w, "still_waiting round=1 state=WAITING seconds=6 for=\"1 more client, 1 of 2 are ready: "
                           "site-0\""));
    advance(&w, 14 * IDLE_MS);
    assert_int_equal(times_logged("still_waiting"), 4); /* at 1, 3, 7 and 15 */
    struct msg keep;
    assert_int_equal(status_of(&w, &keep).waited_ms, 15 * IDLE_MS);
    msg_fini(&keep);

    join(&w, &sites[1]); /* Another wait, which begins anew: a member that never offers. */
    assert_int_equal(status_of(&w, &keep).waited_ms, 0);
    msg_fini(&keep);
    deliver(&w, &sites[0]);
    advance(&w, IDLE_MS);
    assert_true(logged(&w, "still_waiting round=1 state=OPEN seconds=6 for=\"1 of 2 clients: site-1\""));
}

/* A learning rate that is too high: whoever trains is refused, and training the round again would change nothing. */
static void a_round_that_nobody_can_do_is_stuck_visibly(void **state)
{
    (void)state;
    join_two();
    for (uint32_t i = 0; i < 2; i++) {
        (void)hear(&w, i, MSG_ROUND);
        train(&w, &sites[i], 1);
        sites[i].update[0] = 1e6f;
        describe_offer(&w, &sites[i], 1);
        say(&w, i, sites[i].offer);
        answer_grants(&w, &sites[i]);
        (void)hear_declined(&w, i, DECLINE_RANGE);
    }
    assert_int_equal(times_logged("round_stuck"), 1);
    struct msg keep;
    struct msg_status_reply status = status_of(&w, &keep);
    assert_string_equal(status.state, "STUCK");
    assert_non_null(
        strstr(status.waits_for, "clients that can do this round, 0 of at least 2 have delivered, 2 refused: "));
    assert_non_null(strstr(status.waits_for, "is out of range; is the learning rate too high?"));
    assert_string_equal(status.clients[0].state, "REFUSED");
    msg_fini(&keep);
    advance(&w, 3 * DEADLINE_MS);
    hear_nothing(&w, 0); /* It is not asked to train the same again. */
    hear_nothing(&w, 1);
    assert_true(logged(&w, "still_waiting round=1 state=STUCK"));

    for (uint32_t i = 0; i < 2; i++) { /* Both are repaired and started anew. */
        lose(&w, i);
        join(&w, &sites[i]);
        (void)hear(&w, i, MSG_ROUND);
        train(&w, &sites[i], 1);
        say(&w, i, sites[i].offer);
        answer_grants(&w, &sites[i]);
        (void)hear(&w, i, MSG_ACCEPTED);
    }
    assert_int_equal(w.disk.round, 1);
}

/* What came damaged may come whole next time, and is asked for again at the deadline. */
static void damage_does_not_make_it_stuck(void **state)
{
    (void)state;
    join_two();
    (void)hear(&w, 0, MSG_ROUND);
    train(&w, &sites[0], 1);
    sites[0].update[7] += 1;
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    (void)hear_declined(&w, 0, DECLINE_HASH);
    assert_false(logged(&w, "round_stuck"));
    advance(&w, DEADLINE_MS);
    (void)hear(&w, 0, MSG_ROUND);
}

static void many_names_end_in_dots(void **state)
{
    (void)state;
    tear_down(NULL);
    world_init(&w);
    w.plan.min_clients = 40;
    world_start(&w);
    for (uint32_t i = 0; i < 39; i++) {
        struct site site;
        site_init(&site, i);
        join(&w, &site);
    }
    struct msg keep;
    struct msg_status_reply status = status_of(&w, &keep);
    size_t len = strlen(status.waits_for);
    assert_true(len > 230 && len < MSG_TEXT_MAX);
    assert_string_equal(status.waits_for + len - 5, ", ...");
    assert_int_equal(status.clients_count, 39);
    assert_string_equal(status.clients[1].name, "site-1");
    assert_string_equal(status.clients[2].name, "site-10"); /* in order of name */
    msg_fini(&keep);
}

static void heartbeats_go_to_every_trainer(void **state)
{
    (void)state;
    assert_int_equal(coordinator_next_ms(w.c), w.now + IDLE_MS); /* to say again what it waits for */
    (void)greet(&w, &sites[0]);                                  /* also while it prepares */
    for (int i = 0; i < 5; i++) {
        assert_int_equal(coordinator_next_ms(w.c), w.now + IDLE_MS / 4);
        advance(&w, IDLE_MS / 4);
        struct msg alive = hear(&w, 0, MSG_ALIVE);
        assert_int_equal(alive.alive.round, 0);
        assert_int_equal(alive.alive.remaining_ms, 0);
        assert_string_equal(alive.alive.waits_for, "2 more clients, 0 of 2 are ready");
    }
    say(&w, 0, ready_of(&w));
    join(&w, &sites[1]);
    (void)hear(&w, 0, MSG_ROUND);
    uint64_t opened = w.now;
    advance(&w, IDLE_MS / 4);
    struct msg alive = hear(&w, 0, MSG_ALIVE);
    assert_int_equal(alive.alive.round, 1);
    assert_int_equal(alive.alive.remaining_ms, DEADLINE_MS - (w.now - opened));
    assert_string_equal(alive.alive.waits_for, "2 of 2 clients: site-0, site-1");
    struct msg keep;
    (void)status_of(&w, &keep);
    msg_fini(&keep);
    advance(&w, IDLE_MS);
    assert_int_equal(w.peers[PEERS - 1].count, 0); /* Operators ask. */
}

static void a_deadline_is_extended_visibly(void **state)
{
    (void)state;
    join_two();
    join(&w, &sites[2]); /* late */
    lose(&w, 1);
    deliver(&w, &sites[0]);
    advance(&w, DEADLINE_MS / 10 - 1);
    hear_nothing(&w, 2);
    advance(&w, 1); /* The absent one is not waited for, and one alone is not enough: the late one is let in. */
    (void)hear(&w, 2, MSG_ROUND);
    advance(&w, DEADLINE_MS);
    assert_true(logged(&w, "round_extended round=1 times=1 delivered=1 least=2"));
    train(&w, &sites[2], 1);
    say(&w, 2, sites[2].offer);
    answer_grants(&w, &sites[2]);
    (void)hear(&w, 2, MSG_ACCEPTED);
    assert_int_equal(w.disk.round, 1);
    assert_int_equal(w.disk.counted_count, 2);
}

static void last_seen_and_history(void **state)
{
    (void)state;
    join_two();
    deliver(&w, &sites[0]);
    advance(&w, 2500);
    deliver(&w, &sites[1]);
    lose(&w, 0);
    advance(&w, 1000);
    coordinator_set_usage(w.c, 123456);
    struct msg keep;
    struct msg_status_reply status = status_of(&w, &keep);
    assert_int_equal(status.uptime_ms, 3500);
    assert_int_equal(status.peak_rss_bytes, 123456);
    assert_int_equal(status.round, 1);
    assert_int_equal(status.rounds, 3);
    assert_string_equal(status.software, "starling " STARLING_VERSION);
    assert_int_equal(status.bank_rows, 2 * ROWS);
    assert_int_equal(status.bank_capacity, 100);
    assert_int_equal(status.bank_contributors, 2);
    assert_int_equal(status.clients_count, 2);
    assert_false(status.clients[0].connected);
    assert_string_equal(status.clients[0].state, "AWAY");
    assert_int_equal(status.clients[0].last_seen_ms, 3500);
    assert_true(status.clients[1].connected);
    assert_string_equal(status.clients[1].state, "WORKING");
    assert_int_equal(status.clients[1].last_seen_ms, 1000);
    assert_int_equal(status.history_count, 1);
    assert_int_equal(status.history[0].round, 1);
    assert_int_equal(status.history[0].accepted, 2);
    assert_true(status.history[0].seconds == 2.5);
    assert_true(status.history[0].loss > 1.0 && status.history[0].loss < 1.1);
    msg_fini(&keep);
    say(&w, PEERS - 1, (struct msg){.type = MSG_STATUS, .status = {.history = 0}});
    keep = hear(&w, PEERS - 1, MSG_STATUS_REPLY);
    assert_int_equal(keep.status_reply.history_count, 0);
    msg_fini(&keep);
}

/* However long the run, a status tells its latest MSG_HISTORY_MAX rounds, and no more than these are kept. */
static void the_history_of_a_long_run(void **state)
{
    (void)state;
    enum { LONG = MSG_HISTORY_MAX + 300 };
    tear_down(NULL);
    world_init(&w);
    w.plan.rounds = LONG;
    w.plan.min_clients = 1;
    world_start(&w);
    site_init(&sites[0], 0);
    join(&w, &sites[0]);
    for (uint32_t round = 1; round <= LONG; round++) {
        deliver(&w, &sites[0]);
        (void)hear(&w, 0, MSG_ROUND_END);
        if (round < MSG_HISTORY_MAX || round % 7 != 0) {
            continue;
        }
        struct msg keep;
        struct msg_status_reply status = status_of(&w, &keep);
        assert_int_equal(status.history_count, MSG_HISTORY_MAX);
        for (uint32_t i = 0; i < MSG_HISTORY_MAX; i++) {
            assert_int_equal(status.history[i].round, round - MSG_HISTORY_MAX + 1 + i);
        }
        msg_fini(&keep);
    }
}

/* Whoever asks without reading costs one answer of memory, however often it asks. */
static void an_answer_waits_for_the_one_before(void **state)
{
    (void)state;
    enum { OPERATOR = PEERS - 2 };
    w.hold_drained = true;
    open_peer(&w, OPERATOR);
    struct msg hello = hello_of(&sites[0]);
    hello.hello.role = ROLE_OPERATOR;
    say(&w, OPERATOR, hello);
    struct msg msg = hear(&w, OPERATOR, MSG_WELCOME);
    msg_fini(&msg);
    for (uint32_t i = 0; i < 3; i++) {
        say(&w, OPERATOR, (struct msg){.type = MSG_STATUS});
    }
    for (uint32_t i = 0; i < 3; i++) {
        msg = hear(&w, OPERATOR, MSG_STATUS_REPLY);
        msg_fini(&msg);
        hear_nothing(&w, OPERATOR);
        drain(&w, OPERATOR);
    }
    hear_nothing(&w, OPERATOR);
}

/* ---- The disk ---- */

static void a_full_disk_is_told_and_waited_for(void **state)
{
    (void)state;
    join_two();
    w.save_result = ERR_FULL;
    deliver(&w, &sites[0]);
    deliver(&w, &sites[1]);
    assert_string_equal(coordinator_phase(w.c), "SAVING");
    assert_int_equal(w.failures, 1);
    hear_nothing(&w, 0); /* Nothing is announced that is not durable. */
    status_says("SAVING", "disk space: checkpoint-000001: write: no 'space'", 1000);
    assert_true(logged(&w, "save_failed round=1 waits_for=\"disk space: checkpoint-000001"));
    advance(&w, 999);
    assert_int_equal(w.failures, 1);
    advance(&w, 1);
    assert_int_equal(w.failures, 2);
    advance(&w, 2000 + 4000);
    assert_int_equal(w.failures, 4);
    assert_int_equal(coordinator_round(w.c), 0);

    /* The server is a server all the while. */
    join(&w, &sites[2]);
    say(&w, 0, sites[0].offer);
    (void)hear(&w, 0, MSG_ACCEPTED);

    w.save_result = 0; /* Room again. */
    advance(&w, 8000);
    assert_int_equal(w.disk.round, 1);
    assert_true(logged(&w, " seconds=15.000 aggregation_seconds=0.000 save_seconds=15.000 "));
    assert_true(hear(&w, 0, MSG_ROUND_END).round_end.counted);
    assert_true(hear(&w, 1, MSG_ROUND_END).round_end.counted);
    (void)hear(&w, 2, MSG_ROUND_END);
    (void)hear(&w, 2, MSG_ROUND);
    status_says("OPEN", "3 of 3 clients: site-0, site-1, site-2", DEADLINE_MS);
}

static void another_disk_error_has_another_sentence(void **state)
{
    (void)state;
    join_two();
    w.save_result = ERR_IO;
    deliver(&w, &sites[0]);
    deliver(&w, &sites[1]);
    status_says("SAVING", "the disk: checkpoint-000001: write: no 'space'", 1000);
}

/* ---- Stop ---- */

static void everybody_hears_goodbye(uint32_t count)
{
    for (uint32_t s = 0; s < count; s++) {
        struct msg bye = hear(&w, s, MSG_BYE);
        assert_int_equal(bye.bye.code, 0);
        assert_false(w.peers[s].open);
    }
    assert_true(w.exited);
    assert_string_equal(coordinator_phase(w.c), "DRAINING");
    assert_int_equal(coordinator_next_ms(w.c), UINT64_MAX);
}

static void stop(void)
{
    world_step(&w, (struct event){.kind = EVENT_STOP});
}

static void stop_while_waiting(void **state)
{
    (void)state;
    join(&w, &sites[0]);
    stop();
    everybody_hears_goodbye(1);
    assert_int_equal(w.result, 0);
    open_peer(&w, 5); /* Too late. */
    assert_true(hear_reject(&w, 5, REJECT_STOPPING).reject.retry);
}

static void stop_while_open_saves_no_half_round(void **state)
{
    (void)state;
    join_two();
    deliver(&w, &sites[0]);
    w.hold_jobs = true;
    (void)hear(&w, 1, MSG_ROUND);
    train(&w, &sites[1], 1);
    say(&w, 1, sites[1].offer);
    answer_grants(&w, &sites[1]);
    stop();
    assert_false(w.exited); /* A job is still at work. */
    run_jobs(&w);
    everybody_hears_goodbye(2);
    assert_int_equal(w.result, 0);
    assert_int_equal(w.saves, 0);
}

static void stop_while_closing_finishes_the_round(void **state)
{
    (void)state;
    for (int when = 0; when < 2; when++) {
        tear_down(NULL);
        (void)set_up(NULL);
        join_two();
        deliver(&w, &sites[0]);
        (void)hear(&w, 1, MSG_ROUND);
        train(&w, &sites[1], 1);
        w.hold_jobs = true;
        say(&w, 1, sites[1].offer);
        answer_grants(&w, &sites[1]);
        run_job(&w);
        if (when == 1) {
            run_job(&w);
        }
        assert_string_equal(coordinator_phase(w.c), when ? "SAVING" : "AGGREGATING");
        stop();
        assert_false(w.exited);
        w.hold_jobs = false;
        run_jobs(&w);
        (void)hear(&w, 1, MSG_ACCEPTED);
        assert_true(hear(&w, 0, MSG_ROUND_END).round_end.counted); /* first the end, then goodbye */
        assert_true(hear(&w, 1, MSG_ROUND_END).round_end.counted);
        everybody_hears_goodbye(2);
        assert_int_equal(w.result, 0);
        assert_int_equal(w.disk.round, 1);
    }
}

static void stop_with_a_full_disk_gives_up(void **state)
{
    (void)state;
    join_two();
    w.save_result = ERR_FULL;
    deliver(&w, &sites[0]);
    deliver(&w, &sites[1]);
    stop();
    assert_int_equal(w.failures, 2); /* One more attempt, at once. */
    everybody_hears_goodbye(2);
    assert_int_equal(w.result, ERR_FULL);
    assert_int_equal(w.disk.round, 0);
}

static void stop_when_done(void **state)
{
    (void)state;
    tear_down(NULL);
    world_init(&w);
    w.plan.rounds = w.plan.min_clients = 1;
    world_start(&w);
    join(&w, &sites[0]);
    deliver(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ROUND_END);
    status_says("DONE", "nothing, the run is done", 0);
    stop();
    everybody_hears_goodbye(1);
    assert_int_equal(w.result, 0);
    stop(); /* Twice is once. */
}

static void a_peer_that_does_not_go_is_not_waited_for(void **state)
{
    (void)state;
    join(&w, &sites[0]);
    struct actions actions = {0}; /* Without the shell's help: CLOSE is not followed by PEER_CLOSED. */
    struct event event = {.kind = EVENT_STOP};
    assert_int_equal(coordinator_step(w.c, &event, w.now, &actions), 0);
    actions_clear(&actions);
    assert_int_equal(coordinator_next_ms(w.c), w.now + IDLE_MS / 6);
    event.kind = EVENT_TICK;
    assert_int_equal(coordinator_step(w.c, &event, w.now + IDLE_MS / 6, &actions), 0);
    assert_int_equal(actions.count, 1);
    assert_int_equal(actions.items[0].kind, ACTION_EXIT);
    actions_fini(&actions);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_wait_has_its_sentence),
        TEST(many_names_end_in_dots),
        TEST(no_wait_is_silent),
        TEST(a_round_that_nobody_can_do_is_stuck_visibly),
        TEST(damage_does_not_make_it_stuck),
        TEST(heartbeats_go_to_every_trainer),
        TEST(a_deadline_is_extended_visibly),
        TEST(last_seen_and_history),
        TEST(the_history_of_a_long_run),
        TEST(an_answer_waits_for_the_one_before),
        TEST(a_full_disk_is_told_and_waited_for),
        TEST(another_disk_error_has_another_sentence),
        TEST(stop_while_waiting),
        TEST(stop_while_open_saves_no_half_round),
        TEST(stop_while_closing_finishes_the_round),
        TEST(stop_with_a_full_disk_gives_up),
        TEST(stop_when_done),
        TEST(a_peer_that_does_not_go_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
