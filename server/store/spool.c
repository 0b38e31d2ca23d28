#include "server/store/spool.h"

#include "server/store/internal.h"

#include <stdio.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "updates lie in the spool as they lie in memory");

static int path_of(const struct spool *spool, const char *name, char out[DISK_PATH_MAX], struct err *err)
{
    int n = snprintf(out, DISK_PATH_MAX, "%s/update-%s", spool->folder, name);
    return n < 0 || n >= DISK_PATH_MAX ? err_set(err, ERR_LIMIT, "%.80s...: the path is too long", spool->folder) : 0;
}

int spool_open(const struct disk *disk, const char *state, bool wanted, struct spool *spool, struct err *err)
{
    spool->disk = disk;
    if (disk_join(spool->folder, state, "spool")) {
        return err_set(err, ERR_LIMIT, "%.80s...: the path is too long", state);
    }
    int rc = wanted ? disk_make_folder(disk, spool->folder, err) : 0;
    return rc ? rc : spool_clear(spool, err);
}

int spool_clear(const struct spool *spool, struct err *err)
{
    struct listing files = {0};
    int rc = listing_read(spool->disk, spool->folder, &files, err);
    for (uint32_t i = 0; i < files.count; i++) {
        char path[DISK_PATH_MAX];
        int removed = disk_join(path, spool->folder, files.names[i]) ? 0 : disk_remove(spool->disk, path, err);
        rc = rc ? rc : removed;
    }
    listing_fini(&files);
    return rc;
}

int spool_put(const struct spool *spool, const char *name, const float *update, uint64_t count, struct err *err)
{
    const struct disk_ops *ops = spool->disk->ops;
    void *ctx = spool->disk->ctx;
    char path[DISK_PATH_MAX];
    int file, rc = path_of(spool, name, path, err);
    if (rc) {
        return rc;
    }
    const char *step = "create";
    rc = ops->create(ctx, path, &file);
    if (rc == 0) {
        step = "write";
        rc = ops->write(ctx, file, update, (size_t)count * sizeof *update);
        int closed = ops->close(ctx, file);
        rc = rc ? rc : closed;
    }
    if (rc) {
        (void)err_set(err, rc, "%s: %s: %s", path, step, disk_why(spool->disk, rc));
        (void)ops->remove(ctx, path);
    }
    return rc;
}

int spool_read(const struct spool *spool, const char *name, uint64_t at, size_t count, float *out, struct err *err)
{
    char path[DISK_PATH_MAX];
    int rc = path_of(spool, name, path, err);
    return rc ? rc : disk_read_at(spool->disk, path, at * sizeof *out, out, count * sizeof *out, err);
}

int spool_room(const struct spool *spool, uint64_t bytes, uint32_t *updates, uint64_t *free_bytes, struct err *err)
{
    int rc = spool->disk->ops->room(spool->disk->ctx, spool->folder, free_bytes);
    if (rc) {
        return err_set(err, rc, "%s: free space: %s", spool->folder, disk_why(spool->disk, rc));
    }
    uint64_t fit = *free_bytes / bytes;
    *updates = fit < UINT32_MAX ? (uint32_t)fit : UINT32_MAX;
    return 0;
}
