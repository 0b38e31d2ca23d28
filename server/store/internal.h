/* The store's inside. For the files of this room alone. */
#ifndef STARLING_STORE_INTERNAL_H
#define STARLING_STORE_INTERNAL_H

#include "server/store/store.h"

#include <sqlite3.h>

struct store {
    const struct disk *disk;
    const struct log *log;
    char folder[DISK_PATH_MAX];
    char models[DISK_PATH_MAX]; /* folder/models */
    int lock;                   /* -1: none, the disk is a simulated one */
    uint32_t keep_every;
    sqlite3 *history; /* NULL until it is needed, and after it failed */
};

/* SQLite goes past struct disk; beside a simulated disk the history lives in memory. */
static inline bool store_is_real(const struct store *store)
{
    return store->disk->ops == disk_posix.ops;
}

void history_close(struct store *store);
/* The database and what SQLite keeps beside it; the database comes last. */
#define HISTORY_FILES 3
extern const char *const history_files[HISTORY_FILES];

/* The names in a folder that are short enough to be ours. */
#define LISTING_NAME_MAX 80
struct listing {
    char (*names)[LISTING_NAME_MAX];
    uint32_t count, capacity;
};
/* An absent folder is an empty one. ERR_NOMEM, ERR_IO. */
int listing_read(const struct disk *disk, const char *folder, struct listing *out, struct err *err);
void listing_fini(struct listing *listing);
void checkpoint_name(uint32_t round, char out[LISTING_NAME_MAX]);
/* Whether a name is exactly the one of a checkpoint or model of some round. */
bool checkpoint_round(const char *name, uint32_t *round);
bool model_round(const char *name, uint32_t *round);
/* 0: none but perhaps that of round 0, which a run leaves that ended before its first checkpoint. */
int newest_model(const struct store *store, uint32_t *newest, struct err *err);
/* The rounds that have a checkpoint, ascending. *rounds from mem_new. */
int checkpoint_rounds(const struct store *store, uint32_t **rounds, uint32_t *count, struct err *err);
int checkpoint_path(const struct store *store, uint32_t round, char out[DISK_PATH_MAX]);

/* Moves the run that lies in the folder into old-<run>/ (moveaside.c). */
int store_move_aside(struct store *store, struct err *err);

#endif
