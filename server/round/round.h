/* The round: who takes part, when it opens and when it closes. A pure state machine; time comes in as a number.
 *
 * Members are small indices that the caller gives out (round_member_add), and may give to another when it has forgotten
 * the first (round_member_reuse). The caller keeps
 * names, connections and contributions; the round keeps, for each member, whether it is ready and what it owes. The
 * memory grows with the members alone, in round_member_add, so that round_step cannot fail.
 *
 *   WAITING      for min_clients ready members
 *   OPEN         for the contributions of its participants
 *   AGGREGATING  for the next model
 *   SAVING       for the disk
 *   DONE         for nothing: the last round is durable
 *   DRAINING     for the goodbyes, after STOP
 *
 * The table. What an event notes (a member ready, away, delivered, ...) is said with the events below, settle under the
 * table. An empty cell ignores the event.
 *
 *   event       WAITING          OPEN               AGGREGATING        SAVING             DONE      DRAINING
 *   ----------------------------------------------------------------------------------------------------------
 *   READY       note; enough:    note; who owes     note               note               note
 *               OPEN INVITE      gets INVITE;
 *               -> OPEN          settle
 *   LOST,       note             note; settle       note               note               note      note
 *   BARRED
 *   OFFERED                      note, joins if
 *                                there is room;
 *                                settle
 *   ABSORBING                    note
 *   DELIVERED                    note; settle
 *   DECLINED                     note; settle
 *   REFUSED                      note; settle
 *   AGGREGATED                                      SAVE -> SAVING
 *   RECALLED                                        note -> OPEN
 *   SAVED                                                              END, then see (*)
 *   FAILED                                          see (+)            see (+)
 *   TICK                         settle             retry that is      retry that is                overdue: EXIT
 *                                                   due: AGGREGATE     due: SAVE
 *   STOP        DRAIN            DRAIN              stopping; retry    stopping; retry    DRAIN
 *               -> DRAINING      -> DRAINING        now: AGGREGATE     now: SAVE          -> DRAINING
 *   DRAINED                                                                                         EXIT
 *
 *   (*) stopping: DRAIN -> DRAINING; it was the last round: FINISH -> DONE; enough are ready: OPEN INVITE -> OPEN;
 *       else WAIT -> WAITING
 *   Where contributions are kept on a disk, a round opens only when it has room for those of all that would take part;
 *   else it is *held*, and WAITING looks again after 1 s, doubling to 30 s, and with each event.
 *   RECALLED comes, if at all, with the step in which the round closed: nobody has delivered any more, and the deadline
 *   begins anew.
 *   (+) stopping: DRAIN -> DRAINING; else a retry after 1 s, doubling to 30 s
 *
 * settle, in this order:
 *   1. a participant that is away for deadline / 10, or was barred, counts as absent (until it comes back);
 *   2. no participant owes anything, and min_clients have delivered: AGGREGATE -> AGGREGATING;
 *   3. the deadline has passed and no absorption is under way: with min_clients delivered AGGREGATE -> AGGREGATING;
 *      else EXTEND by another deadline: the absent and the refused are dropped, those that were declined are asked
 *      again, ready late joiners are admitted: INVITE;
 *   4. those that delivered and those that may still are fewer than min_clients: INVITE ready late joiners.
 *
 * A participant owes a contribution unless it has delivered, was declined or refused, or is absent. One whose
 * contribution is being absorbed owes it whether it is connected or not, so a round never closes over an absorption
 * that has begun.
 *
 * Declined and refused differ in what another try would bring. What was declined may come whole next time. What was
 * refused would come again bit for bit, from the same model and the same images, so a member that was refused is not
 * asked again in this round, unless it connects anew (somebody may have repaired it) or offers something by itself.
 * The round is *stuck* while somebody was refused, and those that delivered and those that still can are fewer than
 * min_clients: STUCK is told when that begins, and the state that people see is STUCK. It stays open for clients that
 * are repaired, and for others.
 *
 * The sum of weights is bounded when the round opens: with P participants each counts for at most
 * weight_bound = min(weight_cap, weight_max / P). At most weight_max / weight_bound members can take part in it, also
 * after late joiners are admitted; where they need seats, the absent and the refused give theirs up. */
#ifndef STARLING_ROUND_ROUND_H
#define STARLING_ROUND_ROUND_H

#include <stdbool.h>
#include <stdint.h>

enum round_phase {
    ROUND_WAITING,
    ROUND_OPEN,
    ROUND_AGGREGATING,
    ROUND_SAVING,
    ROUND_DONE,
    ROUND_DRAINING,
    ROUND_PHASES
};
const char *round_phase_name(enum round_phase phase); /* "WAITING" */

