/* A client's state folder; see state.h.
 *
 * Why a crash cannot hurt: the contribution and the carry after it are durable, in one file, before the server hears of
 * them. A commit first makes that carry and round the state and then removes the pending file; in between both exist,
 * and a pending file whose round is not after the state's is removed when it is found. */
#include "client/shell/state.h"

#include "client/shell/secret.h"
#include "common/base/mem.h"
#include "common/base/random.h"
#include "common/trust/trust.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int path_of(const struct state *state, const char *name, char out[DISK_PATH_MAX], struct err *err)
{
    int rc = disk_join(out, state->folder, name);
    return rc ? err_set(err, rc, "%.80s...: the path is too long", state->folder) : 0;
}

/* ---- Files ---- */

/* `rc`: whether the image could be made at all. */
static int save(const struct state *state, const char *name, const struct file_image *image, int rc, struct err *err)
{
    char path[DISK_PATH_MAX];
    if (rc) {
        return err_set(err, rc, "%s/%s: %s", state->folder, name, err_meaning(rc));
    }
    rc = path_of(state, name, path, err);
    return rc ? rc : disk_save(state->disk, path, image->parts, image->count, err);
}

static int save_state(const struct state *state, const struct kept_state *kept, struct err *err)
{
    struct file_image image;
    int rc = files_encode_state(kept, &image);
    rc = save(state, "state", &image, rc, err);
    file_image_fini(&image);
    return rc;
}

static int save_pending(const struct state *state, const struct kept_pending *pending, struct err *err)
{
    struct file_image image;
    int rc = files_encode_pending(pending, &image);
    rc = save(state, "pending", &image, rc, err);
    file_image_fini(&image);
    return rc;
}

static int save_spent(const struct state *state, const struct kept_spent *spent, struct err *err)
{
    struct file_image image;
    int rc = files_encode_spent(spent, &image);
    rc = save(state, "spent", &image, rc, err);
    file_image_fini(&image);
    return rc;
}

static int remove_file(const struct state *state, const char *name, struct err *err)
{
    char path[DISK_PATH_MAX];
    int rc = path_of(state, name, path, err);
    return rc ? rc : disk_remove(state->disk, path, err);
}

/* *data NULL: there is no such file. */
static int load(const struct state *state, const char *name, uint8_t **data, size_t *len, struct err *err)
{
    char path[DISK_PATH_MAX];
    *data = NULL;
    int rc = path_of(state, name, path, err);
    rc = rc ? rc : disk_load(state->disk, path, FILES_MAX, data, len, err);
    return rc == ERR_NOTFOUND ? 0 : rc;
}

/* A file that does not hold what it should is no reason to stop. */
static void dropped(const struct state *state, const char *name, const struct err *why)
{
    log_event(state->log, LOG_LEVEL_WARN, "state_dropped", "file=\"%s/%s\" reason=\"%s\"", state->folder, name,
              why->text);
    (void)remove_file(state, name, NULL);
}

/* ---- Opening ---- */

static int make_instance(struct state *state, struct err *err)
{
    struct file_image image;
    int rc = random_bytes(&state->instance, sizeof state->instance, err);
    if (rc) {
        return rc;
    }
    rc = files_encode_instance(&state->instance, &image);
    rc = save(state, "instance", &image, rc, err);
    file_image_fini(&image);
    return rc;
}

static int load_instance(struct state *state, struct err *err)
{
    uint8_t *data;
    size_t len = 0;
    struct err why;
    int rc = load(state, "instance", &data, &len, err);
    if (rc || !data) {
        state->made_instance = rc == 0;
        return rc ? rc : make_instance(state, err);
    }
    rc = files_decode_instance(data, len, &state->instance, &why);
    mem_free(data);
    if (rc == ERR_DATA) {
        dropped(state, "instance", &why);
        rc = make_instance(state, err);
    }
    return rc;
}

static int load_kept(struct state *state, struct err *err)
{
    uint8_t *data;
    size_t len = 0;
    struct err why = {0};
    int rc = load(state, "state", &data, &len, err);
    if (rc || !data) {
        return rc;
    }
    rc = files_decode_state(data, len, &state->kept, &why);
    mem_free(data);
    if (rc == ERR_DATA) {
        dropped(state, "state", &why);
        return 0;
    }
    state->has_kept = rc == 0;
    return rc ? err_set(err, rc, "%s", why.text) : 0;
}

