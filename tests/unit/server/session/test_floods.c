/* What a peer that was welcomed can cost: messages, bytes, log lines and names. */
#include "server/session/state.h"
#include "tests/unit/server/session/world.h"

static struct world w;
static struct site sites[SITES];

static int setup(void **state)
{
    (void)state;
    world_init(&w);
    world_start(&w);
    sites_init(sites, SITES);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_fini(&w);
    sites_fini(sites, SITES);
    return 0;
}

static const struct msg beat = {.type = MSG_PROGRESS};

/* A thousand at once, and a hundred a second, are heard; who sends more is not read, in the long run for all of the
 * time that its messages would have taken. */
static void a_flood_is_slowed(void **state)
{
    (void)state;
    join(&w, &sites[0]);
    struct connection *peer = &w.peers[0];
    for (uint32_t i = 0; i < 990; i++) {
        say(&w, 0, beat);
    }
    assert_int_equal(peer->pauses, 0);
    for (uint32_t i = 0; i < 3000; i++) {
        say(&w, 0, beat);
    }
    assert_int_equal(peer->pauses, 1);
    assert_true(peer->open); /* slowed, not thrown out */
    assert_true(logged(&w, "client_slowed name=site-0"));
    uint64_t heard = 0, begin = w.now;
    while (w.now < begin + 100 * IDLE_MS) { /* a shell that reads 300 at a time, whenever it may */
        uint32_t before = peer->pauses;
        advance(&w, peer->pause_ms);
        for (uint32_t i = 0; i < 300; i++, heard++) {
            say(&w, 0, beat);
        }
        assert_true(peer->open && peer->pauses == before + 1 && peer->pause_ms <= IDLE_MS / 4);
    }
    assert_in_range(heard, 1, 100 * IDLE_MS / 1000 * 220); /* pauses end at idle_timeout / 4, however great the debt */
}

/* What nobody asked for is counted by its bytes. */
static void chunks_that_nobody_granted_are_a_flood(void **state)
{
    (void)state;
    static uint8_t raw[FRAME_CHUNK_MAX];
    join(&w, &sites[0]);
    struct msg chunk = {.type = MSG_CHUNK, .raw = raw, .raw_len = sizeof raw};
    chunk.chunk.kind = BLOB_UPDATE;
    chunk.chunk.round = 1;
    for (uint32_t i = 0; i < 50; i++) {
        say(&w, 0, chunk);
    }
    assert_int_equal(w.peers[0].pauses, 0); /* as many may be on the way when an upload ends here */
    for (uint32_t i = 0; i < 20; i++) {
        say(&w, 0, chunk);
    }
    assert_int_equal(w.peers[0].pauses, 1);
}

/* Rounds of no time at all: all that a client must say in them was asked for. */
static void no_pace_of_rounds_is_a_flood(void **state)
{
    (void)state;
    world_fini(&w);
    world_init(&w);
    w.plan.rounds = 1500;
    w.plan.min_clients = 1;
    world_start(&w);
    join(&w, &sites[0]);
    for (uint32_t round = 1; round <= 1500; round++) {
        struct msg open = hear(&w, 0, MSG_ROUND);
        assert_int_equal(open.round.round, round);
        for (uint32_t i = 0; i < 4; i++) {
            struct msg fetch = {.type = MSG_FETCH};
            fetch.fetch.kind = BLOB_MODEL;
            fetch.fetch.round = round;
            say(&w, 0, fetch);
            (void)pass_over(&w, 0, MSG_CHUNK);
        }
        train(&w, &sites[0], round);
        say(&w, 0, sites[0].offer);
        answer_grants(&w, &sites[0]);
        (void)hear(&w, 0, MSG_ACCEPTED);
        (void)hear(&w, 0, MSG_ROUND_END);
    }
    assert_int_equal(w.peers[0].pauses, 0);
}

