/* A folder as an array of pixels: scan (scan.c), then the cache if it is valid (cache.c), else decode everything on
 * worker threads, into a new cache or, where none can be written, into memory.
 *
 * Workers take the next file from a counter and write to that file's own place, so the result does not depend on how
 * many there are. A file that cannot be read or decoded keeps its place empty and is left out of the array. When a file
 * could not be *read* (permissions, a bad disk), its state may change without its time of change doing so: the cache is
 * then written under a hash that no folder has, and the next start decodes again. */
#include "client/data/dataset.h"

#include "client/data/cache.h"
#include "client/data/image.h"
#include "client/data/scan.h"
#include "common/base/disk.h"
#include "common/base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 64

struct dataset {
    uint32_t side, count, skipped;
    struct scan scan;
    uint32_t *files;    /* [count] places in scan and pixels */
    const char **paths; /* [count] views into scan */
    struct classes classes;
    struct cache cache;
    uint8_t *memory;       /* when there is no cache */
    const uint8_t *pixels; /* of either */
};

struct decode {
    const struct dataset_options *options;
    const struct scan *scan;
    struct cache_writer *writer; /* NULL: into memory */
    uint8_t *memory;
    uint8_t *readable;
    _Atomic uint32_t next;
    _Atomic bool stop, unreadable;
    pthread_mutex_t lock; /* of what follows */
    struct err first;
};

static size_t slot_bytes(const struct dataset_options *options)
{
    return (size_t)options->side * options->side * 3;
}

static void stop(struct decode *decode, int rc, const char *text)
{
    (void)pthread_mutex_lock(&decode->lock);
    if (!decode->first.code) {
        (void)err_set(&decode->first, rc, "%s", text);
    }
    (void)pthread_mutex_unlock(&decode->lock);
    atomic_store(&decode->stop, true);
}

int dataset_decode(const char *folder, const char *path, uint32_t side, uint8_t *out, bool *unread, struct err *err)
{
    char full[DISK_PATH_MAX];
    uint8_t *data = NULL;
    size_t len = 0;
    struct image image = {0};
    *unread = false;
    if (disk_join(full, folder, path)) {
        return err_set(err, ERR_DATA, "the path is too long");
    }
    int rc = disk_load(&disk_posix, full, IMAGE_FILE_MAX, &data, &len, err);
    if (rc) {
        *unread = rc != ERR_LIMIT && rc != ERR_NOMEM;
        return rc;
    }
    rc = image_decode(data, len, side, &image, err);
    if (rc == 0) {
        rc = image_square(&image, side, out);
        image_free(&image);
        rc = rc ? err_set(err, rc, "%s", err_meaning(rc)) : 0;
    }
    mem_free(data);
    return rc;
}

static void log_skipped(const struct log *log, const char *path, const char *reason)
{
    char name[1024], why[512];
    log_event(log, LOG_LEVEL_WARN, "image_skipped", "path=\"%s\" reason=\"%s\"", log_quotable(path, name, sizeof name),
              log_quotable(reason, why, sizeof why));
}

static void *decode_work(void *argument)
{
    struct decode *decode = argument;
    const struct dataset_options *options = decode->options;
    uint8_t *buffer = decode->writer ? mem_new(slot_bytes(options), 1) : NULL;
    if (decode->writer && !buffer) {
        stop(decode, ERR_NOMEM, "no memory to decode images");
    }
    while (!atomic_load(&decode->stop)) {
        uint32_t i = atomic_fetch_add(&decode->next, 1);
        if (i >= decode->scan->count) {
            break;
        }
        if (options->cancel && __atomic_load_n(options->cancel, __ATOMIC_RELAXED)) {
            stop(decode, ERR_CANCELLED, "cancelled while images were decoded");
            break;
        }
        struct err err = {0};
        const char *path = decode->scan->files[i].path;
        uint8_t *slot = buffer ? buffer : decode->memory + slot_bytes(options) * i;
        bool unread;
        int rc = dataset_decode(options->folder, path, options->side, slot, &unread, &err);
        if (unread) {
            atomic_store(&decode->unreadable, true);
        }
        if (rc == ERR_NOMEM) {
            stop(decode, rc, err.text);
        } else if (rc) {
            log_skipped(options->log, path, err.text);
        } else if (decode->writer && (rc = cache_writer_put(decode->writer, i, slot)) != 0) {
            stop(decode, rc, err_meaning(rc));
        }
        decode->readable[i] = rc == 0;
    }
    mem_free(buffer);
    return NULL;
}

