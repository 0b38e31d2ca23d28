/* The whole cross product of states and messages: each pair has one defined answer. The expectations are written out
 * here by hand, from PROTOCOL.md's table, and not taken from the session. */
#include "tests/unit/client/session/fixture.h"

#define BAD  "x" /* BYE with a protocol error, CLOSE; a reconnect follows */
#define DEAF "-" /* nothing at all */

enum { COLUMNS = MSG_TYPE_END - 1 };

static const struct {
    const char *state;
    const char *next[COLUMNS];
} table[] = {
    /* clang-format off */
    /* HELLO WELCOME REJECT READY ROUND FETCH CHUNK PROGRESS ALIVE OFFER GRANT QUEUED ACCEPTED DECLINED ROUND_END BYE STATUS STATUS_REPLY AGGREGATE EVALUATED ENROL CERTIFICATE */
    {"OFFLINE", {DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF}},
    {"CONNECTING", {DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF}},
    {"GREETING", {BAD, "PREPARING", "OFFLINE", BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, "OFFLINE", BAD, BAD, BAD, BAD, BAD, BAD}},
    {"PREPARING", {BAD, BAD, "OFFLINE", BAD, BAD, BAD, BAD, BAD, "PREPARING", BAD, BAD, BAD, BAD, BAD, "PREPARING", "OFFLINE", BAD, BAD, BAD, BAD, BAD, BAD}},
    {"READY", {BAD, BAD, "OFFLINE", BAD, "FETCHING", BAD, BAD, BAD, "READY", BAD, BAD, BAD, BAD, BAD, "READY", "OFFLINE", BAD, BAD, BAD, BAD, BAD, BAD}},
    {"FETCHING", {BAD, BAD, "OFFLINE", BAD, "FETCHING", BAD, "FETCHING", BAD, "FETCHING", BAD, BAD, BAD, BAD, BAD, "READY", "OFFLINE", BAD, BAD, BAD, BAD, BAD, BAD}},
    {"TRAINING", {BAD, BAD, "OFFLINE", BAD, "TRAINING", BAD, BAD, BAD, "TRAINING", BAD, BAD, BAD, BAD, BAD, "READY", "OFFLINE", BAD, BAD, BAD, BAD, BAD, BAD}},
    {"OFFERING", {BAD, BAD, "OFFLINE", BAD, "OFFERING", BAD, BAD, BAD, "OFFERING", BAD, "UPLOADING", "OFFERING", "DELIVERED", "READY", "READY", "OFFLINE", BAD, BAD, BAD, BAD, BAD, BAD}},
    {"UPLOADING", {BAD, BAD, "OFFLINE", BAD, "UPLOADING", BAD, BAD, BAD, "UPLOADING", BAD, "UPLOADING", "OFFERING", "DELIVERED", "READY", "READY", "OFFLINE", BAD, BAD, BAD, BAD, BAD, BAD}},
    {"DELIVERED", {BAD, BAD, "OFFLINE", BAD, "DELIVERED", BAD, BAD, BAD, "DELIVERED", BAD, BAD, BAD, BAD, BAD, "READY", "OFFLINE", BAD, BAD, BAD, BAD, BAD, BAD}},
    {"DONE", {DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF, DEAF}},
    /* clang-format on */
};
enum { STATES = sizeof table / sizeof table[0] };

static void to_state(struct fixture *f, const char *name)
{
    void (*const way[])(struct fixture *) = {to_greeting, to_ready,     to_fetching, to_training,
                                             to_offering, to_uploading, to_delivered};
    const char *const end[] = {"GREETING", "READY", "FETCHING", "TRAINING", "OFFERING", "UPLOADING", "DELIVERED"};
    for (size_t i = 0; i < sizeof end / sizeof end[0]; i++) {
        if (strcmp(end[i], name) == 0) {
            way[i](f);
        }
    }
    if (strcmp(name, "CONNECTING") == 0) {
        tick(f);
    } else if (strcmp(name, "PREPARING") == 0) {
        to_greeting(f);
        hears(f, welcome_of(f));
    } else if (strcmp(name, "DONE") == 0) {
        happens(f, SESSION_STOP);
    }
    is_in(f, name);
}

/* A message that would be in order, were it awaited. */
static struct msg sample(const struct fixture *f, uint8_t type, uint32_t round)
{
    struct msg msg = {.type = type};
    switch (type) {
    case MSG_WELCOME:
        return welcome_of(f);
    case MSG_REJECT:
        msg.reject = (struct msg_reject){.code = REJECT_STOPPING, .text = "going down", .retry = true};
        return msg;
    case MSG_ROUND:
        return round_of(f, round);
    case MSG_CHUNK:
        return chunk_of(f, BLOB_MODEL, round, 0);
    case MSG_ALIVE:
        msg.alive = (struct msg_alive){.round = round, .remaining_ms = 100};
        return msg;
    case MSG_GRANT:
        return grant_of(BLOB_UPDATE, round, 0);
    case MSG_QUEUED:
        msg.queued = (struct msg_queued){.round = round, .place = 1};
        return msg;
    case MSG_ACCEPTED:
        msg.accepted.round = round;
        return msg;
    case MSG_DECLINED:
        msg.declined = (struct msg_declined){.round = round, .reason = DECLINE_NORM, .text = "too long"};
        return msg;
    case MSG_ROUND_END:
        return round_end_of(round, false, false);
    default:
        return msg;
    }
}

