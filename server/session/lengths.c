/* What is too long an update. Each of its parts is compared with the usual length of that part in the last rounds
 * (server/agg/norm.h), which is part of the durable state, so that every contribution of a round meets the same limits,
 * whenever it arrives.
 *
 * A run's first round, or one behind a checkpoint that has no lengths, has nothing to compare with. Its contributions
 * judge each other when it closes: if a part of one is longer than the plan allows beside their median, the round is
 * *recalled*. The sum is emptied, whoever delivered is told to come again, and offers again what it has, as after a
 * restart of the server; from then on the medians are the usual lengths. So the first round costs its uploads twice
 * where somebody lies or clipping is wanted, and else nothing: no update needs to be kept for the case that it must be
 * taken back. */
#include "server/session/state.h"

#include <stdio.h>

double usual_norm(const struct coordinator *c, enum norm_part part)
{
    double usual = norm_usual(c->norms[part]);
    return usual > 0 ? usual : c->cohort_norms[part];
}

double cohort_norm(const struct coordinator *c, enum norm_part part)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->round.count; i++) {
        if (round_has_delivered(&c->round, i)) {
            c->lengths[count++] = c->members[i].norms[part];
        }
    }
    double median = norm_median(c->lengths, count);
    double least = part == NORM_STATISTICS ? NORM_STATISTICS_LEAST * norm_of(c->layout, part, agg_params(c->agg)) : 0;
    return median > least ? median : least;
}

/* The member with the longest such part of those that delivered. */
static const struct member *longest(const struct coordinator *c, enum norm_part part)
{
    const struct member *longest = NULL;
    for (uint32_t i = 0; i < c->round.count; i++) {
        uint32_t index = c->round.order[i];
        const struct member *member = &c->members[index];
        if (round_has_delivered(&c->round, index) && (!longest || member->norms[part] > longest->norms[part])) {
            longest = member;
        }
    }
    return longest;
}

/* Whether nothing was known of the part's length, and one of those that delivered is too long beside the others. */
static bool judge(const struct coordinator *c, enum norm_part part)
{
    double limit = c->plan->aggregation.norm_limit, clip = c->plan->aggregation.clip;
    double least = clip > 0 ? clip : limit, usual = cohort_norm(c, part);
    if (least == 0 || usual_norm(c, part) > 0 || usual == 0) {
        return false;
    }
    const struct member *member = longest(c, part);
    if (member->norms[part] <= least * usual) {
        return false;
    }
    log_event(c->log, LOG_LEVEL_WARN, "round_recalled", "round=%u part=\"%s\" usual=%.6g longest=%.6g name=%s",
              round_current(c), norm_part_name(part), usual, member->norms[part], member->name);
    return true;
}

static void send_back(struct coordinator *c)
{
    for (uint32_t i = 0; i < c->round.count; i++) {
        struct peer *peer = round_has_delivered(&c->round, i) ? member_peer(c, i) : NULL;
        if (peer) {
            peer_bye(c, peer, ERR_TEMPFAIL, "the round takes its contributions once more; offer yours again");
        }
    }
}

bool cohort_recall(struct coordinator *c)
{
    bool recalled = false;
    for (enum norm_part part = 0; part < NORM_PARTS; part++) {
        recalled |= judge(c, part);
    }
    if (!recalled) {
        return false;
    }
    for (enum norm_part part = 0; part < NORM_PARTS; part++) {
        c->cohort_norms[part] = cohort_norm(c, part);
    }
    send_back(c);
    struct round_event event = {ROUND_RECALLED, 0};
    (void)round_step(&c->round, &event, c->now_ms);
    agg_restart(c->agg, agg_model(c->agg)); /* No job is at it: the round has closed. */
    bank_intake_clear(c->intake);
    return true;
}
