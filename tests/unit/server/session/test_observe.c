/* Observers: they get every durable model, no round counts or awaits them, what they find is shown and kept; and what
 * they may not say ends their connection and leaves no trace. */
#include "tests/unit/server/session/world.h"

#define JUDGE 7u /* the observer's connection */

static struct world w;
static struct site sites[3];

static int set_up(void **state)
{
    (void)state;
    world_init(&w);
    w.plan.model.width = 144; /* a model of more than one chunk */
    world_start(&w);
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

static void observe(uint32_t peer)
{
    struct site judge = {.peer = peer, .name = "judge"};
    struct msg hello = hello_of(&judge);
    hello.hello.role = ROLE_OBSERVER;
    open_peer(&w, peer);
    say(&w, peer, hello);
    struct msg welcome = hear(&w, peer, MSG_WELCOME);
    msg_fini(&welcome);
    say(&w, peer, ready_of(&w));
}

static void join_all(void)
{
    for (uint32_t s = 0; s < 3; s++) {
        join(&w, &sites[s]);
    }
}

static void deliver_all(void)
{
    for (uint32_t s = 0; s < 3; s++) {
        (void)pass_over(&w, s, MSG_ROUND_END);
        deliver(&w, &sites[s]);
    }
}

static struct msg evaluated(uint32_t round, double knn)
{
    return (struct msg){.type = MSG_EVALUATED, .evaluated = {round, knn, 40}};
}

/* The durable model, whole. */
static void hear_model(uint32_t round)
{
    struct msg aggregate = hear(&w, JUDGE, MSG_AGGREGATE);
    assert_int_equal(aggregate.aggregate.round, round);
    assert_int_equal(aggregate.aggregate.model.round, round + 1);
    uint8_t *model = fetch(&w, JUDGE, &aggregate.aggregate.model, 0);
    assert_memory_equal(model, w.disk.params, (size_t)w.layout->total * sizeof(float));
    struct hash128 hash = hash_of(model, (size_t)w.layout->total * sizeof(float));
    assert_true(hash_equal(&hash, &aggregate.aggregate.model.hash));
    mem_free(model);
}

static void it_gets_models_and_is_not_counted(void **state)
{
    (void)state;
    observe(JUDGE);
    join(&w, &sites[0]);
    join(&w, &sites[1]);
    assert_string_equal(coordinator_phase(w.c), "WAITING"); /* for a third that trains */
    hear_nothing(&w, JUDGE);
    join(&w, &sites[2]);
    assert_string_equal(coordinator_phase(w.c), "OPEN");
    hear_nothing(&w, JUDGE);
    for (uint32_t round = 1; round <= 3; round++) {
        deliver_all(); /* and the round closes: nothing is awaited of the observer */
        assert_int_equal(coordinator_round(w.c), round);
        assert_int_equal(w.disk.summary.accepted, 3);
        assert_int_equal(w.disk.counted_count, 3);
        struct msg end = hear(&w, JUDGE, MSG_ROUND_END);
        assert_false(end.round_end.counted);
        hear_model(round);
        say(&w, JUDGE, evaluated(round, 0.25 * round));
        assert_int_equal(w.records, round);
        assert_int_equal(w.recorded.round, round);
        assert_true(w.recorded.has_knn && w.recorded.knn_top1 == 0.25 * round);
    }
    assert_true(logged(&w, "aggregate_evaluated name=judge round=2 knn_top1=0.5 images=40"));

    struct msg keep;
    struct msg_status_reply reply = status_of(&w, &keep);
    assert_int_equal(reply.clients_count, 4);
    assert_string_equal(reply.clients[0].name, "judge");
    assert_int_equal(reply.clients[0].role, ROLE_OBSERVER);
    assert_string_equal(reply.clients[0].state, "OBSERVING");
    assert_int_equal(reply.clients[1].role, ROLE_TRAINER);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(reply.history[i].has_knn && reply.history[i].knn_top1 == 0.25 * (i + 1));
    }
    msg_fini(&keep);
}

static void it_holds_no_round_open_by_leaving(void **state)
{
    (void)state;
    observe(JUDGE);
    join_all();
    lose(&w, JUDGE);
    deliver_all();
    assert_int_equal(coordinator_round(w.c), 1);
    observe(JUDGE + 1); /* it comes back, and gets the newest at once */
    struct msg aggregate = hear(&w, JUDGE + 1, MSG_AGGREGATE);
    assert_int_equal(aggregate.aggregate.round, 1);
    world_crash(&w);
    world_start(&w);
    observe(JUDGE);
    hear_model(1);
    say(&w, JUDGE, evaluated(1, 0.5));
    assert_true(w.recorded.has_knn);
}

