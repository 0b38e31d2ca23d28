/* The queue of key features: a ring of K unit rows, the oldest replaced first, each with the image that it shows.
 *
 * It is full from the start: rows of random direction, a function of the seed, stand in until real keys push them out
 * (as in the published MoCo), so that the number of negatives is the same in every step. */
#ifndef STARLING_NN_QUEUE_H
#define STARLING_NN_QUEUE_H

#include "common/base/err.h"

#include <stdint.h>

struct queue {
    uint32_t rows, d;
    uint32_t oldest; /* row that the next key replaces */
    float *data;     /* [rows, d] */
    uint32_t *image; /* [rows]: number of the image in the site's folder, or QUEUE_NO_IMAGE */
};

#define QUEUE_NO_IMAGE UINT32_MAX /* a row of random direction, or of an image that is not known */

/* Empty of meaning until queue_reset or queue_push. ERR_NOMEM. */
int queue_init(struct queue *queue, uint32_t rows, uint32_t d, struct err *err);
void queue_fini(struct queue *queue);
/* The rows of random direction. */
void queue_reset(struct queue *queue, uint64_t seed);
/* keys: [n, d] of images [n], NULL: not known; of more than K the last ones stay. */
void queue_push(struct queue *queue, const float *keys, const uint32_t *images, uint32_t n);
/* Row i counted from the oldest. */
const float *queue_row(const struct queue *queue, uint32_t i);
uint32_t queue_image(const struct queue *queue, uint32_t i);
/* ERR_DATA when a row of [n, d] is not finite or not of unit length within 1e-3; the sentence calls it `what`. */
int queue_check_rows(const float *rows, uint32_t n, uint32_t d, const char *what, struct err *err);

#endif
