/* Who is let in, who is turned away and with which words, and what each state may say. */
#include "tests/unit/server/session/world.h"

static struct world w;
static struct site sites[SITES];

static int set_up(void **state)
{
    (void)state;
    world_init(&w);
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

static struct msg greet_and_be_rejected(struct msg hello, enum reject_code code)
{
    open_peer(&w, 9);
    say(&w, 9, hello);
    return hear_reject(&w, 9, code);
}

static void versions_must_overlap(void **state)
{
    (void)state;
    struct msg hello = hello_of(&sites[0]);
    hello.hello.minor_least = PROTOCOL_MINOR_MOST + 1;
    hello.hello.minor_most = PROTOCOL_MINOR_MOST + 4;
    struct msg reject = greet_and_be_rejected(hello, REJECT_VERSION);
    assert_false(reject.reject.retry);
    assert_int_equal(reject.reject.minor_least, PROTOCOL_MINOR_LEAST);
    assert_int_equal(reject.reject.minor_most, PROTOCOL_MINOR_MOST);
    assert_string_equal(reject.reject.text, "the client speaks protocol 1.2 to 1.5, the server 1.1 to 1.1");
    assert_true(logged(&w, "reason=\"the client speaks protocol 1.2 to 1.5, the server 1.1 to 1.1\""));

    hello = hello_of(&sites[0]);
    hello.hello.major = FRAME_VERSION + 1;
    (void)greet_and_be_rejected(hello, REJECT_VERSION);

    hello = hello_of(&sites[0]); /* A newer client that still speaks ours. */
    hello.hello.minor_most = PROTOCOL_MINOR_MOST + 7;
    hello.hello.capabilities = UINT64_MAX;
    open_peer(&w, 9);
    say(&w, 9, hello);
    struct msg welcome = hear(&w, 9, MSG_WELCOME);
    assert_int_equal(welcome.welcome.minor, PROTOCOL_MINOR_MOST);
    assert_int_equal(welcome.welcome.capabilities, CAPABILITIES_OURS);
    msg_fini(&welcome);
}

static void names_have_rules(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "a b", "caf\xc3\xa9", "../etc", "a\nb", "x\x1b[31m", "\"quoted\""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct msg hello = hello_of(&sites[0]);
        (void)snprintf(hello.hello.name, sizeof hello.hello.name, "%s", bad[i]);
        (void)greet_and_be_rejected(hello, REJECT_PROTOCOL);
    }
    struct msg hello = hello_of(&sites[0]);
    memset(hello.hello.name, 'x', NAME_MAX_BYTES - 1);
    open_peer(&w, 9);
    say(&w, 9, hello);
    struct msg welcome = hear(&w, 9, MSG_WELCOME);
    msg_fini(&welcome);
}

static void roles(void **state)
{
    (void)state;
    struct msg hello = hello_of(&sites[0]);
    hello.hello.role = 0;
    (void)greet_and_be_rejected(hello, REJECT_ROLE);
    hello.hello.role = 77;
    struct msg reject = greet_and_be_rejected(hello, REJECT_ROLE);
    assert_string_equal(reject.reject.text, "role 77 is not served by this version");

    hello.hello.role = ROLE_OPERATOR; /* Needs no name, and is no member. */
    hello.hello.name[0] = '\0';
    open_peer(&w, 9);
    assert_ptr_equal(coordinator_limits(w.c, 9), &msg_limits_server_new);
    say(&w, 9, hello);
    struct msg welcome = hear(&w, 9, MSG_WELCOME);
    msg_fini(&welcome);
    assert_ptr_equal(coordinator_limits(w.c, 9), &msg_limits_server_operator);
    say(&w, 9, ready_of(&w));
    (void)hear_fault(&w, 9);
    (void)greet(&w, &sites[0]);
    assert_ptr_equal(coordinator_limits(w.c, 0), &msg_limits_server_trainer);
    assert_ptr_equal(coordinator_limits(w.c, 50), &msg_limits_server_new); /* nobody */
}