/* While one row is written others come: each is written after it, none is lost. */
static void every_evaluation_is_recorded(void **state)
{
    (void)state;
    observe(JUDGE);
    join_all();
    deliver_all();
    deliver_all();
    w.hold_jobs = true;
    say(&w, JUDGE, evaluated(1, 0.1));
    say(&w, JUDGE, evaluated(2, 0.2));
    for (uint32_t i = 0; i < 100; i++) { /* who says it again makes neither rows nor lines */
        say(&w, JUDGE, evaluated(1 + i % 2, 0.3));
    }
    assert_int_equal(w.jobs_count, 1);
    bool written[3] = {false};
    while (w.jobs_count > 0) {
        const struct round_summary row = w.jobs[0]->checkpoint.summary;
        run_job(&w);
        written[row.round] = row.knn_top1 < 0.25;
    }
    assert_true(written[1] && written[2]);
    assert_int_equal(w.records, 2);
}

/* A round that closes in the middle of a download does not end it: the model is the newest until the next is durable.
 */
static void it_may_fetch_while_a_round_is_closing(void **state)
{
    (void)state;
    observe(JUDGE);
    join_all();
    deliver_all();
    (void)hear(&w, JUDGE, MSG_ROUND_END);
    struct msg aggregate = hear(&w, JUDGE, MSG_AGGREGATE);
    const struct blob *blob = &aggregate.aggregate.model;
    assert_true(blob->bytes > FRAME_CHUNK_MAX);
    w.hold_drained = true;
    say(&w, JUDGE, (struct msg){.type = MSG_FETCH, .fetch = {BLOB_MODEL, blob->round, 0}});
    w.save_result = ERR_FULL; /* round 2 closes, and is not durable yet */
    deliver_all();
    assert_string_equal(coordinator_phase(w.c), "SAVING");
    w.hold_drained = false;
    drain(&w, JUDGE);
    uint8_t *model = mem_new((size_t)blob->bytes, 1);
    for (uint64_t at = 0; at < blob->bytes;) {
        struct msg chunk = hear(&w, JUDGE, MSG_CHUNK);
        assert_int_equal(chunk.chunk.offset, at);
        memcpy(model + at, chunk.raw, chunk.raw_len);
        at += chunk.raw_len;
        msg_fini(&chunk);
    }
    struct hash128 hash = hash_of(model, (size_t)blob->bytes);
    assert_true(hash_equal(&hash, &blob->hash));
    mem_free(model);
    w.save_result = 0;
    advance(&w, 2000);
    assert_int_equal(coordinator_round(w.c), 2);
    (void)hear(&w, JUDGE, MSG_ROUND_END);
    struct msg old = {.type = MSG_FETCH, .fetch = {BLOB_MODEL, 2, 0}};
    say(&w, JUDGE, old); /* crossed our AGGREGATE: no error, and no answer */
    hear_model(2);
}

/* A chunk in a write queue keeps its whole model in memory, so whoever leaves one there may be late by a round, not by
 * two. */
static void who_leaves_a_model_unread_is_closed(void **state)
{
    (void)state;
    observe(JUDGE);
    join_all();
    deliver_all();
    (void)hear(&w, JUDGE, MSG_ROUND_END);
    (void)hear(&w, JUDGE, MSG_AGGREGATE);
    w.hold_drained = true;
    say(&w, JUDGE, (struct msg){.type = MSG_FETCH, .fetch = {BLOB_MODEL, 2, 0}});
    struct msg chunk = hear(&w, JUDGE, MSG_CHUNK);
    msg_fini(&chunk);
    for (uint32_t round = 2; round <= 3; round++) {
        deliver_all();
        assert_int_equal(coordinator_round(w.c), round);
        if (round == 2) {
            assert_true(w.peers[JUDGE].open);
            (void)hear(&w, JUDGE, MSG_ROUND_END);
            (void)hear(&w, JUDGE, MSG_AGGREGATE);
        }
    }
    struct msg bye = hear(&w, JUDGE, MSG_BYE);
    assert_int_equal(bye.bye.code, -ERR_TEMPFAIL);
    assert_false(w.peers[JUDGE].open);
    w.hold_drained = false;
    assert_true(logged(&w, "a piece of the model of round 2 was left unread until round 3 was over"));
    observe(JUDGE); /* and may come back */
    hear_model(3);
}

