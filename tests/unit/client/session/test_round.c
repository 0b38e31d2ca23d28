/* Rounds as a client lives them: fetched, trained, offered, kept until they are durable, and never trained twice while
 * their contribution exists. */
#include "tests/unit/client/session/fixture.h"

static void begin_with(struct fixture *f, uint32_t width, const struct session_options *options)
{
    fixture_plan(f, width);
    fixture_start(f, options);
}

static void begin(struct fixture *f)
{
    struct session_options options = fixture_options();
    begin_with(f, 4, &options);
}

static void test_a_round_from_hello_to_commit(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_greeting(&f);
    const struct msg_hello *hello = &must_send(&f, MSG_HELLO)->hello;
    assert_string_equal(hello->name, "site-a");
    assert_int_equal(hello->major, FRAME_VERSION);
    assert_false(hello->has_saved);
    hears(&f, welcome_of(&f));
    const struct session_action *prepare = must(&f, SESSION_PREPARE);
    assert_int_equal(prepare->plan->rounds, 5);
    assert_true(hash_equal(&prepare->layout->fingerprint, &f.layout->fingerprint));
    happens(&f, SESSION_PREPARED);
    assert_int_equal(must_send(&f, MSG_READY)->ready.images, 100);

    hears(&f, round_of(&f, OPEN));
    assert_int_equal(must_send(&f, MSG_FETCH)->fetch.kind, BLOB_MODEL);
    hears(&f, chunk_of(&f, BLOB_MODEL, OPEN, 0));
    assert_int_equal(must_send(&f, MSG_FETCH)->fetch.kind, BLOB_REMOTE);
    hears(&f, chunk_of(&f, BLOB_REMOTE, OPEN, 0));
    const struct session_action *train = must(&f, SESSION_TRAIN);
    assert_int_equal(train->round, OPEN);
    assert_memory_equal(train->model, f.model, f.layout->total * sizeof(float));
    assert_int_equal(train->remote_rows, 2);
    assert_memory_equal(train->remote, f.remote, 2 * 8 * sizeof(float));

    trained(&f, OPEN);
    const struct msg_offer *offered = &must_send(&f, MSG_OFFER)->offer;
    assert_int_equal(offered->round, OPEN);
    assert_true(offered->has_features);
    assert_int_equal(offered->features.dimension, 8);
    assert_int_equal(offered->features.count, 24);
    assert_int_equal(offered->update.count, f.layout->total);
    hears(&f, (struct msg){.type = MSG_QUEUED, .queued = {.round = OPEN, .place = 2}});
    is_in(&f, "OFFERING");
    hears(&f, grant_of(BLOB_UPDATE, OPEN, 0));
    assert_int_equal(must_send(&f, MSG_CHUNK)->chunk.kind, BLOB_UPDATE);
    happens(&f, SESSION_DRAINED);
    assert_int_equal(f.actions.count, 0);
    hears(&f, grant_of(BLOB_FEATURES, OPEN, 0));
    assert_int_equal(must_send(&f, MSG_CHUNK)->chunk.kind, BLOB_FEATURES);
    hears(&f, (struct msg){.type = MSG_ACCEPTED, .accepted = {.round = OPEN}});
    assert_null(action_of(&f, SESSION_COMMIT)); /* ACCEPTED promises nothing across a crash. */
    hears(&f, round_end_of(OPEN, true, false));
    assert_int_equal(must(&f, SESSION_COMMIT)->round, OPEN);
    is_in(&f, "READY");
    hears(&f, round_of(&f, OPEN + 1));
    is_in(&f, "FETCHING");
    fixture_fini(&f);
}

