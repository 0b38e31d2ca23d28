/* The only file that knows OpenBLAS. */
#include "client/nn/blas.h"

#include <cblas.h>

void blas_setup(void)
{
    openblas_set_num_threads(1);
}

void blas_gemm(uint32_t m, uint32_t n, uint32_t k, float alpha, struct blas_matrix a, struct blas_matrix b, float beta,
               float *c, size_t stride_c)
{
    if (m == 0 || n == 0) {
        return;
    }
    cblas_sgemm(CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans, b.transposed ? CblasTrans : CblasNoTrans,
                (blasint)m, (blasint)n, (blasint)k, alpha, a.data, (blasint)a.stride, b.data, (blasint)b.stride, beta,
                c, (blasint)stride_c);
}

double blas_dot(const float *a, const float *b, uint32_t n)
{
    return cblas_dsdot((blasint)n, a, 1, b, 1);
}
