/* The table of contents of the conversation: one message, one handler. Every handler checks in the same order: state,
 * fields as they lie on the wire, limits; only then it acts.
 *
 * And how many messages: MESSAGES_EACH_MS and MESSAGES_BURST bound those that nobody asked for, above all heartbeats.
 * What a ROUND or an AGGREGATE asks for is paid for when that is sent, and chunks that bring an upload on cost nothing,
 * so the rate bounds no legitimate client however short its rounds are. Whoever is above it is not heard for
 * as long as its debt lasts: its own buffers fill, and it costs nothing until then. */
#include "server/session/state.h"

#include <stdio.h>

#define MESSAGES_EACH_MS 10u   /* 100 a second, */
#define MESSAGES_BURST   1000u /* and so many at once */
#define CHUNK_UNIT       65536u

/* Which messages a peer may send in its state. A trainer's CHUNKs may be on the way when the server declines, so they
 * are never out of place after READY. */
static bool may_send(enum peer_state state, uint8_t type)
{
    switch (type) {
    case MSG_HELLO:
        return state == PEER_NEW;
    case MSG_READY:
        return state == PEER_GREETED;
    case MSG_FETCH:
        return state == PEER_OBSERVING || state >= PEER_READY;
    case MSG_EVALUATED:
        return state == PEER_OBSERVING;
    case MSG_OFFER:
    case MSG_CHUNK:
        return state >= PEER_READY;
    case MSG_PROGRESS:
        return state >= PEER_GREETED;
    case MSG_STATUS:
        return state == PEER_OPERATOR;
    case MSG_BYE:
        return true;
    default:
        return false;
    }
}

static const struct rate_limit messages_limit = {.each_ms = MESSAGES_EACH_MS,
                                                 .burst_ms = MESSAGES_EACH_MS * MESSAGES_BURST};

void messages_pay(struct peer *peer, uint64_t count)
{
    rate_pay(&peer->messages, &messages_limit, count);
}

void messages_take(struct coordinator *c, struct peer *peer, uint64_t count)
{
    uint64_t debt_ms = rate_take(&peer->messages, &messages_limit, count, c->now_ms);
    uint64_t most_ms = c->options.idle_timeout_ms / 4;
    if (debt_ms == 0 || c->now_ms < peer->paused_until_ms) {
        return;
    }
    debt_ms = debt_ms < most_ms ? debt_ms : most_ms;
    peer->paused_until_ms = c->now_ms + debt_ms;
    c->strangers.told.slowed++;
    char name[NAME_MAX_BYTES] = "";
    (void)snprintf(name, sizeof name, "%s", peer->member == NONE ? "" : c->members[peer->member].name);
    log_event(log_of_peer(c, peer, "client_slowed"), LOG_LEVEL_WARN, "client_slowed",
              "name=%s address=%s pause_ms=%llu reason=\"more than %u messages a second that nobody asked for\"", name,
              peer->address, (unsigned long long)debt_ms, 1000 / MESSAGES_EACH_MS);
    peer_pause(c, peer, debt_ms);
}

/* A chunk that is not wanted costs one more for each CHUNK_UNIT; one that is, and has as much, nothing. */
static uint64_t price(const struct peer *peer, const struct msg *msg)
{
    uint64_t units = msg->raw_len / CHUNK_UNIT;
    bool wanted = peer->state == PEER_UPLOADING && units > 0;
    return msg->type == MSG_CHUNK && wanted ? 0 : 1 + units;
}

void dispatch(struct coordinator *c, struct peer *peer, const struct msg *msg)
{
    if (peer->state == PEER_CLOSING) {
        return;
    }
    if (peer->member != NONE) {
        c->members[peer->member].last_seen_ms = c->now_ms;
    }
    messages_take(c, peer, price(peer, msg));
    if (!may_send(peer->state, msg->type)) {
        peer_fault(c, peer, "%s is not expected in state %s", msg_type_name(msg->type), peer_state_name(peer->state));
        return;
    }
    switch (msg->type) {
    case MSG_HELLO:
        handle_hello(c, peer, &msg->hello);
        break;
    case MSG_READY:
        handle_ready(c, peer, &msg->ready);
        break;
    case MSG_FETCH:
        handle_fetch(c, peer, &msg->fetch);
        break;
    case MSG_CHUNK:
        handle_chunk(c, peer, msg);
        break;
    case MSG_PROGRESS:
        handle_progress(c, peer, &msg->progress);
        break;
    case MSG_OFFER:
        handle_offer(c, peer, &msg->offer);
        break;
    case MSG_EVALUATED:
        handle_evaluated(c, peer, &msg->evaluated);
        break;
    case MSG_STATUS:
        handle_status(c, peer, &msg->status);
        break;
    default:
        handle_bye(c, peer, &msg->bye);
        break;
    }
}
