/* The updates of the open round, on the disk: a rule of aggregation that looks at all of them at once
 * (server/agg/rule.h) must not need their memory.
 *
 *   spool/update-NAME   the numbers of NAME's update, f32, as it was absorbed
 *
 * A file is worth something to the process that wrote it alone: after a crash clients offer their contributions again,
 * so nothing is synced, and whatever lies here at a start is removed. Which files belong to the round is known to
 * whoever counts contributions; one that is left by a contribution that failed is never read, and is written over by
 * the next of that name.
 *
 * The functions may run on the thread of jobs, spool_room on any. */
#ifndef STARLING_STORE_SPOOL_H
#define STARLING_STORE_SPOOL_H

#include "common/base/disk.h"

struct spool {
    const struct disk *disk;
    char folder[DISK_PATH_MAX];
};

/* Of a state folder. Empties it; `wanted`: makes it, else an earlier run may have left one. ERR_LIMIT, ERR_NOMEM, and
 * what the disk says. */
int spool_open(const struct disk *disk, const char *state, bool wanted, struct spool *spool, struct err *err);
/* Removes what lies in it. A failure costs space and nothing else. */
int spool_clear(const struct spool *spool, struct err *err);
/* Writes or replaces an update of `count` numbers. What is left by a failure is removed, if the disk allows that. */
int spool_put(const struct spool *spool, const char *name, const float *update, uint64_t count, struct err *err);
/* Numbers [at, at + count) of an update. ERR_NOTFOUND, ERR_DATA: somebody else has been at the folder. */
int spool_read(const struct spool *spool, const char *name, uint64_t at, size_t count, float *out, struct err *err);
/* How many updates of `bytes` each the disk has room for. */
int spool_room(const struct spool *spool, uint64_t bytes, uint32_t *updates, uint64_t *free_bytes, struct err *err);

#endif
