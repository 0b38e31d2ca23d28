/* MoCo (He et al., CVPR 2020) with remote features: query encoder trained by gradient, key encoder following it, a
 * queue of keys; one call is one optimiser step.
 *
 * The batch is cut into bn_groups groups with their own BN statistics; keys are shuffled between groups, as MoCo does
 * per device, so that BN cannot leak the answer. Worker threads take groups; gradients and statistics are summed in
 * group order, so any number of threads gives the same bits. */
#ifndef STARLING_NN_MOCO_H
#define STARLING_NN_MOCO_H

#include "common/vec/layout.h"

#include <stdbool.h>
#include <stdint.h>

enum moco_matching { MOCO_MATCHING_OFF, MOCO_MATCHING_ENTROPY, MOCO_MATCHING_POSITIVES };

struct moco_options {
    uint32_t batch, bn_groups, threads;
    uint32_t queue; /* K */
    float temperature, key_momentum, sgd_momentum, weight_decay;
    float fusion_share; /* part of the negatives that is remote; 0 turns fusion off */
    enum moco_matching matching;
    uint32_t neighbours;
    float matching_weight, matching_temperature;
    uint64_t seed; /* of the site: shuffles and draws of negatives */
};

struct moco_step {
    double loss, loss_contrast, loss_matching;
    double accuracy;     /* of the contrastive task */
    double remote_share; /* of the negatives actually used */
};

struct moco;

/* Keeps the layout by reference. Checks bn_groups | batch and the bounds of the other options. Holds one gradient
 * vector a group, and two nets of batch / bn_groups images a thread. ERR_NOMEM, ERR_CONFIG, ERR_FAILED. */
int moco_new(const struct layout *layout, const struct moco_options *options, struct moco **out, struct err *err);
void moco_free(struct moco *moco);

/* Begins a local round: query := key := params, velocity := 0, stats from params. remote: [m, d] unit rows or NULL with
 * m = 0; copied. ERR_DATA when a row is not of unit length. matching_weight is this round's (the ramp is the caller's).
 * step counts from `first_step` for draws.
 */
int moco_begin(struct moco *moco, const float *params, const float *remote, uint32_t m, float matching_weight,
               uint64_t first_step, struct err *err);
/* view1, view2: [batch, 3, input, input]. In this order: keys by the key encoder, features and gradient by the query
 * encoder, SGD, the key encoder follows the new query encoder, keys into the queue. ERR_FAILED when loss, gradient
 * or statistics are not finite; then neither encoder nor the queue has changed. */
int moco_step(struct moco *moco, const float *view1, const float *view2, float learning_rate, struct moco_step *out,
              struct err *err);

/* Query encoder as a flat vector [total], statistics included; key encoder likewise. Valid until the next call. */
const float *moco_query(const struct moco *moco);
const float *moco_key(const struct moco *moco);

/* The queue as it stands, oldest first: [rows, d]. It is full from the start, with rows of random direction that real
 * keys push out, so that rows is always K. */
uint32_t moco_queue_rows(const struct moco *moco);
void moco_queue_save(const struct moco *moco, float *out);
/* Pushes rows in; of K rows nothing older remains. rows <= queue; ERR_DATA when a row is not finite or not unit length
 * within 1e-3. */
int moco_queue_load(struct moco *moco, const float *rows, uint32_t count, struct err *err);

#endif
