/* Inside the coordinator: after each step its tables must agree with each other, whatever has happened; and what a
 * session holds must be what its disk holds. Some mistakes are planted here too, since they are made inside. */
#include "client/session/state.h"
#include "server/session/state.h"
#include "tests/sim/world.h"

#include <string.h>

static void check_slots(struct world *world, const struct coordinator *c)
{
    for (uint32_t i = 0; i < c->options.upload_slots; i++) {
        const struct slot *slot = &c->slots[i];
        if (slot->state == SLOT_FREE) {
            if (slot->update.data || slot->features.data) {
                violate(world, "slot %u is free and holds an upload", i);
            }
            continue;
        }
        const struct member *member = &c->members[slot->member];
        const struct peer *peer = member_peer(c, slot->member);
        if (member->slot != i || member->queued) {
            violate(world, "slot %u is %s's, which does not know of it", i, member->name);
        } else if (slot->state == SLOT_UPLOADING && (!peer || peer->state != PEER_UPLOADING)) {
            violate(world, "slot %u waits for %s, which is not uploading", i, member->name);
        } else if (slot->state == SLOT_KEPT && peer && peer->state == PEER_UPLOADING) {
            violate(world, "slot %u is only kept for %s, which is uploading", i, member->name);
        }
        if (c->queue_count > 0 && slot->state == SLOT_KEPT) {
            violate(world, "slot %u is kept while others wait", i);
        }
    }
}

static void check_line(struct world *world, const struct coordinator *c)
{
    uint32_t queued = 0, used = 0;
    for (uint32_t i = 0; i < c->round.count; i++) {
        queued += c->members[i].queued;
    }
    for (uint32_t i = 0; i < c->queue_count; i++) {
        const struct member *member = &c->members[c->queue[i]];
        const struct peer *peer = member_peer(c, c->queue[i]);
        if (!member->queued || !peer || peer->state != PEER_QUEUED) {
            violate(world, "%s stands in the line and does not know of it", member->name);
        }
    }
    for (uint32_t i = 0; i < c->options.upload_slots; i++) {
        used += c->slots[i].state != SLOT_FREE;
    }
    if (queued != c->queue_count) {
        violate(world, "%u members wait for a slot; %u stand in the line", queued, c->queue_count);
    } else if (c->round.phase == ROUND_OPEN && queued > 0 && used < c->pace.slots) {
        violate(world, "%u members wait though only %u of %u slots are in use", queued, used, c->pace.slots);
    }
}

static void check_peers(struct world *world, const struct coordinator *c)
{
    uint32_t open = 0, sessions = 0, strangers = 0, members = 0;
    for (uint32_t i = 0; i < c->peers_room; i++) {
        const struct peer *peer = c->peers[i];
        if (!peer) {
            continue;
        }
        open++;
        sessions += peer->state != PEER_CLOSING && peer->state != PEER_NEW;
        strangers += peer->stranger;
        if (peer->state == PEER_NEW && !peer->stranger) {
            violate(world, "connection %u waits for HELLO for ever", i);
        }
        if (peer->member != NONE && c->members[peer->member].peer != i) {
            violate(world, "connection %u is %s's, which does not know of it", i, c->members[peer->member].name);
        }
        if (peer->state == PEER_UPLOADING && c->members[peer->member].slot == NONE) {
            violate(world, "%s uploads without a slot", c->members[peer->member].name);
        }
    }
    for (uint32_t i = 0; i < c->round.count; i++) {
        members += c->members[i].peer != NONE;
    }
    if (open != c->peers_open || sessions != c->sessions || strangers != c->strangers.count || members != c->welcomed ||
        c->doomed != 0) {
        violate(world, "the server miscounts its connections");
    }
}

