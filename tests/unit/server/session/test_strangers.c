/* Connections before WELCOME: how many there may be, who makes way for whom, and what the clock says. */
#include "server/session/state.h"
#include "tests/unit/server/session/world.h"

static struct world w;
static struct site sites[SITES];

static int setup(void **state)
{
    (void)state;
    world_init(&w);
    w.options.strangers_max = 6;
    w.options.strangers_per_address = 3;
    w.options.handshakes_max = 4;
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

/* As the shell does: false when it was refused; *instead is closed at once. */
static bool come(uint32_t peer, const char *address, uint32_t *instead)
{
    *instead = NONE;
    if (coordinator_admit(w.c, address, w.now, instead)) {
        return false;
    }
    w.peers[peer] = (struct connection){.open = true};
    world_step(&w, (struct event){.kind = EVENT_PEER_OPENED, .peer = peer, .address = address});
    if (*instead != NONE) {
        lose(&w, *instead);
    }
    return true;
}

static void addresses_are_told_apart(void **state)
{
    (void)state;
    static const char *const same[][2] = {
        {"10.1.2.3:1", "10.1.2.3:65535"},
        {"10.1.2.3:1", "[::ffff:10.1.2.3]:5"},
        {"[2001:db8:1:2::1]:5", "[2001:db8:1:2:ffff:ffff:ffff:ffff]:9"},
        {"[fe80::1%eth0]:5", "[fe80::2%eth0]:5"},
        {"?", ""},
    };
    static const char *const other[][2] = {
        {"10.1.2.3:1", "10.1.2.4:1"},
        {"10.1.2.3:1", "[::ffff:10.1.2.4]:1"},
        {"[2001:db8:1:2::1]:5", "[2001:db8:1:3::1]:5"},
        {"127.0.0.1:1", "[::1]:1"},
        {"10.1.2.3:1", "?"},
    };
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        assert_int_equal(address_group(same[i][0]), address_group(same[i][1]));
        assert_int_not_equal(address_group(other[i][0]), address_group(other[i][1]));
    }
}

/* Those who sit there keep a newcomer out for idle_timeout / 60, and then make way, the first of them first; and only
 * those of the same address. */
static void an_address_has_few_places(void **state)
{
    (void)state;
    uint32_t instead;
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(come(i, "10.0.0.1:1", &instead));
        assert_int_equal(instead, NONE);
    }
    assert_false(come(3, "10.0.0.1:2", &instead));
    assert_true(come(3, "10.0.0.2:1", &instead));
    assert_int_equal(instead, NONE);
    advance(&w, IDLE_MS / 60 - 1);
    assert_false(come(4, "10.0.0.1:2", &instead));
    advance(&w, 1);
    assert_true(come(4, "10.0.0.1:2", &instead));
    assert_int_equal(instead, 0);
    assert_true(come(5, "10.0.0.1:3", &instead));
    assert_int_equal(instead, 1);
    assert_true(w.peers[3].open && w.peers[2].open);
}

static void all_addresses_together_have_not_many(void **state)
{
    (void)state;
    uint32_t instead;
    char address[32];
    for (uint32_t i = 0; i < 6; i++) {
        (void)snprintf(address, sizeof address, "10.0.0.%u:1", i);
        assert_true(come(i, address, &instead));
    }
    assert_false(come(6, "10.0.9.9:1", &instead));
    assert_true(logged(&w, "connection_refused address=10.0.9.9:1"));
    advance(&w, IDLE_MS / 60);
    assert_true(come(6, "10.0.9.9:1", &instead));
    assert_int_equal(instead, 0);
}

/* Refused from 5,000 addresses, 200 a second: the log has of them what it would have of one. */
static void a_crowd_fills_no_log(void **state)
{
    (void)state;
    uint32_t instead, refused = 0, lines = 0;
    uint64_t begin = w.now;
    char address[32];
    for (uint32_t i = 0; i < 5000; i++) {
        (void)snprintf(address, sizeof address, "10.1.%u.%u:1", i / 250, i % 250);
        refused += !come(i % PEERS, address, &instead);
        w.now += 5;
    }
    assert_int_equal(w.c->strangers.told.refused, refused);
    assert_true(logged(&w, "connection_refused address=10.1."));
    for (const char *at = (const char *)w.lines.data; (at = strstr(at, "connection_refused ")) != NULL; at++) {
        lines++;
    }
    assert_true(refused > 3000);
    assert_in_range(lines, LOG_LIMIT_EACH, LOG_LIMIT_EACH + (w.now - begin) / 1000 + 1);
}

