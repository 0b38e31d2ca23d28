/* A new run in an old folder: what is there moves into old-<run>/, as it is.
 *
 * The files that a start looks for go last, in the order in which they matter least: a crash in between leaves a folder
 * that either still refuses to start without --new-run or is empty for the store, never a mixture of two runs. */
#include "server/store/internal.h"

#include "common/base/mem.h"
#include "server/store/checkpoint.h"

#include <stdio.h>
#include <string.h>

static int move(const struct store *store, const char *from_folder, const char *to_folder, const char *name,
                struct err *err)
{
    char from[DISK_PATH_MAX], to[DISK_PATH_MAX];
    int rc = disk_join(from, from_folder, name);
    rc = rc ? rc : disk_join(to, to_folder, name);
    rc = rc ? rc : store->disk->ops->rename(store->disk->ctx, from, to);
    return rc == 0 || rc == ERR_NOTFOUND
               ? 0
               : err_set(err, rc, "%s: move to %s: %s", from, to_folder, disk_why(store->disk, rc));
}

/* The run id of the newest readable checkpoint names the folder. False: there is none. */
static bool name_of_run(const struct store *store, const uint32_t *rounds, uint32_t count, char out[LISTING_NAME_MAX])
{
    for (uint32_t i = count; i > 0; i--) {
        struct checkpoint checkpoint;
        struct checkpoint_model model;
        char path[DISK_PATH_MAX], hex[HASH_HEX];
        uint8_t *data = NULL;
        size_t len = 0;
        if (checkpoint_path(store, rounds[i - 1], path) == 0 &&
            disk_load(store->disk, path, SIZE_MAX, &data, &len, NULL) == 0 &&
            checkpoint_decode(data, len, &checkpoint, &model, NULL) == 0) {
            (void)snprintf(out, LISTING_NAME_MAX, "old-%s", hash_hex(&checkpoint.run, hex));
            checkpoint_fini(&checkpoint);
            mem_free(data);
            return true;
        }
        mem_free(data);
    }
    return false;
}

/* "old-damaged", or the first of old-damaged-2, ... that holds no models yet: nothing is moved over anything. */
static int name_of_damaged(const struct store *store, char name[LISTING_NAME_MAX], struct err *err)
{
    uint32_t taken = 1;
    int rc = 0;
    for (uint32_t n = 1; rc == 0 && taken > 0; n++) {
        char folder[DISK_PATH_MAX], models[DISK_PATH_MAX];
        struct listing listing = {0};
        (void)snprintf(name, LISTING_NAME_MAX, n == 1 ? "old-damaged" : "old-damaged-%u", n);
        if (disk_join(folder, store->folder, name) || disk_join(models, folder, "models")) {
            return err_set(err, ERR_LIMIT, "%s: the path is too long", store->folder);
        }
        rc = listing_read(store->disk, models, &listing, err);
        taken = listing.count;
        listing_fini(&listing);
    }
    return rc;
}

static int move_models(const struct store *store, const char *to, struct err *err)
{
    struct listing listing;
    uint32_t round;
    int rc = listing_read(store->disk, store->models, &listing, err);
    for (uint32_t i = 0; rc == 0 && i < listing.count; i++) {
        if (model_round(listing.names[i], &round)) {
            rc = move(store, store->models, to, listing.names[i], err);
        }
    }
    listing_fini(&listing);
    return rc;
}

static int move_history(struct store *store, const char *to, struct err *err)
{
    int rc = 0;
    history_close(store);
    for (size_t i = 0; rc == 0 && store_is_real(store) && i < HISTORY_FILES; i++) {
        rc = move(store, store->folder, to, history_files[i], err);
    }
    return rc;
}

int store_move_aside(struct store *store, struct err *err)
{
    char name[LISTING_NAME_MAX], to[DISK_PATH_MAX], to_models[DISK_PATH_MAX];
    uint32_t *rounds, count, models;
    int rc = checkpoint_rounds(store, &rounds, &count, err);
    rc = rc ? rc : newest_model(store, &models, err);
    if (rc || (count == 0 && models == 0)) {
        mem_free(rounds);
        return rc;
    }
    if (!name_of_run(store, rounds, count, name)) {
        rc = name_of_damaged(store, name, err);
    }
    if (rc == 0 && (disk_join(to, store->folder, name) || disk_join(to_models, to, "models"))) {
        rc = err_set(err, ERR_LIMIT, "%s: the path is too long", store->folder);
    }
    rc = rc ? rc : disk_make_folder(store->disk, to_models, err);
    rc = rc ? rc : move_history(store, to, err);
    rc = rc ? rc : move_models(store, to_models, err);
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        checkpoint_name(rounds[i], name);
        rc = move(store, store->folder, to, name, err);
    }
    if (rc == 0) {
        log_event(store->log, LOG_LEVEL_WARN, "run_moved_aside",
                  "folder=\"%s\" checkpoints=%u clients=\"start each of them once with --new-run\"", to, count);
    }
    mem_free(rounds);
    return rc;
}
