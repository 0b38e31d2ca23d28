/* One well-formed message of each type, with every field set, and a comparison. For tests that need "all messages".
 * The table is static and copied with memcpy, so that padding is zero as it is in what is decoded: whole structs
 * compare, and a field that the wire forgets is found. */
#ifndef STARLING_TESTS_MSG_SAMPLES_H
#define STARLING_TESTS_MSG_SAMPLES_H

#include "common/base/mem.h"
#include "common/wire/msg.h"

#include <string.h>

#define SAMPLE_HASH(s)                                                                                                 \
    {                                                                                                                  \
        {                                                                                                              \
            s, s + 1, s + 2, s + 3, s + 4, s + 5, s + 6, s + 7, s + 8, s + 9, s + 10, s + 11, s + 12, s + 13, s + 14,  \
                s + 15                                                                                                 \
        }                                                                                                              \
    }
#define SAMPLE_BLOB(kind_, dimension_, encoder_)                                                                       \
    {                                                                                                                  \
        .kind = kind_, .round = 7, .element = ELEMENT_F32, .count = 2560, .dimension = dimension_,                     \
        .encoder = encoder_, .bytes = 10240, .layout = SAMPLE_HASH(1), .hash = SAMPLE_HASH(kind_ * 16),                \
    }

#define SAMPLE_WATCH(rank_)                                                                                            \
    {                                                                                                                  \
        true, 0.5, -2.25, 0.75, rank_                                                                                  \
    }

#define SAMPLE_PRIVACY(releases_)                                                                                      \
    {                                                                                                                  \
        true, releases_, 1.5, 1e-5, 2.5, 1e-6                                                                          \
    }

