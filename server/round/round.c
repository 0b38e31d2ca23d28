/* The table of round.h in code: one function for each event that does more than note something, and settle. */
#include "server/round/round.h"

#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <string.h>

#define NEVER          UINT64_MAX
#define RETRY_LEAST_MS 1000
#define RETRY_MOST_MS  30000

const char *round_phase_name(enum round_phase phase)
{
    static const char *const names[ROUND_PHASES] = {"WAITING", "OPEN", "AGGREGATING", "SAVING", "DONE", "DRAINING"};
    return names[phase];
}

const char *round_event_name(enum round_event_kind kind)
{
    static const char *const names[ROUND_EVENTS] = {"READY",     "LOST",     "BARRED",  "OFFERED",  "ABSORBING",
                                                    "DELIVERED", "DECLINED", "REFUSED", "RECALLED", "AGGREGATED",
                                                    "SAVED",     "FAILED",   "TICK",    "STOP",     "DRAINED"};
    return names[kind];
}

const char *round_state(const struct round *round)
{
    return round->stuck ? "STUCK" : round_phase_name(round->phase);
}

void round_init(struct round *round, const struct round_options *options, uint32_t durable, uint64_t now_ms)
{
    memset(round, 0, sizeof *round);
    round->options = *options;
    round->durable = durable;
    round->phase = durable >= options->rounds ? ROUND_DONE : ROUND_WAITING;
    round->retry_ms = round->next_ms = NEVER;
    round->since_ms = now_ms;
    round->room = UINT32_MAX;
}

void round_fini(struct round *round)
{
    mem_free(round->members);
    mem_free(round->order);
    mem_free(round->invited);
    memset(round, 0, sizeof *round);
}

static int grow(struct round *round)
{
    uint32_t capacity = round->capacity ? 2 * round->capacity : 16;
    struct round_member *members = mem_resize(round->members, capacity, sizeof *members);
    if (!members) {
        return ERR_NOMEM;
    }
    round->members = members;
    uint32_t *order = mem_resize(round->order, capacity, sizeof *order);
    if (!order) {
        return ERR_NOMEM;
    }
    round->order = order;
    uint32_t *invited = mem_resize(round->invited, capacity, sizeof *invited);
    if (!invited) {
        return ERR_NOMEM;
    }
    round->invited = invited;
    round->capacity = capacity;
    return 0;
}

int round_member_add(struct round *round, uint32_t place)
{
    if (round->count == round->capacity && grow(round) != 0) {
        return ERR_NOMEM;
    }
    memmove(round->order + place + 1, round->order + place, (round->count - place) * sizeof *round->order);
    round->order[place] = round->count;
    memset(&round->members[round->count], 0, sizeof *round->members);
    round->count++;
    return 0;
}

void round_member_reuse(struct round *round, uint32_t from, uint32_t to)
{
    uint32_t member = round->order[from];
    memmove(round->order + from, round->order + from + 1, (round->count - 1 - from) * sizeof *round->order);
    memmove(round->order + to + 1, round->order + to, (round->count - 1 - to) * sizeof *round->order);
    round->order[to] = member;
    memset(&round->members[member], 0, sizeof *round->members);
}

bool round_owes(const struct round *round, uint32_t member)
{
    const struct round_member *m = &round->members[member];
    return m->participant && !m->delivered && !m->declined && !m->refused && (!m->absent || m->absorbing);
}

bool round_has_delivered(const struct round *round, uint32_t member)
{
    return round->members[member].participant && round->members[member].delivered;
}

struct round_tally round_count(const struct round *round)
{
    struct round_tally tally = {0};
    for (uint32_t i = 0; i < round->count; i++) {
        tally.ready += round->members[i].ready;
        tally.participants += round->members[i].participant;
        tally.delivered += round_has_delivered(round, i);
        tally.owing += round_owes(round, i);
        tally.refused += round->members[i].refused;
    }
    return tally;
}

/* ---- Who takes part ---- */

static void join(struct round_member *member)
{
    *member = (struct round_member){.ready = true, .participant = true};
}

static bool is_candidate(const struct round_member *member)
{
    return member->ready && !member->participant && !member->refused;
}

/* Invites `most` of the ready members outside the round (all, if they are no more than that). They are drawn in the
 * order of names by a stream that the round's number names, so that the choice does not depend on who came first. */