static void test_a_broken_fetch_goes_on_where_it_was(void **state)
{
    (void)state;
    struct fixture f;
    struct session_options options = fixture_options();
    begin_with(&f, 80, &options);
    assert_true(f.layout->total * sizeof(float) > FRAME_CHUNK_MAX / 4);
    to_fetching(&f);
    /* Half a chunk, so that the place is the test's own and not a multiple of the chunk's size. */
    struct msg half = chunk_of(&f, BLOB_MODEL, OPEN, 0);
    half.raw_len = 100000;
    hears(&f, half);
    reconnect(&f, DURABLE, 0);
    must_send(&f, MSG_READY);
    hears(&f, round_of(&f, OPEN));
    assert_int_equal(must_send(&f, MSG_FETCH)->fetch.offset, 100000);
    fetch_all(&f);
    assert_memory_equal(must(&f, SESSION_TRAIN)->model, f.model, f.layout->total * sizeof(float));
    fixture_fini(&f);
}

static void test_another_model_under_the_same_round_is_fetched_anew(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_fetching(&f);
    struct msg half = chunk_of(&f, BLOB_MODEL, OPEN, 0);
    half.raw_len = 100;
    hears(&f, half);
    reconnect(&f, DURABLE, 0);
    f.model[0] = 77.0f;
    hears(&f, round_of(&f, OPEN));
    assert_int_equal(must_send(&f, MSG_FETCH)->fetch.offset, 0);
    fixture_fini(&f);
}

static void test_damaged_bytes_are_fetched_three_times_more(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_fetching(&f);
    f.model[5] += 1.0f; /* What comes is not what was announced. */
    int fetches = 1;
    while (f.actions.count > 0 && sent(&f, MSG_FETCH)) {
        assert_int_equal(must_send(&f, MSG_FETCH)->fetch.offset, 0);
        hears(&f, chunk_of(&f, BLOB_MODEL, OPEN, 0));
        assert_null(action_of(&f, SESSION_TRAIN));
        fetches += sent(&f, MSG_FETCH) != NULL;
    }
    assert_int_equal(fetches, 4);
    must(&f, SESSION_CLOSE);
    assert_int_equal(must_send(&f, MSG_BYE)->bye.code, -ERR_DATA);
    f.model[5] -= 1.0f;
    happens(&f, SESSION_CLOSED);
    to_ready(&f);
    hears(&f, round_of(&f, OPEN));
    assert_int_equal(must_send(&f, MSG_FETCH)->fetch.offset, 0);
    fetch_all(&f);
    must(&f, SESSION_TRAIN);
    fixture_fini(&f);
}

/* What a hostile or confused server may announce: refused before memory is taken for it. */
static void test_sizes_are_held_to_the_plan(void **state)
{
    (void)state;
    for (int i = 0; i < 11; i++) {
        struct fixture f;
        begin(&f);
        to_ready(&f);
        struct msg msg = round_of(&f, OPEN);
        struct blob *model = &msg.round.model, *remote = &msg.round.remote;
        switch (i) {
        case 0:
            model->count = (uint64_t)1 << 29;
            model->bytes = (uint64_t)1 << 31;
            break;
        case 1:
            model->count--;
            model->bytes -= 4;
            break;
        case 2:
            model->layout = id(9);
            break;
        case 3:
            model->element = ELEMENT_F16;
            model->bytes /= 2;
            break;
        case 4:
            remote->count = 5 * 8; /* fusion.remote is 4 */
            remote->bytes = remote->count * 4;
            break;
        case 5:
            remote->dimension = 4;
            break;
        case 6:
            remote->kind = BLOB_FEATURES;
            break;
        case 7:
            msg.round.round = DURABLE;
            model->round = remote->round = DURABLE;
            break;
        case 8: /* the plan says f32 */
            remote->element = ELEMENT_I8;
            remote->bytes = remote->count + 4 * (remote->count / 8);
            break;
        case 9:
            remote->bytes -= 4;
            break;
        default:
            model->round = OPEN + 1;
            break;
        }
        hears(&f, msg);
        assert_null(sent(&f, MSG_FETCH));
        assert_int_equal(must_send(&f, MSG_BYE)->bye.code, -ERR_PROTOCOL);
        fixture_fini(&f);
    }
}

