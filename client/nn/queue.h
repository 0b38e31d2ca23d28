/* The queue of key features: a ring of K unit rows, the oldest replaced first.
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
};

int queue_init(struct queue *queue, uint32_t rows, uint32_t d, uint64_t seed, struct err *err);
void queue_fini(struct queue *queue);
/* keys: [n, d]; of more than K the last ones stay. */
void queue_push(struct queue *queue, const float *keys, uint32_t n);
/* Row i counted from the oldest. */
const float *queue_row(const struct queue *queue, uint32_t i);
/* ERR_DATA when a row of [n, d] is not finite or not of unit length within 1e-3; the sentence calls it `what`. */
int queue_check_rows(const float *rows, uint32_t n, uint32_t d, const char *what, struct err *err);

#endif
