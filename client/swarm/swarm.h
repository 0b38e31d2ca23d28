/* Many clients of one server that train nothing: what each says and when, without I/O. They share the model and the
 * bytes that they upload (stream.h); a client is a few hundred bytes.
 *
 * Each one keeps the conversation of proto/PROTOCOL.md and checks what it receives as a client does: state and type,
 * the welcome, descriptions, order and hash of what it downloads. The first to fetch a round's model keeps its bytes,
 * which are compared with what they must be (chain.h). After the last round an observer, who is client number
 * `clients`, fetches what came of it.
 *
 * A swarm forgives nothing: the first thing that is not as it should be is the failure of the whole. Only what the
 * server may decide (not selected, too late) is counted instead.
 *
 * States of a client, and what each waits for:
 *   AWAY        a connection
 *   GREETING    WELCOME
 *   GREETED     all others to be welcomed; idle: nothing, it beats
 *   READY       ROUND; the observer: AGGREGATE
 *   IN_LINE     its turn to fetch: what is on its way to us takes memory here, so few fetch at a time
 *   FETCHING    CHUNKs
 *   OFFERING    GRANT, QUEUED, ACCEPTED or DECLINED
 *   UPLOADING   its chunks to be written, then as OFFERING
 *   DELIVERED   ROUND_END */
#ifndef STARLING_SWARM_SWARM_H
#define STARLING_SWARM_SWARM_H

#include "common/config/plan.h"
#include "common/wire/msg.h"

#define SWARM_CLIENTS_MAX 20000u
#define SWARM_NAME_MAX    48

struct swarm;

struct swarm_options {
    uint32_t clients;
    uint32_t rounds; /* 0: all that are left of the run */
    bool rows_given; /* else what the plan lets a client upload */
    uint32_t rows;
    bool idle;                 /* greet and beat, no more */
    char name[SWARM_NAME_MAX]; /* client 3 is name-3 */
    struct hash128 instance;   /* random */
    /* The callee may take the payload. */
    void (*send)(void *ctx, uint32_t client, struct msg *msg);
    void *ctx;
};

/* Times are the caller's microseconds. */
struct swarm_round {
    uint32_t round;
    uint64_t opened_us, accepted_us; /* the first ROUND; the last ACCEPTED */
    uint32_t accepted, declined;
    uint32_t slots;    /* most that had bytes left to send at a time: each of them surely held a slot */
    uint64_t up, down; /* bytes of blobs */
    uint64_t plus, minus;
    uint32_t ended; /* clients that know how it ended */
    uint32_t said;  /* contributions, as ROUND_END has it; 0: nobody has heard it yet */
};

enum swarm_phase {
    SWARM_RUNNING,
    SWARM_LEAVING, /* the clients are to say goodbye, and then the observer to be connected */
    SWARM_DONE,    /* all was as it should be */
};

int swarm_new(const struct swarm_options *options, struct swarm **out);
void swarm_free(struct swarm *swarm);

/* What happens to a client. Negative: the swarm has failed, and err says why. */
int swarm_connected(struct swarm *swarm, uint32_t client, uint64_t now_us, struct err *err);
int swarm_message(struct swarm *swarm, uint32_t client, const struct msg *msg, uint64_t now_us, struct err *err);
void swarm_drained(struct swarm *swarm, uint32_t client);
void swarm_beat(struct swarm *swarm, uint64_t now_us); /* heartbeats that are due; to be called often */

enum swarm_phase swarm_phase(const struct swarm *swarm);
uint32_t swarm_welcomed(const struct swarm *swarm); /* clients */
uint64_t swarm_idle_timeout_ms(const struct swarm *swarm);
const struct plan *swarm_plan(const struct swarm *swarm);     /* NULL before the first welcome */
const struct layout *swarm_layout(const struct swarm *swarm); /* the same */
uint32_t swarm_compared(const struct swarm *swarm);           /* models */
uint64_t swarm_beats(const struct swarm *swarm);              /* ALIVEs that came */
/* Rounds that have ended for all, in order. */
const struct swarm_round *swarm_rounds(const struct swarm *swarm, uint32_t *count);
const struct frame_limits *swarm_limits(const struct swarm *swarm, uint32_t client); /* asked after each event */

#endif
