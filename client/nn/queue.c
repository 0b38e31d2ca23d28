#include "client/nn/queue.h"

#include "client/nn/blas.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <string.h>

static void random_direction(struct rng *rng, uint32_t d, float *row)
{
    double norm = 0;
    while (norm == 0) {
        for (uint32_t j = 0; j < d; j++) {
            row[j] = rng_normal(rng);
        }
        norm = sqrt(blas_dot(row, row, d));
    }
    for (uint32_t j = 0; j < d; j++) {
        row[j] = (float)((double)row[j] / norm);
    }
}

int queue_init(struct queue *queue, uint32_t rows, uint32_t d, struct err *err)
{
    *queue = (struct queue){.rows = rows, .d = d};
    queue->data = mem_new_aligned((size_t)rows * d, sizeof(float));
    queue->image = mem_new(rows, sizeof *queue->image);
    if (!queue->data || !queue->image) {
        queue_fini(queue);
        return err_set(err, ERR_NOMEM, "out of memory for a queue of %u features", rows);
    }
    return 0;
}

void queue_fini(struct queue *queue)
{
    mem_free(queue->data);
    mem_free(queue->image);
    *queue = (struct queue){0};
}

void queue_reset(struct queue *queue, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed, RNG_NEGATIVES, UINT64_MAX, 0, 0); /* no step has this number */
    queue->oldest = 0;
    for (uint32_t i = 0; i < queue->rows; i++) {
        random_direction(&rng, queue->d, queue->data + (size_t)i * queue->d);
        queue->image[i] = QUEUE_NO_IMAGE;
    }
}

void queue_push(struct queue *queue, const float *keys, const uint32_t *images, uint32_t n)
{
    for (uint32_t i = n > queue->rows ? n - queue->rows : 0; i < n; i++) {
        memcpy(queue->data + (size_t)queue->oldest * queue->d, keys + (size_t)i * queue->d, queue->d * sizeof *keys);
        queue->image[queue->oldest] = images ? images[i] : QUEUE_NO_IMAGE;
        queue->oldest = (queue->oldest + 1) % queue->rows;
    }
}

static uint32_t place_of(const struct queue *queue, uint32_t i)
{
    return (uint32_t)((queue->oldest + (uint64_t)i) % queue->rows);
}

const float *queue_row(const struct queue *queue, uint32_t i)
{
    return queue->data + (size_t)place_of(queue, i) * queue->d;
}

uint32_t queue_image(const struct queue *queue, uint32_t i)
{
    return queue->image[place_of(queue, i)];
}

int queue_check_rows(const float *rows, uint32_t n, uint32_t d, const char *what, struct err *err)
{
    for (uint32_t i = 0; i < n; i++) {
        const float *row = rows + (size_t)i * d;
        double norm = sqrt(blas_dot(row, row, d));
        if (!(fabs(norm - 1) <= 1e-3)) { /* NaN fails as well */
            return err_set(err, ERR_DATA, "%s: row %u of %u has length %g where 1 is expected", what, i, n, norm);
        }
    }
    return 0;
}
