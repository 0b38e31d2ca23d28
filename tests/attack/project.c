/* What an attacker makes of candidate images: features of each by a model's projection head, which is what sites share.
 * Shared features are of augmented views, and the augmentation is the plan's, which every site knows. So a candidate's
 * row here is the mean direction over the plain image and some augmented views of it.
 *
 *   attack_project --model FILE --images DIR --views N --out FILE.npy --paths FILE.txt */
#include "client/nn/embedder.h"
#include "client/tool/cli.h"
#include "client/tool/npy.h"
#include "client/train/train.h"
#include "common/base/disk.h"
#include "common/base/mem.h"
#include "common/vec/modelfile.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define PATHS_MAX ((size_t)64 << 20)

struct fetch {
    const struct dataset *dataset;
    struct augment_options augment;
    uint32_t view; /* 0: the plain image */
};

static void fetch_view(void *ctx, uint32_t i, float *image)
{
    const struct fetch *fetch = ctx;
    uint32_t side = dataset_side(fetch->dataset);
    float *scratch = mem_new(AUGMENT_SCRATCH(side), sizeof *scratch);
    if (fetch->view == 0 || !scratch) {
        augment_plain(dataset_pixels(fetch->dataset, i), side, image);
    } else {
        augment_view(&fetch->augment, dataset_pixels(fetch->dataset, i), side, side, 1, fetch->view, i, 0, image,
                     scratch);
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

/* sum [n, d] over all views; one [n, d] is scratch. */
static int project(const struct layout *layout, const float *params, const struct dataset *dataset, uint32_t views,
                   float *sum, float *one, struct err *err)
{
    struct plan plan;
    struct embedder *embedder = NULL;
    size_t n = dataset_count(dataset), d = layout->spec.features;
    config_defaults(&plan_set, &plan);
    int rc = embedder_new(layout, params, cli_processors(), &embedder, err);
    for (uint32_t view = 0; rc == 0 && view <= views; view++) {
        struct fetch fetch = {.dataset = dataset, .augment = train_augment(&plan), .view = view};
        rc = embedder_run(embedder, (uint32_t)n, fetch_view, &fetch, NULL, one, err);
        for (size_t i = 0; rc == 0 && i < n * d; i++) {
            sum[i] += one[i];
        }
    }
    normalise(sum, (uint32_t)n, (uint32_t)d);
    embedder_free(embedder);
    return rc;
}

static int save(const char *out, const char *paths, const struct dataset *dataset, const float *rows, uint32_t d,
                struct err *err)
{
    uint32_t n = dataset_count(dataset);
    uint8_t header[NPY_HEADER_BYTES];
    struct buf text;
    npy_header(n, d, header);
    const struct span parts[] = {{header, sizeof header}, {rows, (size_t)n * d * sizeof *rows}};
    int rc = disk_save(&disk_posix, out, parts, 2, err);
    buf_init(&text, PATHS_MAX);
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        rc = buf_printf(&text, "%s\n", dataset_path(dataset, i)) ? err_set(err, ERR_NOMEM, "%s: no memory", paths) : 0;
    }
    const struct span part = {text.data, text.len};
    rc = rc ? rc : disk_save(&disk_posix, paths, &part, 1, err);
    buf_fini(&text);
    return rc;
}

static int run(const char *model, const char *images, uint32_t views, const char *out, const char *paths,
               struct err *err)
{
    struct model_info info;
    struct layout *layout = NULL;
    struct dataset *dataset = NULL;
    float *params = NULL, *sum = NULL, *one = NULL;
    int rc = modelfile_load(&disk_posix, model, &info, &layout, &params, err);
    if (rc == 0) {
        const struct dataset_options options = {
            .folder = images, .side = layout->spec.input, .threads = cli_processors(), .log = cli_log()};
        rc = dataset_open(&options, &dataset, err);
    }
    if (rc == 0) {
        size_t floats = (size_t)dataset_count(dataset) * layout->spec.features;
        sum = mem_new(floats, sizeof *sum);
        one = mem_new(floats, sizeof *one);
        rc = sum && one ? project(layout, params, dataset, views, sum, one, err)
                        : err_set(err, ERR_NOMEM, "no memory for %zu numbers", floats);
    }
    rc = rc ? rc : save(out, paths, dataset, sum, layout->spec.features, err);
    mem_free(one);
    mem_free(sum);
    dataset_close(dataset);
    mem_free(params);
    layout_free(layout);
    return rc;
}

int main(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "attack_project --model FILE --images DIR --views N --out FILE.npy --paths FILE.txt",
        .about = "Features of candidate images as an attacker makes them.",
        .examples = "",
    };
    const char *model = NULL, *images = NULL, *out = NULL, *paths = NULL;
    uint32_t views = 0;
    const struct flag flags[] = {
        {"model", FLAG_TEXT, &model, "FILE", "the encoder", 0, 0, true},
        {"images", FLAG_TEXT, &images, "DIR", "the candidates", 0, 0, true},
        {"views", FLAG_U32, &views, "N", "augmented views of each beside the plain image", 0, 1000, false},
        {"out", FLAG_TEXT, &out, "FILE.npy", "features, row by row", 0, 0, true},
        {"paths", FLAG_TEXT, &paths, "FILE.txt", "whose they are, row by row", 0, 0, true},
    };
    int exit_code;
    struct err err;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    return run(model, images, views, out, paths, &err) ? cli_fail(&err) : EXIT_SUCCESS;
}
