#include "client/nn/onednn/onednn.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>

bool onednn_present(void)
{
    return true;
}

/* The values of dnnl_cpu_isa_t are sets of features. */
static bool has(dnnl_cpu_isa_t isa)
{
    return ((unsigned)dnnl_get_effective_cpu_isa() & (unsigned)isa) == (unsigned)isa;
}

bool onednn_has_avx512(void)
{
    return has(dnnl_cpu_isa_avx512_core);
}

bool onednn_has_bf16(void)
{
    return has(dnnl_cpu_isa_avx512_core_bf16);
}

void onednn_text(char *out, size_t size)
{
    const dnnl_version_t *version = dnnl_version();
    (void)snprintf(out, size, "oneDNN %d.%d.%d, %s", version->major, version->minor, version->patch,
                   onednn_has_bf16()        ? "AVX-512 with bf16"
                   : onednn_has_avx512()    ? "AVX-512"
                   : has(dnnl_cpu_isa_avx2) ? "AVX2"
                                            : "less than AVX2");
}

void onednn_single_thread(void)
{
    omp_set_num_threads(1);
}

void onednn_sgemm(size_t n, const float *a, const float *b, float *out, int threads)
{
    dnnl_dim_t side = (dnnl_dim_t)n;
    omp_set_num_threads(threads);
    (void)dnnl_sgemm('N', 'N', side, side, side, 1, a, side, b, side, 0, out, side);
    omp_set_num_threads(1);
}
