/* An open connection: bytes in through the decoder to on_message, messages out through libuv's write queue, and the
 * idle time-out. conn_open.c and conn_close.c hold the two ends of its life.
 *
 * The read buffer lives from libuv's alloc callback to its read callback, so that a thousand idle connections hold no
 * buffers; and it is the same piece of memory again and again, since 64 KiB that come and go between the small pieces
 * of new connections would leave holes in the heap. */
#include "common/net/conn_state.h"

#include "common/base/mem.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define KEEPALIVE_S 60
/* What a peer may still send while it is shown out: as much as may be under way in both sides' buffers. Who goes on
 * hears no last word. */
#define DROPPED_MAX_BYTES ((size_t)8 << 20)

/* ---- Reading ---- */

/* One read is in hand at a time, and beside it its plaintext; another thread's loop may find both taken. */
static struct {
    atomic_flag taken;
    uint8_t bytes[FRAME_READ_MAX];
} read_buffers[2] = {{ATOMIC_FLAG_INIT, {0}}, {ATOMIC_FLAG_INIT, {0}}};

uint8_t *read_buffer_take(void)
{
    for (size_t i = 0; i < sizeof read_buffers / sizeof read_buffers[0]; i++) {
        if (!atomic_flag_test_and_set(&read_buffers[i].taken)) {
            return read_buffers[i].bytes;
        }
    }
    return mem_room(FRAME_READ_MAX, 1);
}

void read_buffer_give(void *buffer)
{
    for (size_t i = 0; i < sizeof read_buffers / sizeof read_buffers[0]; i++) {
        if (buffer == read_buffers[i].bytes) {
            atomic_flag_clear(&read_buffers[i].taken);
            return;
        }
    }
    mem_free(buffer);
}

static bool waits_to_shake(const struct conn *conn)
{
    return conn->state == CONN_SHAKING && conn_tls_waits(conn);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    if (waits_to_shake(handle->data)) {
        *buf = uv_buf_init(NULL, 0); /* what is there stays in the kernel, and on_read gets UV_ENOBUFS */
        return;
    }
    *buf = uv_buf_init((char *)read_buffer_take(), FRAME_READ_MAX); /* NULL: on_read gets UV_ENOBUFS */
}

void conn_take_bytes(struct conn *conn, const void *data, size_t len)
{
    struct err err = {0};
    struct frame frame;
    conn->frame_ms = frame_pending(&conn->decoder) > 0 ? conn->frame_ms : conn->last_read_ms;
    int rc = frame_feed(&conn->decoder, data, len);
    if (rc < 0) {
        (void)err_set(&err, rc, "%s", err_meaning(rc));
    } else {
        rc = 1;
    }
    while (rc == 1 && conn->state == CONN_OPEN) {
        rc = frame_next(&conn->decoder, &frame, &err);
        if (rc != 1) {
            break;
        }
        conn->frame_ms = conn->last_read_ms;
        struct msg msg;
        int decoded = msg_decode(&frame, conn->options.decode_budget, &msg, &err);
        if (decoded < 0) {
            rc = decoded;
            break;
        }
        conn->options.events->on_message(conn->options.ctx, conn, &msg);
        msg_fini(&msg);
    }
    if (rc < 0 && conn->state == CONN_OPEN) {
        conn_refuse(conn, &err);
    }
    if (conn->state != CONN_OPEN) {
        frame_decoder_fini(&conn->decoder); /* whoever lingers holds no memory of what it sent */
    }
}

/* The stream has ended, in order (UV_EOF) or not. */
void conn_take_end(struct conn *conn, int status)
{
    conn->at_end = true;
    if (conn->state == CONN_LINGERING && status == UV_EOF && !conn->shut) {
        return; /* our queue may still be on its way */
    }
    if (conn->state == CONN_OPEN && conn->reason.code == 0) {
        size_t pending = frame_pending(&conn->decoder);
        if (status == UV_ENOBUFS) {
            (void)err_set(&conn->reason, ERR_NOMEM, "%s: out of memory for a read", conn->peer);
        } else if (status != UV_EOF) {
            (void)err_set(&conn->reason, ERR_IO, "%s: %s", conn->peer, uv_strerror(status));
        } else if (pending > 0) {
            (void)err_set(&conn->reason, ERR_IO, "%s: broken off in the middle of a frame, of which %zu bytes had come",
                          conn->peer, pending);
        } else if (conn->tls && !conn_tls_has_ended(conn)) { /* anybody on the way can do that */
            (void)err_set(&conn->reason, ERR_IO, "%s: broken off without TLS's last word", conn->peer);
        } else {
            (void)err_set(&conn->reason, 0, "%s: closed by the peer", conn->peer);
        }
    }
    conn_finish(conn);
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf)
{
    struct conn *conn = stream->data;
    if (waits_to_shake(conn)) {
        (void)uv_read_stop(stream);
        conn->options.knock(conn->options.ctx, conn);
        return;
    }
    if (got > 0) {
        conn->last_read_ms = uv_now(conn->loop);
        conn->bytes_in += (uint64_t)got;
        if (conn->tls && (conn->state == CONN_SHAKING || conn->state == CONN_OPEN)) {
            conn_tls_input(conn, (const uint8_t *)buf->base, (size_t)got);
        } else if (conn->state == CONN_OPEN) {
            conn_take_bytes(conn, buf->base, (size_t)got);
        } else if (conn->state == CONN_LINGERING && (conn->dropped_bytes += (size_t)got) > DROPPED_MAX_BYTES) {
            conn_finish(conn);
        }
    } else if (got < 0 && conn->state == CONN_SHAKING) {
        conn_fail(conn, ERR_TEMPFAIL, "broken off in TLS's handshake"); /* somebody is there */
    } else if (got < 0 && conn->state != CONN_CLOSED) {
        conn_take_end(conn, (int)got);
    }
    read_buffer_give(buf->base);
}

