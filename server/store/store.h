/* The coordinator's state folder: checkpoints that survive any crash, and the history.
 *
 *   lock                      held (flock) while a server runs
 *   models/round-000012.starling   the model after round 12, a model file (common/vec/modelfile.h)
 *   checkpoint-000012         everything else of that state, and the content hash of its model: the commit point
 *   history.db                SQLite, derived: trimmed to the checkpoint at start
 *   spool/                    updates of the open round, where a rule needs them (spool.h)
 *   old-<run>/                a run that a new one moved aside
 *
 * A save writes the model first and the checkpoint second, each durably (disk_save); the state of round n exists when
 * checkpoint n does. The predecessor is kept, older ones are removed, except models that `keep_every` keeps: those of
 * rounds that are multiples of it, and round 0. Loading takes the newest checkpoint whose checksum and model hold, and
 * says in the log what it skipped. */
#ifndef STARLING_STORE_STORE_H
#define STARLING_STORE_STORE_H

#include "common/base/disk.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/name.h"
#include "common/vec/layout.h"
#include "server/round/summary.h"

#include <stdbool.h>
#include <stdint.h>

struct counted {
    char name[NAME_MAX_BYTES];
    uint32_t round; /* the last durable round that counted a contribution of this name */
};

#define CHECKPOINT_PARTS 2
#define CHECKPOINT_NORMS 5
/* The truth of one moment. Memory is owned (checkpoint_fini) when it comes from store_load, borrowed in store_save. */
struct checkpoint {
    struct hash128 run;
    uint32_t round; /* 0: the initial model */
    uint8_t *plan;  /* canonical bytes */
    uint32_t plan_len;
    float *params; /* [layout->total] */
    uint8_t *bank; /* bank_encode's bytes */
    uint64_t bank_len;
    uint8_t *optimiser;     /* the state of aggregation.optimizer, f32 (server/agg/optimiser.h) */
    uint64_t optimiser_len; /* bytes; 0: it has none, or round 0 */
    double norms[CHECKPOINT_PARTS][CHECKPOINT_NORMS]; /* of updates (server/agg/norm.h) */
    struct counted *counted;
    uint32_t counted_count;
    struct round_summary summary; /* of `round`; zero for round 0 */
};
void checkpoint_fini(struct checkpoint *checkpoint);

struct store;

/* Creates the folder when missing. ERR_UNAVAILABLE when another server holds the lock (names the folder). */
int store_open(const struct disk *disk, const char *folder, uint32_t keep_every, const struct log *log,
               struct store **out, struct err *err);
void store_close(struct store *store);

/* *found false: an empty folder. ERR_DATA: checkpoints exist but none is whole (never starts from scratch by itself);
 * ERR_CONFIG: the newest whole one has another plan than `plan` and new_run is false: the sentence lists the changed
 * keys; ERR_MISMATCH: this program lays its model out differently. With new_run, what is there is moved aside into
 * old-<run>/ and *found is false. */
int store_load(struct store *store, const struct layout *layout, const uint8_t *plan, uint32_t plan_len, bool new_run,
               struct checkpoint *out, bool *found, struct err *err);
/* Durable when it returns 0. May run on another thread than the rest, one call at a time. ERR_FULL,
 * ERR_READONLY, ERR_IO: the last state is untouched. */
int store_save(struct store *store, const struct layout *layout, const struct checkpoint *checkpoint, struct err *err);
/* The path of the model of a round, for messages and reports. */
int store_model_path(const struct store *store, uint32_t round, char out[DISK_PATH_MAX]);

/* History: failures here are logged, never fatal. append after each durable round, and again when its evaluation
 * comes. */
int history_append(struct store *store, const struct round_summary *summary, struct err *err);
/* Up to `most` newest rounds, oldest first; *out from mem_new. Rows past `round` are deleted first: the history is
 * derived, the checkpoint is the truth. */
int history_load(struct store *store, uint32_t round, uint32_t most, struct round_summary **out, uint32_t *count,
                 struct err *err);

#endif