static void test_chunks_that_do_not_follow_are_refused(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct fixture f;
        begin(&f);
        to_fetching(&f);
        struct msg msg = chunk_of(&f, i == 2 ? BLOB_REMOTE : BLOB_MODEL, OPEN, 0);
        uint8_t *longer = mem_new(f.layout->total * 4 + 8, 1);
        if (i == 0) {
            msg.chunk.offset = 8;
        } else if (i == 1) {
            msg.chunk.round = OPEN + 1;
        } else if (i == 3) {
            msg.raw = longer;
            msg.raw_len = (uint32_t)(f.layout->total * 4 + 8);
        }
        hears(&f, msg);
        assert_int_equal(must_send(&f, MSG_BYE)->bye.code, -ERR_PROTOCOL);
        mem_free(longer);
        fixture_fini(&f);
    }
}

static void test_training_outlasts_the_connection(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_training(&f);
    reconnect(&f, DURABLE, 0);
    must_send(&f, MSG_READY);
    assert_null(action_of(&f, SESSION_PREPARE));
    hears(&f, round_of(&f, OPEN));
    is_in(&f, "TRAINING");
    assert_int_equal(f.actions.count, 0); /* neither CANCEL nor FETCH: the work goes on */
    trained(&f, OPEN);
    must_send(&f, MSG_OFFER);
    fixture_fini(&f);
}

/* The server need not invite it again: after a restart the round may have opened with others. */
static void test_trained_while_offline_is_offered_without_being_asked(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_training(&f);
    fails(&f, SESSION_CLOSED, ERR_TEMPFAIL);
    trained(&f, OPEN);
    assert_int_equal(f.actions.count, 0);
    to_ready(&f);
    assert_int_equal(must_send(&f, MSG_OFFER)->offer.round, OPEN);
    hears(&f, round_of(&f, OPEN));
    assert_int_equal(f.actions.count, 0); /* offered already, and not trained again */
    is_in(&f, "OFFERING");
    fixture_fini(&f);
}

static void test_trained_between_ready_and_round_is_offered_too(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_training(&f);
    reconnect(&f, DURABLE, 0);
    is_in(&f, "READY");
    trained(&f, OPEN);
    assert_int_equal(must_send(&f, MSG_OFFER)->offer.round, OPEN);
    fixture_fini(&f);

    begin(&f); /* Not to a server that went back. */
    to_training(&f);
    reconnect(&f, DURABLE - 1, 0);
    trained(&f, OPEN);
    assert_null(sent(&f, MSG_OFFER));
    hears(&f, round_of(&f, OPEN - 1));
    must(&f, SESSION_DROP);
    fixture_fini(&f);
}

static void test_a_pending_contribution_is_offered_again_until_it_is_durable(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_delivered(&f);
    reconnect(&f, DURABLE, DURABLE); /* The server crashed after ACCEPTED and came back without it. */
    must_send(&f, MSG_READY);
    assert_null(action_of(&f, SESSION_COMMIT));
    assert_null(action_of(&f, SESSION_DROP));
    assert_int_equal(must_send(&f, MSG_OFFER)->offer.round, OPEN);
    hears(&f, round_of(&f, OPEN));
    assert_null(action_of(&f, SESSION_TRAIN));
    hears(&f, (struct msg){.type = MSG_ACCEPTED, .accepted = {.round = OPEN}});
    hears(&f, round_end_of(OPEN, true, false));
    must(&f, SESSION_COMMIT);
    fixture_fini(&f);
}

static void test_welcome_settles_what_became_durable_meanwhile(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_delivered(&f);
    reconnect(&f, OPEN, OPEN);
    assert_int_equal(must(&f, SESSION_COMMIT)->round, OPEN);
    fixture_fini(&f);

    begin(&f);
    to_offering(&f);
    reconnect(&f, OPEN, DURABLE);
    assert_int_equal(must(&f, SESSION_DROP)->round, OPEN);
    hears(&f, round_of(&f, OPEN + 1));
    must_send(&f, MSG_FETCH);
    fixture_fini(&f);

    begin(&f); /* A state folder that was put back: the next round counted, this one may not have. */
    to_offering(&f);
    reconnect(&f, OPEN + 1, OPEN + 1);
    assert_int_equal(must(&f, SESSION_DROP)->round, OPEN);
    assert_null(action_of(&f, SESSION_COMMIT));
    fixture_fini(&f);
}

