/* Who may add to a shared sum: for each of its parts the groups come one after the other, in the order of their
 * numbers. Work is handed out in that order too (workers.h), so the one that is waited for is always on its way. */
#ifndef STARLING_NN_TURNS_H
#define STARLING_NN_TURNS_H

#include "common/base/err.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct turns {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t *done; /* [parts]: groups that have added theirs */
    uint32_t parts, waiting;
    bool given_up;
};

struct turn {
    struct turns *turns;
    uint32_t group;
};

int turns_init(struct turns *turns, uint32_t parts, struct err *err); /* ERR_NOMEM */
void turns_fini(struct turns *turns);
/* Nobody has had a turn; nobody is at work. */
void turns_reset(struct turns *turns);
/* A group failed: who waits, or will, is told so. */
void turns_give_up(struct turns *turns);
/* ctx: struct turn. Waits for the groups before this one; false when one gave up. */
bool turn_begin(void *ctx, uint32_t part);
void turn_end(void *ctx, uint32_t part);

#endif
