/* How long updates are, and how long they may be: the L2 norm over the trained parameters, in double, summed in a fixed
 * order. (Statistics of batch normalisation are measurements of other sizes.)
 *
 * What is usual is the median of what was accepted: of each of the last NORM_ROUNDS rounds the median of its norms, and
 * of these the median. Of an even count it is the lower of the two in the middle, so that one of two sites cannot move
 * it up. */
#ifndef STARLING_AGG_NORM_H
#define STARLING_AGG_NORM_H

#include "common/vec/layout.h"

#define NORM_ROUNDS 5

double norm_of(const struct layout *layout, const float *update);
/* The update's trained parameters, times a factor. */
void norm_scale(const struct layout *layout, float *update, double factor);
/* The lower median; puts the norms in order. 0 when there are none. */
double norm_median(double *norms, uint32_t count);

/* Of a history [NORM_ROUNDS], newest first, 0 where there is no round. 0: there is none, or nothing moved in it. */
double norm_usual(const double *history);
void norm_push(double *history, double median);

#endif
