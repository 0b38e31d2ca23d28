/* Inside the client's session: its state, and what its files call of each other. (The prefix is long because the
 * server's session has its own handlers for the same messages, and the simulation links both.)
 *
 * `state` says where the conversation stands. Two facts live beside it, because they outlast a connection: a training
 * in progress and a pending contribution. `ended_round` is the last round that the server called durable; whatever
 * still arrives about it or an earlier one has crossed our own messages and is stale, not wrong. */
#ifndef STARLING_CLIENT_SESSION_STATE_H
#define STARLING_CLIENT_SESSION_STATE_H

#include "client/session/session.h"
#include "common/base/reminder.h"
#include "common/base/rng.h"

enum state {
    STATE_OFFLINE,    /* the back-off timer; while `closing`, the end of the old connection */
    STATE_CONNECTING, /* the socket */
    STATE_GREETING,   /* WELCOME or REJECT */
    STATE_PREPARING,  /* the shell's PREPARED */
    STATE_READY,      /* ROUND */
    STATE_FETCHING,   /* CHUNKs of the model, then of the remote features */
    STATE_TRAINING,   /* the trainer: the open round's result, or the end of a cancelled training */
    STATE_OFFERING,   /* GRANT, QUEUED, ACCEPTED or DECLINED */
    STATE_UPLOADING,  /* its own chunks to be written, then as OFFERING */
    STATE_DELIVERED,  /* ROUND_END */
    STATE_EVALUATING, /* the evaluation */
    STATE_DONE,       /* nothing */
    STATE_COUNT
};
const char *session_state_name(enum state state);

struct session {
    enum state state;
    char name[NAME_MAX_BYTES];
    struct hash128 instance;
    uint32_t role;
    bool stay;
    bool withholds;
    const struct log *log;
    struct rng rng;
    struct frame_limits greeting_limits, limits;

    /* The step under way. */
    uint64_t now_ms;
    struct session_actions *out;
    int rc;

    /* The federation, as saved or first met. */
    bool has_identity;
    struct hash128 run, plan_hash;
    uint32_t saved_round;
    struct plan plan;
    struct layout *layout; /* NULL until the first WELCOME */
    bool preparing, prepared;
    uint64_t images;

    /* The connection. */
    bool closing;            /* CLOSE was said, CLOSED is still to come */
    bool welcomed;           /* on this connection */
    bool refused;            /* this connection ends in a disagreement: the back-off goes on growing */
    struct err why;          /* why we close */
    uint32_t attempt;        /* connections in a row that led nowhere */
    uint64_t retry_after_ms; /* the server's wish */
    bool reached;            /* some connection came about, so that the address is right */
    bool foreign;            /* the latest connection ended with a first frame that is not of our version */
    uint64_t connect_ms;     /* OFFLINE: when to try again */
    uint64_t idle_timeout_ms;
    uint64_t heard_ms, beat_ms, ticked_ms;
    struct {
        uint32_t state, round; /* in which it waits for the server, and after which round */
        uint64_t since_ms;
        struct reminder reminder;
    } patience; /* when to say again what the server waits for */

    /* The open round. */
    uint32_t ended_round;
    struct msg_round open;
    struct transfer model, remote;
    uint32_t bad_hashes;
    uint32_t refused_round; /* on this connection, declined for a reason that training it again would meet; 0: none */
    struct hash128 refused_model, refused_remote;

    /* The training in progress, if training_round is not 0. */
    uint32_t training_round;
    bool training_cancelled;
    struct hash128 training_model;
    struct msg_progress progress;

    /* An observer's: whether an evaluation is under way, of what, and the last one that has ended (round 0: none). */
    bool evaluating;
    bool told; /* of `evaluated` */
    struct msg_evaluated evaluating_as, evaluated;
    struct hash128 evaluating_model, evaluated_model;

    /* What is to be counted, and the upload of it. */
    struct contribution *pending;
    bool inherited;            /* pending is of an earlier process */
    const struct blob *upload; /* of pending, the one that was granted last; NULL: none */
    uint64_t upload_offset;
};

/* actions.c: each appends one action, with all that it owns. */
void session_act(struct session *session, struct session_action action);
void session_send(struct session *session, struct msg msg);

/* link.c: the connection's life. */
void session_tick(struct session *session);
void session_connected(struct session *session);
void session_closed(struct session *session, const struct err *reason);
void session_welcomed(struct session *session);
/* BYE with the reason and CLOSE; the back-off follows. `refused`: another try would meet the same reason, so it waits
 * longer each time. */
void session_close(struct session *session, bool refused, const struct err *reason);
/* BYE, CLOSE if there is a connection, EXIT. */
void session_exit(struct session *session, const struct err *reason);
void session_on_bye(struct session *session, const struct msg *msg);
void session_on_alive(struct session *session, const struct msg *msg);

/* greeting.c */
void session_greet(struct session *session);
void session_prepared(struct session *session, uint64_t images);
void session_on_welcome(struct session *session, const struct msg *msg);
void session_on_reject(struct session *session, const struct msg *msg);

/* round.c */
void session_on_round(struct session *session, const struct msg *msg);
void session_on_round_end(struct session *session, const struct msg *msg);
int session_check_model(const struct session *session, uint32_t round, const struct blob *blob, struct err *err);
/* Whatever belongs to a round that is over comes to its end; `counted`: the last round that counted us. */
void session_settle(struct session *session, uint32_t ended, uint32_t counted);
void session_finish(struct session *session);

/* fetch.c */
void session_fetch(struct session *session);
void session_fetch_reset(struct session *session);
void session_on_chunk(struct session *session, const struct msg *msg);

/* work.c */
void session_train(struct session *session);
void session_cancel(struct session *session);
void session_trained(struct session *session, struct contribution *contribution);
void session_work_failed(struct session *session, const struct err *reason);

/* observe.c */
void session_on_aggregate(struct session *session, const struct msg *msg);
void session_evaluate(struct session *session);
void session_evaluated(struct session *session, double knn_top1);

/* offer.c */
void session_offer(struct session *session);
/* READY: what is pending for the round that the server works on is not kept until it sends ROUND. */
void session_offer_unasked(struct session *session);
void session_drop(struct session *session, const char *reason);
void session_drained(struct session *session);
void session_on_grant(struct session *session, const struct msg *msg);
void session_on_queued(struct session *session, const struct msg *msg);
void session_on_accepted(struct session *session, const struct msg *msg);
void session_on_declined(struct session *session, const struct msg *msg);

#endif
