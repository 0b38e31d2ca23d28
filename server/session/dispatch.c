/* The table of contents of the conversation: one message, one handler. Every handler checks in the same order: state,
 * fields as they lie on the wire, limits; only then it acts. */
#include "server/session/state.h"

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

void dispatch(struct coordinator *c, struct peer *peer, const struct msg *msg)
{
    if (peer->state == PEER_CLOSING) {
        return;
    }
    if (peer->member != NONE) {
        c->members[peer->member].last_seen_ms = c->now_ms;
    }
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
