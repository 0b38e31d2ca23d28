#include "common/vec/squares.h"

#include "common/base/cpu.h"

#define LANES  8u
#define INLINE static inline __attribute__((always_inline))

INLINE double sum(const float *values, uint64_t count)
{
    double lanes[LANES] = {0}, all = 0;
    uint64_t whole = count / LANES * LANES;
    for (uint64_t i = 0; i < whole; i += LANES) {
        for (size_t l = 0; l < LANES; l++) {
            lanes[l] += (double)values[i + l] * (double)values[i + l];
        }
    }
    for (uint64_t i = whole; i < count; i++) {
        lanes[i - whole] += (double)values[i] * (double)values[i];
    }
    for (size_t l = 0; l < LANES; l++) {
        all += lanes[l];
    }
    return all;
}

static double portable(const float *values, uint64_t count)
{
    return sum(values, count);
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static double avx2(const float *values, uint64_t count)
{
    return sum(values, count);
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))) static double avx512(const float *values, uint64_t count)
{
    return sum(values, count);
}
#endif

squares_fn *squares_variant(uint32_t i)
{
#ifdef __x86_64__
    if (i == 1) {
        return cpu_has_avx2() ? avx2 : NULL;
    }
    if (i == 2) {
        return cpu_has_avx2() && cpu_has_avx512() ? avx512 : NULL;
    }
#endif
    return i == 0 ? portable : NULL;
}

double squares_sum(const float *values, uint64_t count)
{
    squares_fn *best = portable, *next;
    for (uint32_t i = 1; (next = squares_variant(i)); i++) {
        best = next;
    }
    return best(values, count);
}
