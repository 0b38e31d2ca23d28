#include "client/nn/turns.h"

#include "common/base/mem.h"

#include <string.h>

int turns_init(struct turns *turns, uint32_t parts, struct err *err)
{
    *turns = (struct turns){.done = mem_new(parts, sizeof *turns->done), .parts = parts, .failed = UINT32_MAX};
    if (!turns->done) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    /* On Linux the default kinds of these two need no resources and cannot fail. */
    (void)pthread_mutex_init(&turns->lock, NULL);
    (void)pthread_cond_init(&turns->changed, NULL);
    return 0;
}

void turns_fini(struct turns *turns)
{
    if (turns->done) {
        (void)pthread_cond_destroy(&turns->changed);
        (void)pthread_mutex_destroy(&turns->lock);
        mem_free(turns->done);
    }
    *turns = (struct turns){0};
}

void turns_reset(struct turns *turns)
{
    (void)pthread_mutex_lock(&turns->lock);
    memset(turns->done, 0, turns->parts * sizeof *turns->done);
    turns->failed = UINT32_MAX;
    (void)pthread_mutex_unlock(&turns->lock);
}

void turns_give_up(struct turns *turns, uint32_t group)
{
    (void)pthread_mutex_lock(&turns->lock);
    turns->failed = group < turns->failed ? group : turns->failed;
    (void)pthread_cond_broadcast(&turns->changed);
    (void)pthread_mutex_unlock(&turns->lock);
}

bool turns_begin(struct turns *turns, uint32_t group, uint32_t part)
{
    (void)pthread_mutex_lock(&turns->lock);
    turns->waiting++;
    while (turns->done[part] < group && turns->failed >= group) {
        (void)pthread_cond_wait(&turns->changed, &turns->lock);
    }
    turns->waiting--;
    bool mine = turns->failed >= group;
    (void)pthread_mutex_unlock(&turns->lock);
    return mine;
}

void turns_end(struct turns *turns, uint32_t part)
{
    (void)pthread_mutex_lock(&turns->lock);
    turns->done[part]++;
    if (turns->waiting > 0) {
        (void)pthread_cond_broadcast(&turns->changed);
    }
    (void)pthread_mutex_unlock(&turns->lock);
}
