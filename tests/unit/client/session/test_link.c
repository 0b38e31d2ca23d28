/* The connection's life: who may talk to whom, how long is waited, what a silence means. */
#include "tests/unit/client/session/fixture.h"

static void begin(struct fixture *f)
{
    fixture_plan(f, 4);
    struct session_options options = fixture_options();
    fixture_start(f, &options);
}

/* Connecting fails once more; how long the session then waits. */
static uint64_t wait_after(struct fixture *f, int code)
{
    tick(f);
    must(f, SESSION_CONNECT);
    fails(f, SESSION_CLOSED, code);
    return session_next_ms(f->session) - f->now_ms;
}

static uint64_t wait_after_failure(struct fixture *f)
{
    return wait_after(f, ERR_UNAVAILABLE);
}

static void test_back_off_doubles_up_to_half_the_idle_time_out(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    uint64_t base = 500;
    for (int i = 0; i < 40; i++) {
        uint64_t wait = wait_after_failure(&f);
        assert_true(wait >= base / 2 && wait <= base);
        base = base * 2 < 30000 ? base * 2 : 30000;
    }
    /* A good connection that breaks is tried again at once, and now the server's time-out rules. */
    to_ready(&f);
    fails(&f, SESSION_CLOSED, ERR_TEMPFAIL);
    assert_true(session_next_ms(f.session) - f.now_ms <= 500);
    uint64_t wait = 0;
    for (int i = 0; i < 10; i++) {
        wait = wait_after_failure(&f);
    }
    assert_true(wait >= IDLE_MS / 4 && wait <= IDLE_MS / 2);
    fixture_fini(&f);
}

static void test_jitter_comes_from_the_seed(void **state)
{
    (void)state;
    uint64_t waits[3][6];
    for (int run = 0; run < 3; run++) {
        struct fixture f;
        fixture_plan(&f, 4);
        struct session_options options = fixture_options();
        options.seed = run < 2 ? 1 : 2;
        fixture_start(&f, &options);
        for (int i = 0; i < 6; i++) {
            waits[run][i] = wait_after_failure(&f);
        }
        fixture_fini(&f);
    }
    assert_memory_equal(waits[0], waits[1], sizeof waits[0]);
    assert_memory_not_equal(waits[0], waits[2], sizeof waits[0]);
}

static void test_disagreements_wait_longer_each_time(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    uint64_t last = 0;
    for (int i = 0; i < 4; i++) {
        to_ready(&f);
        hears(&f, grant_of(BLOB_UPDATE, OPEN, 0)); /* never offered */
        must(&f, SESSION_CLOSE);
        assert_true(session_next_ms(f.session) == UINT64_MAX); /* CLOSED is awaited; no CONNECT before it */
        happens(&f, SESSION_CLOSED);
        uint64_t wait = session_next_ms(f.session) - f.now_ms;
        assert_true(wait >= 250u << i && wait <= 500u << i && wait > last / 2);
        last = wait;
    }
    fixture_fini(&f);
}

static void test_a_long_absence_does_not_fill_the_log(void **state)
{
    (void)state;
    struct fixture f;
    fixture_plan(&f, 4);
    struct log log = {.emit = fixture_log, .ctx = &f, .least = LOG_LEVEL_INFO};
    struct session_options options = fixture_options();
    options.log = &log;
    fixture_start(&f, &options);
    for (int i = 0; i < 1000; i++) {
        (void)wait_after_failure(&f);
    }
    assert_in_range(f.logged_levels[LOG_LEVEL_INFO], 2, 40);
    assert_non_null(strstr(f.last_fields, "waits_for="));
    fixture_fini(&f);
}

/* Once, after a few failures; not where there was a server before. */
static void test_an_address_without_a_server_is_told(void **state)
{
    (void)state;
    for (int reached = 0; reached < 2; reached++) {
        struct fixture f;
        fixture_plan(&f, 4);
        struct log log = {.emit = fixture_log, .ctx = &f, .least = LOG_LEVEL_WARN};
        struct session_options options = fixture_options();
        options.log = &log;
        fixture_start(&f, &options);
        if (reached) {
            to_ready(&f);
            fails(&f, SESSION_CLOSED, ERR_TEMPFAIL);
        }
        for (uint32_t i = 1; i <= 100; i++) {
            (void)wait_after_failure(&f);
            assert_int_equal(f.logged_levels[LOG_LEVEL_WARN], !reached && i >= 3);
        }
        if (!reached) {
            assert_string_equal(f.last_event, "server_unreachable");
            assert_non_null(strstr(f.last_fields, "attempts=3 reason=\"made to fail\" check=\""));
        }
        fixture_fini(&f);
    }
}

