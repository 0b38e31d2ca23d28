/* What TLS adds to a connection: the handshake before it is open, and a queue of plaintext before libuv's queue.
 *
 * A chunk of the model is one piece of memory that all clients' queues refer to; its ciphertext is each client's own.
 * So messages wait as plaintext, by reference, and no more is encrypted while FLIGHT_MAX bytes of a connection are on
 * their way: a thousand clients that fetch a model cost some 128 KiB each, not a chunk each. */
#include "common/net/conn_state.h"

#include "common/base/mem.h"

#include <stdio.h>

#define PIECE      ((size_t)64 << 10)
#define FLIGHT_MAX ((size_t)128 << 10)

#define RECORD_ALERT     21 /* RFC 8446, 5.1: what a TLS peer's first record can be */
#define RECORD_HANDSHAKE 22
#define RECORD_MAJOR     3

struct tls {
    struct tls_setup *setup;
    struct channel *channel; /* a server's: NULL until the peer has said something, so that silence costs no memory */
    struct write *first, **last; /* plaintext that waits */
    size_t offset;               /* how far the first one is encrypted */
    size_t flying;               /* ciphertext that libuv has */
    bool server;
    bool waits;  /* for conn_shake */
    bool heard;  /* the peer has said something */
    bool ending; /* our side is to be shut when the queue is empty */
};

/* Ciphertext on its way out. */
struct flight {
    uv_write_t request;
    struct conn *conn;
    struct buf bytes;
    size_t plain; /* what of the queue it is done with */
};

static void pump(struct conn *conn);

int conn_tls_new(struct conn *conn, struct tls_setup *setup, struct err *err)
{
    struct tls *tls = mem_new(1, sizeof *tls);
    if (!tls) {
        return err_set(err, ERR_NOMEM, "out of memory for a TLS connection");
    }
    tls->server = tls_setup_is_server(setup);
    int rc = tls->server ? 0 : channel_new(setup, &tls->channel, err);
    if (rc < 0) {
        mem_free(tls);
        return rc;
    }
    tls->waits = tls->server && conn->options.knock;
    tls->setup = tls_setup_ref(setup);
    tls->last = &tls->first;
    conn->tls = tls;
    return 0;
}

static void drop_queue(struct tls *tls)
{
    while (tls->first) {
        struct write *write = tls->first;
        tls->first = write->next;
        write_free(write);
    }
    tls->last = &tls->first;
}

void conn_tls_free(struct conn *conn)
{
    struct tls *tls = conn->tls;
    if (!tls) {
        return;
    }
    drop_queue(tls);
    channel_free(tls->channel);
    tls_setup_free(tls->setup);
    mem_free(tls);
    conn->tls = NULL;
}

/* ---- Writing ---- */

static void on_flight_end(uv_write_t *request, int status)
{
    struct flight *flight = request->data;
    struct conn *conn = flight->conn;
    size_t plain = flight->plain;
    if (conn->tls) {
        conn->tls->flying -= flight->bytes.len;
    }
    buf_fini(&flight->bytes);
    mem_free(flight);
    conn_written(conn, plain, status);
    if (conn->tls && status == 0 && conn->state != CONN_CLOSED) {
        pump(conn);
    }
}

/* Hands what is encrypted to libuv. */
static int launch(struct conn *conn, size_t plain)
{
    struct buf *output = channel_output(conn->tls->channel);
    struct flight *flight = output->len > 0 ? mem_new(1, sizeof *flight) : NULL;
    if (!flight) {
        return output->len > 0 ? UV_ENOMEM : 0;
    }
    *flight = (struct flight){.conn = conn, .bytes = *output, .plain = plain};
    flight->request.data = flight;
    buf_init(output, flight->bytes.max);
    uv_buf_t bytes = uv_buf_init((char *)flight->bytes.data, (unsigned)flight->bytes.len);
    conn->tls->flying += flight->bytes.len;
    int rc = uv_write(&flight->request, (uv_stream_t *)&conn->tcp, &bytes, 1, on_flight_end);
    if (rc < 0) {
        conn->tls->flying -= flight->bytes.len;
        conn->queued_bytes -= plain;
        buf_fini(&flight->bytes);
        mem_free(flight);
    }
    return rc;
}

