/* What the trainer thread does, task by task. For the files of this room alone. */
#ifndef STARLING_CLIENT_SHELL_WORK_H
#define STARLING_CLIENT_SHELL_WORK_H

#include "client/session/session.h"
#include "client/shell/client.h"
#include "client/shell/state.h"
#include "client/train/evaluate.h"
#include "client/train/train.h"

/* Everything but `progress` and `cancel_prepare` is the thread's own. */
struct work {
    const struct client_options *options; /* name and threads filled in */
    const struct log *log;
    struct state *state;
    const struct plan *plan; /* from the first task on, which is PREPARE */
    const struct layout *layout;
    struct plan own; /* as this site trains by it */
    struct dataset *dataset;
    struct trainer *trainer;
    struct evaluation evaluation; /* an observer's, instead of dataset and trainer */
    struct train_progress progress;
    bool cancel_prepare;
    /* Waits a while before something is tried again; false when it is no longer wanted. */
    bool (*wait)(void *ctx);
    void *ctx;
};

/* Opens the images and builds the trainer, or opens an observer's folders. ERR_DATA for a folder without readable
 * images, ERR_CANCELLED, ... */
int work_prepare(struct work *work, const struct hash128 *run, const struct hash128 *plan_hash, uint64_t *images,
                 struct err *err);
/* One local round; *out is durable when it returns 0. *remote, from mem_new_aligned or NULL, is replaced when it came
 * packed. ERR_CANCELLED, or what train_round says. */
int work_train(struct work *work, uint32_t round, const uint8_t *model, uint8_t **remote, uint32_t remote_rows,
               struct contribution **out, struct err *err);
/* Judges a model [layout->total] by its nearest neighbours. */
int work_evaluate(struct work *work, const uint8_t *model, double *knn_top1, struct err *err);
/* The files that follow a decision of the server. A failure is logged, and repaired by what comes later (state.h). */
void work_commit(struct work *work, uint32_t round);
void work_drop(struct work *work, uint32_t round);
void work_fini(struct work *work);

#endif
