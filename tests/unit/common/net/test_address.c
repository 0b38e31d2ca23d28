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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_address_in_use),
        cmocka_unit_test(test_listener_closes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