/* With TLS a certificate says who it is; whoever says something else is told what the certificate is for. */
static void certificates_are_for_one_name_and_role(void **state)
{
    (void)state;
    static const struct {
        uint32_t has, says;
        const char *name, *told;
    } rows[] = {
        {ROLE_TRAINER, ROLE_OPERATOR, "", "is for the trainer site-0, and the status is for operators"},
        {ROLE_OBSERVER, ROLE_OPERATOR, "site-0", "is for the observer site-0, and the status is for operators"},
        {ROLE_OPERATOR, ROLE_TRAINER, "",
         "is for the operator site-0, and the client says that it is the trainer "
         "without a name"},
        {ROLE_TRAINER, ROLE_TRAINER, "site-1",
         "is for the trainer site-0, and the client says that it is the trainer "
         "site-1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct msg hello = hello_of(&sites[0]);
        hello.hello.role = rows[i].says;
        (void)snprintf(hello.hello.name, sizeof hello.hello.name, "%s", rows[i].name);
        open_peer(&w, 9);
        world_step(&w, (struct event){.kind = EVENT_PEER_IDENTIFIED,
                                      .peer = 9,
                                      .identity = &(struct peer_identity){"site-0", rows[i].has}});
        say(&w, 9, hello);
        struct msg reject = hear_reject(&w, 9, REJECT_ACCESS);
        if (!strstr(reject.reject.text, rows[i].told)) {
            fail_msg("%s", reject.reject.text);
        }
        assert_true(logged(&w, "client_rejected name=site-0 address="));
        w.lines.len = 0;
    }
}

/* The log names whoever has said a name; there is no key without a value. */
static void refusals_name_who_is_refused(void **state)
{
    (void)state;
    struct msg hello = hello_of(&sites[0]);
    hello.hello.role = 77;
    (void)greet_and_be_rejected(hello, REJECT_ROLE);
    assert_true(logged(&w, "client_rejected name=site-0 address="));
    hello.hello.name[0] = '\0';
    (void)greet_and_be_rejected(hello, REJECT_ROLE);
    assert_true(logged(&w, "client_rejected address="));
    assert_false(logged(&w, "name= "));
}

static void another_run_or_plan_is_refused_naming_both(void **state)
{
    (void)state;
    struct msg hello = hello_of(&sites[0]);
    char theirs[HASH_HEX], ours[HASH_HEX];
    hello.hello.has_saved = true;
    hello.hello.saved_run = hash_of("other", 5);
    hello.hello.saved_plan = plan_hash(w.plan_bytes.data, w.plan_bytes.len);
    struct msg reject = greet_and_be_rejected(hello, REJECT_RUN);
    assert_non_null(strstr(reject.reject.text, hash_hex(&hello.hello.saved_run, theirs)));
    assert_non_null(strstr(reject.reject.text, hash_hex(&w.disk.run, ours)));

    hello.hello.saved_plan = hash_of("other", 5);
    hello.hello.saved_run = w.disk.run;
    reject = greet_and_be_rejected(hello, REJECT_PLAN);
    struct hash128 plan = plan_hash(w.plan_bytes.data, w.plan_bytes.len);
    assert_non_null(strstr(reject.reject.text, hash_hex(&hello.hello.saved_plan, theirs)));
    assert_non_null(strstr(reject.reject.text, hash_hex(&plan, ours)));

    hello.hello.saved_plan = plan; /* A client that is ahead: the server is the truth, and says so in the log. */
    hello.hello.saved_round = 5;
    open_peer(&w, 9);
    say(&w, 9, hello);
    struct msg welcome = hear(&w, 9, MSG_WELCOME);
    assert_int_equal(welcome.welcome.round, 0);
    msg_fini(&welcome);
    assert_true(logged(&w, "client_ahead name=site-0 client_round=5 round=0"));
}

static void another_layout_is_refused_naming_both(void **state)
{
    (void)state;
    char theirs[HASH_HEX], ours[HASH_HEX];
    (void)greet(&w, &sites[0]);
    struct msg ready = ready_of(&w);
    ready.ready.layout = hash_of("other", 5);
    say(&w, 0, ready);
    struct msg reject = hear_reject(&w, 0, REJECT_LAYOUT);
    assert_non_null(strstr(reject.reject.text, hash_hex(&ready.ready.layout, theirs)));
    assert_non_null(strstr(reject.reject.text, hash_hex(&w.layout->fingerprint, ours)));

    (void)greet(&w, &sites[0]);
    ready = ready_of(&w);
    ready.ready.images = 0;
    say(&w, 0, ready);
    (void)hear_fault(&w, 0);
}

static void one_name_one_client(void **state)
{
    (void)state;
    join(&w, &sites[0]);
    struct msg hello = hello_of(&sites[0]);
    hello.hello.instance = hash_of("a twin", 6);
    struct msg reject = greet_and_be_rejected(hello, REJECT_NAME_IN_USE);
    assert_true(reject.reject.retry);
    assert_true(reject.reject.retry_after_ms > 0);
    assert_true(w.peers[0].open); /* The first is left in peace. */

    /* The same instance again: a connection that died unseen, and its successor. */
    sites[0].peer = 10;
    join(&w, &sites[0]);
    assert_false(w.peers[0].open);
    assert_int_equal(hear(&w, 0, MSG_BYE).bye.code, -ERR_STATE);
    assert_true(w.peers[10].open);
    struct msg keep;
    struct msg_status_reply status = status_of(&w, &keep);
    assert_int_equal(status.clients_count, 1);
    assert_string_equal(status.clients[0].state, "READY");
    msg_fini(&keep);

    /* When the first is gone, the name is free for another instance. */
    lose(&w, 10);
    open_peer(&w, 9);
    say(&w, 9, hello);
    struct msg welcome = hear(&w, 9, MSG_WELCOME);
    msg_fini(&welcome);
}

/* Two machines with copies of one state folder. A client that came back once or twice is not one of them. */
static void copies_of_one_state_are_told(void **state)
{
    (void)state;
    join(&w, &sites[0]);
    for (uint32_t i = 1; i <= 3; i++) { /* now and then */
        advance(&w, IDLE_MS);
        sites[0].peer = 10 + i;
        join(&w, &sites[0]);
    }
    assert_false(logged(&w, "state_shared"));
    for (uint32_t i = 1; i <= 2; i++) { /* the third was the first of these */
        sites[0].peer = 20 + i;
        join(&w, &sites[0]);
    }
    assert_false(logged(&w, "state_shared"));
    sites[0].peer = 30;
    join(&w, &sites[0]);
    assert_true(logged(&w, "state_shared name=site-0 times=4 first="));
}

/* A replacement in the midst of a round: it stays a participant, and is invited again. */
static void a_replaced_participant_goes_on(void **state)
{
    (void)state;
    for (uint32_t s = 0; s < 3; s++) {
        join(&w, &sites[s]);
    }
    (void)hear(&w, 0, MSG_ROUND);
    sites[0].peer = 20;
    join(&w, &sites[0]);
    deliver(&w, &sites[0]);
    deliver(&w, &sites[1]);
    deliver(&w, &sites[2]);
    assert_int_equal(hear(&w, 20, MSG_ROUND_END).round_end.accepted, 3);
}

static void a_full_server_says_so(void **state)
{
    (void)state;
    world_fini(&w);
    world_init(&w);
    w.options.sessions_max = 2;
    world_start(&w);
    (void)greet(&w, &sites[0]);
    (void)greet(&w, &sites[1]);
    open_peer(&w, 2);
    say(&w, 2, hello_of(&sites[2]));
    struct msg reject = hear_reject(&w, 2, REJECT_FULL);
    assert_true(reject.reject.retry);
    sites[1].peer = 3; /* who comes anew takes its own place */
    (void)greet(&w, &sites[1]);
    assert_false(w.peers[1].open);
    lose(&w, 0);
    (void)greet(&w, &sites[2]); /* Room again. */
}

static void silence_is_not_waited_for(void **state)
{
    (void)state;
    open_peer(&w, 0);
    assert_int_equal(coordinator_next_ms(w.c), w.now + IDLE_MS / 6);
    advance(&w, IDLE_MS / 6 - 1);
    assert_true(w.peers[0].open);
    advance(&w, 1);
    assert_false(w.peers[0].open);
    (void)hear(&w, 0, MSG_BYE);
    assert_int_equal(coordinator_next_ms(w.c), w.now - IDLE_MS / 6 + IDLE_MS); /* to say what it waits for, no more */
}

/* ---- States ---- */

static struct msg sample_of(uint8_t type)
{
    struct msg msg = {.type = type};
    if (type == MSG_HELLO) {
        return hello_of(&sites[1]);
    }
    if (type == MSG_READY) {
        return ready_of(&w);
    }
    if (type == MSG_FETCH) {
        msg.fetch = (struct msg_fetch){BLOB_MODEL, 1, 0};
    }
    if (type == MSG_OFFER) {
        return sites[0].offer;
    }
    if (type == MSG_CHUNK) {
        msg.chunk = (struct msg_chunk){BLOB_UPDATE, 1, 0};
        msg.raw = (const uint8_t *)sites[0].update;
        msg.raw_len = 4;
    }
    return msg;
}

#define BIT(type) (1u << (type))

/* Every type in every state: what is out of place is answered REJECT or BYE, and closes. */
static void what_is_out_of_place_closes(void **state)
{
    (void)state;
    static const struct {
        const char *state;
        uint32_t allowed;
    } states[] = {
        {"NEW", BIT(MSG_HELLO) | BIT(MSG_BYE)},
        {"OPERATOR", BIT(MSG_STATUS) | BIT(MSG_BYE)},
        {"GREETED", BIT(MSG_READY) | BIT(MSG_PROGRESS) | BIT(MSG_BYE)},
        {"READY", BIT(MSG_FETCH) | BIT(MSG_CHUNK) | BIT(MSG_PROGRESS) | BIT(MSG_OFFER) | BIT(MSG_BYE)},
    };
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        for (uint8_t type = 0; type < MSG_TYPE_END; type++) {
            tear_down(NULL);
            (void)set_up(NULL);
            train(&w, &sites[0], 1);
            struct msg msg = sample_of(type);
            open_peer(&w, 0);
            if (i > 0) {
                struct msg hello = hello_of(&sites[0]);
                hello.hello.role = i == 1 ? ROLE_OPERATOR : ROLE_TRAINER;
                say(&w, 0, hello);
                struct msg welcome = hear(&w, 0, MSG_WELCOME);
                msg_fini(&welcome);
            }
            if (i == 3) {
                say(&w, 0, ready_of(&w));
            }
            say(&w, 0, msg);
            if (states[i].allowed & BIT(type)) {
                assert_int_equal(w.peers[0].open, type != MSG_BYE);
            } else {
                struct msg answer = i == 0 ? hear_reject(&w, 0, REJECT_PROTOCOL) : hear_fault(&w, 0);
                assert_non_null(strstr(i == 0 ? answer.reject.text : answer.bye.text, states[i].state));
            }
        }
    }
}

