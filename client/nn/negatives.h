/* The negatives of one step: some of the queue, some of the remote features, gathered into one matrix. */
#ifndef STARLING_NN_NEGATIVES_H
#define STARLING_NN_NEGATIVES_H

#include "client/nn/queue.h"

struct negatives {
    uint32_t remote, local; /* rows of each, remote ones first */
    float *data;            /* [remote + local, d] */
    uint32_t *image;        /* [remote + local]: the image of this site that a row shows, or QUEUE_NO_IMAGE */
    uint32_t *order;        /* room to draw in */
};

/* Room for draws out of a queue of `queue` rows and of up to `remote` remote ones. */
int negatives_init(struct negatives *negatives, uint32_t queue, uint32_t remote, uint32_t d, struct err *err);
void negatives_fini(struct negatives *negatives);

/* As many negatives as the queue has rows, N. With remote features min(m, share * N rounded) of them are remote and the
 * queue gives the rest; but with share 1 none is local, and without remote features all are. Fewer than there are get
 * drawn without replacement, by (seed, step). */
void negatives_draw(struct negatives *negatives, const struct queue *queue, const float *remote, uint32_t m,
                    float share, uint64_t seed, uint64_t step);

#endif
