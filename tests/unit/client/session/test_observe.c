/* An observer's conversation: each newest model once, what was found told when it can be, the last model before the
 * end; and a server that takes it for a trainer is left. */
#include "tests/unit/client/session/fixture.h"

static struct fixture f;

static int set_up(void **state)
{
    (void)state;
    fixture_plan(&f, 4);
    struct session_options options = fixture_options();
    options.role = ROLE_OBSERVER;
    fixture_start(&f, &options);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fixture_fini(&f);
    return 0;
}

/* Each round has another model. */
static struct msg aggregate_of(uint32_t round)
{
    f.model[0] = (float)round;
    struct msg msg = {.type = MSG_AGGREGATE};
    msg.aggregate.round = round;
    msg.aggregate.model = blob_of(&f, BLOB_MODEL, round + 1, f.model, f.layout->total);
    return msg;
}

static void found(double knn)
{
    step(&f, &(struct session_event){.kind = SESSION_EVALUATED, .knn_top1 = knn});
}

static void round_ends(uint32_t round)
{
    hears(&f, round_end_of(round, false, round == f.plan.rounds));
}

/* READY, and the server's AGGREGATE of the last durable round is whole. */
static void to_evaluating(void)
{
    to_ready(&f);
    assert_int_equal(must_send(&f, MSG_READY)->ready.images, 100);
    hears(&f, aggregate_of(DURABLE));
    assert_int_equal(must_send(&f, MSG_FETCH)->fetch.round, DURABLE + 1);
    fetch_all(&f);
    is_in(&f, "EVALUATING");
    const struct session_action *evaluate = must(&f, SESSION_EVALUATE);
    assert_int_equal(evaluate->round, DURABLE);
    assert_memory_equal(evaluate->model, f.model, f.layout->total * sizeof(float));
}

static void told(uint32_t round, double knn)
{
    const struct msg_evaluated *evaluated = &must_send(&f, MSG_EVALUATED)->evaluated;
    assert_int_equal(evaluated->round, round);
    assert_true(evaluated->knn_top1 >= knn && evaluated->knn_top1 <= knn);
    assert_int_equal(evaluated->images, 100);
}

static void a_model_is_evaluated_and_told(void **state)
{
    (void)state;
    to_evaluating();
    found(0.75);
    told(DURABLE, 0.75);
    is_in(&f, "READY");
}

static void short_rounds_are_skipped(void **state)
{
    (void)state;
    to_evaluating();
    for (uint32_t round = DURABLE + 1; round <= DURABLE + 2; round++) {
        round_ends(round);
        hears(&f, aggregate_of(round));
        is_in(&f, "EVALUATING");
        assert_null(sent(&f, MSG_FETCH)); /* one at a time */
    }
    found(0.5);
    told(DURABLE, 0.5);
    assert_int_equal(must_send(&f, MSG_FETCH)->fetch.round, DURABLE + 3);
    fetch_all(&f);
    assert_int_equal(must(&f, SESSION_EVALUATE)->round, DURABLE + 2);
}

static void a_newer_model_replaces_one_that_is_being_fetched(void **state)
{
    (void)state;
    to_ready(&f);
    hears(&f, aggregate_of(DURABLE));
    is_in(&f, "FETCHING");
    round_ends(DURABLE + 1);
    hears(&f, aggregate_of(DURABLE + 1));
    fetch_all(&f);
    assert_int_equal(must(&f, SESSION_EVALUATE)->round, DURABLE + 1);
}

static void an_evaluation_outlasts_the_connection(void **state)
{
    (void)state;
    to_evaluating();
    fails(&f, SESSION_CLOSED, ERR_TEMPFAIL);
    found(0.25);
    assert_null(sent(&f, MSG_EVALUATED));
    to_greeting(&f);
    hears(&f, welcome_of(&f));
    must_send(&f, MSG_READY);
    hears(&f, aggregate_of(DURABLE)); /* the server asks again; what is known is not computed twice */
    assert_null(action_of(&f, SESSION_EVALUATE));
    assert_null(sent(&f, MSG_FETCH));
    told(DURABLE, 0.25);
}

static void what_a_restored_server_does_not_know_is_not_told(void **state)
{
    (void)state;
    to_evaluating();
    reconnect(&f, DURABLE - 1, 0);
    is_in(&f, "READY");
    found(0.25);
    assert_null(sent(&f, MSG_EVALUATED));
    is_in(&f, "READY");
}

static void the_last_model_is_evaluated_before_the_end(void **state)
{
    (void)state;
    to_ready(&f);
    hears(&f, round_end_of(5, false, true));
    assert_null(action_of(&f, SESSION_EXIT));
    hears(&f, aggregate_of(5));
    fetch_all(&f);
    must(&f, SESSION_EVALUATE);
    found(1);
    told(5, 1);
    assert_int_equal(must(&f, SESSION_EXIT)->exit_code, 0);
}

static void a_server_that_is_wrong_is_left(void **state)
{
    (void)state;
    struct msg wrong[5];
    to_ready(&f);
    wrong[0] = round_of(&f, OPEN);
    wrong[1] = aggregate_of(DURABLE + 1); /* not durable */
    wrong[2] = aggregate_of(DURABLE);
    wrong[2].aggregate.model.layout.bytes[0] ^= 1;
    wrong[3] = aggregate_of(DURABLE);
    wrong[3].aggregate.model.count--;
    wrong[4] = aggregate_of(DURABLE);
    wrong[4].aggregate.model.round = DURABLE;
    for (size_t i = 0; i < 5; i++) {
        hears(&f, wrong[i]);
        assert_int_equal(must_send(&f, MSG_BYE)->bye.code, -ERR_PROTOCOL);
        is_in(&f, "OFFLINE");
        happens(&f, SESSION_CLOSED);
        to_greeting(&f);
        hears(&f, welcome_of(&f));
    }
}

static void folders_that_cannot_be_used_end_it(void **state)
{
    (void)state;
    to_greeting(&f);
    hears(&f, welcome_of(&f));
    must(&f, SESSION_PREPARE);
    fails(&f, SESSION_WORK_FAILED, ERR_DATA);
    assert_int_equal(must(&f, SESSION_EXIT)->exit_code, 65);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_model_is_evaluated_and_told),
        TEST(short_rounds_are_skipped),
        TEST(a_newer_model_replaces_one_that_is_being_fetched),
        TEST(an_evaluation_outlasts_the_connection),
        TEST(what_a_restored_server_does_not_know_is_not_told),
        TEST(the_last_model_is_evaluated_before_the_end),
        TEST(a_server_that_is_wrong_is_left),
        TEST(folders_that_cannot_be_used_end_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
