/* One question to a server, as an operator: connect, HELLO, STATUS, answer, BYE. */
#ifndef STARLING_CLIENT_QUERY_H
#define STARLING_CLIENT_QUERY_H

#include "common/base/err.h"
#include "common/trust/channel.h"
#include "common/wire/msg.h"

/* Blocks for at most timeout_ms. tls: an operator's, or NULL for a plain server. ERR_UNAVAILABLE, ERR_VERSION,
 * ERR_ACCESS, ERR_PROTOCOL, ERR_TEMPFAIL. *out: msg_fini of a msg that holds it, see status_reply_fini. */
int query_status(const char *server, struct tls_setup *tls, uint32_t history, uint64_t timeout_ms,
                 struct msg_status_reply *out, struct err *err);
void status_reply_fini(struct msg_status_reply *reply);

#endif
