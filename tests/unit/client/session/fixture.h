/* One session, the plan that its server has, and the steps that lead it into each state. The server's side is played by
 * hand: every message is built here, so that a test sees what the session makes of exactly that. */
#ifndef STARLING_TESTS_SESSION_FIXTURE_H
#define STARLING_TESTS_SESSION_FIXTURE_H

#include "client/session/session.h"
#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define IDLE_MS 8000u
#define DURABLE 2u /* last durable round of the server's WELCOME; round 3 opens */
#define OPEN    3u

struct fixture {
    struct plan plan;
    struct buf plan_bytes;
    struct layout *layout;
    struct session *session;
    struct session_actions actions; /* of the last step */
    uint64_t now_ms;
    float *model;  /* [total], of round OPEN */
    float *remote; /* [2, features] */
    uint32_t logged_levels[4];
    char last_event[32], last_fields[512];
};

static inline void fixture_log(void *ctx, enum log_level level, const char *event, const char *fields)
{
    struct fixture *f = ctx;
    f->logged_levels[level]++;
    (void)snprintf(f->last_event, sizeof f->last_event, "%s", event);
    (void)snprintf(f->last_fields, sizeof f->last_fields, "%.500s", fields);
}

static inline struct hash128 id(uint8_t byte)
{
    struct hash128 hash;
    memset(&hash, byte, sizeof hash);
    return hash;
}

static inline struct blob blob_of(const struct fixture *f, uint32_t kind, uint32_t round, const float *data,
                                  uint64_t count)
{
    return (struct blob){.kind = kind,
                         .round = round,
                         .element = ELEMENT_F32,
                         .count = count,
                         .bytes = count * sizeof(float),
                         .dimension = kind == BLOB_REMOTE || kind == BLOB_FEATURES ? f->plan.model.features : 0,
                         .layout = f->layout->fingerprint,
                         .hash = hash_of(data, count * sizeof(float))};
}

static inline void fixture_plan(struct fixture *f, uint32_t width)
{
    *f = (struct fixture){.now_ms = 1000};
    config_defaults(&plan_set, &f->plan);
    f->plan.rounds = 5;
    f->plan.batch = 8;
    f->plan.bn_groups = 2;
    f->plan.model.width = width;
    f->plan.model.stages = 1;
    f->plan.model.blocks[0] = 1;
    f->plan.model.input = 8;
    f->plan.model.features = 8;
    f->plan.fusion.remote = 4;
    buf_init(&f->plan_bytes, MSG_PLAN_MAX);
    assert_int_equal(plan_check(&f->plan, NULL), 0);
    assert_int_equal(plan_encode(&f->plan, &f->plan_bytes), 0);
    assert_int_equal(layout_new(&f->plan.model, &f->layout, NULL), 0);
    f->model = mem_new(f->layout->total, sizeof(float));
    f->remote = mem_new(4 * 8, sizeof(float));
    for (uint64_t i = 0; i < f->layout->total; i++) {
        f->model[i] = (float)i * 0x1p-10f;
    }
    for (int i = 0; i < 2; i++) {
        f->remote[8 * i] = 1.0f;
    }
}

static inline struct session_options fixture_options(void)
{
    struct session_options options = {.role = ROLE_TRAINER, .instance = id(7), .seed = 1};
    (void)snprintf(options.name, sizeof options.name, "site-a");
    return options;
}

static inline void fixture_start(struct fixture *f, const struct session_options *options)
{
    assert_int_equal(session_new(options, f->now_ms, &f->session, NULL), 0);
}

static inline void fixture_fini(struct fixture *f)
{
    session_free(f->session);
    session_actions_fini(&f->actions);
    layout_free(f->layout);
    buf_fini(&f->plan_bytes);
    mem_free(f->model);
    mem_free(f->remote);
}

/* ---- events ---- */

static inline void step(struct fixture *f, const struct session_event *event)
{
    session_actions_clear(&f->actions);
    assert_int_equal(session_step(f->session, event, f->now_ms, &f->actions), 0);
}

