/* Upload slots: how many contributions may be in memory at a time, and the line for them. First come, first served.
 * upload_slots bounds them; how many of those are in use is decided in pace.h.
 *
 * A member in the line has been told its place (QUEUED). A slot stages one contribution whole. While others wait it is
 * lost by an uploader that sends nothing for idle_timeout / 2, that brings fewer than upload_rate bytes a second over
 * idle_timeout, or that takes longer than round_deadline / 2. Whoever loses one is told why and goes to the end of the
 * line, so each of n members that wait gets a slot after n - 1 turns at most, however slow the others are. A slot
 * survives a lost connection for as long as nobody else needs it, and keeps its memory until the round is closed. */
#include "server/session/state.h"

#include <string.h>

static uint32_t place_of(const struct coordinator *c, uint32_t member)
{
    uint32_t place = 0;
    while (c->queue[place] != member) {
        place++;
    }
    return place;
}

static void dequeue(struct coordinator *c, uint32_t member)
{
    uint32_t place = place_of(c, member);
    c->queue_count--;
    memmove(c->queue + place, c->queue + place + 1, (c->queue_count - place) * sizeof *c->queue);
    c->members[member].queued = false;
}

static void send_place(struct coordinator *c, uint32_t member, enum queued_reason reason)
{
    struct peer *peer = member_peer(c, member);
    struct msg msg = {.type = MSG_QUEUED};
    msg.queued.round = round_current(c);
    msg.queued.place = place_of(c, member) + 1;
    msg.queued.reason = reason;
    peer->state = PEER_QUEUED;
    peer_send(c, peer, &msg);
}

void slot_free(struct coordinator *c, struct slot *slot)
{
    c->members[slot->member].slot = NONE;
    transfer_end(&slot->update);
    transfer_end(&slot->features);
    slot->state = SLOT_FREE;
}

/* Its own if there is one, then an empty one if one more may be in use, then one that is kept for somebody who is away:
 * that one is in use already. */
static struct slot *slot_for(const struct coordinator *c, uint32_t member)
{
    struct slot *empty = NULL, *kept = NULL;
    uint32_t used = 0;
    for (uint32_t i = 0; i < c->options.upload_slots; i++) {
        struct slot *slot = &c->slots[i];
        used += slot->state != SLOT_FREE;
        if (slot->state == SLOT_KEPT && slot->member == member) {
            return slot;
        }
        empty = slot->state == SLOT_FREE ? slot : empty;
        kept = slot->state == SLOT_KEPT ? slot : kept;
    }
    return empty && used < c->pace.slots ? empty : kept;
}

static void give(struct coordinator *c, struct slot *slot, uint32_t index)
{
    struct member *member = &c->members[index];
    if (slot->state == SLOT_KEPT && slot->member != index) {
        slot_free(c, slot);
    }
    slot->state = SLOT_UPLOADING;
    slot->member = index;
    slot->granted_ms = slot->chunk_ms = slot->window_ms = c->now_ms;
    slot->window_bytes = 0;
    member->slot = (uint32_t)(slot - c->slots);
    int rc = transfer_begin(&slot->update, &member->offer.update);
    if (rc == 0 && member->offer.has_features) {
        rc = transfer_begin(&slot->features, &member->offer.features);
    } else {
        transfer_end(&slot->features);
    }
    if (rc) {
        slot_free(c, slot);
        peer_nomem(c, member_peer(c, index), "an upload");
        return;
    }
    slot_continue(c, slot);
}

void slot_continue(struct coordinator *c, struct slot *slot)
{
    struct peer *peer = member_peer(c, slot->member);
    const struct transfer *missing = !transfer_is_whole(&slot->update)                            ? &slot->update
                                     : slot->features.data && !transfer_is_whole(&slot->features) ? &slot->features
                                                                                                  : NULL;
    if (!missing) {
        absorb_submit(c, slot);
        return;
    }
    struct msg msg = {.type = MSG_GRANT};
    msg.grant.kind = missing->blob.kind;
    msg.grant.round = missing->blob.round;
    msg.grant.offset = missing->received;
    peer->state = PEER_UPLOADING;
    peer_send(c, peer, &msg);
}

void slot_again(struct coordinator *c, struct slot *slot)
{
    transfer_end(&slot->update);
    transfer_end(&slot->features);
    give(c, slot, slot->member);
}

void slots_fill(struct coordinator *c)
{
    while (c->round.phase == ROUND_OPEN && c->queue_count > 0) {
        uint32_t member = c->queue[0];
        struct slot *slot = slot_for(c, member);
        if (!slot) {
            return;
        }
        dequeue(c, member);
        slot->damaged = 0;
        give(c, slot, member);
    }
}

static void enqueue(struct coordinator *c, uint32_t member, enum queued_reason reason)
{
    c->queue[c->queue_count++] = member;
    c->members[member].queued = true;
    slots_fill(c);
    if (c->members[member].queued) {
        send_place(c, member, reason);
    }
}

void slots_enqueue(struct coordinator *c, uint32_t member)
{
    enqueue(c, member, QUEUED_TAKEN);
}

void slots_repeat(struct coordinator *c, uint32_t member)
{
    if (c->members[member].queued) {
        send_place(c, member, QUEUED_TAKEN);
    } else {
        member_peer(c, member)->regranted = true;
        slot_continue(c, &c->slots[c->members[member].slot]);
    }
}

