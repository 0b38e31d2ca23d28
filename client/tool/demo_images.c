/* Where the demo's images come from: drawn into images/ and test/ when none are given; else the given folders, or links
 * to a training part (train/) and a held-out part (test/) of the one given folder. Then one folder a client in sites/.
 *
 * Whatever would make the scores impossible at the end (no class folders, a test class nobody trains on) is said here,
 * before hours of training. */
#include "client/tool/demo.h"
#include "client/tool/draw_images.h"
#include "client/tool/folder.h"
#include "client/tool/listing.h"
#include "client/tool/split.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DRAWN_CLASSES 10
#define DRAWN_TRAIN   200 /* pictures of each class */
#define DRAWN_TEST    60
#define TABLE_MAX     ((size_t)4 << 20)

void demo_hold_out(uint64_t seed, uint32_t class, uint32_t n, bool *held)
{
    uint32_t wanted = n / 5 ? n / 5 : n >= 2 ? 1 : 0;
    struct rng rng;
    rng_init(&rng, seed, RNG_SPLIT, UINT64_C(0x7e57), class, 0); /* a stream that dealing out does not use */
    /* Selection sampling: each remaining image is taken with the chance that fills the quota. */
    for (uint32_t i = 0; i < n; i++) {
        held[i] = rng_below(&rng, n - i) < wanted;
        wanted -= held[i];
    }
}

/* Links every image of `listing` into train/ or test/. */
static int hold_out(struct demo *demo, const struct listing *listing, const char *images, struct err *err)
{
    uint32_t count = listing->count;
    uint32_t *members = mem_new(count, sizeof *members);
    bool *held = mem_new(count, sizeof *held);
    int code = members && held ? 0 : err_set(err, ERR_NOMEM, "no memory for %u files", count);
    for (uint32_t class = 0; !code && class < listing->classes.count; class ++) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < count; i++) {
            if (listing->classes.labels[i] == class) {
                members[n++] = i;
            }
        }
        demo_hold_out(demo->options.seed, class, n, held);
        for (uint32_t i = 0; !code && i < n; i++) {
            code = folder_link(images, held[i] ? demo->test : demo->train, listing->paths[members[i]], err);
        }
    }
    mem_free(members);
    mem_free(held);
    return code;
}

/* Every class of the test folder must be one of the training folder's. */
static int check_test(const struct listing *train, const struct demo *demo, struct err *err)
{
    struct listing test;
    int code = listing_find(demo->test, &test, err);
    if (!code && (train->classes.count == 0 || test.classes.count == 0)) {
        code = err_set(err, ERR_DATA, "%s: images lie outside class folders, so --test cannot be scored",
                       train->classes.count ? demo->test : demo->train);
    }
    for (uint32_t i = 0; !code && i < test.classes.count; i++) {
        uint32_t k = 0;
        while (k < train->classes.count && strcmp(test.classes.names[i], train->classes.names[k]) != 0) {
            k++;
        }
        if (k == train->classes.count) {
            code = err_set(err, ERR_DATA, "%s: class \"%s\" does not occur in %s", demo->test, test.classes.names[i],
                           demo->train);
        }
    }
    listing_fini(&test);
    return code;
}

static int draw(struct demo *demo, struct err *err)
{
    struct draw_images_options options = {.out = demo->train,
                                          .classes = DRAWN_CLASSES,
                                          .per_class = DRAWN_TRAIN,
                                          .size = demo->plan.model.input,
                                          .seed = demo->options.seed};
    if (disk_join(demo->train, demo->workdir, "images") || disk_join(demo->test, demo->workdir, "test")) {
        return err_set(err, ERR_CANTCREATE, "%s: the path is too long", demo->workdir);
    }
    (void)printf("drawing     %u pictures of %u classes to learn from, %u to be tested on\n",
                 DRAWN_CLASSES * DRAWN_TRAIN, DRAWN_CLASSES, DRAWN_CLASSES * DRAWN_TEST);
    int code = draw_images_run(&options, err);
    options.out = demo->test;
    options.per_class = DRAWN_TEST;
    options.seed = demo->options.seed + 1;
    demo->classes = DRAWN_CLASSES;
    return code ? code : draw_images_run(&options, err);
}

static int take_given(struct demo *demo, struct err *err)
{
    const struct demo_options *options = &demo->options;
    char images[DISK_PATH_MAX];
    struct listing listing;
    int code = listing_find(options->images, &listing, err);
    if (!code && !realpath(options->images, images)) {
        code = err_set(err, ERR_DATA, "%s: %s", options->images, strerror(errno));
    }
    if (code) {
        goto done;
    }
    demo->classes = listing.classes.count >= 2 ? listing.classes.count : 0;
    (void)snprintf(demo->train, sizeof demo->train, "%s", options->images);
    if (options->test) {
        (void)snprintf(demo->test, sizeof demo->test, "%s", options->test);
        code = check_test(&listing, demo, err);
    } else if (demo->classes == 0) {
        (void)printf("images      there are no class folders in %s, so the encoder is trained but not scored\n",
                     options->images);
    } else if (disk_join(demo->train, demo->workdir, "train") || disk_join(demo->test, demo->workdir, "test")) {
        code = err_set(err, ERR_CANTCREATE, "%s: the path is too long", demo->workdir);
    } else {
        (void)printf("images      every fifth of each of the %u classes is held out for testing\n", demo->classes);
        code = hold_out(demo, &listing, images, err);
    }
done:
    listing_fini(&listing);
    return code;
}

static int deal_out(struct demo *demo, struct err *err)
{
    char sites[DISK_PATH_MAX];
    struct split_options options = {
        .images = demo->train, .out = sites, .clients = demo->options.clients, .seed = demo->options.seed};
    int code = split_parse(demo->options.split, &options.spec, err);
    if (!code && disk_join(sites, demo->workdir, "sites")) {
        code = err_set(err, ERR_CANTCREATE, "%s: the path is too long", demo->workdir);
    }
    if (code) {
        return code;
    }
    struct buf table;
    buf_init(&table, TABLE_MAX);
    code = split_run(&options, &table, err);
    if (!code) {
        (void)printf("dealing     %s among %u clients; none sees another's images\n%.*s", demo->options.split,
                     options.clients, (int)table.len, (const char *)table.data);
    }
    buf_fini(&table);
    struct scan scan = {0};
    code = code ? code : scan_folder(sites, NULL, &scan, err);
    demo->images = scan.count;
    scan_fini(&scan);
    return code;
}

int demo_images(struct demo *demo, struct err *err)
{
    int code = demo->options.images ? take_given(demo, err) : draw(demo, err);
    code = code ? code : deal_out(demo, err);
    (void)fflush(stdout);
    return code;
}