static void invite_some(struct round *round, uint32_t most)
{
    uint32_t *chosen = round->invited;
    uint32_t candidates = 0, taken = 0;
    for (uint32_t i = 0; i < round->count; i++) {
        candidates += is_candidate(&round->members[round->order[i]]);
    }
    most = most < candidates ? most : candidates;
    struct rng rng;
    rng_init(&rng, round->options.seed, RNG_CHOICE, round->durable + 1, round->draws++, 0);
    for (uint32_t i = 0; i < round->count && taken < most; i++) {
        uint32_t member = round->order[i];
        if (!is_candidate(&round->members[member])) {
            continue;
        }
        /* Each remaining candidate is taken with the chance (still to take) / (still to see): a fair sample in order.
         */
        if (rng_below(&rng, candidates--) < most - taken) {
            join(&round->members[member]);
            chosen[taken++] = member;
        }
    }
    round->invited_count = taken;
}

/* The places that are left, by the bound on weights and by clients_per_round. */
static uint32_t seats_free(const struct round *round, const struct round_tally *tally)
{
    uint64_t seats = round->options.weight_max / round->weight_bound;
    uint64_t by_weight = seats > tally->participants ? seats - tally->participants : 0;
    uint64_t busy = (uint64_t)tally->delivered + tally->owing;
    uint64_t by_plan = round->options.clients_per_round == 0     ? UINT32_MAX
                       : round->options.clients_per_round > busy ? round->options.clients_per_round - busy
                                                                 : 0;
    return (uint32_t)(by_weight < by_plan ? by_weight : by_plan);
}

/* The absent and the refused. */
static void drop_idle(struct round *round)
{
    for (uint32_t i = 0; i < round->count; i++) {
        struct round_member *member = &round->members[i];
        if ((member->absent || member->refused) && !member->delivered && !member->absorbing) {
            member->participant = false;
        }
    }
}

static uint32_t admit(struct round *round)
{
    struct round_tally tally = round_count(round);
    if (tally.participants >= round->options.weight_max / round->weight_bound) {
        drop_idle(round);
        tally = round_count(round);
    }
    invite_some(round, seats_free(round, &tally));
    return round->invited_count > 0 ? ROUND_DO_INVITE : 0;
}

/* ---- Opening and closing ---- */

static void wait_longer(struct round *round, uint64_t now_ms)
{
    round->retry_ms = now_ms + round->retry_wait_ms;
    round->retry_wait_ms = 2 * round->retry_wait_ms < RETRY_MOST_MS ? 2 * round->retry_wait_ms : RETRY_MOST_MS;
}

static uint32_t open_if_enough(struct round *round, uint64_t now_ms)
{
    uint32_t ready = round_count(round).ready, most = round->options.clients_per_round;
    if (ready < round->options.min_clients) {
        round->held = false;
        return 0;
    }
    if ((most != 0 && most < ready ? most : ready) > round->room) {
        round->retry_wait_ms = round->held ? round->retry_wait_ms : RETRY_LEAST_MS;
        round->held = true;
        wait_longer(round, now_ms);
        return 0;
    }
    round->held = false;
    for (uint32_t i = 0; i < round->count; i++) {
        struct round_member *member = &round->members[i];
        *member = (struct round_member){.ready = member->ready, .lost_ms = member->lost_ms};
    }
    round->phase = ROUND_OPEN;
    round->opened_ms = now_ms;
    round->deadline_ms = now_ms + round->options.deadline_ms;
    round->extensions = 0;
    round->draws = 0;
    invite_some(round, round->options.clients_per_round ? round->options.clients_per_round : UINT32_MAX);
    uint64_t fair = round->options.weight_max / round->invited_count;
    round->weight_bound = round->options.weight_cap < fair ? round->options.weight_cap : fair;
    return ROUND_DO_OPEN | ROUND_DO_INVITE;
}

static uint32_t close_round(struct round *round)
{
    round->phase = ROUND_AGGREGATING;
    round->retry_ms = NEVER;
    round->retry_wait_ms = RETRY_LEAST_MS;
    return ROUND_DO_AGGREGATE;
}

static uint32_t drain(struct round *round, uint64_t now_ms)
{
    round->phase = ROUND_DRAINING;
    round->drain_until_ms = now_ms + round->options.drain_ms;
    return ROUND_DO_DRAIN;
}

static void mark_absent(struct round *round, uint64_t now_ms)
{
    for (uint32_t i = 0; i < round->count; i++) {
        struct round_member *member = &round->members[i];
        if (member->participant && !member->ready && now_ms - member->lost_ms >= round->options.deadline_ms / 10) {
            member->absent = true;
        }
    }
}

static uint32_t extend(struct round *round, uint64_t now_ms)
{
    round->extensions++;
    round->deadline_ms = now_ms + round->options.deadline_ms;
    drop_idle(round);
    /* Those that were declined leave and are admitted again like everybody else who is ready. */
    for (uint32_t i = 0; i < round->count; i++) {
        struct round_member *member = &round->members[i];
        member->participant = member->participant && !member->declined;
    }
    return ROUND_DO_EXTEND | admit(round);
}

