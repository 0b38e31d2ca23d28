/* Slots and the line for them: order, resume, stalls, lost connections, and chunks that are out of place. */
#include "tests/unit/server/session/world.h"

static struct world w;
static struct site sites[SITES];

/* Four sites in round 1, all trained; one upload slot. */
static int set_up_with_rate(uint32_t rate)
{
    world_init(&w);
    w.plan.min_clients = 4;
    w.options.upload_slots = 1;
    w.options.upload_rate = rate;
    world_start(&w);
    for (uint32_t s = 0; s < 4; s++) {
        site_init(&sites[s], s);
        join(&w, &sites[s]);
    }
    for (uint32_t s = 0; s < 4; s++) {
        (void)hear(&w, s, MSG_ROUND);
        train(&w, &sites[s], 1);
    }
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    return set_up_with_rate(0);
}

static int tear_down(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        site_fini(&sites[i]);
    }
    world_fini(&w);
    return 0;
}

static void offer(uint32_t s)
{
    say(&w, s, sites[s].offer);
}

static uint64_t hear_grant(uint32_t s, uint32_t kind)
{
    struct msg msg = hear(&w, s, MSG_GRANT);
    assert_int_equal(msg.grant.kind, kind);
    assert_int_equal(msg.grant.round, 1);
    return msg.grant.offset;
}

static uint32_t hear_place(uint32_t s)
{
    return hear(&w, s, MSG_QUEUED).queued.place;
}

static void upload(uint32_t s, uint64_t offset, uint64_t end)
{
    upload_part(&w, &sites[s], BLOB_UPDATE, offset, end, 1000);
}

static uint64_t bytes(void)
{
    return w.layout->total * sizeof(float);
}

static void finish(uint32_t s, uint64_t offset)
{
    upload(s, offset, bytes());
    answer_grants(&w, &sites[s]);
    (void)hear(&w, s, MSG_ACCEPTED);
}

/* Who waits, or has uploaded, is no reader of many chunks: of a thousand of them none may keep a chunk's memory. */
static void memory_for_chunks_goes_with_the_slot(void **state)
{
    (void)state;
    assert_ptr_equal(coordinator_limits(w.c, 0), &msg_limits_server_trainer);
    offer(0);
    offer(1);
    assert_int_equal(hear_grant(0, BLOB_UPDATE), 0);
    assert_ptr_equal(coordinator_limits(w.c, 0), &msg_limits_server_uploading);
    assert_int_equal(hear_place(1), 1);
    assert_ptr_equal(coordinator_limits(w.c, 1), &msg_limits_server_trainer);
    finish(0, 0);
    assert_ptr_equal(coordinator_limits(w.c, 0), &msg_limits_server_trainer);
    assert_ptr_equal(coordinator_limits(w.c, 1), &msg_limits_server_uploading);
    assert_true(msg_limits_server_trainer.chunks_end && !msg_limits_server_uploading.chunks_end);
    for (uint32_t type = 0; type < FRAME_TYPES; type++) {
        assert_int_equal(msg_limits_server_uploading.most[type], msg_limits_server_trainer.most[type]);
    }
}

static void first_come_first_served(void **state)
{
    (void)state;
    offer(2);
    assert_int_equal(hear_grant(2, BLOB_UPDATE), 0);
    offer(0);
    assert_int_equal(hear_place(0), 1);
    offer(3);
    assert_int_equal(hear_place(3), 2);
    offer(1);
    assert_int_equal(hear_place(1), 3);
    offer(3); /* Again: where it stands. */
    assert_int_equal(hear_place(3), 2);
    finish(2, 0);
    assert_int_equal(hear_grant(0, BLOB_UPDATE), 0);
    hear_nothing(&w, 1);
    hear_nothing(&w, 3);
    lose(&w, 3); /* Leaves the line. */
    finish(0, 0);
    assert_int_equal(hear_grant(1, BLOB_UPDATE), 0);
    finish(1, 0);
    join(&w, &sites[3]);
    (void)hear(&w, 3, MSG_ROUND);
    offer(3);
    assert_int_equal(hear_grant(3, BLOB_UPDATE), 0);
    finish(3, 0);
    assert_int_equal(hear(&w, 0, MSG_ROUND_END).round_end.accepted, 4);
}

static void update_then_features(void **state)
{
    (void)state;
    offer(0);
    (void)hear_grant(0, BLOB_UPDATE);
    upload(0, 0, bytes());
    assert_int_equal(hear_grant(0, BLOB_FEATURES), 0);
    upload_part(&w, &sites[0], BLOB_FEATURES, 0, ROWS * D * 4, 7);
    (void)hear(&w, 0, MSG_ACCEPTED);

    sites[1].rows = 0; /* Without features the update is all. */
    describe_offer(&w, &sites[1], 1);
    offer(1);
    (void)hear_grant(1, BLOB_UPDATE);
    upload(1, 0, bytes());
    (void)hear(&w, 1, MSG_ACCEPTED);
}

