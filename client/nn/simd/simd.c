#include "client/nn/simd/simd.h"

#include "common/base/cpu.h"

extern const struct simd simd_portable;
#ifdef __x86_64__
extern const struct simd simd_avx2, simd_avx512;
#endif

const struct simd *simd_variant(uint32_t i)
{
#ifdef __x86_64__
    if (i == 1) {
        return cpu_has_avx2() ? &simd_avx2 : NULL;
    }
    if (i == 2) {
        return cpu_has_avx2() && cpu_has_avx512() ? &simd_avx512 : NULL;
    }
#endif
    return i == 0 ? &simd_portable : NULL;
}

const struct simd *simd(void)
{
    const struct simd *best = simd_variant(0), *next;
    for (uint32_t i = 1; (next = simd_variant(i)); i++) {
        best = next;
    }
    return best;
}
