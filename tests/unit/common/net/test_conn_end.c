/* Connections that end: broken off, hostile, idle, closed from inside a callback, lingering. */
#include "common/base/byteorder.h"
#include "tests/unit/common/net/net_world.h"

#include <time.h>

static void test_cut_in_half(void **state)
{
    (void)state;
    for (size_t cut = 1; cut < 40; cut += 13) { /* inside the payload, and inside the header */
        struct world *world = world_new();
        int fd = raw_connect(world);
        raw_write_sample(fd, MSG_QUEUED, 0);
        raw_write_sample(fd, MSG_READY, cut);
        (void)close(fd);
        world_run_until(world, &world->server.closed, 1);
        assert_int_equal(world->server.messages, 1);
        assert_int_equal(world->server.reason.code, ERR_IO);
        assert_non_null(strstr(world->server.reason.text, "in the middle of a frame"));
        assert_memory_equal(world->server.reason.text, "127.0.0.1:", 10);
        world_free(world);
    }
}

static void test_reset(void **state)
{
    (void)state;
    struct world *world = world_new();
    int fd = raw_connect(world);
    world_run_until(world, &world->server.opened, 1);
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard), 0);
    (void)close(fd);
    world_run_until(world, &world->server.closed, 1);
    assert_int_equal(world->server.reason.code, ERR_IO);
    assert_non_null(strstr(world->server.reason.text, "connection reset by peer"));
    world_free(world);
}

/* What a hostile or mistaken peer is told, and what we say of it. */
static size_t provoke(const void *bytes, size_t len, int code, const char *words, char *answer, size_t room)
{
    struct world *world = world_new();
    int fd = raw_connect(world);
    raw_write(fd, bytes, len);
    size_t got = raw_read_all(world, fd, answer, room);
    (void)close(fd);
    world_run_until(world, &world->server.closed, 1);
    if (world->server.reason.code != code || !strstr(world->server.reason.text, words)) {
        fail_msg("%s: %s", err_name(world->server.reason.code), world->server.reason.text);
    }
    assert_int_equal(world->server.messages, 0);
    assert_int_equal(world->server.closed, 1);
    world_free(world);
    return got;
}

static void test_other_protocols(void **state)
{
    (void)state;
    char answer[4096];
    static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    static const uint8_t tls[] = {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3};
    size_t got = provoke(http, sizeof http - 1, ERR_PROTOCOL, "the peer speaks HTTP", answer, sizeof answer);
    answer[got] = 0;
    assert_memory_equal(answer, "HTTP/1.1 400", 12);
    assert_non_null(strstr(answer, "Starling"));
    got = provoke(tls, sizeof tls, ERR_PROTOCOL, "the peer speaks TLS; this port is plain", answer, sizeof answer);
    assert_int_equal(got, 7);
    assert_memory_equal(answer, "\x15\x03\x03\x00\x02\x02", 6); /* a fatal alert */
}

static void expect_bye(const char *answer, size_t len, int code, const char *words)
{
    struct frame_decoder decoder;
    struct frame frame;
    struct msg msg;
    frame_decoder_init(&decoder, &all_limits);
    assert_int_equal(frame_feed(&decoder, answer, len), 0);
    assert_int_equal(frame_next(&decoder, &frame, NULL), 1);
    assert_int_equal(frame.type, MSG_BYE);
    assert_int_equal(msg_decode(&frame, 1 << 20, &msg, NULL), 0);
    assert_int_equal(msg.bye.code, -code);
    assert_non_null(strstr(msg.bye.text, words));
    assert_int_equal(frame_pending(&decoder), 0);
    frame_decoder_fini(&decoder);
}

static void test_bad_frames(void **state)
{
    (void)state;
    char answer[4096];
    uint8_t bytes[64];
    frame_header(bytes, MSG_QUEUED, 0, "\x08\x01\x10\x02", 4, NULL, 0);
    memcpy(bytes + FRAME_HEADER_BYTES, "\x08\x01\x10\x02", 4);
    bytes[FRAME_HEADER_BYTES] ^= 0x80;
    size_t got = provoke(bytes, FRAME_HEADER_BYTES + 4, ERR_PROTOCOL, "checksum", answer, sizeof answer);
    expect_bye(answer, got, ERR_PROTOCOL, "checksum");
    bytes[4] = FRAME_VERSION + 1;
    got = provoke(bytes, FRAME_HEADER_BYTES, ERR_VERSION, "version 2; this side speaks 1", answer, sizeof answer);
    expect_bye(answer, got, ERR_VERSION, "version 2; this side speaks 1");
    frame_header(bytes, 40, 0, NULL, 0, NULL, 0);
    got = provoke(bytes, FRAME_HEADER_BYTES, ERR_STATE, "type 40", answer, sizeof answer);
    expect_bye(answer, got, ERR_STATE, "type 40");
    frame_header(bytes, MSG_QUEUED, 0, "\x08\x01", 2, NULL, 0); /* well framed, but no message */
    memcpy(bytes + FRAME_HEADER_BYTES, "\x08\x01", 2);
    got = provoke(bytes, FRAME_HEADER_BYTES + 2, ERR_PROTOCOL, "QUEUED", answer, sizeof answer);
    expect_bye(answer, got, ERR_PROTOCOL, "QUEUED");
    memset(bytes, 0xff, sizeof bytes);
    (void)provoke(bytes, sizeof bytes, ERR_VERSION, "version 255", answer, sizeof answer);
}