static void test_a_round_that_ends_without_us_drops_the_contribution(void **state)
{
    (void)state;
    void (*const way[])(struct fixture *) = {to_offering, to_uploading, to_delivered};
    for (int i = 0; i < 3; i++) {
        struct fixture f;
        begin(&f);
        way[i](&f);
        hears(&f, round_end_of(OPEN, false, false));
        assert_int_equal(must(&f, SESSION_DROP)->round, OPEN);
        assert_null(action_of(&f, SESSION_COMMIT));
        is_in(&f, "READY");
        happens(&f, SESSION_DRAINED); /* No chunk of it follows. */
        assert_int_equal(f.actions.count, 0);
        fixture_fini(&f);
    }
}

static void test_a_declined_contribution_is_dropped(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_uploading(&f);
    hears(&f,
          (struct msg){.type = MSG_DECLINED, .declined = {.round = OPEN, .reason = DECLINE_NORM, .text = "too long"}});
    assert_int_equal(must(&f, SESSION_DROP)->round, OPEN);
    is_in(&f, "READY");
    hears(&f, round_end_of(OPEN, false, false));
    assert_null(action_of(&f, SESSION_DROP));
    fixture_fini(&f);
}

/* The same inputs give the same bits: what was out of range would be so again. */
static void test_what_would_be_declined_again_is_not_trained_again(void **state)
{
    (void)state;
    static const uint32_t again[] = {DECLINE_RANGE, DECLINE_HASH};
    for (size_t i = 0; i < 2; i++) {
        struct fixture f;
        begin(&f);
        to_uploading(&f);
        hears(&f, (struct msg){.type = MSG_DECLINED,
                               .declined = {.round = OPEN, .reason = again[i], .text = "out of range"}});
        (void)must(&f, SESSION_DROP);
        hears(&f, round_of(&f, OPEN));
        is_in(&f, again[i] == DECLINE_RANGE ? "READY" : "FETCHING");
        if (again[i] == DECLINE_RANGE) { /* On a new connection it is: the site may have been repaired. */
            reconnect(&f, OPEN - 1, 0);
            hears(&f, round_of(&f, OPEN));
            is_in(&f, "FETCHING");
        }
        fixture_fini(&f);
    }
}

/* What an earlier process trained says nothing about this one, which may have been repaired. */
static void test_what_was_inherited_and_declined_is_trained_anew(void **state)
{
    (void)state;
    struct fixture f;
    fixture_plan(&f, 4);
    struct session_options options = fixture_options();
    options.pending = contribution_of(&f, OPEN);
    fixture_start(&f, &options);
    to_ready(&f);
    (void)must_send(&f, MSG_OFFER);
    hears(&f, (struct msg){.type = MSG_DECLINED,
                           .declined = {.round = OPEN, .reason = DECLINE_RANGE, .text = "out of range"}});
    assert_int_equal(must(&f, SESSION_DROP)->round, OPEN);
    (void)must(&f, SESSION_CLOSE);
    reconnect(&f, OPEN - 1, 0);
    hears(&f, round_of(&f, OPEN));
    is_in(&f, "FETCHING");
    fixture_fini(&f);
}

static void test_the_end_of_a_round_cancels_its_training_before_the_next_begins(void **state)
{
    (void)state;
    for (int failed = 0; failed < 2; failed++) {
        struct fixture f;
        begin(&f);
        to_training(&f);
        hears(&f, round_end_of(OPEN, false, false));
        assert_int_equal(must(&f, SESSION_CANCEL)->round, OPEN);
        hears(&f, round_of(&f, OPEN + 1));
        assert_null(sent(&f, MSG_FETCH)); /* The trainer is still at work. */
        assert_null(action_of(&f, SESSION_CANCEL));
        if (failed) {
            fails(&f, SESSION_WORK_FAILED, ERR_CANCELLED);
        } else {
            trained(&f, OPEN); /* It was faster than the cancellation. */
            assert_int_equal(must(&f, SESSION_DROP)->round, OPEN);
        }
        assert_int_equal(must_send(&f, MSG_FETCH)->fetch.round, OPEN + 1);
        assert_null(sent(&f, MSG_OFFER));
        fetch_all(&f);
        assert_int_equal(must(&f, SESSION_TRAIN)->round, OPEN + 1);
        fixture_fini(&f);
    }
}

