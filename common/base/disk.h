/* The disk as an argument: the few file operations that durability is made of, so that a simulated disk (one that
 * loses what was not synced, fills up, or dies at the k-th write) can stand in.
 *
 * A save is durable when disk_save returns 0: temporary file in the same folder, write, fsync, close, rename over the
 * old one, fsync of the folder. Whatever step fails, the old file is still whole and the error names the step. */
#ifndef STARLING_BASE_DISK_H
#define STARLING_BASE_DISK_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk_ops {
    /* All return 0, ERR_FULL (no space, quota), ERR_READONLY (the disk is, or there is no permission to write),
     * ERR_NOTFOUND or ERR_IO. Paths are as given by the caller. */
    int (*create)(void *ctx, const char *path, int *file); /* truncates; mode 0600 */
    int (*write)(void *ctx, int file, const void *data, size_t len);
    int (*sync)(void *ctx, int file);
    int (*close)(void *ctx, int file);
    int (*rename)(void *ctx, const char *from, const char *to);
    int (*remove)(void *ctx, const char *path); /* a missing file is success */
    int (*sync_folder)(void *ctx, const char *path);
    /* With parents; an existing one is success; mode 0700. Also ERR_CANTCREATE: something else is in the way. */
    int (*make_folder)(void *ctx, const char *path);
    /* The whole file; ERR_LIMIT when it is larger than max. *data from mem_new_aligned. */
    int (*load)(void *ctx, const char *path, size_t max, uint8_t **data, size_t *len);
    /* Calls visit for each name in the folder (not "." and ".."), until it returns nonzero, which is returned. */
    int (*list)(void *ctx, const char *path, int (*visit)(void *arg, const char *name), void *arg);
    /* What this thread's latest ERR_IO or ERR_CANTCREATE was: "Permission denied". NULL: nobody can tell. */
    const char *(*why)(void *ctx);
    /* Exactly len bytes of the file, from `offset` on; ERR_DATA when it is shorter. */
    int (*read_at)(void *ctx, const char *path, uint64_t offset, void *data, size_t len);
    /* What may still be written to the disk that the folder lies on. */
    int (*room)(void *ctx, const char *path, uint64_t *bytes);
};
struct disk {
    const struct disk_ops *ops;
    void *ctx;
};

extern const struct disk disk_posix;

struct span {
    const void *data;
    size_t len;
};

int disk_save(const struct disk *disk, const char *path, const struct span *parts, size_t count, struct err *err);
int disk_load(const struct disk *disk, const char *path, size_t max, uint8_t **data, size_t *len, struct err *err);
int disk_read_at(const struct disk *disk, const char *path, uint64_t offset, void *data, size_t len, struct err *err);
int disk_remove(const struct disk *disk, const char *path, struct err *err);
int disk_make_folder(const struct disk *disk, const char *path, struct err *err);

/* Words for a result of an operation: what the system said where that says more than the code. */
const char *disk_why(const struct disk *disk, int rc);
/* Whether a later try may find room, a disk that is writable, or one that works again. */
static inline bool disk_may_recover(int rc)
{
    return rc == ERR_FULL || rc == ERR_READONLY || rc == ERR_IO;
}

#define DISK_PATH_MAX 4096
/* Makes folder/lock this process's (flock), until *lock is closed or the process ends, however it does.
 * ERR_UNAVAILABLE: "folder: another server uses this state folder", where `who` is "server"; ERR_CANTCREATE, ERR_IO,
 * ERR_LIMIT. *lock is -1 on failure. The real disk alone: a simulated one has one user. */
int disk_lock(const char *folder, const char *who, int *lock, struct err *err);

/* For who takes back what came to nothing: the bytes of the path's longest beginning that is there, before its folder
 * is made; and afterwards, removes the folder and those above it, up to that beginning, as far as they are empty. The
 * real disk alone. */
size_t disk_there(const char *path);
void disk_remove_made(const char *path, size_t there);

/* "folder/name" into out; ERR_LIMIT when it does not fit. */
int disk_join(char out[DISK_PATH_MAX], const char *folder, const char *name);

#endif