/* ---- Idle time-out ---- */

static void test_idle(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->server_options.idle_timeout_ms = 60;
    int fd = raw_connect(world);
    world_run_until(world, &world->server.opened, 1);
    uint64_t start_ms = uv_now(&world->loop);
    world_run_until(world, &world->server.closed, 1);
    assert_in_range(uv_now(&world->loop) - start_ms, 59, 10000);
    assert_int_equal(world->server.reason.code, ERR_TEMPFAIL);
    assert_non_null(strstr(world->server.reason.text, "no byte for"));
    (void)close(fd);
    world_free(world);
}

struct trickle {
    uv_timer_t timer;
    int fd;
    size_t left, closed;
};

static void trickle_closed(uv_handle_t *handle)
{
    ((struct trickle *)handle->data)->closed++;
}

static void trickle_byte(uv_timer_t *timer)
{
    static const uint8_t byte;
    struct trickle *trickle = timer->data;
    if (trickle->left == 0) {
        uv_close((uv_handle_t *)timer, trickle_closed);
    } else {
        trickle->left--;
        raw_write(trickle->fd, &byte, 1);
    }
}

/* The header of a frame whose `bytes` of payload then come one by one, 40 ms apart; all of them never do. */
static void trickle_start(struct world *world, struct trickle *trickle, uint32_t bytes)
{
    uint8_t header[FRAME_HEADER_BYTES];
    trickle->fd = raw_connect(world);
    world_run_until(world, &world->server.opened, 1);
    frame_header(header, MSG_PROGRESS, 0, NULL, 0, NULL, 0);
    store_u32(header, bytes);
    store_u32(header + 8, bytes);
    raw_write(trickle->fd, header, sizeof header);
    assert_int_equal(uv_timer_init(&world->loop, &trickle->timer), 0);
    trickle->timer.data = trickle;
    assert_int_equal(uv_timer_start(&trickle->timer, trickle_byte, 0, 40), 0);
}

/* A time-out that is learned later counts from then on. */
static void test_idle_later(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_connect(world);
    conn_idle_timeout(world->client.conn, 0);
    conn_idle_timeout(world->server.conn, 50);
    world_run_until(world, &world->server.closed, 1);
    assert_int_equal(world->server.reason.code, ERR_TEMPFAIL);
    world_run_until(world, &world->client.closed, 1);
    assert_int_equal(world->client.reason.code, 0);
    world_free(world);
}

/* Bytes count, whole messages need not come: six bytes of a large frame keep an idle time-out of 100 ms away; then it
 * comes. */
static void test_bytes_are_life(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->server_options.idle_timeout_ms = 100;
    struct trickle trickle = {.left = 6};
    uint64_t start_ms = uv_now(&world->loop);
    trickle_start(world, &trickle, FRAME_CHUNK_MAX);
    world_run_until(world, &world->server.closed, 1);
    assert_int_equal(trickle.left, 0);
    assert_in_range(uv_now(&world->loop) - start_ms, 5 * 40 + 99, 10000);
    assert_int_equal(world->server.reason.code, ERR_TEMPFAIL);
    world_run_until(world, &trickle.closed, 1);
    (void)close(trickle.fd);
    world_free(world);
}

/* A length that is damaged: what comes fills the frame, and is not heard. Bytes alone are then no life. */
static void test_a_frame_that_does_not_become_whole(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->server_options.idle_timeout_ms = 100;
    struct trickle trickle = {.left = 400};
    trickle_start(world, &trickle, 1000);
    world_run_until(world, &world->server.closed, 1);
    assert_in_range(trickle.left, 1, 399);
    assert_int_equal(world->server.reason.code, ERR_TEMPFAIL);
    assert_non_null(strstr(world->server.reason.text, "does not become whole"));
    trickle.left = 0;
    world_run_until(world, &trickle.closed, 1);
    (void)close(trickle.fd);
    world_free(world);
}

