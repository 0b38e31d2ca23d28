/* FETCH: send a blob of the open round, or to an observer the last durable model, from some byte on. One chunk is under
 * way at a time; the next follows when the peer's write queue has run empty (EVENT_PEER_DRAINED), so a slow reader
 * costs one chunk of memory. A FETCH that comes meanwhile is only noted, the latest of them: somebody who asks without
 * reading costs no time. */
#include "server/session/state.h"

void handle_fetch(struct coordinator *c, struct peer *peer, const struct msg_fetch *fetch)
{
    bool observes = peer->state == PEER_OBSERVING;
    if (fetch->kind != BLOB_MODEL && (fetch->kind != BLOB_REMOTE || observes)) {
        peer_fault(c, peer, "FETCH of a %s blob", blob_kind_name(fetch->kind));
        return;
    }
    /* A round that was closed while the FETCH was on its way: ROUND_END tells the client. */
    bool in_round = c->round.phase == ROUND_OPEN && c->round.members[peer->member].participant;
    if (fetch->round != round_current(c) || !(in_round || observes)) {
        return;
    }
    peer->download = (struct download){.active = true, .kind = fetch->kind, .offset = fetch->offset};
    download_continue(c, peer);
}