void slots_withdraw(struct coordinator *c, uint32_t member)
{
    uint32_t slot = c->members[member].slot;
    if (c->members[member].queued) {
        dequeue(c, member);
    }
    if (slot != NONE && c->slots[slot].state != SLOT_CHECKING) {
        slot_free(c, &c->slots[slot]);
        slots_fill(c);
    }
}

void slots_leave(struct coordinator *c, uint32_t member)
{
    uint32_t slot = c->members[member].slot;
    if (slot != NONE && c->slots[slot].state == SLOT_UPLOADING && c->queue_count == 0) {
        c->slots[slot].state = SLOT_KEPT;
        return;
    }
    slots_withdraw(c, member);
}

static void decline_late(struct coordinator *c, uint32_t member)
{
    struct peer *peer = member_peer(c, member);
    if (peer) {
        peer->state = PEER_READY;
        send_declined(c, peer, round_current(c), DECLINE_STALE, "round %u closed before the contribution was whole",
                      round_current(c));
    }
}

void slots_close(struct coordinator *c)
{
    while (c->queue_count > 0) {
        uint32_t member = c->queue[0];
        dequeue(c, member);
        decline_late(c, member);
    }
    for (uint32_t i = 0; i < c->options.upload_slots; i++) {
        /* Whose upload is only kept for it has offered nothing on its present connection, so it is told nothing. */
        if (c->slots[i].state == SLOT_UPLOADING) {
            decline_late(c, c->slots[i].member);
        }
        if (c->slots[i].state == SLOT_UPLOADING || c->slots[i].state == SLOT_KEPT) {
            slot_free(c, &c->slots[i]);
        }
        if (c->slots[i].state == SLOT_FREE) { /* The aggregation needs memory of its own. */
            transfer_reset(&c->slots[i].update);
            transfer_reset(&c->slots[i].features);
        }
    }
    pace_round(&c->pace);
}

void slots_pace(struct coordinator *c)
{
    bool waiting = c->round.phase == ROUND_OPEN && c->queue_count > 0;
    if (!pace_step(&c->pace, waiting, c->now_ms)) {
        return;
    }
    log_event(c->log, LOG_LEVEL_INFO, "upload_slots", "slots=%u most=%u waiting=%u bytes_per_second=%llu",
              c->pace.slots, c->pace.most, c->queue_count, (unsigned long long)c->pace.rate);
    slots_fill(c);
}

/* ---- Time ---- */

/* When an upload loses its slot if nothing more comes, and why then. */
struct limit {
    uint64_t at_ms;
    enum queued_reason reason;
};

static struct limit limit_of(const struct coordinator *c, const struct slot *slot)
{
    uint64_t idle_ms = c->options.idle_timeout_ms;
    struct limit limit = {slot->chunk_ms + idle_ms / 2, QUEUED_STALLED};
    bool slow = slot->window_bytes < c->options.upload_rate * idle_ms / 1000;
    if (slow && slot->window_ms + idle_ms < limit.at_ms) {
        limit = (struct limit){slot->window_ms + idle_ms, QUEUED_SLOW};
    }
    if (slot->granted_ms + c->plan->round_deadline_ms / 2 < limit.at_ms) {
        limit = (struct limit){slot->granted_ms + c->plan->round_deadline_ms / 2, QUEUED_LONG};
    }
    return limit;
}

static void take_away(struct coordinator *c, struct slot *slot, enum queued_reason reason)
{
    uint32_t member = slot->member;
    log_event(log_of_member(c, member, "upload_too_slow"), LOG_LEVEL_WARN, "upload_too_slow",
              "name=%s received=%llu bytes=%llu seconds=%llu waiting=%u reason=\"%s\"", c->members[member].name,
              (unsigned long long)slot->update.received, (unsigned long long)slot->update.blob.bytes,
              (unsigned long long)(c->now_ms - slot->granted_ms) / 1000, c->queue_count, queued_reason_name(reason));
    slot_free(c, slot);
    member_peer(c, member)->regranted = true;
    slots_fill(c);
    enqueue(c, member, reason);
}

void slots_tick(struct coordinator *c)
{
    for (uint32_t i = 0; i < c->options.upload_slots; i++) {
        struct slot *slot = &c->slots[i];
        if (slot->state != SLOT_UPLOADING) {
            continue;
        }
        struct limit limit = limit_of(c, slot);
        if (c->queue_count > 0 && c->now_ms >= limit.at_ms) {
            take_away(c, slot, limit.reason);
        } else if (c->now_ms - slot->window_ms >= c->options.idle_timeout_ms) { /* A new window. */
            slot->window_ms = c->now_ms;
            slot->window_bytes = 0;
        }
    }
}

uint64_t slots_next_ms(const struct coordinator *c)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < c->options.upload_slots; i++) {
        if (c->slots[i].state == SLOT_UPLOADING) {
            uint64_t window_ms = c->slots[i].window_ms + c->options.idle_timeout_ms;
            uint64_t at_ms = c->queue_count > 0 ? limit_of(c, &c->slots[i]).at_ms : window_ms;
            at_ms = at_ms < window_ms ? at_ms : window_ms;
            next = at_ms < next ? at_ms : next;
        }
    }
    return next;
}
