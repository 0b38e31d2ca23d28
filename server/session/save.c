/* SAVE: a closed round becomes durable; and RECORD, what observers found later.
 *
 * save_prepare says what the checkpoint holds while a failure still does no harm, the job writes it (the shell's,
 * through server/store), and save_done makes it the state that clients see, and says in the log what the round was. */
#include "common/base/mem.h"
#include "server/round/alarm.h"
#include "server/session/state.h"

#include <stddef.h>
#include <string.h>

static void watch_add(struct watch *sum, const struct watch *watch, double weight)
{
    sum->alignment += weight * watch->alignment;
    sum->uniformity += weight * watch->uniformity;
    sum->deviation += weight * watch->deviation;
    sum->rank += weight * watch->rank;
}

/* The mean over the contributions that say it; `which`: the offset of their measures in struct report. */
static struct watch watch_mean(const struct coordinator *c, size_t which)
{
    struct watch sum = {0}, mean = {0};
    double weights = 0;
    for (uint32_t i = 0; i < c->round.count; i++) {
        uint32_t member = c->round.order[i];
        const char *report = (const char *)&c->members[member].offer.report;
        const struct watch *watch = (const struct watch *)(const void *)(report + which);
        if (round_has_delivered(&c->round, member) && watch->measured) {
            watch_add(&sum, watch, (double)member_weight(c, member));
            weights += (double)member_weight(c, member);
        }
    }
    if (weights > 0) {
        mean.measured = true;
        watch_add(&mean, &sum, 1 / weights);
    }
    return mean;
}

/* Means weighted by images, summed in the order of names, so that they do not depend on the order of arrival. */
static void summarise(struct coordinator *c)
{
    struct round_summary *s = &c->summary;
    *s = (struct round_summary){.round = round_current(c), .declined = c->declined, .closed_unix_ms = c->unix_ms};
    for (uint32_t i = 0; i < c->round.count; i++) {
        uint32_t member = c->round.order[i];
        if (!round_has_delivered(&c->round, member)) {
            continue;
        }
        const struct report *report = &c->members[member].offer.report;
        double weight = (double)member_weight(c, member);
        s->accepted++;
        s->images += member_weight(c, member);
        s->loss += weight * report->loss;
        s->loss_contrast += weight * report->loss_contrast;
        s->loss_matching += weight * report->loss_matching;
        s->remote_share += weight * report->remote_share;
    }
    double images = (double)s->images;
    s->loss /= images;
    s->loss_contrast /= images;
    s->loss_matching /= images;
    s->remote_share /= images;
    s->seconds = (double)(c->now_ms - c->round.opened_ms) / 1000;
    s->bytes_up = c->bytes_up;
    s->bytes_down = c->bytes_down;
    s->aggregate = watch_mean(c, offsetof(struct report, aggregate));
    s->own = watch_mean(c, offsetof(struct report, own));
}

int save_prepare(struct coordinator *c)
{
    mem_free(c->counted);
    c->counted = mem_new(c->round.count, sizeof *c->counted);
    if (!c->counted) {
        return ERR_NOMEM;
    }
    summarise(c);
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->round.count; i++) {
        uint32_t index = c->round.order[i];
        const struct member *member = &c->members[index];
        bool now = round_has_delivered(&c->round, index);
        if (now || member->has_counted) {
            struct counted *entry = &c->counted[count++];
            memcpy(entry->name, member->name, sizeof entry->name);
            entry->round = now ? round_current(c) : member->counted_round;
        }
    }
    c->save_job.checkpoint = (struct checkpoint){
        .run = c->run,
        .round = round_current(c),
        .plan = c->plan_bytes,
        .plan_len = c->plan_len,
        .params = (float *)(void *)c->aggregate.next->data,
        .bank = c->aggregate.bank_bytes,
        .bank_len = c->aggregate.bank_len,
        .optimiser = c->aggregate.next_state ? c->aggregate.next_state->data : NULL,
        .optimiser_len = c->aggregate.next_state ? c->aggregate.next_state->len : 0,
        .counted = c->counted,
        .counted_count = count,
        .summary = c->summary,
    };
    memcpy(c->save_job.checkpoint.norms, c->norms, sizeof c->norms);
    for (enum norm_part part = 0; part < NORM_PARTS; part++) {
        norm_push(c->save_job.checkpoint.norms[part], cohort_norm(c, part));
    }
    return 0;
}

void save_submit(struct coordinator *c)
{
    c->save_job.kind = JOB_SAVE;
    job_submit(c, &c->save_job);
}