/* READY and gone, for ever: the log says so, within bounds; a client that behaves is in it as ever. */
static void a_flood_fills_no_log(void **state)
{
    (void)state;
    uint64_t begin = w.now;
    w.log.least = LOG_LEVEL_INFO;
    w.lines.len = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        sites[0].peer = i % 2;
        join(&w, &sites[0]);
        lose(&w, sites[0].peer);
        advance(&w, 5);
        (void)pass_over(&w, sites[0].peer, MSG_ROUND);
    }
    uint64_t seconds = (w.now - begin) / 1000;
    (void)buf_append(&w.lines, "", 1);
    w.lines.len--;
    uint32_t caused = 0;
    for (const char *at = (const char *)w.lines.data; (at = strchr(at, '\n')) != NULL; at++) {
        caused++;
    }
    assert_in_range(caused, seconds, seconds + LOG_LIMIT_EACH + 8); /* with reminders of the server's own */
    assert_true(logged(&w, "log_suppressed count="));
    w.lines.len = 0;
    join(&w, &sites[1]);
    assert_true(logged(&w, "client_joined name=site-1"));
}

static uint32_t called(struct world *world)
{
    struct msg question = {.type = MSG_STATUS};
    struct site asker = {.peer = 60, .name = "operator"};
    struct msg hello = hello_of(&asker);
    open_peer(world, 60);
    hello.hello.role = ROLE_OPERATOR;
    say(world, 60, hello);
    struct msg welcome = hear(world, 60, MSG_WELCOME);
    msg_fini(&welcome);
    say(world, 60, question);
    struct msg reply = hear(world, 60, MSG_STATUS_REPLY);
    uint32_t count = reply.status_reply.clients_count;
    assert_true(reply.status_reply.strangers.told);
    msg_fini(&reply);
    lose(world, 60);
    return count;
}

/* Names that come and go without contributing: the table holds as many as may be connected. Whoever contributed, is
 * connected, or takes part in the round is not forgotten, and the names stay in order. */
static void names_that_never_contributed_are_forgotten(void **state)
{
    (void)state;
    world_fini(&w);
    world_init(&w);
    w.options.sessions_max = 8;
    w.plan.min_clients = 2;
    world_start(&w);
    join(&w, &sites[0]);
    join(&w, &sites[1]);
    deliver(&w, &sites[0]);
    deliver(&w, &sites[1]);
    world_crash(&w); /* so that nobody takes part in anything, and both are known for their contributions alone */
    world_start(&w);
    join(&w, &sites[1]);
    struct site passer;
    for (uint32_t i = 0; i < 500; i++) {
        site_init(&passer, 40);
        (void)snprintf(passer.name, sizeof passer.name, "passer-%u", i * 7919 % 500);
        (void)greet(&w, &passer);
        advance(&w, 1);
        lose(&w, 40);
    }
    assert_int_equal(called(&w), 8);
    sites[0].peer = 10;
    struct msg welcome = greet(&w, &sites[0]);
    assert_true(welcome.welcome.has_counted && welcome.welcome.counted_round == 1);
    (void)snprintf(passer.name, sizeof passer.name, "passer-%u", 499u * 7919u % 500u);
    (void)greet(&w, &passer); /* the latest is still known, and found */
    assert_int_equal(called(&w), 8);
}

/* An upload that goes wrong again and again, by a client that is never told so: after the quota it is declined, until
 * the round is extended. */
