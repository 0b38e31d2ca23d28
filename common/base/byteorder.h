/* Little-endian loads and stores for file and wire formats, floats as IEEE 754; bounds are the caller's business. */
#ifndef STARLING_BASE_BYTEORDER_H
#define STARLING_BASE_BYTEORDER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t load_u16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t load_u32(const uint8_t *p)
{
    return load_u16(p) | load_u16(p + 2) << 16;
}

static inline uint64_t load_u64(const uint8_t *p)
{
    return (uint64_t)load_u32(p) | (uint64_t)load_u32(p + 4) << 32;
}

static inline void store_u16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void store_u32(uint8_t *p, uint32_t v)
{
    store_u16(p, v);
    store_u16(p + 2, v >> 16);
}

static inline void store_u64(uint8_t *p, uint64_t v)
{
    store_u32(p, (uint32_t)v);
    store_u32(p + 4, (uint32_t)(v >> 32));
}

static inline double load_f64(const uint8_t *p)
{
    uint64_t bits = load_u64(p);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline void store_f64(uint8_t *p, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    store_u64(p, bits);
}

/* Rows of floats are large: where the machine's order is the file's, they are copied as a whole. */
static inline void load_f32s(float *out, const uint8_t *p, size_t count)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (count > 0) { /* `out` may be NULL with none */
        memcpy(out, p, count * sizeof *out);
    }
#else
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = load_u32(p + 4 * i);
        memcpy(&out[i], &bits, sizeof bits);
    }
#endif
}

static inline void store_f32s(uint8_t *p, const float *values, size_t count)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (count > 0) {
        memcpy(p, values, count * sizeof *values);
    }
#else
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        store_u32(p + 4 * i, bits);
    }
#endif
}

#endif