static void an_upload_is_resumed_at_the_byte(void **state)
{
    (void)state;
    offer(0);
    (void)hear_grant(0, BLOB_UPDATE);
    upload(0, 0, 3000);
    lose(&w, 0);
    join(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ROUND);
    offer(0);
    assert_int_equal(hear_grant(0, BLOB_UPDATE), 3000);
    upload(0, 3000, bytes());
    (void)hear_grant(0, BLOB_FEATURES);
    upload_part(&w, &sites[0], BLOB_FEATURES, 0, 40, 8);
    lose(&w, 0); /* With the update whole and the features half. */
    join(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ROUND);
    offer(0);
    assert_int_equal(hear_grant(0, BLOB_FEATURES), 40);
    upload_part(&w, &sites[0], BLOB_FEATURES, 40, ROWS * D * 4, 64);
    (void)hear(&w, 0, MSG_ACCEPTED);
}

static void another_contribution_is_not_resumed(void **state)
{
    (void)state;
    offer(0);
    (void)hear_grant(0, BLOB_UPDATE);
    upload(0, 0, 3000);
    lose(&w, 0);
    join(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ROUND);
    sites[0].update[0] += 0.001f;
    describe_offer(&w, &sites[0], 1);
    offer(0);
    assert_int_equal(hear_grant(0, BLOB_UPDATE), 0); /* Other bytes: from the start. */
    finish(0, 0);
}

static void a_kept_upload_gives_way(void **state)
{
    (void)state;
    offer(0);
    (void)hear_grant(0, BLOB_UPDATE);
    upload(0, 0, 3000);
    lose(&w, 0);
    offer(1); /* Somebody needs the slot. */
    (void)hear_grant(1, BLOB_UPDATE);
    join(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ROUND);
    offer(0);
    assert_int_equal(hear_place(0), 1);
    finish(1, 0);
    assert_int_equal(hear_grant(0, BLOB_UPDATE), 0);
    offer(2);
    (void)hear_place(2);
    lose(&w, 0); /* Somebody waits: nothing is kept. */
    assert_int_equal(hear_grant(2, BLOB_UPDATE), 0);
    finish(2, 0);
}

static void a_changed_mind_starts_again(void **state)
{
    (void)state;
    offer(0);
    (void)hear_grant(0, BLOB_UPDATE);
    upload(0, 0, 2000);
    offer(0); /* The same again on the same connection: goes on. */
    assert_int_equal(hear_grant(0, BLOB_UPDATE), 2000);
    sites[0].update[0] += 0.001f;
    describe_offer(&w, &sites[0], 1);
    offer(0);
    assert_int_equal(hear_grant(0, BLOB_UPDATE), 0);
    finish(0, 0);
}

static void a_trickler_loses_its_slot(void **state)
{
    (void)state;
    offer(0);
    (void)hear_grant(0, BLOB_UPDATE);
    upload(0, 0, 1000);
    advance(&w, IDLE_MS); /* Nobody waits: it may take its time. */
    hear_nothing(&w, 0);
    offer(1);
    (void)hear_place(1);
    upload(0, 1000, 2000); /* A chunk: it is alive. */
    advance(&w, IDLE_MS / 2 - 1);
    hear_nothing(&w, 1);
    advance(&w, 1);
    assert_true(logged(&w, "upload_too_slow name=site-0 received=2000"));
    assert_int_equal(hear_place(0), 1);
    (void)hear_grant(1, BLOB_UPDATE);
    upload(0, 2000, 4000); /* On their way when the slot was lost: they mean nothing. */
    assert_true(w.peers[0].open);
    finish(1, 0);
    assert_int_equal(hear_grant(0, BLOB_UPDATE), 0);
    upload(0, 4000, 5000); /* Still on their way. */
    assert_true(w.peers[0].open);
    finish(0, 0);
}

static void a_long_upload_loses_its_slot(void **state)
{
    (void)state;
    offer(0);
    (void)hear_grant(0, BLOB_UPDATE);
    offer(1);
    (void)hear_place(1);
    for (uint64_t sent = 0; sent * 2000 < DEADLINE_MS / 2; sent++) { /* A few bytes now and then. */
        hear_nothing(&w, 1);
        upload(0, 4 * sent, 4 * sent + 4);
        advance(&w, 2000);
    }
    (void)hear_grant(1, BLOB_UPDATE);
}

