#include "client/shell/exchange.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define QUEUE_MAX_BYTES 65536

struct talk {
    const struct exchange *exchange;
    uv_loop_t loop;
    uv_timer_t timer;
    uv_signal_t signals[2];
    size_t watched; /* of these */
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

static void on_timeout(uv_timer_t *timer);

static void on_open(void *ctx, struct conn *conn)
{
    struct talk *talk = ctx;
    talk->conn = conn;
    talk->open = true;
    (void)uv_timer_start(&talk->timer, on_timeout, talk->exchange->timeout_ms, 0);
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
static const char somebody[] = "; somebody is there: has the server room for one more, or is it another service?";

/* The loop ends now, or when the system lets go of a name that it still looks up. */
static void finish(struct talk *talk)
{
    if (!uv_is_closing((uv_handle_t *)&talk->timer)) {
        uv_close((uv_handle_t *)&talk->timer, NULL);
    }
}

static void begin(uv_timer_t *timer);

static void end_attempt(struct talk *talk)
{
    const struct exchange *exchange = talk->exchange;
    bool hopeless =
        !exchange->again || talk->done || (talk->err.code != ERR_UNAVAILABLE && talk->err.code != ERR_TEMPFAIL);
    uint64_t wait_ms = hopeless ? 0 : exchange->again(exchange->ctx, &talk->err);
    talk->conn = NULL;
    if (wait_ms == 0) {
        finish(talk);
        return;
    }
    talk->open = false;
    talk->err = (struct err){0};
    (void)uv_timer_start(&talk->timer, begin, wait_ms, 0);
}

static void on_close(void *ctx, struct conn *conn, const struct err *reason)
{
    (void)conn;
    struct talk *talk = ctx;
    if (!talk->done && talk->err.code == 0) {
        int code = code_of(reason->code);
        const char *hint = talk->open ? "" : code == ERR_UNAVAILABLE ? nobody : code == ERR_TEMPFAIL ? somebody : "";
        (void)err_set(&talk->err, code, "%s%s", reason->text, hint);
    }
    end_attempt(talk);
}

static const struct conn_events events = {on_open, on_message, on_drained, on_close};

static void on_timeout(uv_timer_t *timer)
{
    struct talk *talk = timer->data;
    if (talk->err.code == 0) {
        (void)err_set(&talk->err, ERR_TEMPFAIL, "%s: no answer within %llu ms%s", talk->exchange->server,
                      (unsigned long long)talk->exchange->timeout_ms, somebody);
    }
    conn_close(talk->conn, 0);
}

static void begin(uv_timer_t *timer)
{
    struct talk *talk = timer->data;
    const struct exchange *exchange = talk->exchange;
    const struct conn_options options = {
        .events = &events,
        .ctx = talk,
        .limits = &msg_limits_client,
        .connect_timeout_ms = exchange->timeout_ms,
        .tls = exchange->tls,
        .queue_max_bytes = QUEUE_MAX_BYTES,
        .decode_budget = MSG_BUDGET_CLIENT,
    };
    if (conn_connect(&talk->loop, exchange->server, &options, &talk->conn, &talk->err)) {
        end_attempt(talk);
    }
}

/* The first signal asks, whatever had been said by then; the second does not wait for a name to be looked up. */
static void on_signal(uv_signal_t *handle, int number)
{
    struct talk *talk = handle->data;
    if (talk->err.code == ERR_CANCELLED) {
        _exit(1);
    }
    (void)err_set(&talk->err, ERR_CANCELLED, "%s: stopped by signal %d%s", talk->exchange->server, number,
                  talk->done ? ", when all had been said" : "");
    if (talk->conn) {
        conn_close(talk->conn, 0);
    } else {
        finish(talk);
    }
}

/* They keep no loop from ending. One that cannot be watched ends the process. */
static void watch_signals(struct talk *talk)
{
    static const int numbers[] = {SIGTERM, SIGINT};
    while (talk->watched < 2 && uv_signal_init(&talk->loop, &talk->signals[talk->watched]) == 0) {
        talk->signals[talk->watched].data = talk;
        (void)uv_signal_start(&talk->signals[talk->watched], on_signal, numbers[talk->watched]);
        uv_unref((uv_handle_t *)&talk->signals[talk->watched]);
        talk->watched++;
    }
}

int exchange_run(const struct exchange *exchange, struct err *err)
{
    struct talk talk = {.exchange = exchange};
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    int rc = uv_loop_init(&talk.loop);
    if (rc) {
        return err_set(err, ERR_FAILED, "cannot make an event loop: %s", uv_strerror(rc));
    }
    (void)uv_timer_init(&talk.loop, &talk.timer);
    talk.timer.data = &talk;
    if (exchange->stoppable) {
        watch_signals(&talk);
    }
    (void)uv_timer_start(&talk.timer, begin, 0, 0);
    (void)sigaction(SIGPIPE, &ignore, &before); /* a server that dies is no death of who asks it */
    (void)uv_run(&talk.loop, UV_RUN_DEFAULT);
    while (talk.watched > 0) {
        uv_close((uv_handle_t *)&talk.signals[--talk.watched], NULL);
    }
    (void)uv_run(&talk.loop, UV_RUN_DEFAULT);
    (void)sigaction(SIGPIPE, &before, NULL);
    (void)uv_loop_close(&talk.loop);
    if (talk.done && talk.err.code != ERR_CANCELLED) {
        return 0;
    }
    if (err) {
        *err = talk.err;
    }
    return talk.err.code;
}
