/* The Gaussian mechanism, at the site: what it does to features and to an update before either leaves, and what that
 * costs (common/base/privacy.h adds it up). Normalising a noisy row again, packing it in fewer bits, error feedback and
 * whatever the server does are post-processing: they cost nothing.
 *
 * Who are neighbours:
 *   - of features: two folders of as many images that differ in one: one image was replaced. (The number of images is
 *     no secret: READY and the report say it.) Rows have length 1 at most. With fusion.encoder aggregated a row depends
 *     on its image and on the model that the server sent, and no image has two, so one row moves, by 2 at most. With
 *     momentum every row was made by an encoder that has learnt from all images, so all of the n rows may move: sqrt(n)
 *     times 2. The figure for the features of a run holds for a given sequence of models; what an image tells through
 *     the updates that made them is the update's account.
 *   - of updates: any two folders whatever: the guarantee is the site's, and so each image's. Clipped, two updates lie
 *     twice the clip apart. It covers the whole vector: statistics of batch normalisation are clipped and noised with
 *     the rest.
 *
 * Not covered: how many images and steps there were, and how long they took. (Losses and measures of features, which
 * would not be covered either, stay at the site where the update has noise: plan_hides_measures.)
 *
 * The noise is drawn from a secret source, not from the plan's seed: whoever can draw it again can subtract it. So a
 * round that is trained again yields other bytes, and is another release. It is a double of at least 53 random bits,
 * rounded with its sum to a float; an exact sampler, which would leave nothing to learn from the last bits (Mironov,
 * CCS 2012), it is not. */
#ifndef STARLING_TRAIN_NOISE_H
#define STARLING_TRAIN_NOISE_H

#include "common/base/err.h"
#include "common/config/plan.h"

#include <stddef.h>
#include <stdint.h>

/* Fills `out` with random bytes that nobody else knows: 0, or an ERR_ code. `fill` NULL: there is none. */
struct noise_source {
    int (*fill)(void *ctx, void *out, size_t bytes);
    void *ctx;
};

/* Rows [count, d]: shortened to length 1 where they are longer, `noise` added, made unit rows. ERR_DATA for a row that
 * is not finite; ERR_NOMEM; ERR_FAILED when the source fails. */
int noise_rows(const struct noise_source *source, double noise, float *rows, uint32_t count, uint32_t d,
               struct err *err);
/* x [n]: shortened to length `clip` where it is longer, noise * clip added. *length is what it had. Errors likewise. */
int noise_update(const struct noise_source *source, double clip, double noise, float *x, uint64_t n, double *length,
                 struct err *err);

/* The costs of one release of these (privacy_rho's); 0: the plan has no noise for them, or there are no rows. */
double noise_rows_cost(const struct plan *plan, uint32_t count);
double noise_update_cost(const struct plan *plan);

#endif
