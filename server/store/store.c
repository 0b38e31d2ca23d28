/* The state folder: open it, load the newest whole state, save the next one.
 *
 * Why the order of store_save is what it is: the checkpoint names the content hash of its model, so it may exist only
 * after the model does, and it is the single file whose rename makes the new state true. A crash before that rename
 * leaves at worst a model that no checkpoint names; a crash after it leaves at worst files that the next save removes.
 */
#include "server/store/store.h"

#include "common/base/mem.h"
#include "common/config/plan.h"
#include "common/vec/modelfile.h"
#include "server/store/checkpoint.h"
#include "server/store/internal.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CHECKPOINT_MAX ((size_t)32 << 30) /* an optimiser's state has up to two models */

int store_open(const struct disk *disk, const char *folder, uint32_t keep_every, const struct log *log,
               struct store **out, struct err *err)
{
    *out = NULL;
    struct store *store = mem_new(1, sizeof *store);
    if (!store) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    store->disk = disk;
    store->log = log;
    store->lock = -1;
    store->keep_every = keep_every;
    int rc = 0;
    if (snprintf(store->folder, sizeof store->folder, "%s", folder) >= (int)sizeof store->folder ||
        disk_join(store->models, folder, "models")) {
        rc = err_set(err, ERR_LIMIT, "%.80s...: the path is too long", folder);
    }
    rc = rc ? rc : disk_make_folder(disk, store->folder, err);
    if (rc == 0 && store_is_real(store)) {
        rc = disk_lock(store->folder, "server", &store->lock, err);
    }
    rc = rc ? rc : disk_make_folder(disk, store->models, err);
    if (rc == 0) {
        rc = disk->ops->sync_folder(disk->ctx, store->folder);
        if (rc) {
            (void)err_set(err, rc, "%s: sync folder: %s", folder, disk_why(disk, rc));
        }
    }
    if (rc) {
        store_close(store);
        return rc;
    }
    *out = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store) {
        return;
    }
    history_close(store);
    if (store->lock >= 0) {
        (void)close(store->lock);
    }
    mem_free(store);
}

/* Whether a model file is the one that a checkpoint names. Hands out the floats. */
static int load_model(const struct store *store, const struct checkpoint *checkpoint,
                      const struct checkpoint_model *model, float **params, struct err *err)
{
    char path[DISK_PATH_MAX];
    struct model_info info;
    struct layout *layout;
    int rc = store_model_path(store, checkpoint->round, path);
    rc = rc ? err_set(err, rc, "the path is too long") : modelfile_load(store->disk, path, &info, &layout, params, err);
    if (rc) {
        return rc;
    }
    struct hash128 hash = hash_of(*params, (size_t)layout->total * sizeof(float));
    if (info.round != checkpoint->round || !hash_equal(&info.run, &checkpoint->run) ||
        !hash_equal(&layout->fingerprint, &model->layout) || !hash_equal(&hash, &model->hash)) {
        rc = err_set(err, ERR_DATA, "%s: not the model that its checkpoint names", path);
        mem_free(*params);
        *params = NULL;
    }
    layout_free(layout);
    return rc;
}

static int load_round(const struct store *store, uint32_t round, struct checkpoint *out, struct checkpoint_model *model,
                      struct err *err)
{
    char path[DISK_PATH_MAX];
    uint8_t *data = NULL;
    size_t len = 0;
    *out = (struct checkpoint){0};
    int rc = checkpoint_path(store, round, path);
    rc = rc ? err_set(err, rc, "the path is too long") : disk_load(store->disk, path, CHECKPOINT_MAX, &data, &len, err);
    if (rc) {
        return rc;
    }
    rc = checkpoint_decode(data, len, out, model, err);
    mem_free(data);
    if (rc == 0 && out->round != round) {
        rc = err_set(err, ERR_DATA, "it is the checkpoint of round %u", out->round);
    }
    if (rc) {
        (void)err_prefix(err, "%s", path);
    } else {
        rc = load_model(store, out, model, &out->params, err);
    }
    if (rc) {
        checkpoint_fini(out);
    }
    return rc;
}

/* The newest state that is whole. ERR_DATA when none of `count` is. */
static int load_newest(const struct store *store, const uint32_t *rounds, uint32_t count, struct checkpoint *out,
                       struct checkpoint_model *model, struct err *err)
{
    struct err why, newest = {0};
    for (uint32_t i = count; i > 0; i--) {
        int rc = load_round(store, rounds[i - 1], out, model, &why);
        if (rc == 0) {
            return 0;
        }
        if (rc == ERR_NOMEM) { /* not the file's fault: an older state must not win for lack of memory */
            return err_set(err, rc, "%s", why.text);
        }
        log_event(store->log, LOG_LEVEL_ERROR, "checkpoint_skipped", "round=%u reason=\"%s\"", rounds[i - 1], why.text);
        newest = i == count ? why : newest;
    }
    return err_set(err, ERR_DATA, "%s: no checkpoint is whole; the newest of them: %s", store->folder, newest.text);
}

/* Same plan, same run: anything else would train something that the checkpoint is not a state of. */
static int check_plan(const struct store *store, const struct checkpoint *from, const uint8_t *plan, uint32_t plan_len,
                      struct err *err)
{
    if (from->plan_len == plan_len && memcmp(from->plan, plan, plan_len) == 0) {
        return 0;
    }
    struct plan was, is;
    struct buf changes;
    buf_init(&changes, sizeof err->text);
    int rc = plan_decode(from->plan, from->plan_len, &was, NULL);
    rc = rc ? rc : plan_decode(plan, plan_len, &is, NULL);
    if (rc == 0) {
        (void)plan_difference(&was, &is, &changes); /* cut short at worst */
    }
    const char *text = changes.len ? (const char *)changes.data : "it was written by another version of the program";
    rc = err_set(
        err, ERR_CONFIG,
        "%s holds round %u of a run with another plan: %.*s; restore the plan, or begin a new run with --new-run",
        store->folder, from->round, changes.len ? (int)changes.len : (int)strlen(text), text);
    buf_fini(&changes);
    return rc;
}