/* Each FETCH of a sample once cost a hash over all of it: a second of the server for a few kilobytes of requests. */
static void who_asks_without_reading_costs_nothing(void **state)
{
    (void)state;
    join_all();
    deliver_all();
    (void)pass_over(&w, 0, MSG_ROUND_END);
    struct msg round = hear(&w, 0, MSG_ROUND);
    assert_true(round.round.has_remote);
    w.hold_drained = true;
    for (uint32_t i = 0; i < 100; i++) {
        say(&w, 0, (struct msg){.type = MSG_FETCH, .fetch = {BLOB_MODEL, 2, 0}});
        say(&w, 0, (struct msg){.type = MSG_FETCH, .fetch = {BLOB_REMOTE, 2, UINT64_C(1) << 40}});
        say(&w, 0, (struct msg){.type = MSG_FETCH, .fetch = {BLOB_REMOTE, 2, 8}});
    }
    struct msg chunk = hear(&w, 0, MSG_CHUNK);
    assert_int_equal(chunk.chunk.kind, BLOB_MODEL);
    msg_fini(&chunk);
    hear_nothing(&w, 0);
    w.hold_drained = false;
    drain(&w, 0);
    chunk = hear(&w, 0, MSG_CHUNK); /* what it asked for last */
    assert_int_equal(chunk.chunk.kind, BLOB_REMOTE);
    assert_int_equal(chunk.chunk.offset, 8);
    msg_fini(&chunk);
    hear_nothing(&w, 0);
}

static void what_it_may_not_say(void **state)
{
    (void)state;
    join_all();
    deliver_all();
    train(&w, &sites[0], 2);
    const struct msg wrong[] = {
        sites[0].offer, /* it cannot contribute, however well-formed that is */
        {.type = MSG_CHUNK, .chunk = {BLOB_UPDATE, 2, 0}, .raw = (const uint8_t *)"abcd", .raw_len = 4},
        ready_of(&w),
        {.type = MSG_STATUS, .status = {1}},
        {.type = MSG_FETCH, .fetch = {BLOB_REMOTE, 2, 0}},
        {.type = MSG_FETCH, .fetch = {BLOB_MODEL, 2, UINT64_C(1) << 40}},
        evaluated(2, 0.5), /* nobody has seen that model */
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        observe(JUDGE);
        (void)hear(&w, JUDGE, MSG_AGGREGATE);
        assert_ptr_equal(coordinator_limits(w.c, JUDGE), &msg_limits_server_observer);
        say(&w, JUDGE, wrong[i]);
        (void)hear_fault(&w, JUDGE);
        assert_string_equal(coordinator_phase(w.c), "OPEN");
    }
    assert_int_equal(w.records, 0);
    assert_int_equal(msg_limits_server_observer.most[MSG_OFFER] + msg_limits_server_observer.most[MSG_CHUNK], 0);
    say(&w, 1, evaluated(1, 0.5)); /* a trainer does not evaluate */
    (void)pass_over(&w, 1, MSG_ROUND_END);
    (void)pass_over(&w, 1, MSG_ROUND);
    (void)hear_fault(&w, 1);
    assert_int_equal(w.records, 0);
}

static void a_wrong_layout_is_refused(void **state)
{
    (void)state;
    struct site judge = {.peer = JUDGE, .name = "judge"};
    struct msg hello = hello_of(&judge), ready = ready_of(&w);
    hello.hello.role = ROLE_OBSERVER;
    open_peer(&w, JUDGE);
    say(&w, JUDGE, hello);
    struct msg welcome = hear(&w, JUDGE, MSG_WELCOME);
    msg_fini(&welcome);
    ready.ready.layout.bytes[0] ^= 1;
    say(&w, JUDGE, ready);
    (void)hear_reject(&w, JUDGE, REJECT_LAYOUT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_gets_models_and_is_not_counted),
        TEST(it_holds_no_round_open_by_leaving),
        TEST(every_evaluation_is_recorded),
        TEST(it_may_fetch_while_a_round_is_closing),
        TEST(who_leaves_a_model_unread_is_closed),
        TEST(who_asks_without_reading_costs_nothing),
        TEST(what_it_may_not_say),
        TEST(a_wrong_layout_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
