/* Nearest neighbours and the linear probe on frozen features.
 *
 * Settings of the probe, fixed so that figures can be compared: features standardised by the training rows, zero start,
 * minibatches of 256 in a drawn order, SGD with momentum 0.9, weight decay 1e-4 on the weights, learning rate 0.1
 * falling to 0 by a cosine over 60 epochs or 1,000 steps, whichever is longer. What it minimises is the mean loss plus
 * 1e-4 / 2 times the weights' squares: scikit-learn's LogisticRegression with C = 1 / (1e-4 n), which tests/golden
 * holds it to. That one converges; this one stops after its steps, a little above the least. */
#include "client/nn/judge.h"

#include "client/nn/blas.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define PROBE_BATCH    256u
#define PROBE_EPOCHS   60u
#define PROBE_STEPS    1000u
#define PROBE_RATE     0.1
#define PROBE_MOMENTUM 0.9f
#define PROBE_DECAY    1e-4f
#define TEST_BLOCK     128u /* test rows whose similarities are held at a time */

static int check(uint32_t train_n, uint32_t test_n, uint32_t d, uint32_t classes, struct err *err)
{
    if (train_n == 0 || test_n == 0 || d == 0 || classes == 0) {
        return err_set(err, ERR_DATA, "nothing to judge: %u training rows, %u test rows, %u features, %u classes",
                       train_n, test_n, d, classes);
    }
    return 0;
}

static int out_of_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "out of memory");
}

/* A copy of rows [n, d] in unit length; a zero row stays zero. NULL when out of memory. */
static float *unit_rows(const float *rows, uint32_t n, uint32_t d)
{
    float *out = mem_new_aligned(n, d * sizeof *out);
    for (uint32_t i = 0; out && i < n; i++) {
        const float *row = rows + (size_t)i * d;
        double norm = sqrt(blas_dot(row, row, d));
        for (uint32_t j = 0; j < d && norm > 0; j++) {
            out[(size_t)i * d + j] = (float)((double)row[j] / norm);
        }
    }
    return out;
}

/* Neighbours so far as a heap with the farthest on top; of equally near ones the later is the farther. */
struct neighbour {
    float cosine;
    uint32_t row;
};

static bool farther(struct neighbour a, struct neighbour b)
{
    return a.cosine < b.cosine || (a.cosine == b.cosine && a.row > b.row);
}

static void sink(struct neighbour *heap, uint32_t count, uint32_t at)
{
    struct neighbour moving = heap[at];
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && farther(heap[child + 1], heap[child])) {
            child++;
        }
        if (!farther(heap[child], moving)) {
            break;
        }
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

static void nearest(const float *cosines, uint32_t n, uint32_t k, struct neighbour *heap)
{
    for (uint32_t i = 0; i < k; i++) {
        heap[i] = (struct neighbour){cosines[i], i};
    }
    for (uint32_t i = k / 2; i-- > 0;) {
        sink(heap, k, i);
    }
    for (uint32_t i = k; i < n; i++) {
        if (cosines[i] > heap[0].cosine) {
            heap[0] = (struct neighbour){cosines[i], i};
            sink(heap, k, 0);
        }
    }
}

static uint32_t heaviest(const double *votes, uint32_t classes)
{
    uint32_t best = 0;
    for (uint32_t c = 1; c < classes; c++) {
        best = votes[c] > votes[best] ? c : best;
    }
    return best;
}

static uint32_t vote(const float *cosines, const uint32_t *labels, uint32_t n, uint32_t k, uint32_t classes,
                     float temperature, struct neighbour *heap, double *votes)
{
    nearest(cosines, n, k, heap);
    memset(votes, 0, classes * sizeof *votes);
    for (uint32_t i = 0; i < k; i++) {
        votes[labels[heap[i].row]] += exp((double)heap[i].cosine / (double)temperature);
    }
    return heaviest(votes, classes);
}

int judge_knn(const float *train, const uint32_t *train_labels, uint32_t train_n, const float *test,
              const uint32_t *test_labels, uint32_t test_n, uint32_t d, uint32_t classes, uint32_t k, float temperature,
              double *top1, struct err *err)
{
    *top1 = 0;
    int rc = check(train_n, test_n, d, classes, err);
    if (rc != 0) {
        return rc;
    }
    blas_setup();
    k = k == 0 ? 1 : k < train_n ? k : train_n;
    float *a = unit_rows(train, train_n, d), *b = unit_rows(test, test_n, d);
    float *cosines = mem_new_aligned(TEST_BLOCK, train_n * sizeof *cosines);
    struct neighbour *heap = mem_new(k, sizeof *heap);
    double *votes = mem_new(classes, sizeof *votes);
    if (a && b && cosines && heap && votes) {
        uint32_t right = 0;
        for (uint32_t first = 0; first < test_n; first += TEST_BLOCK) {
            uint32_t rows = test_n - first < TEST_BLOCK ? test_n - first : TEST_BLOCK;
            blas_gemm(rows, train_n, d, 1, (struct blas_matrix){b + (size_t)first * d, d, 0},
                      (struct blas_matrix){a, d, 1}, 0, cosines, train_n);
            for (uint32_t i = 0; i < rows; i++) {
                right += vote(cosines + (size_t)i * train_n, train_labels, train_n, k, classes, temperature, heap,
                              votes) == test_labels[first + i];
            }
        }
        *top1 = (double)right / test_n;
    } else {
        rc = out_of_memory(err);
    }
    mem_free(a);
    mem_free(b);
    mem_free(cosines);
    mem_free(heap);
    mem_free(votes);
    return rc;
}

