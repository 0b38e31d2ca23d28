/* Watching a representation without labels: the measures of common/base/watch.h.
 *
 * Alignment and uniformity are Wang and Isola's (ICML 2020), with uniformity over all pairs of queries; the deviation
 * is what Chen and He watch (SimSiam, CVPR 2021); the effective rank is Roy and Vetterli's (EUSIPCO 2007): exp of the
 * entropy of the covariance's eigenvalues, normalised to sum one. Rows that are all the same have rank 1.
 *
 * At most WATCH_ROWS rows are looked at, the first ones. n rows span at most n - 1 directions around their mean, so
 * ranks of small batches are bounded by the batch and compare only with ranks of batches as large. */
#ifndef STARLING_NN_WATCH_H
#define STARLING_NN_WATCH_H

#include "common/base/err.h"
#include "common/base/watch.h"

#define WATCH_ROWS 128u

/* q, k: [n, d] unit rows, the two views of each image. Fewer than 2 rows measure nothing. A function of the rows alone:
 * sums run in double and in one order. ERR_NOMEM. */
int watch_measure(const float *q, const float *k, uint32_t n, uint32_t d, struct watch *out, struct err *err);

#endif