/* Who hears that firewalls may be in the way must not have been answered by the server. */
static void test_a_server_without_a_place_is_not_unreachable(void **state)
{
    (void)state;
    static const int codes[] = {ERR_TEMPFAIL, ERR_PROTOCOL};
    for (size_t i = 0; i < 2; i++) {
        struct fixture f;
        fixture_plan(&f, 4);
        struct log log = {.emit = fixture_log, .ctx = &f, .least = LOG_LEVEL_WARN};
        struct session_options options = fixture_options();
        options.log = &log;
        fixture_start(&f, &options);
        for (uint32_t attempt = 1; attempt <= 10; attempt++) {
            (void)wait_after(&f, codes[i]);
            assert_int_equal(f.logged_levels[LOG_LEVEL_WARN], i == 0 && attempt >= 3);
        }
        if (i == 0) {
            assert_string_equal(f.last_event, "turned_away");
            assert_null(strstr(f.last_fields, "firewall"));
        }
        fixture_fini(&f);
    }
}

static void test_heartbeats_in_every_state_after_welcome(void **state)
{
    (void)state;
    void (*const way[])(struct fixture *) = {to_ready,    to_fetching,  to_training,
                                             to_offering, to_uploading, to_delivered};
    for (int i = -1; i < 6; i++) {
        struct fixture f;
        begin(&f);
        if (i < 0) {
            to_greeting(&f);
            hears(&f, welcome_of(&f)); /* PREPARING */
        } else {
            way[i](&f);
        }
        const char *where = session_state(f.session);
        step(&f, &(struct session_event){.kind = SESSION_PROGRESS, .step = 3, .steps = 12, .loss = 2.5});
        for (int beat = 0; beat < 8; beat++) {
            uint64_t before = f.now_ms;
            tick(&f);
            assert_true(f.now_ms - before <= IDLE_MS / 4);
            const struct msg_progress *progress = &must_send(&f, MSG_PROGRESS)->progress;
            bool training = strcmp(where, "TRAINING") == 0;
            assert_int_equal(progress->round, training ? OPEN : 0);
            assert_int_equal(progress->step, training ? 3 : 0);
            hears(&f, (struct msg){.type = MSG_ALIVE});
        }
        is_in(&f, where);
        fixture_fini(&f);
    }
}

static void test_a_silent_server_is_left(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_ready(&f);
    uint64_t since = f.now_ms;
    while (!action_of(&f, SESSION_CLOSE)) {
        tick(&f);
        assert_true(f.now_ms - since <= IDLE_MS);
    }
    assert_int_equal(f.now_ms - since, IDLE_MS);
    happens(&f, SESSION_CLOSED);
    tick(&f);
    must(&f, SESSION_CONNECT);
    fixture_fini(&f);

    /* Neither does a socket that never opens, nor a server that never greets. */
    for (int greeting = 0; greeting < 2; greeting++) {
        begin(&f);
        tick(&f);
        if (greeting) {
            happens(&f, SESSION_CONNECTED);
        }
        tick(&f);
        must(&f, SESSION_CLOSE);
        fixture_fini(&f);
    }
}

/* A chunk of 1 MiB may take longer than the time-out on a thin line; what counts is that bytes come. */
static void test_bytes_of_a_long_message_are_no_silence(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_fetching(&f);
    for (uint64_t end = f.now_ms + 4 * IDLE_MS; f.now_ms < end;) {
        happens(&f, SESSION_HEARD);
        tick(&f);
        assert_null(action_of(&f, SESSION_CLOSE));
    }
    while (!action_of(&f, SESSION_CLOSE)) {
        tick(&f);
    }
    fixture_fini(&f);
}

static void test_a_stall_of_our_own_is_not_the_servers_silence(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_training(&f);
    f.now_ms += 20 * IDLE_MS; /* SIGSTOP ... SIGCONT, and the timer comes first */
    happens(&f, SESSION_PROGRESS);
    happens(&f, SESSION_TICK);
    assert_null(action_of(&f, SESSION_CLOSE));
    hears(&f, (struct msg){.type = MSG_ALIVE}); /* It was in the socket all the time. */
    tick(&f);
    assert_null(action_of(&f, SESSION_CLOSE));
    is_in(&f, "TRAINING");

    f.now_ms += 20 * IDLE_MS; /* This time nothing was there. */
    happens(&f, SESSION_TICK);
    uint64_t since = f.now_ms;
    while (!action_of(&f, SESSION_CLOSE)) {
        tick(&f);
    }
    assert_true(f.now_ms - since <= IDLE_MS / 2);
    fixture_fini(&f);
}