/* Softmax regression while it learns. The bias is the weight of a last feature that is always 1. */
struct probe {
    uint32_t d, classes;             /* d with the constant feature */
    float *weight, *velocity, *grad; /* [classes, d] */
    float *rows;                     /* [PROBE_BATCH, d] */
    float *logits;                   /* [PROBE_BATCH, classes] */
    float *mean, *scale;             /* [d - 1] of the training rows */
    uint32_t *order;                 /* [train_n] */
};

static int probe_init(struct probe *probe, uint32_t train_n, uint32_t d, uint32_t classes, struct err *err)
{
    *probe = (struct probe){.d = d + 1, .classes = classes};
    probe->weight = mem_new_aligned(classes, probe->d * sizeof(float));
    probe->velocity = mem_new_aligned(classes, probe->d * sizeof(float));
    probe->grad = mem_new_aligned(classes, probe->d * sizeof(float));
    probe->rows = mem_new_aligned(PROBE_BATCH, probe->d * sizeof(float));
    probe->logits = mem_new_aligned(PROBE_BATCH, classes * sizeof(float));
    probe->mean = mem_new(d, sizeof(float));
    probe->scale = mem_new(d, sizeof(float));
    probe->order = mem_new(train_n, sizeof *probe->order);
    bool complete = probe->weight && probe->velocity && probe->grad && probe->rows && probe->logits && probe->mean &&
                    probe->scale && probe->order;
    return complete ? 0 : out_of_memory(err);
}

static void probe_fini(struct probe *probe)
{
    mem_free(probe->weight);
    mem_free(probe->velocity);
    mem_free(probe->grad);
    mem_free(probe->rows);
    mem_free(probe->logits);
    mem_free(probe->mean);
    mem_free(probe->scale);
    mem_free(probe->order);
}

static void probe_standardise(struct probe *probe, const float *train, uint32_t n)
{
    uint32_t d = probe->d - 1;
    for (uint32_t j = 0; j < d; j++) {
        double sum = 0, square = 0;
        for (uint32_t i = 0; i < n; i++) {
            sum += (double)train[(size_t)i * d + j];
        }
        double mean = sum / n;
        for (uint32_t i = 0; i < n; i++) {
            double off = (double)train[(size_t)i * d + j] - mean;
            square += off * off;
        }
        double deviation = sqrt(square / n);
        probe->mean[j] = (float)mean;
        probe->scale[j] = deviation > 1e-12 ? (float)(1 / deviation) : 0; /* a constant feature says nothing */
    }
}

/* Rows `chosen` (NULL: first, first + 1, ...) standardised into probe->rows, and their logits. */
static void probe_logits(struct probe *probe, const float *features, const uint32_t *chosen, uint32_t first, uint32_t n)
{
    uint32_t d = probe->d - 1;
    for (uint32_t i = 0; i < n; i++) {
        const float *from = features + (size_t)(chosen ? chosen[i] : first + i) * d;
        float *to = probe->rows + (size_t)i * probe->d;
        for (uint32_t j = 0; j < d; j++) {
            to[j] = (from[j] - probe->mean[j]) * probe->scale[j];
        }
        to[d] = 1;
    }
    blas_gemm(n, probe->classes, probe->d, 1, (struct blas_matrix){probe->rows, probe->d, 0},
              (struct blas_matrix){probe->weight, probe->d, 1}, 0, probe->logits, probe->classes);
}

/* One logit row becomes softmax minus the label's row, over n. */
static void probe_dlogits(float *logits, uint32_t classes, uint32_t label, uint32_t n)
{
    float top = logits[0], sum = 0;
    for (uint32_t c = 1; c < classes; c++) {
        top = logits[c] > top ? logits[c] : top;
    }
    for (uint32_t c = 0; c < classes; c++) {
        logits[c] = expf(logits[c] - top);
        sum += logits[c];
    }
    for (uint32_t c = 0; c < classes; c++) {
        logits[c] = (logits[c] / sum - (c == label ? 1.0f : 0.0f)) / (float)n;
    }
}

