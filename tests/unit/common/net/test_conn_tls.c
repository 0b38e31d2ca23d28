/* What TLS adds to connections: who is told what when one side speaks something else, shows the wrong certificate or
 * none, stops half-way; that an end is only believed when the peer itself has said it; and what a peer costs that does
 * not read. */
#include "common/net/conn_state.h"
#include "tests/unit/common/net/net_world.h"

/* ---- The other end speaks something else ---- */

static struct world *server_of_tls(void)
{
    struct world *world = world_new();
    tls_setup_free(world->client_options.tls);
    world->client_options.tls = NULL;
    return world;
}

static struct world *client_of_tls(void)
{
    struct world *world = world_new();
    tls_setup_free(world->server_options.tls);
    world->server_options.tls = NULL;
    return world;
}

static void start_client(struct world *world)
{
    struct conn *conn;
    struct err err = {0};
    if (conn_connect(&world->loop, world->bound, &world->client_options, &conn, &err) != 0) {
        fail_msg("%s", err.text);
    }
}

static void run_to_the_end(struct world *world)
{
    world_run_until(world, &world->client.closed, 1);
    world_run_until(world, &world->server.closed, 1);
    assert_int_equal(world->client.closed + world->server.closed, 2);
}

static void expect(const struct side *side, int code, const char *words)
{
    if (side->reason.code != code || !strstr(side->reason.text, words)) {
        fail_msg("%s: %s", err_name(side->reason.code), side->reason.text);
    }
}

static struct msg heard_bye;

static void note_bye(struct side *side, const struct msg *msg)
{
    (void)side;
    assert_int_equal(msg->type, MSG_BYE);
    heard_bye = *msg;
}

static void test_plain_client(void **state)
{
    (void)state;
    struct world *world = server_of_tls();
    world->client.react = note_bye;
    start_client(world);
    world_run_until(world, &world->client.opened, 1);
    side_send_sample(&world->client, MSG_HELLO);
    run_to_the_end(world);
    assert_int_equal(world->server.opened + world->server.messages, 0);
    expect(&world->server, ERR_VERSION, "127.0.0.1:");
    assert_int_equal(world->client.messages, 1);
    assert_int_equal(heard_bye.bye.code, -ERR_VERSION);
    assert_non_null(strstr(heard_bye.bye.text, "--join"));
    world_free(world);
}

/* A frame whose length begins as TLS's records do: 22 bytes, 21, and 790 (0x316). */
static void test_plain_client_with_a_first_byte_of_tls(void **state)
{
    (void)state;
    static const uint16_t lengths[] = {21, 22, 0x316};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct world *world = server_of_tls();
        uint8_t frame[FRAME_HEADER_BYTES + 0x316] = {0};
        char answer[4096];
        struct frame_decoder decoder;
        struct frame got;
        frame_header(frame, MSG_HELLO, 0, frame + FRAME_HEADER_BYTES, lengths[i], NULL, 0);
        int fd = raw_connect(world);
        raw_write(fd, frame, FRAME_HEADER_BYTES + (size_t)lengths[i]);
        size_t len = raw_read_all(world, fd, answer, sizeof answer);
        (void)close(fd);
        world_run_until(world, &world->server.closed, 1);
        expect(&world->server, ERR_VERSION, "speaks TLS");
        frame_decoder_init(&decoder, &all_limits);
        assert_int_equal(frame_feed(&decoder, answer, len), 0);
        assert_int_equal(frame_next(&decoder, &got, NULL), 1);
        assert_int_equal(got.type, MSG_BYE);
        frame_decoder_fini(&decoder);
        world_free(world);
    }
}

static void test_http_client(void **state)
{
    (void)state;
    static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    char answer[4096];
    struct world *world = server_of_tls();
    int fd = raw_connect(world);
    raw_write(fd, http, sizeof http - 1);
    size_t len = raw_read_all(world, fd, answer, sizeof answer - 1);
    answer[len] = 0;
    assert_memory_equal(answer, "HTTP/1.1 400", 12);
    (void)close(fd);
    world_run_until(world, &world->server.closed, 1);
    assert_int_equal(world->server.opened, 0);
    expect(&world->server, ERR_VERSION, "speaks TLS");
    world_free(world);
}