int conn_read_start(struct conn *conn)
{
    return uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read);
}

/* ---- Idle time-out ---- */

/* After a stall of our own process timers come due before the loop has looked at its sockets; the peer's bytes, or its
 * end, may have been there for long. */
static bool has_input(const struct conn *conn)
{
    struct pollfd poll_fd = {.events = POLLIN};
    return uv_fileno((const uv_handle_t *)&conn->tcp, &poll_fd.fd) == 0 && poll(&poll_fd, 1, 0) > 0;
}

bool conn_is_stuck(const struct conn *conn, uint64_t timeout_ms)
{
    uint64_t allowed_ms = timeout_ms * (1 + frame_wanted(&conn->decoder) / FRAME_READ_MAX);
    return frame_pending(&conn->decoder) > 0 && uv_now(conn->loop) - conn->frame_ms > allowed_ms;
}

static void on_idle_timeout(uv_timer_t *timer)
{
    struct conn *conn = timer->data;
    uint64_t timeout_ms = conn->options.idle_timeout_ms;
    uint64_t idle_ms = uv_now(conn->loop) - conn->last_read_ms;
    if (idle_ms < timeout_ms && conn_is_stuck(conn, timeout_ms)) {
        conn_fail(conn, ERR_TEMPFAIL, "a frame does not become whole");
    } else if (idle_ms < timeout_ms) {
        (void)uv_timer_start(timer, on_idle_timeout, timeout_ms - idle_ms, 0);
    } else if (has_input(conn)) {
        conn->frame_ms = uv_now(conn->loop); /* it was this side that stood still */
        (void)uv_timer_start(timer, on_idle_timeout, timeout_ms, 0);
    } else {
        char what[64];
        (void)snprintf(what, sizeof what, "no byte for %llu ms", (unsigned long long)idle_ms);
        conn_fail(conn, ERR_TEMPFAIL, what);
    }
}

void conn_idle_timeout(struct conn *conn, uint64_t idle_timeout_ms)
{
    conn->options.idle_timeout_ms = idle_timeout_ms;
    if (conn->paused) {
        return; /* conn_resume sets the timer */
    }
    if (conn->state == CONN_OPEN && idle_timeout_ms > 0) {
        (void)uv_timer_start(&conn->timer, on_idle_timeout, idle_timeout_ms, 0);
    } else if (conn->state == CONN_OPEN) {
        (void)uv_timer_stop(&conn->timer);
    }
}

/* ---- Pauses ---- */

void conn_resume(struct conn *conn)
{
    if (!conn->paused) {
        return;
    }
    conn->paused = false;
    conn->last_read_ms = conn->frame_ms = uv_now(conn->loop); /* it was this side that did not read */
    conn_idle_timeout(conn, conn->options.idle_timeout_ms);
    int rc = conn_read_start(conn);
    if (rc < 0) {
        conn_fail(conn, ERR_IO, uv_strerror(rc));
    }
}

static void on_pause_over(uv_timer_t *timer)
{
    conn_resume(timer->data);
}

void conn_pause(struct conn *conn, uint64_t pause_ms)
{
    if (conn->state == CONN_OPEN && pause_ms > 0) {
        conn->paused = true;
        (void)uv_read_stop((uv_stream_t *)&conn->tcp);
        (void)uv_timer_start(&conn->timer, on_pause_over, pause_ms, 0);
    }
}

void conn_opened(struct conn *conn)
{
    conn->state = CONN_OPEN;
    (void)uv_timer_stop(&conn->timer);
    conn_idle_timeout(conn, conn->options.idle_timeout_ms);
    conn->options.events->on_open(conn->options.ctx, conn);
}

