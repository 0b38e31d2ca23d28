#include "client/nn/head.h"

#include "client/nn/blas.h"
#include "client/nn/simd/simd.h"
#include "common/base/mem.h"

#include <math.h>
#include <string.h>

/* Below this length a row has no direction; PyTorch's normalize divides by the same. */
#define NORM_LEAST 1e-12f

static uint64_t offset_of(const struct net_plan *plan, const char *name, bool *missing)
{
    const struct tensor *tensor = layout_find(plan->layout, name);
    *missing = *missing || !tensor;
    return tensor ? net_plan_offset(plan, tensor) : 0;
}

int head_init(struct head *head, const struct net_plan *plan, bool training, struct err *err)
{
    uint32_t batch = plan->batch;
    bool missing = false;
    *head = (struct head){.batch = batch, .c = plan->layout->backbone, .d = plan->layout->spec.features};
    head->weight1 = offset_of(plan, "head.0.weight", &missing);
    head->bias1 = offset_of(plan, "head.0.bias", &missing);
    head->weight2 = offset_of(plan, "head.1.weight", &missing);
    head->bias2 = offset_of(plan, "head.1.bias", &missing);
    if (missing) {
        return err_set(err, ERR_CONFIG, "the layout has no projection head");
    }
    head->hidden = mem_new_aligned((size_t)batch * head->c, sizeof(float));
    head->features = mem_new_aligned((size_t)batch * head->d, sizeof(float));
    head->norms = mem_new(batch, sizeof(float));
    missing = !head->hidden || !head->features || !head->norms;
    if (training) {
        head->dhidden = mem_new_aligned((size_t)batch * head->c, sizeof(float));
        head->dfeatures = mem_new_aligned((size_t)batch * head->d, sizeof(float));
        missing = missing || !head->dhidden || !head->dfeatures;
    }
    if (missing) {
        head_fini(head);
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    return 0;
}

void head_fini(struct head *head)
{
    mem_free(head->hidden);
    mem_free(head->features);
    mem_free(head->norms);
    mem_free(head->dhidden);
    mem_free(head->dfeatures);
    *head = (struct head){0};
}

/* y [n, out] = x [n, in] * weight [out, in]^T + bias. */
static void linear_forward(uint32_t n, uint32_t in, uint32_t out, const float *x, const float *weight,
                           const float *bias, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        memcpy(y + (size_t)i * out, bias, out * sizeof *y);
    }
    blas_gemm(n, out, in, 1, (struct blas_matrix){x, in, 0}, (struct blas_matrix){weight, in, 1}, 1, y, out);
}

/* dy: [n, out]; dx: [n, in], dweight: [out, in] and dbias: [out] are overwritten. */
static void linear_backward(uint32_t n, uint32_t in, uint32_t out, const float *x, const float *weight, const float *dy,
                            float *dx, float *dweight, float *dbias)
{
    memset(dbias, 0, out * sizeof *dbias);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t o = 0; o < out; o++) {
            dbias[o] += dy[(size_t)i * out + o];
        }
    }
    blas_gemm(out, in, n, 1, (struct blas_matrix){dy, out, 1}, (struct blas_matrix){x, in, 0}, 0, dweight, in);
    blas_gemm(n, in, out, 1, (struct blas_matrix){dy, out, 0}, (struct blas_matrix){weight, in, 0}, 0, dx, in);
}

void head_forward(struct head *head, const float *native, const float *pooled)
{
    uint32_t n = head->batch, c = head->c, d = head->d;
    linear_forward(n, c, c, pooled, native + head->weight1, native + head->bias1, head->hidden);
    for (size_t i = 0; i < (size_t)n * c; i++) {
        head->hidden[i] = head->hidden[i] < 0 ? 0 : head->hidden[i];
    }
    linear_forward(n, c, d, head->hidden, native + head->weight2, native + head->bias2, head->features);
    for (uint32_t i = 0; i < n; i++) {
        float *row = head->features + (size_t)i * d;
        float norm = (float)sqrt(blas_dot(row, row, d));
        head->norms[i] = norm < NORM_LEAST ? NORM_LEAST : norm;
        for (uint32_t j = 0; j < d; j++) {
            row[j] /= head->norms[i];
        }
    }
}

void head_backward(struct head *head, const float *native, const float *pooled, const float *dfeatures, float *dpooled,
                   float *grad)
{
    uint32_t n = head->batch, c = head->c, d = head->d;
    for (uint32_t i = 0; i < n; i++) {
        const float *row = head->features + (size_t)i * d, *drow = dfeatures + (size_t)i * d;
        float along = (float)blas_dot(row, drow, d), *out = head->dfeatures + (size_t)i * d;
        for (uint32_t j = 0; j < d; j++) {
            out[j] = (drow[j] - along * row[j]) / head->norms[i];
        }
    }
    float *dweight1 = grad, *dweight2 = dweight1 + (size_t)c * c, *dbias1 = dweight2 + (size_t)d * c;
    linear_backward(n, c, d, head->hidden, native + head->weight2, head->dfeatures, head->dhidden, dweight2,
                    dbias1 + c);
    for (size_t i = 0; i < (size_t)n * c; i++) {
        head->dhidden[i] = head->hidden[i] > 0 ? head->dhidden[i] : 0;
    }
    linear_backward(n, c, c, pooled, native + head->weight1, head->dhidden, dpooled, dweight1, dbias1);
}