/* Our own process stands still (as under SIGSTOP) for longer than the time-out while the peer's bytes wait in the
 * socket. Timers come due first when the loop wakes; judging by them alone would throw a healthy peer out. */
static void test_stall_reads_before_it_judges(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->server_options.idle_timeout_ms = 50;
    int fd = raw_connect(world);
    world_run_until(world, &world->server.opened, 1);
    raw_write_sample(fd, MSG_PROGRESS, 0);
    struct timespec stall = {.tv_nsec = 120 * 1000000};
    (void)nanosleep(&stall, NULL); /* this is the stall, not a wait for something */
    world_run_until(world, &world->server.messages, 1);
    assert_int_equal(world->server.closed, 0);
    world_run_until(world, &world->server.closed, 1); /* and silence from then on is judged */
    assert_int_equal(world->server.reason.code, ERR_TEMPFAIL);
    (void)close(fd);
    world_free(world);
}

/* ---- Closing from inside, and lingering ---- */

static uint64_t close_linger_ms;
static void close_at_once(struct side *side, const struct msg *msg)
{
    assert_int_equal(msg->type, MSG_ALIVE);
    conn_close(side->conn, close_linger_ms);
    conn_close(side->conn, close_linger_ms);
    assert_int_equal(side->closed, 0);                           /* not from inside */
    assert_string_equal(msg->alive.waits_for, "2 of 3 clients"); /* the message lives until we return */
}

static void test_close_inside_on_message(void **state)
{
    (void)state;
    for (close_linger_ms = 0; close_linger_ms <= 5000; close_linger_ms += 5000) {
        struct world *world = world_new();
        world->server.react = close_at_once;
        int fd = raw_connect(world);
        for (int i = 0; i < 3; i++) {
            raw_write_sample(fd, MSG_ALIVE, 0);
        }
        assert_int_equal(shutdown(fd, SHUT_WR), 0);
        world_run_until(world, &world->server.closed, 1);
        assert_int_equal(world->server.messages, 1); /* the other two are not delivered */
        assert_int_equal(world->server.reason.code, 0);
        (void)close(fd);
        world_free(world);
    }
}

static void queue_chunks(struct side *side, struct bytes *payload, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct msg msg = {.type = MSG_CHUNK, .chunk = {BLOB_MODEL, 7, i * FRAME_CHUNK_MAX}};
        msg.payload = bytes_ref(payload);
        msg.raw = payload->data;
        msg.raw_len = FRAME_CHUNK_MAX;
        assert_int_equal(conn_send(side->conn, &msg, NULL), 0);
    }
}

static void test_linger_is_bounded(void **state)
{
    (void)state;
    struct world *world = world_new();
    struct bytes *payload = bytes_new(FRAME_CHUNK_MAX);
    int fd = raw_connect(world); /* and never reads */
    world_run_until(world, &world->server.opened, 1);
    queue_chunks(&world->server, payload, 32);
    assert_true(payload->references > 10);
    uint64_t start_ms = uv_now(&world->loop);
    conn_close(world->server.conn, 100);
    world_run_until(world, &world->server.closed, 1);
    assert_in_range(uv_now(&world->loop) - start_ms, 99, 5000);
    assert_int_equal(world->server.reason.code, 0);
    assert_int_equal(payload->references, 1); /* every queued reference has been dropped */
    bytes_unref(payload);
    (void)close(fd);
    world_free(world);
}

static void test_linger_delivers_everything(void **state)
{
    (void)state;
    struct world *world = world_new();
    struct bytes *payload = bytes_new(FRAME_CHUNK_MAX);
    world_connect(world);
    queue_chunks(&world->server, payload, 16);
    side_send_sample(&world->server, MSG_BYE);
    conn_close(world->server.conn, 10000);
    world_run_until(world, &world->client.closed, 1);
    assert_int_equal(world->client.messages, 17);
    assert_int_equal(world->client.last.type, MSG_BYE);
    assert_int_equal(world->client.reason.code, 0);
    world_run_until(world, &world->server.closed, 1);
    assert_int_equal(payload->references, 1);
    bytes_unref(payload);
    world_free(world);
}

static void reject_and_close(struct side *side, const struct msg *msg)
{
    (void)msg;
    if (side->messages == 1) {
        side_send_sample(side, MSG_REJECT);
        conn_close(side->conn, 10000);
    }
}

/* The last word must arrive although the peer is in the middle of an upload that nobody reads. Closing over unread
 * bytes would make the kernel send a reset, which can overtake it: so the peer must see an orderly end, and never a
 * reset. */
