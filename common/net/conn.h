/* One framed connection over libuv, plain or with TLS: reads and decodes frames, writes from a queue, closes itself
 * only in the loop's own time. Owns the uv_tcp_t; everything happens on the loop's thread.
 *
 * Life: conn_connect or conn_accept -> on_open -> on_message* -> on_close, exactly once, after which the pointer is
 * dead. on_open is left out when no connection, or no TLS, comes about. conn_close may be called anywhere, also from a
 * callback; queued bytes are still written for up to `linger_ms` (a peer that does not read cannot keep it longer),
 * then on_close follows from a fresh loop turn. */
#ifndef STARLING_NET_CONN_H
#define STARLING_NET_CONN_H

#include "common/base/err.h"
#include "common/trust/channel.h"
#include "common/wire/msg.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct conn;

struct conn_events {
    void (*on_open)(void *ctx, struct conn *conn);
    /* The msg is fini'd by the connection after the call; raw points into the read buffer. */
    void (*on_message)(void *ctx, struct conn *conn, const struct msg *msg);
    /* The write queue has run empty after something was queued. */
    void (*on_drained)(void *ctx, struct conn *conn);
    /* reason->code 0: the peer closed in order, or we did. Also called when connecting failed. The text begins with the
     * peer's address. ERR_UNAVAILABLE: no connection came about; ERR_ACCESS: TLS did not, for a certificate's sake;
     * ERR_TEMPFAIL: the peer left in TLS's handshake or was too slow for it, or was idle for too long; ERR_IO: broken
     * off, also in the middle of a frame; else what the decoder refused (frame_next, msg_decode), which the peer has
     * been told by a BYE. */
    void (*on_close)(void *ctx, struct conn *conn, const struct err *reason);
};

struct conn_options {
    const struct conn_events *events;
    void *ctx;
    const struct frame_limits *limits;
    uint64_t idle_timeout_ms; /* no byte from the peer for so long: closed with ERR_TEMPFAIL. After a stall of our own
                                 process the sockets are read before the time-out is judged. */
    uint64_t connect_timeout_ms; /* until it is open, TLS's handshake included. 0, here and above: none */
    struct tls_setup *tls;       /* NULL: plain; else needed until conn_connect or conn_accept returns */
    /* conn_accept with TLS: the peer's first bytes are there. They are read, and the handshake begins, after
     * conn_shake, which may be called here or later: half a handshake costs 44 KB, silence next to nothing. NULL: at
     * once. */
    void (*knock)(void *ctx, struct conn *conn);
    size_t queue_max_bytes;   /* conn_send refuses above it: ERR_LIMIT */
    size_t decode_budget;     /* memory for one message */
    uint32_t loopback_source; /* conn_connect only: to 127.0.0.0/8 from 127.0.0.0 + this, so that many connections do
                                 not run out of ports; 0: as the kernel chooses. At most 0xfffffe */
};

/* "host:port", "[v6]:port" -> host and port texts. ERR_USAGE with the sentence. */
int net_split_address(const char *address, char host[256], char port[8], struct err *err);

/* Resolves and connects; failure arrives as on_close. */
int conn_connect(uv_loop_t *loop, const char *address, const struct conn_options *options, struct conn **out,
                 struct err *err);
/* Takes the next connection of a listener; a plain one's on_open is called before it returns. ERR_IO: it is lost; any
 * other failure is for want of memory, and it waits. */
int conn_accept(uv_stream_t *listener, const struct conn_options *options, struct conn **out, struct err *err);
/* Encodes and queues. A CHUNK's raw bytes are written by reference: the msg's payload reference moves to the queue and
 * is dropped when written. The msg may be fini'd afterwards. ERR_STATE (not open, or closing), ERR_LIMIT (queue),
 * ERR_NOMEM, ERR_PROTOCOL (the peer would refuse it); on failure the msg keeps what it owns. */
int conn_send(struct conn *conn, struct msg *msg, struct err *err);
size_t conn_queued_bytes(const struct conn *conn);
void conn_shake(struct conn *conn); /* see conn_options.knock */
void conn_limit(struct conn *conn, const struct frame_limits *limits);
void conn_idle_timeout(struct conn *conn, uint64_t idle_timeout_ms); /* another one from now on; of an open one */
/* Reads nothing for so long: who sends too much is slowed by its own full buffers, which costs this side nothing. What
 * has been read already still comes in. No time-out is judged meanwhile, and the peer's end is seen afterwards. */
void conn_pause(struct conn *conn, uint64_t pause_ms);
void conn_close(struct conn *conn, uint64_t linger_ms);
bool conn_is_open(const struct conn *conn);
/* Who the peer's certificate says it is; NULL: plain, or it showed none. */
const struct trust_subject *conn_subject(const struct conn *conn);
const char *conn_peer(const struct conn *conn);  /* "127.0.0.1:53122" */
uint64_t conn_bytes_in(const struct conn *conn); /* from the peer so far */
/* A frame has been coming in for longer than timeout_ms, and once more that for each 64 KiB of it. Its length is
 * damaged, say, and heartbeats that nobody hears fill it; such a connection is not alive. idle_timeout_ms closes it. */
bool conn_is_stuck(const struct conn *conn, uint64_t timeout_ms);
/* How long last words may take, by the table of time-outs in proto/PROTOCOL.md. */
uint64_t conn_linger_ms(uint64_t idle_timeout_ms);

/* A listening socket. port 0 lets the kernel choose; `bound` receives the real "host:port". ERR_UNAVAILABLE with the
 * address when it is in use. A turn of the loop takes LISTENER_TURN connections at most. */
#define LISTENER_TURN 32
struct listener {
    uv_tcp_t tcp;
    uv_timer_t later;
    uint32_t taken; /* since one was left for later */
    /* Takes it by conn_accept. False: it still waits, and is tried again a little later. All of these are set by the
     * caller. */
    bool (*on_connection)(void *ctx, struct listener *listener);
    void (*on_failure)(void *ctx, const char *why); /* a connection could not be taken; NULL: ignored */
    void *ctx;
    int socket_bytes;                        /* of each buffer that the kernel keeps for a connection; 0: as it likes */
    void (*done)(struct listener *listener); /* of listener_close */
};
/* ERR_USAGE, ERR_UNAVAILABLE; after a failure there is nothing to close. */
int listener_open(uv_loop_t *loop, const char *address, struct listener *listener, char bound[300], struct err *err);
void listener_close(struct listener *listener, void (*done)(struct listener *listener)); /* done may be NULL */

#endif
