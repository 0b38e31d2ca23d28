/* What is too long an update. It is compared with the usual length of the last rounds (server/agg/norm.h), which is
 * part of the durable state, so that every contribution of a round meets the same limit, whenever it arrives.
 *
 * A run's first round has nothing to compare with. Its contributions judge each other when it closes: if one is longer
 * than the plan allows beside their median, the round is *recalled*. The sum is emptied, whoever delivered is told to
 * come again, and offers again what it has, as after a restart of the server; from then on that median is the usual
 * length. So the first round costs its uploads twice where somebody lies or clipping is wanted, and else nothing: no
 * update needs to be kept for the case that it must be taken back. */
#include "server/session/state.h"

#include <stdio.h>

double usual_norm(const struct coordinator *c)
{
    double usual = norm_usual(c->norms);
    return usual > 0 ? usual : c->cohort_norm;
}

double cohort_median(const struct coordinator *c)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->round.count; i++) {
        if (round_has_delivered(&c->round, i)) {
            c->lengths[count++] = c->members[i].norm;
        }
    }
    return norm_median(c->lengths, count);
}

/* The member with the longest update of those that delivered. */
static uint32_t longest(const struct coordinator *c)
{
    uint32_t longest = NONE;
    for (uint32_t i = 0; i < c->round.count; i++) {
        uint32_t member = c->round.order[i];
        if (round_has_delivered(&c->round, member) &&
            (longest == NONE || c->members[member].norm > c->members[longest].norm)) {
            longest = member;
        }
    }
    return longest;
}

static void send_back(struct coordinator *c)
{
    for (uint32_t i = 0; i < c->round.count; i++) {
        struct peer *peer = round_has_delivered(&c->round, i) ? member_peer(c, i) : NULL;
        if (peer) {
            peer_bye(c, peer, ERR_TEMPFAIL, "the first round takes its contributions once more; offer yours again");
        }
    }
}

bool cohort_recall(struct coordinator *c)
{
    double limit = c->plan->aggregation.norm_limit, clip = c->plan->aggregation.clip;
    double least = clip > 0 ? clip : limit, median = cohort_median(c);
    if (least == 0 || usual_norm(c) > 0 || median == 0) {
        return false;
    }
    const struct member *member = &c->members[longest(c)];
    if (member->norm <= least * median) {
        return false;
    }
    log_event(c->log, LOG_LEVEL_WARN, "round_recalled", "round=%u usual=%.6g longest=%.6g name=%s", round_current(c),
              median, member->norm, member->name);
    c->cohort_norm = median;
    send_back(c);
    struct round_event event = {ROUND_RECALLED, 0};
    (void)round_step(&c->round, &event, c->now_ms);
    agg_restart(c->agg, agg_model(c->agg)); /* No job is at it: the round has closed. */
    bank_intake_clear(c->intake);
    return true;
}