static void uploads_have_a_quota(void **state)
{
    (void)state;
    join(&w, &sites[0]);
    join(&w, &sites[1]);
    join(&w, &sites[2]);
    (void)hear(&w, 0, MSG_ROUND);
    train(&w, &sites[0], 1);
    uint64_t bytes = sites[0].offer.offer.update.bytes, sent = 0;
    uint32_t offers = 0;
    for (; offers < 100; offers++) {
        sites[0].offer.offer.update.hash.bytes[0]++; /* never the same, so that nothing is kept of the last */
        say(&w, 0, sites[0].offer);
        (void)pass_over(&w, 0, MSG_ALIVE);
        struct msg answer = take_first(&w.peers[0]);
        if (answer.type == MSG_DECLINED) {
            assert_int_equal(answer.declined.reason, DECLINE_NOT_SELECTED);
            break;
        }
        assert_int_equal(answer.type, MSG_GRANT);
        upload_part(&w, &sites[0], BLOB_UPDATE, 0, bytes - 4, FRAME_CHUNK_MAX);
        sent += bytes - 4;
    }
    assert_in_range(offers, 16, 18);
    assert_true(w.peers[0].open);
    assert_in_range(sent, 15 * bytes, 18 * bytes);
    assert_int_equal(w.c->strangers.told.over_quota, 1);
    say(&w, 0, sites[0].offer);
    (void)hear_declined(&w, 0, DECLINE_NOT_SELECTED);
    advance(&w, DEADLINE_MS + 1); /* nobody delivered: the round is extended, and it is asked again */
    (void)hear(&w, 0, MSG_ROUND);
    train(&w, &sites[0], 1);
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ACCEPTED);
}

static uint64_t sample_bytes(void)
{
    return quant_rows_bytes(w.plan.wire.features, w.plan.fusion.remote, w.plan.model.features);
}

/* Whoever fetches the model again and again gets it so often, and then a BYE, also on a new connection. */
static void downloads_have_a_quota(void **state)
{
    (void)state;
    join(&w, &sites[0]);
    join(&w, &sites[1]);
    join(&w, &sites[2]);
    struct blob model = hear(&w, 0, MSG_ROUND).round.model;
    uint64_t most = TRANSFERS_PER_ROUND * (model.bytes + sample_bytes());
    for (uint64_t i = 0; i * model.bytes < most; i++) {
        mem_free(fetch(&w, 0, &model, 0));
    }
    struct msg again = {.type = MSG_FETCH};
    again.fetch = (struct msg_fetch){model.kind, model.round, 0};
    for (uint32_t connection = 0; connection < 2; connection++) {
        say(&w, sites[0].peer, again);
        assert_int_equal(hear(&w, sites[0].peer, MSG_BYE).bye.code, -ERR_TEMPFAIL);
        sites[0].peer = 20;
        if (connection == 0) {
            join(&w, &sites[0]);
            (void)hear(&w, 20, MSG_ROUND);
        }
    }
    assert_true(logged(&w, "over_quota name=site-0"));
    (void)hear(&w, 1, MSG_ROUND);
    mem_free(fetch(&w, 1, &model, 0)); /* nobody else's */
}

static int setup_large_samples(void **state)
{
    (void)state;
    world_init(&w);
    w.plan.fusion.remote = 100000;
    world_start(&w);
    sites_init(sites, SITES);
    return 0;
}

/* A site that is started again in the midst of a round fetches anew, also where a sample is a hundred models. */
static void one_large_sample_is_no_quota_of_small_models(void **state)
{
    (void)state;
    join(&w, &sites[0]);
    join(&w, &sites[1]);
    join(&w, &sites[2]);
    struct blob model = hear(&w, 0, MSG_ROUND).round.model;
    assert_in_range(sample_bytes(), 100 * model.bytes, UINT64_MAX);
    quota_of(w.c, &w.c->members[member_find(w.c, "site-0")])->down = model.bytes + sample_bytes();
    mem_free(fetch(&w, 0, &model, 0));
    assert_true(w.peers[0].open);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_flood_is_slowed, setup, teardown),
        cmocka_unit_test_setup_teardown(chunks_that_nobody_granted_are_a_flood, setup, teardown),
        cmocka_unit_test_setup_teardown(no_pace_of_rounds_is_a_flood, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flood_fills_no_log, setup, teardown),
        cmocka_unit_test_setup_teardown(names_that_never_contributed_are_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(uploads_have_a_quota, setup, teardown),
        cmocka_unit_test_setup_teardown(downloads_have_a_quota, setup, teardown),
        cmocka_unit_test_setup_teardown(one_large_sample_is_no_quota_of_small_models, setup_large_samples, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