/* A chunk now and then is no silence, but it is too little: upload_rate, measured over idle_timeout. */
static void an_upload_below_the_rate_loses_its_slot_and_may_try_again(void **state)
{
    (void)state;
    tear_down(NULL);
    (void)set_up_with_rate(100);
    offer(0);
    (void)hear_grant(0, BLOB_UPDATE);
    uint64_t sent = 0;
    for (int second = 0; second < 12; second++, sent += 8) { /* Nobody waits: as slow as it likes. */
        upload(0, sent, sent + 8);
        advance(&w, 1000);
    }
    hear_nothing(&w, 0);
    offer(1);
    (void)hear_place(1);
    for (int second = 0; second < 6; second++, sent += 8) { /* a window */
        hear_nothing(&w, 0);
        upload(0, sent, sent + 8);
        advance(&w, 1000);
    }
    struct msg queued = hear(&w, 0, MSG_QUEUED);
    assert_int_equal(queued.queued.reason, QUEUED_SLOW);
    assert_true(logged(&w, "reason=\"slow\""));
    (void)hear_grant(1, BLOB_UPDATE);
    for (sent = 0; sent < 1800; sent += 100) { /* As fast as the rate: it keeps the slot, though another waits. */
        upload(1, sent, sent + 100);
        advance(&w, 1000);
        hear_nothing(&w, 1);
    }
    finish(1, sent);
    assert_int_equal(hear_grant(0, BLOB_UPDATE), 0);
    finish(0, 0);
}

static void chunks_out_of_place(void **state)
{
    (void)state;
    struct msg chunk = {.type = MSG_CHUNK, .raw = (const uint8_t *)sites[0].update, .raw_len = 100};
    chunk.chunk = (struct msg_chunk){BLOB_UPDATE, 1, 0};
    say(&w, 0, chunk); /* Nothing was granted: as if it had crossed a DECLINED. */
    assert_true(w.peers[0].open);
    offer(0);
    (void)hear_grant(0, BLOB_UPDATE);
    chunk.chunk.offset = 100; /* a gap */
    say(&w, 0, chunk);
    (void)hear_fault(&w, 0);

    offer(1);
    (void)hear_grant(1, BLOB_UPDATE);
    chunk.chunk = (struct msg_chunk){BLOB_FEATURES, 1, 0}; /* not the blob that was granted */
    say(&w, 1, chunk);
    (void)hear_fault(&w, 1);

    offer(2);
    (void)hear_grant(2, BLOB_UPDATE);
    upload(2, 0, bytes());
    (void)hear_grant(2, BLOB_FEATURES);
    chunk.chunk = (struct msg_chunk){BLOB_FEATURES, 1, 0};
    chunk.raw_len = ROWS * D * 4 + 1; /* more than was announced */
    say(&w, 2, chunk);
    (void)hear_fault(&w, 2);
}

/* Lost while its contribution is checked: it counts all the same, and is answered on the new connection. */
static void a_connection_lost_during_the_check(void **state)
{
    (void)state;
    w.hold_jobs = true;
    offer(0);
    answer_grants(&w, &sites[0]);
    assert_int_equal(w.jobs_count, 1);
    lose(&w, 0);
    join(&w, &sites[0]);
    hear_nothing(&w, 0);
    offer(0);
    hear_nothing(&w, 0); /* Not twice: the answer comes with the first. */
    run_jobs(&w);
    (void)hear(&w, 0, MSG_ACCEPTED);
    lose(&w, 0);
    offer(1);
    answer_grants(&w, &sites[1]);
    lose(&w, 1);
    run_jobs(&w); /* Nobody to tell. */
    join(&w, &sites[1]);
    offer(1);
    (void)hear(&w, 1, MSG_ACCEPTED);
}

/* Offers site 0's contribution, and uploads it with one number damaged on the way. */
static void upload_damaged(void)
{
    offer(0);
    (void)hear_grant(0, BLOB_UPDATE);
    sites[0].update[3] += 1;
    upload(0, 0, bytes());
    sites[0].update[3] -= 1;
    (void)hear_grant(0, BLOB_FEATURES);
    upload_part(&w, &sites[0], BLOB_FEATURES, 0, ROWS * D * 4, 64);
}

/* Bytes that are not those that were offered come again, at once: nobody is declined for what the network did. */
static void a_damaged_upload_comes_again(void **state)
{
    (void)state;
    sites[0].update[3] = 0.25f; /* so that adding 1 and taking it away gives the same bits */
    describe_offer(&w, &sites[0], 1);
    upload_damaged();
    assert_true(logged(&w, "upload_damaged name=site-0 round=1 uploads=1"));
    assert_int_equal(hear_grant(0, BLOB_UPDATE), 0);
    finish(0, 0);
}

