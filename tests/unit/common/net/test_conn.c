/* Connections that go well: all messages there and back, chunks by reference, drained events, connecting. */
#include "tests/unit/common/net/net_world.h"

#include <dlfcn.h>
#include <netdb.h>

/* ---- A resolver of our own, in front of the C library's ---- */

static struct addrinfo *make_address(uint16_t port, struct addrinfo *next)
{
    struct addrinfo *info =
        calloc(1, sizeof *info + sizeof(struct sockaddr_in)); /* one block, as freeaddrinfo expects */
    struct sockaddr_in *address = (struct sockaddr_in *)(info + 1);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    info->ai_family = AF_INET;
    info->ai_socktype = SOCK_STREAM;
    info->ai_addr = (struct sockaddr *)address;
    info->ai_addrlen = sizeof *address;
    info->ai_next = next;
    return info;
}

static uint16_t dead_port; /* nobody listens there */

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    if (node && strcmp(node, "two.test") == 0) {
        *out = make_address(dead_port, make_address((uint16_t)atoi(service), NULL));
        return 0;
    }
    if (node && strcmp(node, "nowhere.test") == 0) {
        return EAI_NONAME;
    }
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    return real(node, service, hints, out);
}

static void echo(struct side *side, const struct msg *msg)
{
    struct msg copy = *msg;
    struct err err = {0};
    if (msg->raw_len > 0) {
        copy.payload = bytes_copy(msg->raw, msg->raw_len);
        copy.raw = copy.payload->data;
    }
    if (conn_send(side->conn, &copy, &err) != 0) {
        fail_msg("%s", err.text);
    }
    bytes_unref(copy.payload); /* NULL: moved to the queue */
}

static void compare_with_sample(struct side *side, const struct msg *msg)
{
    (void)side;
    struct msg sample;
    sample_msg(msg->type, &sample);
    assert_true(sample_same(msg, &sample));
    msg_fini(&sample);
}

static void test_echo_of_all_messages(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->server.react = echo;
    world->client.react = compare_with_sample;
    world_connect(world);
    assert_string_equal(conn_peer(world->client.conn), world->bound);
    assert_memory_equal(conn_peer(world->server.conn), "127.0.0.1:", 10);
    for (uint8_t type = 1; type < MSG_TYPE_END; type++) {
        side_send_sample(&world->client, type);
    }
    world_run_until(world, &world->client.messages, MSG_TYPE_END - 1);
    assert_int_equal(world->client.last.type, MSG_TYPE_END - 1);
    assert_true(conn_bytes_in(world->client.conn) > 1000);
    if (!world_speaks_tls) {
        assert_int_equal(conn_bytes_in(world->client.conn), conn_bytes_in(world->server.conn));
    }
    conn_close(world->client.conn, 1000);
    world_run_until(world, &world->client.closed, 1);
    world_run_until(world, &world->server.closed, 1);
    assert_int_equal(world->client.reason.code, 0);
    assert_int_equal(world->server.reason.code, 0);
    assert_non_null(strstr(world->server.reason.text, "closed by the peer"));
    world_free(world);
}

/* The session changes its state inside on_message: the next frame of the same read is judged by the new limits. */
static void enter_next_state(struct side *side, const struct msg *msg)
{
    assert_int_equal(msg->type, MSG_HELLO);
    side->react = NULL;
    conn_limit(side->conn, &msg_limits_server_trainer);
}

static void test_limits_follow_the_state(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->server.react = enter_next_state;
    world->server_options.limits = &msg_limits_server_new;
    int fd = raw_connect(world);
    raw_write_sample(fd, MSG_HELLO, 0);
    raw_write_sample(fd, MSG_READY, 0);
    raw_write_sample(fd, MSG_HELLO, 0);
    (void)shutdown(fd, SHUT_WR);
    world_run_until(world, &world->server.closed, 1);
    assert_int_equal(world->server.messages, 2);
    assert_int_equal(world->server.last.type, MSG_READY);
    assert_int_equal(world->server.reason.code, ERR_STATE);
    assert_non_null(strstr(world->server.reason.text, "HELLO"));
    (void)close(fd);
    world_free(world);
}

/* ---- A stream of chunks ---- */

#define STREAM_CHUNKS 12
static struct bytes *stream_payload;

static int send_chunk(struct side *side, uint64_t offset)
{
    struct msg msg = {.type = MSG_CHUNK, .chunk = {BLOB_MODEL, 7, offset}};
    msg.payload = bytes_ref(stream_payload);
    msg.raw = stream_payload->data;
    msg.raw_len = FRAME_CHUNK_MAX;
    int rc = conn_send(side->conn, &msg, NULL);
    if (rc == 0) {
        assert_null(msg.payload); /* moved, not copied */
    }
    msg_fini(&msg);
    return rc;
}

