/* What lies in the state folder: names of checkpoints and models by round, and back from names to rounds. A name counts
 * only when it is exactly what we would write, so that a file of somebody else is never loaded and never removed. */
#include "server/store/internal.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int visit(void *arg, const char *name)
{
    struct listing *listing = arg;
    if (strlen(name) >= LISTING_NAME_MAX) {
        return 0;
    }
    if (listing->count == listing->capacity) {
        uint32_t capacity = listing->capacity ? listing->capacity * 2 : 16;
        void *names = mem_resize(listing->names, capacity, sizeof *listing->names);
        if (!names) {
            return ERR_NOMEM;
        }
        listing->names = names;
        listing->capacity = capacity;
    }
    (void)snprintf(listing->names[listing->count++], LISTING_NAME_MAX, "%s", name);
    return 0;
}

int listing_read(const struct disk *disk, const char *folder, struct listing *out, struct err *err)
{
    *out = (struct listing){0};
    int rc = disk->ops->list(disk->ctx, folder, visit, out);
    if (rc && rc != ERR_NOTFOUND) {
        listing_fini(out);
        return err_set(err, rc, "%s: list: %s", folder, disk_why(disk, rc));
    }
    return 0;
}

void listing_fini(struct listing *listing)
{
    mem_free(listing->names);
    *listing = (struct listing){0};
}

void checkpoint_name(uint32_t round, char out[LISTING_NAME_MAX])
{
    (void)snprintf(out, LISTING_NAME_MAX, "checkpoint-%06u", round);
}

static void model_name(uint32_t round, char out[LISTING_NAME_MAX])
{
    (void)snprintf(out, LISTING_NAME_MAX, "round-%06u.starling", round);
}

int checkpoint_path(const struct store *store, uint32_t round, char out[DISK_PATH_MAX])
{
    char name[LISTING_NAME_MAX];
    checkpoint_name(round, name);
    return disk_join(out, store->folder, name);
}

int store_model_path(const struct store *store, uint32_t round, char out[DISK_PATH_MAX])
{
    char name[LISTING_NAME_MAX];
    model_name(round, name);
    return disk_join(out, store->models, name);
}

static bool round_of(const char *name, const char *before, void (*name_of)(uint32_t, char[LISTING_NAME_MAX]),
                     uint32_t *round)
{
    char canonical[LISTING_NAME_MAX];
    if (strncmp(name, before, strlen(before)) != 0) {
        return false;
    }
    *round = (uint32_t)strtoull(name + strlen(before), NULL, 10);
    name_of(*round, canonical);
    return strcmp(canonical, name) == 0;
}

bool checkpoint_round(const char *name, uint32_t *round)
{
    return round_of(name, "checkpoint-", checkpoint_name, round);
}

bool model_round(const char *name, uint32_t *round)
{
    return round_of(name, "round-", model_name, round);
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int checkpoint_rounds(const struct store *store, uint32_t **rounds, uint32_t *count, struct err *err)
{
    struct listing listing;
    *rounds = NULL;
    *count = 0;
    int rc = listing_read(store->disk, store->folder, &listing, err);
    if (rc) {
        return rc;
    }
    uint32_t *found = mem_new(listing.count, sizeof *found);
    for (uint32_t i = 0; found && i < listing.count; i++) {
        *count += checkpoint_round(listing.names[i], &found[*count]);
    }
    listing_fini(&listing);
    if (!found) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    qsort(found, *count, sizeof *found, ascending);
    *rounds = found;
    return 0;
}

int newest_model(const struct store *store, uint32_t *newest, struct err *err)
{
    struct listing models = {0};
    uint32_t at;
    *newest = 0;
    int rc = listing_read(store->disk, store->models, &models, err);
    for (uint32_t i = 0; rc == 0 && i < models.count; i++) {
        *newest = model_round(models.names[i], &at) && at > *newest ? at : *newest;
    }
    listing_fini(&models);
    return rc;
}
