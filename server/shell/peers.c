/* Connections, by the small numbers that the coordinator knows them by. A number is free again when its connection has
 * been closed and the coordinator has heard of it.
 *
 * What a connection costs at most: one open file; here UNREAD_MAX_BYTES and a chunk or a status in its queue (chunks of
 * the model by reference), and one frame that comes in, of at most 1 MiB where an upload was granted and 1 KiB
 * elsewhere; in the kernel two buffers of socket_buffer, which it doubles for its own keeping.
 *
 * There are as many numbers as open files allow, less FILES_RESERVE, so that the limit on open files is never met by
 * connections: whoever comes when all numbers are taken, or finds no place among the strangers, is accepted out of the
 * reserve, told so, and closed; beyond REFUSALS_MAX at a time, and with TLS, where nothing can be said before the
 * handshake, closed without a word. (Should files run out all the same, libuv gives up a descriptor of its own to close
 * who stands in the backlog, and the log says so.) */
#include "server/shell/internal.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

#define QUEUE_MAX_BYTES ((size_t)16 << 20) /* a status of MSG_CLIENTS_MAX clients, or a chunk */
/* Whoever has left so much unread is sent no more. One chunk or one status is under way at a time; the rest is small,
 * and somebody who asks for answers without reading them must not fill the memory with them. */
#define UNREAD_MAX_BYTES ((size_t)FRAME_CHUNK_MAX + ((size_t)128 << 10))

uint32_t peer_number(const struct peer *peer)
{
    return (uint32_t)(peer - peer->daemon->peers.items);
}

void peer_close(struct peer *peer, uint64_t linger_ms)
{
    peer->closing = true;
    conn_close(peer->conn, linger_ms);
}

void peer_tell(struct peer *peer, struct event event)
{
    event.peer = peer_number(peer);
    daemon_event(peer->daemon, &event);
}

/* What a peer may say depends on what it and the server have said; its own events are what changes it. */
static void update_limits(struct peer *peer)
{
    const struct frame_limits *limits = coordinator_limits(peer->daemon->coordinator, peer_number(peer));
    if (peer->conn && limits) {
        conn_limit(peer->conn, limits);
    }
}

static void refuse(struct daemon *daemon, struct conn *conn, enum reject_code code, uint64_t retry_after_ms,
                   const char *why);

/* Whether there is a place for it among those who are not welcomed yet. Else it is refused: it keeps the number as its
 * context, but never becomes the number's connection, and others may. */
static bool is_admitted(struct peer *peer, struct conn *conn)
{
    struct daemon *daemon = peer->daemon;
    uint32_t instead;
    const char *why = coordinator_admit(daemon->coordinator, conn_peer(conn), net_now_ms(), &instead);
    if (why) {
        refuse(daemon, conn, REJECT_FULL, daemon->options->idle_timeout_ms / 60, why);
    } else if (instead != UINT32_MAX) {
        peer_close(&daemon->peers.items[instead], 0);
    }
    return why == NULL;
}

/* A connection that has been accepted, TLS's handshake still to come. */
static void arrive(struct peer *peer, struct conn *conn)
{
    if (is_admitted(peer, conn)) {
        peer->conn = conn;
        peer_tell(peer, (struct event){.kind = EVENT_PEER_OPENED, .address = conn_peer(conn)});
        update_limits(peer);
    }
}

static void on_knock(void *ctx, struct conn *conn)
{
    struct peer *peer = ctx;
    if (!peer->closing && peer->conn == conn) {
        peer_tell(peer, (struct event){.kind = EVENT_PEER_KNOCKED});
    }
}

static void on_open(void *ctx, struct conn *conn)
{
    struct peer *peer = ctx;
    if (!peer->daemon->guard.authority) {
        arrive(peer, conn);
    } else if (guard_admit(peer)) {
        const struct trust_subject *subject = conn_subject(conn);
        const struct peer_identity identity = {subject->name, subject->role};
        peer_tell(peer, (struct event){.kind = EVENT_PEER_IDENTIFIED, .identity = &identity});
    }
}