static void test_last_word_survives_an_upload(void **state)
{
    (void)state;
    static uint8_t upload[1 << 16];
    char answer[4096];
    size_t len = 0, uploaded = 0;
    ssize_t got = -1;
    struct world *world = world_new();
    world->server.react = reject_and_close;
    int fd = raw_connect(world);
    raw_write_sample(fd, MSG_ALIVE, 0);
    while (got != 0) {
        ssize_t sent = uploaded < (4u << 20) ? send(fd, upload, sizeof upload, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
        uploaded += sent > 0 ? (size_t)sent : 0;
        got = recv(fd, answer + len, sizeof answer - len, MSG_DONTWAIT);
        if (got < 0 && errno != EAGAIN) {
            fail_msg("%s after %zu bytes", strerror(errno), uploaded);
        }
        len += got > 0 ? (size_t)got : 0;
        if (got != 0) {
            (void)uv_run(&world->loop, UV_RUN_NOWAIT);
        }
    }
    assert_true(len > 0 && uploaded > 0);
    for (int i = 0; i < 8; i++) { /* and still none when it goes on sending */
        assert_true(send(fd, upload, sizeof upload, MSG_DONTWAIT | MSG_NOSIGNAL) > 0);
        (void)uv_run(&world->loop, UV_RUN_NOWAIT);
    }
    (void)close(fd);
    world_run_until(world, &world->server.closed, 1);
    assert_int_equal(world->server.messages, 1);
    assert_int_equal(world->server.reason.code, 0);
    world_free(world);
}

/* But not for ever: who sends 100 MB to somebody who has said goodbye is cut off, long before its linger time-out. */
static void test_who_sends_on_is_cut_off(void **state)
{
    (void)state;
    static uint8_t upload[1 << 16];
    size_t uploaded = 0;
    struct world *world = world_new();
    world->server.react = reject_and_close;
    int fd = raw_connect(world);
    raw_write_sample(fd, MSG_ALIVE, 0);
    uint64_t start_ms = uv_now(&world->loop);
    while (world->server.closed == 0 && uploaded < (100u << 20)) {
        ssize_t sent = send(fd, upload, sizeof upload, MSG_DONTWAIT | MSG_NOSIGNAL);
        uploaded += sent > 0 ? (size_t)sent : 0;
        (void)uv_run(&world->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(world->server.closed, 1);
    assert_in_range(uv_now(&world->loop) - start_ms, 0, 9999); /* the linger time-out of reject_and_close is 10000 */
    assert_in_range(uploaded, 8u << 20, 40u << 20);            /* with what lies in the kernel's buffers */
    (void)close(fd);
    world_free(world);
}

/* A paused connection reads nothing, is not idle, and hears everything afterwards, the end too. */
static void test_pause(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->server_options.idle_timeout_ms = 100;
    int fd = raw_connect(world);
    world_run_until(world, &world->server.opened, 1);
    uint64_t start_ms = uv_now(&world->loop);
    conn_pause(world->server.conn, 300);
    raw_write_sample(fd, MSG_ALIVE, 0);
    world_run_until(world, &world->server.messages, 1);
    assert_in_range(uv_now(&world->loop) - start_ms, 299, 10000);
    assert_int_equal(world->server.closed, 0);
    conn_pause(world->server.conn, 60000); /* cut short by conn_close, which reads on for the peer's end */
    conn_close(world->server.conn, 10000);
    (void)close(fd);
    start_ms = uv_now(&world->loop);
    world_run_until(world, &world->server.closed, 1);
    assert_in_range(uv_now(&world->loop) - start_ms, 0, 5000);
    world_free(world);
}

static void close_now(struct side *side)
{
    conn_close(side->conn, 0);
}

static void test_close_inside_on_drained(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->client.react_drained = close_now;
    world_connect(world);
    side_send_sample(&world->client, MSG_READY);
    world_run_until(world, &world->client.closed, 1);
    world_run_until(world, &world->server.closed, 1);
    assert_int_equal(world->server.messages, 1);
    world_free(world);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_in_half),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_other_protocols),
        cmocka_unit_test(test_bad_frames),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_idle_later),
        cmocka_unit_test(test_bytes_are_life),
        cmocka_unit_test(test_a_frame_that_does_not_become_whole),
        cmocka_unit_test(test_stall_reads_before_it_judges),
        cmocka_unit_test(test_close_inside_on_message),
        cmocka_unit_test(test_linger_is_bounded),
        cmocka_unit_test(test_linger_delivers_everything),
        cmocka_unit_test(test_last_word_survives_an_upload),
        cmocka_unit_test(test_who_sends_on_is_cut_off),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_close_inside_on_drained),
        over_tls(test_idle_later),
        over_tls(test_linger_delivers_everything),
        over_tls(test_close_inside_on_drained),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
