/* A two-dimensional map of feature rows: t-SNE (van der Maaten and Hinton, JMLR 2008), exact, for a few thousand rows.
 * Rows are compared by cosine. For people's eyes: near rows lie near, distances between far ones mean nothing. */
#ifndef STARLING_NN_TSNE_H
#define STARLING_NN_TSNE_H

#include "common/base/err.h"

#include <stdint.h>

#define TSNE_ROWS_MAX 5000 /* time and memory grow with the square */

/* rows: [n, d], n >= 4; places: [n, 2]. The same seed gives the same map on one machine. ERR_DATA, ERR_NOMEM. */
int tsne(const float *rows, uint32_t n, uint32_t d, uint64_t seed, float *places, struct err *err);

#endif
