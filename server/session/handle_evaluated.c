/* EVALUATED: what an observer found a durable model to be worth. It is shown and kept, and decides nothing. */
#include "server/session/state.h"

void handle_evaluated(struct coordinator *c, struct peer *peer, const struct msg_evaluated *evaluated)
{
    if (evaluated->round > c->round.durable) {
        peer_fault(c, peer, "EVALUATED: round %u; the last durable round is %u", evaluated->round, c->round.durable);
        return;
    }
    struct member *member = &c->members[peer->member];
    if (evaluated->round <= member->evaluated) {
        return; /* It has been said, and an observer fills no log by saying it again. */
    }
    member->evaluated = evaluated->round;
    log_event(c->log, LOG_LEVEL_INFO, "aggregate_evaluated", "name=%s round=%u knn_top1=%.6g images=%llu", member->name,
              evaluated->round, evaluated->knn_top1, (unsigned long long)evaluated->images);
    for (uint32_t i = c->history_count; i > 0 && c->history[i - 1].round >= evaluated->round; i--) {
        struct round_summary *row = &c->history[i - 1];
        if (row->round == evaluated->round) {
            row->has_knn = true;
            row->knn_top1 = evaluated->knn_top1;
            row->unrecorded = true;
        }
    }
    record_submit(c);
}
