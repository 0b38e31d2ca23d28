#include "client/shell/exchange.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define QUEUE_MAX_BYTES 65536

struct talk {
    const struct exchange *exchange;
    uv_timer_t timer;
    struct conn *conn;
    bool open; /* somebody is there */
    bool done;
    struct err err; /* code 0: nothing has gone wrong yet */
};

static void end(struct talk *talk)
{
    struct msg bye = {.type = MSG_BYE, .bye.code = (uint32_t)-talk->err.code};
    (void)conn_send(talk->conn, &bye, NULL);
    conn_close(talk->conn, talk->exchange->timeout_ms / 10);
}

static void on_open(void *ctx, struct conn *conn)
{
    struct talk *talk = ctx;
    talk->conn = conn;
    talk->open = true;
    if (talk->exchange->open(talk->exchange->ctx, conn, &talk->err)) {
        end(talk);
    }
}

static void on_message(void *ctx, struct conn *conn, const struct msg *msg)
{
    struct talk *talk = ctx;
    if (talk->done || talk->err.code) {
        return;
    }
    switch (msg->type) {
    case MSG_REJECT:
        (void)err_set(&talk->err,
                      msg->reject.code == REJECT_VERSION  ? ERR_VERSION
                      : msg->reject.code == REJECT_ACCESS ? ERR_ACCESS
                      : msg->reject.retry                 ? ERR_TEMPFAIL
                                                          : ERR_UNAVAILABLE,
                      "%s: refused: %s", talk->exchange->server, msg->reject.text);
        break;
    case MSG_BYE:
        (void)err_set(&talk->err, msg->bye.code == (uint32_t)-ERR_VERSION ? ERR_VERSION : ERR_UNAVAILABLE,
                      "%s: said goodbye: %s", talk->exchange->server, msg->bye.text);
        break;
    default:
        talk->done = talk->exchange->message(talk->exchange->ctx, conn, msg, &talk->err) == 1;
    }
    if (talk->done || talk->err.code) {
        end(talk);
    }
}

static void on_drained(void *ctx, struct conn *conn)
{
    (void)ctx;
    (void)conn;
}

static int code_of(int code)
{
    switch (code) {
    case ERR_VERSION:
    case ERR_ACCESS:
    case ERR_TEMPFAIL:
    case ERR_NOMEM:
        return code;
    case ERR_PROTOCOL:
    case ERR_STATE:
    case ERR_LIMIT:
        return ERR_PROTOCOL;
    default:
        return ERR_UNAVAILABLE;
    }
}

static const char nobody[] =
    "; does the server run, is this the address on which it listens, and has it room for one more?";

static void on_close(void *ctx, struct conn *conn, const struct err *reason)
{
    (void)conn;
    struct talk *talk = ctx;
    if (!talk->done && talk->err.code == 0) {
        int code = code_of(reason->code);
        (void)err_set(&talk->err, code, "%s%s", reason->text, code == ERR_UNAVAILABLE && !talk->open ? nobody : "");
    }
    uv_close((uv_handle_t *)&talk->timer, NULL);
}

static const struct conn_events events = {on_open, on_message, on_drained, on_close};

static void on_timeout(uv_timer_t *timer)
{
    struct talk *talk = timer->data;
    if (talk->err.code == 0) {
        (void)err_set(&talk->err, ERR_UNAVAILABLE, "%s: no answer within %llu ms%s", talk->exchange->server,
                      (unsigned long long)talk->exchange->timeout_ms, talk->open ? "" : nobody);
    }
    conn_close(talk->conn, 0);
}

int exchange_run(const struct exchange *exchange, struct err *err)
{
    struct talk talk = {.exchange = exchange};
    const struct conn_options options = {
        .events = &events,
        .ctx = &talk,
        .limits = &msg_limits_client,
        .connect_timeout_ms = exchange->timeout_ms,
        .tls = exchange->tls,
        .queue_max_bytes = QUEUE_MAX_BYTES,
        .decode_budget = MSG_BUDGET_CLIENT,
    };
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    uv_loop_t loop;
    int rc = uv_loop_init(&loop);
    if (rc) {
        return err_set(err, ERR_FAILED, "cannot make an event loop: %s", uv_strerror(rc));
    }
    (void)uv_timer_init(&loop, &talk.timer);
    talk.timer.data = &talk;
    (void)uv_timer_start(&talk.timer, on_timeout, exchange->timeout_ms, 0);
    rc = conn_connect(&loop, exchange->server, &options, &talk.conn, &talk.err);
    if (rc) {
        uv_close((uv_handle_t *)&talk.timer, NULL);
    }
    (void)sigaction(SIGPIPE, &ignore, &before); /* a server that dies is no death of who asks it */
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    (void)sigaction(SIGPIPE, &before, NULL);
    (void)uv_loop_close(&loop);
    if (!talk.done && err) {
        *err = talk.err;
    }
    return talk.done ? 0 : talk.err.code;
}
