/* The cache file: decoded pixels of one folder at one size, mapped into memory. The byte table stands in cache.c. */
#ifndef STARLING_DATA_CACHE_H
#define STARLING_DATA_CACHE_H

#include "common/base/err.h"
#include "common/base/hash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a cache must match to be used. */
struct cache_key {
    uint32_t side, files;
    struct hash128 list; /* scan_hash */
};

struct cache {
    uint8_t *map;
    size_t map_bytes;
    const uint8_t *readable; /* [files] 1, or 0 for a broken file */
    const uint8_t *pixels;   /* [files, side, side, 3] */
};

/* ERR_NOTFOUND when there is none; ERR_DATA and which check failed when it is damaged or of other images. */
int cache_open(const char *path, const struct cache_key *key, struct cache *out, struct err *err);
void cache_close(struct cache *cache);

struct cache_writer {
    char *path, *temporary;
    int file;
    bool owned; /* `temporary` is ours: locked, and not renamed yet */
    struct cache_key key;
};

/* Begins a new cache beside the old one. ERR_TEMPFAIL when another process is at it; ERR_IO, ERR_FULL, ERR_NOMEM. */
int cache_writer_open(const char *path, const struct cache_key *key, struct cache_writer *out, struct err *err);
/* From any thread, each file once: [side, side, 3]. ERR_IO, ERR_FULL. */
int cache_writer_put(const struct cache_writer *writer, uint32_t file, const uint8_t *pixels);
/* Header and table, sync, rename over the old cache. */
int cache_writer_commit(struct cache_writer *writer, const uint8_t *readable, struct err *err);
/* Without a commit before it: the old cache stays as it was, the temporary file is removed. */
void cache_writer_close(struct cache_writer *writer);

#endif