static void probe_step(struct probe *probe, const float *train, const uint32_t *labels, const uint32_t *chosen,
                       uint32_t n, float rate)
{
    probe_logits(probe, train, chosen, 0, n);
    for (uint32_t i = 0; i < n; i++) {
        probe_dlogits(probe->logits + (size_t)i * probe->classes, probe->classes, labels[chosen[i]], n);
    }
    blas_gemm(probe->classes, probe->d, n, 1, (struct blas_matrix){probe->logits, probe->classes, 1},
              (struct blas_matrix){probe->rows, probe->d, 0}, 0, probe->grad, probe->d);
    for (size_t i = 0; i < (size_t)probe->classes * probe->d; i++) {
        bool bias = i % probe->d == probe->d - 1;
        float g = probe->grad[i] + (bias ? 0 : PROBE_DECAY * probe->weight[i]);
        probe->velocity[i] = PROBE_MOMENTUM * probe->velocity[i] + g;
        probe->weight[i] -= rate * probe->velocity[i];
    }
}

static void probe_train(struct probe *probe, const float *train, const uint32_t *labels, uint32_t n)
{
    uint32_t batch = n < PROBE_BATCH ? n : PROBE_BATCH, per_epoch = n / batch;
    uint64_t steps = (uint64_t)per_epoch * PROBE_EPOCHS;
    steps = steps < PROBE_STEPS ? PROBE_STEPS : steps;
    for (uint32_t i = 0; i < n; i++) {
        probe->order[i] = i;
    }
    for (uint64_t step = 0; step < steps; step++) {
        uint32_t within = (uint32_t)(step % per_epoch);
        if (within == 0) {
            struct rng rng;
            rng_init(&rng, 0, RNG_PROBE, step / per_epoch, 0, 0);
            rng_permute(&rng, probe->order, n);
        }
        double rate = PROBE_RATE / 2 * (1 + cos(3.14159265358979323846 * (double)step / (double)steps));
        probe_step(probe, train, labels, probe->order + (size_t)within * batch, batch, (float)rate);
    }
}

static double probe_test(struct probe *probe, const float *test, const uint32_t *labels, uint32_t n)
{
    uint32_t right = 0;
    for (uint32_t first = 0; first < n; first += PROBE_BATCH) {
        uint32_t rows = n - first < PROBE_BATCH ? n - first : PROBE_BATCH;
        probe_logits(probe, test, NULL, first, rows);
        for (uint32_t i = 0; i < rows; i++) {
            const float *logits = probe->logits + (size_t)i * probe->classes;
            uint32_t best = 0;
            for (uint32_t c = 1; c < probe->classes; c++) {
                best = logits[c] > logits[best] ? c : best;
            }
            right += best == labels[first + i];
        }
    }
    return (double)right / n;
}

/* Mean loss and penalty over the training rows. */
static double probe_objective(struct probe *probe, const float *train, const uint32_t *labels, uint32_t n)
{
    double loss = 0, squares = 0;
    for (uint32_t first = 0; first < n; first += PROBE_BATCH) {
        uint32_t rows = n - first < PROBE_BATCH ? n - first : PROBE_BATCH;
        probe_logits(probe, train, NULL, first, rows);
        for (uint32_t i = 0; i < rows; i++) {
            const float *logits = probe->logits + (size_t)i * probe->classes;
            double own = (double)logits[labels[first + i]], sum = 0;
            for (uint32_t c = 0; c < probe->classes; c++) {
                sum += exp((double)logits[c] - own);
            }
            loss += log(sum);
        }
    }
    for (size_t i = 0; i < (size_t)probe->classes * probe->d; i++) {
        bool bias = i % probe->d == probe->d - 1;
        squares += bias ? 0 : (double)probe->weight[i] * (double)probe->weight[i];
    }
    return loss / n + (double)PROBE_DECAY / 2 * squares;
}

int judge_linear(const float *train, const uint32_t *train_labels, uint32_t train_n, const float *test,
                 const uint32_t *test_labels, uint32_t test_n, uint32_t d, uint32_t classes, double *top1,
                 double *objective, struct err *err)
{
    *top1 = 0;
    int rc = check(train_n, test_n, d, classes, err);
    if (rc != 0) {
        return rc;
    }
    blas_setup();
    struct probe probe;
    rc = probe_init(&probe, train_n, d, classes, err);
    if (rc == 0) {
        probe_standardise(&probe, train, train_n);
        probe_train(&probe, train, train_labels, train_n);
        *top1 = probe_test(&probe, test, test_labels, test_n);
        if (objective) {
            *objective = probe_objective(&probe, train, train_labels, train_n);
        }
    }
    probe_fini(&probe);
    return rc;
}
