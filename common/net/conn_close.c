/* How a connection ends. Every way leads to conn_finish, which hands the handles to libuv; on_close follows from a
 * later turn of the loop, when libuv has let go of them and every queued write has been called off.
 *
 * Lingering goes: write what is queued, shut our side, read and drop until the peer shuts its side. (Closing a socket
 * with unread bytes makes the kernel send a reset, which can destroy our last message at the peer: a REJECT would
 * arrive as "connection reset".) The linger time-out bounds all of it, and what is dropped is bounded too. */
#include "common/net/conn_state.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

#define LINGER_MOST_MS 5000

static void dispose(struct conn *conn)
{
    if (!conn->silent) {
        conn->options.events->on_close(conn->options.ctx, conn, &conn->reason);
    }
    frame_decoder_fini(&conn->decoder);
    conn_tls_free(conn);
    if (conn->addresses) {
        uv_freeaddrinfo(conn->addresses);
    }
    mem_free(conn);
}

void conn_handle_closed(uv_handle_t *handle)
{
    struct conn *conn = handle->data;
    if (--conn->handles == 0) {
        dispose(conn);
    }
}

void conn_finish(struct conn *conn)
{
    if (conn->tls && conn->state == CONN_OPEN) {
        conn_tls_farewell(conn);
    }
    conn->state = CONN_CLOSED;
    conn_forget_lookup(conn);
    if (!uv_is_closing((uv_handle_t *)&conn->timer)) {
        uv_close((uv_handle_t *)&conn->timer, conn_handle_closed);
    }
    if (!uv_is_closing((uv_handle_t *)&conn->tcp)) { /* else between two tries to connect */
        uv_close((uv_handle_t *)&conn->tcp, conn_handle_closed);
    }
}

void conn_fail(struct conn *conn, int code, const char *what)
{
    (void)err_set(&conn->reason, code, "%s: %s", conn->peer, what);
    conn_finish(conn);
}

static void on_linger_timeout(uv_timer_t *timer)
{
    conn_finish(timer->data);
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
    struct conn *conn = request->data;
    conn->shut = true;
    if (conn->state == CONN_LINGERING && (status < 0 || conn->at_end)) {
        conn_finish(conn);
    }
}

void conn_shut(struct conn *conn)
{
    if (uv_shutdown(&conn->shutdown, (uv_stream_t *)&conn->tcp, on_shutdown) < 0) {
        conn_finish(conn);
    }
}

void conn_close(struct conn *conn, uint64_t linger_ms)
{
    if (conn->state == CONN_CLOSED) {
        return;
    }
    if (conn->reason.code == 0) {
        (void)err_set(&conn->reason, 0, "%s: closed by this side", conn->peer);
    }
    conn_resume(conn);
    bool can_linger = conn->state == CONN_OPEN || conn->state == CONN_LINGERING;
    if (!can_linger || linger_ms == 0) {
        conn_finish(conn);
        return;
    }
    (void)uv_timer_start(&conn->timer, on_linger_timeout, linger_ms, 0);
    if (conn->state == CONN_OPEN) {
        conn->state = CONN_LINGERING;
        if (conn->tls) {
            conn_tls_shut(conn);
        } else {
            conn_shut(conn);
        }
    }
}

/* To a peer that speaks something else, a word in its own language; to ours, a BYE. */
static void say_why(struct conn *conn, const struct err *why)
{
    static const uint8_t alert[] = {21, 3, 3, 0, 2, 2, 70}; /* TLS 1.2 alert: fatal, protocol_version */
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
                                 "This port speaks Starling's own protocol, not HTTP.\n";
    if (conn->decoder.peer == FRAME_PEER_TLS) {
        conn_send_static(conn, alert, sizeof alert);
    } else if (conn->decoder.peer == FRAME_PEER_HTTP) {
        conn_send_static(conn, answer, sizeof answer - 1);
    } else {
        struct msg bye = {.type = MSG_BYE, .bye.code = (uint32_t)-why->code};
        (void)snprintf(bye.bye.text, sizeof bye.bye.text, "%.255s", why->text);
        (void)conn_send(conn, &bye, NULL); /* a full queue: then it goes without a word */
    }
}

uint64_t conn_linger_ms(uint64_t idle_timeout_ms)
{
    uint64_t wanted = idle_timeout_ms / 12;
    return wanted == 0 || wanted > LINGER_MOST_MS ? LINGER_MOST_MS : wanted;
}

void conn_refuse(struct conn *conn, const struct err *why)
{
    conn->reason = *why;
    (void)err_prefix(&conn->reason, "%s", conn->peer);
    say_why(conn, why);
    conn_close(conn, conn_linger_ms(conn->options.idle_timeout_ms));
}
