/* A few long-lived threads that take numbered items of work from one list. Items are handed out in order, each to
 * exactly one worker; what an item computes must not depend on which worker that is. */
#ifndef STARLING_NN_WORKERS_H
#define STARLING_NN_WORKERS_H

#include "common/base/err.h"

#include <stdint.h>

struct workers;

/* Runs on worker `worker` (below the number of threads). 0, or an ERR_ code with the sentence in err. */
typedef int (*workers_fn)(void *ctx, uint32_t worker, uint32_t item, struct err *err);

/* ERR_NOMEM; ERR_FAILED when the system refuses a thread. */
int workers_new(uint32_t threads, struct workers **out, struct err *err);
void workers_free(struct workers *workers);
/* Runs fn for items 0 .. count-1 and returns when all are done. The failure of the lowest item is returned; items that
 * were not begun before it are left out. One caller at a time. */
int workers_run(struct workers *workers, uint32_t count, workers_fn fn, void *ctx, struct err *err);

#endif