/* Encrypts the next piece of the queue; *plain grows by it, to PIECE at the most. */
static int encrypt_piece(struct tls *tls, size_t *plain, struct err *err)
{
    struct write *write = tls->first;
    size_t at = tls->offset;
    unsigned i = at >= write->bufs[0].len && write->count > 1 ? 1 : 0;
    at -= i == 1 ? write->bufs[0].len : 0;
    size_t left = write->bufs[i].len - at;
    size_t piece = left < PIECE - *plain ? left : PIECE - *plain;
    int rc = channel_write(tls->channel, write->bufs[i].base + at, piece, err);
    if (rc < 0) {
        return rc;
    }
    *plain += piece;
    tls->offset += piece;
    if (tls->offset == write->total) {
        tls->first = write->next;
        tls->last = tls->first ? tls->last : &tls->first;
        tls->offset = 0;
        write_free(write);
    }
    return 0;
}

static void fail_write(struct conn *conn, const char *why)
{
    if (conn->state == CONN_OPEN || conn->state == CONN_LINGERING) {
        conn_fail(conn, ERR_IO, why);
    }
}

static void pump(struct conn *conn)
{
    struct tls *tls = conn->tls;
    struct err err = {0};
    while (tls->first && tls->flying < FLIGHT_MAX) {
        size_t plain = 0;
        int rc = 0;
        while (rc == 0 && tls->first && plain < PIECE) {
            rc = encrypt_piece(tls, &plain, &err);
        }
        if (rc < 0) {
            fail_write(conn, err.text);
            return;
        }
        rc = launch(conn, plain);
        if (rc < 0) {
            fail_write(conn, uv_strerror(rc));
            return;
        }
    }
    if (tls->ending && !tls->first) {
        tls->ending = false;
        channel_end(tls->channel);
        (void)launch(conn, 0); /* without TLS's last word if need be */
        conn_shut(conn);
    }
}

void conn_tls_submit(struct conn *conn, struct write *write)
{
    *conn->tls->last = write;
    conn->tls->last = &write->next;
    pump(conn);
}

void conn_tls_shut(struct conn *conn)
{
    conn->tls->ending = true;
    pump(conn);
}

void conn_tls_farewell(struct conn *conn)
{
    struct tls *tls = conn->tls;
    if (!tls->channel || tls->first || tls->flying > 0) {
        return; /* not all has been said */
    }
    channel_end(tls->channel);
    struct buf *output = channel_output(tls->channel);
    uv_buf_t bytes = uv_buf_init((char *)output->data, (unsigned)output->len);
    if (output->len > 0) {
        (void)uv_try_write((uv_stream_t *)&conn->tcp, &bytes, 1);
    }
}

/* ---- Reading ---- */

/* The peer's alert, or ours, says more than a closed socket: it is written before our side is shut. */
static void refuse(struct conn *conn, const struct err *why)
{
    if (conn->reason.code == 0) {
        conn->reason = *why;
        (void)err_prefix(&conn->reason, "%s", conn->peer);
    }
    (void)launch(conn, 0);
    drop_queue(conn->tls);
    conn->state = CONN_OPEN; /* from where one can linger */
    conn_close(conn, conn_linger_ms(conn->options.idle_timeout_ms));
}

/* A frame of ours may begin with the same byte, but is no 196 KiB long while its sender is unknown. */
static bool looks_like_tls(const uint8_t *data, size_t len)
{
    return (data[0] == RECORD_HANDSHAKE || data[0] == RECORD_ALERT) && (len < 2 || data[1] == RECORD_MAJOR) &&
           (len < 3 || (data[2] >= 1 && data[2] <= 4));
}

