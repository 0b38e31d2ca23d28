/* What the coordinator holds in memory, and the helpers its files share. Internal to server/session.
 *
 *   peer    a connection, for as long as the shell holds it
 *   member  a named trainer or observer, for as long as the process lives or until its name is forgotten; its index is
 *           the round's
 *   slot    room for one contribution that is being uploaded or absorbed
 *
 * Files: coordinator.c (events), dispatch.c (messages), handle_*.c (one message each), peers.c (connections and
 * members), strangers.c (connections before WELCOME), handshakes.c (TLS's of these), slots.c (uploads), pace.c (how
 * many at a time), rounds.c (what the round wants done), lengths.c (what is too long an update), jobs.c (what runs
 * outside the loop) with absorb.c, aggregate.c and save.c (a contribution, the next model, the disk), blobs.c (what is
 * downloaded), send.c (actions), words.c (sentences for people).
 *
 * Whatever cannot be told to a peer for want of memory closes that peer, and nobody else: a peer is marked `doomed`,
 * and at the end of the step it is detached and closed. Jobs, closes and the exit that could not be put into the
 * actions stay due and are handed out with the next step. */
#ifndef STARLING_SESSION_STATE_H
#define STARLING_SESSION_STATE_H

#include "common/base/reminder.h"
#include "common/wire/transfer.h"
#include "server/agg/agg.h"
#include "server/agg/norm.h"
#include "server/bank/screen.h"
#include "server/round/round.h"
#include "server/session/coordinator.h"
#include "server/session/pace.h"

#define NONE        UINT32_MAX
#define MEMBERS_MAX 100000u
/* What a status may tell, and some, which go together when it is full. It is taken, and touched, as the process starts:
 * a run of a million rounds needs no more memory than a short one. */
#define HISTORY_ROOM (MSG_HISTORY_MAX + HISTORY_GO)
#define HISTORY_GO   256u

enum peer_state {
    PEER_NEW,       /* waits for HELLO */
    PEER_OPERATOR,  /* STATUS */
    PEER_GREETED,   /* READY */
    PEER_OBSERVING, /* FETCH, EVALUATED */
    PEER_READY,     /* nothing: the server's ROUND is next */
    PEER_WORKING,   /* FETCH, OFFER */
    PEER_QUEUED,    /* nothing: the server's GRANT is next */
    PEER_UPLOADING, /* CHUNK */
    PEER_CHECKING,  /* nothing: ACCEPTED or DECLINED is next */
    PEER_DELIVERED, /* nothing: ROUND_END is next */
    PEER_CLOSING,   /* PEER_CLOSED; whatever it says is ignored */
};
const char *peer_state_name(enum peer_state state); /* "NEW" */

struct download {
    bool active;
    bool judged; /* the blob is there, and holds `offset`; until then `bytes` is not known */
    uint32_t kind;
    uint64_t offset, bytes;
};

struct peer {
    uint32_t number;
    enum peer_state state;
    uint32_t member; /* NONE before HELLO, for operators, and after it was let go */
    bool doomed;     /* to be closed at the end of the step */
    bool close_due;  /* ACTION_CLOSE is not handed out yet */
    bool sending;    /* a chunk or a status of ours lies in its write queue */
    bool regranted;  /* chunks that it sent before the latest GRANT may still arrive, and mean nothing */
    uint64_t opened_ms;
    const struct frame_limits *limits;
    struct rate messages;     /* that nobody asked for */
    uint64_t paused_until_ms; /* the shell reads nothing from it */
    uint64_t group;           /* of its address */
    bool stranger;            /* in the list of those, between `older` and `newer` */
    uint32_t rank;            /* how many of its address were in it before */
    bool knocks;              /* its handshake is to begin */
    uint64_t shaking_ms;      /* when it began */
    struct peer *older, *newer;
    struct download download;
    uint32_t holds;                /* the round whose model lies in its write queue, and so in memory; 0: none does */
    uint32_t asked, asked_history; /* STATUS messages that wait for an answer; the rounds that the latest wants */
    char address[56];
    bool barred; /* no round waits for its member */
    bool proven; /* name and role are its certificate's; else the name is what HELLO said, for the log alone */
    uint32_t role;
    char name[NAME_MAX_BYTES];
};