static const struct msg sample_msgs[MSG_TYPE_END] = {
    [MSG_HELLO] = {.type = MSG_HELLO,
                   .hello = {.major = FRAME_VERSION,
                             .minor_least = 1,
                             .minor_most = 3,
                             .capabilities = CAPABILITY_BF16 | CAPABILITY_TLS,
                             .role = ROLE_TRAINER,
                             .name = "site-A_7.example",
                             .instance = SAMPLE_HASH(20),
                             .software = "starling 0.1.0",
                             .has_saved = true,
                             .saved_run = SAMPLE_HASH(40),
                             .saved_plan = SAMPLE_HASH(60),
                             .saved_round = 9}},
    [MSG_WELCOME] = {.type = MSG_WELCOME,
                     .welcome = {.minor = 1,
                                 .capabilities = CAPABILITY_F16,
                                 .run = SAMPLE_HASH(40),
                                 .boot = SAMPLE_HASH(80),
                                 .plan_hash = SAMPLE_HASH(60),
                                 .round = 6,
                                 .has_counted = true,
                                 .counted_round = 5,
                                 .idle_timeout_ms = 60000}},
    [MSG_REJECT] = {.type = MSG_REJECT,
                    .reject = {.code = REJECT_VERSION,
                               .text = "the server speaks 1.1 to 1.2; \xe2\x80\x9cno\xe2\x80\x9d",
                               .retry = true,
                               .retry_after_ms = 0,
                               .minor_least = 1,
                               .minor_most = 2}},
    [MSG_READY] = {.type = MSG_READY,
                   .ready = {.layout = SAMPLE_HASH(1), .images = UINT64_C(1) << 33, .withholds_features = true}},
    [MSG_ROUND] = {.type = MSG_ROUND,
                   .round = {.round = 7,
                             .remaining_ms = 1800000,
                             .model = SAMPLE_BLOB(BLOB_MODEL, 0, 0),
                             .has_remote = true,
                             .remote = SAMPLE_BLOB(BLOB_REMOTE, 128, 1)}},
    [MSG_FETCH] = {.type = MSG_FETCH, .fetch = {BLOB_REMOTE, 7, UINT64_C(3) << 30}},
    [MSG_CHUNK] = {.type = MSG_CHUNK, .chunk = {BLOB_UPDATE, 7, 4096}},
    [MSG_PROGRESS] = {.type = MSG_PROGRESS, .progress = {7, 3, 40, 5.5, 210.25}},
    [MSG_ALIVE] = {.type = MSG_ALIVE, .alive = {.round = 7, .remaining_ms = 1000, .waits_for = "2 of 3 clients"}},
    [MSG_OFFER] = {.type = MSG_OFFER,
                   .offer = {.round = 7,
                             .report = {1500, 3000, 24, 5.5, 5, 0.5, 0.25, 180, 16000, SAMPLE_WATCH(2), SAMPLE_WATCH(3),
                                        SAMPLE_PRIVACY(2)},
                             .update = SAMPLE_BLOB(BLOB_UPDATE, 0, 0),
                             .has_features = true,
                             .features = SAMPLE_BLOB(BLOB_FEATURES, 128, 1)}},
    [MSG_GRANT] = {.type = MSG_GRANT, .grant = {BLOB_FEATURES, 7, 512}},
    [MSG_QUEUED] = {.type = MSG_QUEUED, .queued = {7, 2, QUEUED_SLOW}},
    [MSG_ACCEPTED] = {.type = MSG_ACCEPTED, .accepted = {7}},
    [MSG_DECLINED] = {.type = MSG_DECLINED,
                      .declined = {.round = 7, .reason = DECLINE_NORM, .text = "the update is 40 times as long"}},
    [MSG_ROUND_END] = {.type = MSG_ROUND_END, .round_end = {7, 3, true, false}},
    [MSG_BYE] = {.type = MSG_BYE, .bye = {.code = 3, .text = "stopping"}},
    [MSG_AGGREGATE] = {.type = MSG_AGGREGATE, .aggregate = {.round = 6, .model = SAMPLE_BLOB(BLOB_MODEL, 0, 0)}},
    [MSG_EVALUATED] = {.type = MSG_EVALUATED, .evaluated = {6, 0.75, 10000}},
    [MSG_ENROL] = {.type = MSG_ENROL},
    [MSG_CERTIFICATE] = {.type = MSG_CERTIFICATE},
    [MSG_STATUS] = {.type = MSG_STATUS, .status = {20}},
    [MSG_STATUS_REPLY] = {.type = MSG_STATUS_REPLY,
                          .status_reply = {.run = SAMPLE_HASH(40),
                                           .plan_hash = SAMPLE_HASH(60),
                                           .software = "starling 0.1.0",
                                           .round = 6,
                                           .rounds = 50,
                                           .state = "open",
                                           .waits_for = "2 of 3 clients",
                                           .remaining_ms = 61000,
                                           .waited_ms = 62000,
                                           .uptime_ms = UINT64_C(5000000000),
                                           .bank_rows = 4096,
                                           .bank_capacity = 65536,
                                           .bank_contributors = 3,
                                           .peak_rss_bytes = UINT64_C(6) << 30,
                                           .alarm = "the representation has collapsed"}},
};

static const struct status_client sample_clients[2] = {
    {"site-0",
     ROLE_TRAINER,
     "training",
     12,
     true,
     3,
     40,
     4.25,
     200.5,
     1000,
     UINT64_C(1) << 40,
     {0, 1, 2, 3, 4},
     SAMPLE_WATCH(4),
     SAMPLE_WATCH(5),
     true,
     SAMPLE_PRIVACY(3)},
    {"site-1",
     ROLE_OBSERVER,
     "lost",
     70000,
     false,
     0,
     0,
     0,
     0,
     9,
     8,
     {0, 5, 6, 7, 8},
     {0},
     SAMPLE_WATCH(6),
     false,
     {0}},
};
static const struct status_round sample_history[3] = {
    {4, 1.5, 2, 0, 5, 4, 1, 0.5, 77, 78, {0}, {0}, true, 0},
    {5, 2.5, 1, 1, -1.5, 4, 1, 0.25, 79, 80, SAMPLE_WATCH(7), SAMPLE_WATCH(8), true, 0.5},
    {6, 1.25, 2, 0, 4, 3, 1, 0.5, 81, 82, SAMPLE_WATCH(9), {0}, false, 0},
};
static const char sample_plan[] = "rounds: 50\nmin_clients: 2\n";

