/* One question to a server. A loop of its own, one connection, one time-out over all of it. */
#include "client/shell/query.h"

#include "common/base/mem.h"
#include "common/net/conn.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

struct query {
    const char *server;
    uint32_t history;
    uint64_t timeout_ms;
    uv_timer_t timer;
    struct conn *conn;
    bool answered;
    struct msg_status_reply *out;
    struct err err; /* code 0: nothing has gone wrong yet */
};

void status_reply_fini(struct msg_status_reply *reply)
{
    mem_free(reply->clients);
    mem_free(reply->history);
    *reply = (struct msg_status_reply){0};
}

static void end(struct query *query)
{
    struct msg bye = {.type = MSG_BYE, .bye.code = (uint32_t)-query->err.code};
    (void)conn_send(query->conn, &bye, NULL);
    conn_close(query->conn, query->timeout_ms / 10);
}

static void on_open(void *ctx, struct conn *conn)
{
    struct query *query = ctx;
    struct msg hello = {.type = MSG_HELLO,
                        .hello = {.major = FRAME_VERSION,
                                  .minor_least = PROTOCOL_MINOR_LEAST,
                                  .minor_most = PROTOCOL_MINOR_MOST,
                                  .role = ROLE_OPERATOR,
                                  .software = "starling " STARLING_VERSION}};
    (void)getrandom(hello.hello.instance.bytes, sizeof hello.hello.instance.bytes, 0); /* names nobody */
    query->conn = conn;
    if (conn_send(conn, &hello, &query->err)) {
        end(query);
    }
}

/* The message is the connection's; the lists are copied. */
static int take_reply(struct query *query, const struct msg_status_reply *reply)
{
    *query->out = *reply;
    query->out->clients = mem_new(reply->clients_count, sizeof *reply->clients);
    query->out->history = mem_new(reply->history_count, sizeof *reply->history);
    if (!query->out->clients || !query->out->history) {
        status_reply_fini(query->out);
        return err_set(&query->err, ERR_NOMEM, "out of memory for the answer");
    }
    if (reply->clients_count > 0) {
        memcpy(query->out->clients, reply->clients, reply->clients_count * sizeof *reply->clients);
    }
    if (reply->history_count > 0) {
        memcpy(query->out->history, reply->history, reply->history_count * sizeof *reply->history);
    }
    query->answered = true;
    return 0;
}

static void on_message(void *ctx, struct conn *conn, const struct msg *msg)
{
    struct query *query = ctx;
    struct msg status = {.type = MSG_STATUS, .status.history = query->history};
    if (query->answered || query->err.code) {
        return;
    }
    switch (msg->type) {
    case MSG_WELCOME:
        if (conn_send(conn, &status, &query->err)) {
            end(query);
        }
        break;
    case MSG_STATUS_REPLY:
        (void)take_reply(query, &msg->status_reply);
        end(query);
        break;
    case MSG_REJECT:
        (void)err_set(&query->err,
                      msg->reject.code == REJECT_VERSION ? ERR_VERSION
                      : msg->reject.retry                ? ERR_TEMPFAIL
                                                         : ERR_UNAVAILABLE,
                      "%s: refused: %s", query->server, msg->reject.text);
        end(query);
        break;
    case MSG_BYE:
        (void)err_set(&query->err, ERR_UNAVAILABLE, "%s: said goodbye: %s", query->server, msg->bye.text);
        end(query);
        break;
    case MSG_ALIVE:
        break;
    default:
        (void)err_set(&query->err, ERR_PROTOCOL, "%s: answered a question for its status with %s", query->server,
                      msg_type_name(msg->type));
        end(query);
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

static void on_close(void *ctx, struct conn *conn, const struct err *reason)
{
    (void)conn;
    struct query *query = ctx;
    query->conn = NULL;
    uv_close((uv_handle_t *)&query->timer, NULL);
    if (!query->answered && query->err.code == 0) {
        (void)err_set(&query->err, code_of(reason->code), "%s",
                      reason->text[0] ? reason->text : "the server closed the connection without an answer");
    }
}

static const struct conn_events events = {on_open, on_message, on_drained, on_close};

static void on_timeout(uv_timer_t *timer)
{
    struct query *query = timer->data;
    if (query->err.code == 0) {
        (void)err_set(&query->err, ERR_UNAVAILABLE, "%s: no answer within %llu ms", query->server,
                      (unsigned long long)query->timeout_ms);
    }
    conn_close(query->conn, 0);
}

int query_status(const char *server, uint32_t history, uint64_t timeout_ms, struct msg_status_reply *out,
                 struct err *err)
{
    struct query query = {.server = server, .history = history, .timeout_ms = timeout_ms, .out = out};
    const struct conn_options options = {
        .events = &events,
        .ctx = &query,
        .limits = &msg_limits_client,
        .connect_timeout_ms = timeout_ms,
        .queue_max_bytes = 65536,
        .decode_budget = MSG_BUDGET_CLIENT,
    };
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    uv_loop_t loop;
    *out = (struct msg_status_reply){0};
    int rc = uv_loop_init(&loop);
    if (rc) {
        return err_set(err, ERR_FAILED, "cannot make an event loop: %s", uv_strerror(rc));
    }
    (void)uv_timer_init(&loop, &query.timer);
    query.timer.data = &query;
    (void)uv_timer_start(&query.timer, on_timeout, timeout_ms, 0);
    rc = conn_connect(&loop, server, &options, &query.conn, &query.err);
    if (rc) {
        uv_close((uv_handle_t *)&query.timer, NULL);
    }
    (void)sigaction(SIGPIPE, &ignore, &before); /* a server that dies is no death of who asks it */
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    (void)sigaction(SIGPIPE, &before, NULL);
    (void)uv_loop_close(&loop);
    if (!query.answered) {
        status_reply_fini(out);
        if (err) {
            *err = query.err;
        }
    }
    return query.answered ? 0 : query.err.code;
}
