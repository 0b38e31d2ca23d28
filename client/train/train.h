/* One local round: parameters and remote features in; update, features and report out. Everything else that a site
 * takes from one round to the next is the carry: key encoder, queue and velocity (nn/moco.h), and behind them, unless
 * wire.update is f32, the rest: what packing left out of the updates so far, f32 [total]. The result is a function of
 * the job, the folder and the site's seed: training the same round again after a crash yields the same bytes. (Where
 * the plan has noise for privacy, which must be secret, the update and the features are not: noise.h.)
 *
 * Error feedback (Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019): a round sends Q(update + rest), and
 * what Q left out is the next round's rest. So what was sent differs from what was learned by the last rest alone,
 * however many rounds there were. A contribution that did not count takes its carry with it, and so its rest: the next
 * one begins with the rest of the last that counted. Noise comes before it, so a rest is made of noisy numbers alone.
 */
#ifndef STARLING_TRAIN_TRAIN_H
#define STARLING_TRAIN_TRAIN_H

#include "client/data/augment.h"
#include "client/data/dataset.h"
#include "client/nn/net_plan.h"
#include "client/train/noise.h"
#include "common/base/watch.h"
#include "common/config/plan.h"
#include "common/vec/layout.h"

#include <stdatomic.h>

struct trainer;

struct train_job {
    uint32_t round;
    const float *params; /* [layout->total], the aggregated model */
    const float *remote; /* [remote_rows, d] or NULL */
    uint32_t remote_rows;
    /* The result's of an earlier round, aligned as floats are; NULL: none. It numbers images by their place in the
     * folder: when pictures came or went since, rows of the queue are taken for other images' until new keys have
     * replaced them. */
    const void *carry;
    size_t carry_bytes;
    uint32_t carry_round;
};

struct train_result { /* all memory owned; train_result_fini */
    void *update;     /* [total]: local minus aggregated, statistics included; packed as wire.update says */
    size_t update_bytes;
    float *features; /* [feature_rows, d] unit rows, made by fusion.encoder; NULL when no features travel */
    uint32_t feature_rows;
    void *carry; /* for the next round */
    size_t carry_bytes;
    uint64_t images, seen, train_ms;
    uint64_t input_wait_ms; /* of train_ms, without views to train on */
    uint32_t steps;
    double loss, loss_contrast, loss_matching, remote_share, images_per_second;
    double features_cost, update_cost; /* in privacy (privacy_rho's); 0: without noise */
    double update_length;              /* before it was clipped; 0: it was not measured */
    /* Of the features of the first step, which the aggregated encoder made before it learnt anything here, and of the
     * last: this site's own. Both are by training views, by BN statistics of groups of the batch, and against keys of
     * the momentum encoder. */
    struct watch aggregate, own;
};

struct train_progress {
    _Atomic uint32_t step, steps;
    _Atomic float loss, images_per_second;
    _Atomic bool cancel; /* set by another thread; train_round returns ERR_CANCELLED within one step */
};

/* What is a site's own. */
struct trainer_options {
    const char *name;
    /* Of the site's random streams: order of images, views, draws. Nobody else should know it. NULL: plan->seed and
     * name make it, so that whoever knows these can draw the same. */
    const uint64_t *seed;
    uint32_t threads;
    struct compute compute;
    struct noise_source noise; /* must be there when the plan has noise */
    const struct log *log;
};

/* Bytes that training will hold, before anything is built; measured choices may add or take some. */
int trainer_memory(const struct plan *plan, const struct layout *layout, const struct trainer_options *options,
                   uint64_t *bytes, struct err *err);
/* Keeps plan, layout, dataset and log by reference. */
int trainer_new(const struct plan *plan, const struct layout *layout, const struct dataset *dataset,
                const struct trainer_options *options, struct trainer **out, struct err *err);
/* The kernels that run: "onednn f32, Winograd in 36 of 59 passes". */
void trainer_text(const struct trainer *trainer, char *out, size_t size);
void trainer_free(struct trainer *trainer);
int train_round(struct trainer *trainer, const struct train_job *job, struct train_progress *progress,
                struct train_result *out, struct err *err);
void train_result_fini(struct train_result *result);

/* The plan's augmentation, as views are made by it. */
struct augment_options train_augment(const struct plan *plan);
/* Steps of a round for a folder of n images: local_steps, or local_epochs * max(1, n / batch). A folder smaller than a
 * batch repeats images. */
uint32_t train_steps(const struct plan *plan, uint32_t images);
/* Cosine over the run's rounds and the steps within: lr(t) = lr/2 * (1 + cos(pi t)), t in [0, 1). */
double train_learning_rate(const struct plan *plan, uint32_t round, uint32_t step, uint32_t steps);
/* 0 before start_round, then linear over ramp_rounds up to matching.weight. */
double train_matching_weight(const struct plan *plan, uint32_t round);

#endif