static inline void *sample_copy(const void *data, size_t len)
{
    void *copy = mem_new(len, 1);
    if (copy) {
        memcpy(copy, data, len);
    }
    return copy;
}

/* The caller calls msg_fini. A CHUNK's raw bytes are held by its payload. */
static inline void sample_msg(uint8_t type, struct msg *msg)
{
    memcpy(msg, &sample_msgs[type], sizeof *msg);
    if (type == MSG_WELCOME) {
        msg->welcome.plan = sample_copy(sample_plan, sizeof sample_plan - 1);
        msg->welcome.plan_len = sizeof sample_plan - 1;
    } else if (type == MSG_STATUS_REPLY) {
        msg->status_reply.clients = sample_copy(sample_clients, sizeof sample_clients);
        msg->status_reply.clients_count = 2;
        msg->status_reply.history = sample_copy(sample_history, sizeof sample_history);
        msg->status_reply.history_count = 3;
    } else if (type == MSG_ENROL) {
        msg->enrol.secret = sample_copy("0123456789abcdef0123456789ABCDEF", 32);
        msg->enrol.secret_len = 32;
        msg->enrol.request = sample_copy("request", 7);
        msg->enrol.request_len = 7;
    } else if (type == MSG_CERTIFICATE) {
        msg->certificate.certificate = sample_copy("certificate", 11);
        msg->certificate.certificate_len = 11;
        msg->certificate.authority = sample_copy("authority", 9);
        msg->certificate.authority_len = 9;
    } else if (type == MSG_CHUNK) {
        msg->payload = bytes_copy("0123456789abcdef", 16);
        msg->raw = msg->payload ? msg->payload->data : NULL;
        msg->raw_len = 16;
    }
}

static inline bool sample_same_bytes(const void *a, const void *b, size_t len)
{
    return len == 0 || memcmp(a, b, len) == 0;
}

static inline bool sample_same(const struct msg *a, const struct msg *b)
{
    if (a->type != b->type || a->raw_len != b->raw_len || !sample_same_bytes(a->raw, b->raw, a->raw_len)) {
        return false;
    }
    struct msg x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    x.raw = y.raw = NULL;
    x.payload = y.payload = NULL;
    bool same = true;
    if (a->type == MSG_WELCOME) {
        same = x.welcome.plan_len == y.welcome.plan_len &&
               sample_same_bytes(x.welcome.plan, y.welcome.plan, x.welcome.plan_len);
        x.welcome.plan = y.welcome.plan = NULL;
    } else if (a->type == MSG_STATUS_REPLY) {
        struct msg_status_reply *p = &x.status_reply, *q = &y.status_reply;
        same = p->clients_count == q->clients_count && p->history_count == q->history_count &&
               sample_same_bytes(p->clients, q->clients, p->clients_count * sizeof *p->clients) &&
               sample_same_bytes(p->history, q->history, p->history_count * sizeof *p->history);
        p->clients = q->clients = NULL;
        p->history = q->history = NULL;
    }
    if (a->type == MSG_ENROL) {
        struct msg_enrol *p = &x.enrol, *q = &y.enrol;
        same = p->secret_len == q->secret_len && p->request_len == q->request_len &&
               sample_same_bytes(p->secret, q->secret, p->secret_len) &&
               sample_same_bytes(p->request, q->request, p->request_len);
        p->secret = q->secret = p->request = q->request = NULL;
    } else if (a->type == MSG_CERTIFICATE) {
        struct msg_certificate *p = &x.certificate, *q = &y.certificate;
        same = p->certificate_len == q->certificate_len && p->authority_len == q->authority_len &&
               sample_same_bytes(p->certificate, q->certificate, p->certificate_len) &&
               sample_same_bytes(p->authority, q->authority, p->authority_len);
        p->certificate = q->certificate = p->authority = q->authority = NULL;
    }
    return same && memcmp(&x, &y, sizeof x) == 0;
}

#endif
