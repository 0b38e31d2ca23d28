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
    uint32_t failed; /* the lowest group that gave up; UINT32_MAX: none */
};

int turns_init(struct turns *turns, uint32_t parts, struct err *err); /* ERR_NOMEM */
void turns_fini(struct turns *turns);
/* Nobody has had a turn; nobody is at work. */
void turns_reset(struct turns *turns);
/* A group failed: later ones will wait in vain, earlier ones go on. */
void turns_give_up(struct turns *turns, uint32_t group);
/* Waits for the groups before this one; false when one of them gave up. */
bool turns_begin(struct turns *turns, uint32_t group, uint32_t part);
void turns_end(struct turns *turns, uint32_t part);

#endif
