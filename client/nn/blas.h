/* Dense products on row-major matrices through OpenBLAS. Every product runs on the calling thread alone: parallelism
 * is the workers' business, and a product's bits then depend on its shape only. */
#ifndef STARLING_NN_BLAS_H
#define STARLING_NN_BLAS_H

#include <stddef.h>
#include <stdint.h>

/* Turns OpenBLAS's own threads off, for the process. Whoever is about to multiply calls it once at set-up. */
void blas_setup(void);

/* A matrix as it lies in memory: rows `stride` floats apart, read across its diagonal where `transposed`. */
struct blas_matrix {
    const float *data;
    size_t stride;
    int transposed;
};

/* c [m, n] (rows stride_c apart) = alpha * a [m, k] * b [k, n] + beta * c. */
void blas_gemm(uint32_t m, uint32_t n, uint32_t k, float alpha, struct blas_matrix a, struct blas_matrix b, float beta,
               float *c, size_t stride_c);

double blas_dot(const float *a, const float *b, uint32_t n); /* summed in double */

#endif