static void test_a_round_that_ended_while_away_cancels_too(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_training(&f);
    reconnect(&f, OPEN, 0);
    must(&f, SESSION_CANCEL);
    fails(&f, SESSION_WORK_FAILED, ERR_CANCELLED);
    is_in(&f, "READY");
    hears(&f, round_of(&f, OPEN + 1));
    must_send(&f, MSG_FETCH);
    fixture_fini(&f);
}

static void test_the_same_round_is_not_begun_twice(void **state)
{
    (void)state;
    void (*const way[])(struct fixture *) = {to_fetching, to_training, to_offering, to_uploading, to_delivered};
    for (int i = 0; i < 5; i++) {
        struct fixture f;
        begin(&f);
        way[i](&f);
        hears(&f, round_of(&f, OPEN));
        assert_int_equal(f.actions.count, 0);
        fixture_fini(&f);
    }
}

static void test_a_next_round_before_the_end_of_ours_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_delivered(&f);
    hears(&f, round_of(&f, OPEN + 1));
    must_send(&f, MSG_BYE);
    assert_null(action_of(&f, SESSION_DROP)); /* It may have counted: the next WELCOME says. */
    happens(&f, SESSION_CLOSED);
    fixture_fini(&f);
}

static void test_uploads_go_chunk_by_chunk_and_resume(void **state)
{
    (void)state;
    struct fixture f;
    struct session_options options = fixture_options();
    begin_with(&f, 128, &options);
    uint64_t bytes = f.layout->total * sizeof(float);
    assert_true(bytes > FRAME_CHUNK_MAX && bytes < 2 * (uint64_t)FRAME_CHUNK_MAX);
    to_offering(&f);
    hears(&f, grant_of(BLOB_UPDATE, OPEN, 1000));
    const struct msg *chunk = must_send(&f, MSG_CHUNK);
    assert_int_equal(chunk->chunk.offset, 1000);
    assert_int_equal(chunk->raw_len, FRAME_CHUNK_MAX);
    assert_int_equal(f.actions.count, 1);
    happens(&f, SESSION_DRAINED);
    chunk = must_send(&f, MSG_CHUNK);
    assert_int_equal(chunk->chunk.offset, 1000 + FRAME_CHUNK_MAX);
    assert_int_equal(chunk->raw_len, bytes - 1000 - FRAME_CHUNK_MAX);
    happens(&f, SESSION_DRAINED);
    assert_int_equal(f.actions.count, 0);

    /* A slot that was taken away stops the stream; a new grant goes on anywhere. */
    hears(&f, grant_of(BLOB_UPDATE, OPEN, 0));
    hears(&f, (struct msg){.type = MSG_QUEUED, .queued = {.round = OPEN, .place = 1}});
    happens(&f, SESSION_DRAINED);
    assert_int_equal(f.actions.count, 0);
    hears(&f, grant_of(BLOB_UPDATE, OPEN, bytes - 4));
    assert_int_equal(must_send(&f, MSG_CHUNK)->raw_len, 4);
    hears(&f, grant_of(BLOB_UPDATE, OPEN, bytes));
    assert_int_equal(must_send(&f, MSG_BYE)->bye.code, -ERR_PROTOCOL);
    fixture_fini(&f);
}

