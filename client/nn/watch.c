#include "client/nn/watch.h"

#include "common/base/mem.h"

#include <math.h>

#define SWEEPS 50 /* more than Jacobi's method ever takes */

static double square_distance(const float *a, const float *b, uint32_t d)
{
    double sum = 0;
    for (uint32_t j = 0; j < d; j++) {
        double difference = (double)a[j] - (double)b[j];
        sum += difference * difference;
    }
    return sum;
}

static double alignment(const float *q, const float *k, uint32_t n, uint32_t d)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += square_distance(q + (size_t)i * d, k + (size_t)i * d, d);
    }
    return sum / n;
}

static double uniformity(const float *q, uint32_t n, uint32_t d)
{
    double sum = 0;
    for (uint32_t i = 1; i < n; i++) {
        for (uint32_t j = 0; j < i; j++) {
            sum += exp(-2 * square_distance(q + (size_t)i * d, q + (size_t)j * d, d));
        }
    }
    return log(sum / ((double)n * (n - 1) / 2));
}

/* x [n, d]: q less its mean row. Of rows that are all the same exactly zero: their sum and its quotient by n are exact.
 * Returns the deviation. */
static double centre(const float *q, uint32_t n, uint32_t d, double *x)
{
    double deviations = 0;
    for (uint32_t j = 0; j < d; j++) {
        double sum = 0, squares = 0;
        for (uint32_t i = 0; i < n; i++) {
            sum += (double)q[(size_t)i * d + j];
        }
        for (uint32_t i = 0; i < n; i++) {
            double value = (double)q[(size_t)i * d + j] - sum / n;
            x[(size_t)i * d + j] = value;
            squares += value * value;
        }
        deviations += sqrt(squares / n);
    }
    return deviations / sqrt((double)d);
}

/* a [m, m], m the smaller of n and d: the products of x's rows or of its columns, which have the same eigenvalues but
 * for zeros. */
static void gram(const double *x, uint32_t n, uint32_t d, double *a)
{
    uint32_t m = n < d ? n : d, terms = n < d ? d : n;
    size_t next = n < d ? d : 1, along = n < d ? 1 : d;
    for (uint32_t i = 0; i < m; i++) {
        for (uint32_t j = 0; j <= i; j++) {
            double sum = 0;
            for (uint32_t t = 0; t < terms; t++) {
                sum += x[i * next + t * along] * x[j * next + t * along];
            }
            a[(size_t)i * m + j] = a[(size_t)j * m + i] = sum;
        }
    }
}

/* Jacobi's rotation of rows and columns p and q that makes a[p][q] zero. */
static void rotate(double *a, uint32_t m, uint32_t p, uint32_t q)
{
    double *rp = a + (size_t)p * m, *rq = a + (size_t)q * m, apq = rp[q];
    double theta = (rq[q] - rp[p]) / (2 * apq);
    double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
    double c = 1 / sqrt(t * t + 1), s = t * c;
    for (uint32_t i = 0; i < m; i++) {
        double vp = rp[i], vq = rq[i];
        if (i != p && i != q) {
            rp[i] = a[(size_t)i * m + p] = c * vp - s * vq;
            rq[i] = a[(size_t)i * m + q] = s * vp + c * vq;
        }
    }
    rp[p] -= t * apq;
    rq[q] += t * apq;
    rp[q] = rq[p] = 0;
}

/* The eigenvalues of the symmetric a come to stand on its diagonal. */
static void diagonalise(double *a, uint32_t m, double trace)
{
    double least = 1e-12 * trace / m; /* an element this small moves no eigenvalue by as much */
    bool done = false;
    for (uint32_t sweep = 0; sweep < SWEEPS && !done; sweep++) {
        done = true;
        for (uint32_t p = 0; p + 1 < m; p++) {
            for (uint32_t q = p + 1; q < m; q++) {
                if (fabs(a[(size_t)p * m + q]) > least) {
                    rotate(a, m, p, q);
                    done = false;
                }
            }
        }
    }
}

static double effective_rank(double *a, uint32_t m)
{
    double trace = 0, entropy = 0;
    for (uint32_t i = 0; i < m; i++) {
        trace += a[(size_t)i * m + i];
    }
    if (!(trace > 0)) {
        return 1;
    }
    diagonalise(a, m, trace);
    for (uint32_t i = 0; i < m; i++) {
        double share = a[(size_t)i * m + i] / trace;
        entropy -= share > 0 ? share * log(share) : 0;
    }
    return entropy > 0 ? exp(entropy) : 1;
}

int watch_measure(const float *q, const float *k, uint32_t n, uint32_t d, struct watch *out, struct err *err)
{
    n = n < WATCH_ROWS ? n : WATCH_ROWS;
    *out = (struct watch){0};
    if (n < 2) {
        return 0;
    }
    uint32_t m = n < d ? n : d;
    double *x = mem_new((size_t)n * d, sizeof *x), *a = mem_new((size_t)m * m, sizeof *a);
    if (x && a) {
        out->measured = true;
        out->alignment = alignment(q, k, n, d);
        out->uniformity = uniformity(q, n, d);
        out->deviation = centre(q, n, d, x);
        gram(x, n, d, a);
        out->rank = effective_rank(a, m);
    }
    mem_free(a);
    mem_free(x);
    return out->measured ? 0 : err_set(err, ERR_NOMEM, "no memory to measure %u features of %u numbers", n, d);
}
