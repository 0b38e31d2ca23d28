/* What takes long, off the loop: absorbing an update, making the next model, saving it. One job at a time, in the order
 * in which the coordinator gave them out; it relies on that order.
 *
 * The worker touches the job, its result, the store and nothing else of the daemon; the loop touches neither store nor
 * job while the worker is at it. */
#include "server/shell/internal.h"

#include "common/base/mem.h"

#include <string.h>

static void start_next(struct daemon *daemon);

/* On the worker. */
static void work(uv_work_t *request)
{
    struct daemon *daemon = request->data;
    struct jobs *jobs = &daemon->jobs;
    struct job *job = jobs->current;
    jobs->result = 0;
    jobs->reason = (struct err){0};
    if (job->kind == JOB_RECORD) {
        (void)history_append(daemon->store, &job->checkpoint.summary, NULL); /* derived: a failure is in the log */
        return;
    }
    if (job->kind != JOB_SAVE) {
        job_run(job);
        return;
    }
    jobs->result = store_save(daemon->store, daemon->layout, &job->checkpoint, &jobs->reason);
    if (jobs->result == 0) {
        struct err err;
        if (spool_is_wanted(daemon) && spool_clear(&daemon->spool, &err) != 0) {
            log_event(daemon->log, LOG_LEVEL_WARN, "cleanup_failed", "reason=\"%s\"", err.text);
        }
        (void)history_append(daemon->store, &job->checkpoint.summary, NULL); /* derived: a failure is in the log */
    }
}

static void on_done(uv_work_t *request, int status)
{
    (void)status; /* nobody cancels */
    struct daemon *daemon = request->data;
    struct jobs *jobs = &daemon->jobs;
    struct event event = {
        .kind = EVENT_JOB_DONE, .job = jobs->current, .result = jobs->result, .reason = &jobs->reason};
    jobs->current = NULL;
    daemon_event(daemon, &event);
    start_next(daemon);
}

static void start_next(struct daemon *daemon)
{
    struct jobs *jobs = &daemon->jobs;
    if (jobs->current || jobs->count == 0) {
        return;
    }
    jobs->current = jobs->waiting[0];
    jobs->count--;
    memmove(jobs->waiting, jobs->waiting + 1, jobs->count * sizeof(struct job *));
    jobs->work.data = daemon;
    (void)uv_queue_work(&daemon->loop, &jobs->work, work, on_done); /* fails only without a work function */
}

int jobs_push(struct daemon *daemon, struct job *job)
{
    struct jobs *jobs = &daemon->jobs;
    if (jobs->count == jobs->capacity) {
        uint32_t capacity = jobs->capacity ? jobs->capacity * 2 : 8;
        struct job **waiting = mem_resize(jobs->waiting, capacity, sizeof(struct job *));
        if (!waiting) {
            return ERR_NOMEM;
        }
        jobs->waiting = waiting;
        jobs->capacity = capacity;
    }
    jobs->waiting[jobs->count++] = job;
    start_next(daemon);
    return 0;
}

void jobs_fini(struct daemon *daemon)
{
    mem_free(daemon->jobs.waiting);
    daemon->jobs = (struct jobs){0};
}
