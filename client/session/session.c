/* The table of the conversation, and the one dispatch. What a message does is in the file named after its part of the
 * conversation: greeting.c, round.c, fetch.c, work.c, observe.c, offer.c; link.c keeps the connection. */
#include "client/session/state.h"
#include "common/base/mem.h"

#include <assert.h>
#include <string.h>

/* How long nothing may come from a server that has not told its own time-out yet. */
#define IDLE_TIMEOUT_STANDARD_MS 60000u

#define BIT(type) (UINT32_C(1) << (type))
#define ANY_TIME  (BIT(MSG_REJECT) | BIT(MSG_ALIVE) | BIT(MSG_ROUND_END) | BIT(MSG_BYE))
#define ANSWERS   (BIT(MSG_GRANT) | BIT(MSG_QUEUED) | BIT(MSG_ACCEPTED) | BIT(MSG_DECLINED))

static const struct {
    const char *name;
    uint32_t expected; /* bits of enum msg_type; anything else is a protocol error */
} table[STATE_COUNT] = {
    /* Nothing is listened to in these: what still comes belongs to a connection that we gave up. */
    [STATE_OFFLINE] = {"OFFLINE", 0},
    [STATE_CONNECTING] = {"CONNECTING", 0},
    [STATE_DONE] = {"DONE", 0},

    [STATE_GREETING] = {"GREETING", BIT(MSG_WELCOME) | BIT(MSG_REJECT) | BIT(MSG_BYE)},
    [STATE_PREPARING] = {"PREPARING", ANY_TIME},
    [STATE_READY] = {"READY", ANY_TIME | BIT(MSG_ROUND) | BIT(MSG_AGGREGATE)},
    [STATE_FETCHING] = {"FETCHING", ANY_TIME | BIT(MSG_ROUND) | BIT(MSG_CHUNK) | BIT(MSG_AGGREGATE)},
    [STATE_TRAINING] = {"TRAINING", ANY_TIME | BIT(MSG_ROUND)},
    [STATE_OFFERING] = {"OFFERING", ANY_TIME | BIT(MSG_ROUND) | ANSWERS},
    [STATE_UPLOADING] = {"UPLOADING", ANY_TIME | BIT(MSG_ROUND) | ANSWERS},
    [STATE_DELIVERED] = {"DELIVERED", ANY_TIME | BIT(MSG_ROUND)},
    [STATE_EVALUATING] = {"EVALUATING", ANY_TIME | BIT(MSG_AGGREGATE)},
};

const char *session_state_name(enum state state)
{
    return table[state].name;
}

static bool is_listening(const struct session *session)
{
    return session->state != STATE_OFFLINE && session->state != STATE_CONNECTING && session->state != STATE_DONE;
}

static void handle(struct session *session, const struct msg *msg)
{
    switch (msg->type) {
    case MSG_WELCOME:
        session_on_welcome(session, msg);
        break;
    case MSG_REJECT:
        session_on_reject(session, msg);
        break;
    case MSG_ROUND:
        session_on_round(session, msg);
        break;
    case MSG_AGGREGATE:
        session_on_aggregate(session, msg);
        break;
    case MSG_CHUNK:
        session_on_chunk(session, msg);
        break;
    case MSG_ALIVE:
        session_on_alive(session, msg);
        break;
    case MSG_GRANT:
        session_on_grant(session, msg);
        break;
    case MSG_QUEUED:
        session_on_queued(session, msg);
        break;
    case MSG_ACCEPTED:
        session_on_accepted(session, msg);
        break;
    case MSG_DECLINED:
        session_on_declined(session, msg);
        break;
    case MSG_ROUND_END:
        session_on_round_end(session, msg);
        break;
    case MSG_BYE:
        session_on_bye(session, msg);
        break;
    default:
        assert(0 && "the table expects a message that has no handler");
    }
}

static void message(struct session *session, const struct msg *msg)
{
    if (!is_listening(session)) {
        return;
    }
    session->heard_ms = session->now_ms;
    uint32_t round = msg_answer_round(msg);
    if (session->welcomed && round != 0 && round <= session->ended_round) {
        log_event(session->log, LOG_LEVEL_DEBUG, "stale", "message=%s round=%u", msg_type_name(msg->type), round);
        return;
    }
    if (msg->type >= MSG_TYPE_END || !(table[session->state].expected & BIT(msg->type))) {
        struct err err;
        (void)err_set(&err, ERR_PROTOCOL, "the server sent %s to a client that is %s", msg_type_name(msg->type),
                      session_state_name(session->state));
        session_close(session, true, &err);
        return;
    }
    handle(session, msg);
}