void conn_connected(struct conn *conn)
{
    struct sockaddr_storage name = {0};
    int len = sizeof name;
    if (uv_tcp_getpeername(&conn->tcp, (struct sockaddr *)&name, &len) == 0) {
        net_format_address((struct sockaddr *)&name, conn->peer);
    }
    (void)uv_tcp_nodelay(&conn->tcp, 1);
    (void)uv_tcp_keepalive(&conn->tcp, 1, KEEPALIVE_S);
    conn->last_read_ms = uv_now(conn->loop);
    int rc = conn_read_start(conn);
    if (conn->tls) {
        conn_tls_start(conn);
    } else {
        conn_opened(conn);
    }
    if (rc < 0 && (conn->state == CONN_OPEN || conn->state == CONN_SHAKING)) {
        conn_fail(conn, ERR_IO, uv_strerror(rc));
    }
}

/* ---- Writing ---- */

void write_free(struct write *write)
{
    buf_fini(&write->head);
    bytes_unref(write->payload);
    mem_free(write);
}

/* A failed write is only remembered: what the peer said last may still wait to be read, and after it the reading side
 * finds the end. */
void conn_written(struct conn *conn, size_t bytes, int status)
{
    conn->queued_bytes -= bytes;
    if (status != 0 && conn->state == CONN_OPEN && conn->reason.code == 0) {
        (void)err_set(&conn->reason, ERR_IO, "%s: %s", conn->peer, uv_strerror(status));
    }
    if (status == 0 && bytes > 0 && conn->queued_bytes == 0 && conn->state == CONN_OPEN) {
        conn->options.events->on_drained(conn->options.ctx, conn);
    }
}

static void on_write(uv_write_t *request, int status)
{
    struct write *write = request->data;
    struct conn *conn = write->conn;
    size_t total = write->total;
    write_free(write);
    conn_written(conn, total, status);
}

/* Takes `write` over, whatever comes. */
static int submit(struct conn *conn, struct write *write)
{
    write->request.data = write;
    write->conn = conn;
    for (unsigned i = 0; i < write->count; i++) {
        write->total += write->bufs[i].len;
    }
    conn->queued_bytes += write->total;
    if (conn->tls) {
        conn_tls_submit(conn, write);
        return 0;
    }
    int rc = uv_write(&write->request, (uv_stream_t *)&conn->tcp, write->bufs, write->count, on_write);
    if (rc < 0) {
        conn->queued_bytes -= write->total;
        write_free(write);
    }
    return rc;
}

static uv_buf_t view(const void *data, size_t len)
{
    return uv_buf_init((char *)(uintptr_t)data, (unsigned)len); /* libuv only reads it */
}

void conn_send_static(struct conn *conn, const void *data, size_t len)
{
    struct write *write = mem_new(1, sizeof *write);
    if (write) {
        write->bufs[0] = view(data, len);
        write->count = 1;
        (void)submit(conn, write);
    }
}

int conn_send(struct conn *conn, struct msg *msg, struct err *err)
{
    if (conn->state != CONN_OPEN) {
        return err_set(err, ERR_STATE, "%s: the connection is not open", conn->peer);
    }
    if (msg->raw_len > 0 && !msg->payload) {
        return err_set(err, ERR_USAGE, "a %s message whose raw bytes nobody holds", msg_type_name(msg->type));
    }
    struct write *write = mem_new(1, sizeof *write);
    if (!write) {
        return err_set(err, ERR_NOMEM, "out of memory for a %s message", msg_type_name(msg->type));
    }
    buf_init(&write->head, SIZE_MAX / 2);
    int rc = msg_encode(msg, &write->head, err);
    if (rc < 0) {
        write_free(write);
        return rc;
    }
    size_t total = write->head.len + msg->raw_len;
    if (conn->queued_bytes > conn->options.queue_max_bytes ||
        total > conn->options.queue_max_bytes - conn->queued_bytes) {
        write_free(write);
        return err_set(err, ERR_LIMIT, "%s: %zu bytes wait to be written and %zu more exceed the queue", conn->peer,
                       conn->queued_bytes, total);
    }
    write->bufs[0] = view(write->head.data, write->head.len);
    write->bufs[1] = view(msg->raw, msg->raw_len);
    write->count = msg->raw_len > 0 ? 2 : 1;
    write->payload = msg->payload;
    msg->payload = NULL;
    rc = submit(conn, write);
    return rc < 0 ? err_set(err, ERR_IO, "%s: %s", conn->peer, uv_strerror(rc)) : 0;
}

/* ---- Asking ---- */

size_t conn_queued_bytes(const struct conn *conn)
{
    return conn->queued_bytes;
}

void conn_limit(struct conn *conn, const struct frame_limits *limits)
{
    frame_decoder_limit(&conn->decoder, limits);
}

bool conn_is_open(const struct conn *conn)
{
    return conn->state == CONN_OPEN;
}

const char *conn_peer(const struct conn *conn)
{
    return conn->peer;
}

uint64_t conn_bytes_in(const struct conn *conn)
{
    return conn->bytes_in;
}