/* Somebody was refused, and the others that are here are too few, whatever they bring. */
static bool is_stuck(const struct round *round)
{
    struct round_tally tally = round_count(round);
    uint32_t can = tally.delivered + tally.owing;
    for (uint32_t i = 0; i < round->count; i++) {
        const struct round_member *member = &round->members[i];
        can += member->ready && !member->refused && !member->delivered && (!member->participant || member->declined);
    }
    return tally.refused > 0 && can < round->options.min_clients;
}

static uint32_t settle(struct round *round, uint64_t now_ms)
{
    mark_absent(round, now_ms);
    struct round_tally tally = round_count(round);
    bool enough = tally.delivered >= round->options.min_clients;
    if (enough && tally.owing == 0) {
        return close_round(round);
    }
    bool absorbing = false;
    for (uint32_t i = 0; i < round->count; i++) {
        absorbing |= round->members[i].participant && round->members[i].absorbing;
    }
    if (now_ms >= round->deadline_ms && !absorbing) {
        return enough ? close_round(round) : extend(round, now_ms);
    }
    if (tally.delivered + tally.owing < round->options.min_clients) {
        return admit(round);
    }
    return 0;
}

/* ---- Events ---- */

static uint32_t on_ready(struct round *round, struct round_member *member, uint32_t index, uint64_t now_ms)
{
    member->ready = true;
    member->absent = false;
    if (round->phase == ROUND_WAITING) {
        return open_if_enough(round, now_ms);
    }
    if (round->phase != ROUND_OPEN) {
        return 0;
    }
    /* What was declined or refused may come again from a client that was repaired and restarted. */
    member->declined = member->refused = false;
    bool again = member->participant && !member->delivered && !member->absorbing;
    uint32_t actions = settle(round, now_ms);
    if (again && round->phase == ROUND_OPEN && member->participant && !(actions & ROUND_DO_INVITE)) {
        round->invited[0] = index;
        round->invited_count = 1;
        actions |= ROUND_DO_INVITE;
    }
    return actions;
}

static uint32_t on_offered(struct round *round, struct round_member *member, uint64_t now_ms)
{
    member->declined = member->refused = false; /* A good one may follow a bad one. */
    member->absorbing = false;
    struct round_tally tally = round_count(round);
    if (member->ready && !member->participant && seats_free(round, &tally) > 0) {
        join(member);
    }
    return settle(round, now_ms);
}

static uint32_t on_contribution(struct round *round, enum round_event_kind kind, struct round_member *member,
                                uint64_t now_ms)
{
    if (!member->participant) {
        return 0;
    }
    switch (kind) {
    case ROUND_ABSORBING:
        member->absorbing = !member->delivered;
        member->declined = member->refused = false;
        return 0;
    case ROUND_DELIVERED:
        member->delivered = true;
        member->declined = member->refused = false;
        break;
    case ROUND_REFUSED:
        member->refused = !member->delivered;
        break;
    default:
        member->declined = !member->delivered;
        break;
    }
    member->absorbing = false;
    return settle(round, now_ms);
}

static uint32_t on_saved(struct round *round, uint64_t now_ms)
{
    round->durable++;
    if (round->stopping) {
        return ROUND_DO_END | drain(round, now_ms);
    }
    if (round->durable >= round->options.rounds) {
        round->phase = ROUND_DONE;
        return ROUND_DO_END | ROUND_DO_FINISH;
    }
    round->phase = ROUND_WAITING;
    uint32_t opened = open_if_enough(round, now_ms);
    return ROUND_DO_END | (opened ? opened : ROUND_DO_WAIT);
}

static uint32_t on_failed(struct round *round, uint64_t now_ms)
{
    if (round->stopping) {
        return drain(round, now_ms);
    }
    wait_longer(round, now_ms);
    return 0;
}

static uint32_t on_recalled(struct round *round, uint64_t now_ms)
{
    for (uint32_t i = 0; i < round->count; i++) {
        round->members[i].delivered = false;
    }
    round->phase = ROUND_OPEN;
    round->deadline_ms = now_ms + round->options.deadline_ms;
    return 0;
}

static uint32_t retry(struct round *round)
{
    round->retry_ms = NEVER;
    return round->phase == ROUND_SAVING ? ROUND_DO_SAVE : ROUND_DO_AGGREGATE;
}

static uint32_t on_stop(struct round *round, uint64_t now_ms)
{
    switch (round->phase) {
    case ROUND_AGGREGATING:
    case ROUND_SAVING:
        round->stopping = true;
        return round->retry_ms != NEVER ? retry(round) : 0;
    case ROUND_DRAINING:
        return 0;
    default:
        return drain(round, now_ms);
    }
}