static void test_what_was_saved_is_offered_after_a_restart(void **state)
{
    (void)state;
    struct fixture f;
    fixture_plan(&f, 4);
    struct session_options options = fixture_options();
    options.has_saved = true;
    options.saved_run = id(1);
    options.saved_plan = plan_hash(f.plan_bytes.data, f.plan_bytes.len);
    options.saved_round = DURABLE;
    options.pending = contribution_of(&f, OPEN);
    fixture_start(&f, &options);
    tick(&f);
    happens(&f, SESSION_CONNECTED);
    const struct msg_hello *hello = &must_send(&f, MSG_HELLO)->hello;
    assert_true(hello->has_saved);
    assert_int_equal(hello->saved_round, DURABLE);
    hears(&f, welcome_of(&f));
    must(&f, SESSION_PREPARE);
    happens(&f, SESSION_PREPARED);
    must_send(&f, MSG_OFFER);
    hears(&f, round_of(&f, OPEN));
    assert_int_equal(f.actions.count, 0);
    hears(&f, round_end_of(OPEN, true, false));
    must(&f, SESSION_COMMIT);
    /* The next HELLO knows it. */
    fails(&f, SESSION_CLOSED, ERR_TEMPFAIL);
    tick(&f);
    happens(&f, SESSION_CONNECTED);
    assert_int_equal(must_send(&f, MSG_HELLO)->hello.saved_round, OPEN);
    fixture_fini(&f);
}

/* Nothing is fetched that an older server offers all the same, and what an earlier choice had made ready stays here. */
static void test_a_site_that_withholds_its_features(void **state)
{
    (void)state;
    for (int inherited = 0; inherited < 2; inherited++) {
        struct fixture f;
        fixture_plan(&f, 4);
        struct session_options options = fixture_options();
        options.withholds = true;
        options.pending = inherited ? contribution_of(&f, OPEN) : NULL;
        fixture_start(&f, &options);
        to_ready(&f);
        assert_true(must_send(&f, MSG_READY)->ready.withholds_features);
        if (inherited) {
            assert_false(must_send(&f, MSG_OFFER)->offer.has_features);
            hears(&f, grant_of(BLOB_FEATURES, OPEN, 0));
            assert_int_equal(must_send(&f, MSG_BYE)->bye.code, -ERR_PROTOCOL);
        } else {
            hears(&f, round_of(&f, OPEN));
            assert_int_equal(must_send(&f, MSG_FETCH)->fetch.kind, BLOB_MODEL);
            hears(&f, chunk_of(&f, BLOB_MODEL, OPEN, 0));
            assert_null(must(&f, SESSION_TRAIN)->remote);
            assert_int_equal(must(&f, SESSION_TRAIN)->remote_rows, 0);
        }
        fixture_fini(&f);
    }
}

static void test_a_server_that_went_back_takes_the_round_it_opens(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_offering(&f);
    reconnect(&f, DURABLE - 1, 0);
    hears(&f, round_of(&f, OPEN - 1));
    must(&f, SESSION_DROP);
    must_send(&f, MSG_FETCH);
    fixture_fini(&f);
}

static void test_the_end_of_the_run(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_delivered(&f);
    hears(&f, round_end_of(OPEN, true, true));
    must(&f, SESSION_COMMIT);
    assert_int_equal(must_send(&f, MSG_BYE)->bye.code, 0);
    assert_int_equal(must(&f, SESSION_EXIT)->exit_code, 0);
    is_in(&f, "DONE");
    fixture_fini(&f);

    /* Told by WELCOME, to one who was away, or who never knew the run. */
    begin(&f);
    to_greeting(&f);
    struct msg msg = welcome_of(&f);
    msg.welcome.round = 5;
    hears(&f, msg);
    assert_int_equal(must(&f, SESSION_EXIT)->exit_code, 0);
    assert_null(action_of(&f, SESSION_PREPARE));
    fixture_fini(&f);

    struct session_options options = fixture_options();
    options.stay = true;
    begin_with(&f, 4, &options);
    to_delivered(&f);
    hears(&f, round_end_of(OPEN, true, true));
    assert_null(action_of(&f, SESSION_EXIT));
    is_in(&f, "READY");
    fixture_fini(&f);
}

