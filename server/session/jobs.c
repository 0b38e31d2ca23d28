/* What runs outside the loop: absorbing a contribution (absorb.c), making the next model (aggregate.c), saving
 * (save.c). Jobs run one at a time, in the order in which they are handed out, so the sum, the intake and what they
 * make need no lock. A job works on its own struct (slot.absorb, aggregate) and on what only jobs touch: agg's sum and
 * the intake. */
#include "server/session/state.h"

#include <stdio.h>

void job_run(struct job *job)
{
    if (job->kind == JOB_ABSORB) {
        absorb_run(job->work);
    } else if (job->kind == JOB_AGGREGATE) {
        aggregate_run(job->work);
    }
}

void job_done(struct coordinator *c, struct job *job, int result, const struct err *reason)
{
    c->jobs_running--;
    if (job->kind == JOB_ABSORB) {
        absorb_done(c, job->work);
    } else if (job->kind == JOB_AGGREGATE) {
        aggregate_done(c);
    } else if (job->kind == JOB_RECORD) {
        record_done(c);
    } else {
        save_done(c, result, reason);
    }
}

void disk_trouble(struct coordinator *c, int result, const char *reason)
{
    char text[MSG_TEXT_MAX];
    (void)log_quotable(reason, text, sizeof text);
    (void)snprintf(c->trouble, sizeof c->trouble, "%s: %.230s", result == ERR_FULL ? "disk space" : "the disk", text);
}