static void remember(struct coordinator *c)
{
    if (c->history_count == HISTORY_ROOM) {
        c->history_count -= HISTORY_GO;
        memmove(c->history, c->history + HISTORY_GO, c->history_count * sizeof *c->history);
    }
    c->history[c->history_count++] = c->summary;
}

/* The saved state becomes the one that clients see. */
static void adopt(struct coordinator *c)
{
    for (uint32_t i = 0; i < c->round.count; i++) {
        if (round_has_delivered(&c->round, i)) {
            c->members[i].has_counted = true;
            c->members[i].counted_round = round_current(c);
            c->members[i].gave_none = !c->members[i].offer.has_features;
        }
    }
    agg_adopt(c->agg, c->aggregate.next, c->aggregate.next_state);
    c->model_hash = c->aggregate.next_hash;
    c->aggregate.next = c->aggregate.next_state = NULL;
    bank_free(c->bank);
    c->bank = c->aggregate.next_bank;
    c->aggregate.next_bank = NULL;
    aggregate_drop(&c->aggregate);
    mem_free(c->counted);
    c->counted = NULL;
    c->accepted = c->summary.accepted;
    memcpy(c->norms, c->save_job.checkpoint.norms, sizeof c->norms);
    c->summary.seconds = (double)(c->now_ms - c->round.opened_ms) / 1000;
    remember(c);
}

bool alarm_follow(struct coordinator *c, const struct round_summary *summary)
{
    bool before = c->collapsed.round != 0;
    if (alarm_collapsed(summary)) {
        c->collapsed = *summary;
    } else if (alarm_knows(summary)) {
        c->collapsed.round = 0;
    }
    return before != (c->collapsed.round != 0);
}

/* The phase is still SAVING, so `since_ms` is when the aggregation had ended. */
static void log_durable(struct coordinator *c)
{
    const struct round_summary *s = &c->summary;
    char aggregate[WATCH_FIELDS_MAX], own[WATCH_FIELDS_MAX], text[MSG_TEXT_MAX];
    log_event(c->log, LOG_LEVEL_INFO, "round_durable",
              "round=%u accepted=%u images=%llu loss=%.6g loss_contrast=%.6g loss_matching=%.6g remote_share=%.4g "
              "seconds=%.3f aggregation_seconds=%.3f save_seconds=%.3f bank_rows=%u bytes_up=%llu bytes_down=%llu%s%s",
              s->round, s->accepted, (unsigned long long)s->images, s->loss, s->loss_contrast, s->loss_matching,
              s->remote_share, s->seconds, (double)(c->round.since_ms - c->closed_ms) / 1000,
              (double)(c->now_ms - c->round.since_ms) / 1000, c->bank->rows, (unsigned long long)s->bytes_up,
              (unsigned long long)s->bytes_down, watch_fields(&s->aggregate, "", aggregate),
              watch_fields(&s->own, "own_", own));
    if (!alarm_follow(c, s)) {
        return;
    }
    alarm_text(c, text);
    if (text[0]) {
        log_event(c->log, LOG_LEVEL_WARN, "representation_collapsed", "round=%u%s reason=\"%s\"", s->round, aggregate,
                  text);
    } else {
        log_event(c->log, LOG_LEVEL_INFO, "representation_recovered", "round=%u%s", s->round, aggregate);
    }
}

void save_done(struct coordinator *c, int result, const struct err *reason)
{
    if (result == 0) {
        adopt(c);
        c->trouble[0] = '\0';
        log_durable(c);
        round_apply(c, ROUND_SAVED, 0);
        return;
    }
    disk_trouble(c, result, reason && reason->text[0] ? reason->text : err_meaning(result));
    log_event(c->log, LOG_LEVEL_ERROR, "save_failed", "round=%u waits_for=\"%s\"", round_current(c), c->trouble);
    c->result = c->round.stopping ? result : 0;
    round_apply(c, ROUND_FAILED, 0);
}

/* Rows of the history whose evaluation came, one at a time, the newest first. */
void record_submit(struct coordinator *c)
{
    for (uint32_t i = c->history_count; i > 0 && !c->recording; i--) {
        struct round_summary *row = &c->history[i - 1];
        if (row->unrecorded) {
            row->unrecorded = false;
            c->recording = true;
            c->record_job.kind = JOB_RECORD;
            c->record_job.checkpoint = (struct checkpoint){.round = row->round, .summary = *row};
            job_submit(c, &c->record_job);
        }
    }
}

void record_done(struct coordinator *c)
{
    c->recording = false;
    record_submit(c);
}
