#include "tests/support/simdisk.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *memory)
{
    if (!memory) {
        (void)fprintf(stderr, "simdisk: out of memory\n");
        exit(1);
    }
    return memory;
}

static uint8_t *copy(const uint8_t *data, size_t len)
{
    uint8_t *out = must(mem_new(len, 1));
    if (len > 0) {
        memcpy(out, data, len);
    }
    return out;
}

/* ---- files ---- */

static struct simfile *file_new(void)
{
    struct simfile *file = must(mem_new(1, sizeof *file));
    file->references = 1;
    return file;
}

static void file_unref(struct simfile *file)
{
    if (file && --file->references == 0) {
        mem_free(file->data);
        mem_free(file->synced);
        mem_free(file);
    }
}

static void file_sync(struct simfile *file)
{
    mem_free(file->synced);
    file->synced = copy(file->data, file->len);
    file->synced_len = file->len;
}

/* After a crash: the synced content, or with luck a beginning of what was written since. */
static void file_crash(struct simfile *file, struct rng *rng)
{
    size_t len = file->synced_len;
    if (rng && file->len > len && rng_below(rng, 2) == 0) {
        len += rng_below(rng, (uint32_t)(file->len - len) + 1);
        mem_free(file->synced);
        file->synced = copy(file->data, len);
        file->synced_len = len;
    }
    mem_free(file->data);
    file->data = copy(file->synced, file->synced_len);
    file->len = file->synced_len;
}

/* ---- folders ---- */

static struct simentry *find(const struct simfolder *folder, const char *path)
{
    for (uint32_t i = 0; i < folder->count; i++) {
        if (strcmp(folder->entries[i].path, path) == 0) {
            return (struct simentry *)&folder->entries[i];
        }
    }
    return NULL;
}

static void forget(struct simfolder *folder, const char *path)
{
    struct simentry *entry = find(folder, path);
    if (entry) {
        file_unref(entry->file);
        *entry = folder->entries[--folder->count];
    }
}

static void put(struct simfolder *folder, const char *path, struct simfile *file)
{
    file->references++;
    forget(folder, path);
    if (folder->count == SIMDISK_FILES) {
        (void)fprintf(stderr, "simdisk: more than %d files\n", SIMDISK_FILES);
        exit(1);
    }
    struct simentry *entry = &folder->entries[folder->count++];
    size_t length = strlen(path);
    if (length >= sizeof entry->path) {
        (void)fprintf(stderr, "simdisk: %s is too long a name\n", path);
        exit(1);
    }
    memmove(entry->path, path, length + 1);
    entry->file = file;
}

static void empty(struct simfolder *folder)
{
    while (folder->count > 0) {
        file_unref(folder->entries[--folder->count].file);
    }
}

static bool lies_in(const char *path, const char *folder)
{
    size_t len = strlen(folder);
    return strncmp(path, folder, len) == 0 && path[len] == '/' && !strchr(path + len + 1, '/');
}

/* Makes the durable entry of one path what programs see. */
static void settle(struct simdisk *disk, const char *path)
{
    struct simentry *entry = find(&disk->seen, path);
    if (entry) {
        put(&disk->durable, path, entry->file);
    } else {
        forget(&disk->durable, path);
    }
}

/* ---- the operations ---- */

static int begin(struct simdisk *disk)
{
    uint64_t number = disk->operations++;
    return number >= disk->dies_after || number == disk->fails_at ? ERR_IO : 0;
}

static int sim_create(void *ctx, const char *path, int *file)
{
    struct simdisk *disk = ctx;
    int rc = begin(disk);
    *file = -1;
    for (int i = 0; rc == 0 && i < SIMDISK_OPEN && *file < 0; i++) {
        *file = disk->open[i] ? -1 : i;
    }
    if (rc || *file < 0 || disk->full) {
        return rc ? rc : disk->full ? ERR_FULL : ERR_IO;
    }
    disk->open[*file] = file_new();
    put(&disk->seen, path, disk->open[*file]);
    return 0;
}

static int sim_write(void *ctx, int file, const void *data, size_t len)
{
    struct simdisk *disk = ctx;
    int rc = begin(disk);
    if (rc || disk->full) {
        return rc ? rc : ERR_FULL;
    }
    struct simfile *open = disk->open[file];
    open->data = must(mem_resize(open->data, open->len + len, 1));
    if (len > 0) {
        memcpy(open->data + open->len, data, len);
    }
    open->len += len;
    return 0;
}

static int sim_sync(void *ctx, int file)
{
    struct simdisk *disk = ctx;
    int rc = begin(disk);
    if (rc == 0 && !disk->syncs_nothing) {
        file_sync(disk->open[file]);
    }
    return rc;
}

static int sim_close(void *ctx, int file)
{
    struct simdisk *disk = ctx;
    int rc = begin(disk);
    file_unref(disk->open[file]);
    disk->open[file] = NULL;
    return rc;
}

static int sim_rename(void *ctx, const char *from, const char *to)
{
    struct simdisk *disk = ctx;
    int rc = begin(disk);
    struct simentry *entry = find(&disk->seen, from);
    if (rc || !entry) {
        return rc ? rc : ERR_NOTFOUND;
    }
    struct simfile *file = entry->file;
    file->references++;
    forget(&disk->seen, from);
    put(&disk->seen, to, file);
    file_unref(file);
    return 0;
}

