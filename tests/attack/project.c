/* What an attacker makes of candidate images: features of each by a model's projection head, which is what sites share.
 *
 * Shared features are of augmented views, and the augmentation is the plan's, which every site knows. So a candidate's
 * row is the mean direction over the plain image and some augmented views of it:
 *
 *   attack_project --model FILE --images DIR --views N --out FILE.npy --paths FILE.txt
 *
 * A site's views come from the plan's seed and the site's name, and its order of images from these and their number:
 * whoever is told them knows the crop and the colours of each view of a round, and lacks the image alone. With --site
 * each candidate is cropped and coloured just so; rows are those of the first view with all candidates, then of the
 * second, and so on:
 *
 *   attack_project ... --site NAME --count IMAGES --seed S --round R --batch B    of rounds of one step */
#include "client/nn/embedder.h"
#include "client/tool/cli.h"
#include "client/tool/npy.h"
#include "client/train/feeder.h"
#include "client/train/train.h"
#include "common/base/byteorder.h"
#include "common/base/disk.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/vec/modelfile.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATHS_MAX ((size_t)64 << 20)

struct wishes {
    const char *model, *images, *out, *paths, *site;
    uint32_t views, count, seed, round, batch;
};

struct candidates {
    struct layout *layout;
    float *params;
    struct dataset *dataset;
    uint32_t n;
    struct augment_options augment;
};

/* A view's name, as augment_view has it. */
struct fetch {
    const struct candidates *candidates;
    bool plain, own; /* own: the candidate's number in place of `image` */
    uint64_t seed, epoch, image;
    uint32_t view;
};

static void fetch_view(void *ctx, uint32_t i, float *image)
{
    const struct fetch *fetch = ctx;
    const struct dataset *dataset = fetch->candidates->dataset;
    uint32_t side = dataset_side(dataset);
    float *scratch = mem_new(AUGMENT_SCRATCH(side), sizeof *scratch);
    if (fetch->plain || !scratch) {
        augment_plain(dataset_pixels(dataset, i), side, image);
    } else {
        augment_view(&fetch->candidates->augment, dataset_pixels(dataset, i), side, side, fetch->seed, fetch->epoch,
                     fetch->own ? i : fetch->image, fetch->view, image, scratch);
    }
    mem_free(scratch);
}

static void normalise(float *rows, uint32_t n, uint32_t d)
{
    for (uint32_t i = 0; i < n; i++) {
        float *row = rows + (size_t)i * d, squares = 0;
        for (uint32_t j = 0; j < d; j++) {
            squares += row[j] * row[j];
        }
        float length = sqrtf(squares);
        for (uint32_t j = 0; j < d; j++) {
            row[j] /= length > 0 ? length : 1;
        }
    }
}

/* rows [n, d]: the mean direction over the plain image and `views` others. */
static int project_mean(const struct candidates *candidates, struct embedder *embedder, uint32_t views, float *rows,
                        struct err *err)
{
    size_t floats = (size_t)candidates->n * candidates->layout->spec.features;
    float *one = mem_new(floats, sizeof *one);
    int rc = one ? 0 : err_set(err, ERR_NOMEM, "no memory for %zu numbers", floats);
    for (uint32_t view = 0; rc == 0 && view <= views; view++) {
        struct fetch fetch = {.candidates = candidates, .plain = view == 0, .own = true, .seed = 1, .epoch = view};
        rc = embedder_run(embedder, candidates->n, fetch_view, &fetch, NULL, one, err);
        for (size_t i = 0; rc == 0 && i < floats; i++) {
            rows[i] += one[i];
        }
    }
    normalise(rows, candidates->n, candidates->layout->spec.features);
    mem_free(one);
    return rc;
}

/* rows [batch, n, d]: as the site cropped and coloured what its keys show, the second view of each. */
static int project_known(const struct candidates *candidates, struct embedder *embedder, const struct wishes *wishes,
                         float *rows, struct err *err)
{
    struct hash128 hash = hash_of(wishes->site, strlen(wishes->site));
    uint64_t seed = rng_mix(rng_mix(wishes->seed) ^ load_u64(hash.bytes)); /* as train.c has it */
    struct feeder_order order;
    int rc = feeder_order_init(&order, seed, wishes->count) ? err_set(err, ERR_NOMEM, "no memory for an order") : 0;
    for (uint32_t i = 0; rc == 0 && i < wishes->batch; i++) {
        struct feeder_place place = feeder_order_at(&order, (uint64_t)(wishes->round - 1) * wishes->batch + i);
        struct fetch fetch = {
            .candidates = candidates, .seed = seed, .epoch = place.epoch, .image = place.image, .view = 1};
        rc = embedder_run(embedder, candidates->n, fetch_view, &fetch, NULL,
                          rows + (size_t)i * candidates->n * candidates->layout->spec.features, err);
    }
    feeder_order_fini(&order);
    return rc;
}

