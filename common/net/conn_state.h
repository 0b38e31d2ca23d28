/* What conn.c (an open connection), conn_open.c (how it comes about) and conn_close.c (how it ends) share. Inside
 * common/net only. */
#ifndef STARLING_NET_CONN_STATE_H
#define STARLING_NET_CONN_STATE_H

#include "common/net/address.h"
#include "common/net/conn.h"

enum conn_state {
    CONN_RESOLVING,  /* waits for the resolver; conn_connect only */
    CONN_CONNECTING, /* waits for the peer to take the connection */
    CONN_OPEN,       /* waits for frames */
    CONN_LINGERING, /* waits for the queue to be written and the peer to close; drops what still comes, within bounds */
    CONN_CLOSED,    /* waits for libuv to let go of the handles */
};

/* Outlives the connection when that is closed while the resolver works. */
struct lookup {
    uv_getaddrinfo_t request;
    struct conn *conn; /* NULL: the connection is gone */
};

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

/* conn_open.c: a zeroed connection with its handles. NULL: out of memory. */
struct conn *conn_new(uv_loop_t *loop, const struct conn_options *options);
/* conn.c: the socket is connected. */
void conn_opened(struct conn *conn);
/* conn.c: reads on, if it was paused. */
void conn_resume(struct conn *conn);
/* conn.c: queues bytes that are no message of ours; `data` must outlive the program. */
void conn_send_static(struct conn *conn, const void *data, size_t len);

/* conn_close.c */
void conn_fail(struct conn *conn, int code, const char *what); /* at once, with "peer: what" */
void conn_refuse(struct conn *conn, const struct err *why);    /* tells the peer, lingers */
void conn_finish(struct conn *conn);                           /* at once, with the reason that is there */
void conn_handle_closed(uv_handle_t *handle);                  /* libuv has let go of the timer or the socket */
/* conn_open.c */
void conn_forget_lookup(struct conn *conn);

#endif
