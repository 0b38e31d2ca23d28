/* The trainer thread: everything of a client that takes long (images, training, saving) happens there, one task after
 * the other in the order in which they were given. For the files of this room alone. */
#ifndef STARLING_CLIENT_SHELL_WORKER_H
#define STARLING_CLIENT_SHELL_WORKER_H

#include "client/session/session.h"
#include "client/shell/client.h"
#include "client/shell/state.h"

#include <uv.h>

struct worker;

/* What comes back, on the loop's thread. */
struct worker_events {
    void (*prepared)(void *ctx, uint64_t images);
    void (*trained)(void *ctx, struct contribution *contribution); /* durable already; ownership moves */
    void (*evaluated)(void *ctx, double knn_top1);
    void (*failed)(void *ctx, const struct err *reason); /* a PREPARE, TRAIN or EVALUATE */
    void *ctx;
};

/* options: name and threads are filled in. The thread owns `state` from now on, until worker_join. */
int worker_start(uv_loop_t *loop, const struct client_options *options, struct state *state,
                 const struct worker_events *events, const struct log *log, struct worker **out, struct err *err);

/* Plan and layout stay valid until worker_join. ERR_NOMEM, for each of these. */
int worker_prepare(struct worker *worker, const struct plan *plan, const struct layout *layout,
                   const struct hash128 *run, const struct hash128 *plan_hash);
/* Takes model and remote over (mem_free), also when it fails. */
int worker_train(struct worker *worker, uint32_t round, uint8_t *model, uint8_t *remote, uint32_t remote_rows);
/* Takes the model over likewise. */
int worker_evaluate(struct worker *worker, uint32_t round, uint8_t *model);
int worker_commit(struct worker *worker, uint32_t round);
int worker_drop(struct worker *worker, uint32_t round);
/* The training that was given last ends soon, one way or the other. */
void worker_cancel(struct worker *worker);

/* False when nothing is being trained. */
bool worker_progress(const struct worker *worker, struct session_event *out);

/* No more results; what is at work is cancelled, commits that were given are still carried out. */
void worker_stop(struct worker *worker);
/* After the loop has ended. Waits for the thread. */
void worker_join(struct worker *worker);

#endif
