#include "client/shell/query.h"

#include "client/shell/exchange.h"
#include "common/base/mem.h"
#include "common/base/random.h"

#include <string.h>

struct query {
    const char *server;
    uint32_t history;
    struct msg_status_reply *out;
};

void status_reply_fini(struct msg_status_reply *reply)
{
    mem_free(reply->clients);
    mem_free(reply->history);
    *reply = (struct msg_status_reply){0};
}

static int say_hello(void *ctx, struct conn *conn, struct err *err)
{
    (void)ctx;
    struct msg hello = {.type = MSG_HELLO,
                        .hello = {.major = FRAME_VERSION,
                                  .minor_least = PROTOCOL_MINOR_LEAST,
                                  .minor_most = PROTOCOL_MINOR_MOST,
                                  .role = ROLE_OPERATOR,
                                  .software = "starling " STARLING_VERSION}};
    int rc = random_bytes(&hello.hello.instance, sizeof hello.hello.instance, err); /* names nobody */
    return rc ? rc : conn_send(conn, &hello, err);
}

/* The message is the connection's; the lists are copied. */
static int take_reply(struct query *query, const struct msg_status_reply *reply, struct err *err)
{
    *query->out = *reply;
    query->out->clients = mem_new(reply->clients_count, sizeof *reply->clients);
    query->out->history = mem_new(reply->history_count, sizeof *reply->history);
    if (!query->out->clients || !query->out->history) {
        status_reply_fini(query->out);
        return err_set(err, ERR_NOMEM, "out of memory for the answer");
    }
    if (reply->clients_count > 0) {
        memcpy(query->out->clients, reply->clients, reply->clients_count * sizeof *reply->clients);
    }
    if (reply->history_count > 0) {
        memcpy(query->out->history, reply->history, reply->history_count * sizeof *reply->history);
    }
    return 1;
}

static int take_message(void *ctx, struct conn *conn, const struct msg *msg, struct err *err)
{
    struct query *query = ctx;
    struct msg status = {.type = MSG_STATUS, .status.history = query->history};
    switch (msg->type) {
    case MSG_WELCOME:
        return conn_send(conn, &status, err);
    case MSG_STATUS_REPLY:
        return take_reply(query, &msg->status_reply, err);
    case MSG_ALIVE:
        return 0;
    default:
        return err_set(err, ERR_PROTOCOL, "%s: answered a question for its status with %s", query->server,
                       msg_type_name(msg->type));
    }
}

int query_status(const char *server, struct tls_setup *tls, uint32_t history, uint64_t timeout_ms,
                 struct msg_status_reply *out, struct err *err)
{
    struct query query = {.server = server, .history = history, .out = out};
    const struct exchange exchange = {.server = server,
                                      .tls = tls,
                                      .timeout_ms = timeout_ms,
                                      .open = say_hello,
                                      .message = take_message,
                                      .ctx = &query};
    *out = (struct msg_status_reply){0};
    int rc = exchange_run(&exchange, err);
    if (rc) {
        status_reply_fini(out);
    }
    return rc;
}
