/* What conn.c (an open connection), conn_tls.c (what TLS adds), conn_open.c (how it comes about) and conn_close.c (how
 * it ends) share. Inside common/net only. */
#ifndef STARLING_NET_CONN_STATE_H
#define STARLING_NET_CONN_STATE_H

#include "common/net/address.h"
#include "common/net/conn.h"

enum conn_state {
    CONN_RESOLVING,  /* waits for the resolver; conn_connect only */
    CONN_CONNECTING, /* waits for the peer to take the connection */
    CONN_SHAKING,    /* waits for TLS's handshake */
    CONN_OPEN,       /* waits for frames */
    CONN_LINGERING, /* waits for the queue to be written and the peer to close; drops what still comes, within bounds */
    CONN_CLOSED,    /* waits for libuv to let go of the handles */
};

/* Outlives the connection when that is closed while the resolver works. */
struct lookup {
    uv_getaddrinfo_t request;
    struct conn *conn; /* NULL: the connection is gone */
};

/* A message on its way out, or static bytes. */
struct write {
    uv_write_t request; /* of a plain connection */
    struct conn *conn;
    struct write *next;    /* of a TLS connection: what is encrypted after it */
    struct buf head;       /* frame header and protobuf part; empty for static bytes */
    struct bytes *payload; /* holds the raw part */
    uv_buf_t bufs[2];
    unsigned count;
    size_t total;
};
void write_free(struct write *write);

struct tls; /* conn_tls.c */

struct conn {
    enum conn_state state;
    uv_loop_t *loop;
    uv_tcp_t tcp;
    uv_timer_t timer; /* connect, idle or linger time-out, by state */
    uv_connect_t connect;
    uv_shutdown_t shutdown;
    struct lookup *lookup;
    struct addrinfo *addresses, *untried;
    struct conn_options options;
    struct frame_decoder decoder;
    struct tls *tls; /* NULL: plain */
    struct err reason;
    char peer[NET_ADDRESS_MAX];
    uint64_t last_read_ms;
    uint64_t frame_ms; /* when the frame that is not whole yet began */
    uint64_t bytes_in;
    size_t dropped_bytes; /* while lingering */
    size_t queued_bytes;
    int handles;       /* not closed yet */
    bool paused;       /* conn_pause: nothing is read until the timer ends it */
    bool silent;       /* nobody has seen it: no on_close */
    bool shut, at_end; /* lingering: our side is shut; the peer's is */
};

/* conn_open.c: a zeroed connection with its handles. NULL: *err says why. */
struct conn *conn_new(uv_loop_t *loop, const struct conn_options *options, struct err *err);
/* conn.c: the socket is connected; with TLS the handshake follows. */
void conn_connected(struct conn *conn);
/* conn.c: frames may come and go. */
void conn_opened(struct conn *conn);
void conn_take_bytes(struct conn *conn, const void *data, size_t len); /* plaintext, FRAME_READ_MAX at most */
void conn_take_end(struct conn *conn, int status);                     /* UV_EOF: in order */
/* conn.c: FRAME_READ_MAX bytes for as long as one read takes. NULL: no memory. */
uint8_t *read_buffer_take(void);
void read_buffer_give(void *buffer); /* NULL is fine */
/* conn.c: a write has ended; `bytes` of the queue are done with. */
void conn_written(struct conn *conn, size_t bytes, int status);
/* conn.c: reads on, if it was paused. */
void conn_resume(struct conn *conn);
/* conn.c: libuv is to read. */
int conn_read_start(struct conn *conn);
/* conn.c: queues bytes that are no message of ours; `data` must outlive the program. */
void conn_send_static(struct conn *conn, const void *data, size_t len);

/* conn_tls.c */
int conn_tls_new(struct conn *conn, struct tls_setup *setup, struct err *err);
void conn_tls_free(struct conn *conn);
bool conn_tls_waits(const struct conn *conn);                            /* for conn_shake: nothing is to be read */
void conn_tls_start(struct conn *conn);                                  /* the socket is connected */
void conn_tls_input(struct conn *conn, const uint8_t *data, size_t len); /* from the socket */
void conn_tls_submit(struct conn *conn, struct write *write);            /* takes `write` over, whatever comes */
void conn_tls_shut(struct conn *conn);                                   /* when all is written: our side is done */
/* The connection is about to be closed: TLS's last word, if that is true and can be said at once. Without it the peer
 * must take the end for an attack. */
void conn_tls_farewell(struct conn *conn);
bool conn_tls_has_ended(const struct conn *conn);

/* conn_close.c */
void conn_shut(struct conn *conn);                             /* our side, behind what libuv has queued */
void conn_fail(struct conn *conn, int code, const char *what); /* at once, with "peer: what" */
void conn_refuse(struct conn *conn, const struct err *why);    /* tells the peer, lingers */
void conn_finish(struct conn *conn);                           /* at once, with the reason that is there */
void conn_handle_closed(uv_handle_t *handle);                  /* libuv has let go of the timer or the socket */
/* conn_open.c */
void conn_forget_lookup(struct conn *conn);

#endif
