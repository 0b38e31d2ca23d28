/* HELLO: who is there, and do we speak the same language about the same run? WELCOME or REJECT. */
#include "common/base/mem.h"
#include "server/session/state.h"

#include <stdio.h>
#include <string.h>

#define REPLACED_OFTEN 4u

static bool speaks_our_version(struct coordinator *c, struct peer *peer, const struct msg_hello *hello)
{
    if (hello->major == FRAME_VERSION && hello->minor_least <= PROTOCOL_MINOR_MOST &&
        hello->minor_most >= PROTOCOL_MINOR_LEAST) {
        return true;
    }
    peer_reject(c, peer, REJECT_VERSION, 0, "the client speaks protocol %u.%u to %u.%u, the server %u.%u to %u.%u",
                hello->major, hello->minor_least, hello->major, hello->minor_most, (unsigned)FRAME_VERSION,
                (unsigned)PROTOCOL_MINOR_LEAST, (unsigned)FRAME_VERSION, (unsigned)PROTOCOL_MINOR_MOST);
    return false;
}

static bool is_of_our_run(struct coordinator *c, struct peer *peer, const struct msg_hello *hello)
{
    char theirs[HASH_HEX], ours[HASH_HEX];
    if (!hello->has_saved) {
        return true;
    }
    if (!hash_equal(&hello->saved_run, &c->run)) {
        peer_reject(c, peer, REJECT_RUN, 0,
                    "the client's state is of run %s, the server's run is %s (if a new run is meant, start it "
                    "once with --new-run)",
                    hash_hex(&hello->saved_run, theirs), hash_hex(&c->run, ours));
        return false;
    }
    if (!hash_equal(&hello->saved_plan, &c->plan_hash)) {
        peer_reject(c, peer, REJECT_PLAN, 0,
                    "the client's state is of plan %s, the server's plan is %s (if a new run is meant, start it "
                    "once with --new-run)",
                    hash_hex(&hello->saved_plan, theirs), hash_hex(&c->plan_hash, ours));
        return false;
    }
    if (hello->saved_round > c->round.durable) {
        log_event(log_of_peer(c, peer, "client_ahead"), LOG_LEVEL_WARN, "client_ahead",
                  "name=%s client_round=%u round=%u", hello->name, hello->saved_round, c->round.durable);
    }
    return true;
}

/* A client that does not know the plan's key refuses the plan; this says no to one that knows it and cannot do it. */
static bool can_do_our_plan(struct coordinator *c, struct peer *peer, const struct msg_hello *hello)
{
    const uint32_t forms[] = {c->plan->wire.update, c->plan->wire.features};
    const char *const keys[] = {"wire.update", "wire.features"};
    for (size_t i = 0; i < 2; i++) {
        uint64_t needed = element_capabilities(forms[i]);
        if ((hello->capabilities & needed) != needed) {
            peer_reject(
                c, peer, REJECT_PLAN, 0,
                "the plan has %s: %s, which the client cannot do; use a starling-client of the server's version",
                keys[i], element_name(element_of(forms[i])));
            return false;
        }
    }
    return true;
}

static void welcome(struct coordinator *c, struct peer *peer, const struct msg_hello *hello)
{
    struct msg msg = {.type = MSG_WELCOME};
    struct msg_welcome *w = &msg.welcome;
    w->plan = mem_new(c->plan_len, 1);
    if (!w->plan) {
        peer_nomem(c, peer, "WELCOME");
        return;
    }
    memcpy(w->plan, c->plan_bytes, c->plan_len);
    w->plan_len = c->plan_len;
    w->plan_hash = c->plan_hash;
    w->minor = hello->minor_most < PROTOCOL_MINOR_MOST ? hello->minor_most : PROTOCOL_MINOR_MOST;
    w->capabilities = CAPABILITIES_OURS;
    w->run = c->run;
    w->boot = c->options.boot;
    w->round = c->round.durable;
    w->idle_timeout_ms = c->options.idle_timeout_ms;
    if (peer->member != NONE) {
        w->has_counted = c->members[peer->member].has_counted;
        w->counted_round = c->members[peer->member].counted_round;
    }
    peer_send(c, peer, &msg);
}

/* A client that comes back before its old connection is known to be lost replaces it, once. Over and over, these are
 * two machines with copies of one state folder, which throw each other out for ever; their owners must hear of it. */
static void note_replaced(struct coordinator *c, struct member *member, const struct peer *old, const struct peer *peer)
{
    bool again = member->replaced > 0 && c->now_ms - member->replaced_ms < c->options.idle_timeout_ms;
    member->replaced = again ? member->replaced + 1 : 1;
    member->replaced_ms = c->now_ms;
    if (member->replaced >= REPLACED_OFTEN && (member->replaced & (member->replaced - 1)) == 0) {
        log_event(
            c->log, LOG_LEVEL_WARN, "state_shared",
            "name=%s times=%u first=%s second=%s reason=\"two clients take each other's place: they have copies of "
            "one state folder\"",
            member->name, member->replaced, old->address, peer->address);
    }
}