/* What has gone up and down for it in a round, anew whenever that is extended. */
struct quota {
    uint32_t round, extensions;
    uint64_t up, down;
};
#define TRANSFERS_PER_ROUND 16u /* either way, in bytes of what is offered, or fetched */

struct member {
    char name[NAME_MAX_BYTES];
    uint32_t role; /* as it said last; an observer is never ready for a round */
    struct hash128 instance;
    uint32_t peer; /* NONE: away */
    uint32_t slot; /* NONE: none */
    bool queued;
    bool has_counted;
    uint32_t counted_round;
    struct msg_offer offer; /* the latest */
    uint64_t last_seen_ms;
    struct quota quota;
    uint64_t replaced_ms; /* when a newer connection took its place last, */
    uint32_t replaced;    /* and how often that has followed within idle_timeout each time */
    uint64_t images;      /* as READY said */
    bool withholds;       /* its features, as READY said: then it receives none */
    bool gave_none;       /* its latest durable contribution had none: likewise */
    uint32_t step, steps;
    double loss, images_per_second;
    uint32_t evaluated;          /* an observer's: the round that it told of last */
    struct watch aggregate, own; /* of the latest contribution that was accepted */
    struct privacy privacy;      /* likewise */
    double norms[NORM_PARTS];    /* of its update, as it was sent */
    uint64_t bytes_up, bytes_down, bytes_by_kind[BLOB_FEATURES + 1];
};

struct strangers {
    struct peer *oldest, *newest; /* in order of arrival */
    uint32_t count;
    struct peer *shaking[HANDSHAKES_MOST]; /* in TLS's handshake, or past it without a certificate; first come first */
    uint32_t shaking_count, knocking;
    struct status_strangers told; /* what has become of them, and of others who sent too much */
};

enum slot_state {
    SLOT_FREE,
    SLOT_KEPT,      /* half an upload of a member that was lost, for as long as nobody else needs the slot */
    SLOT_UPLOADING, /* CHUNKs come in */
    SLOT_CHECKING,  /* its job is under way */
};
struct slot {
    enum slot_state state;
    uint32_t member;
    struct transfer update, features;
    uint32_t damaged; /* how often what came was not what was offered */
    uint64_t granted_ms, chunk_ms;
    uint64_t window_ms, window_bytes; /* since when its rate is measured, and what has come since */
    struct absorb {                   /* what the job needs, and what it found */
        struct agg *agg;
        struct bank_intake *intake;
        const struct bank *bank; /* what others' rows it may have been sent */
        const struct layout *layout;
        char owner[NAME_MAX_BYTES];
        uint32_t round, rows, dimension;
        uint32_t repeated;                   /* rows that were dropped */
        bool copied;                         /* all were, */
        struct screen screen;                /* for this reason */
        uint32_t update_form, features_form; /* enum quant */
        uint64_t weight;
        const struct spool *spool;          /* NULL: the rule is a sum */
        struct length {                     /* of a part of the update */
            double usual, most, clip_above; /* 0: any */
            double norm;                    /* as it was sent */
        } lengths[NORM_PARTS];
        int result;      /* 0; ERR_NOMEM; what the spool's disk says, and then `err` */
        uint32_t reason; /* 0: it is in the sum; else enum decline_reason */
        struct err err;
    } absorb;
    struct job job;
};

struct aggregate {
    struct agg *agg;
    const struct rule *rule;
    const struct spool *spool;
    char (*names)[NAME_MAX_BYTES]; /* [count] of those that delivered, in order: what the spool is asked for */
    bool *kept;                    /* [count] by the rule */
    uint32_t count;
    struct err err; /* of a rule that failed */
    struct bank_intake *intake;
    const struct bank *bank;
    uint32_t oldest; /* round whose rows stay in the bank */
    int result;
    struct bytes *next;       /* what follows exists from AGGREGATED to SAVED */
    struct bytes *next_state; /* the optimiser's; NULL: it has none */
    struct hash128 next_hash;
    struct bank *next_bank;
    uint8_t *bank_bytes;
    uint64_t bank_len;
};

