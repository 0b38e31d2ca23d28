/* The trainer thread. The loop puts tasks into a list, the thread takes them in order (work.c does them), puts results
 * into another list and wakes the loop with uv_async; one mutex guards both lists. Numbers that the loop wants at any
 * time (progress) and wishes that cannot wait (cancel) are atomics. */
#include "client/shell/worker.h"

#include "client/shell/work.h"
#include "common/base/mem.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#define RETRY_SECONDS 1

enum task_kind { TASK_PREPARE, TASK_TRAIN, TASK_EVALUATE, TASK_COMMIT, TASK_DROP };
struct task {
    struct task *next;
    enum task_kind kind;
    uint32_t round;
    uint8_t *model, *remote; /* TRAIN, EVALUATE; owned */
    uint32_t remote_rows;
    struct hash128 run, plan_hash; /* PREPARE */
    /* The result; rc 0: contribution (TRAIN), knn_top1 (EVALUATE) or images (PREPARE). */
    int rc;
    struct err err;
    uint64_t images;
    double knn_top1;
    struct contribution *contribution; /* owned */
};
struct list {
    struct task *first, **end;
};

struct worker {
    struct work work;
    struct worker_events events;
    uv_async_t wake;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* a task, or `stopping`, or a cancel */
    struct list tasks, results;
    bool stopping;
    bool training; /* the loop's: a TRAIN was given and its result not delivered */
};

/* ---- Lists ---- */

static void list_init(struct list *list)
{
    list->first = NULL;
    list->end = &list->first;
}

static void list_push(struct list *list, struct task *task)
{
    task->next = NULL;
    *list->end = task;
    list->end = &task->next;
}

static struct task *list_pop(struct list *list)
{
    struct task *task = list->first;
    if (task) {
        list->first = task->next;
        list->end = list->first ? list->end : &list->first;
    }
    return task;
}

static void task_free(struct task *task)
{
    mem_free(task->model);
    mem_free(task->remote);
    contribution_free(task->contribution);
    mem_free(task);
}

/* ---- On the thread ---- */

/* Sleeps for a while, or until there is a reason not to. Whether to go on. */
static bool wait_to_retry(void *ctx)
{
    struct worker *worker = ctx;
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += RETRY_SECONDS;
    (void)pthread_mutex_lock(&worker->mutex);
    int rc = 0;
    while (rc == 0 && !worker->stopping && !atomic_load(&worker->work.progress.cancel)) {
        rc = pthread_cond_timedwait(&worker->changed, &worker->mutex, &until);
    }
    bool go_on = !worker->stopping && !atomic_load(&worker->work.progress.cancel);
    (void)pthread_mutex_unlock(&worker->mutex);
    return go_on;
}

static void deliver(struct worker *worker, struct task *task)
{
    (void)pthread_mutex_lock(&worker->mutex);
    list_push(&worker->results, task);
    bool wake = !worker->stopping;
    if (wake) {
        (void)uv_async_send(&worker->wake);
    }
    (void)pthread_mutex_unlock(&worker->mutex);
}

/* NULL: stopping, and nothing is left that must be done. */
static struct task *next_task(struct worker *worker)
{
    (void)pthread_mutex_lock(&worker->mutex);
    while (!worker->tasks.first && !worker->stopping) {
        (void)pthread_cond_wait(&worker->changed, &worker->mutex);
    }
    struct task *task = list_pop(&worker->tasks);
    while (task && worker->stopping && task->kind < TASK_COMMIT) {
        task_free(task);
        task = list_pop(&worker->tasks);
    }
    (void)pthread_mutex_unlock(&worker->mutex);
    return task;
}

static void *run(void *arg)
{
    struct worker *worker = arg;
    struct work *work = &worker->work;
    for (struct task *task = next_task(worker); task; task = next_task(worker)) {
        switch (task->kind) {
        case TASK_PREPARE:
            task->rc = work_prepare(work, &task->run, &task->plan_hash, &task->images, &task->err);
            deliver(worker, task);
            break;
        case TASK_TRAIN:
            task->rc = work_train(work, task->round, task->model, &task->remote, task->remote_rows, &task->contribution,
                                  &task->err);
            deliver(worker, task);
            break;
        case TASK_EVALUATE:
            task->rc = work_evaluate(work, task->model, &task->knn_top1, &task->err);
            deliver(worker, task);
            break;
        case TASK_COMMIT:
            work_commit(work, task->round);
            task_free(task);
            break;
        case TASK_DROP:
            work_drop(work, task->round);
            task_free(task);
            break;
        }
    }
    return NULL;
}

/* ---- On the loop ---- */

static void on_wake(uv_async_t *wake)
{
    struct worker *worker = wake->data;
    for (;;) {
        (void)pthread_mutex_lock(&worker->mutex);
        struct task *task = worker->stopping ? NULL : list_pop(&worker->results);
        (void)pthread_mutex_unlock(&worker->mutex);
        if (!task) {
            return;
        }
        const struct worker_events *events = &worker->events;
        worker->training = worker->training && task->kind != TASK_TRAIN;
        if (task->rc) {
            events->failed(events->ctx, &task->err);
        } else if (task->kind == TASK_PREPARE) {
            events->prepared(events->ctx, task->images);
        } else if (task->kind == TASK_EVALUATE) {
            events->evaluated(events->ctx, task->knn_top1);
        } else {
            struct contribution *contribution = task->contribution;
            task->contribution = NULL;
            events->trained(events->ctx, contribution);
        }
        task_free(task);
    }
}