static void test_failed_work(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_greeting(&f);
    hears(&f, welcome_of(&f));
    fails(&f, SESSION_WORK_FAILED, ERR_NOTFOUND); /* The folder is not there. */
    assert_int_equal(must(&f, SESSION_EXIT)->exit_code, 65);
    assert_string_equal(must(&f, SESSION_EXIT)->reason.text, "made to fail");
    fixture_fini(&f);

    begin(&f);
    to_training(&f);
    fails(&f, SESSION_WORK_FAILED, ERR_DATA);
    assert_int_equal(must(&f, SESSION_EXIT)->exit_code, 65);
    fixture_fini(&f);

    begin(&f);
    to_training(&f);
    fails(&f, SESSION_WORK_FAILED, ERR_FULL); /* There may be room again later. */
    assert_null(action_of(&f, SESSION_EXIT));
    must(&f, SESSION_CLOSE);
    happens(&f, SESSION_CLOSED);
    to_ready(&f);
    hears(&f, round_of(&f, OPEN));
    fetch_all(&f);
    must(&f, SESSION_TRAIN);
    fixture_fini(&f);
}

/* Each allocation of a whole round fails in turn: the step says so and everything can be freed. */
static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    bool through = false;
    uint64_t failed = 0;
    for (uint64_t n = 1; !through; n++) {
        struct fixture f;
        begin(&f);
        to_greeting(&f);
        session_actions_fini(&f.actions); /* so that the list's own growth is among them */
        struct msg welcome = welcome_of(&f), round = round_of(&f, OPEN), chunk = chunk_of(&f, BLOB_MODEL, OPEN, 0);
        const struct session_event script[] = {
            {.kind = SESSION_MESSAGE, .message = &welcome},
            {.kind = SESSION_PREPARED, .images = 5},
            {.kind = SESSION_MESSAGE, .message = &round},
            {.kind = SESSION_MESSAGE, .message = &chunk},
        };
        mem_fail_after(n);
        int rc = 0;
        for (size_t i = 0; i < sizeof script / sizeof script[0] && rc == 0; i++) {
            rc = session_step(f.session, &script[i], f.now_ms, &f.actions);
        }
        mem_fail_after(0);
        const struct session_action *quit = action_of(&f, SESSION_EXIT);
        assert_true(rc == 0 || rc == ERR_NOMEM);
        through = rc == 0 && !quit;
        failed += !through;
        if (quit) {
            assert_int_equal(quit->exit_code, 1);
        }
        msg_fini(&welcome);
        fixture_fini(&f);
    }
    assert_true(failed > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_round_from_hello_to_commit),
        cmocka_unit_test(test_a_broken_fetch_goes_on_where_it_was),
        cmocka_unit_test(test_another_model_under_the_same_round_is_fetched_anew),
        cmocka_unit_test(test_damaged_bytes_are_fetched_three_times_more),
        cmocka_unit_test(test_sizes_are_held_to_the_plan),
        cmocka_unit_test(test_chunks_that_do_not_follow_are_refused),
        cmocka_unit_test(test_training_outlasts_the_connection),
        cmocka_unit_test(test_trained_while_offline_is_offered_without_being_asked),
        cmocka_unit_test(test_trained_between_ready_and_round_is_offered_too),
        cmocka_unit_test(test_a_pending_contribution_is_offered_again_until_it_is_durable),
        cmocka_unit_test(test_welcome_settles_what_became_durable_meanwhile),
        cmocka_unit_test(test_a_round_that_ends_without_us_drops_the_contribution),
        cmocka_unit_test(test_a_declined_contribution_is_dropped),
        cmocka_unit_test(test_what_would_be_declined_again_is_not_trained_again),
        cmocka_unit_test(test_what_was_inherited_and_declined_is_trained_anew),
        cmocka_unit_test(test_the_end_of_a_round_cancels_its_training_before_the_next_begins),
        cmocka_unit_test(test_a_round_that_ended_while_away_cancels_too),
        cmocka_unit_test(test_the_same_round_is_not_begun_twice),
        cmocka_unit_test(test_a_next_round_before_the_end_of_ours_is_refused),
        cmocka_unit_test(test_uploads_go_chunk_by_chunk_and_resume),
        cmocka_unit_test(test_what_was_saved_is_offered_after_a_restart),
        cmocka_unit_test(test_a_site_that_withholds_its_features),
        cmocka_unit_test(test_a_server_that_went_back_takes_the_round_it_opens),
        cmocka_unit_test(test_the_end_of_the_run),
        cmocka_unit_test(test_failed_work),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