static void goodbyes_are_heard(void **state)
{
    (void)state;
    join(&w, &sites[0]);
    struct msg bye = {.type = MSG_BYE};
    (void)snprintf(bye.bye.text, sizeof bye.bye.text, "asked \"to\" stop");
    say(&w, 0, bye);
    assert_false(w.peers[0].open);
    assert_true(logged(&w, "client_left name=site-0 address=127.0.0.1:5555 reason=\"asked 'to' stop\""));
    lose(&w, (open_peer(&w, 0), 0)); /* The number is free again. */
    say(&w, 40, bye);                /* Nobody: ignored. */
    world_step(&w, (struct event){.kind = EVENT_PEER_DRAINED, .peer = 41});
    world_step(&w, (struct event){.kind = EVENT_PEER_CLOSED, .peer = 42});
}

static void progress_is_checked(void **state)
{
    (void)state;
    join(&w, &sites[0]);
    say(&w, 0, (struct msg){.type = MSG_PROGRESS}); /* idle */
    say(&w, 0, (struct msg){.type = MSG_PROGRESS, .progress = {1, 3, 8, 0.5, 100}});
    struct msg keep;
    struct msg_status_reply status = status_of(&w, &keep);
    assert_int_equal(status.clients[0].step, 3);
    assert_int_equal(status.clients[0].steps, 8);
    assert_true(status.clients[0].loss == 0.5);
    assert_true(status.clients[0].images_per_second == 100);
    msg_fini(&keep);
    say(&w, 0, (struct msg){.type = MSG_PROGRESS, .progress = {1, 9, 8, 0.5, 100}});
    (void)hear_fault(&w, 0);
}