static void check_round(struct world *world, const struct coordinator *c)
{
    uint64_t weight = 0;
    struct round_tally tally = round_count(&c->round);
    for (uint32_t i = 0; i < c->round.count; i++) {
        const struct round_member *member = &c->round.members[i];
        const struct peer *peer = member_peer(c, i);
        weight += member->participant && member->delivered ? member_weight(c, i) : 0;
        if (member->delivered && (member->declined || member->refused || member->absorbing)) {
            violate(world, "%s has delivered and has not", c->members[i].name);
        }
        if (c->round.phase == ROUND_OPEN && peer && peer->state == PEER_DELIVERED && !member->delivered) {
            violate(world, "%s was told that it counts; the round does not know", c->members[i].name);
        }
    }
    if (weight > FIXED_WEIGHT_MAX) {
        violate(world, "the round holds more weight than its sums can");
    }
    if (c->round.stuck && (c->round.phase != ROUND_OPEN || tally.refused == 0)) {
        violate(world, "a round is stuck that is not");
    }
}

/* A row says who made it. */
static void check_bank(struct world *world, const struct coordinator *c)
{
    for (uint32_t o = 0; o < c->bank->owners_count; o++) {
        const struct bank_owner *owner = &c->bank->owners[o];
        for (uint32_t r = owner->first; r < owner->first + owner->count; r++) {
            uint32_t maker = (uint32_t)(c->bank->features[(size_t)r * FEATURES] * 16) - 1;
            if (strcmp(world->clients[maker].name, owner->name) != 0) {
                violate(world, "the bank holds a row of %s as that of %s", world->clients[maker].name, owner->name);
            }
        }
    }
}

void inside_check(struct world *world)
{
    const struct coordinator *c = world->server.coordinator;
    check_slots(world, c);
    check_line(world, c);
    check_peers(world, c);
    check_round(world, c);
    check_bank(world, c);
}

void inside_check_client(struct world *world, const struct client *client)
{
    const struct contribution *held = client->session->pending, *kept = client->disk.pending;
    if (held &&
        (!kept || kept->round != held->round || !hash_equal(&kept->update_blob.hash, &held->update_blob.hash))) {
        violate(world, "%s holds a contribution to round %u, which a crash would lose", client->name, held->round);
    } else if (!held && kept && !client->work && kept->round > client->session->ended_round) {
        /* With work the session is about to hear of it; that of a round that is over is left by a cancelled training.
         */
        violate(world, "%s has forgotten its contribution to round %u", client->name, kept->round);
    }
}

/* ---- mistakes ---- */

static void leak_slot(struct world *world, struct coordinator *c)
{
    for (uint32_t i = 0; i < c->options.upload_slots && world->truth.durable > 0; i++) {
        if (!world->planted && c->slots[i].state == SLOT_FREE && c->round.count > 0) {
            c->slots[i].state = SLOT_CHECKING;
            world->planted = true;
        }
    }
}

static void forget_delivered(struct world *world, struct coordinator *c)
{
    for (uint32_t i = 0; i < c->round.count && c->round.phase == ROUND_OPEN; i++) {
        if (!world->planted && c->round.members[i].delivered && !member_peer(c, i)) {
            c->round.members[i].delivered = false;
            world->planted = true;
        }
    }
}

/* A round that was recalled keeps one of the updates that it had taken. */
static void keep_recalled(struct world *world, struct coordinator *c)
{
    size_t total = (size_t)world->layout->total;
    const struct bytes *update = world->truth.update[1][1];
    if (world->recalled && !world->planted && update) {
        float *nothing = mem_new(total, sizeof *nothing);
        world->planted = true;
        (void)agg_add(c->agg, (const float *)(const void *)update->data, 1, NULL);
        agg_take_back(c->agg, nothing, 1); /* Its weight is not counted. */
        mem_free(nothing);
    }
}

static bool feeds_leeches;
bool __real_bank_has(const struct bank *bank, const char *name);
bool __wrap_bank_has(const struct bank *bank, const char *name);

