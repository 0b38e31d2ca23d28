/* PROGRESS: the client's heartbeat. Its numbers are shown by STATUS and decide nothing. */
#include "server/session/state.h"

void handle_progress(struct coordinator *c, struct peer *peer, const struct msg_progress *progress)
{
    if (progress->step > progress->steps) {
        peer_fault(c, peer, "PROGRESS: step %u of %u", progress->step, progress->steps);
        return;
    }
    struct member *member = &c->members[peer->member];
    if (progress->round != 0 && progress->round == round_current(c)) {
        member->step = progress->step;
        member->steps = progress->steps;
        member->loss = progress->loss;
        member->images_per_second = progress->images_per_second;
    }
}
