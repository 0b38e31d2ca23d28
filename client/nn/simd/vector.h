/* Vectors of 16 floats by the compiler's extension, for files that are compiled once for each instruction set. Where
 * the processor's registers are shorter, a vector is several of them. */
#ifndef STARLING_NN_VECTOR_H
#define STARLING_NN_VECTOR_H

#include "client/nn/map.h"

#include <string.h>

#define LANES  16u
#define INLINE static inline __attribute__((always_inline))

typedef float v16 __attribute__((vector_size(64)));
typedef int32_t i16 __attribute__((vector_size(64)));
typedef uint32_t u16 __attribute__((vector_size(64)));
typedef uint16_t h16 __attribute__((vector_size(32)));

INLINE v16 splat(float x)
{
    return (v16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

INLINE v16 from_bf16(h16 half)
{
    return (v16)(__builtin_convertvector(half, u16) << 16);
}

/* To nearest, ties to even; NaN stays NaN. */
INLINE h16 as_bf16(v16 x)
{
    u16 bits = (u16)x;
    u16 rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    u16 broken = (u16)(x != x);
    rounded = (rounded & ~broken) | (broken & 0x7fc00000u);
    return __builtin_convertvector(rounded >> 16, h16);
}

/* The first `lanes` of a vector at element `at` of a map's data; the others are zero. */
INLINE v16 load(const void *data, size_t at, enum map_type type, uint32_t lanes)
{
    if (type == MAP_BF16) {
        h16 half = {0};
        memcpy(&half, (const uint16_t *)data + at, lanes == LANES ? sizeof half : lanes * sizeof(uint16_t));
        return from_bf16(half);
    }
    v16 x = {0};
    memcpy(&x, (const float *)data + at, lanes == LANES ? sizeof x : lanes * sizeof(float));
    return x;
}

INLINE void store(void *data, size_t at, enum map_type type, uint32_t lanes, v16 x)
{
    if (type == MAP_BF16) {
        h16 half = as_bf16(x);
        memcpy((uint16_t *)data + at, &half, lanes == LANES ? sizeof half : lanes * sizeof(uint16_t));
        return;
    }
    memcpy((float *)data + at, &x, lanes == LANES ? sizeof x : lanes * sizeof(float));
}

INLINE v16 load_row(const float *row, uint32_t lanes)
{
    return load(row, 0, MAP_F32, lanes);
}

INLINE v16 load_16(const float *at)
{
    return load(at, 0, MAP_F32, LANES);
}

INLINE void store_16(float *at, v16 x)
{
    store(at, 0, MAP_F32, LANES, x);
}

#endif