/* The certificate's owner must not go on in plain. */
static void test_plain_server(void **state)
{
    (void)state;
    struct world *world = client_of_tls();
    start_client(world);
    run_to_the_end(world);
    assert_int_equal(world->client.opened + world->client.messages + world->server.messages, 0);
    expect(&world->client, ERR_VERSION, "a server that speaks plain TCP");
    assert_memory_equal(world->client.reason.text, world->bound, strlen(world->bound));
    expect(&world->server, ERR_PROTOCOL, "the peer speaks TLS; this port is plain");
    world_free(world);
}

static bool greet_in_plain(void *ctx, struct listener *listener)
{
    struct world *world = ctx;
    struct conn *conn;
    assert_int_equal(conn_accept((uv_stream_t *)&listener->tcp, &world->server_options, &conn, NULL), 0);
    side_send_sample(&world->server, MSG_WELCOME);
    return true;
}

static void test_server_that_speaks_first(void **state)
{
    (void)state;
    struct world *world = client_of_tls();
    world->listener.on_connection = greet_in_plain;
    start_client(world);
    run_to_the_end(world);
    assert_int_equal(world->client.opened + world->client.messages, 0);
    expect(&world->client, ERR_VERSION, "speaks no TLS");
    world_free(world);
}

/* ---- Handshakes that fail ---- */

static void test_certificates_of_others(void **state)
{
    (void)state;
    struct tls_world theirs;
    tls_world_init(&theirs);
    for (int i = 0; i < 3; i++) {
        struct world *world = world_new();
        if (i == 0) { /* a site's certificate that has expired: the server says so */
            tls_setup_free(world->client_options.tls);
            world->client_options.tls = tls_client_of(&world_trust, "site-a", TRUST_TRAINER, -2 * TLS_DAY);
        } else if (i == 1) { /* a server of another authority: the client says so */
            tls_setup_free(world->server_options.tls);
            world->server_options.tls = tls_server_of(&theirs, "coordinator", TRUST_SERVER, 0);
        } else { /* a client that joins another federation */
            tls_setup_free(world->client_options.tls);
            world->client_options.tls = tls_joining(theirs.pin);
        }
        start_client(world);
        run_to_the_end(world);
        assert_int_equal(world->server.opened + world->server.messages + world->client.messages, 0);
        expect(&world->server, ERR_ACCESS, i == 0 ? "the peer's certificate has expired" : "does not trust our");
        expect(&world->client, ERR_ACCESS, i == 0 ? "our certificate has expired; join" : "is not of the CA");
        assert_memory_equal(world->client.reason.text, world->bound, strlen(world->bound));
        assert_memory_equal(world->server.reason.text, "127.0.0.1:", 10);
        world_free(world);
    }
    tls_world_fini(&theirs);
}

static const uint8_t half_a_hello[] = {22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3};

static void test_handshake_time_out(void **state)
{
    (void)state;
    for (size_t part = 0; part < sizeof half_a_hello; part += 5) {
        struct world *world = server_of_tls();
        world->server_options.connect_timeout_ms = 60;
        uint64_t start_ms = uv_now(&world->loop);
        int fd = raw_connect(world);
        raw_write(fd, half_a_hello, part);
        world_run_until(world, &world->server.closed, 1);
        assert_in_range(uv_now(&world->loop) - start_ms, 59, 10000);
        expect(&world->server, ERR_TEMPFAIL, "no whole TLS handshake within 60 ms");
        assert_int_equal(world->server.opened, 0);
        (void)close(fd);
        world_free(world);
    }
}