static void stop(struct session *session)
{
    session_cancel(session);
    struct err err;
    (void)err_set(&err, ERR_OK, "asked to stop");
    session_exit(session, &err);
}

static void dispatch(struct session *session, const struct session_event *event)
{
    switch (event->kind) {
    case SESSION_CONNECTED:
        session_connected(session);
        break;
    case SESSION_CLOSED:
        session_closed(session, event->reason);
        break;
    case SESSION_MESSAGE:
        message(session, event->message);
        break;
    case SESSION_HEARD:
        session->heard_ms = session->now_ms;
        break;
    case SESSION_DRAINED:
        session_drained(session);
        break;
    case SESSION_PREPARED:
        session_prepared(session, event->images);
        break;
    case SESSION_TRAINED:
        session_trained(session, event->contribution);
        break;
    case SESSION_EVALUATED:
        session_evaluated(session, event->knn_top1);
        break;
    case SESSION_WORK_FAILED:
        session_work_failed(session, event->reason);
        break;
    case SESSION_PROGRESS:
        session->progress = (struct msg_progress){.step = event->step,
                                                  .steps = event->steps,
                                                  .loss = event->loss,
                                                  .images_per_second = event->images_per_second};
        break;
    case SESSION_TICK:
        session_tick(session);
        break;
    case SESSION_STOP:
        stop(session);
        break;
    }
}

int session_step(struct session *session, const struct session_event *event, uint64_t now_ms,
                 struct session_actions *out)
{
    session->now_ms = now_ms;
    session->out = out;
    if (session->state == STATE_DONE) {
        contribution_free(event->kind == SESSION_TRAINED ? event->contribution : NULL);
    } else {
        dispatch(session, event);
    }
    session->ticked_ms = event->kind == SESSION_TICK ? now_ms : session->ticked_ms;
    session->out = NULL;
    return session->rc;
}

static struct frame_limits limits_of(uint32_t types)
{
    struct frame_limits limits = msg_limits_client;
    for (uint32_t type = 0; type < FRAME_TYPES; type++) {
        limits.most[type] = types & BIT(type) ? limits.most[type] : 0;
    }
    return limits;
}

int session_new(const struct session_options *options, uint64_t now_ms, struct session **out, struct err *err)
{
    *out = NULL;
    if (!name_is_valid(options->name)) {
        return err_set(err, ERR_USAGE, "a client's name is 1 to 64 characters of A-Z a-z 0-9 . _ -");
    }
    struct session *session = mem_new(1, sizeof *session);
    if (!session) {
        return err_set(err, ERR_NOMEM, "no memory for the session");
    }
    memcpy(session->name, options->name, sizeof session->name);
    session->instance = options->instance;
    session->role = options->role;
    session->stay = options->stay;
    session->log = options->log;
    rng_init(&session->rng, options->seed, RNG_NETWORK, 0, 0, 0);
    session->greeting_limits = limits_of(table[STATE_GREETING].expected);
    session->limits = limits_of(ANY_TIME | ANSWERS | BIT(MSG_ROUND) | BIT(MSG_CHUNK) | BIT(MSG_AGGREGATE) |
                                BIT(MSG_CERTIFICATE)); /* which is the shell's */
    session->has_identity = options->has_saved;
    session->run = options->saved_run;
    session->plan_hash = options->saved_plan;
    session->saved_round = options->saved_round;
    session->pending = options->pending;
    session->inherited = options->pending != NULL;
    session->withholds = options->withholds;
    if (session->pending && session->withholds) { /* It was trained before this site chose so. */
        bytes_unref(session->pending->features);
        session->pending->features = NULL;
        session->pending->features_blob = (struct blob){0};
    }
    session->idle_timeout_ms = IDLE_TIMEOUT_STANDARD_MS;
    session->connect_ms = session->ticked_ms = now_ms;
    *out = session;
    return 0;
}

void session_free(struct session *session)
{
    if (!session) {
        return;
    }
    layout_free(session->layout);
    transfer_reset(&session->model);
    transfer_reset(&session->remote);
    contribution_free(session->pending);
    mem_free(session);
}

const struct frame_limits *session_limits(const struct session *session)
{
    return session->state <= STATE_GREETING ? &session->greeting_limits : &session->limits;
}

const char *session_state(const struct session *session)
{
    return session_state_name(session->state);
}

uint64_t session_idle_timeout_ms(const struct session *session)
{
    return session->idle_timeout_ms;
}