static inline void happens(struct fixture *f, enum session_event_kind kind)
{
    struct err reason = {.code = 0};
    step(f, &(struct session_event){.kind = kind, .reason = &reason, .images = 100});
}

static inline void fails(struct fixture *f, enum session_event_kind kind, int code)
{
    struct err reason;
    (void)err_set(&reason, code, "made to fail");
    step(f, &(struct session_event){.kind = kind, .reason = &reason});
}

static inline void hears(struct fixture *f, struct msg msg)
{
    step(f, &(struct session_event){.kind = SESSION_MESSAGE, .message = &msg});
    msg_fini(&msg);
}

/* Time passes up to the next tick that the session asks for. */
static inline void tick(struct fixture *f)
{
    uint64_t next = session_next_ms(f->session);
    assert_true(next != UINT64_MAX);
    f->now_ms = next > f->now_ms ? next : f->now_ms;
    happens(f, SESSION_TICK);
}

static inline struct contribution *contribution_of(const struct fixture *f, uint32_t round)
{
    struct contribution *c = mem_new(1, sizeof *c);
    c->round = round;
    c->report = (struct report){.images = 100, .seen = 100, .steps = 12, .loss = 1.5};
    c->update = bytes_new(f->layout->total * sizeof(float));
    c->features = bytes_new(3 * 8 * sizeof(float));
    memset(c->update->data, (int)round, c->update->len);
    contribution_describe(c, &f->plan, f->layout);
    return c;
}

static inline void trained(struct fixture *f, uint32_t round)
{
    step(f, &(struct session_event){.kind = SESSION_TRAINED, .contribution = contribution_of(f, round)});
}

/* ---- what the server says ---- */

static inline struct msg welcome_of(const struct fixture *f)
{
    struct msg msg = {.type = MSG_WELCOME};
    msg.welcome.minor = 1;
    msg.welcome.run = id(1);
    msg.welcome.boot = id(2);
    msg.welcome.plan = mem_new(f->plan_bytes.len, 1);
    memcpy(msg.welcome.plan, f->plan_bytes.data, f->plan_bytes.len);
    msg.welcome.plan_len = (uint32_t)f->plan_bytes.len;
    msg.welcome.plan_hash = plan_hash(f->plan_bytes.data, f->plan_bytes.len);
    msg.welcome.round = DURABLE;
    msg.welcome.idle_timeout_ms = IDLE_MS;
    return msg;
}

static inline struct msg round_of(const struct fixture *f, uint32_t round)
{
    struct msg msg = {.type = MSG_ROUND};
    msg.round.round = round;
    msg.round.remaining_ms = 60000;
    msg.round.model = blob_of(f, BLOB_MODEL, round, f->model, f->layout->total);
    msg.round.has_remote = true;
    msg.round.remote = blob_of(f, BLOB_REMOTE, round, f->remote, 2 * 8);
    return msg;
}

static inline struct msg chunk_of(const struct fixture *f, uint32_t kind, uint32_t round, uint64_t offset)
{
    uint64_t bytes = kind == BLOB_MODEL ? f->layout->total * sizeof(float) : 2 * 8 * sizeof(float);
    const uint8_t *data = (const uint8_t *)(kind == BLOB_MODEL ? f->model : f->remote);
    uint64_t left = offset < bytes ? bytes - offset : 0;
    return (struct msg){.type = MSG_CHUNK,
                        .chunk = {.kind = kind, .round = round, .offset = offset},
                        .raw = data + (left ? offset : 0),
                        .raw_len = left < FRAME_CHUNK_MAX ? (uint32_t)left : FRAME_CHUNK_MAX};
}

static inline struct msg grant_of(uint32_t kind, uint32_t round, uint64_t offset)
{
    return (struct msg){.type = MSG_GRANT, .grant = {.kind = kind, .round = round, .offset = offset}};
}