/* A client that waits for others for hours once said nothing in all that time. */
static void test_a_long_wait_is_told_ever_less_often(void **state)
{
    (void)state;
    struct fixture f;
    const struct log log = {.emit = fixture_log, .ctx = &f, .least = LOG_LEVEL_DEBUG};
    fixture_plan(&f, 4);
    struct session_options options = fixture_options();
    options.log = &log;
    fixture_start(&f, &options);
    to_ready(&f);
    struct msg alive = {.type = MSG_ALIVE, .alive.waits_for = "2 more clients, 1 of 3 are ready: a"};
    uint32_t before = f.logged_levels[LOG_LEVEL_INFO], told = 0;
    for (uint64_t end = f.now_ms + 4 * IDLE_MS; f.now_ms < end; f.now_ms += IDLE_MS / 4) {
        hears(&f, alive);
    }
    told = f.logged_levels[LOG_LEVEL_INFO] - before;
    assert_int_equal(told, 2); /* after one time-out and after three */
    assert_string_equal(f.last_event, "still_waiting");
    assert_string_equal(f.last_fields, "state=READY seconds=24 for=\"2 more clients, 1 of 3 are ready: a\"");
    for (uint64_t end = f.now_ms + UINT64_C(24) * 3600 * 1000; f.now_ms < end; f.now_ms += IDLE_MS / 4) {
        hears(&f, alive);
    }
    told = f.logged_levels[LOG_LEVEL_INFO] - before;
    assert_true(told >= 24 && told <= 48);
    hears(&f, round_of(&f, OPEN));
    fetch_all(&f);
    must(&f, SESSION_TRAIN); /* and who works says nothing of it */
    before = f.logged_levels[LOG_LEVEL_INFO];
    for (int i = 0; i < 100; i++, f.now_ms += IDLE_MS / 4) {
        hears(&f, alive);
    }
    assert_int_equal(f.logged_levels[LOG_LEVEL_INFO], before);
    fixture_fini(&f);
}

static void test_rejections(void **state)
{
    (void)state;
    static const struct {
        uint32_t code;
        int exit_code;
    } never[] = {{REJECT_VERSION, 76}, {REJECT_RUN, 76},  {REJECT_PLAN, 76},        {REJECT_LAYOUT, 76},
                 {REJECT_ROLE, 69},    {REJECT_FULL, 69}, {REJECT_NAME_IN_USE, 69}, {99, 69}};
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        struct fixture f;
        begin(&f);
        to_greeting(&f);
        struct msg msg = {.type = MSG_REJECT,
                          .reject = {.code = never[i].code, .text = "because", .minor_least = 3, .minor_most = 4}};
        hears(&f, msg);
        const struct session_action *quit = must(&f, SESSION_EXIT);
        assert_int_equal(quit->exit_code, never[i].exit_code);
        assert_non_null(strstr(quit->reason.text, "because"));
        if (never[i].code == REJECT_VERSION) {
            assert_non_null(strstr(quit->reason.text, "1.3 to 1.4"));
            assert_non_null(strstr(quit->reason.text, "1.1 to 1.1"));
        }
        fixture_fini(&f);
    }
    struct fixture f;
    begin(&f);
    to_greeting(&f);
    hears(&f,
          (struct msg){.type = MSG_REJECT,
                       .reject = {.code = REJECT_NAME_IN_USE, .text = "taken", .retry = true, .retry_after_ms = 9000}});
    assert_null(action_of(&f, SESSION_EXIT));
    happens(&f, SESSION_CLOSED);
    assert_true(session_next_ms(f.session) >= f.now_ms + 9000);
    to_ready(&f);
    fixture_fini(&f);
}

static int exit_after(struct fixture *f, struct msg msg)
{
    to_greeting(f);
    hears(f, msg);
    return must(f, SESSION_EXIT)->exit_code;
}

static void test_servers_we_do_not_belong_to(void **state)
{
    (void)state;
    struct fixture f;
    /* Another minor version. */
    begin(&f);
    struct msg msg = welcome_of(&f);
    msg.welcome.minor = 2;
    assert_int_equal(exit_after(&f, msg), 76);
    assert_non_null(strstr(must(&f, SESSION_EXIT)->reason.text, "1.2"));
    assert_non_null(strstr(must(&f, SESSION_EXIT)->reason.text, "1.1 to 1.1"));
    fixture_fini(&f);

    /* Another major version: the frame decoder says so. Once, it may be damage on the way. */
    begin(&f);
    to_greeting(&f);
    fails(&f, SESSION_CLOSED, ERR_VERSION);
    assert_null(action_of(&f, SESSION_EXIT));
    to_greeting(&f);
    fails(&f, SESSION_CLOSED, ERR_IO); /* something else between: it begins anew */
    to_greeting(&f);
    fails(&f, SESSION_CLOSED, ERR_VERSION);
    assert_null(action_of(&f, SESSION_EXIT));
    to_greeting(&f);
    fails(&f, SESSION_CLOSED, ERR_VERSION);
    assert_int_equal(must(&f, SESSION_EXIT)->exit_code, 76);
    fixture_fini(&f);

    /* A plan with a key from the future. */
    begin(&f);
    assert_int_equal(buf_append(&f.plan_bytes, "hue: 3\n", 7), 0);
    assert_int_equal(exit_after(&f, welcome_of(&f)), 76);
    assert_non_null(strstr(must(&f, SESSION_EXIT)->reason.text, "hue"));
    assert_null(action_of(&f, SESSION_PREPARE));
    fixture_fini(&f);
}

