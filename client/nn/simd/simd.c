#include "client/nn/simd/simd.h"

extern const struct simd simd_portable;
#ifdef __x86_64__
extern const struct simd simd_avx2, simd_avx512;

static const struct simd *all[] = {&simd_portable, &simd_avx2, &simd_avx512};

static uint32_t available(void)
{
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    return avx2 && avx512 ? 3 : avx2 ? 2 : 1;
}
#else
static const struct simd *all[] = {&simd_portable};

static uint32_t available(void)
{
    return 1;
}
#endif

const struct simd *simd(void)
{
    return all[available() - 1];
}

const struct simd *simd_variant(uint32_t i)
{
    return i < available() ? all[i] : NULL;
}
