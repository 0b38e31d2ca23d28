/* Inside the swarm: its state, and what its files call of each other. */
#ifndef STARLING_SWARM_STATE_H
#define STARLING_SWARM_STATE_H

#include "client/swarm/chain.h"
#include "client/swarm/swarm.h"

#define FETCHES_MAX 64 /* at a time: each may hold a chunk of 1 MiB in its decoder */

enum member_state {
    MEMBER_AWAY,
    MEMBER_GREETING,
    MEMBER_GREETED,
    MEMBER_READY,
    MEMBER_IN_LINE,
    MEMBER_FETCHING,
    MEMBER_OFFERING,
    MEMBER_UPLOADING,
    MEMBER_DELIVERED,
    MEMBER_STATES
};

struct member {
    enum member_state state;
    uint32_t ended_round;       /* the last one that it knows to be over */
    uint32_t counts_in;         /* the last round that ACCEPTED it */
    struct msg_round open;      /* the observer's: round + 1 and its model */
    bool in_line;               /* in the ring of those who wait to fetch, maybe no longer for anything */
    const struct blob *fetched; /* of `open` */
    uint64_t received;
    struct hash_stream *hash; /* of what was received; while FETCHING */
    uint32_t upload;          /* enum blob_kind; 0: nothing more */
    uint64_t upload_offset;
    uint64_t beat_us;
};

struct swarm {
    struct swarm_options options;
    struct frame_limits greeting_limits, talking_limits, fetching_limits;
    struct member *members; /* [clients + 1], the last one is the observer */
    uint32_t welcomed;
    uint64_t beats;
    enum swarm_phase phase;

    /* The federation, from the first welcome. */
    struct layout *layout; /* NULL before */
    struct plan plan;
    struct hash128 run, boot, plan_hash;
    uint64_t idle_timeout_ms;
    struct stream stream;
    struct chain chain;
    uint32_t first, last; /* rounds */
    struct swarm_round *rounds;
    uint32_t closed; /* rounds that have ended for all */

    uint32_t *line; /* ring of members, [clients + 1] */
    uint32_t line_begin, line_count, fetching;
    uint32_t uploading; /* members with bytes left to send */

    /* The model that is kept, of one round at a time. */
    uint32_t kept_round;  /* 0: none */
    uint32_t keeper;      /* who fetches it */
    uint32_t kept_last;   /* the last round that had a keeper */
    bool kept_whole;      /* it waits for the expectation */
    uint8_t *kept;        /* [total] floats */
    struct hash128 model; /* that the clients were told for ... */
    uint32_t model_round;
    uint32_t compared;

    uint64_t now_us; /* of the step under way */
};

void swarm_say(struct swarm *swarm, uint32_t client, struct msg msg);
int swarm_fail(const struct swarm *swarm, uint32_t client, struct err *err, int code, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* NULL: none of those that the swarm takes part in. */
struct swarm_round *swarm_round_of(struct swarm *swarm, uint32_t round);

/* greeting.c */
int swarm_on_welcome(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err);
int swarm_on_reject(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err);

/* fetch.c */
int swarm_on_round(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err);
int swarm_on_aggregate(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err);
int swarm_on_chunk(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err);
int swarm_go_on(struct swarm *swarm, struct err *err); /* whoever may fetch now does */
void swarm_drop_fetch(struct swarm *swarm, uint32_t client);
/* Goes on with what was downloaded and what rounds became, as far as both are known. */
int swarm_settle(struct swarm *swarm, struct err *err);

/* offer.c */
void swarm_offer(struct swarm *swarm, uint32_t client);
int swarm_on_grant(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err);
int swarm_on_accepted(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err);
int swarm_on_declined(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err);
int swarm_on_round_end(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err);

#endif