/* Decodes all files. ERR_DATA when none is readable, ERR_CANCELLED, ERR_NOMEM, and the writer's ERR_IO and ERR_FULL. */
static int decode_all(struct decode *decode, struct err *err)
{
    uint32_t wanted = decode->options->threads < THREADS_MAX ? decode->options->threads : THREADS_MAX;
    pthread_t threads[THREADS_MAX];
    uint32_t started = 0;
    if (pthread_mutex_init(&decode->lock, NULL)) {
        return err_set(err, ERR_NOMEM, "no memory for a lock");
    }
    /* The calling thread works too; a machine that refuses more threads only makes this slower. */
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, decode_work, decode) == 0) {
        started++;
    }
    (void)decode_work(decode);
    for (uint32_t i = 0; i < started; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    (void)pthread_mutex_destroy(&decode->lock);
    if (decode->first.code) {
        return err_set(err, decode->first.code, "image folder %s: %s", decode->options->folder, decode->first.text);
    }
    uint32_t good = 0;
    for (uint32_t i = 0; i < decode->scan->count; i++) {
        good += decode->readable[i];
    }
    if (good == 0) {
        return err_set(err, ERR_DATA, "image folder %s: none of its %u files is a readable JPEG or PNG image",
                       decode->options->folder, decode->scan->count);
    }
    return 0;
}

