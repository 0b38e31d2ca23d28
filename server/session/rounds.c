/* Carries out what the round wants done; server/round decides what and when. */
#include "server/session/state.h"

#include <stdio.h>
#include <string.h>

uint32_t round_current(const struct coordinator *c)
{
    return c->round.durable + 1;
}

uint64_t member_weight(const struct coordinator *c, uint32_t member)
{
    uint64_t images = c->members[member].offer.report.images;
    return images < c->round.weight_bound ? images : c->round.weight_bound;
}

static void log_waiting(const struct coordinator *c, const struct log *log)
{
    char text[MSG_TEXT_MAX];
    waits_for(c, text);
    log_event(log, LOG_LEVEL_INFO, "waiting", "round=%u for=\"%s\"", round_current(c), text);
}

/* A chunk by reference keeps its whole model in memory. One model's readers may be late by a round; if each of many
 * stopped in a round of its own, there would be as many models as readers. */
static void close_idle_readers(struct coordinator *c)
{
    for (uint32_t i = 0; i < c->peers_room; i++) {
        struct peer *peer = c->peers[i];
        if (peer && peer->holds != 0 && peer->holds < c->round.durable && peer->state != PEER_CLOSING) {
            char text[MSG_TEXT_MAX];
            (void)snprintf(text, sizeof text,
                           "a piece of the model of round %u was left unread until round %u was over", peer->holds,
                           c->round.durable);
            log_event(c->log, LOG_LEVEL_WARN, "send_failed", "reason=\"%s: %s\"", peer->address, text);
            peer_bye(c, peer, ERR_TEMPFAIL, text);
        }
    }
}

static void end_round(struct coordinator *c)
{
    close_idle_readers(c);
    for (uint32_t i = 0; i < c->round.count; i++) {
        struct peer *peer = member_peer(c, i);
        if (!peer) {
            continue;
        }
        if (peer->state > PEER_READY) {
            peer->state = PEER_READY;
        }
        peer->download.active = false;
        c->members[i].step = c->members[i].steps = 0;
        send_round_end(c, peer, c->round.durable);
        if (peer->state == PEER_OBSERVING) {
            send_aggregate(c, peer);
        }
    }
}

static void opened(struct coordinator *c)
{
    c->declined = 0;
    c->bytes_up = c->bytes_down = 0;
    memset(c->cohort_norms, 0, sizeof c->cohort_norms);
    c->trouble[0] = c->refusal[0] = '\0';
    model_describe(c);
    log_event(c->log, LOG_LEVEL_INFO, "round_opened", "round=%u clients=%u deadline_ms=%llu", round_current(c),
              c->round.invited_count, (unsigned long long)c->plan->round_deadline_ms);
}

static void invite(struct coordinator *c, uint32_t member)
{
    struct peer *peer = member_peer(c, member);
    if (!peer) { /* Just doomed, and let go. */
        return;
    }
    struct msg msg = {.type = MSG_ROUND};
    msg.round.round = round_current(c);
    msg.round.remaining_ms = remaining_ms(c);
    msg.round.model = c->model_blob;
    if (remote_describe(c, member, &msg.round.remote, &msg.round.has_remote) != 0) {
        peer_nomem(c, peer, "the remote features");
        return;
    }
    if (peer->state == PEER_READY) {
        peer->state = PEER_WORKING;
    }
    peer_send(c, peer, &msg);
}

static void extended(struct coordinator *c)
{
    struct round_tally tally = round_count(&c->round);
    log_event(c->log, LOG_LEVEL_WARN, "round_extended", "round=%u times=%u delivered=%u least=%u deadline_ms=%llu",
              round_current(c), c->round.extensions, tally.delivered, c->plan->min_clients,
              (unsigned long long)c->plan->round_deadline_ms);
}

/* How many clients there are is known when a round closes, or cannot: of just min_clients one that lies is refused, and
 * no round ever does. */
static void look_for_spare(struct coordinator *c, uint32_t clients)
{
    uint32_t least = c->plan->min_clients, liars = c->plan->aggregation.byzantine;
    if (c->plan->aggregation.rule == AGGREGATION_KRUM && clients < least + liars && !c->spare_told) {
        c->spare_told = true;
        log_event(c->log, LOG_LEVEL_WARN, "krum_without_spare",
                  "clients=%u min_clients=%u byzantine=%u reason=\"a refused contribution is none, and krum is not "
                  "computed of fewer than min_clients\"",
                  clients, least, liars);
    }
}

static void stuck(struct coordinator *c)
{
    struct round_tally tally = round_count(&c->round);
    char text[MSG_TEXT_MAX];
    waits_for(c, text);
    log_event(c->log, LOG_LEVEL_ERROR, "round_stuck", "round=%u refused=%u delivered=%u least=%u waits_for=\"%s\"",
              round_current(c), tally.refused, tally.delivered, c->plan->min_clients, text);
    look_for_spare(c, tally.ready);
}

