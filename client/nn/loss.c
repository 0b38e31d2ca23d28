/* The method is described in README; what is the paper's and what is ours is said at each loss in loss.h.
 *
 * Every loss is two dense products around a pass over the logits: similarities, a softmax that turns them in place into
 * the coefficients of the gradient, and coefficients times rows. */
#include "client/nn/loss.h"

#include "client/nn/blas.h"
#include "client/nn/simd/simd.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* out [B, n] (rows `stride` apart) = scale * q [B, d] * rows [n, d]^T. */
static void similarities(uint32_t B, uint32_t d, uint32_t n, const float *q, const float *rows, float scale, float *out,
                         size_t stride)
{
    blas_gemm(B, n, d, scale, (struct blas_matrix){q, d, 0}, (struct blas_matrix){rows, d, 1}, 0, out, stride);
}

/* dq [B, d] += coefficients [B, n] * rows [n, d]. */
static void pull(uint32_t B, uint32_t d, uint32_t n, const float *coefficients, size_t stride, const float *rows,
                 float *dq)
{
    if (n == 0) {
        return;
    }
    blas_gemm(B, d, n, 1, (struct blas_matrix){coefficients, stride, 0}, (struct blas_matrix){rows, d, 0}, 1, dq, d);
}

static void pull_one(uint32_t d, double coefficient, const float *row, float *dq)
{
    for (uint32_t j = 0; j < d; j++) {
        dq[j] += (float)coefficient * row[j];
    }
}

/* Takes the rows that show query i's own image out of its sum, or out of the choice. */
static void leave_own_out(uint32_t n, const uint32_t *image, const uint32_t *own, uint32_t i, float *logits)
{
    for (uint32_t j = 0; image && own && j < n; j++) {
        if (image[j] == own[i]) {
            logits[j] = -INFINITY;
        }
    }
}

void loss_contrast(uint32_t B, uint32_t d, const float *q, const float *k, const struct loss_negatives *negatives,
                   float temperature, float *dq, double *loss, double *accuracy, float *scratch)
{
    uint32_t n = negatives->n;
    size_t stride = (size_t)n + 1; /* column 0 is the positive */
    double total = 0, pulls = 1 / ((double)B * (double)temperature);
    uint32_t right = 0;
    similarities(B, d, n, q, negatives->rows, 1 / temperature, scratch + 1, stride);
    for (uint32_t i = 0; i < B; i++) {
        float *logits = scratch + i * stride;
        double positive = blas_dot(q + (size_t)i * d, k + (size_t)i * d, d) / (double)temperature;
        leave_own_out(n, negatives->image, negatives->own, i, logits + 1);
        float rival = simd()->largest(logits + 1, n);
        logits[0] = (float)positive;
        float top = logits[0] > rival ? logits[0] : rival;
        right += logits[0] > rival;
        double sum = simd()->exponentials(logits, n + 1, top);
        total += (double)top - positive + log(sum);
        simd()->scale(logits, n + 1, (float)(pulls / sum));
        pull_one(d, (double)logits[0] - pulls, k + (size_t)i * d, dq + (size_t)i * d);
    }
    pull(B, d, n, scratch + 1, stride, negatives->rows, dq);
    *loss = total / B;
    *accuracy = (double)right / B;
}

/* The `count` largest of n values, largest first; of equal ones the first. Those that were left out (-INFINITY) are
 * none of them, so there may be fewer; how many there are is returned. */
static uint32_t choose_largest(const float *values, uint32_t n, uint32_t count, uint32_t *chosen)
{
    uint32_t have = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (values[i] == -INFINITY || (have == count && !(values[i] > values[chosen[have - 1]]))) {
            continue;
        }
        uint32_t at = have < count ? have++ : have - 1;
        for (; at > 0 && values[i] > values[chosen[at - 1]]; at--) {
            chosen[at] = chosen[at - 1];
        }
        chosen[at] = i;
    }
    return have;
}

