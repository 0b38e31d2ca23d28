/* The coordinator without I/O: events in, actions out. It marries the round (server/round), the sessions of the peers
 * (one handler file per message), the aggregate, the feature bank and the upload slots; the shell turns its actions
 * into sockets, files and threads, and the simulation into a lossy network, a simulated disk and a virtual clock.
 *
 *   shell: connection opened / message / drained / closed, job done, time passed, stop
 *     -> coordinator_step -> actions: send, close, run a job, exit
 *
 * Guarantees: nothing is announced that is not durable (ROUND n+1 and ROUND_END n follow JOB_SAVE n); a contribution
 * counts once; a client never receives its own features; the result of a round does not depend on the order of arrival;
 * memory does not grow with the number of clients beyond a session record each: (upload_slots + 4) models, the one
 * before while somebody still reads it (whoever reads on after a further round is closed), the state of
 * aggregation.optimizer (a model for momentum, two for adam) and, while a round is saved, the next one; and the bank.
 * (A rule that looks at all updates reads them from the spool, by columns of 32 MiB at most: server/agg/rule.h. Where
 * updates travel as f16 or int8 a slot holds half or a quarter of a model, and one model more is there while one
 * of them is absorbed.) */
#ifndef STARLING_SESSION_COORDINATOR_H
#define STARLING_SESSION_COORDINATOR_H

#include "common/base/log.h"
#include "common/config/plan.h"
#include "common/wire/msg.h"
#include "server/round/summary.h"
#include "server/store/spool.h"
#include "server/store/store.h"

#include <stdbool.h>
#include <stdint.h>

#define HANDSHAKES_MOST 64u

struct coordinator;

struct coordinator_options {
    const struct plan *plan;
    const uint8_t *plan_bytes; /* canonical */
    uint32_t plan_len;
    const struct layout *layout;
    uint32_t upload_slots;          /* at most */
    uint32_t bank_capacity;         /* rows */
    uint32_t sessions_max;          /* welcomed peers at a time; further ones are rejected with REJECT_FULL */
    uint32_t strangers_max;         /* connections that are not welcomed yet, for coordinator_admit: all together, */
    uint32_t strangers_per_address; /* and of one address */
    uint32_t handshakes_max;        /* of them in TLS's handshake; HANDSHAKES_MOST at most. Without TLS nobody knocks */
    uint64_t idle_timeout_ms;
    uint32_t upload_rate;      /* bytes a second that keep an upload slot while others wait; 0: any */
    struct hash128 boot;       /* random per start */
    const struct spool *spool; /* where the plan's aggregation.rule needs one; else NULL */
    const struct log *log;
};

/* Starts from a durable state. The coordinator takes what it needs out of `from` (it may be fini'd afterwards); plan,
 * layout and log of the options are kept by reference. history: rounds already closed, oldest first; copied. */
int coordinator_new(const struct coordinator_options *options, const struct checkpoint *from,
                    const struct round_summary *history, uint32_t history_count, uint64_t now_ms,
                    struct coordinator **out, struct err *err);
void coordinator_free(struct coordinator *coordinator);

/* Work that takes long: run outside the loop, one at a time, in the order of the actions. ABSORB and AGGREGATE are
 * pure, but for the spool, which one writes and the other reads: call job_run. SAVE and RECORD belong to whoever owns
 * the disk: call store_save with job->checkpoint, and spool_clear when that has succeeded; history_append with
 * job->checkpoint.summary, which is all that RECORD has. */
enum job_kind { JOB_ABSORB, JOB_AGGREGATE, JOB_SAVE, JOB_RECORD };
struct job {
    enum job_kind kind;
    struct checkpoint checkpoint; /* SAVE, RECORD; borrowed from the coordinator, stable until JOB_DONE */
    void *work;                   /* the coordinator's own */
};
void job_run(struct job *job); /* ABSORB, AGGREGATE; touches nothing that coordinator_step touches */

/* Who a peer is, as its certificate proves. */
struct peer_identity {
    const char *name;
    uint32_t role; /* enum role */
};

enum event_kind {
    EVENT_PEER_OPENED,     /* peer: a small number of the shell's, free for reuse after PEER_CLOSED; address */
    EVENT_PEER_KNOCKED,    /* peer: with TLS, that its handshake is to begin; it does with ACTION_SHAKE */
    EVENT_PEER_IDENTIFIED, /* peer, identity: with TLS, before its first message. Without, a peer is who it says */
    EVENT_PEER_MESSAGE,    /* peer, message */
    EVENT_PEER_DRAINED,    /* peer: its write queue is empty */
    EVENT_PEER_BARRED,     /* peer: it is shut out for good, and PEER_CLOSED follows */
    EVENT_PEER_CLOSED,     /* peer, reason */
    EVENT_JOB_DONE,        /* job, result (SAVE: store_save's), reason */
    EVENT_TICK,
    EVENT_STOP, /* a round that is being closed is saved first; then goodbye */
};
struct event {
    enum event_kind kind;
    uint32_t peer;
    const char *address;
    const struct peer_identity *identity;
    const struct msg *message;
    struct job *job;
    int result;
    const struct err *reason;
    int64_t unix_ms; /* wall clock, for the history only */
};

enum action_kind {
    ACTION_SEND,  /* peer, message (owned by the action; the shell may take its payload) */
    ACTION_CLOSE, /* peer: after what is queued has been written */
    ACTION_DROP,  /* peer: closed at once, also while it lingers */
    ACTION_SHAKE, /* peer: TLS's handshake may begin */
    ACTION_PAUSE, /* peer: nothing is read from it for pause_ms; what has been read may still come */
    ACTION_JOB,   /* job */
    ACTION_EXIT,  /* result: all is said, and all is saved if it is 0 */
};
struct action {
    enum action_kind kind;
    uint32_t peer;
    struct msg message;
    struct job *job;
    uint64_t pause_ms;
    int result; /* 0, or the ERR_ code of what kept the last round from being saved */
};
struct actions {
    struct action *items;
    size_t count, capacity;
};
void actions_clear(struct actions *actions); /* finis the messages, keeps the memory */
void actions_fini(struct actions *actions);

/* now_ms: monotonic. ERR_NOMEM only: a peer to which something could not be said is closed, and nothing changes for the
 * others; jobs, closes and the exit that could not be handed out follow with the next step. */
int coordinator_step(struct coordinator *coordinator, const struct event *event, uint64_t now_ms, struct actions *out);
/* When the next EVENT_TICK is due at the latest; UINT64_MAX: never. */
uint64_t coordinator_next_ms(const struct coordinator *coordinator);
/* Asked by the shell before EVENT_PEER_OPENED. NULL: it may come in, and *instead, if that is a peer's number and not
 * UINT32_MAX, is to be closed at once for it. Else why not. */
const char *coordinator_admit(struct coordinator *coordinator, const char *address, uint64_t now_ms, uint32_t *instead);
/* The log for a line that this peer causes, or, where it is none, that somebody unknown causes; NULL: too many such. */
const struct log *coordinator_log(struct coordinator *coordinator, uint32_t peer, const char *event);
/* What this peer may send now. */
const struct frame_limits *coordinator_limits(const struct coordinator *coordinator, uint32_t peer);
/* Told by the shell before a STATUS is handled. */
void coordinator_set_usage(struct coordinator *coordinator, uint64_t peak_rss_bytes);
/* For logs, tests and invariants. */
const char *coordinator_phase(const struct coordinator *coordinator);
uint32_t coordinator_round(const struct coordinator *coordinator); /* last durable round */
const float *coordinator_params(const struct coordinator *coordinator);

#endif
