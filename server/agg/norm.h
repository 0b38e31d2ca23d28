/* How long updates are, and how long they may be. An update has two parts, which are measured apart: what is trained,
 * and the statistics of batch normalisation. The latter are measurements, of other sizes, and in one norm the larger
 * part would hide the smaller. A part's length is its L2 norm, in double, summed in a fixed order.
 *
 * What is usual is the median of what was accepted: of each of the last NORM_ROUNDS rounds the median of its norms, and
 * of these the median. Of an even count it is the lower of the two in the middle, so that one of two sites cannot move
 * it up.
 *
 * A part may be shortened, all of it by one factor f. Statistics stay statistics: E[x] and E[x^2] then are 1 - f times
 * the model's and f times what was sent, which are the moments of such a mixture, so no variance comes out below zero
 * that was not before. */
#ifndef STARLING_AGG_NORM_H
#define STARLING_AGG_NORM_H

#include "common/vec/layout.h"

#define NORM_ROUNDS 5
/* Statistics hardly move where a round is short or the images are much alike, and their median may be 0: no measure of
 * anything. A usual length of statistics is never less than this times the length of the model's own, so that nobody is
 * too long beside others who stood still. Real rounds moved by more, also with a learning rate of next to nothing. */
#define NORM_STATISTICS_LEAST 0.005

enum norm_part { NORM_TRAINED, NORM_STATISTICS, NORM_PARTS };
const char *norm_part_name(enum norm_part part); /* "trained parameters" */

/* Of a part of an update, or of a model. */
double norm_of(const struct layout *layout, enum norm_part part, const float *numbers);
void norm_scale(const struct layout *layout, enum norm_part part, float *update, double factor);
/* The lower median; puts the norms in order. 0 when there are none. */
double norm_median(double *norms, uint32_t count);

/* Of a part's history [NORM_ROUNDS], newest first, 0 where there is no round. 0: there is none, or nothing moved in it.
 */
double norm_usual(const double *history);
void norm_push(double *history, double median);

#endif
