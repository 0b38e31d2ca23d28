/* AGGREGATE: the next model, of the sum or of what the rule makes of the spool, and the next bank.
 *
 * What it makes exists beside what there is until the save has ended (save.c). A failure leaves all as it was, and the
 * round tries again. */
#include "common/base/mem.h"
#include "server/session/state.h"

#include <stdio.h>
#include <string.h>

void aggregate_drop(struct aggregate *work)
{
    bytes_unref(work->next);
    bytes_unref(work->next_state);
    bank_free(work->next_bank);
    mem_free(work->bank_bytes);
    work->next = NULL;
    work->next_state = NULL;
    work->next_bank = NULL;
    work->bank_bytes = NULL;
}

static int read_spool(void *ctx, uint32_t i, uint64_t at, size_t count, float *out, struct err *err)
{
    const struct aggregate *work = ctx;
    return spool_read(work->spool, work->names[i], at, count, out, err);
}

void aggregate_run(struct aggregate *work)
{
    work->result = 0;
    if (work->spool) {
        const struct updates updates = {work->count, read_spool, work};
        work->result = agg_apply(work->agg, work->rule, &updates, work->kept, &work->err);
    }
    if (work->result == 0) {
        work->result = agg_finish(work->agg, &work->next, &work->next_state);
    }
    if (work->result == 0) {
        work->result = bank_merge(work->bank, work->intake, &work->next_bank);
    }
    if (work->result == 0) {
        bank_expire(work->next_bank, work->oldest);
        work->result = bank_encode(work->next_bank, &work->bank_bytes, &work->bank_len);
    }
    if (work->result != 0) {
        aggregate_drop(work);
        return;
    }
    work->next_hash = hash_of(work->next->data, work->next->len);
    agg_restart(work->agg, work->next);
    bank_intake_clear(work->intake);
}

/* Whom krum did not take, for people: the contribution counts, and its features do. */
static void log_left_out(const struct coordinator *c)
{
    for (uint32_t i = 0; c->options.spool && i < c->aggregate.count; i++) {
        if (!c->aggregate.kept[i]) {
            log_event(c->log, LOG_LEVEL_WARN, "update_left_out", "name=%s round=%u rule=krum", c->aggregate.names[i],
                      round_current(c));
        }
    }
}

void aggregate_done(struct coordinator *c)
{
    if (c->aggregate.next && save_prepare(c) == 0) {
        c->trouble[0] = '\0';
        log_left_out(c);
        round_apply(c, ROUND_AGGREGATED, 0);
        return;
    }
    int result = c->aggregate.next || c->aggregate.result == 0 ? ERR_NOMEM : c->aggregate.result;
    if (result == ERR_NOMEM) {
        c->nomem = true;
        (void)snprintf(c->trouble, sizeof c->trouble, "memory for the model of round %u", round_current(c));
    } else {
        disk_trouble(c, result, c->aggregate.err.text);
    }
    log_event(c->log, LOG_LEVEL_ERROR, "aggregation_failed", "round=%u reason=\"%s\"", round_current(c), c->trouble);
    c->result = c->round.stopping ? result : 0;
    round_apply(c, ROUND_FAILED, 0);
}

/* Whose updates the rule is to look at. A copy: members may come, and move the others, while the job runs. */
static int list_updates(struct coordinator *c)
{
    struct aggregate *work = &c->aggregate;
    if (!c->options.spool) {
        return 0;
    }
    mem_free(work->names);
    mem_free(work->kept);
    work->names = mem_new(c->round.count, sizeof *work->names);
    work->kept = mem_new(c->round.count, sizeof *work->kept);
    work->count = 0;
    if (!work->names || !work->kept) {
        return ERR_NOMEM;
    }
    for (uint32_t i = 0; i < c->round.count; i++) {
        uint32_t member = c->round.order[i];
        if (round_has_delivered(&c->round, member)) {
            memcpy(work->names[work->count++], c->members[member].name, sizeof work->names[0]);
        }
    }
    work->rule = &c->rule;
    work->spool = c->options.spool;
    return 0;
}

void aggregate_submit(struct coordinator *c)
{
    if (c->aggregate.next) { /* Only what follows had failed. */
        aggregate_done(c);
        return;
    }
    if (list_updates(c) != 0) {
        c->aggregate.result = ERR_NOMEM;
        aggregate_done(c);
        return;
    }
    c->aggregate.agg = c->agg;
    c->aggregate.intake = c->intake;
    c->aggregate.bank = c->bank;
    /* What this round contributed is in the samples of the next fusion.ttl. */
    c->aggregate.oldest = c->plan->fusion.ttl > 0 && round_current(c) >= c->plan->fusion.ttl
                              ? round_current(c) - c->plan->fusion.ttl + 1
                              : 0;
    c->aggregate_job.kind = JOB_AGGREGATE;
    c->aggregate_job.work = &c->aggregate;
    job_submit(c, &c->aggregate_job);
}
