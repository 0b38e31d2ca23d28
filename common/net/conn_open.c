/* How a connection comes about: accepted, or resolved and connected. A name may have several addresses (localhost is
 * often ::1 first); they are tried in the resolver's order. libuv cannot connect one handle twice, so between two tries
 * the handle is closed and made anew. */
#include "common/net/conn_state.h"

#include "common/base/mem.h"

#include <netinet/in.h>
#include <stdio.h>

static void try_next(struct conn *conn);

struct conn *conn_new(uv_loop_t *loop, const struct conn_options *options, struct err *err)
{
    struct conn *conn = mem_new(1, sizeof *conn);
    if (!conn) {
        (void)err_set(err, ERR_NOMEM, "out of memory for a connection");
        return NULL;
    }
    conn->loop = loop;
    conn->options = *options;
    if (options->tls && conn_tls_new(conn, options->tls, err)) {
        mem_free(conn);
        return NULL;
    }
    frame_decoder_init(&conn->decoder, options->limits);
    (void)uv_timer_init(loop, &conn->timer); /* neither can fail: they only fill in the handle */
    (void)uv_tcp_init(loop, &conn->tcp);
    conn->timer.data = conn->tcp.data = conn->connect.data = conn->shutdown.data = conn;
    conn->handles = 2;
    return conn;
}

static void on_connect_timeout(uv_timer_t *timer)
{
    struct conn *conn = timer->data;
    char what[64];
    bool reached = conn->state == CONN_SHAKING;
    (void)snprintf(what, sizeof what, "no %s within %llu ms", reached ? "whole TLS handshake" : "connection",
                   (unsigned long long)conn->options.connect_timeout_ms);
    conn_fail(conn, reached ? ERR_TEMPFAIL : ERR_UNAVAILABLE, what);
}

static void start_timeout(struct conn *conn)
{
    if (conn->options.connect_timeout_ms > 0) {
        uv_update_time(conn->loop); /* it may stand still since before the loop ran */
        (void)uv_timer_start(&conn->timer, on_connect_timeout, conn->options.connect_timeout_ms, 0);
    }
}

static void on_reopen(uv_handle_t *handle)
{
    struct conn *conn = handle->data;
    if (conn->state == CONN_CLOSED) {
        conn_handle_closed(handle);
        return;
    }
    (void)uv_tcp_init(conn->loop, &conn->tcp);
    conn->tcp.data = conn;
    try_next(conn);
}

/* An address did not work. */
static void try_failed(struct conn *conn, int status)
{
    if (conn->untried) {
        uv_close((uv_handle_t *)&conn->tcp, on_reopen);
    } else {
        conn_fail(conn, ERR_UNAVAILABLE, uv_strerror(status));
    }
}

static void on_connect(uv_connect_t *request, int status)
{
    struct conn *conn = request->data;
    if (conn->state != CONN_CONNECTING) {
        return;
    }
    if (status < 0) {
        try_failed(conn, status);
    } else {
        conn_connected(conn);
    }
}

/* Only IPv4 has more than one loopback address. */
static int choose_source(struct conn *conn, const struct sockaddr *to)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)to;
    if (conn->options.loopback_source == 0 || to->sa_family != AF_INET || ntohl(v4->sin_addr.s_addr) >> 24 != 127) {
        return 0;
    }
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(UINT32_C(127) << 24 | conn->options.loopback_source)};
    return uv_tcp_bind(&conn->tcp, (const struct sockaddr *)(const void *)&from, 0);
}

static void try_next(struct conn *conn)
{
    const struct addrinfo *address = conn->untried;
    conn->untried = address->ai_next;
    int rc = choose_source(conn, address->ai_addr);
    rc = rc < 0 ? rc : uv_tcp_connect(&conn->connect, &conn->tcp, address->ai_addr, on_connect);
    if (rc < 0) {
        try_failed(conn, rc);
    }
}

static void on_lookup(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses)
{
    struct lookup *lookup = request->data;
    struct conn *conn = lookup->conn;
    mem_free(lookup);
    if (!conn) {
        uv_freeaddrinfo(addresses);
        return;
    }
    conn->lookup = NULL;
    if (status < 0) {
        conn_fail(conn, ERR_UNAVAILABLE, uv_strerror(status));
        return;
    }
    conn->addresses = conn->untried = addresses;
    conn->state = CONN_CONNECTING;
    try_next(conn);
}

void conn_forget_lookup(struct conn *conn)
{
    if (conn->lookup) {
        conn->lookup->conn = NULL;
        (void)uv_cancel((uv_req_t *)&conn->lookup->request); /* may be too late: then on_lookup finds no connection */
        conn->lookup = NULL;
    }
}

int conn_connect(uv_loop_t *loop, const char *address, const struct conn_options *options, struct conn **out,
                 struct err *err)
{
    *out = NULL;
    char host[256], port[8];
    int rc = net_split_address(address, host, port, err);
    if (rc < 0) {
        return rc;
    }
    struct lookup *lookup = mem_new(1, sizeof *lookup);
    if (!lookup) {
        return err_set(err, ERR_NOMEM, "%s: out of memory", address);
    }
    struct err why;
    struct conn *conn = conn_new(loop, options, &why);
    if (!conn) {
        mem_free(lookup);
        return err_set(err, why.code, "%s: %s", address, why.text);
    }
    (void)snprintf(conn->peer, sizeof conn->peer, "%s", address);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    lookup->request.data = lookup;
    rc = uv_getaddrinfo(loop, &lookup->request, on_lookup, host, port, &hints);
    if (rc < 0) {
        mem_free(lookup);
        conn->silent = true;
        conn_finish(conn);
        return err_set(err, ERR_UNAVAILABLE, "%s: %s", address, uv_strerror(rc));
    }
    lookup->conn = conn;
    conn->lookup = lookup;
    start_timeout(conn);
    *out = conn;
    return 0;
}

int conn_accept(uv_stream_t *listener, const struct conn_options *options, struct conn **out, struct err *err)
{
    *out = NULL;
    struct err why;
    struct conn *conn = conn_new(listener->loop, options, &why);
    if (!conn) {
        return err_set(err, why.code, "%s", why.text);
    }
    int rc = uv_accept(listener, (uv_stream_t *)&conn->tcp);
    if (rc < 0) {
        conn->silent = true;
        conn_finish(conn);
        return err_set(err, ERR_IO, "cannot accept a connection: %s", uv_strerror(rc));
    }
    *out = conn;
    start_timeout(conn); /* of TLS's handshake; a plain connection is open at once */
    conn_connected(conn);
    return 0;
}
