/* The client's side of the conversation without I/O: events in, actions out; the mirror of server/session.
 *
 * States, and what each waits for:
 *   OFFLINE     the back-off timer (0.5 s doubling to idle_timeout / 2, with jitter)
 *   CONNECTING  the socket
 *   GREETING    WELCOME or REJECT
 *   PREPARING   the shell: folder opened, trainer built (PREPARED)
 *   READY       ROUND
 *   FETCHING    CHUNKs of the model, then of the remote features
 *   TRAINING    the trainer (TRAINED); goes on when the connection is lost
 *   OFFERING    GRANT, QUEUED, ACCEPTED or DECLINED
 *   UPLOADING   its own chunks to be written, then ACCEPTED or DECLINED
 *   DELIVERED   ROUND_END
 *   EVALUATING  the evaluation (EVALUATED); goes on when the connection is lost
 *   DONE        nothing: the run is finished, or a reason to stop was given
 *
 * An observer waits for AGGREGATE in READY, and goes on to FETCHING and EVALUATING. It evaluates the newest model when
 * it has finished with one, so it skips rounds that are shorter than its evaluation.
 *
 * Guarantees: a contribution is kept until a durable ROUND_END counted it, and is offered again to any server that does
 * not list it; the same round is never trained twice while its contribution exists; every wait has a line in the log.
 */
#ifndef STARLING_CLIENT_SESSION_H
#define STARLING_CLIENT_SESSION_H

#include "common/base/log.h"
#include "common/config/plan.h"
#include "common/wire/msg.h"
#include "common/wire/transfer.h"

#include <stdbool.h>
#include <stdint.h>

struct session;

/* One local round's result, ready for the wire. Reference-counted bytes: the loop owns all references. */
struct contribution {
    uint32_t round;
    struct report report;
    struct blob update_blob, features_blob;
    struct bytes *update;   /* [total], as the plan's wire.update has it */
    struct bytes *features; /* [rows, d], as wire.features has it; NULL when there are none */
};
/* Computes the blobs' hashes and lengths from the bytes; `round` is set already. */
void contribution_describe(struct contribution *contribution, const struct plan *plan, const struct layout *layout);
void contribution_fini(struct contribution *contribution);
void contribution_free(struct contribution *contribution); /* NULL is allowed */

struct session_options {
    char name[NAME_MAX_BYTES];
    struct hash128 instance;
    uint32_t role;  /* ROLE_TRAINER or ROLE_OBSERVER */
    uint64_t seed;  /* jitter of the back-off */
    bool stay;      /* after the run is done: stay connected instead of DONE */
    bool withholds; /* offers no features, and uses none of others */
    bool has_saved;
    struct hash128 saved_run, saved_plan;
    uint32_t saved_round;         /* last round known to be counted and durable */
    struct contribution *pending; /* NULL, or what was trained and not yet counted, described; from mem_new, and
                                     ownership moves when session_new succeeds */
    const struct log *log;
};

/* For who has never yet reached a server: at the third failure in a row the log says what to look at. */
void link_hint(const struct log *log, uint32_t attempts, const struct err *reason);

/* ERR_NOMEM; ERR_USAGE for a name that is none. Connects at the first SESSION_TICK. */
int session_new(const struct session_options *options, uint64_t now_ms, struct session **out, struct err *err);
void session_free(struct session *session);

enum session_event_kind {
    SESSION_CONNECTED,
    SESSION_CLOSED,  /* reason; also: connecting failed. Follows every SESSION_CLOSE; no CONNECT comes before it */
    SESSION_MESSAGE, /* message */
    SESSION_HEARD,   /* bytes came, maybe of a message that is not whole yet: the server is not silent */
    SESSION_DRAINED,
    SESSION_PREPARED, /* images */
    SESSION_TRAINED,  /* contribution (from mem_new, described; ownership moves); it is already durable at the client */
    SESSION_EVALUATED,   /* knn_top1: of the model that EVALUATE handed out */
    SESSION_WORK_FAILED, /* reason: PREPARE, TRAIN or EVALUATE failed */
    SESSION_PROGRESS,    /* step, steps, loss, images_per_second: to be told to the server with the next heartbeat */
    SESSION_TICK,
    SESSION_STOP, /* say goodbye, then exit 0 */
};
struct session_event {
    enum session_event_kind kind;
    const struct err *reason;
    const struct msg *message;
    uint64_t images;
    struct contribution *contribution;
    uint32_t step, steps;
    double loss, images_per_second;
    double knn_top1;
};

enum session_action_kind {
    SESSION_CONNECT,
    SESSION_SEND,     /* message (owned by the action; the shell may take its payload) */
    SESSION_CLOSE,    /* the connection, after what is queued has been written */
    SESSION_PREPARE,  /* plan, layout (borrowed, valid until the session is freed): once per session */
    SESSION_TRAIN,    /* round, model and remote (ownership moves: mem_free) */
    SESSION_EVALUATE, /* round, model (ownership moves: mem_free) */
    SESSION_CANCEL,   /* the training in progress: its round is over; TRAINED or WORK_FAILED still follows */
    SESSION_COMMIT,   /* round: counted and durable at the server; the state after it becomes the client's state */
    SESSION_DROP,     /* round: the pending contribution will never count; back to the state before it */
    SESSION_EXIT,     /* exit_code, reason */
};
struct session_action {
    enum session_action_kind kind;
    struct msg message;
    const struct plan *plan;
    const struct layout *layout;
    struct hash128 run, plan_hash; /* PREPARE */
    uint32_t round;
    uint8_t *model;  /* f32 [total] */
    uint8_t *remote; /* f32 [remote_rows, d] or NULL */
    uint32_t remote_rows;
    int exit_code;
    struct err reason;
};
struct session_actions {
    struct session_action *items;
    size_t count, capacity;
};
void session_actions_clear(struct session_actions *actions); /* frees what was not taken */
void session_actions_fini(struct session_actions *actions);

/* Appends to `out`. ERR_NOMEM only: the session can then only be freed. */
int session_step(struct session *session, const struct session_event *event, uint64_t now_ms,
                 struct session_actions *out);
/* When the next SESSION_TICK is due at the latest; UINT64_MAX: never. */
uint64_t session_next_ms(const struct session *session);
/* What the server may send now; asked again after each step. */
const struct frame_limits *session_limits(const struct session *session);
const char *session_state(const struct session *session);        /* "TRAINING" */
uint64_t session_idle_timeout_ms(const struct session *session); /* the server's, once welcomed */

#endif