/* ... also when it was lost before it could be asked. */
static void a_damaged_upload_of_somebody_who_is_away(void **state)
{
    (void)state;
    sites[0].update[3] = 0.25f;
    describe_offer(&w, &sites[0], 1);
    w.hold_jobs = true;
    upload_damaged();
    lose(&w, 0);
    w.hold_jobs = false;
    run_jobs(&w);
    join(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ROUND);
    offer(0);
    assert_int_equal(hear_grant(0, BLOB_UPDATE), 0);
    finish(0, 0);
}

/* At the deadline: whoever waits or uploads is told, and the slot is free for the next round. */
static void closing_declines_what_is_not_whole(void **state)
{
    (void)state;
    tear_down(NULL);
    world_init(&w);
    w.plan.min_clients = 2;
    w.options.upload_slots = 1;
    w.options.idle_timeout_ms = 10 * DEADLINE_MS; /* nobody is too slow here */
    world_start(&w);
    w.hold_jobs = false;
    struct site *s = sites;
    for (uint32_t i = 0; i < 2; i++) {
        join(&w, &s[i]);
    }
    for (uint32_t i = 2; i < 4; i++) { /* let in by the extension, without an invitation so far */
        join(&w, &s[i]);
    }
    (void)hear(&w, 0, MSG_ROUND);
    (void)hear(&w, 1, MSG_ROUND);
    advance(&w, DEADLINE_MS);
    assert_true(logged(&w, "round_extended round=1 times=1 delivered=0 least=2"));
    (void)hear(&w, 2, MSG_ROUND);
    (void)hear(&w, 3, MSG_ROUND);
    for (uint32_t i = 0; i < 4; i++) {
        train(&w, &s[i], 1);
    }
    for (uint32_t i = 2; i < 4; i++) {
        offer(i);
        answer_grants(&w, &s[i]);
        (void)hear(&w, i, MSG_ACCEPTED);
    }
    advance(&w, DEADLINE_MS - 10);
    offer(0);
    (void)hear_grant(0, BLOB_UPDATE);
    upload(0, 0, 2000);
    offer(1);
    (void)hear_place(1);
    w.hold_jobs = true;
    advance(&w, 10);
    assert_string_equal(coordinator_phase(w.c), "AGGREGATING");
    (void)hear_declined(&w, 0, DECLINE_STALE);
    (void)hear_declined(&w, 1, DECLINE_STALE);
    upload(0, 2000, 4000); /* on their way */
    assert_true(w.peers[0].open);
    w.hold_jobs = false;
    run_jobs(&w);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(hear(&w, i, MSG_ROUND_END).round_end.counted, i >= 2);
        deliver(&w, &s[i]);
    }
    assert_int_equal(w.disk.round, 2);
}

static void bytes_are_counted_by_kind(void **state)
{
    (void)state;
    offer(0);
    answer_grants(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ACCEPTED);
    struct blob model = {.kind = BLOB_MODEL, .round = 1, .bytes = bytes()};
    mem_free(fetch(&w, 1, &model, 0));
    struct msg keep;
    struct msg_status_reply status = status_of(&w, &keep);
    assert_int_equal(status.clients[0].bytes_up, bytes() + ROWS * D * 4);
    assert_int_equal(status.clients[0].bytes_by_kind[BLOB_UPDATE], bytes());
    assert_int_equal(status.clients[0].bytes_by_kind[BLOB_FEATURES], ROWS * D * 4);
    assert_int_equal(status.clients[0].bytes_down, 0);
    assert_int_equal(status.clients[1].bytes_down, bytes());
    assert_int_equal(status.clients[1].bytes_by_kind[BLOB_MODEL], bytes());
    msg_fini(&keep);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(memory_for_chunks_goes_with_the_slot),
        TEST(first_come_first_served),
        TEST(update_then_features),
        TEST(an_upload_is_resumed_at_the_byte),
        TEST(another_contribution_is_not_resumed),
        TEST(a_kept_upload_gives_way),
        TEST(a_changed_mind_starts_again),
        TEST(a_trickler_loses_its_slot),
        TEST(a_long_upload_loses_its_slot),
        TEST(an_upload_below_the_rate_loses_its_slot_and_may_try_again),
        TEST(chunks_out_of_place),
        TEST(a_connection_lost_during_the_check),
        TEST(a_damaged_upload_comes_again),
        TEST(a_damaged_upload_of_somebody_who_is_away),
        TEST(closing_declines_what_is_not_whole),
        TEST(bytes_are_counted_by_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