void loss_matching_entropy(uint32_t B, uint32_t d, const float *q, const struct loss_candidates *candidates,
                           uint32_t neighbours, float temperature, float weight, float *dq, double *loss,
                           float *scratch)
{
    uint32_t m = candidates->n;
    const float *rows = candidates->rows;
    uint32_t chosen[LOSS_NEIGHBOURS_MAX];
    double p[LOSS_NEIGHBOURS_MAX], total = 0;
    similarities(B, d, m, q, rows, 1 / temperature, scratch, m);
    for (uint32_t i = 0; i < B; i++) {
        float *logits = scratch + (size_t)i * m;
        leave_own_out(m, candidates->image, candidates->own, i, logits);
        uint32_t found = choose_largest(logits, m, neighbours, chosen);
        if (found == 0) {
            continue;
        }
        double top = (double)logits[chosen[0]], sum = 0, entropy = 0;
        for (uint32_t j = 0; j < found; j++) {
            p[j] = exp((double)logits[chosen[j]] - top);
            sum += p[j];
        }
        for (uint32_t j = 0; j < found; j++) {
            double log_p = (double)logits[chosen[j]] - top - log(sum);
            p[j] /= sum;
            entropy -= p[j] * log_p;
        }
        /* dH / dlogit_j = -p_j (log p_j + H). */
        for (uint32_t j = 0; j < found; j++) {
            double log_p = (double)logits[chosen[j]] - top - log(sum);
            double by = -p[j] * (log_p + entropy) * (double)weight / ((double)temperature * B);
            pull_one(d, by, rows + (size_t)chosen[j] * d, dq + (size_t)i * d);
        }
        total += entropy;
    }
    *loss = (double)weight * total / B;
}

/* Takes negatives that are the same feature as a positive out of row i's sum. A copy has the same similarity up to
 * rounding, so only those near it are compared as a whole. */
static void leave_out(float *logits, uint32_t n, uint32_t d, const float *negatives, const float *positive, float logit)
{
    float near = 1e-4f * (1 + fabsf(logit));
    for (uint32_t j = 0; j < n; j++) {
        if (fabsf(logits[j] - logit) <= near &&
            memcmp(negatives + (size_t)j * d, positive, d * sizeof *positive) == 0) {
            logits[j] = -INFINITY;
        }
    }
}

/* One image of loss_matching_positives: the mean loss over its neighbours; logits [n] become the coefficients of the
 * negatives. */
static double matching_row(uint32_t d, uint32_t n, const float *rows, const float *negatives, const uint32_t *chosen,
                           uint32_t neighbours, const float *similar, double pulls, float *logits, float *dq)
{
    if (neighbours == 0) {
        memset(logits, 0, n * sizeof *logits);
        return 0;
    }
    float top = -INFINITY;
    pulls /= neighbours;
    for (uint32_t j = 0; j < neighbours; j++) {
        leave_out(logits, n, d, negatives, rows + (size_t)chosen[j] * d, similar[chosen[j]]);
        top = similar[chosen[j]] > top ? similar[chosen[j]] : top;
    }
    float rival = simd()->largest(logits, n);
    top = rival > top ? rival : top;
    double rest = simd()->exponentials(logits, n, top), shares = 0, total = 0;
    for (uint32_t j = 0; j < neighbours; j++) {
        double logit = (double)similar[chosen[j]] - (double)top, e = exp(logit), sum = e + rest;
        total += log(sum) - logit;
        shares += 1 / sum;
        pull_one(d, (e / sum - 1) * pulls, rows + (size_t)chosen[j] * d, dq);
    }
    simd()->scale(logits, n, (float)(shares * pulls));
    return total / neighbours;
}

void loss_matching_positives(uint32_t B, uint32_t d, const float *q, const float *k,
                             const struct loss_candidates *candidates, const struct loss_negatives *negatives,
                             uint32_t neighbours, float temperature, float weight, float *dq, double *loss,
                             float *scratch)
{
    uint32_t chosen[LOSS_NEIGHBOURS_MAX], n = negatives->n, m = candidates->n;
    const float *rows = candidates->rows;
    float *logits = scratch, *near = logits + (size_t)B * n, *similar = near + (size_t)B * m;
    double total = 0, pulls = (double)weight / ((double)temperature * B);
    similarities(B, d, n, q, negatives->rows, 1 / temperature, logits, n);
    similarities(B, d, m, k, rows, 1, near, m);
    similarities(B, d, m, q, rows, 1 / temperature, similar, m);
    for (uint32_t i = 0; i < B; i++) {
        leave_own_out(m, candidates->image, candidates->own, i, near + (size_t)i * m);
        uint32_t found = choose_largest(near + (size_t)i * m, m, neighbours, chosen);
        leave_own_out(n, negatives->image, negatives->own, i, logits + (size_t)i * n);
        total += matching_row(d, n, rows, negatives->rows, chosen, found, similar + (size_t)i * m, pulls,
                              logits + (size_t)i * n, dq + (size_t)i * d);
    }
    pull(B, d, n, logits, n, negatives->rows, dq);
    *loss = (double)weight * total / B;
}