/* Whether a pending contribution can still count, as far as this folder can tell. */
static bool is_current(const struct state *state, const struct kept_pending *pending, struct err *why)
{
    if (state->has_kept &&
        (!hash_equal(&state->kept.run, &pending->run) || !hash_equal(&state->kept.plan_hash, &pending->plan_hash))) {
        (void)err_set(why, ERR_DATA, "it belongs to another run or plan");
        return false;
    }
    if (state->has_kept && pending->contribution.round <= state->kept.round) {
        (void)err_set(why, ERR_DATA, "round %u is counted already", pending->contribution.round);
        return false;
    }
    return true;
}

static int load_pending(struct state *state, struct contribution **out, struct err *err)
{
    uint8_t *data;
    size_t len = 0;
    struct kept_pending pending;
    struct err why = {0};
    int rc = load(state, "pending", &data, &len, err);
    if (rc || !data) {
        return rc;
    }
    rc = files_decode_pending(data, len, &pending, &why);
    mem_free(data);
    if (rc == ERR_DATA || (rc == 0 && !is_current(state, &pending, &why))) {
        kept_pending_fini(&pending);
        dropped(state, "pending", &why);
        return 0;
    }
    *out = rc ? NULL : mem_new(1, sizeof **out);
    if (!*out) {
        kept_pending_fini(&pending);
        return err_set(err, ERR_NOMEM, "no memory for the pending contribution");
    }
    **out = pending.contribution;
    state->pending_round = pending.contribution.round;
    state->pending_carry = pending.carry;
    if (!state->has_kept) { /* the state was lost: the run is known all the same */
        state->kept = (struct kept_state){.run = pending.run, .plan_hash = pending.plan_hash};
        state->has_kept = true;
    }
    return 0;
}

static int load_spent(struct state *state, struct err *err)
{
    uint8_t *data;
    size_t len = 0;
    struct err why;
    int rc = load(state, "spent", &data, &len, err);
    if (rc || !data) {
        return rc;
    }
    rc = files_decode_spent(data, len, &state->spent, &why);
    mem_free(data);
    return rc ? err_set(err, rc,
                        "%s/spent: %s; what this site has released is not known: put a copy back, or remove the file, "
                        "and the count begins at 0",
                        state->folder, why.text)
              : 0;
}

static bool is_real(const struct state *state)
{
    return state->disk->ops == disk_posix.ops;
}

static int lock(struct state *state, struct err *err)
{
    char path[DISK_PATH_MAX];
    int rc = path_of(state, "lock", path, err);
    state->made_lock = rc == 0 && access(path, F_OK) != 0;
    return rc ? rc : disk_lock(state->folder, "client", &state->lock, err);
}

int state_open(struct state *state, const struct disk *disk, const char *folder, bool forget, const struct log *log,
               struct contribution **pending, struct err *err)
{
    *state = (struct state){.disk = disk, .log = log, .lock = -1};
    *pending = NULL;
    if (snprintf(state->folder, sizeof state->folder, "%s", folder) >= (int)sizeof state->folder) {
        return err_set(err, ERR_LIMIT, "%.80s...: the path is too long", folder);
    }
    state->there = disk_there(folder);
    int rc = path_of(state, "cache", state->cache, err);
    rc = rc ? rc : disk_make_folder(disk, folder, err);
    if (rc == 0 && is_real(state)) { /* a simulated disk has one user */
        rc = lock(state, err);
    }
    rc = rc ? rc : load_instance(state, err);
    rc = rc ? rc : load_spent(state, err);
    if (rc == 0 && !forget) {
        rc = load_kept(state, err);
        rc = rc ? rc : load_pending(state, pending, err);
    }
    if (rc) {
        state_close(state);
    }
    return rc;
}

int state_forget(struct state *state, struct err *err)
{
    int rc = remove_file(state, "pending", err);
    return rc ? rc : remove_file(state, "state", err);
}

void state_close(struct state *state)
{
    kept_carry_fini(&state->kept.carry);
    kept_carry_fini(&state->pending_carry);
    if (state->lock >= 0) {
        (void)close(state->lock);
        state->lock = -1;
    }
}

/* The lock goes last of the files, while it is held: until then it keeps another client out. */
void state_undo(struct state *state)
{
    if (state->made_instance) {
        (void)remove_file(state, "instance", NULL);
    }
    if (state->made_lock) {
        (void)remove_file(state, "lock", NULL);
    }
    state_close(state);
    if (is_real(state)) {
        disk_remove_made(state->folder, state->there);
    }
}