struct coordinator {
    struct coordinator_options options; /* as given; what it points to is the caller's */
    const struct plan *plan;
    const struct layout *layout;
    const struct log *log;
    struct log_limit peers_log; /* for what peers can cause */
    uint8_t *plan_bytes;
    uint32_t plan_len;
    struct hash128 run, plan_hash, model_hash;
    uint64_t started_ms;
    uint64_t peak_rss_bytes;

    struct round round;
    struct agg *agg;
    struct bank *bank;
    struct bank_intake *intake;
    struct rule rule;
    double norms[NORM_PARTS][NORM_ROUNDS]; /* usual ones of the last durable rounds, newest first */
    double cohort_norms[NORM_PARTS];       /* of an open round that was recalled; 0: it was not */
    struct blob model_blob;                /* of the open round */
    uint32_t *sample;                      /* [fusion.remote] scratch */
    uint8_t *packed_row;                   /* scratch: a row of the sample as it travels */

    struct peer **peers; /* by number; NULL: none */
    uint32_t peers_room, peers_open, doomed, closes_due;
    uint32_t sessions; /* peers that were welcomed and are not on their way out */
    uint32_t welcomed; /* those of them that are members' */
    struct strangers strangers;
    struct member *members; /* by index; names in order: round.order */
    uint32_t members_room;
    uint32_t *queue; /* members that wait for a slot; room for all */
    uint32_t queue_count;
    double *lengths; /* scratch; room for all members */
    struct slot *slots;
    struct pace pace; /* how many of the slots may be in use */

    struct aggregate aggregate;
    struct job aggregate_job, save_job, record_job;
    bool recording; /* record_job is under way */
    struct counted *counted;
    struct round_summary summary;  /* of the round that is being saved */
    char trouble[MSG_TEXT_MAX];    /* why the disk or the aggregation failed last; empty: it did not */
    int result;                    /* of ACTION_EXIT */
    struct round_summary *history; /* [HISTORY_ROOM] of the latest rounds, oldest first; the file has all */
    uint32_t history_count;
    struct round_summary collapsed; /* the latest round of an episode of collapse; round 0: there is none */
    bool spare_told;                /* that too few clients are there for krum */
    uint64_t closed_ms;             /* when the round that is being aggregated or saved was closed */
    uint32_t accepted;              /* in round `durable` */
    uint32_t declined;              /* in the open round */
    char refusal[MSG_TEXT_MAX];     /* in the open round, why a contribution was refused last */
    uint64_t bytes_up, bytes_down;

    uint64_t alive_ms;        /* next heartbeat */
    struct reminder reminder; /* to say what is waited for, in this phase since then */
    uint64_t remind_since_ms;
    enum round_phase remind_phase;

    /* Of the step in progress. */
    struct actions *out;
    uint64_t now_ms;
    int64_t unix_ms;
    bool nomem;
    struct job **jobs; /* due to be handed out, in order */
    uint32_t jobs_count, jobs_running;
    bool exit_due;
};

/* ---- send.c ---- */