static int sim_remove(void *ctx, const char *path)
{
    struct simdisk *disk = ctx;
    int rc = begin(disk);
    if (rc == 0) {
        forget(&disk->seen, path);
    }
    return rc;
}

static int sim_sync_folder(void *ctx, const char *path)
{
    struct simdisk *disk = ctx;
    int rc = begin(disk);
    if (rc || disk->syncs_nothing || disk->syncs_no_folder) {
        return rc;
    }
    for (uint32_t i = 0; i < disk->seen.count; i++) {
        if (lies_in(disk->seen.entries[i].path, path)) {
            put(&disk->durable, disk->seen.entries[i].path, disk->seen.entries[i].file);
        }
    }
    for (uint32_t i = disk->durable.count; i > 0; i--) {
        const struct simentry *entry = &disk->durable.entries[i - 1];
        if (lies_in(entry->path, path) && !find(&disk->seen, entry->path)) {
            char gone[SIMDISK_PATH];
            memcpy(gone, entry->path, sizeof gone);
            forget(&disk->durable, gone);
        }
    }
    return 0;
}

static int sim_make_folder(void *ctx, const char *path)
{
    (void)path; /* Folders are there as soon as a file is. */
    return begin(ctx);
}

static int sim_load(void *ctx, const char *path, size_t max, uint8_t **data, size_t *len)
{
    struct simdisk *disk = ctx;
    int rc = begin(disk);
    *data = NULL;
    *len = 0;
    struct simentry *entry = find(&disk->seen, path);
    if (rc || !entry || entry->file->len > max) {
        return rc ? rc : entry ? ERR_LIMIT : ERR_NOTFOUND;
    }
    *data = must(mem_new_aligned(entry->file->len, 1));
    if (entry->file->len > 0) {
        memcpy(*data, entry->file->data, entry->file->len);
    }
    *len = entry->file->len;
    return 0;
}

static int sim_list(void *ctx, const char *path, int (*visit)(void *arg, const char *name), void *arg)
{
    struct simdisk *disk = ctx;
    int rc = begin(disk);
    for (uint32_t i = 0; rc == 0 && i < disk->seen.count; i++) {
        if (lies_in(disk->seen.entries[i].path, path)) {
            rc = visit(arg, disk->seen.entries[i].path + strlen(path) + 1);
        }
    }
    return rc;
}

static int sim_read_at(void *ctx, const char *path, uint64_t offset, void *data, size_t len)
{
    struct simdisk *disk = ctx;
    int rc = begin(disk);
    struct simentry *entry = find(&disk->seen, path);
    if (rc || !entry || entry->file->len < offset || entry->file->len - offset < len) {
        return rc ? rc : entry ? ERR_DATA : ERR_NOTFOUND;
    }
    memcpy(data, entry->file->data + offset, len);
    return 0;
}

static int sim_room(void *ctx, const char *path, uint64_t *bytes)
{
    struct simdisk *disk = ctx;
    (void)path;
    *bytes = disk->full ? 0 : UINT64_MAX;
    return begin(disk);
}

static const struct disk_ops operations = {
    .create = sim_create,
    .write = sim_write,
    .sync = sim_sync,
    .close = sim_close,
    .rename = sim_rename,
    .remove = sim_remove,
    .sync_folder = sim_sync_folder,
    .make_folder = sim_make_folder,
    .load = sim_load,
    .list = sim_list,
    .read_at = sim_read_at,
    .room = sim_room,
};

void simdisk_init(struct simdisk *disk)
{
    *disk =
        (struct simdisk){.disk = {.ops = &operations, .ctx = disk}, .dies_after = UINT64_MAX, .fails_at = UINT64_MAX};
}

static void close_all(struct simdisk *disk)
{
    for (int i = 0; i < SIMDISK_OPEN; i++) {
        file_unref(disk->open[i]);
        disk->open[i] = NULL;
    }
}

void simdisk_fini(struct simdisk *disk)
{
    close_all(disk);
    empty(&disk->seen);
    empty(&disk->durable);
}

void simdisk_crash(struct simdisk *disk, struct rng *rng)
{
    close_all(disk);
    if (rng) { /* Changes of entries that reached the disk by themselves. */
        for (uint32_t i = 0; i < disk->seen.count; i++) {
            if (rng_below(rng, 2) == 0) {
                settle(disk, disk->seen.entries[i].path);
            }
        }
        for (uint32_t i = disk->durable.count; i > 0; i--) {
            char path[SIMDISK_PATH];
            memcpy(path, disk->durable.entries[i - 1].path, sizeof path);
            if (rng_below(rng, 2) == 0) {
                settle(disk, path);
            }
        }
    }
    empty(&disk->seen);
    for (uint32_t i = 0; i < disk->durable.count; i++) {
        file_crash(disk->durable.entries[i].file, rng);
        put(&disk->seen, disk->durable.entries[i].path, disk->durable.entries[i].file);
    }
    disk->dies_after = disk->fails_at = UINT64_MAX;
}

void simdisk_image(const struct simdisk *disk, struct simdisk *out)
{
    simdisk_init(out);
    for (uint32_t i = 0; i < disk->durable.count; i++) {
        const struct simentry *entry = &disk->durable.entries[i];
        struct simfile *file = file_new();
        file->data = copy(entry->file->synced, entry->file->synced_len);
        file->synced = copy(entry->file->synced, entry->file->synced_len);
        file->len = file->synced_len = entry->file->synced_len;
        put(&out->seen, entry->path, file);
        put(&out->durable, entry->path, file);
        file_unref(file);
    }
}