static void check_chunk(struct side *side, const struct msg *msg)
{
    assert_int_equal(msg->chunk.offset, (side->messages - 1) * FRAME_CHUNK_MAX);
    assert_memory_equal(msg->raw, stream_payload->data, FRAME_CHUNK_MAX);
}

static void send_next(struct side *side)
{
    assert_int_equal(stream_payload->references, 1); /* the queue has let go */
    if (side->drained < STREAM_CHUNKS) {
        assert_int_equal(send_chunk(side, side->drained * FRAME_CHUNK_MAX), 0);
    }
}

static void test_stream_of_chunks(void **state)
{
    (void)state;
    struct world *world = world_new();
    stream_payload = bytes_new(FRAME_CHUNK_MAX);
    for (size_t i = 0; i < FRAME_CHUNK_MAX; i++) {
        stream_payload->data[i] = (uint8_t)(i * 31 + i / 997);
    }
    world->client.react = check_chunk;
    world->server.react_drained = send_next;
    world->server_options.queue_max_bytes = FRAME_CHUNK_MAX + 4096;
    world_connect(world);
    assert_int_equal(send_chunk(&world->server, 0), 0);
    assert_int_equal(stream_payload->references, 2);
    assert_true(conn_queued_bytes(world->server.conn) > FRAME_CHUNK_MAX);
    assert_int_equal(send_chunk(&world->server, 1), ERR_LIMIT); /* the queue is bounded */
    assert_int_equal(stream_payload->references, 2);
    world_run_until(world, &world->client.messages, STREAM_CHUNKS);
    world_run_until(world, &world->server.drained, STREAM_CHUNKS);
    assert_int_equal(world->client.raw_bytes, (size_t)STREAM_CHUNKS * FRAME_CHUNK_MAX);
    conn_close(world->server.conn, 0);
    world_run_until(world, &world->client.closed, 1);
    world_run_until(world, &world->server.closed, 1);
    world_free(world);
    bytes_unref(stream_payload);
}

static void test_send_refuses(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_connect(world);
    struct msg chunk = {.type = MSG_CHUNK, .chunk = {BLOB_MODEL, 7, 0}, .raw = (const uint8_t *)"x", .raw_len = 1};
    assert_int_equal(conn_send(world->client.conn, &chunk, NULL), ERR_USAGE); /* nobody holds the bytes */
    struct msg bad = {.type = MSG_FETCH};
    assert_int_equal(conn_send(world->client.conn, &bad, NULL), ERR_PROTOCOL);
    assert_int_equal(conn_queued_bytes(world->client.conn), 0);
    struct conn *conn = world->client.conn;
    conn_close(conn, 1000);
    struct msg bye = {.type = MSG_BYE};
    assert_int_equal(conn_send(conn, &bye, NULL), ERR_STATE);
    world_run_until(world, &world->client.closed, 1);
    world_run_until(world, &world->server.closed, 1);
    assert_int_equal(world->server.messages, 0);
    world_free(world);
}

/* ---- Connecting ---- */