static void test_another_run_or_plan_names_both(void **state)
{
    (void)state;
    for (int saved = 0; saved < 2; saved++) {
        for (int plan = 0; plan < 2; plan++) {
            struct fixture f;
            fixture_plan(&f, 4);
            struct session_options options = fixture_options();
            struct hash128 hash = plan_hash(f.plan_bytes.data, f.plan_bytes.len);
            if (saved) {
                options.has_saved = true;
                options.saved_run = id(1);
                options.saved_plan = hash;
            }
            fixture_start(&f, &options);
            if (!saved) {
                to_ready(&f);
                fails(&f, SESSION_CLOSED, ERR_TEMPFAIL);
            }
            char ours[HASH_HEX], theirs[HASH_HEX];
            struct hash128 run = id(1), other = id(0x55);
            (void)hash_hex(plan ? &hash : &run, ours);
            if (plan) {
                assert_int_equal(buf_append(&f.plan_bytes, "\n", 1), 0);
                other = plan_hash(f.plan_bytes.data, f.plan_bytes.len);
            }
            struct msg msg = welcome_of(&f);
            msg.welcome.run = plan ? run : other;
            assert_int_equal(exit_after(&f, msg), 76);
            (void)hash_hex(&other, theirs);
            assert_non_null(strstr(must(&f, SESSION_EXIT)->reason.text, ours));
            assert_non_null(strstr(must(&f, SESSION_EXIT)->reason.text, theirs));
            fixture_fini(&f);
        }
    }
}

static void test_a_plan_that_is_not_what_its_hash_says(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_greeting(&f);
    struct msg msg = welcome_of(&f);
    msg.welcome.plan[3] ^= 1;
    hears(&f, msg);
    assert_null(action_of(&f, SESSION_PREPARE));
    assert_null(action_of(&f, SESSION_EXIT)); /* damage, not a decision: try again */
    must(&f, SESSION_CLOSE);
    fixture_fini(&f);
}

static void test_prepare_is_asked_for_once(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    to_greeting(&f);
    hears(&f, welcome_of(&f));
    must(&f, SESSION_PREPARE);
    reconnect(&f, DURABLE, 0); /* while the shell still scans the folder */
    is_in(&f, "PREPARING");
    assert_null(action_of(&f, SESSION_PREPARE));
    fails(&f, SESSION_CLOSED, ERR_TEMPFAIL);
    happens(&f, SESSION_PREPARED); /* while offline */
    assert_null(sent(&f, MSG_READY));
    to_greeting(&f);
    hears(&f, welcome_of(&f));
    assert_null(action_of(&f, SESSION_PREPARE));
    assert_int_equal(must_send(&f, MSG_READY)->ready.images, 100);
    fixture_fini(&f);
}

static void test_names_are_checked(void **state)
{
    (void)state;
    struct session_options options = fixture_options();
    struct session *session;
    (void)snprintf(options.name, sizeof options.name, "a b");
    assert_int_equal(session_new(&options, 0, &session, NULL), ERR_USAGE);
    assert_null(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_back_off_doubles_up_to_half_the_idle_time_out),
        cmocka_unit_test(test_jitter_comes_from_the_seed),
        cmocka_unit_test(test_disagreements_wait_longer_each_time),
        cmocka_unit_test(test_a_long_absence_does_not_fill_the_log),
        cmocka_unit_test(test_an_address_without_a_server_is_told),
        cmocka_unit_test(test_a_server_without_a_place_is_not_unreachable),
        cmocka_unit_test(test_heartbeats_in_every_state_after_welcome),
        cmocka_unit_test(test_a_silent_server_is_left),
        cmocka_unit_test(test_bytes_of_a_long_message_are_no_silence),
        cmocka_unit_test(test_a_stall_of_our_own_is_not_the_servers_silence),
        cmocka_unit_test(test_a_long_wait_is_told_ever_less_often),
        cmocka_unit_test(test_rejections),
        cmocka_unit_test(test_servers_we_do_not_belong_to),
        cmocka_unit_test(test_another_run_or_plan_names_both),
        cmocka_unit_test(test_a_plan_that_is_not_what_its_hash_says),
        cmocka_unit_test(test_prepare_is_asked_for_once),
        cmocka_unit_test(test_names_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
