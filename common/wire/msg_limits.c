/* How long a payload of each type may be, by the reader's state. They are judged from the header, before anything is
 * allocated. Each is the longest message of version 1 with room for fields that later versions add; an
 * unauthenticated peer gets the least. */
#include "common/wire/msg.h"

#define SMALL  256u  /* a few numbers */
#define TEXTED 1024u /* with a text, or with two blob descriptions */
#define CHUNK  (FRAME_CHUNK_MAX + FRAME_CHUNK_PROTO_MAX)

const struct frame_limits msg_limits_server_new = {
    .most[MSG_HELLO] = TEXTED,
    .most[MSG_BYE] = TEXTED,
};

const struct frame_limits msg_limits_server_stranger = {
    .most[MSG_ENROL] = TEXTED,
    .most[MSG_BYE] = TEXTED,
};

#define TRAINER                                                                                                        \
    .most[MSG_READY] = SMALL, .most[MSG_FETCH] = SMALL, .most[MSG_CHUNK] = CHUNK, .most[MSG_PROGRESS] = SMALL,         \
    .most[MSG_OFFER] = TEXTED, .most[MSG_ENROL] = TEXTED, .most[MSG_BYE] = TEXTED

const struct frame_limits msg_limits_server_trainer = {TRAINER, .chunks_end = true};
const struct frame_limits msg_limits_server_uploading = {TRAINER};

const struct frame_limits msg_limits_server_observer = {
    .most[MSG_READY] = SMALL,
    .most[MSG_FETCH] = SMALL,
    .most[MSG_PROGRESS] = SMALL,
    .most[MSG_EVALUATED] = SMALL,
    .most[MSG_ENROL] = TEXTED,
    .most[MSG_BYE] = TEXTED,
};

const struct frame_limits msg_limits_server_operator = {
    .most[MSG_STATUS] = SMALL,
    .most[MSG_ENROL] = TEXTED,
    .most[MSG_BYE] = TEXTED,
};

const struct frame_limits msg_limits_client = {
    .most[MSG_WELCOME] = MSG_PLAN_MAX + TEXTED,
    .most[MSG_REJECT] = TEXTED,
    .most[MSG_ROUND] = TEXTED,
    .most[MSG_CHUNK] = CHUNK,
    .most[MSG_ALIVE] = TEXTED,
    .most[MSG_GRANT] = SMALL,
    .most[MSG_QUEUED] = SMALL,
    .most[MSG_ACCEPTED] = SMALL,
    .most[MSG_DECLINED] = TEXTED,
    .most[MSG_ROUND_END] = SMALL,
    .most[MSG_BYE] = TEXTED,
    .most[MSG_STATUS_REPLY] = 8u << 20,
    .most[MSG_AGGREGATE] = TEXTED,
    .most[MSG_CERTIFICATE] = 2 * MSG_CERTIFICATE_MAX + SMALL,
};