bool __wrap_bank_has(const struct bank *bank, const char *name)
{
    return feeds_leeches || __real_bank_has(bank, name);
}

static bool looks_away;
bool __real_screen_copies(const struct bank *bank, const char *owner, const float *features, uint32_t rows,
                          struct screen *out);
bool __wrap_screen_copies(const struct bank *bank, const char *owner, const float *features, uint32_t rows,
                          struct screen *out);

bool __wrap_screen_copies(const struct bank *bank, const char *owner, const float *features, uint32_t rows,
                          struct screen *out)
{
    return __real_screen_copies(bank, owner, features, rows, out) && !looks_away;
}

void inside_plant(struct world *world)
{
    struct coordinator *c = world->server.coordinator;
    feeds_leeches = world->scenario.bug == BUG_LEECH;
    looks_away = world->scenario.bug == BUG_COPIES_STAY;
    if (world->scenario.bug == BUG_RECALLED_STAYS) {
        keep_recalled(world, c);
    } else if (world->scenario.bug == BUG_SLOT_LEAKED) {
        leak_slot(world, c);
    } else if (world->scenario.bug == BUG_FORGOT_DELIVERED) {
        forget_delivered(world, c);
    } else if (world->scenario.bug == BUG_NO_SLOTS && world->truth.durable > 0) {
        c->pace.slots = 0;
    } else if (world->scenario.bug == BUG_LOST_PLACE && c->queue_count > 0 && !world->planted) {
        world->planted = true;
        c->queue_count--;
        memmove(c->queue, c->queue + 1, c->queue_count * sizeof *c->queue);
    }
}

void inside_plant_job(struct world *world, struct job *job)
{
    if (world->scenario.bug == BUG_WRONG_WEIGHT && job->kind == JOB_ABSORB) {
        struct slot *slot = job->work;
        slot->absorb.weight++;
    } else if (world->scenario.bug == BUG_STATISTICS_FREE && job->kind == JOB_ABSORB) {
        struct slot *slot = job->work;
        slot->absorb.lengths[NORM_STATISTICS].most = 0;
    }
}

/* The update's one bad number is its last (overheat in client.c). */
static void leave_refused(struct world *world, struct slot *slot)
{
    size_t total = (size_t)world->layout->total;
    float *part = mem_new(total, sizeof *part);
    memcpy(part, slot->update.data, (total - 1) * sizeof *part);
    (void)agg_add(slot->absorb.agg, part, slot->absorb.weight, NULL);
    memset(part, 0, total * sizeof *part);
    agg_take_back(slot->absorb.agg, part, slot->absorb.weight); /* Its weight is not counted. */
    mem_free(part);
}

static void spoil_spool(struct world *world, const struct slot *slot)
{
    uint32_t client = (uint32_t)(slot->absorb.owner[5] - 'a'); /* "site-a" */
    const struct bytes *old = world->truth.update[1][client];
    if (slot->absorb.round == 2 && old) {
        (void)spool_put(slot->absorb.spool, slot->absorb.owner, (const float *)(const void *)old->data,
                        world->layout->total, NULL);
    }
}

void inside_plant_result(struct world *world, struct job *job)
{
    if (world->scenario.bug == BUG_SPOOL_STALE && job->kind == JOB_ABSORB && ((struct slot *)job->work)->absorb.spool) {
        spoil_spool(world, job->work);
    }
    if (world->scenario.bug == BUG_REFUSED_STAYS && job->kind == JOB_ABSORB &&
        ((struct slot *)job->work)->absorb.reason == DECLINE_RANGE) {
        leave_refused(world, job->work);
    }
    if (world->scenario.bug == BUG_REFUSAL_FORGOTTEN && job->kind == JOB_ABSORB) {
        struct slot *slot = job->work;
        slot->absorb.reason = slot->absorb.reason == DECLINE_RANGE ? DECLINE_HASH : slot->absorb.reason;
    }
}