static void test_half_a_handshake(void **state)
{
    (void)state;
    for (size_t part = 0; part < sizeof half_a_hello; part += 5) {
        struct world *world = server_of_tls();
        int fd = raw_connect(world);
        raw_write(fd, half_a_hello, part);
        (void)close(fd);
        world_run_until(world, &world->server.closed, 1);
        expect(&world->server, ERR_TEMPFAIL, "broken off in TLS's handshake");
        assert_int_equal(world->server.opened, 0);
        world_free(world);
    }
}

static size_t knocks;

static void count_knock(void *ctx, struct conn *conn)
{
    struct side *side = ctx;
    side->conn = conn;
    knocks++;
}

/* What came first stays where it is until it is called for; it is announced once, and all of it is there then. */
static void test_knock(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->server_options.knock = count_knock;
    knocks = 0;
    start_client(world);
    world_run_until(world, &knocks, 1);
    for (int i = 0; i < 300; i++) {
        (void)uv_run(&world->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(knocks, 1);
    assert_int_equal(conn_bytes_in(world->server.conn), 0);
    assert_int_equal(world->client.opened + world->server.opened, 0);
    conn_shake(world->server.conn);
    world_run_until(world, &world->client.opened, 1);
    world_run_until(world, &world->server.opened, 1);
    conn_shake(world->server.conn); /* means nothing any more */
    side_send_sample(&world->client, MSG_READY);
    world_run_until(world, &world->server.messages, 1);
    assert_int_equal(knocks, 1);
    conn_close(world->client.conn, 1000);
    run_to_the_end(world);
    world_free(world);
}

static void shake_at_once(void *ctx, struct conn *conn)
{
    count_knock(ctx, conn);
    conn_shake(conn);
}

/* Nobody is called for who says nothing; the clock runs while one waits; the end, too, is something that was said. */
static void test_knock_and_silence(void **state)
{
    (void)state;
    for (int what = 0; what < 3; what++) {
        struct world *world = server_of_tls();
        world->server_options.connect_timeout_ms = 60;
        world->server_options.knock = what == 2 ? shake_at_once : count_knock;
        knocks = 0;
        int fd = raw_connect(world);
        raw_write(fd, half_a_hello, what == 1 ? sizeof half_a_hello : 0);
        if (what == 2) {
            assert_int_equal(shutdown(fd, SHUT_WR), 0);
        }
        world_run_until(world, &world->server.closed, 1);
        assert_int_equal(knocks, what > 0);
        expect(&world->server, ERR_TEMPFAIL, what == 2 ? "broken off" : "no whole TLS handshake within 60 ms");
        (void)close(fd);
        world_free(world);
    }
}

/* TLS begins well and goes on as noise: an alert, and the end. */
static void test_noise_in_the_handshake(void **state)
{
    (void)state;
    struct world *world = server_of_tls();
    uint8_t noise[600];
    char answer[4096];
    memset(noise, 0x17, sizeof noise);
    memcpy(noise, half_a_hello, sizeof half_a_hello);
    int fd = raw_connect(world);
    raw_write(fd, noise, sizeof noise);
    size_t len = raw_read_all(world, fd, answer, sizeof answer);
    assert_int_equal(len, 7);
    assert_memory_equal(answer, "\x15\x03\x03\x00\x02\x02", 6);
    (void)close(fd);
    world_run_until(world, &world->server.closed, 1);
    expect(&world->server, ERR_PROTOCOL, "TLS");
    world_free(world);
}

/* ---- Who is there ---- */

static void test_subjects(void **state)
{
    (void)state;
    for (int joining = 0; joining < 2; joining++) {
        struct world *world = world_new();
        if (joining) {
            tls_setup_free(world->client_options.tls);
            world->client_options.tls = tls_joining(world_trust.pin);
        }
        world_connect(world);
        const struct trust_subject *site = conn_subject(world->server.conn);
        const struct trust_subject *server = conn_subject(world->client.conn);
        assert_string_equal(server->name, "coordinator");
        assert_int_equal(server->role, TRUST_SERVER);
        assert_true((site == NULL) == (joining == 1));
        assert_true(joining || (strcmp(site->name, "site-a") == 0 && site->role == TRUST_TRAINER));
        conn_close(world->client.conn, 1000);
        run_to_the_end(world);
        world_free(world);
    }
    world_speaks_tls = false;
    struct world *plain = world_new();
    world_connect(plain);
    assert_null(conn_subject(plain->server.conn));
    conn_close(plain->client.conn, 0);
    run_to_the_end(plain);
    world_free(plain);
    world_speaks_tls = true;
}

/* ---- Ends ---- */

static int socket_of(struct side *side)
{
    int fd = -1;
    assert_int_equal(uv_fileno((uv_handle_t *)&side->conn->tcp, &fd), 0);
    return fd;
}

/* Anybody on the way can end a TCP connection; that is not the peer's word. */
static void test_end_without_the_last_word(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_connect(world);
    side_send_sample(&world->server, MSG_READY);
    world_run_until(world, &world->client.messages, 1);
    assert_int_equal(shutdown(socket_of(&world->server), SHUT_WR), 0);
    run_to_the_end(world);
    expect(&world->client, ERR_IO, "without TLS's last word");
    expect(&world->server, 0, "closed by the peer"); /* nobody has meddled with the other direction */
    world_free(world);
}

static void test_bytes_that_were_changed(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_connect(world);
    assert_int_equal(send(socket_of(&world->server), "\x17\x03\x03\x00\x20................................", 37, 0),
                     37);
    run_to_the_end(world);
    expect(&world->client, ERR_PROTOCOL, "TLS");
    expect(&world->server, ERR_PROTOCOL, "TLS"); /* the client's alert */
    assert_int_equal(world->client.messages + world->server.messages, 0);
    world_free(world);
}

static uint64_t linger_ms;

static void close_now(struct side *side, const struct msg *msg)
{
    (void)msg;
    conn_close(side->conn, linger_ms);
}

/* Three messages in one record: the second and third are not delivered to who has closed. */
static void test_close_inside_on_message(void **state)
{
    (void)state;
    for (linger_ms = 0; linger_ms <= 5000; linger_ms += 5000) {
        struct world *world = world_new();
        world->server.react = close_now;
        world_connect(world);
        for (int i = 0; i < 3; i++) {
            side_send_sample(&world->client, MSG_ALIVE);
        }
        conn_close(world->client.conn, 1000);
        run_to_the_end(world);
        assert_int_equal(world->server.messages, 1);
        expect(&world->server, 0, "closed by this side");
        world_free(world);
    }
}

static void close_on_open(void *ctx, struct conn *conn)
{
    side_open(ctx, conn);
    conn_close(conn, linger_ms);
}

static void test_close_inside_on_open(void **state)
{
    (void)state;
    static const struct conn_events events = {close_on_open, side_message, side_drained, side_close};
    for (int who = 0; who < 2; who++) {
        for (linger_ms = 0; linger_ms <= 5000; linger_ms += 5000) {
            struct world *world = world_new();
            (who ? &world->server_options : &world->client_options)->events = &events;
            start_client(world);
            run_to_the_end(world);
            expect(who ? &world->server : &world->client, 0, "closed by this side");
            world_free(world);
        }
    }
}

/* ---- Who does not read ---- */

static size_t resident_bytes(void)
{
    unsigned long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu %lu", &pages, &resident), 2);
    (void)fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* A thousand chunks, which are one piece of memory, for a peer that reads nothing. What is encrypted is its own; and
 * that is not a thousand chunks, nor one. The kernel's buffers come on top. */
static void test_a_peer_that_does_not_read(void **state)
{
    (void)state;
    enum { CHUNKS = 1000 };
    struct world *world = world_new();
    struct bytes *payload = bytes_new(FRAME_CHUNK_MAX);
    world->server_options.queue_max_bytes = (size_t)2 << 30;
    world_connect(world);
    assert_int_equal(uv_read_stop((uv_stream_t *)&world->client.conn->tcp), 0);
    size_t before = resident_bytes();
    for (size_t i = 0; i < CHUNKS; i++) {
        struct msg msg = {.type = MSG_CHUNK, .chunk = {BLOB_MODEL, 7, i * FRAME_CHUNK_MAX}};
        msg.payload = bytes_ref(payload);
        msg.raw = payload->data;
        msg.raw_len = FRAME_CHUNK_MAX;
        assert_int_equal(conn_send(world->server.conn, &msg, NULL), 0);
    }
    for (int i = 0; i < 300; i++) {
        (void)uv_run(&world->loop, UV_RUN_NOWAIT);
    }
    assert_true(payload->references > CHUNKS - 20); /* they wait, by reference */
    assert_true(conn_queued_bytes(world->server.conn) > (size_t)(CHUNKS - 20) * FRAME_CHUNK_MAX);
    assert_in_range(resident_bytes() - before, 0,
                    (size_t)48 << 20); /* of a gigabyte; freed memory that is kept counts */
    assert_in_range(uv_stream_get_write_queue_size((uv_stream_t *)&world->server.conn->tcp), 1, 192 << 10);
    uint64_t start_ms = uv_now(&world->loop);
    conn_close(world->server.conn, 100);
    world_run_until(world, &world->server.closed, 1);
    assert_in_range(uv_now(&world->loop) - start_ms, 99, 5000);
    assert_int_equal(payload->references, 1);
    conn_close(world->client.conn, 0);
    world_run_until(world, &world->client.closed, 1);
    bytes_unref(payload);
    world_free(world);
}

/* ---- Memory ---- */

static uint64_t fail_from;

static bool accept_and_starve(void *ctx, struct listener *listener)
{
    struct world *world = ctx;
    struct conn *conn;
    assert_int_equal(conn_accept((uv_stream_t *)&listener->tcp, &world->server_options, &conn, NULL), 0);
    mem_fail_after(fail_from);
    return true;
}

static void say_something(void *ctx, struct conn *conn)
{
    struct msg msg = {.type = MSG_BYE, .bye.code = 7};
    side_open(ctx, conn);
    if (conn_send(conn, &msg, NULL) < 0) {
        conn_close(conn, 0);
    }
}

/* From the handshake on, each allocation fails in turn, and all later ones: both ends close, once, and nothing leaks.
 */
static void test_no_memory(void **state)
{
    (void)state;
    static const struct conn_events events = {say_something, side_message, side_drained, side_close};
    bool well = false;
    for (fail_from = 1; !well; fail_from++) {
        struct world *world = world_new();
        world->listener.on_connection = accept_and_starve;
        world->server.react = close_now;
        world->client_options.events = &events;
        linger_ms = 1000;
        start_client(world);
        run_to_the_end(world);
        mem_fail_after(0);
        well = world->server.messages == 1 && world->server.reason.code == 0 && world->client.reason.code == 0;
        assert_true(fail_from < 500);
        world_free(world);
    }
    assert_true(fail_from > 10);
}

#define tls_test(test) cmocka_unit_test_setup_teardown(test, world_tls_on, world_tls_off)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        tls_test(test_plain_client),
        tls_test(test_plain_client_with_a_first_byte_of_tls),
        tls_test(test_http_client),
        tls_test(test_plain_server),
        tls_test(test_server_that_speaks_first),
        tls_test(test_certificates_of_others),
        tls_test(test_handshake_time_out),
        tls_test(test_half_a_handshake),
        tls_test(test_knock),
        tls_test(test_knock_and_silence),
        tls_test(test_noise_in_the_handshake),
        tls_test(test_subjects),
        tls_test(test_end_without_the_last_word),
        tls_test(test_bytes_that_were_changed),
        tls_test(test_close_inside_on_message),
        tls_test(test_close_inside_on_open),
        tls_test(test_a_peer_that_does_not_read),
        tls_test(test_no_memory),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