static void on_message(void *ctx, struct conn *conn, const struct msg *msg)
{
    struct peer *peer = ctx;
    if (peer->closing || peer->conn != conn) {
        return;
    }
    if (peer->daemon->guard.authority && msg->type == MSG_ENROL) {
        guard_enrol(peer, &msg->enrol);
        return;
    }
    if (peer->daemon->guard.authority && !conn_subject(conn)) { /* a BYE: nothing else may come */
        peer_close(peer, 0);
        return;
    }
    /* To ask the kernel is dearer than all the rest; a STATUS that comes before the last answer is written waits. */
    if (msg->type == MSG_STATUS && conn_queued_bytes(peer->conn) == 0) {
        coordinator_set_usage(peer->daemon->coordinator, machine_peak_rss_bytes());
    }
    peer_tell(peer, (struct event){.kind = EVENT_PEER_MESSAGE, .message = msg});
    update_limits(peer);
}

static void on_drained(void *ctx, struct conn *conn)
{
    struct peer *peer = ctx;
    if (!peer->closing && peer->conn == conn) {
        peer_tell(peer, (struct event){.kind = EVENT_PEER_DRAINED});
    }
}

static void on_close(void *ctx, struct conn *conn, const struct err *reason)
{
    struct peer *peer = ctx;
    if (peer->conn != conn) {
        peer->daemon->peers.refusing--;
        return;
    }
    peer->closing = true;
    if (peer->daemon->guard.authority && reason->code && !conn_subject(conn)) {
        char text[MSG_TEXT_MAX];
        log_event(coordinator_log(peer->daemon->coordinator, peer_number(peer), "stranger_left"), LOG_LEVEL_WARN,
                  "stranger_left", "reason=\"%s\"", log_quotable(reason->text, text, sizeof text));
    }
    peer_tell(peer, (struct event){.kind = EVENT_PEER_CLOSED, .reason = reason});
    *peer = (struct peer){.daemon = peer->daemon};
    peer->daemon->peers.full = false;
}

static const struct conn_events events = {on_open, on_message, on_drained, on_close};

struct msg peer_rejection(enum reject_code code, uint64_t retry_after_ms, const char *text)
{
    struct msg msg = {.type = MSG_REJECT,
                      .reject = {.code = code,
                                 .retry = retry_after_ms > 0,
                                 .retry_after_ms = retry_after_ms,
                                 .minor_least = PROTOCOL_MINOR_LEAST,
                                 .minor_most = PROTOCOL_MINOR_MOST}};
    (void)snprintf(msg.reject.text, sizeof msg.reject.text, "%s", text);
    return msg;
}

/* Says why, and closes; beyond REFUSALS_MAX at a time it only closes. */
static void refuse(struct daemon *daemon, struct conn *conn, enum reject_code code, uint64_t retry_after_ms,
                   const char *why)
{
    struct msg msg = peer_rejection(code, retry_after_ms, why);
    bool told = daemon->peers.refusing++ < REFUSALS_MAX && conn_send(conn, &msg, NULL) == 0;
    msg_fini(&msg);
    conn_close(conn, told ? conn_linger_ms(daemon->options->idle_timeout_ms) : 0);
}

/* A connection for which there is no number: taken, so that it does not stand in the backlog. */
static void refuse_open(void *ctx, struct conn *conn)
{
    struct daemon *daemon = ctx;
    refuse(daemon, conn, daemon->leaving ? REJECT_STOPPING : REJECT_FULL, daemon->options->idle_timeout_ms / 6,
           daemon->leaving ? "the server is stopping" : "the server has no room for another connection");
}

static void refuse_message(void *ctx, struct conn *conn, const struct msg *msg)
{
    (void)ctx;
    (void)conn;
    (void)msg;
}

static void refuse_drained(void *ctx, struct conn *conn)
{
    (void)ctx;
    (void)conn;
}

static void refuse_close(void *ctx, struct conn *conn, const struct err *reason)
{
    struct daemon *daemon = ctx;
    (void)conn;
    (void)reason;
    daemon->peers.refusing--;
}

static const struct conn_events refusal = {refuse_open, refuse_message, refuse_drained, refuse_close};

int peers_init(struct daemon *daemon, uint32_t room)
{
    daemon->peers.items = mem_new(room, sizeof *daemon->peers.items);
    daemon->peers.room = daemon->peers.items ? room : 0;
    for (uint32_t i = 0; i < daemon->peers.room; i++) {
        daemon->peers.items[i].daemon = daemon;
    }
    return daemon->peers.items ? 0 : ERR_NOMEM;
}

