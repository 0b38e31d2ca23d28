/* The images of an experiment: of each class, a drawn part to train on and, when asked for, another that is judged.
 * They are the same for every method, split and seed, so that cells differ by what they compare. */
#include "client/tool/experiment.h"

#include "client/data/split_plan.h"
#include "client/tool/folder.h"
#include "client/tool/listing.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DRAW_SEED UINT64_C(0xe4be41) /* names the draw; any number would do */

struct parts {
    const struct listing *listing;
    uint8_t *part; /* [count] 0: not used, 1: trained on, 2: judged */
};

static int draw_class(const struct experiment *experiment, const struct parts *parts, uint32_t class, uint32_t *members,
                      struct err *err)
{
    uint32_t n = 0, judged = experiment->validation_per_class, trained = experiment->train_per_class;
    for (uint32_t i = 0; i < parts->listing->count; i++) {
        if (parts->listing->classes.labels[i] == class) {
            members[n++] = i;
        }
    }
    if ((uint64_t)judged + (trained ? trained : 1) > n) {
        return err_set(err, ERR_DATA, "%s: class %s has %u images, of which %u are to be judged and %u trained on",
                       experiment->images, parts->listing->classes.names[class], n, judged, trained);
    }
    struct rng rng;
    rng_init(&rng, DRAW_SEED, RNG_SPLIT, class, 0, 0);
    rng_permute(&rng, members, n);
    for (uint32_t i = 0; i < n; i++) {
        parts->part[members[i]] = i < judged ? 2 : !trained || i - judged < trained ? 1 : 0;
    }
    return 0;
}

/* Every split with every seed, before any cell runs. */
static int try_splits(const struct experiment *experiment, const struct parts *parts, struct err *err)
{
    const struct classes *classes = &parts->listing->classes;
    uint32_t n = 0;
    uint32_t *labels = mem_new(parts->listing->count, sizeof *labels);
    uint32_t *client_of = mem_new(parts->listing->count, sizeof *client_of);
    int rc = labels && client_of ? 0 : err_set(err, ERR_NOMEM, "no memory for %u images", parts->listing->count);
    for (uint32_t i = 0; rc == 0 && i < parts->listing->count; i++) {
        if (parts->part[i] == 1) {
            labels[n++] = classes->labels[i];
        }
    }
    for (uint32_t i = 0; rc == 0 && i < experiment->splits_count * experiment->seeds_count; i++) {
        const char *split = experiment->splits[i / experiment->seeds_count];
        struct split_spec spec;
        rc = split_parse(split, &spec, err);
        rc = rc ? rc
                : split_plan(&spec, labels, n, classes->count, experiment->clients,
                             experiment->seeds[i % experiment->seeds_count], client_of, err);
        uint32_t nobodys = 0;
        for (uint32_t image = 0; rc == 0 && image < n; image++) {
            nobodys += client_of[image] == SPLIT_NOBODY;
        }
        if (nobodys > 0) {
            (void)printf("note        split %s, seed %llu: %u of %u images are of classes that no site holds\n", split,
                         (unsigned long long)experiment->seeds[i % experiment->seeds_count], nobodys, n);
        }
        if (rc) {
            (void)err_prefix(err, "%s: split %s among %u clients", experiment->images, split, experiment->clients);
        }
    }
    mem_free(labels);
    mem_free(client_of);
    return rc;
}

static int link_parts(const struct experiment *experiment, const struct parts *parts,
                      const struct experiment_images *images, struct err *err)
{
    char from[DISK_PATH_MAX];
    if (!realpath(experiment->images, from)) {
        return err_set(err, ERR_DATA, "%s: %s", experiment->images, strerror(errno));
    }
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < parts->listing->count; i++) {
        if (parts->part[i]) {
            rc = folder_link(from, parts->part[i] == 1 ? images->train : images->judge, parts->listing->paths[i], err);
        }
    }
    return rc;
}

/* Names and sizes of what is used; contents are taken to be the same where these are. */
static void hash_listing(struct hash_stream *stream, const struct listing *listing, const uint8_t *part)
{
    const struct scan_file *file = listing->scan.files;
    for (uint32_t i = 0; i < listing->count; i++, file++) {
        while (file->path != listing->paths[i]) { /* paths are the scan's, in its order, without what is no image */
            file++;
        }
        uint8_t use = part ? part[i] : 2;
        if (use) {
            hash_stream_add(stream, &use, 1);
            hash_stream_add(stream, file->path, strlen(file->path) + 1);
            hash_stream_add(stream, &file->size, sizeof file->size);
        }
    }
}

static int hash_parts(const struct listing *train, const uint8_t *part, const char *judge, struct hash128 *out,
                      struct err *err)
{
    struct hash_stream *stream = hash_stream_new();
    struct listing listing = {0};
    int rc = stream ? 0 : err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    rc = rc || !judge ? rc : listing_find(judge, &listing, err);
    if (rc == 0) {
        hash_listing(stream, train, part);
        hash_listing(stream, &listing, NULL);
        *out = hash_stream_end(stream);
    }
    listing_fini(&listing);
    hash_stream_free(stream);
    return rc;
}

/* A folder for each choice of images, so that a changed file finds no links of the one before. */
static int make_folders(bool validates, struct experiment_images *images, const char *out, const char *test,
                        struct err *err)
{
    char hex[HASH_HEX], name[64];
    (void)hash_hex(&images->hash, hex);
    (void)snprintf(name, sizeof name, "images/%.8s/train", hex);
    int rc = folder_make(out, name, images->train, err);
    (void)snprintf(name, sizeof name, "images/%.8s/validation", hex);
    if (!validates) {
        (void)snprintf(images->judge, sizeof images->judge, "%s", test);
        return rc;
    }
    return rc ? rc : folder_make(out, name, images->judge, err);
}

int experiment_images(const struct experiment *experiment, const char *out, struct experiment_images *images,
                      struct err *err)
{
    bool validates = experiment->validation_per_class > 0;
    struct listing listing;
    uint32_t *members = NULL;
    struct parts parts = {.listing = &listing};
    int rc = listing_find(experiment->images, &listing, err);
    if (rc == 0 && listing.classes.count < 2) {
        rc = err_set(err, ERR_DATA, "%s: at least two class folders are needed, or nothing can be scored",
                     experiment->images);
    }
    members = rc ? NULL : mem_new(listing.count, sizeof *members);
    parts.part = rc ? NULL : mem_new(listing.count, sizeof *parts.part);
    if (rc == 0 && (!members || !parts.part)) {
        rc = err_set(err, ERR_NOMEM, "no memory for %u files", listing.count);
    }
    for (uint32_t class = 0; rc == 0 && class < listing.classes.count; class ++) {
        rc = draw_class(experiment, &parts, class, members, err);
    }
    rc = rc ? rc : try_splits(experiment, &parts, err);
    rc = rc ? rc : hash_parts(&listing, parts.part, validates ? NULL : experiment->test, &images->hash, err);
    rc = rc ? rc : make_folders(validates, images, out, experiment->test, err);
    rc = rc ? rc : link_parts(experiment, &parts, images, err);
    mem_free(members);
    mem_free(parts.part);
    listing_fini(&listing);
    return rc;
}