/* Whoever comes from an address that has few finds a place at once while another has more: the latest of that makes
 * way, down to as many as the newcomer's has. */
static void the_crowd_makes_way_for_the_single(void **state)
{
    (void)state;
    uint32_t instead;
    for (uint32_t i = 0; i < 6; i++) {
        assert_true(come(i, i < 3 ? "10.0.0.1:1" : "10.0.0.2:1", &instead));
    }
    assert_true(come(6, "10.0.0.3:1", &instead));
    assert_true(instead == 2 || instead == 5);
    assert_true(come(7, "10.0.0.4:1", &instead));
    assert_true(instead == 2 || instead == 5);
    assert_false(come(8, "10.0.0.3:1", &instead)); /* the others have two each, and so would it */
    assert_true(come(8, "10.0.0.5:1", &instead));
    assert_true(instead == 1 || instead == 4);
    assert_int_equal(w.c->strangers.count, 6);
}

/* Who says HELLO needs no such place any more, who is turned away keeps it for as long as it lingers. */
static void a_welcome_makes_room(void **state)
{
    (void)state;
    uint32_t instead;
    for (uint32_t i = 0; i < 8; i++) {
        assert_true(come(i, "10.0.0.1:1", &instead));
        assert_int_equal(instead, NONE);
        sites[i].peer = i;
        say(&w, i, hello_of(&sites[i]));
        struct msg welcome = hear(&w, i, MSG_WELCOME);
        msg_fini(&welcome);
    }
    assert_int_equal(w.c->sessions, 8);
    assert_int_equal(w.c->strangers.count, 0);
    lose(&w, 3);
    assert_int_equal(w.c->sessions, 7);
}

/* The clock runs from the accept: what comes meanwhile does not stop it. */
static void many_wait_by_one_clock(void **state)
{
    (void)state;
    uint32_t instead;
    assert_true(come(0, "10.0.0.1:1", &instead));
    advance(&w, 100);
    assert_true(come(1, "10.0.0.1:1", &instead));
    assert_true(come(2, "10.0.0.1:1", &instead));
    lose(&w, 1);
    assert_int_equal(coordinator_next_ms(w.c), w.now - 100 + IDLE_MS / 6);
    advance(&w, IDLE_MS / 6 - 100);
    assert_false(w.peers[0].open);
    assert_int_equal(hear(&w, 0, MSG_BYE).bye.code, -ERR_TEMPFAIL);
    assert_true(w.peers[2].open);
    advance(&w, 100);
    assert_false(w.peers[2].open);
    assert_int_equal(w.c->strangers.count, 0);
    assert_int_equal(w.c->strangers.told.silent, 2);
}

/* Half-open connections beyond max_clients take nobody's place. */
static void strangers_take_no_members_place(void **state)
{
    (void)state;
    uint32_t instead;
    world_fini(&w);
    world_init(&w);
    w.options.strangers_max = w.options.strangers_per_address = 40;
    w.options.sessions_max = 2;
    world_start(&w);
    for (uint32_t i = 10; i < 40; i++) {
        assert_true(come(i, "10.0.0.1:1", &instead));
    }
    (void)greet(&w, &sites[0]);
    (void)greet(&w, &sites[1]);
    assert_int_equal(w.c->strangers.count, 30);
}

/* ---- Handshakes of TLS ---- */

static void begin_with(uint32_t strangers, uint32_t handshakes)
{
    world_fini(&w);
    world_init(&w);
    w.options.strangers_max = w.options.strangers_per_address = strangers;
    w.options.handshakes_max = handshakes;
    world_start(&w);
}

/* Comes and says its first bytes; whether its handshake begins at once. */
static bool knock(uint32_t peer, const char *address)
{
    uint32_t instead;
    assert_true(come(peer, address, &instead));
    assert_int_equal(instead, NONE);
    world_step(&w, (struct event){.kind = EVENT_PEER_KNOCKED, .peer = peer});
    return w.peers[peer].shaking;
}

/* The silent have no place, and keep none from anybody. */
static void few_shake_hands_at_a_time(void **state)
{
    (void)state;
    uint32_t instead;
    begin_with(40, 4);
    assert_true(come(30, "10.0.0.1:1", &instead));
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(knock(i, "10.0.0.1:1"), i < 4);
    }
    world_step(&w, (struct event){.kind = EVENT_PEER_KNOCKED, .peer = 7}); /* again means nothing */
    assert_int_equal(w.c->strangers.knocking, 4);
    lose(&w, 6);
    lose(&w, 1);
    assert_true(w.peers[7].shaking); /* the latest */
    assert_false(w.peers[4].shaking || w.peers[5].shaking);
    const struct peer_identity identity = {"a", ROLE_TRAINER};
    world_step(&w, (struct event){.kind = EVENT_PEER_IDENTIFIED, .peer = 0, .identity = &identity});
    assert_true(w.peers[5].shaking && w.peers[0].open); /* who is known needs no place, and is a stranger still */
    assert_int_equal(w.c->strangers.shaking_count, 4);
    assert_int_equal(w.c->strangers.count, 7);
    assert_int_equal(w.c->strangers.told.made_way, 0);
}

