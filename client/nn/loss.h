/* The losses and their gradients. Pure functions on row-major floats; dense products through OpenBLAS (blas.c).
 *
 * All gradients are means over the B rows and accumulate into dq. Feature rows are unit length; the loss treats them as
 * free variables (the normalisation's gradient is the net's). */
#ifndef STARLING_NN_LOSS_H
#define STARLING_NN_LOSS_H

#include "common/base/err.h"

#include <stdint.h>

/* What queries are told apart from: n rows (n may be 0), local and remote ones, already drawn. A row that shows the
 * query's own image is no negative for it; with a queue of the folder's size every query would meet itself. */
struct loss_negatives {
    uint32_t n;
    const float *rows;     /* [n, d] */
    const uint32_t *image; /* [n]: what each shows */
    const uint32_t *own;   /* [B]: what each query shows; NULL: not known, so all rows count */
};

/* InfoNCE with fused negatives:
 *   L = mean_i -log( exp(q_i.k_i/t) / (exp(q_i.k_i/t) + sum_n exp(q_i.n/t)) )
 * q, k: [B, d]. dq: [B, d]. scratch: [B, n + 1]. *accuracy: share of rows whose positive has the largest logit. */
void loss_contrast(uint32_t B, uint32_t d, const float *q, const float *k, const struct loss_negatives *negatives,
                   float temperature, float *dq, double *loss, double *accuracy, float *scratch);

/* What neighbours are chosen from: n unit rows. A row that shows the query's own image is no neighbour of it; a query
 * with fewer candidates than neighbours has as many neighbours. */
struct loss_candidates {
    uint32_t n;
    const float *rows;     /* [n, d] */
    const uint32_t *image; /* [n]: what each shows; NULL: none of the query's images */
    const uint32_t *own;   /* [B]: what each query shows; NULL: not known, so all rows count */
};

/* Most neighbours that the matching losses take: their choice lies on the stack. */
#define LOSS_NEIGHBOURS_MAX 1024

/* Neighbourhood matching, entropy form (our reconstruction): p_ij = softmax_j(q_i.r_j / t) over the `neighbours`
 * candidates nearest to q_i; the loss is weight * mean_i H(p_i). scratch: [B, n of the candidates].
 * 1 <= neighbours <= n, at most LOSS_NEIGHBOURS_MAX. */
void loss_matching_entropy(uint32_t B, uint32_t d, const float *q, const struct loss_candidates *candidates,
                           uint32_t neighbours, float temperature, float weight, float *dq, double *loss,
                           float *scratch);

/* Neighbourhood matching, positives form (FCL, Wu et al., MICCAI 2021): the `neighbours` candidates nearest to k_i
 * (no gradient through the choice) are further positives against the same negatives:
 *   weight * mean_i mean_{p in N(i)} -log( exp(q_i.p/t) / (exp(q_i.p/t) + sum_n exp(q_i.n/t)) )
 * where negatives that are among i's positives are left out of the sum. scratch: [B, n + 2m], m of the
 * candidates. */
void loss_matching_positives(uint32_t B, uint32_t d, const float *q, const float *k,
                             const struct loss_candidates *candidates, const struct loss_negatives *negatives,
                             uint32_t neighbours, float temperature, float weight, float *dq, double *loss,
                             float *scratch);

#endif
