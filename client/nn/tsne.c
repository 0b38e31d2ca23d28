/* Settings, those of the paper and of what is usual since: perplexity 30 (a third of the rows when there are few),
 * early exaggeration 12 over 250 of 750 iterations, learning rate n / 12 but at least 50, momentum 0.5 and then 0.8,
 * the gains of section 3.4. */
#include "client/nn/tsne.h"

#include "client/nn/blas.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdbool.h>

#define PERPLEXITY   30.0
#define ITERATIONS   750u
#define EXAGGERATED  250u
#define EXAGGERATION 12.0
#define BISECTIONS   64u

struct map {
    uint32_t n;
    double *p;     /* [n, n] affinities, symmetric, sum 1 */
    double *q;     /* [n, n] 1 / (1 + |y_i - y_j|^2) */
    double *y;     /* [n, 2] */
    double *speed; /* [n, 2] */
    double *gain;  /* [n, 2] */
};

/* Row i's affinities to the others, with the width of the Gaussian at which their entropy is `wanted` (in nats). */
static void affinities(double *row, uint32_t n, uint32_t i, double wanted, const double *distance)
{
    double beta = 1, least = 0, most = INFINITY;
    for (uint32_t step = 0; step < BISECTIONS; step++) {
        double sum = 0, weighted = 0;
        for (uint32_t j = 0; j < n; j++) {
            row[j] = j == i ? 0 : exp(-beta * distance[j]);
            sum += row[j];
            weighted += row[j] * distance[j];
        }
        double entropy = sum > 0 ? log(sum) + beta * weighted / sum : 0;
        for (uint32_t j = 0; j < n; j++) {
            row[j] = sum > 0 ? row[j] / sum : 0;
        }
        if (fabs(entropy - wanted) < 1e-5) {
            break;
        }
        if (entropy > wanted) {
            least = beta;
            beta = isinf(most) ? 2 * beta : (beta + most) / 2;
        } else {
            most = beta;
            beta = (beta + least) / 2;
        }
    }
}

static int make_affinities(struct map *map, const float *rows, uint32_t d)
{
    uint32_t n = map->n;
    double perplexity = PERPLEXITY < n / 3.0 ? PERPLEXITY : n / 3.0;
    double *length = mem_new(n, sizeof *length), *distance = mem_new(n, sizeof *distance);
    if (!length || !distance) {
        mem_free(length);
        mem_free(distance);
        return ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        length[i] = sqrt(blas_dot(rows + (size_t)i * d, rows + (size_t)i * d, d));
    }
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < n; j++) {
            double norm = length[i] * length[j];
            double cosine = norm > 0 ? blas_dot(rows + (size_t)i * d, rows + (size_t)j * d, d) / norm : 0;
            distance[j] = 2 - 2 * cosine;
        }
        affinities(map->p + (size_t)i * n, n, i, log(perplexity), distance);
    }
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < i; j++) {
            double *a = &map->p[(size_t)i * n + j], *b = &map->p[(size_t)j * n + i];
            *a = *b = (*a + *b) / (2.0 * n);
        }
    }
    mem_free(length);
    mem_free(distance);
    return 0;
}

/* One step of gradient descent (equation 5 of the paper). */
static void descend(struct map *map, double exaggeration, double momentum, double rate)
{
    uint32_t n = map->n;
    double total = 0, mean[2] = {0, 0};
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < i; j++) {
            double dx = map->y[2 * i] - map->y[2 * j], dy = map->y[2 * i + 1] - map->y[2 * j + 1];
            double near = 1 / (1 + dx * dx + dy * dy);
            map->q[(size_t)i * n + j] = map->q[(size_t)j * n + i] = near;
            total += 2 * near;
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        const double *p = map->p + (size_t)i * n, *q = map->q + (size_t)i * n;
        double slope[2] = {0, 0};
        for (uint32_t j = 0; j < n; j++) {
            double pull = 4 * (exaggeration * p[j] - q[j] / total) * q[j];
            slope[0] += pull * (map->y[2 * i] - map->y[2 * j]);
            slope[1] += pull * (map->y[2 * i + 1] - map->y[2 * j + 1]);
        }
        for (uint32_t k = 0; k < 2; k++) {
            double *speed = &map->speed[2 * i + k], *gain = &map->gain[2 * i + k];
            *gain = (slope[k] > 0) == (*speed > 0) ? *gain * 0.8 : *gain + 0.2;
            *gain = *gain < 0.01 ? 0.01 : *gain;
            *speed = momentum * *speed - rate * *gain * slope[k];
        }
    }
    for (uint32_t i = 0; i < 2 * n; i++) {
        map->y[i] += map->speed[i];
        mean[i % 2] += map->y[i] / n;
    }
    for (uint32_t i = 0; i < 2 * n; i++) {
        map->y[i] -= mean[i % 2];
    }
}

int tsne(const float *rows, uint32_t n, uint32_t d, uint64_t seed, float *places, struct err *err)
{
    if (n < 4 || n > TSNE_ROWS_MAX || d == 0) {
        return err_set(err, ERR_DATA, "a map needs 4 to %d rows, not %u", TSNE_ROWS_MAX, n);
    }
    size_t pairs = (size_t)n * n, numbers = 2 * (size_t)n;
    struct map map = {.n = n,
                      .p = mem_new(pairs, sizeof(double)),
                      .q = mem_new(pairs, sizeof(double)),
                      .y = mem_new(numbers, sizeof(double)),
                      .speed = mem_new(numbers, sizeof(double)),
                      .gain = mem_new(numbers, sizeof(double))};
    bool whole = map.p && map.q && map.y && map.speed && map.gain;
    int rc = whole ? make_affinities(&map, rows, d) : ERR_NOMEM;
    if (rc) {
        (void)err_set(err, rc, "no memory for a map of %u rows", n);
    } else {
        double rate = n / EXAGGERATION > 50 ? n / EXAGGERATION : 50;
        struct rng rng;
        rng_init(&rng, seed, RNG_MAP, 1, 0, 0);
        for (size_t i = 0; i < numbers; i++) {
            map.y[i] = 1e-4 * (double)rng_normal(&rng);
            map.gain[i] = 1;
        }
        for (uint32_t i = 0; i < ITERATIONS; i++) {
            bool early = i < EXAGGERATED;
            descend(&map, early ? EXAGGERATION : 1, early ? 0.5 : 0.8, rate);
        }
        for (size_t i = 0; i < numbers; i++) {
            places[i] = (float)map.y[i];
        }
    }
    mem_free(map.p);
    mem_free(map.q);
    mem_free(map.y);
    mem_free(map.speed);
    mem_free(map.gain);
    return rc;
}