/* Whoever stops in the middle keeps others out for half a second, idle_timeout being short; the first to have begun
 * makes way first, and the clock says so by itself. */
static void half_a_handshake_makes_way(void **state)
{
    (void)state;
    char address[32];
    begin_with(40, 4);
    for (uint32_t i = 0; i < 6; i++) {
        (void)snprintf(address, sizeof address, "10.0.0.%u:1", i);
        assert_int_equal(knock(i, address), i < 4);
        advance(&w, 10);
    }
    assert_int_equal(coordinator_next_ms(w.c), w.now - 60 + HANDSHAKE_LEAST_MS);
    advance(&w, HANDSHAKE_LEAST_MS - 61);
    assert_true(w.peers[0].open && !w.peers[5].shaking);
    advance(&w, 1);
    assert_true(!w.peers[0].open && w.peers[5].shaking && !w.peers[4].shaking);
    assert_true(w.peers[1].open);
    advance(&w, 10);
    assert_true(!w.peers[1].open && w.peers[4].shaking);
    assert_true(w.peers[2].open && w.peers[3].open);
    assert_int_equal(w.c->strangers.told.made_way, 2);
    assert_int_equal(w.c->strangers.count, 4);
}

/* A crowd of one address waits for itself: who comes from another one begins at once, and is not put out for it. */
static void a_crowd_keeps_nobody_from_shaking_hands(void **state)
{
    (void)state;
    begin_with(40, 4);
    for (uint32_t i = 0; i < 8; i++) {
        (void)knock(i, "10.0.0.1:1");
    }
    assert_true(knock(8, "10.0.0.2:1"));
    assert_false(w.peers[0].open);
    assert_true(knock(9, "10.0.0.3:1"));
    assert_false(knock(10, "10.0.0.2:1")); /* that would only turn it round */
    assert_int_equal(w.c->strangers.told.made_way, 2);
    assert_true(w.peers[8].open && w.peers[9].open);
    advance(&w, HANDSHAKE_LEAST_MS);
    assert_true(w.peers[10].shaking && w.peers[9].open); /* the crowd's make way, for each other too */
    assert_int_equal(w.c->strangers.shaking_count, 4);
}

/* Nor does a crowd that came in between, and waits in front of it. */
static void a_crowd_in_front_keeps_nobody_from_shaking_hands(void **state)
{
    (void)state;
    uint32_t instead;
    begin_with(40, 4);
    for (uint32_t i = 0; i < 4; i++) {
        (void)knock(i, "10.0.0.1:1");
    }
    assert_true(come(8, "10.0.0.2:1", &instead));
    assert_false(knock(9, "10.0.0.1:1"));
    world_step(&w, (struct event){.kind = EVENT_PEER_KNOCKED, .peer = 8});
    assert_true(w.peers[8].shaking && !w.peers[0].open);
    assert_false(w.peers[9].shaking);
    assert_int_equal(w.c->strangers.knocking, 1);
    assert_int_equal(w.c->strangers.told.made_way, 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(addresses_are_told_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(an_address_has_few_places, setup, teardown),
        cmocka_unit_test_setup_teardown(all_addresses_together_have_not_many, setup, teardown),
        cmocka_unit_test_setup_teardown(a_crowd_fills_no_log, setup, teardown),
        cmocka_unit_test_setup_teardown(the_crowd_makes_way_for_the_single, setup, teardown),
        cmocka_unit_test_setup_teardown(a_welcome_makes_room, setup, teardown),
        cmocka_unit_test_setup_teardown(many_wait_by_one_clock, setup, teardown),
        cmocka_unit_test_setup_teardown(strangers_take_no_members_place, setup, teardown),
        cmocka_unit_test_setup_teardown(few_shake_hands_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(half_a_handshake_makes_way, setup, teardown),
        cmocka_unit_test_setup_teardown(a_crowd_keeps_nobody_from_shaking_hands, setup, teardown),
        cmocka_unit_test_setup_teardown(a_crowd_in_front_keeps_nobody_from_shaking_hands, setup, teardown),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
