/* MoCo (He et al., CVPR 2020) with remote features: query encoder trained by gradient, key encoder following it, a
 * queue of keys; one call is one optimiser step.
 *
 * The batch is cut into bn_groups groups with their own BN statistics; keys are shuffled between groups, as MoCo does
 * per device, so that BN cannot leak the answer. Worker threads take groups; gradients and statistics are summed in
 * group order, so any number of threads gives the same bits. */
#ifndef STARLING_NN_MOCO_H
#define STARLING_NN_MOCO_H

#include "client/nn/net_plan.h"

#include <stdbool.h>
#include <stdint.h>

/* Where the key encoder begins a round. */
enum moco_key_start {
    MOCO_KEY_FOLLOW, /* it has followed the aggregates since the carry's: m^steps * begin + (1 - m^steps) * params */
    MOCO_KEY_COPY,   /* a copy of params */
    MOCO_KEY_OWN,    /* as the carry's round left it at this site */
};
enum moco_matching { MOCO_MATCHING_OFF, MOCO_MATCHING_ENTROPY, MOCO_MATCHING_POSITIVES };

struct moco_options {
    uint32_t batch, bn_groups, threads;
    uint32_t queue; /* K */
    float temperature, key_momentum, sgd_momentum, weight_decay;
    enum moco_key_start key_start;
    bool keep_velocity; /* of SGD, from round to round; else each begins with none */
    float fusion_share; /* part of the negatives that is remote; 0 turns fusion off */
    enum moco_matching matching;
    bool local_candidates; /* neighbours are chosen among the queue's rows too, not among remote ones alone */
    uint32_t neighbours;
    float matching_temperature;
    uint64_t seed; /* of the site: shuffles and draws of negatives */
    struct compute compute;
};

struct moco_step {
    double loss, loss_contrast, loss_matching;
    double accuracy;     /* of the contrastive task */
    double remote_share; /* of the negatives actually used */
};

struct moco;

/* Keeps the layout by reference. Checks bn_groups | batch and the bounds of the other options. Holds the
 * memory of one training net of batch / bn_groups images a thread. ERR_NOMEM, ERR_CONFIG, ERR_FAILED. */
int moco_new(const struct layout *layout, const struct moco_options *options, struct moco **out, struct err *err);
void moco_free(struct moco *moco);
/* Bytes that moco_new will take with these options, at most, but for the kernels' scratch memory. */
int moco_memory(const struct layout *layout, const struct moco_options *options, uint64_t *bytes, struct err *err);

/* What a site carries from one round to the next, in this order, without gaps: the rows of its queue, oldest first, f32
 * [K, d]; the images that they show, u32 [K]; the key encoder as the round began or, with MOCO_KEY_OWN, as it is now,
 * f32 [total]; with keep_velocity the velocity, f32 [trainable_end]. ERR_NOMEM, ERR_FAILED. */
size_t moco_carry_bytes(const struct moco *moco);
int moco_carry_save(const struct moco *moco, void *out, struct err *err);
/* ERR_DATA when these are not the bytes of such a carry: their number, rows that are not of unit length within 1e-3,
 * parameters or a velocity that are not finite. */
int moco_carry_check(const struct moco *moco, const void *carry, size_t bytes, struct err *err);

/* Where the key encoder begins is ours to choose, and three choices were measured. A copy of params is no momentum
 * encoder: in rounds of a few steps it never lags, and learning fails. The site's own of the round before lags, but
 * each site's then lives in a space of its own, and remote features say little. MOCO_KEY_FOLLOW, the default, follows
 * params from round to round as it would have from step to step. Sites that took part in the same rounds with as many
 * steps have the same one, and nothing is sent for it. */
struct moco_round {
    const float *params; /* [total]: the query encoder, statistics included */
    /* Checked, and aligned as floats are. NULL: the key encoder begins as a copy of params, the queue with rows of
     * random direction, the velocity as zero. */
    const void *carry;
    uint64_t carry_steps; /* steps of the rounds since the carry's began */
    const float *remote;  /* [m, d] unit rows, copied; NULL with m = 0 */
    uint32_t m;
    float matching_weight; /* this round's; the ramp is the caller's */
    uint64_t first_step;   /* number of the first step, for draws */
    bool empty_queue;      /* the queue begins with rows of random direction in spite of a carry */
};
/* Begins a local round. params and carry are kept by reference until the next one begins. ERR_DATA when
 * a remote row is not of unit length; ERR_NOMEM. */
int moco_begin(struct moco *moco, const struct moco_round *round, struct err *err);
/* Keys of a batch, view [batch, 3, input, input] of images [batch], by the key encoder as it is, into the queue. As in
 * a step each group is normalised by itself; neither encoder changes, nor their statistics. */
int moco_refill(struct moco *moco, const uint32_t *images, const float *view, struct err *err);
/* view1, view2: [batch, 3, input, input]; images: [batch], which image of the folder each row shows, so that older keys
 * of it are no negatives; NULL: not known. In this order: keys by the key encoder, features and gradient by the query
 * encoder, SGD, the key encoder follows the new query encoder, keys into the queue. ERR_FAILED when loss, gradient
 * or statistics are not finite; then neither encoder nor the queue has changed. */
int moco_step(struct moco *moco, const uint32_t *images, const float *view1, const float *view2, float learning_rate,
              struct moco_step *out, struct err *err);

/* The features of the latest step's images, [batch, d] each: of view1 by the query encoder before it learnt from them,
 * of view2 by the key encoder. They stand until the next step. */
void moco_pairs(const struct moco *moco, const float **queries, const float **keys);

/* The query encoder in the layout's order, statistics included: out [total]; the key encoder likewise. ERR_NOMEM,
 * ERR_FAILED. */
int moco_query(const struct moco *moco, float *out, struct err *err);
int moco_key(const struct moco *moco, float *out, struct err *err);
/* The kernels that run, as net_plan_text has them. */
void moco_text(const struct moco *moco, char *out, size_t size);
/* The newest keys in the queue, newest first: out [count, d]. Rows of random direction are none, nor are keys
 * whose image was not told; the number of rows written is returned. */
uint32_t moco_newest_keys(const struct moco *moco, uint32_t count, float *out);

#endif