/* A new run would replace what an earlier one made. */
static int refuse_orphans(const struct store *store, struct err *err)
{
    uint32_t newest;
    int rc = newest_model(store, &newest, err);
    return rc || newest == 0
               ? rc
               : err_set(
                     err, ERR_DATA,
                     "%s: models up to round %u but no checkpoint; bring the checkpoint back, or use --new-run, which "
                     "moves them aside",
                     store->folder, newest);
}

int store_load(struct store *store, const struct layout *layout, const uint8_t *plan, uint32_t plan_len, bool new_run,
               struct checkpoint *out, bool *found, struct err *err)
{
    struct checkpoint_model model;
    uint32_t *rounds, count;
    *out = (struct checkpoint){0};
    *found = false;
    if (new_run) {
        return store_move_aside(store, err);
    }
    int rc = checkpoint_rounds(store, &rounds, &count, err);
    if (rc == 0 && count > 0) {
        rc = load_newest(store, rounds, count, out, &model, err);
        rc = rc ? rc : check_plan(store, out, plan, plan_len, err);
        if (rc == 0 && !hash_equal(&model.layout, &layout->fingerprint)) {
            rc = err_set(err, ERR_MISMATCH, "%s: this program lays out the plan's model differently", store->folder);
        }
        *found = rc == 0;
    } else if (rc == 0) {
        rc = refuse_orphans(store, err);
    }
    mem_free(rounds);
    if (rc) {
        checkpoint_fini(out);
    }
    return rc;
}

static void remove_file(const struct store *store, const char *folder, const char *name)
{
    struct err err;
    char path[DISK_PATH_MAX];
    if (disk_join(path, folder, name) == 0 && disk_remove(store->disk, path, &err)) {
        log_event(store->log, LOG_LEVEL_WARN, "cleanup_failed", "reason=\"%s\"", err.text);
    }
}

static bool is_temporary(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && strcmp(dot, ".tmp") == 0 &&
           (strncmp(name, "checkpoint-", 11) == 0 || strncmp(name, "round-", 6) == 0);
}

/* What the state of `round` and its predecessor do not need. A failure costs space, not the state: it is only logged.
 */
static void clean_up(const struct store *store, uint32_t round)
{
    struct listing files = {0}, models = {0};
    struct err err = {0};
    uint32_t at, predecessor = round;
    if (listing_read(store->disk, store->folder, &files, &err) ||
        listing_read(store->disk, store->models, &models, &err)) {
        log_event(store->log, LOG_LEVEL_WARN, "cleanup_failed", "reason=\"%s\"", err.text);
    }
    for (uint32_t i = 0; i < files.count; i++) {
        if (checkpoint_round(files.names[i], &at) && at < round && (predecessor == round || at > predecessor)) {
            predecessor = at;
        }
    }
    for (uint32_t i = 0; i < files.count; i++) {
        bool old = checkpoint_round(files.names[i], &at) && at != round && at != predecessor;
        if (old || is_temporary(files.names[i])) {
            remove_file(store, store->folder, files.names[i]);
        }
    }
    for (uint32_t i = 0; i < models.count; i++) {
        bool old = model_round(models.names[i], &at) && at != round && at != predecessor && at != 0 &&
                   (store->keep_every == 0 || at % store->keep_every != 0 || at > round);
        if (old || is_temporary(models.names[i])) {
            remove_file(store, store->models, models.names[i]);
        }
    }
    listing_fini(&files);
    listing_fini(&models);
}

static int save_checkpoint(const struct store *store, const struct layout *layout, const struct checkpoint *checkpoint,
                           struct err *err)
{
    const struct checkpoint_model model = {
        .layout = layout->fingerprint,
        .hash = hash_of(checkpoint->params, (size_t)layout->total * sizeof(float)),
    };
    char path[DISK_PATH_MAX];
    struct hash128 tail;
    struct buf head;
    buf_init(&head, SIZE_MAX);
    int rc = checkpoint_path(store, checkpoint->round, path);
    rc = rc ? rc : checkpoint_encode(checkpoint, &model, &head, &tail);
    if (rc) {
        (void)err_set(err, rc, "%s: checkpoint of round %u: %s", store->folder, checkpoint->round, err_meaning(rc));
    } else {
        const struct span parts[] = {{head.data, head.len},
                                     {checkpoint->bank, (size_t)checkpoint->bank_len},
                                     {checkpoint->optimiser, (size_t)checkpoint->optimiser_len},
                                     {tail.bytes, sizeof tail.bytes}};
        rc = disk_save(store->disk, path, parts, sizeof parts / sizeof parts[0], err);
    }
    buf_fini(&head);
    return rc;
}

int store_save(struct store *store, const struct layout *layout, const struct checkpoint *checkpoint, struct err *err)
{
    const struct model_info info = {
        .run = checkpoint->run,
        .plan_hash = plan_hash(checkpoint->plan, checkpoint->plan_len),
        .round = checkpoint->round,
        .spec = layout->spec,
    };
    char path[DISK_PATH_MAX];
    int rc = store_model_path(store, checkpoint->round, path);
    rc = rc ? err_set(err, rc, "%s: the path is too long", store->folder)
            : modelfile_save(store->disk, path, &info, layout, checkpoint->params, err);
    rc = rc ? rc : save_checkpoint(store, layout, checkpoint, err);
    if (rc == 0) {
        clean_up(store, checkpoint->round);
    }
    return rc;
}
