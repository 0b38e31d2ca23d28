/* Addresses as texts, and listening. */
#include "common/net/address.h"
#include "tests/unit/common/net/net_world.h"

static void test_split(void **state)
{
    (void)state;
    static const struct {
        const char *address, *host, *port;
    } good[] = {
        {"127.0.0.1:7640", "127.0.0.1", "7640"},
        {"server.example:0", "server.example", "0"},
        {"[::1]:65535", "::1", "65535"},
        {"[fe80::1%eth0]:1", "fe80::1%eth0", "1"},
    };
    char host[256], port[8];
    struct err err;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(net_split_address(good[i].address, host, port, &err), 0);
        assert_string_equal(host, good[i].host);
        assert_string_equal(port, good[i].port);
    }
    static const char *const bad[] = {"",        "host",        ":80",      "host:",   "host:x", "host:65536",
                                      "host:-1", "host:123456", "::1:80",   "[::1]80", "[::1]:", "[]:80",
                                      "[::1:80", "host:80:81",  "host: 80", "[::1]"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(net_split_address(bad[i], host, port, &err), ERR_USAGE);
        assert_non_null(strstr(err.text, bad[i]));
    }
    char longest[300];
    memset(longest, 'h', sizeof longest);
    strcpy(longest + 255, ":80");
    assert_int_equal(net_split_address(longest, host, port, &err), 0);
    strcpy(longest + 255, "h:80");
    assert_int_equal(net_split_address(longest, host, port, &err), ERR_USAGE);
}

static void test_format(void **state)
{
    (void)state;
    char text[NET_ADDRESS_MAX];
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(7640), .sin_addr.s_addr = htonl(0x0a000102)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(1), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr other = {.sa_family = AF_UNIX};
    net_format_address((struct sockaddr *)&v4, text);
    assert_string_equal(text, "10.0.1.2:7640");
    net_format_address((struct sockaddr *)&v6, text);
    assert_string_equal(text, "[::1]:1"); /* as net_split_address reads it */
    net_format_address(&other, text);
    assert_string_equal(text, "?");
}

static void test_address_in_use(void **state)
{
    (void)state;
    struct world *world = world_new();
    struct listener second = {.on_connection = world_on_connection, .ctx = world};
    char bound[300];
    struct err err;
    assert_true(world->port > 0);
    assert_int_equal(listener_open(&world->loop, world->bound, &second, bound, &err), ERR_UNAVAILABLE);
    assert_non_null(strstr(err.text, world->bound));
    assert_non_null(strstr(err.text, "address already in use"));
    assert_int_equal(listener_open(&world->loop, "127.0.0.1", &second, bound, &err), ERR_USAGE);
    world_free(world); /* after a failure there is nothing to close */
}

static size_t listeners_closed;
static void count_closed(struct listener *listener)
{
    (void)listener;
    listeners_closed++;
}

static void test_listener_closes(void **state)
{
    (void)state;
    struct world *world = world_new();
    struct listener other = {.on_connection = world_on_connection, .ctx = world};
    char bound[300];
    assert_int_equal(listener_open(&world->loop, "127.0.0.1:0", &other, bound, NULL), 0);
    assert_string_not_equal(bound, world->bound);
    listener_close(&other, count_closed);
    assert_int_equal(listeners_closed, 0);
    world_run_until(world, &listeners_closed, 1);
    /* The port is free again. */
    assert_int_equal(listener_open(&world->loop, bound, &other, bound, NULL), 0);
    listener_close(&other, NULL);
    world_free(world);
}

/* ---- Many at once ---- */

enum { CROWD = 100 };

static struct crowd {
    struct world *world;
    int fd[CROWD];
    size_t taken, tried;
    uint64_t fail_after; /* of the allocations for the next connection */
} crowd;

static void crowd_open(void *ctx, struct conn *conn)
{
    (void)ctx;
    conn_close(conn, 0);
}

static void crowd_close(void *ctx, struct conn *conn, const struct err *reason)
{
    (void)ctx, (void)conn, (void)reason;
}

static bool crowd_on_connection(void *ctx, struct listener *listener)
{
    static const struct conn_events events = {.on_open = crowd_open, .on_close = crowd_close};
    struct conn_options options = {.events = &events, .limits = &all_limits, .decode_budget = 1 << 20};
    struct conn *conn;
    (void)ctx;
    crowd.tried++;
    mem_fail_after(crowd.fail_after);
    int rc = conn_accept((uv_stream_t *)&listener->tcp, &options, &conn, NULL);
    mem_fail_after(0);
    crowd.fail_after = 0;
    crowd.taken += rc == 0;
    return rc == 0;
}

static void crowd_comes(uint32_t count)
{
    crowd = (struct crowd){.world = world_new()};
    crowd.world->listener.on_connection = crowd_on_connection;
    for (uint32_t i = 0; i < count; i++) {
        crowd.fd[i] = raw_connect(crowd.world);
    }
}

static void crowd_goes(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        char end;
        assert_true(recv(crowd.fd[i], &end, 1, 0) <= 0); /* nobody is forgotten with an open connection */
        (void)close(crowd.fd[i]);
    }
}

/* However many wait, a turn of the loop takes few of them, and the next one more. */
static void test_a_turn_takes_few(void **state)
{
    (void)state;
    crowd_comes(CROWD);
    for (size_t turns = 0, before = 0; crowd.taken < CROWD; turns++, before = crowd.taken) {
        assert_true(turns < 10);
        (void)uv_run(&crowd.world->loop, UV_RUN_NOWAIT);
        assert_in_range(crowd.taken - before, turns < 3 ? LISTENER_TURN / 2 : 0, LISTENER_TURN);
    }
    world_free(crowd.world);
    crowd_goes(CROWD);
}

/* One at a time, more than a turn takes: none of them waits for the next one. */
static void test_one_after_the_other(void **state)
{
    (void)state;
    crowd_comes(0);
    for (size_t i = 0; i < CROWD; i++) {
        crowd.fd[i] = raw_connect(crowd.world);
        world_run_until(crowd.world, &crowd.taken, i + 1);
    }
    world_free(crowd.world);
    crowd_goes(CROWD);
}

/* The listener closes while one that it has accepted waits for its turn. */
static void test_closes_before_the_next_turn(void **state)
{
    (void)state;
    crowd_comes(CROWD);
    (void)uv_run(&crowd.world->loop, UV_RUN_NOWAIT);
    assert_true(crowd.taken < CROWD);
    world_free(crowd.world);
    crowd_goes(CROWD);
}

/* For want of memory one is not taken: it is later, and those behind it are. */
static void test_no_memory_for_a_connection(void **state)
{
    (void)state;
    crowd_comes(3);
    crowd.fail_after = 1;
    world_run_until(crowd.world, &crowd.taken, 3);
    assert_int_equal(crowd.tried, 4);
    world_free(crowd.world);
    crowd_goes(3);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_address_in_use),
        cmocka_unit_test(test_listener_closes),
        cmocka_unit_test(test_a_turn_takes_few),
        cmocka_unit_test(test_one_after_the_other),
        cmocka_unit_test(test_closes_before_the_next_turn),
        cmocka_unit_test(test_no_memory_for_a_connection),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