static void closed(struct coordinator *c)
{
    struct round_tally tally = round_count(&c->round);
    look_for_spare(c, tally.ready);
    c->closed_ms = c->now_ms;
    log_event(c->log, LOG_LEVEL_INFO, "round_closed", "round=%u accepted=%u of=%u declined=%u", round_current(c),
              tally.delivered, tally.participants, c->declined);
    slots_close(c);
    for (uint32_t i = 0; i < c->round.count; i++) {
        struct peer *peer = member_peer(c, i);
        if (peer && peer->state != PEER_OBSERVING) { /* An observer's model is older than this round. */
            peer->download.active = false;
        }
    }
}

static void say_goodbye(struct coordinator *c)
{
    log_event(c->log, LOG_LEVEL_INFO, "stopping", "round=%u", c->round.durable);
    for (uint32_t i = 0; i < c->peers_room; i++) {
        struct peer *peer = c->peers[i];
        if (peer && peer->state != PEER_CLOSING && !peer->doomed) {
            peer_bye(c, peer, 0, "the server is stopping");
        }
    }
}

/* Asked when a round may open with the next event. */
static void look_for_room(struct coordinator *c, enum round_event_kind kind)
{
    if (!c->options.spool || (c->round.phase != ROUND_WAITING && kind != ROUND_SAVED)) {
        return;
    }
    struct err err = {0};
    uint64_t bytes = c->layout->total * sizeof(float), left = 0;
    c->trouble[0] = '\0';
    if (spool_room(c->options.spool, bytes, &c->round.room, &left, &err) != 0) {
        c->round.room = 0;
        (void)snprintf(c->trouble, sizeof c->trouble, "the disk: %.240s", err.text);
    } else {
        (void)snprintf(c->trouble, sizeof c->trouble,
                       "disk space: aggregation.rule keeps the updates of a round in %.120s, %llu bytes each; %llu are "
                       "free",
                       c->options.spool->folder, (unsigned long long)bytes, (unsigned long long)left);
    }
}

static void log_held(const struct coordinator *c)
{
    log_event(c->log, LOG_LEVEL_ERROR, "round_held", "round=%u room=%u waits_for=\"%s\"", round_current(c),
              c->round.room, c->trouble);
}

void round_apply(struct coordinator *c, enum round_event_kind kind, uint32_t member)
{
    enum round_phase before = c->round.phase;
    bool held = c->round.held;
    struct round_event event = {kind, member};
    look_for_room(c, kind);
    uint32_t todo = round_step(&c->round, &event, c->now_ms);
    if ((todo & ROUND_DO_AGGREGATE) && before == ROUND_OPEN && cohort_recall(c)) {
        return;
    }
    if (c->round.held && !held) {
        log_held(c);
    }
    if (todo & ROUND_DO_END) {
        end_round(c);
    }
    if (todo & ROUND_DO_FINISH) {
        log_event(c->log, LOG_LEVEL_INFO, "done", "rounds=%u", c->round.durable);
    }
    if (todo & ROUND_DO_OPEN) {
        opened(c);
    }
    if (todo & ROUND_DO_EXTEND) {
        extended(c);
    }
    if (todo & ROUND_DO_INVITE) {
        for (uint32_t i = 0; i < c->round.invited_count; i++) {
            invite(c, c->round.invited[i]);
        }
    }
    if (todo & ROUND_DO_STUCK) {
        stuck(c);
    }
    if (todo & ROUND_DO_OPEN) {
        /* Contributions that were offered while the round was WAITING, as after a restart. They are of ready members,
         * and WAITING ends as soon as there are min_clients of these, so all of them take part. */
        slots_fill(c);
    }
    if (todo & ROUND_DO_AGGREGATE) {
        if (before == ROUND_OPEN) {
            closed(c);
        }
        aggregate_submit(c);
    }
    if (todo & ROUND_DO_SAVE) {
        save_submit(c);
    }
    if (todo & ROUND_DO_DRAIN) {
        say_goodbye(c);
    }
    if (todo & ROUND_DO_EXIT) {
        c->exit_due = true;
    }
    if (todo & ROUND_DO_WAIT) {
        log_waiting(c, c->log);
    } else if (c->round.phase == ROUND_WAITING && kind <= ROUND_BARRED) {
        log_waiting(c, log_of_member(c, member, "waiting"));
    }
}

/* ---- Reminders ---- */

/* No wait is silent: what has not moved on for idle_timeout is said again. */
void remind_tick(struct coordinator *c)
{
    if (!reminder_is_due(&c->reminder, c->now_ms)) {
        return;
    }
    char text[MSG_TEXT_MAX];
    waits_for(c, text);
    log_event(c->log, LOG_LEVEL_INFO, "still_waiting", "round=%u state=%s seconds=%llu for=\"%s\"", round_current(c),
              round_state(&c->round), (unsigned long long)(c->now_ms - c->round.since_ms) / 1000, text);
}

void remind_set(struct coordinator *c)
{
    if (c->remind_since_ms == c->round.since_ms && c->remind_phase == c->round.phase && c->reminder.due_ms != 0) {
        return;
    }
    c->remind_since_ms = c->round.since_ms;
    c->remind_phase = c->round.phase;
    if (c->round.phase == ROUND_DONE || c->round.phase == ROUND_DRAINING) {
        c->reminder.due_ms = UINT64_MAX;
    } else {
        reminder_begin(&c->reminder, c->now_ms, c->options.idle_timeout_ms);
    }
}