static uint32_t leave(struct round *round)
{
    if (round->exited) {
        return 0;
    }
    round->exited = true;
    return ROUND_DO_EXIT;
}

static uint32_t on_tick(struct round *round, uint64_t now_ms)
{
    switch (round->phase) {
    case ROUND_WAITING:
        return round->held && now_ms >= round->retry_ms ? open_if_enough(round, now_ms) : 0;
    case ROUND_OPEN:
        return settle(round, now_ms);
    case ROUND_AGGREGATING:
    case ROUND_SAVING:
        return now_ms >= round->retry_ms ? retry(round) : 0;
    case ROUND_DRAINING:
        return now_ms >= round->drain_until_ms ? leave(round) : 0;
    default:
        return 0;
    }
}

static uint32_t step(struct round *round, const struct round_event *event, uint64_t now_ms)
{
    bool open = round->phase == ROUND_OPEN;
    struct round_member *member = event->kind <= ROUND_REFUSED ? &round->members[event->member] : NULL;
    round->invited_count = 0;
    switch (event->kind) {
    case ROUND_READY:
        return on_ready(round, member, event->member, now_ms);
    case ROUND_LOST:
    case ROUND_BARRED:
        member->absent |= event->kind == ROUND_BARRED && member->participant;
        member->lost_ms = member->ready ? now_ms : member->lost_ms;
        member->ready = false;
        if (round->phase == ROUND_WAITING && round->held) {
            return open_if_enough(round, now_ms); /* Fewer may have room. */
        }
        return open ? settle(round, now_ms) : 0;
    case ROUND_OFFERED:
        return open ? on_offered(round, member, now_ms) : 0;
    case ROUND_ABSORBING:
    case ROUND_DELIVERED:
    case ROUND_DECLINED:
    case ROUND_REFUSED:
        return open ? on_contribution(round, event->kind, member, now_ms) : 0;
    case ROUND_RECALLED:
        return round->phase == ROUND_AGGREGATING ? on_recalled(round, now_ms) : 0;
    case ROUND_AGGREGATED:
        if (round->phase != ROUND_AGGREGATING) {
            return 0;
        }
        round->phase = ROUND_SAVING;
        round->retry_ms = NEVER;
        round->retry_wait_ms = RETRY_LEAST_MS;
        return ROUND_DO_SAVE;
    case ROUND_SAVED:
        return round->phase == ROUND_SAVING ? on_saved(round, now_ms) : 0;
    case ROUND_FAILED:
        return round->phase == ROUND_AGGREGATING || round->phase == ROUND_SAVING ? on_failed(round, now_ms) : 0;
    case ROUND_TICK:
        return on_tick(round, now_ms);
    case ROUND_STOP:
        return on_stop(round, now_ms);
    case ROUND_DRAINED:
        return round->phase == ROUND_DRAINING ? leave(round) : 0;
    case ROUND_EVENTS:
        break;
    }
    return 0;
}

static uint64_t find_next_ms(const struct round *round)
{
    if (round->phase == ROUND_AGGREGATING || round->phase == ROUND_SAVING) {
        return round->retry_ms;
    }
    if (round->phase == ROUND_DRAINING) {
        return round->exited ? NEVER : round->drain_until_ms;
    }
    if (round->phase != ROUND_OPEN) {
        return round->phase == ROUND_WAITING && round->held ? round->retry_ms : NEVER;
    }
    uint64_t next = round->deadline_ms;
    for (uint32_t i = 0; i < round->count; i++) {
        const struct round_member *member = &round->members[i];
        if (member->participant && member->absorbing) {
            return NEVER; /* Whatever is due is looked at when the absorption ends, which is soon. */
        }
        if (member->participant && !member->ready && !member->absent) {
            uint64_t absent_ms = member->lost_ms + round->options.deadline_ms / 10;
            next = absent_ms < next ? absent_ms : next;
        }
    }
    return next;
}

uint32_t round_step(struct round *round, const struct round_event *event, uint64_t now_ms)
{
    enum round_phase before = round->phase;
    bool held = round->held;
    uint32_t durable = round->durable, actions = step(round, event, now_ms);
    bool stuck = round->phase == ROUND_OPEN && is_stuck(round);
    round->held = round->held && round->phase == ROUND_WAITING;
    if (round->phase != before || round->durable != durable || round->stuck != stuck || round->held != held) {
        round->since_ms = now_ms;
        actions |= stuck && !round->stuck ? ROUND_DO_STUCK : 0;
    }
    round->stuck = stuck;
    round->next_ms = find_next_ms(round);
    return actions;
}

uint64_t round_next_ms(const struct round *round)
{
    return round->next_ms;
}
