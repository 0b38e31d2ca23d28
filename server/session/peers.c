/* Connections and members: their tables, and what happens when one comes or goes. */
#include "common/base/mem.h"
#include "server/session/state.h"

#include <stdio.h>
#include <string.h>

struct peer *peer_at(const struct coordinator *c, uint32_t number)
{
    return number < c->peers_room ? c->peers[number] : NULL;
}

struct peer *member_peer(const struct coordinator *c, uint32_t member)
{
    uint32_t number = c->members[member].peer;
    return number == NONE ? NULL : c->peers[number];
}

static struct peer *peer_add(struct coordinator *c, uint32_t number)
{
    if (number >= c->peers_room) {
        uint32_t room = number + number / 2 + 16;
        struct peer **peers = mem_resize(c->peers, room, sizeof(struct peer *));
        if (!peers) {
            return NULL;
        }
        memset(peers + c->peers_room, 0, (room - c->peers_room) * sizeof(struct peer *));
        c->peers = peers;
        c->peers_room = room;
    }
    return c->peers[number] = mem_new(1, sizeof(struct peer));
}

void peer_opened(struct coordinator *c, uint32_t number, const char *address)
{
    if (peer_at(c, number) || number >= UINT32_MAX / 2) {
        return;
    }
    struct peer *peer = peer_add(c, number);
    if (!peer) {
        c->nomem = true;
        return;
    }
    *peer = (struct peer){.number = number, .member = NONE, .opened_ms = c->now_ms, .limits = &msg_limits_server_new};
    (void)snprintf(peer->address, sizeof peer->address, "%s", address ? address : "");
    peer->group = address_group(peer->address);
    c->peers_open++;
    stranger_add(c, peer);
    log_event(c->log, LOG_LEVEL_DEBUG, "peer_opened", "address=%s", peer->address);
    if (c->round.phase == ROUND_DRAINING) {
        peer_reject(c, peer, REJECT_STOPPING, c->options.idle_timeout_ms / 6, "the server is stopping");
    }
}

void peer_identified(struct coordinator *c, struct peer *peer, const struct peer_identity *identity)
{
    handshake_end(c, peer);
    peer->proven = true;
    peer->role = identity->role;
    (void)snprintf(peer->name, sizeof peer->name, "%s", identity->name);
}

void peer_detach(struct coordinator *c, struct peer *peer, const char *reason)
{
    peer->download.active = false;
    if (peer->member == NONE) {
        return;
    }
    uint32_t index = peer->member;
    struct member *member = &c->members[index];
    peer->member = NONE;
    member->peer = NONE;
    member->step = member->steps = 0;
    c->welcomed--;
    char text[MSG_TEXT_MAX];
    log_event(log_of_member(c, index, "client_left"), LOG_LEVEL_INFO, "client_left", "name=%s address=%s reason=\"%s\"",
              member->name, peer->address, log_quotable(reason, text, sizeof text));
    if (member->role != ROLE_OBSERVER) {
        slots_leave(c, index);
        round_apply(c, peer->barred ? ROUND_BARRED : ROUND_LOST, index);
    }
}

void peer_closed(struct coordinator *c, struct peer *peer, const struct err *reason)
{
    c->doomed -= peer->doomed;
    c->closes_due -= peer->close_due;
    c->sessions -= peer->state != PEER_CLOSING && peer->state != PEER_NEW;
    stranger_remove(c, peer);
    peer->doomed = peer->close_due = false;
    bool invalid = reason && (reason->code == ERR_PROTOCOL || reason->code == ERR_LIMIT || reason->code == ERR_STATE ||
                              reason->code == ERR_VERSION);
    c->strangers.told.broken += invalid;
    peer_detach(c, peer, reason && reason->code ? reason->text : "closed by the client");
    c->peers[peer->number] = NULL;
    c->peers_open--;
    mem_free(peer);
}

/* ---- Members ---- */

/* Where `name` is, or would be, in the order of names. */
static uint32_t place_of(const struct coordinator *c, const char *name, bool *found)
{
    uint32_t low = 0, high = c->round.count;
    *found = false;
    while (low < high && !*found) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(c->members[c->round.order[middle]].name, name);
        *found = order == 0;
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return high;
}

uint32_t member_find(const struct coordinator *c, const char *name)
{
    bool found;
    uint32_t place = place_of(c, name, &found);
    return found ? c->round.order[place] : NONE;
}

static int reserve(struct coordinator *c)
{
    uint32_t room = c->members_room ? 2 * c->members_room : 16;
    struct member *members = mem_resize(c->members, room, sizeof *members);
    if (!members) {
        return ERR_NOMEM;
    }
    c->members = members;
    uint32_t *queue = mem_resize(c->queue, room, sizeof *queue);
    if (!queue) {
        return ERR_NOMEM;
    }
    c->queue = queue;
    double *lengths = mem_resize(c->lengths, room, sizeof *lengths);
    if (!lengths) {
        return ERR_NOMEM;
    }
    c->lengths = lengths;
    c->members_room = room;
    return 0;
}

/* The name, by its place in the order, that is worth least: away, never counted, no part of anything, and unseen for
 * longest. NONE: none is. */
static uint32_t find_forgettable(const struct coordinator *c)
{
    uint32_t found = NONE;
    uint64_t seen_ms = UINT64_MAX;
    for (uint32_t i = 0; i < c->round.count; i++) {
        uint32_t index = c->round.order[i];
        const struct member *member = &c->members[index];
        const struct round_member *in_round = &c->round.members[index];
        bool idle = member->peer == NONE && member->slot == NONE && !member->queued && !member->has_counted &&
                    !in_round->ready && !in_round->participant;
        if (idle && member->last_seen_ms < seen_ms) {
            found = i;
            seen_ms = member->last_seen_ms;
        }
    }
    return found;
}

static void name_member(struct coordinator *c, uint32_t index, const char *name)
{
    struct member *fresh = &c->members[index];
    memset(fresh, 0, sizeof *fresh);
    (void)snprintf(fresh->name, sizeof fresh->name, "%s", name);
    fresh->role = ROLE_TRAINER;
    fresh->peer = fresh->slot = NONE;
    fresh->last_seen_ms = c->now_ms;
}

int member_add(struct coordinator *c, const char *name, uint32_t *member)
{
    uint32_t index = c->round.count;
    if (index >= MEMBERS_MAX) {
        return ERR_LIMIT;
    }
    bool found;
    uint32_t place = place_of(c, name, &found);
    if ((index == c->members_room && reserve(c) != 0) || round_member_add(&c->round, place) != 0) {
        return ERR_NOMEM;
    }
    name_member(c, index, name);
    *member = index;
    return 0;
}

bool member_recycle(struct coordinator *c, const char *name, uint32_t *member)
{
    uint32_t old = c->round.count >= c->options.sessions_max ? find_forgettable(c) : NONE;
    if (old == NONE) {
        return false;
    }
    bool found;
    uint32_t place = place_of(c, name, &found);
    *member = c->round.order[old];
    round_member_reuse(&c->round, old, place > old ? place - 1 : place);
    name_member(c, *member, name);
    c->strangers.told.forgotten++;
    return true;
}

struct quota *quota_of(const struct coordinator *c, struct member *member)
{
    struct quota *quota = &member->quota;
    if (quota->round != round_current(c) || quota->extensions != c->round.extensions) {
        *quota = (struct quota){.round = round_current(c), .extensions = c->round.extensions};
    }
    return quota;
}
