/* One mutex guards everything; a worker holds it only to take an item and to report it done, and items are large (a
 * group's forward and backward pass), so there is nothing to gain from anything finer. */
#include "client/nn/workers.h"

#include "common/base/mem.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

struct workers {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool stop;
    workers_fn fn;
    void *ctx;
    uint32_t next, count, running; /* item to hand out, items in all, items being worked on */
    uint32_t failed_item;          /* valid where failed.code is not 0 */
    struct err failed;
    uint32_t threads;
    struct worker {
        struct workers *workers;
        uint32_t index;
        pthread_t thread;
    } * worker;
};

static void report(struct workers *workers, uint32_t item, int rc, const struct err *err)
{
    workers->running--;
    if (rc != 0) {
        if (workers->failed.code == 0 || item < workers->failed_item) {
            workers->failed = *err;
            workers->failed.code = rc;
            workers->failed_item = item;
        }
        workers->next = workers->count;
    }
    if (workers->running == 0 && workers->next >= workers->count) {
        pthread_cond_signal(&workers->done);
    }
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct workers *workers = worker->workers;
    pthread_mutex_lock(&workers->lock);
    while (!workers->stop) {
        if (workers->next >= workers->count) {
            pthread_cond_wait(&workers->work, &workers->lock);
            continue;
        }
        uint32_t item = workers->next++;
        workers->running++;
        pthread_mutex_unlock(&workers->lock);
        struct err err = {0};
        int rc = workers->fn(workers->ctx, worker->index, item, &err);
        pthread_mutex_lock(&workers->lock);
        report(workers, item, rc, &err);
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

int workers_new(uint32_t threads, struct workers **out, struct err *err)
{
    *out = NULL;
    struct workers *workers = mem_new(1, sizeof *workers);
    if (!workers) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->work, NULL);
    pthread_cond_init(&workers->done, NULL);
    workers->worker = mem_new(threads, sizeof *workers->worker);
    if (!workers->worker) {
        workers_free(workers);
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < threads; i++) {
        workers->worker[i].workers = workers;
        workers->worker[i].index = i;
        int rc = pthread_create(&workers->worker[i].thread, NULL, work, &workers->worker[i]);
        if (rc != 0) {
            workers_free(workers);
            return err_set(err, ERR_FAILED, "cannot start worker thread %u of %u: %s", i + 1, threads, strerror(rc));
        }
        workers->threads++;
    }
    *out = workers;
    return 0;
}

void workers_free(struct workers *workers)
{
    if (!workers) {
        return;
    }
    pthread_mutex_lock(&workers->lock);
    workers->stop = true;
    pthread_cond_broadcast(&workers->work);
    pthread_mutex_unlock(&workers->lock);
    for (uint32_t i = 0; i < workers->threads; i++) {
        pthread_join(workers->worker[i].thread, NULL);
    }
    pthread_cond_destroy(&workers->done);
    pthread_cond_destroy(&workers->work);
    pthread_mutex_destroy(&workers->lock);
    mem_free(workers->worker);
    mem_free(workers);
}

int workers_run(struct workers *workers, uint32_t count, workers_fn fn, void *ctx, struct err *err)
{
    pthread_mutex_lock(&workers->lock);
    workers->fn = fn;
    workers->ctx = ctx;
    workers->next = 0;
    workers->count = count;
    workers->failed.code = 0;
    pthread_cond_broadcast(&workers->work);
    while (workers->running > 0 || workers->next < workers->count) {
        pthread_cond_wait(&workers->done, &workers->lock);
    }
    int rc = workers->failed.code;
    if (rc != 0 && err) {
        *err = workers->failed;
    }
    pthread_mutex_unlock(&workers->lock);
    return rc;
}
