/* READY: the client has built the same network and can train, or evaluate. */
#include "server/session/state.h"

/* It never becomes ready for a round, so no round counts it, asks it or waits for it. Round 0 is the untrained model,
 * which no history has. */
static void observe(struct coordinator *c, struct peer *peer)
{
    const struct member *member = &c->members[peer->member];
    peer->state = PEER_OBSERVING;
    log_event(log_of_peer(c, peer, "observer_joined"), LOG_LEVEL_INFO, "observer_joined",
              "name=%s address=%s images=%llu", member->name, peer->address, (unsigned long long)member->images);
    if (c->round.durable > 0) {
        send_aggregate(c, peer);
    }
}

void handle_ready(struct coordinator *c, struct peer *peer, const struct msg_ready *ready)
{
    if (!hash_equal(&ready->layout, &c->layout->fingerprint)) {
        char theirs[HASH_HEX], ours[HASH_HEX];
        peer_reject(c, peer, REJECT_LAYOUT, 0, "the client's encoder has layout %s, the server's has %s",
                    hash_hex(&ready->layout, theirs), hash_hex(&c->layout->fingerprint, ours));
        return;
    }
    if (ready->images == 0) {
        peer_fault(c, peer, "a client without images");
        return;
    }
    uint32_t index = peer->member;
    struct member *member = &c->members[index];
    member->images = ready->images;
    member->withholds = ready->withholds_features;
    if (member->role == ROLE_OBSERVER) {
        observe(c, peer);
        return;
    }
    bool open = c->round.phase == ROUND_OPEN;
    peer->state = open && round_has_delivered(&c->round, index) ? PEER_DELIVERED : PEER_READY;
    log_event(log_of_peer(c, peer, "client_joined"), LOG_LEVEL_INFO, "client_joined",
              "name=%s address=%s images=%llu shares_features=%s", member->name, peer->address,
              (unsigned long long)ready->images, ready->withholds_features ? "no" : "yes");
    if (c->round.phase == ROUND_DONE) {
        send_round_end(c, peer, c->round.durable);
    }
    round_apply(c, ROUND_READY, index);
}