/* ---- The secret ---- */

static int make_secret(struct state *state, struct err *err)
{
    struct file_image image;
    int rc = random_bytes(state->secret, sizeof state->secret, err);
    if (rc) {
        return rc;
    }
    rc = files_encode_secret(state->secret, &image);
    rc = save(state, "secret", &image, rc, err);
    file_image_fini(&image);
    return rc;
}

/* As every secret's file, it is used only while nobody else can have read it. */
static int check_private(const struct state *state, struct err *err)
{
    char path[DISK_PATH_MAX];
    int rc = path_of(state, "secret", path, err);
    if (rc == 0 && is_real(state)) { /* a simulated disk has no permissions */
        rc = trust_private(path, false, err);
    }
    return rc == ERR_NOTFOUND ? 0 : rc;
}

int state_secret(struct state *state, struct err *err)
{
    uint8_t *data = NULL;
    size_t len = 0;
    struct err why;
    int rc = check_private(state, err);
    rc = rc ? rc : load(state, "secret", &data, &len, err);
    if (rc == 0 && !data) {
        rc = make_secret(state, err);
    } else if (rc == 0 && files_decode_secret(data, len, state->secret, &why)) {
        dropped(state, "secret", &why);
        rc = make_secret(state, err);
    }
    mem_free(data);
    state->has_secret = rc == 0;
    return rc;
}

/* ---- Changes ---- */

static void forget_pending(struct state *state)
{
    kept_carry_fini(&state->pending_carry);
    state->pending_round = 0;
}

int state_begin(struct state *state, const struct hash128 *run, const struct hash128 *plan_hash, struct err *err)
{
    if (state->has_kept && hash_equal(&state->kept.run, run) && hash_equal(&state->kept.plan_hash, plan_hash)) {
        return 0;
    }
    struct kept_state kept = {.run = *run, .plan_hash = *plan_hash};
    int rc = save_state(state, &kept, err);
    if (rc) {
        return rc;
    }
    kept_carry_fini(&state->kept.carry);
    forget_pending(state);
    state->kept = kept;
    state->has_kept = true;
    state->unsaved = false;
    return 0;
}

/* What the last commit could not save; only then may the pending file go. */
static int save_unsaved(struct state *state, struct err *err)
{
    int rc = state->unsaved ? save_state(state, &state->kept, err) : 0;
    state->unsaved = rc != 0;
    return rc;
}

struct kept_spent state_spend(const struct state *state, double features, double update)
{
    struct kept_spent spent = {.run = state->kept.run};
    if (hash_equal(&state->spent.run, &state->kept.run)) {
        spent = state->spent;
    }
    spent.releases += spent.releases < UINT32_MAX;
    spent.features += features;
    spent.updates += update;
    return spent;
}

/* In memory too as soon as it may be on the disk, whatever becomes of the contribution. */
static int keep_spent(struct state *state, const struct kept_spent *spent, struct err *err)
{
    if (!spent) {
        return 0;
    }
    state->spent = *spent;
    return save_spent(state, spent, err);
}

int state_keep(struct state *state, const struct contribution *contribution, struct kept_carry *carry,
               const struct kept_spent *spent, struct err *err)
{
    const struct kept_pending pending = {
        .run = state->kept.run, .plan_hash = state->kept.plan_hash, .contribution = *contribution, .carry = *carry};
    int rc = save_unsaved(state, err);
    rc = rc ? rc : keep_spent(state, spent, err);
    rc = rc ? rc : save_pending(state, &pending, err);
    if (rc) {
        return rc;
    }
    forget_pending(state);
    state->pending_round = contribution->round;
    state->pending_carry = *carry;
    *carry = (struct kept_carry){0};
    return 0;
}

int state_commit(struct state *state, uint32_t round, struct err *err)
{
    state->kept.round = round;
    if (state->pending_round == round) {
        kept_carry_fini(&state->kept.carry);
        state->kept.carry = state->pending_carry;
        state->pending_carry = (struct kept_carry){0};
    }
    state->unsaved = true;
    return state_drop(state, err);
}

int state_drop(struct state *state, struct err *err)
{
    forget_pending(state);
    int rc = save_unsaved(state, err);
    return rc ? rc : remove_file(state, "pending", err);
}
