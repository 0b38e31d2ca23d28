/* The server's optimiser: what becomes of the averaged update of a round.
 *
 *   none      x += lr d
 *   momentum  v = m v + d;  x += lr v                             FedAvgM: Hsu, Qi, Brown, arXiv 1909.06335
 *   adam      v = m v + (1 - m) d;  s = b s + (1 - b) d d;        FedAdam: Reddi et al., ICLR 2021, algorithm 2,
 *             x += lr v / (sqrt(s) + e)                           which corrects no bias
 *
 * d is the mean of the updates, that is, of what the sites moved by, so the step goes along it. v begins at 0, s at e
 * e, the least that algorithm 2 allows. All this holds for trained parameters. The statistics of batch normalisation
 * are measurements, no point on a descent: they take the plain mean.
 *
 * The state, [vectors, trainable_end] f32, is v and then s. It is computed in double and rounded once, as the model is:
 * IEEE arithmetic without contraction, one rounding for each operation, hence the same bits everywhere. */
#ifndef STARLING_AGG_OPTIMISER_H
#define STARLING_AGG_OPTIMISER_H

#include "common/vec/layout.h"

enum optimiser_kind { OPTIMISER_NONE, OPTIMISER_MOMENTUM, OPTIMISER_ADAM };

struct optimiser {
    enum optimiser_kind kind;
    double learning_rate, momentum, beta2, epsilon;
};

/* Floats of the state; 0: there is none. */
uint64_t optimiser_floats(const struct optimiser *optimiser, const struct layout *layout);
/* The state before the first round. */
void optimiser_begin(const struct optimiser *optimiser, const struct layout *layout, float *state);
/* One round. shifts, sum, weight: as of fixed_apply, which has made `next` out of `global`; its trained parameters are
 * stepped anew. `state` is left as it is; what it becomes is `next_state`, other memory. Both may be NULL where there
 * is none. */
void optimiser_step(const struct optimiser *optimiser, const struct layout *layout, const int32_t *shifts,
                    const int64_t *sum, uint64_t weight, const float *state, const float *global, float *next_state,
                    float *next);

#endif