static void options_are_checked(void **state)
{
    (void)state;
    struct coordinator *c;
    struct err err;
    struct coordinator_options options = w.options;
    options.upload_slots = 0;
    assert_int_equal(coordinator_new(&options, &w.disk, NULL, 0, 0, &c, &err), ERR_CONFIG);
    assert_null(c);
    options = w.options;
    struct checkpoint damaged = w.disk;
    uint8_t junk[30] = {0};
    damaged.bank = junk;
    damaged.bank_len = sizeof junk;
    assert_int_equal(coordinator_new(&options, &damaged, NULL, 0, 0, &c, &err), ERR_DATA);
    assert_null(c);
    assert_non_null(strstr(err.text, "feature bank"));
    coordinator_free(NULL);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(versions_must_overlap),
        TEST(names_have_rules),
        TEST(roles),
        TEST(certificates_are_for_one_name_and_role),
        TEST(refusals_name_who_is_refused),
        TEST(another_run_or_plan_is_refused_naming_both),
        TEST(another_layout_is_refused_naming_both),
        TEST(one_name_one_client),
        TEST(copies_of_one_state_are_told),
        TEST(a_replaced_participant_goes_on),
        TEST(a_full_server_says_so),
        TEST(silence_is_not_waited_for),
        TEST(what_is_out_of_place_closes),
        TEST(goodbyes_are_heard),
        TEST(progress_is_checked),
        TEST(options_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