static int give(struct worker *worker, const struct task *wanted)
{
    struct task *task = mem_new(1, sizeof *task);
    if (!task) {
        return ERR_NOMEM;
    }
    *task = *wanted;
    (void)pthread_mutex_lock(&worker->mutex);
    list_push(&worker->tasks, task);
    (void)pthread_cond_signal(&worker->changed);
    (void)pthread_mutex_unlock(&worker->mutex);
    return 0;
}

int worker_prepare(struct worker *worker, const struct plan *plan, const struct layout *layout,
                   const struct hash128 *run, const struct hash128 *plan_hash)
{
    worker->work.plan = plan; /* the thread reads them after it has taken the task */
    worker->work.layout = layout;
    return give(worker, &(struct task){.kind = TASK_PREPARE, .run = *run, .plan_hash = *plan_hash});
}

int worker_train(struct worker *worker, uint32_t round, uint8_t *model, uint8_t *remote, uint32_t remote_rows)
{
    const struct task task = {
        .kind = TASK_TRAIN, .round = round, .model = model, .remote = remote, .remote_rows = remote_rows};
    atomic_store(&worker->work.progress.cancel, false);
    atomic_store(&worker->work.progress.step, 0);
    atomic_store(&worker->work.progress.steps, 0);
    int rc = give(worker, &task);
    worker->training = rc == 0;
    if (rc) {
        mem_free(model);
        mem_free(remote);
    }
    return rc;
}

int worker_evaluate(struct worker *worker, uint32_t round, uint8_t *model)
{
    int rc = give(worker, &(struct task){.kind = TASK_EVALUATE, .round = round, .model = model});
    if (rc) {
        mem_free(model);
    }
    return rc;
}

int worker_commit(struct worker *worker, uint32_t round)
{
    return give(worker, &(struct task){.kind = TASK_COMMIT, .round = round});
}

int worker_drop(struct worker *worker, uint32_t round)
{
    return give(worker, &(struct task){.kind = TASK_DROP, .round = round});
}

void worker_cancel(struct worker *worker)
{
    (void)pthread_mutex_lock(&worker->mutex);
    atomic_store(&worker->work.progress.cancel, true);
    (void)pthread_cond_signal(&worker->changed);
    (void)pthread_mutex_unlock(&worker->mutex);
}

bool worker_progress(const struct worker *worker, struct session_event *out)
{
    bool hidden = worker->work.plan && plan_hides_measures(worker->work.plan);
    *out = (struct session_event){
        .kind = SESSION_PROGRESS,
        .step = atomic_load(&worker->work.progress.step),
        .steps = atomic_load(&worker->work.progress.steps),
        .loss = hidden ? 0 : (double)atomic_load(&worker->work.progress.loss),
        .images_per_second = (double)atomic_load(&worker->work.progress.images_per_second),
    };
    return worker->training;
}

/* ---- Life ---- */

static int init_locks(struct worker *worker)
{
    pthread_condattr_t monotonic;
    int rc = pthread_mutex_init(&worker->mutex, NULL);
    rc = rc ? rc : pthread_condattr_init(&monotonic);
    if (rc == 0) {
        rc = pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        rc = rc ? rc : pthread_cond_init(&worker->changed, &monotonic);
        (void)pthread_condattr_destroy(&monotonic);
    }
    return rc;
}

int worker_start(uv_loop_t *loop, const struct client_options *options, struct state *state,
                 const struct worker_events *events, const struct log *log, struct worker **out, struct err *err)
{
    *out = NULL;
    struct worker *worker = mem_new(1, sizeof *worker);
    if (!worker) {
        return err_set(err, ERR_NOMEM, "no memory for the trainer thread");
    }
    worker->work = (struct work){.options = options, .log = log, .state = state, .wait = wait_to_retry, .ctx = worker};
    worker->events = *events;
    worker->wake.data = worker;
    list_init(&worker->tasks);
    list_init(&worker->results);
    int rc = init_locks(worker);
    if (rc || uv_async_init(loop, &worker->wake, on_wake)) {
        mem_free(worker);
        return err_set(err, ERR_FAILED, "cannot prepare the trainer thread");
    }
    rc = pthread_create(&worker->thread, NULL, run, worker);
    if (rc) {
        uv_close((uv_handle_t *)&worker->wake, NULL);
        (void)uv_run(loop, UV_RUN_NOWAIT); /* or the loop would keep a pointer into freed memory */
        mem_free(worker);
        return err_set(err, ERR_FAILED, "cannot start the trainer thread: %s", strerror(rc));
    }
    *out = worker;
    return 0;
}

void worker_stop(struct worker *worker)
{
    (void)pthread_mutex_lock(&worker->mutex);
    worker->stopping = true;
    atomic_store(&worker->work.progress.cancel, true);
    __atomic_store_n(&worker->work.cancel_prepare, true, __ATOMIC_RELAXED);
    (void)pthread_cond_signal(&worker->changed);
    (void)pthread_mutex_unlock(&worker->mutex);
    uv_close((uv_handle_t *)&worker->wake, NULL);
}

static void list_free(struct list *list)
{
    for (struct task *task = list_pop(list); task; task = list_pop(list)) {
        task_free(task);
    }
}

void worker_join(struct worker *worker)
{
    (void)pthread_join(worker->thread, NULL);
    list_free(&worker->tasks);
    list_free(&worker->results);
    work_fini(&worker->work);
    (void)pthread_cond_destroy(&worker->changed);
    (void)pthread_mutex_destroy(&worker->mutex);
    mem_free(worker);
}