/* Sends; what the message owns moves. */
void peer_send(struct coordinator *c, struct peer *peer, struct msg *msg);
void peer_doom(struct coordinator *c, struct peer *peer);
void peer_pause(struct coordinator *c, const struct peer *peer, uint64_t pause_ms);
bool peer_drop(struct coordinator *c, const struct peer *peer); /* false: no memory to say so, nor below */
bool peer_shake(struct coordinator *c, const struct peer *peer);
/* The log for a line of `event` that this peer, or member, causes; NULL: it has caused too many. */
const struct log *log_of_peer(struct coordinator *c, const struct peer *peer, const char *event);
const struct log *log_of_member(struct coordinator *c, uint32_t member, const char *event);
const struct log *log_of_address(struct coordinator *c, const char *address, const char *event);
/* Says no with a sentence, logs it, and closes. retry_after_ms 0: never. */
void peer_reject(struct coordinator *c, struct peer *peer, enum reject_code code, uint64_t retry_after_ms,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));
/* The peer said what it may not say: BYE, so that it may come back; REJECT, for good, before WELCOME. */
void peer_fault(struct coordinator *c, struct peer *peer, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void peer_bye(struct coordinator *c, struct peer *peer, int code, const char *text);
/* Closes for want of memory. */
void peer_nomem(struct coordinator *c, struct peer *peer, const char *what);
void send_declined(struct coordinator *c, struct peer *peer, uint32_t round, uint32_t reason, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
void send_accepted(struct coordinator *c, struct peer *peer, uint32_t round);
void send_round_end(struct coordinator *c, struct peer *peer, uint32_t round);
/* The model of the last durable round, for an observer. */
void send_aggregate(struct coordinator *c, struct peer *peer);
void job_submit(struct coordinator *c, struct job *job);
/* Hands out what is due: closes, jobs, the exit. */
void flush_due(struct coordinator *c);

/* ---- peers.c ---- */

struct peer *peer_at(const struct coordinator *c, uint32_t number); /* NULL: none */
void peer_opened(struct coordinator *c, uint32_t number, const char *address);
void peer_identified(struct coordinator *c, struct peer *peer, const struct peer_identity *identity);
void peer_closed(struct coordinator *c, struct peer *peer, const struct err *reason);
/* The peer stops being its member's connection. */
void peer_detach(struct coordinator *c, struct peer *peer, const char *reason);
uint32_t member_find(const struct coordinator *c, const char *name); /* NONE */
int member_add(struct coordinator *c, const char *name, uint32_t *member);
/* From sessions_max names on: a new one takes the place of one that never contributed and is away, if there is such a
 * one, so that names that come and go cost no more memory than connections. */
bool member_recycle(struct coordinator *c, const char *name, uint32_t *member);
struct peer *member_peer(const struct coordinator *c, uint32_t member);     /* NULL: away */
struct quota *quota_of(const struct coordinator *c, struct member *member); /* of the current round */

/* ---- strangers.c ---- */

/* What counts as one address, of "127.0.0.1:53122" or "[2001:db8::1]:53122": an IPv4 address, also one in an IPv6
 * address, or the first 64 bits of an IPv6 address, which are one host's or one house's. 0: none. */
uint64_t address_group(const char *address);
void stranger_add(struct coordinator *c, struct peer *peer);
void stranger_remove(struct coordinator *c, struct peer *peer); /* if it is one */
/* Closed after idle_timeout / 6 without HELLO, whatever else came. */
void strangers_tick(struct coordinator *c);
uint64_t strangers_next_ms(const struct coordinator *c);

/* ---- handshakes.c ---- */

#define HANDSHAKE_LEAST_MS 500u /* how long one keeps its place, however short idle_timeout is: the way is as long */
void handshake_knock(struct coordinator *c, struct peer *peer);
void handshake_end(struct coordinator *c, struct peer *peer); /* if it has one, or waits for it */
void handshakes_fill(struct coordinator *c);                  /* at the end of each step */
uint64_t handshakes_next_ms(const struct coordinator *c);

/* ---- slots.c ---- */

/* Takes its place in the line for `offer`, which was checked, and gets a slot at once when there is one. */
void slots_enqueue(struct coordinator *c, uint32_t member);
/* Answers a repeated offer of what already waits or comes in. */
void slots_repeat(struct coordinator *c, uint32_t member);
/* Out of the line, and out of a slot that is not being checked. */
void slots_withdraw(struct coordinator *c, uint32_t member);
void slots_leave(struct coordinator *c, uint32_t member); /* its connection is gone */
void slots_fill(struct coordinator *c);                   /* gives free slots to those who wait */
void slots_close(struct coordinator *c);                  /* the round is closed: late ones are declined */
/* Goes on with an upload: GRANT for what is missing, or the absorption. */
void slot_continue(struct coordinator *c, struct slot *slot);
void slot_again(struct coordinator *c, struct slot *slot); /* the upload, from its first byte */
void slot_free(struct coordinator *c, struct slot *slot);
void slots_tick(struct coordinator *c);
void slots_pace(struct coordinator *c); /* at the end of a step: more of them, or fewer */
uint64_t slots_next_ms(const struct coordinator *c);

/* ---- rounds.c ---- */

void round_apply(struct coordinator *c, enum round_event_kind kind, uint32_t member);
uint32_t round_current(const struct coordinator *c);                  /* durable + 1 */
uint64_t member_weight(const struct coordinator *c, uint32_t member); /* what its contribution counts for */
void remind_tick(struct coordinator *c);
void remind_set(struct coordinator *c); /* at the end of a step: begins anew when the state is another */

/* ---- lengths.c ---- */

/* What that part of the open round's updates is compared with; 0: nothing yet. */
double usual_norm(const struct coordinator *c, enum norm_part part);
/* What is usual among those that delivered: the median of the part's lengths, or what it is at the least. */
double cohort_norm(const struct coordinator *c, enum norm_part part);
/* The round has closed, and of a part nothing was known to compare its updates with. True: some are too long beside the
 * others, or to be clipped, and all are asked for again. */
bool cohort_recall(struct coordinator *c);

/* ---- jobs.c ---- */

/* A job has ended. _submit hands one out; _run, if there is one, is what it does, on another thread. */
void job_done(struct coordinator *c, struct job *job, int result, const struct err *reason);
/* Why the disk failed, for whoever asks what is waited for. */
void disk_trouble(struct coordinator *c, int result, const char *reason);

/* ---- absorb.c ---- */

void absorb_submit(struct coordinator *c, struct slot *slot);
void absorb_run(struct slot *slot);
void absorb_done(struct coordinator *c, struct slot *slot);

/* ---- aggregate.c ---- */

void aggregate_submit(struct coordinator *c);
void aggregate_run(struct aggregate *work);
void aggregate_done(struct coordinator *c);
void aggregate_drop(struct aggregate *work); /* what it has made, and nobody took */

/* ---- save.c ---- */

/* Everything that the save needs, and the memory that the moment after it needs. ERR_NOMEM. */
int save_prepare(struct coordinator *c);
void save_submit(struct coordinator *c);
void save_done(struct coordinator *c, int result, const struct err *reason);
void record_submit(struct coordinator *c);
void record_done(struct coordinator *c);
/* Follows a closed round's measures into and out of an episode of collapse. True when either begins. */
bool alarm_follow(struct coordinator *c, const struct round_summary *summary);

/* ---- blobs.c ---- */

void model_describe(struct coordinator *c);
/* Whoever gives no features gets none: what it says, and what it does. */
bool member_withholds(const struct coordinator *c, uint32_t member);
/* The sample of others' features for a member. *exists false: there is none, as for whoever has no rows in the bank.
 * ERR_NOMEM. */
int remote_describe(struct coordinator *c, uint32_t member, struct blob *out, bool *exists);
/* The next chunk of the peer's download, unless one is still in its write queue. The first judges what was asked. */
void download_continue(struct coordinator *c, struct peer *peer);

/* ---- words.c ---- */

void waits_for(const struct coordinator *c, char out[MSG_TEXT_MAX]);
uint64_t remaining_ms(const struct coordinator *c);
/* Fields for the log: " PREFIXalignment=..." and so on; nothing when not measured. Returns `out`. */
#define WATCH_FIELDS_MAX 160
const char *watch_fields(const struct watch *watch, const char *prefix, char out[WATCH_FIELDS_MAX]);
/* Why the representation counts as collapsed, and what to do; empty: it does not. */
void alarm_text(const struct coordinator *c, char out[MSG_TEXT_MAX]);

/* ---- dispatch.c, handle_*.c ---- */

/* `count` messages of this peer are to be expected: they have been asked for. */
void messages_pay(struct peer *peer, uint64_t count);
/* It has sent so many. */
void messages_take(struct coordinator *c, struct peer *peer, uint64_t count);
void dispatch(struct coordinator *c, struct peer *peer, const struct msg *msg);
void handle_hello(struct coordinator *c, struct peer *peer, const struct msg_hello *hello);
void handle_ready(struct coordinator *c, struct peer *peer, const struct msg_ready *ready);
void handle_evaluated(struct coordinator *c, struct peer *peer, const struct msg_evaluated *evaluated);
void handle_fetch(struct coordinator *c, struct peer *peer, const struct msg_fetch *fetch);
void handle_progress(struct coordinator *c, struct peer *peer, const struct msg_progress *progress);
void handle_offer(struct coordinator *c, struct peer *peer, const struct msg_offer *offer);
void handle_chunk(struct coordinator *c, struct peer *peer, const struct msg *chunk);
void handle_status(struct coordinator *c, struct peer *peer, const struct msg_status *status);
/* The next answer, unless one is still in the peer's write queue. */
void status_continue(struct coordinator *c, struct peer *peer);
void handle_bye(struct coordinator *c, struct peer *peer, const struct msg_bye *bye);

#endif