static struct fixture *begin(const char *state)
{
    struct fixture *f = mem_new(1, sizeof *f);
    fixture_plan(f, 4);
    struct session_options options = fixture_options();
    fixture_start(f, &options);
    to_state(f, state);
    return f;
}

static void end(struct fixture *f)
{
    fixture_fini(f);
    mem_free(f);
}

static void test_every_pair_has_its_answer(void **state)
{
    (void)state;
    for (size_t s = 0; s < STATES; s++) {
        for (uint8_t type = MSG_HELLO; type < MSG_TYPE_END; type++) {
            const char *want = table[s].next[type - 1];
            struct fixture *f = begin(table[s].state);
            hears(f, sample(f, type, OPEN));
            bool bad = strcmp(want, BAD) == 0, deaf = strcmp(want, DEAF) == 0;
            const char *next = bad ? "OFFLINE" : deaf ? table[s].state : want;
            if (strcmp(session_state(f->session), next) != 0) {
                fail_msg("%s in %s leads to %s, not %s", msg_type_name(type), table[s].state, session_state(f->session),
                         next);
            }
            if (deaf) {
                assert_int_equal(f->actions.count, 0);
            }
            const struct msg *bye = sent(f, MSG_BYE);
            assert_int_equal(bye && bye->bye.code == (uint32_t)-ERR_PROTOCOL, bad);
            if (bad) {
                must(f, SESSION_CLOSE);
                happens(f, SESSION_CLOSED);
                tick(f);
                must(f, SESSION_CONNECT);
            }
            end(f);
        }
    }
}

/* Answers about a round that has ended have crossed our own messages: they are no error in any state after WELCOME, and
 * change nothing. */
static void test_stale_answers_change_nothing(void **state)
{
    (void)state;
    const uint8_t types[] = {MSG_CHUNK, MSG_GRANT, MSG_QUEUED, MSG_ACCEPTED, MSG_DECLINED, MSG_ROUND_END};
    for (size_t s = 0; s < STATES; s++) {
        const char *name = table[s].state;
        if (strcmp(name, "GREETING") == 0) {
            continue;
        }
        for (size_t t = 0; t < sizeof types; t++) {
            struct fixture *f = begin(name);
            hears(f, sample(f, types[t], DURABLE));
            is_in(f, name);
            assert_int_equal(f->actions.count, 0);
            end(f);
        }
    }
}

static void test_limits_let_through_what_the_table_expects(void **state)
{
    (void)state;
    for (size_t s = 0; s < STATES; s++) {
        struct fixture *f = begin(table[s].state);
        for (uint8_t type = MSG_HELLO; type < MSG_TYPE_END; type++) {
            const char *want = table[s].next[type - 1];
            uint32_t most = session_limits(f->session)->most[type];
            if (strcmp(want, BAD) != 0 && strcmp(want, DEAF) != 0) {
                assert_int_equal(most, msg_limits_client.most[type]);
            }
            if (type == MSG_STATUS_REPLY) {
                assert_int_equal(most, 0);
            }
            if (type == MSG_CHUNK && strcmp(table[s].state, "GREETING") == 0) {
                assert_int_equal(most, 0); /* Who has not said WELCOME gets no megabyte. */
            }
        }
        end(f);
    }
}

static void test_stop_says_goodbye_in_every_state(void **state)
{
    (void)state;
    for (size_t s = 0; s < STATES; s++) {
        const char *name = table[s].state;
        struct fixture *f = begin(name);
        happens(f, SESSION_STOP);
        is_in(f, "DONE");
        if (strcmp(name, "DONE") != 0) {
            assert_int_equal(must(f, SESSION_EXIT)->exit_code, 0);
        }
        bool connected = strcmp(name, "OFFLINE") != 0 && strcmp(name, "CONNECTING") != 0 && strcmp(name, "DONE") != 0;
        assert_int_equal(sent(f, MSG_BYE) != NULL, connected);
        assert_int_equal(action_of(f, SESSION_CANCEL) != NULL, strcmp(name, "TRAINING") == 0);
        assert_true(session_next_ms(f->session) == UINT64_MAX);
        end(f);
    }
}

static void test_a_lost_connection_is_tried_again_from_every_state(void **state)
{
    (void)state;
    for (size_t s = 1; s + 1 < STATES; s++) {
        struct fixture *f = begin(table[s].state);
        fails(f, SESSION_CLOSED, ERR_TEMPFAIL);
        is_in(f, "OFFLINE");
        tick(f);
        must(f, SESSION_CONNECT);
        end(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_pair_has_its_answer),
        cmocka_unit_test(test_stale_answers_change_nothing),
        cmocka_unit_test(test_limits_let_through_what_the_table_expects),
        cmocka_unit_test(test_stop_says_goodbye_in_every_state),
        cmocka_unit_test(test_a_lost_connection_is_tried_again_from_every_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
