#include "client/train/evaluate.h"

#include "client/data/augment.h"
#include "client/nn/embedder.h"
#include "client/nn/judge.h"
#include "common/base/mem.h"
#include "common/vec/modelfile.h"

#include <string.h>

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
}

static int open_labelled(const char *folder, uint32_t side, uint32_t threads, const bool *cancel, const struct log *log,
                         struct dataset **out, struct err *err)
{
    const struct dataset_options options = {
        .folder = folder, .side = side, .threads = threads, .log = log, .cancel = cancel};
    int code = dataset_open(&options, out, err);
    if (!code && dataset_classes(*out) == 0) {
        code = err_set(err, ERR_DATA,
                       "%s: images lie outside class folders; to be scored, each must be in the folder of its class",
                       folder);
    }
    return code;
}

/* Labels of `dataset` as numbers of the classes of `reference`. */
static int labels_of(const struct dataset *dataset, const struct dataset *reference, const char *folder, uint32_t **out,
                     struct err *err)
{
    uint32_t classes = dataset_classes(dataset), known = dataset_classes(reference);
    uint32_t *number = mem_new(classes, sizeof *number), *labels = mem_new(dataset_count(dataset), sizeof *labels);
    int code = number && labels ? 0 : no_memory(err);
    for (uint32_t c = 0; !code && c < classes; c++) {
        const char *name = dataset_class_name(dataset, c);
        uint32_t k = 0;
        while (k < known && strcmp(name, dataset_class_name(reference, k)) != 0) {
            k++;
        }
        if (k == known) {
            code = err_set(err, ERR_DATA, "%s: class \"%s\" has no images in the training folder", folder, name);
        }
        number[c] = k;
    }
    for (uint32_t i = 0; !code && i < dataset_count(dataset); i++) {
        labels[i] = number[dataset_label(dataset, i)];
    }
    mem_free(number);
    if (code) {
        mem_free(labels);
        labels = NULL;
    }
    *out = labels;
    return code;
}

int evaluation_open(const char *train, const char *test, uint32_t side, uint32_t threads, const bool *cancel,
                    const struct log *log, struct evaluation *out, struct err *err)
{
    *out = (struct evaluation){.threads = threads};
    int code = open_labelled(train, side, threads, cancel, log, &out->train, err);
    if (code) {
        goto fail;
    }
    out->classes = dataset_classes(out->train);
    if (out->classes < 2) {
        code = err_set(err, ERR_DATA, "%s: there is one class, so every answer would be right", train);
        goto fail;
    }
    if ((code = open_labelled(test, side, threads, cancel, log, &out->test, err)) != 0 ||
        (code = labels_of(out->train, out->train, train, &out->train_labels, err)) != 0 ||
        (code = labels_of(out->test, out->train, test, &out->test_labels, err)) != 0) {
        goto fail;
    }
    return 0;
fail:
    evaluation_close(out);
    return code;
}

void evaluation_close(struct evaluation *evaluation)
{
    dataset_close(evaluation->train);
    dataset_close(evaluation->test);
    mem_free(evaluation->train_labels);
    mem_free(evaluation->test_labels);
    *evaluation = (struct evaluation){0};
}

static void fetch_plain(void *ctx, uint32_t i, float *image)
{
    const struct dataset *dataset = ctx;
    augment_plain(dataset_pixels(dataset, i), dataset_side(dataset), image);
}

int evaluation_features(const struct dataset *dataset, const struct layout *layout, const float *params,
                        uint32_t threads, float **out, struct err *err)
{
    *out = NULL;
    if (dataset_side(dataset) != layout->spec.input) {
        return err_set(err, ERR_CONFIG, "the images were read at %u pixels a side, the model sees %u",
                       dataset_side(dataset), layout->spec.input);
    }
    uint32_t n = dataset_count(dataset);
    float *features = mem_new_aligned((size_t)n * layout->backbone, sizeof *features);
    if (!features) {
        return no_memory(err);
    }
    struct embedder *embedder;
    int code = embedder_new(layout, params, threads, &embedder, err);
    if (!code) {
        union {
            const struct dataset *in;
            void *out;
        } ctx = {.in = dataset};
        code = embedder_run(embedder, n, fetch_plain, ctx.out, features, NULL, err);
        embedder_free(embedder);
    }
    if (code) {
        mem_free(features);
    } else {
        *out = features;
    }
    return code;
}

int evaluation_judge(const struct evaluation *evaluation, const struct layout *layout, const float *params, double *knn,
                     double *linear, struct err *err)
{
    const struct evaluation *e = evaluation;
    uint32_t train_n = dataset_count(e->train), test_n = dataset_count(e->test), d = layout->backbone;
    float *train = NULL, *test = NULL;
    int code = evaluation_features(e->train, layout, params, e->threads, &train, err);
    code = code ? code : evaluation_features(e->test, layout, params, e->threads, &test, err);
    if (!code && knn) {
        code = judge_knn(train, e->train_labels, train_n, test, e->test_labels, test_n, d, e->classes,
                         EVALUATE_NEIGHBOURS, EVALUATE_TEMPERATURE, knn, err);
    }
    if (!code && linear) {
        code = judge_linear(train, e->train_labels, train_n, test, e->test_labels, test_n, d, e->classes, linear, NULL,
                            err);
    }
    mem_free(train);
    mem_free(test);
    return code;
}

int evaluation_judge_file(const struct evaluation *evaluation, const char *path, double *knn, double *linear,
                          struct err *err)
{
    struct model_info info;
    struct layout *layout;
    float *params;
    int code = modelfile_load(&disk_posix, path, &info, &layout, &params, err);
    if (!code) {
        code = evaluation_judge(evaluation, layout, params, knn, linear, err);
        layout_free(layout);
        mem_free(params);
    }
    return code;
}

/* [count, d] pixels less `mean`, which is computed first when `own` says that these are the training images. */
static float *centred_pixels(const struct dataset *dataset, double *mean, bool own)
{
    uint32_t n = dataset_count(dataset), side = dataset_side(dataset);
    size_t d = (size_t)side * side * 3;
    float *rows = mem_new_aligned(n * d, sizeof *rows);
    for (uint32_t i = 0; rows && own && i < n; i++) {
        const uint8_t *pixels = dataset_pixels(dataset, i);
        for (size_t j = 0; j < d; j++) {
            mean[j] += (double)pixels[j] / n;
        }
    }
    for (uint32_t i = 0; rows && i < n; i++) {
        const uint8_t *pixels = dataset_pixels(dataset, i);
        for (size_t j = 0; j < d; j++) {
            rows[i * d + j] = (float)(pixels[j] - mean[j]);
        }
    }
    return rows;
}

int evaluation_judge_pixels(const struct evaluation *evaluation, double *knn, struct err *err)
{
    const struct evaluation *e = evaluation;
    uint32_t side = dataset_side(e->train), d = side * side * 3;
    double *mean = mem_new(d, sizeof *mean);
    float *train = mean ? centred_pixels(e->train, mean, true) : NULL;
    float *test = train ? centred_pixels(e->test, mean, false) : NULL;
    int code =
        test ? judge_knn(train, e->train_labels, dataset_count(e->train), test, e->test_labels, dataset_count(e->test),
                         d, e->classes, EVALUATE_NEIGHBOURS, EVALUATE_TEMPERATURE, knn, err)
             : no_memory(err);
    mem_free(mean);
    mem_free(train);
    mem_free(test);
    return code;
}
