/* One short conversation with a server: a loop of its own, one connection, a time-out for the way there and one for
 * what is said. */
#ifndef STARLING_CLIENT_EXCHANGE_H
#define STARLING_CLIENT_EXCHANGE_H

#include "common/net/conn.h"

struct exchange {
    const char *server;
    struct tls_setup *tls; /* NULL: plain */
    uint64_t timeout_ms;   /* of a name, a connection and TLS's handshake together, and then of the answer */
    bool stoppable;        /* SIGTERM and SIGINT end it (ERR_CANCELLED) and not the process */
    /* What is said first; returns conn_send's result. */
    int (*open)(void *ctx, struct conn *conn, struct err *err);
    /* 1: all is said; 0: more is to come; negative: failed, with *err. REJECT and BYE are not asked about. */
    int (*message)(void *ctx, struct conn *conn, const struct msg *msg, struct err *err);
    /* It has failed with ERR_UNAVAILABLE or ERR_TEMPFAIL: in how many ms is it begun again? 0: never, and it ends with
     * what is in *why. NULL: never. */
    uint64_t (*again)(void *ctx, struct err *why);
    void *ctx;
};

/* Blocks until all is said. ERR_UNAVAILABLE, ERR_VERSION, ERR_ACCESS, ERR_PROTOCOL, ERR_TEMPFAIL, ERR_NOMEM,
 * ERR_CANCELLED, or what the callbacks returned. */
int exchange_run(const struct exchange *exchange, struct err *err);

#endif
