/* CHUNK: the next bytes of a contribution. */
#include "server/session/state.h"

void handle_chunk(struct coordinator *c, struct peer *peer, const struct msg *chunk)
{
    if (peer->state != PEER_UPLOADING) {
        return; /* It was on its way when the upload ended here. */
    }
    struct member *member = &c->members[peer->member];
    struct slot *slot = &c->slots[member->slot];
    struct transfer *transfer = transfer_is_whole(&slot->update) ? &slot->features : &slot->update;
    struct err err;
    if (transfer_chunk(transfer, chunk, &err) != 0) {
        if (!peer->regranted) {
            peer_fault(c, peer, "%.250s", err.text);
        } else {
            messages_take(c, peer, 16); /* so that nobody sends such for ever */
        }
        return;
    }
    slot->chunk_ms = c->now_ms;
    slot->window_bytes += chunk->raw_len;
    pace_chunk(&c->pace, chunk->raw_len);
    quota_of(c, member)->up += chunk->raw_len;
    member->bytes_up += chunk->raw_len;
    member->bytes_by_kind[transfer->blob.kind] += chunk->raw_len;
    c->bytes_up += chunk->raw_len;
    if (transfer_is_whole(transfer)) {
        slot_continue(c, slot);
    }
}