enum round_event_kind {
    ROUND_READY,      /* member: connected and able to train */
    ROUND_LOST,       /* member: not connected any more */
    ROUND_BARRED,     /* member: likewise, and it may not come back as it was: nothing is to be waited for */
    ROUND_OFFERED,    /* member: has a contribution for the open round, maybe from before a restart of the server, maybe
                         one that was absorbed in vain and comes again */
    ROUND_ABSORBING,  /* member: its contribution is here, and is being checked and added */
    ROUND_DELIVERED,  /* member: it is in the sum */
    ROUND_DECLINED,   /* member: it did not come whole, and left no trace */
    ROUND_REFUSED,    /* member: likewise, for a reason that another try would meet again */
    ROUND_RECALLED,   /* what was delivered counts as not delivered, and is to be offered anew */
    ROUND_AGGREGATED, /* the next model exists */
    ROUND_SAVED,      /* it is durable */
    ROUND_FAILED,     /* aggregating or saving failed */
    ROUND_TICK,
    ROUND_STOP,
    ROUND_DRAINED, /* all goodbyes are said */
    ROUND_EVENTS
};
const char *round_event_name(enum round_event_kind kind); /* "READY" */

struct round_event {
    enum round_event_kind kind;
    uint32_t member;
};

/* Bits, to be carried out in this order. */
enum round_action {
    ROUND_DO_END = 1 << 0,       /* round `durable` is durable: tell everybody */
    ROUND_DO_FINISH = 1 << 1,    /* it was the last one */
    ROUND_DO_WAIT = 1 << 2,      /* there are not enough clients for the next one */
    ROUND_DO_OPEN = 1 << 3,      /* round `durable + 1` is open */
    ROUND_DO_EXTEND = 1 << 4,    /* its deadline was moved */
    ROUND_DO_INVITE = 1 << 5,    /* invited[0..invited_count) are to get it */
    ROUND_DO_STUCK = 1 << 6,     /* it cannot close with the clients that are here */
    ROUND_DO_AGGREGATE = 1 << 7, /* nothing more is accepted; make the next model */
    ROUND_DO_SAVE = 1 << 8,      /* make it durable */
    ROUND_DO_DRAIN = 1 << 9,     /* say goodbye to everybody */
    ROUND_DO_EXIT = 1 << 10,
};

struct round_options {
    uint32_t rounds, min_clients, clients_per_round; /* of the plan; clients_per_round 0: all that are ready */
    uint64_t deadline_ms;
    uint64_t drain_ms; /* how long goodbyes may take */
    uint64_t seed;
    uint64_t weight_cap, weight_max;
};

struct round_member {
    bool ready;
    bool participant; /* of the open round; what follows holds for participants */
    bool absorbing, delivered, declined, absent;
    bool refused;     /* of the open round, participant or not any more */
    uint64_t lost_ms; /* when it was lost, while it is not ready */
};

struct round {
    struct round_options options;
    enum round_phase phase;
    uint32_t durable; /* the last durable round; the one worked on is durable + 1 */
    bool stopping;    /* STOP came while a round was being closed */
    bool exited;
    bool stuck;                      /* OPEN: see above */
    bool held;                       /* WAITING: see above */
    uint32_t room;                   /* contributions that there is room for; the caller's */
    uint64_t since_ms;               /* of phase, stuck and held */
    uint64_t opened_ms, deadline_ms; /* of the open round */
    uint32_t extensions, draws;
    uint64_t weight_bound;
    uint64_t retry_ms, retry_wait_ms; /* retry_ms UINT64_MAX: nothing to retry */
    uint64_t drain_until_ms;
    uint64_t next_ms; /* when TICK is due */

    uint32_t count, capacity;
    struct round_member *members;
    uint32_t *order;   /* members in order of name */
    uint32_t *invited; /* for ROUND_DO_INVITE, valid until the next step; in order of name */
    uint32_t invited_count;
};

/* `durable` rounds are behind us. A round that starts with durable == rounds is DONE. */
void round_init(struct round *round, const struct round_options *options, uint32_t durable, uint64_t now_ms);
void round_fini(struct round *round);
/* A new member, not ready, which comes at `place` in the order of names. Its index is round->count - 1 afterwards.
 * ERR_NOMEM. */
int round_member_add(struct round *round, uint32_t place);
/* The member at `from` in the order of names is gone for good; a new one has its index, not ready, and comes at `to` of
 * the others. Only for a member that is neither ready nor a participant. */
void round_member_reuse(struct round *round, uint32_t from, uint32_t to);
/* Takes one event and returns the actions as bits. */
uint32_t round_step(struct round *round, const struct round_event *event, uint64_t now_ms);
/* When TICK is due; UINT64_MAX: never. */
uint64_t round_next_ms(const struct round *round);

const char *round_state(const struct round *round); /* for people: the phase's name, or "STUCK" */

/* Whether the open round still waits for this member. */
bool round_owes(const struct round *round, uint32_t member);
/* Whether it has this member's contribution; also while the round is being closed. */
bool round_has_delivered(const struct round *round, uint32_t member);

struct round_tally {
    uint32_t ready;        /* members */
    uint32_t participants; /* of the open round */
    uint32_t delivered, owing;
    uint32_t refused; /* members */
};
struct round_tally round_count(const struct round *round);

#endif