/* Bound but not listening: refuses, and nobody else can take the port. */
static int reserve_port(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void test_refused(void **state)
{
    (void)state;
    struct world *world = world_new();
    uint16_t port;
    int fd = reserve_port(&port);
    char target[64], want[128];
    (void)snprintf(target, sizeof target, "127.0.0.1:%u", port);
    (void)snprintf(want, sizeof want, "%s: connection refused", target);
    struct conn *conn;
    assert_int_equal(conn_connect(&world->loop, target, &world->client_options, &conn, NULL), 0);
    assert_string_equal(conn_peer(conn), target);
    assert_int_equal(world->client.closed, 0);
    world_run_until(world, &world->client.closed, 1);
    assert_int_equal(world->client.opened, 0);
    assert_int_equal(world->client.reason.code, ERR_UNAVAILABLE);
    assert_string_equal(world->client.reason.text, want);
    (void)close(fd);
    assert_int_equal(conn_connect(&world->loop, "nonsense", &world->client_options, &conn, NULL), ERR_USAGE);
    assert_null(conn);
    world_free(world);
}

/* As "localhost" is often ::1 first, where nobody listens: the next address must be tried. */
static void test_name_with_two_addresses(void **state)
{
    (void)state;
    struct world *world = world_new();
    char target[64];
    struct conn *conn;
    int fd = reserve_port(&dead_port);
    (void)snprintf(target, sizeof target, "two.test:%u", world->port);
    assert_int_equal(conn_connect(&world->loop, target, &world->client_options, &conn, NULL), 0);
    assert_string_equal(conn_peer(conn), target);
    world_run_until(world, &world->client.opened, 1);
    world_run_until(world, &world->server.opened, 1);
    assert_string_equal(conn_peer(conn), world->bound);
    conn_close(conn, 0);
    world_run_until(world, &world->server.closed, 1);
    (void)close(fd);
    world_free(world);
}

static void test_unknown_name(void **state)
{
    (void)state;
    struct world *world = world_new();
    struct conn *conn;
    assert_int_equal(conn_connect(&world->loop, "nowhere.test:1", &world->client_options, &conn, NULL), 0);
    world_run_until(world, &world->client.closed, 1);
    assert_int_equal(world->client.reason.code, ERR_UNAVAILABLE);
    assert_string_equal(world->client.reason.text, "nowhere.test:1: unknown node or service");
    world_free(world);
}

/* Closing while the name is looked up, and while connecting: on_close comes, once, and not from inside conn_close. */
static void test_close_before_open(void **state)
{
    (void)state;
    for (int turns = 0; turns < 4; turns++) {
        struct world *world = world_new();
        struct conn *conn;
        assert_int_equal(conn_connect(&world->loop, world->bound, &world->client_options, &conn, NULL), 0);
        for (int i = 0; i < turns && world->client.opened == 0; i++) {
            (void)uv_run(&world->loop, UV_RUN_NOWAIT);
        }
        conn_close(conn, 1000);
        conn_close(conn, 0);
        assert_int_equal(world->client.closed, 0);
        world_run_until(world, &world->client.closed, 1);
        assert_int_equal(world->client.reason.code, 0);
        if (world->server.opened > 0) {
            world_run_until(world, &world->server.closed, 1);
        }
        listener_close(&world->listener, NULL);
        (void)uv_run(&world->loop, UV_RUN_DEFAULT);
        assert_int_equal(world->client.closed, 1);
        world_free(world);
    }
}

/* A listener whose backlog is full does not answer at all. */
static void test_connect_timeout(void **state)
{
    (void)state;
    struct world *world = world_new();
    uint16_t port;
    int full = reserve_port(&port), fillers[4];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(listen(full, 0), 0);
    for (int i = 0; i < 4; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&address, sizeof address);
    }
    char target[64];
    struct conn *conn;
    (void)snprintf(target, sizeof target, "127.0.0.1:%u", port);
    world->client_options.connect_timeout_ms = 60;
    assert_int_equal(conn_connect(&world->loop, target, &world->client_options, &conn, NULL), 0);
    world_run_until(world, &world->client.closed, 1);
    assert_int_equal(world->client.reason.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(world->client.reason.text, "no connection within 60 ms"));
    for (int i = 0; i < 4; i++) {
        (void)close(fillers[i]);
    }
    (void)close(full);
    world_free(world);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct world *world = world_new();
    struct conn *conn;
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_after(n);
        assert_int_equal(conn_connect(&world->loop, world->bound, &world->client_options, &conn, NULL), ERR_NOMEM);
        mem_fail_after(0);
        assert_null(conn);
    }
    world_connect(world);
    int rc = ERR_NOMEM;
    for (uint64_t n = 1; rc == ERR_NOMEM; n++) { /* each allocation of a send */
        struct msg msg;
        sample_msg(MSG_OFFER, &msg);
        mem_fail_after(n);
        rc = conn_send(world->client.conn, &msg, NULL);
        mem_fail_after(0);
        assert_true(rc == 0 || conn_queued_bytes(world->client.conn) == 0);
    }
    assert_int_equal(rc, 0);
    world_run_until(world, &world->server.messages, 1);
    side_send_sample(&world->client, MSG_OFFER);
    mem_fail_after(1); /* the reader has no memory for its buffer */
    world_run_until(world, &world->server.closed, 1);
    mem_fail_after(0);
    assert_int_equal(world->server.reason.code, ERR_NOMEM);
    world_run_until(world, &world->client.closed, 1);
    world_free(world);
}

/* 127.0.1.9, as the server sees it. */
static void test_loopback_source(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->client_options.loopback_source = 0x109;
    world_connect(world);
    assert_memory_equal(conn_peer(world->server.conn), "127.0.1.9:", 10);
    conn_close(world->client.conn, 1000);
    world_run_until(world, &world->client.closed, 1);
    world_run_until(world, &world->server.closed, 1);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loopback_source),
        cmocka_unit_test(test_echo_of_all_messages),
        cmocka_unit_test(test_limits_follow_the_state),
        cmocka_unit_test(test_stream_of_chunks),
        cmocka_unit_test(test_send_refuses),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_name_with_two_addresses),
        cmocka_unit_test(test_unknown_name),
        cmocka_unit_test(test_close_before_open),
        cmocka_unit_test(test_connect_timeout),
        cmocka_unit_test(test_no_memory),
        over_tls(test_loopback_source),
        over_tls(test_echo_of_all_messages),
        over_tls(test_stream_of_chunks),
        over_tls(test_send_refuses),
        over_tls(test_refused),
        over_tls(test_name_with_two_addresses),
        over_tls(test_unknown_name),
        over_tls(test_close_before_open),
        over_tls(test_connect_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