void peers_fini(struct daemon *daemon)
{
    mem_free(daemon->peers.items);
    daemon->peers = (struct peers){0};
}

static struct peer *find_free(struct peers *peers)
{
    for (uint32_t i = 0; i < peers->room; i++) {
        if (!peers->items[i].conn) {
            return &peers->items[i];
        }
    }
    return NULL;
}

bool peers_accept(struct daemon *daemon)
{
    struct peers *peers = &daemon->peers;
    struct peer *peer = daemon->leaving ? NULL : find_free(peers);
    if (!peer && !peers->full && !daemon->leaving) {
        log_event(coordinator_log(daemon->coordinator, UINT32_MAX, "connections_full"), LOG_LEVEL_WARN,
                  "connections_full", "most=%u", peers->room);
        peers->full = true;
    }
    const struct conn_options options = {
        .events = peer ? &events : &refusal,
        .ctx = peer ? (void *)peer : daemon,
        .limits = &msg_limits_server_new,
        .idle_timeout_ms = daemon->options->idle_timeout_ms,
        .connect_timeout_ms = daemon->options->idle_timeout_ms / 6,
        .tls = daemon->guard.setup,
        .knock = peer ? on_knock : NULL,
        .queue_max_bytes = QUEUE_MAX_BYTES,
        .decode_budget = MSG_BUDGET_SERVER,
    };
    struct conn *conn;
    struct err err;
    int rc = conn_accept((uv_stream_t *)&daemon->listener.tcp, &options, &conn, &err);
    if (rc) {
        log_event(coordinator_log(daemon->coordinator, UINT32_MAX, "accept_failed"), LOG_LEVEL_WARN, "accept_failed",
                  "reason=\"%s\"", err.text);
    } else if (options.tls && peer) {
        arrive(peer, conn);
    } else if (options.tls) {
        refuse_open(daemon, conn);
    }
    return rc == 0 || rc == ERR_IO;
}

void peers_send(struct daemon *daemon, uint32_t number, struct msg *msg)
{
    struct peer *peer = number < daemon->peers.room ? &daemon->peers.items[number] : NULL;
    struct err err;
    if (!peer || !peer->conn || peer->closing) {
        return;
    }
    size_t unread = conn_queued_bytes(peer->conn);
    int rc = unread > UNREAD_MAX_BYTES
                 ? err_set(&err, ERR_LIMIT, "%s: leaves %zu bytes unread", conn_peer(peer->conn), unread)
                 : conn_send(peer->conn, msg, &err);
    if (rc && rc != ERR_STATE) { /* ERR_STATE: the connection is on its way out, on_close will tell */
        log_event(coordinator_log(daemon->coordinator, number, "send_failed"), LOG_LEVEL_WARN, "send_failed",
                  "reason=\"%s\"", err.text);
        peer_close(peer, 0);
    }
}

void peers_close(struct daemon *daemon, uint32_t number)
{
    struct peer *peer = number < daemon->peers.room ? &daemon->peers.items[number] : NULL;
    if (peer && peer->conn && !peer->closing) {
        peer_close(peer, conn_linger_ms(daemon->options->idle_timeout_ms));
    }
}

void peers_drop(struct daemon *daemon, uint32_t number)
{
    struct peer *peer = number < daemon->peers.room ? &daemon->peers.items[number] : NULL;
    if (peer && peer->conn) {
        peer_close(peer, 0);
    }
}

void peers_shake(struct daemon *daemon, uint32_t number)
{
    struct peer *peer = number < daemon->peers.room ? &daemon->peers.items[number] : NULL;
    if (peer && peer->conn && !peer->closing) {
        conn_shake(peer->conn);
    }
}

void peers_pause(struct daemon *daemon, uint32_t number, uint64_t pause_ms)
{
    struct peer *peer = number < daemon->peers.room ? &daemon->peers.items[number] : NULL;
    if (peer && peer->conn && !peer->closing) {
        conn_pause(peer->conn, pause_ms);
    }
}

void peers_close_all(struct daemon *daemon)
{
    for (uint32_t i = 0; i < daemon->peers.room; i++) {
        peers_close(daemon, i);
    }
}
