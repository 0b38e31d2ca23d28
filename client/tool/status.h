/* The server's answer to STATUS, as text and as JSON. */
#ifndef STARLING_TOOL_STATUS_H
#define STARLING_TOOL_STATUS_H

#include "common/base/buf.h"
#include "common/wire/msg.h"

struct json_t;

/* Keys as in `starling status --help`; NULL when out of memory. */
struct json_t *status_json(const struct msg_status_reply *reply);
/* One round of the history. */
struct json_t *status_round_json(const struct status_round *round);
int status_text(const struct msg_status_reply *reply, struct buf *out);

#endif
