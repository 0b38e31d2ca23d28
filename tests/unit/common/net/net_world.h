/* A loop with a listener, connections of ours on it, and plain sockets for peers that misbehave. Nothing sleeps: the
 * loop runs until what is awaited has happened, or a guard fails the test. */
#ifndef STARLING_TESTS_NET_WORLD_H
#define STARLING_TESTS_NET_WORLD_H

#include "common/net/conn.h"
#include "tests/support/msg_samples.h"
#include "tests/support/tls_world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define GUARD_MS 20000

/* One end of a connection and what has happened to it. */
struct side {
    struct conn *conn; /* NULL after on_close */
    size_t opened, closed, drained, messages;
    struct msg last; /* without what it pointed to */
    struct err reason;
    void (*react)(struct side *side, const struct msg *msg);
    void (*react_drained)(struct side *side);
    size_t raw_bytes;
};

struct world {
    uv_loop_t loop;
    uv_timer_t guard;
    struct listener listener;
    char bound[300];
    uint16_t port;
    struct side server, client;
    struct conn_options server_options, client_options;
};

static struct frame_limits all_limits;

/* Tests of connections between two ends of ours run a second time with this on: then both speak TLS. */
static bool world_speaks_tls;
static struct tls_world world_trust;

static inline int world_tls_on(void **state)
{
    (void)state;
    tls_world_init(&world_trust);
    world_speaks_tls = true;
    return 0;
}

static inline int world_tls_off(void **state)
{
    (void)state;
    tls_world_fini(&world_trust);
    world_speaks_tls = false;
    return 0;
}

#define over_tls(test)                                                                                                 \
    {                                                                                                                  \
#test " over TLS", test, world_tls_on, world_tls_off, NULL                                                     \
    }

static void side_open(void *ctx, struct conn *conn)
{
    struct side *side = ctx;
    side->conn = conn;
    side->opened++;
}

static void side_message(void *ctx, struct conn *conn, const struct msg *msg)
{
    struct side *side = ctx;
    assert_ptr_equal(conn, side->conn);
    side->messages++;
    side->last = *msg;
    side->raw_bytes += msg->raw_len;
    if (side->react) {
        side->react(side, msg);
    }
}

static void side_drained(void *ctx, struct conn *conn)
{
    struct side *side = ctx;
    assert_int_equal(conn_queued_bytes(conn), 0);
    side->drained++;
    if (side->react_drained) {
        side->react_drained(side);
    }
}

static void side_close(void *ctx, struct conn *conn, const struct err *reason)
{
    struct side *side = ctx;
    assert_true(side->conn == NULL || side->conn == conn);
    side->conn = NULL;
    side->closed++;
    side->reason = *reason;
}

static const struct conn_events side_events = {side_open, side_message, side_drained, side_close};

static bool world_on_connection(void *ctx, struct listener *listener)
{
    struct world *world = ctx;
    struct conn *conn;
    assert_int_equal(conn_accept((uv_stream_t *)&listener->tcp, &world->server_options, &conn, NULL), 0);
    return true;
}

static void world_guard(uv_timer_t *timer)
{
    (void)timer;
    fail_msg("what was awaited has not happened");
}

static struct world *world_new(void)
{
    struct world *world = calloc(1, sizeof *world);
    struct err err = {0};
    (void)signal(SIGPIPE, SIG_IGN); /* as the programs do */
    for (int type = 1; type < MSG_TYPE_END; type++) {
        all_limits.most[type] = FRAME_CHUNK_MAX + FRAME_CHUNK_PROTO_MAX;
    }
    struct conn_options options = {.events = &side_events,
                                   .limits = &all_limits,
                                   .idle_timeout_ms = 60000,
                                   .connect_timeout_ms = 10000,
                                   .queue_max_bytes = 256 << 20,
                                   .decode_budget = 1 << 20};
    world->server_options = world->client_options = options;
    world->server_options.ctx = &world->server;
    world->client_options.ctx = &world->client;
    if (world_speaks_tls) {
        world->server_options.tls = tls_server_of(&world_trust, "coordinator", TRUST_SERVER, 0);
        world->client_options.tls = tls_client_of(&world_trust, "site-a", TRUST_TRAINER, 0);
    }
    assert_int_equal(uv_loop_init(&world->loop), 0);
    assert_int_equal(uv_timer_init(&world->loop, &world->guard), 0);
    uv_unref((uv_handle_t *)&world->guard);
    world->listener.on_connection = world_on_connection;
    world->listener.ctx = world;
    if (listener_open(&world->loop, "127.0.0.1:0", &world->listener, world->bound, &err) != 0) {
        fail_msg("%s", err.text);
    }
    world->port = (uint16_t)atoi(strrchr(world->bound, ':') + 1);
    return world;
}

/* Runs the loop until *count reaches `value`. */
static void world_run_until(struct world *world, const size_t *count, size_t value)
{
    uv_update_time(&world->loop);
    assert_int_equal(uv_timer_start(&world->guard, world_guard, GUARD_MS, 0), 0);
    while (*count < value) {
        uv_ref((uv_handle_t *)&world->guard);
        (void)uv_run(&world->loop, UV_RUN_ONCE);
        uv_unref((uv_handle_t *)&world->guard);
    }
    (void)uv_timer_stop(&world->guard);
}

/* Closes the listener and sees that nothing is left on the loop. */
static void world_free(struct world *world)
{
    listener_close(&world->listener, NULL);
    uv_close((uv_handle_t *)&world->guard, NULL);
    assert_int_equal(uv_run(&world->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&world->loop), 0);
    tls_setup_free(world->server_options.tls);
    tls_setup_free(world->client_options.tls);
    free(world);
}

static inline void world_connect(struct world *world)
{
    struct err err = {0};
    struct conn *conn;
    if (conn_connect(&world->loop, world->bound, &world->client_options, &conn, &err) != 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(world->client.opened + world->client.closed, 0); /* never before it returns */
    world_run_until(world, &world->client.opened, 1);
    world_run_until(world, &world->server.opened, 1);
}

static inline void side_send_sample(struct side *side, uint8_t type)
{
    struct msg msg;
    struct err err = {0};
    sample_msg(type, &msg);
    if (conn_send(side->conn, &msg, &err) != 0) {
        fail_msg("%s", err.text);
    }
    msg_fini(&msg);
}

/* ---- Peers that are no connection of ours ---- */

static inline int raw_connect(const struct world *world)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(world->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static inline void raw_write(int fd, const void *data, size_t len)
{
    assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

static inline void raw_write_sample(int fd, uint8_t type, size_t cut)
{
    struct msg msg;
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    sample_msg(type, &msg);
    assert_int_equal(msg_encode(&msg, &bytes, NULL), 0);
    assert_int_equal(buf_append(&bytes, msg.raw, msg.raw_len), 0);
    assert_true(cut < bytes.len);
    raw_write(fd, bytes.data, bytes.len - cut);
    msg_fini(&msg);
    buf_fini(&bytes);
}

/* Runs the loop while reading what it sends here, up to the end of the stream. */
static inline size_t raw_read_all(struct world *world, int fd, char *out, size_t room)
{
    size_t len = 0;
    for (;;) {
        (void)uv_run(&world->loop, UV_RUN_NOWAIT);
        ssize_t got = recv(fd, out + len, room - len, MSG_DONTWAIT);
        if (got == 0) {
            return len;
        }
        if (got > 0) {
            len += (size_t)got;
            assert_true(len < room);
        } else {
            assert_true(errno == EAGAIN);
        }
    }
}

#endif