static inline struct msg round_end_of(uint32_t round, bool counted, bool finished)
{
    return (struct msg){.type = MSG_ROUND_END,
                        .round_end = {.round = round, .accepted = 2, .counted = counted, .finished = finished}};
}

/* ---- what the session did ---- */

static inline const struct session_action *action_of(const struct fixture *f, enum session_action_kind kind)
{
    for (size_t i = 0; i < f->actions.count; i++) {
        if (f->actions.items[i].kind == kind) {
            return &f->actions.items[i];
        }
    }
    return NULL;
}

static inline const struct msg *sent(const struct fixture *f, uint8_t type)
{
    for (size_t i = 0; i < f->actions.count; i++) {
        if (f->actions.items[i].kind == SESSION_SEND && f->actions.items[i].message.type == type) {
            return &f->actions.items[i].message;
        }
    }
    return NULL;
}

static inline const struct session_action *must(const struct fixture *f, enum session_action_kind kind)
{
    const struct session_action *action = action_of(f, kind);
    if (!action) {
        fail_msg("no action %d; state %s", (int)kind, session_state(f->session));
    }
    return action;
}

static inline const struct msg *must_send(const struct fixture *f, uint8_t type)
{
    const struct msg *msg = sent(f, type);
    if (!msg) {
        fail_msg("no %s was sent; state %s", msg_type_name(type), session_state(f->session));
    }
    return msg;
}

#define is_in(f, name) assert_string_equal(session_state((f)->session), name)

/* ---- the way there ---- */

static inline void to_greeting(struct fixture *f)
{
    tick(f);
    must(f, SESSION_CONNECT);
    happens(f, SESSION_CONNECTED);
    must_send(f, MSG_HELLO);
}
static inline void to_ready(struct fixture *f)
{
    to_greeting(f);
    hears(f, welcome_of(f));
    if (action_of(f, SESSION_PREPARE)) {
        happens(f, SESSION_PREPARED);
    }
    must_send(f, MSG_READY);
}
static inline void to_fetching(struct fixture *f)
{
    to_ready(f);
    hears(f, round_of(f, OPEN));
    must_send(f, MSG_FETCH);
}
static inline void fetch_all(struct fixture *f)
{
    for (const struct msg *fetch = sent(f, MSG_FETCH); fetch; fetch = sent(f, MSG_FETCH)) {
        struct msg_fetch asked = fetch->fetch;
        uint64_t bytes = asked.kind == BLOB_MODEL ? f->layout->total * sizeof(float) : 2 * 8 * sizeof(float);
        for (uint64_t at = asked.offset; at < bytes; at += FRAME_CHUNK_MAX) {
            hears(f, chunk_of(f, asked.kind, asked.round, at));
        }
    }
}
static inline void to_training(struct fixture *f)
{
    to_fetching(f);
    fetch_all(f);
    must(f, SESSION_TRAIN);
}
static inline void to_offering(struct fixture *f)
{
    to_training(f);
    trained(f, OPEN);
    must_send(f, MSG_OFFER);
}
static inline void to_uploading(struct fixture *f)
{
    to_offering(f);
    hears(f, grant_of(BLOB_UPDATE, OPEN, 0));
    must_send(f, MSG_CHUNK);
}
static inline void to_delivered(struct fixture *f)
{
    to_uploading(f);
    hears(f, (struct msg){.type = MSG_ACCEPTED, .accepted = {.round = OPEN}});
    is_in(f, "DELIVERED");
}

/* The connection breaks and comes back up to READY; the server's WELCOME names `round` as durable. */
static inline void reconnect(struct fixture *f, uint32_t round, uint32_t counted)
{
    fails(f, SESSION_CLOSED, ERR_TEMPFAIL);
    is_in(f, "OFFLINE");
    to_greeting(f);
    struct msg msg = welcome_of(f);
    msg.welcome.round = round;
    msg.welcome.has_counted = counted != 0;
    msg.welcome.counted_round = counted;
    hears(f, msg);
}

#endif
