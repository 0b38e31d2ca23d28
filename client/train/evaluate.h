/* How good is a model on labelled images? Used by `starling eval`, `starling demo` and observers.
 *
 * Both folders are decoded once; each model is then judged by frozen features: the pooled backbone, batch normalisation
 * in evaluation mode. A class is a folder's name; the classes of both folders must be the same ones. */
#ifndef STARLING_TRAIN_EVALUATE_H
#define STARLING_TRAIN_EVALUATE_H

#include "client/data/dataset.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/vec/layout.h"

#include <stdbool.h>
#include <stdint.h>

#define EVALUATE_NEIGHBOURS  200
#define EVALUATE_TEMPERATURE 0.1f

struct evaluation {
    struct dataset *train, *test;
    uint32_t *train_labels, *test_labels; /* numbers of the training folder's classes */
    uint32_t classes;
    uint32_t threads;
};

/* Decodes both folders at the model's input size; `cancel`, which may be NULL, ends that soon once another thread sets
 * it (ERR_CANCELLED). ERR_DATA: a folder without images or class folders, fewer than two
 * classes, a test class that training does not have. Zeroed on failure. */
int evaluation_open(const char *train, const char *test, uint32_t side, uint32_t threads, const bool *cancel,
                    const struct log *log, struct evaluation *out, struct err *err);
void evaluation_close(struct evaluation *evaluation);

/* Judges one model; where a pointer is NULL that judge is not asked. knn: cosine, k = 200 (fewer when there are fewer
 * images), temperature 0.1. linear: softmax regression. ERR_CONFIG when the model's input is another size. */
int evaluation_judge(const struct evaluation *evaluation, const struct layout *layout, const float *params, double *knn,
                     double *linear, struct err *err);
/* The same for a model file. */
int evaluation_judge_file(const struct evaluation *evaluation, const char *path, double *knn, double *linear,
                          struct err *err);
/* The same neighbours without any model: on pixels less the training images' mean, which is what a useful encoder must
 * beat. */
int evaluation_judge_pixels(const struct evaluation *evaluation, double *knn, struct err *err);

/* Backbone features of every image of a dataset: *out is [count, layout->backbone], from mem_new_aligned. */
int evaluation_features(const struct dataset *dataset, const struct layout *layout, const float *params,
                        uint32_t threads, float **out, struct err *err);

#endif