/* What came first is no TLS. A server answers in the peer's language, as a plain one would. */
static void refuse_plain(struct conn *conn, const uint8_t *data, size_t len)
{
    struct err err;
    struct frame frame;
    if (!conn->tls->server) {
        conn_fail(conn, ERR_VERSION,
                  "speaks no TLS; a plain server takes no certificate, leave --trust, --identity and "
                  "--join away if it is meant");
        return;
    }
    conn_tls_free(conn);
    if (frame_feed(&conn->decoder, data, len) == 0) {
        (void)frame_next(&conn->decoder, &frame, &err); /* to see whose language it is */
    }
    (void)err_set(&err, ERR_VERSION,
                  "this server speaks TLS; a client needs a certificate: start it with --join and a "
                  "token from the server's \"starling ca token\"");
    conn->state = CONN_OPEN;
    conn_refuse(conn, &err);
}

bool conn_tls_waits(const struct conn *conn)
{
    return conn->tls->waits;
}

void conn_shake(struct conn *conn)
{
    if (conn->state != CONN_SHAKING || !conn->tls->waits) {
        return;
    }
    conn->tls->waits = false;
    int rc = conn_read_start(conn);
    if (rc < 0) {
        conn_fail(conn, ERR_IO, uv_strerror(rc));
    }
}

void conn_tls_start(struct conn *conn)
{
    conn->state = CONN_SHAKING;
    int rc = conn->tls->channel ? launch(conn, 0) : 0;
    if (rc < 0) {
        conn_fail(conn, ERR_IO, uv_strerror(rc));
    }
}

/* What the handshake has to say, or a new key. */
static int answer(struct conn *conn, struct err *err)
{
    return launch(conn, 0) < 0 ? err_set(err, ERR_NOMEM, "out of memory for a write") : 0;
}

/* All that the channel's input holds: the handshake, and frames behind it. */
static int take_input(struct conn *conn, uint8_t plain[FRAME_READ_MAX], struct err *err)
{
    struct tls *tls = conn->tls;
    size_t got = 0;
    int rc;
    do {
        rc = channel_read(tls->channel, plain, FRAME_READ_MAX, &got, err);
        if (conn->state == CONN_SHAKING && rc == 0 && channel_is_open(tls->channel)) {
            rc = answer(conn, err);
            if (rc == 0) {
                conn_opened(conn);
            }
        }
        if (got > 0 && conn->state == CONN_OPEN) {
            conn_take_bytes(conn, plain, got);
        }
    } while (rc == 0 && got == FRAME_READ_MAX && conn->state == CONN_OPEN);
    return rc;
}

void conn_tls_input(struct conn *conn, const uint8_t *data, size_t len)
{
    struct tls *tls = conn->tls;
    if (!tls->heard && !looks_like_tls(data, len)) {
        refuse_plain(conn, data, len);
        return;
    }
    tls->heard = true;
    struct err err = {0};
    if (!tls->channel && channel_new(tls->setup, &tls->channel, &err)) {
        conn_fail(conn, err.code, err.text);
        return;
    }
    uint8_t *plain = read_buffer_take();
    if (!plain) {
        conn_fail(conn, ERR_NOMEM, "out of memory for a read");
        return;
    }
    channel_input(tls->channel, data, len);
    int rc = take_input(conn, plain, &err);
    channel_input(tls->channel, NULL, 0);
    read_buffer_give(plain);
    if (conn->state != CONN_SHAKING && conn->state != CONN_OPEN) {
        return; /* by what was read */
    }
    rc = rc ? rc : answer(conn, &err);
    if (rc < 0) {
        refuse(conn, &err);
    } else if (channel_has_ended(tls->channel) && conn->state == CONN_OPEN) {
        conn_take_end(conn, UV_EOF);
    }
}

bool conn_tls_has_ended(const struct conn *conn)
{
    return channel_has_ended(conn->tls->channel);
}

const struct trust_subject *conn_subject(const struct conn *conn)
{
    return conn->tls && conn->tls->channel ? channel_peer(conn->tls->channel) : NULL;
}