static int save(const struct wishes *wishes, const struct candidates *candidates, uint32_t count, const float *rows,
                struct err *err)
{
    uint32_t d = candidates->layout->spec.features;
    uint8_t header[NPY_HEADER_BYTES];
    struct buf text;
    npy_header(count, d, header);
    const struct span parts[] = {{header, sizeof header}, {rows, (size_t)count * d * sizeof *rows}};
    int rc = disk_save(&disk_posix, wishes->out, parts, 2, err);
    buf_init(&text, PATHS_MAX);
    for (uint32_t i = 0; rc == 0 && i < candidates->n; i++) {
        rc = buf_printf(&text, "%s\n", dataset_path(candidates->dataset, i)) ? err_set(err, ERR_NOMEM, "no memory") : 0;
    }
    const struct span part = {text.data, text.len};
    rc = rc ? rc : disk_save(&disk_posix, wishes->paths, &part, 1, err);
    buf_fini(&text);
    return rc;
}

static int open_candidates(const struct wishes *wishes, struct candidates *out, struct err *err)
{
    struct model_info info;
    struct plan plan;
    config_defaults(&plan_set, &plan);
    out->augment = train_augment(&plan);
    int rc = modelfile_load(&disk_posix, wishes->model, &info, &out->layout, &out->params, err);
    if (rc == 0) {
        const struct dataset_options options = {
            .folder = wishes->images, .side = out->layout->spec.input, .threads = cli_processors(), .log = cli_log()};
        rc = dataset_open(&options, &out->dataset, err);
        out->n = rc ? 0 : dataset_count(out->dataset);
    }
    return rc;
}

static int run(const struct wishes *wishes, struct err *err)
{
    struct candidates candidates = {0};
    struct embedder *embedder = NULL;
    float *rows = NULL;
    int rc = open_candidates(wishes, &candidates, err);
    rc = rc ? rc : embedder_new(candidates.layout, candidates.params, cli_processors(), &embedder, err);
    uint32_t count = candidates.n * (wishes->site ? wishes->batch : 1);
    rows = rc ? NULL : mem_new(count, candidates.layout->spec.features * sizeof *rows);
    rc = rc || rows ? rc : err_set(err, ERR_NOMEM, "no memory for %u features", count);
    if (rc == 0) {
        rc = wishes->site ? project_known(&candidates, embedder, wishes, rows, err)
                          : project_mean(&candidates, embedder, wishes->views, rows, err);
    }
    rc = rc ? rc : save(wishes, &candidates, count, rows, err);
    mem_free(rows);
    embedder_free(embedder);
    dataset_close(candidates.dataset);
    mem_free(candidates.params);
    layout_free(candidates.layout);
    return rc;
}

int main(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "attack_project --model FILE --images DIR --out FILE.npy --paths FILE.txt [--views N | --site NAME "
                 "--count N --seed N --round N --batch N]",
        .about = "Features of candidate images as an attacker makes them.",
        .examples = "",
    };
    struct wishes wishes = {.count = 1, .round = 1, .batch = 1};
    const struct flag flags[] = {
        {"model", FLAG_TEXT, &wishes.model, "FILE", "the encoder", 0, 0, true},
        {"images", FLAG_TEXT, &wishes.images, "DIR", "the candidates", 0, 0, true},
        {"out", FLAG_TEXT, &wishes.out, "FILE.npy", "features, row by row", 0, 0, true},
        {"paths", FLAG_TEXT, &wishes.paths, "FILE.txt", "the candidates' paths, in order", 0, 0, true},
        {"views", FLAG_U32, &wishes.views, "N", "augmented views of each beside the plain image", 0, 1000, false},
        {"site", FLAG_TEXT, &wishes.site, "NAME", "whose views are known", 0, 0, false},
        {"count", FLAG_U32, &wishes.count, "N", "images that it has", 1, 1u << 30, false},
        {"seed", FLAG_U32, &wishes.seed, "N", "the plan's", 0, UINT32_MAX, false},
        {"round", FLAG_U32, &wishes.round, "N", "in which the views were made", 1, 1u << 30, false},
        {"batch", FLAG_U32, &wishes.batch, "N", "the plan's", 1, 4096, false},
    };
    int exit_code;
    struct err err;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    return run(&wishes, &err) ? cli_fail(&err) : EXIT_SUCCESS;
}
