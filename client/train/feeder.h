/* Batches of augmented views, made ahead by threads of their own while the trainer computes. */
#ifndef STARLING_TRAIN_FEEDER_H
#define STARLING_TRAIN_FEEDER_H

#include "client/data/augment.h"
#include "client/data/dataset.h"

struct feeder;

struct feeder_options {
    const struct dataset *dataset; /* kept by reference */
    struct augment_options augment;
    uint32_t batch, size; /* size: pixels a side of a view */
    uint32_t threads;
    uint64_t seed;
    uint64_t position; /* of the first image in the site's endless order */
    uint32_t steps;    /* batches that will be asked for, at most */
};

/* Bytes of the batches that a feeder holds. */
uint64_t feeder_memory(uint32_t batch, uint32_t size);
/* Starts to make views at once. ERR_NOMEM; ERR_FAILED when no thread can be started. */
int feeder_new(const struct feeder_options *options, struct feeder **out, struct err *err);
/* At any time; ends the threads. */
void feeder_free(struct feeder *feeder);
/* One step's input, valid until the next call. */
struct feeder_batch {
    const uint32_t *images;     /* [batch]: which image of the folder each row shows */
    const float *view1, *view2; /* [batch, 3, size, size] */
};
/* The next batch, waiting for it. Not more than `steps` calls. */
struct feeder_batch feeder_next(struct feeder *feeder);

/* Where an image stands in the site's endless order: permutations of the folder, one after the other. Every image is
 * seen once before any is seen again, also when a round ends in the middle, and a batch larger than the folder repeats
 * images. */
struct feeder_place {
    uint32_t image;
    uint64_t epoch; /* number of the permutation: with `image` it names the views, so none is ever repeated */
};
struct feeder_order {
    uint64_t seed, epoch;
    uint32_t count, *images; /* the permutation of `epoch` */
};
int feeder_order_init(struct feeder_order *order, uint64_t seed, uint32_t count); /* ERR_NOMEM */
void feeder_order_fini(struct feeder_order *order);
struct feeder_place feeder_order_at(struct feeder_order *order, uint64_t position);

#endif