/* The array: places and paths of what is readable, and its classes. */
static int index_readable(struct dataset *dataset, const uint8_t *readable, struct err *err)
{
    uint32_t n = dataset->scan.count;
    dataset->files = mem_new(n, sizeof *dataset->files);
    dataset->paths = mem_new(n, sizeof *dataset->paths);
    if (!dataset->files || !dataset->paths) {
        return err_set(err, ERR_NOMEM, "no memory for %u images", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (readable[i]) {
            dataset->files[dataset->count] = i;
            dataset->paths[dataset->count] = dataset->scan.files[i].path;
            dataset->count++;
        }
    }
    dataset->skipped = n - dataset->count;
    if (classes_of(dataset->paths, dataset->count, &dataset->classes)) {
        return err_set(err, ERR_NOMEM, "no memory for classes");
    }
    return 0;
}

static int build_in_memory(struct dataset *dataset, const struct dataset_options *options, uint8_t *readable,
                           struct err *err)
{
    dataset->memory = mem_new(dataset->scan.count, slot_bytes(options));
    if (!dataset->memory) {
        return err_set(err, ERR_NOMEM, "image folder %s: no memory for %u images of %u pixels a side", options->folder,
                       dataset->scan.count, options->side);
    }
    struct decode decode = {
        .options = options, .scan = &dataset->scan, .memory = dataset->memory, .readable = readable};
    int rc = decode_all(&decode, err);
    if (rc == 0) {
        dataset->pixels = dataset->memory;
        rc = index_readable(dataset, readable, err);
    }
    return rc;
}

static int build_cache(struct dataset *dataset, const struct dataset_options *options, const char *path,
                       struct cache_key *key, uint8_t *readable, struct err *err)
{
    struct cache_writer writer;
    int rc = cache_writer_open(path, key, &writer, err);
    if (rc) {
        return rc;
    }
    struct decode decode = {.options = options, .scan = &dataset->scan, .writer = &writer, .readable = readable};
    rc = decode_all(&decode, err);
    if (rc == 0 && atomic_load(&decode.unreadable)) {
        memset(&key->list, 0, sizeof key->list);
        writer.key = *key;
    }
    rc = rc ? rc : cache_writer_commit(&writer, readable, err);
    cache_writer_close(&writer);
    rc = rc ? rc : cache_open(path, key, &dataset->cache, err);
    if (rc == 0) {
        dataset->pixels = dataset->cache.pixels;
        rc = index_readable(dataset, readable, err);
    }
    return rc;
}

/* One cache for each folder, named after its true path, so that folders can share a place for caches. */
static int cache_path(const struct dataset_options *options, char out[DISK_PATH_MAX], struct err *err)
{
    char name[64], hex[HASH_HEX];
    char *real = realpath(options->folder, NULL);
    struct hash128 hash = real ? hash_of(real, strlen(real)) : hash_of(options->folder, strlen(options->folder));
    free(real);
    (void)snprintf(name, sizeof name, "images-%.16s.cache", hash_hex(&hash, hex));
    int rc = disk_make_folder(&disk_posix, options->cache, err);
    if (rc == 0 && disk_join(out, options->cache, name)) {
        rc = err_set(err, ERR_IO, "%s: the path is too long", options->cache);
    }
    return rc;
}

static int use_cache(struct dataset *dataset, const struct dataset_options *options, struct cache_key *key,
                     uint8_t *readable, struct err *err)
{
    char path[DISK_PATH_MAX];
    struct err why;
    int rc = cache_path(options, path, err);
    if (rc) {
        return rc;
    }
    rc = cache_open(path, key, &dataset->cache, &why);
    if (rc == 0) {
        dataset->pixels = dataset->cache.pixels;
        for (uint32_t i = 0; i < key->files; i++) {
            if (!dataset->cache.readable[i]) {
                log_skipped(options->log, dataset->scan.files[i].path, "broken when it was read first");
            }
        }
        return index_readable(dataset, dataset->cache.readable, err);
    }
    if (rc != ERR_NOTFOUND) {
        log_event(options->log, LOG_LEVEL_INFO, "cache_rebuilt", "path=\"%s\" reason=\"%s\"", path, why.text);
    }
    return build_cache(dataset, options, path, key, readable, err);
}

int dataset_open(const struct dataset_options *options, struct dataset **out, struct err *err)
{
    *out = NULL;
    uint8_t *readable = NULL;
    struct dataset *dataset = mem_new(1, sizeof *dataset);
    if (!dataset) {
        return err_set(err, ERR_NOMEM, "no memory for a set of images");
    }
    dataset->side = options->side;
    int rc = scan_folder(options->folder, options->cancel, &dataset->scan, err);
    if (rc) {
        goto done;
    }
    struct cache_key key = {.side = options->side, .files = dataset->scan.count, .list = scan_hash(&dataset->scan)};
    readable = mem_new(dataset->scan.count, 1);
    if (!readable || hash_is_zero(&key.list)) {
        rc = err_set(err, ERR_NOMEM, "no memory for %u images", dataset->scan.count);
        goto done;
    }
    struct err why = {0};
    rc = options->cache ? use_cache(dataset, options, &key, readable, &why) : ERR_UNAVAILABLE;
    if (options->cache && rc && rc != ERR_DATA && rc != ERR_NOMEM && rc != ERR_CANCELLED) {
        log_event(options->log, LOG_LEVEL_WARN, "cache_unusable", "folder=\"%s\" reason=\"%s\" images=\"in memory\"",
                  options->cache, why.text);
        rc = ERR_UNAVAILABLE;
    }
    if (rc == ERR_UNAVAILABLE) {
        rc = build_in_memory(dataset, options, readable, err);
    } else if (rc) {
        (void)err_set(err, rc, "%s", why.text);
    }
done:
    mem_free(readable);
    if (rc) {
        dataset_close(dataset);
        return rc;
    }
    log_event(options->log, LOG_LEVEL_INFO, "images_ready", "folder=\"%s\" images=%u skipped=%u side=%u classes=%u",
              options->folder, dataset->count, dataset->skipped, dataset->side, dataset->classes.count);
    *out = dataset;
    return 0;
}

void dataset_close(struct dataset *dataset)
{
    if (!dataset) {
        return;
    }
    classes_fini(&dataset->classes);
    cache_close(&dataset->cache);
    scan_fini(&dataset->scan);
    mem_free(dataset->memory);
    mem_free(dataset->files);
    mem_free(dataset->paths);
    mem_free(dataset);
}

uint32_t dataset_count(const struct dataset *dataset)
{
    return dataset->count;
}

uint32_t dataset_skipped(const struct dataset *dataset)
{
    return dataset->skipped;
}

uint32_t dataset_side(const struct dataset *dataset)
{
    return dataset->side;
}

const uint8_t *dataset_pixels(const struct dataset *dataset, uint32_t i)
{
    return dataset->pixels + (size_t)dataset->side * dataset->side * 3 * dataset->files[i];
}

const char *dataset_path(const struct dataset *dataset, uint32_t i)
{
    return dataset->paths[i];
}

uint32_t dataset_classes(const struct dataset *dataset)
{
    return dataset->classes.count;
}

const char *dataset_class_name(const struct dataset *dataset, uint32_t class)
{
    return dataset->classes.names[class];
}

uint32_t dataset_label(const struct dataset *dataset, uint32_t i)
{
    return dataset->classes.labels[i];
}