/* The member that this connection is from now on, or NONE after a REJECT. */
static uint32_t claim_name(struct coordinator *c, struct peer *peer, const struct msg_hello *hello)
{
    uint32_t index = member_find(c, hello->name);
    if (index == NONE) {
        int rc = member_recycle(c, hello->name, &index) ? 0 : member_add(c, hello->name, &index);
        if (rc == ERR_LIMIT) {
            peer_reject(c, peer, REJECT_FULL, 0, "the server knows %u names, which is its limit", MEMBERS_MAX);
            return NONE;
        }
        if (rc) {
            peer_nomem(c, peer, "a new client");
            return NONE;
        }
    }
    struct peer *old = member_peer(c, index);
    if (old && !hash_equal(&c->members[index].instance, &hello->instance)) {
        peer_reject(c, peer, REJECT_NAME_IN_USE, c->options.idle_timeout_ms,
                    "another client of the name %s is connected from %s", hello->name, old->address);
        return NONE;
    }
    if (old) {
        note_replaced(c, &c->members[index], old, peer);
        peer_bye(c, old, ERR_STATE,
                 "replaced by a newer connection of the same client; a second one needs a state folder of its own");
        peer_detach(c, old, "replaced by a newer connection");
    }
    c->members[index].instance = hello->instance;
    return index;
}

/* A certificate is for one name in one role. An operator need not say its name. */
static bool is_who_it_says(struct coordinator *c, struct peer *peer, const struct msg_hello *hello)
{
    bool nameless = hello->role == ROLE_OPERATOR && !hello->name[0];
    if (!peer->proven || (hello->role == peer->role && (nameless || strcmp(hello->name, peer->name) == 0))) {
        return true;
    }
    if (hello->role == ROLE_OPERATOR && peer->role != ROLE_OPERATOR) {
        peer_reject(c, peer, REJECT_ACCESS, 0,
                    "the certificate is for the %s %s, and the status is for operators: a token of `starling ca token "
                    "--role operator` makes one",
                    role_name(peer->role), peer->name);
    } else {
        peer_reject(c, peer, REJECT_ACCESS, 0,
                    "the certificate is for the %s %s, and the client says that it is the %s %s", role_name(peer->role),
                    peer->name, role_name(hello->role), hello->name[0] ? hello->name : "without a name");
    }
    return false;
}

/* Strangers have places of their own; whoever comes anew takes its old connection's. */
static bool has_room(struct coordinator *c, struct peer *peer, const struct msg_hello *hello)
{
    uint32_t index = hello->role == ROLE_OPERATOR ? NONE : member_find(c, hello->name);
    bool anew = index != NONE && member_peer(c, index) && hash_equal(&c->members[index].instance, &hello->instance);
    if (c->sessions - anew < c->options.sessions_max) {
        return true;
    }
    peer_reject(c, peer, REJECT_FULL, c->options.idle_timeout_ms / 6,
                "the server holds %u connections, which is its limit", c->options.sessions_max);
    return false;
}

static void be_welcome(struct coordinator *c, struct peer *peer, enum peer_state state)
{
    peer->state = state;
    stranger_remove(c, peer);
    c->sessions++;
}

void handle_hello(struct coordinator *c, struct peer *peer, const struct msg_hello *hello)
{
    if (!peer->proven && name_is_valid(hello->name)) { /* for the log */
        (void)snprintf(peer->name, sizeof peer->name, "%s", hello->name);
    }
    if (!speaks_our_version(c, peer, hello) || !is_who_it_says(c, peer, hello)) {
        return;
    }
    if (hello->role < ROLE_TRAINER || hello->role > ROLE_OPERATOR) {
        peer_reject(c, peer, REJECT_ROLE, 0, "role %u is not served by this version", hello->role);
        return;
    }
    if (hello->role == ROLE_OPERATOR) {
        if (has_room(c, peer, hello)) {
            be_welcome(c, peer, PEER_OPERATOR);
            peer->limits = &msg_limits_server_operator;
            welcome(c, peer, hello);
        }
        return;
    }
    if (!name_is_valid(hello->name)) {
        peer_fault(c, peer, "a client's name is [A-Za-z0-9._-]{1,64}");
        return;
    }
    if (!is_of_our_run(c, peer, hello) || !can_do_our_plan(c, peer, hello) || !has_room(c, peer, hello)) {
        return;
    }
    uint32_t index = claim_name(c, peer, hello);
    if (index == NONE) {
        return;
    }
    be_welcome(c, peer, PEER_GREETED);
    peer->limits = hello->role == ROLE_OBSERVER ? &msg_limits_server_observer : &msg_limits_server_trainer;
    peer->member = index;
    c->members[index].peer = peer->number;
    c->members[index].role = hello->role;
    c->members[index].last_seen_ms = c->now_ms;
    if (c->welcomed++ == 0) {
        c->alive_ms = c->now_ms + c->options.idle_timeout_ms / 4;
    }
    welcome(c, peer, hello);
}
