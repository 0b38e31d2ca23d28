/* Plain loops, which the compiler makes vector code of, for each instruction set that it is asked for; the processor is
 * asked at run time. */
#include "common/vec/fixed_kernels.h"

#include "common/base/cpu.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE bool within(const float *values, size_t count, int32_t limit)
{
    int32_t outside = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        outside |= (bits & INT32_MAX) >= limit; /* Magnitudes are in the order of their bits. */
    }
    return !outside;
}

static bool within_portable(const float *values, size_t count, int32_t limit)
{
    return within(values, count, limit);
}

static void add_portable(const float *values, size_t count, double scale, int64_t weight, int64_t *sums)
{
    for (size_t i = 0; i < count; i++) {
        sums[i] += weight * llrint((double)values[i] * scale);
    }
}

static const struct fixed_kernel portable = {"portable", within_portable, add_portable};

#ifdef __x86_64__
/* There is no vector llrint before AVX-512. But a double between 2^52 and 2^53 has no room for a fraction: adding
 * 1.5 * 2^52 rounds any number below 2^51 as llrint does, and leaves it, as an integer, in the lower bits. */
INLINE void add(const float *values, size_t count, double scale, int64_t weight, int64_t *sums)
{
    const double room = 0x1.8p52;
    int64_t room_bits;
    memcpy(&room_bits, &room, sizeof room_bits);
    for (size_t i = 0; i < count; i++) {
        double rounded = (double)values[i] * scale + room;
        int64_t bits;
        memcpy(&bits, &rounded, sizeof bits);
        sums[i] += weight * (bits - room_bits);
    }
}

#define KERNEL(name, instructions)                                                                                     \
    __attribute__((target(instructions))) static bool within_##name(const float *values, size_t count, int32_t limit)  \
    {                                                                                                                  \
        return within(values, count, limit);                                                                           \
    }                                                                                                                  \
    __attribute__((target(instructions))) static void add_##name(const float *values, size_t count, double scale,      \
                                                                 int64_t weight, int64_t *sums)                        \
    {                                                                                                                  \
        add(values, count, scale, weight, sums);                                                                       \
    }                                                                                                                  \
    static const struct fixed_kernel name = {#name, within_##name, add_##name};

KERNEL(avx2, "avx2")
KERNEL(avx512, "avx512f,avx512bw,avx512vl,avx512dq")
#endif

const struct fixed_kernel *fixed_variant(uint32_t i)
{
#ifdef __x86_64__
    if (i == 1) {
        return cpu_has_avx2() ? &avx2 : NULL;
    }
    if (i == 2) {
        return cpu_has_avx2() && cpu_has_avx512() ? &avx512 : NULL;
    }
#endif
    return i == 0 ? &portable : NULL;
}

const struct fixed_kernel *fixed_best(void)
{
    const struct fixed_kernel *best = fixed_variant(0), *next;
    for (uint32_t i = 1; (next = fixed_variant(i)); i++) {
        best = next;
    }
    return best;
}
