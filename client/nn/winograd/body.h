/* The functions of winograd.h on vectors of 16 channels; included once for each instruction set, with WINOGRAD_NAME
 * defined. Here products may be fused with sums: what is computed differs from machine to machine as it does between
 * libraries.
 *
 * p numbers the (m + 2)^2 places of a transformed tile. Transformed tiles lie as [p][tile][channel], transformed
 * weights as [p][out / 32][in][32] (the last block has 16 where out is an odd multiple of 16), so that each p is one
 * matrix product [tiles, in] * [in, out]. */
#include "client/nn/simd/vector.h"
#include "client/nn/winograd/winograd.h"

#include <string.h>

#define SIDE_MAX 6 /* m + 2 */

/* ---- The transforms of one row or column: `from` elements `step` apart become elements `next` apart ---- */

/* B^T: m + 2 source pixels to m + 2 values. */
INLINE void source_line(const v16 *d, int step, v16 *o, int next, uint32_t m)
{
    if (m == 2) {
        o[0] = d[0] - d[2 * step];
        o[next] = d[step] + d[2 * step];
        o[2 * next] = d[2 * step] - d[step];
        o[3 * next] = d[step] - d[3 * step];
        return;
    }
    v16 d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    v16 a = d4 - splat(4) * d2, b = d3 - splat(4) * d1, c = d4 - d2, e = splat(2) * (d3 - d1);
    o[0] = splat(4) * d[0] - splat(5) * d2 + d4;
    o[next] = a + b;
    o[2 * next] = a - b;
    o[3 * next] = c + e;
    o[4 * next] = c - e;
    o[5 * next] = splat(4) * d1 - splat(5) * d3 + d[5 * step];
}

/* A^T: m + 2 values to m results. */
INLINE void result_line(const v16 *v, int step, v16 *o, int next, uint32_t m)
{
    v16 s1 = v[step] + v[2 * step], s2 = v[step] - v[2 * step];
    if (m == 2) {
        o[0] = v[0] + s1;
        o[next] = s2 - v[3 * step];
        return;
    }
    v16 s3 = v[3 * step] + v[4 * step], s4 = v[3 * step] - v[4 * step];
    o[0] = v[0] + s1 + s3;
    o[next] = s2 + splat(2) * s4;
    o[2 * next] = s1 + splat(4) * s3;
    o[3 * next] = s2 + splat(8) * s4 + v[5 * step];
}

/* A: m gradients of results to m + 2 values. */
INLINE void gradient_line(const v16 *y, int step, v16 *o, int next, uint32_t m)
{
    v16 y0 = y[0], y1 = y[step];
    if (m == 2) {
        o[0] = y0;
        o[next] = y0 + y1;
        o[2 * next] = y0 - y1;
        o[3 * next] = -y1;
        return;
    }
    v16 y2 = y[2 * step], y3 = y[3 * step];
    v16 even = y0 + y2, odd = y1 + y3, even2 = y0 + splat(4) * y2, odd2 = splat(2) * y1 + splat(8) * y3;
    o[0] = y0;
    o[next] = even + odd;
    o[2 * next] = even - odd;
    o[3 * next] = even2 + odd2;
    o[4 * next] = even2 - odd2;
    o[5 * next] = y3;
}

/* G: 3 weights to m + 2 values. */
INLINE void weight_line(const v16 *w, int step, v16 *o, int next, uint32_t m)
{
    v16 w0 = w[0], w1 = w[step], w2 = w[2 * step];
    if (m == 2) {
        v16 half = splat(0.5f) * (w0 + w2);
        o[0] = w0;
        o[next] = half + splat(0.5f) * w1;
        o[2 * next] = half - splat(0.5f) * w1;
        o[3 * next] = w2;
        return;
    }
    v16 sixth = splat(-1.0f / 6) * (w0 + w2), rest = splat(1.0f / 24) * w0 + splat(1.0f / 6) * w2;
    o[0] = splat(0.25f) * w0;
    o[next] = sixth - splat(1.0f / 6) * w1;
    o[2 * next] = sixth + splat(1.0f / 6) * w1;
    o[3 * next] = rest + splat(1.0f / 12) * w1;
    o[4 * next] = rest - splat(1.0f / 12) * w1;
    o[5 * next] = w2;
}

/* G^T: m + 2 values to 3 gradients of weights. */
INLINE void weight_gradient_line(const v16 *v, int step, v16 *o, int next, uint32_t m)
{
    v16 s1 = v[step] + v[2 * step], s2 = v[step] - v[2 * step];
    if (m == 2) {
        o[0] = v[0] + splat(0.5f) * s1;
        o[next] = splat(0.5f) * s2;
        o[2 * next] = splat(0.5f) * s1 + v[3 * step];
        return;
    }
    v16 s3 = v[3 * step] + v[4 * step], s4 = v[3 * step] - v[4 * step];
    o[0] = splat(0.25f) * v[0] - splat(1.0f / 6) * s1 + splat(1.0f / 24) * s3;
    o[next] = splat(1.0f / 12) * s4 - splat(1.0f / 6) * s2;
    o[2 * next] = splat(1.0f / 6) * (s3 - s1) + v[5 * step];
}

/* ---- Tiles ---- */

struct tile {
    size_t image;
    int64_t y, x; /* of the first result */
};

INLINE struct tile tile_of(const struct map *map, uint32_t m, size_t number)
{
    uint32_t across = (map->side + m - 1) / m;
    size_t each = (size_t)across * across, rest = number % each;
    return (struct tile){number / each, (int64_t)(rest / across * m), (int64_t)(rest % across * m)};
}

INLINE size_t tiles_of(const struct map *map, uint32_t m)
{
    size_t across = (map->side + m - 1) / m;
    return map->n * across * across;
}

/* The square of `side` pixels at (y, x), zero outside of the map. */
INLINE void load_square(const void *data, size_t base, const struct map *map, int64_t y0, int64_t x0, uint32_t side,
                        enum map_type type, v16 *out)
{
    int64_t all = map->side;
    if (y0 >= 0 && x0 >= 0 && y0 + side <= all && x0 + side <= all) {
        for (uint32_t y = 0; y < side; y++) {
            for (uint32_t x = 0; x < side; x++) {
                out[y * side + x] = load(data, base + (size_t)((y0 + y) * all + x0 + x) * LANES, type, LANES);
            }
        }
        return;
    }
    for (uint32_t y = 0; y < side; y++) {
        for (uint32_t x = 0; x < side; x++) {
            int64_t py = y0 + y, px = x0 + x;
            bool outside = py < 0 || px < 0 || py >= all || px >= all;
            out[y * side + x] = outside ? splat(0) : load(data, base + (size_t)(py * all + px) * LANES, type, LANES);
        }
    }
}

INLINE size_t chunk_base(const struct map *map, size_t image, uint32_t chunk)
{
    size_t pixels = (size_t)map->side * map->side;
    return (image * (map->channels / LANES) + chunk) * pixels * LANES;
}

/* Tiles begin .. begin + count of a map into out [p][tiles][channels]: the source with its border, or the gradient of
 * the result. */
INLINE void transform_tiles(const struct winograd *w, const struct map *map, bool gradient, const void *data,
                            size_t begin, uint32_t count, float *out, uint32_t m, enum map_type type)
{
    const uint32_t side = m + 2, from = gradient ? m : m + 2;
    size_t place = (size_t)w->tiles * map->channels;
    for (uint32_t t = 0; t < count; t++) {
        struct tile tile = tile_of(map, m, begin + t);
        int64_t border = gradient ? 0 : 1;
        for (uint32_t c = 0; c < map->channels / LANES; c++) {
            v16 in[SIDE_MAX * SIDE_MAX], half[SIDE_MAX * SIDE_MAX], row[SIDE_MAX];
            load_square(data, chunk_base(map, tile.image, c), map, tile.y - border, tile.x - border, from, type, in);
            for (uint32_t x = 0; x < from; x++) {
                if (gradient) {
                    gradient_line(in + x, (int)from, half + x, (int)from, m);
                } else {
                    source_line(in + x, (int)from, half + x, (int)from, m);
                }
            }
            float *to = out + (size_t)t * map->channels + (size_t)c * LANES;
            for (uint32_t y = 0; y < side; y++) {
                if (gradient) {
                    gradient_line(half + y * from, 1, row, 1, m);
                } else {
                    source_line(half + y * from, 1, row, 1, m);
                }
                for (uint32_t x = 0; x < side; x++) {
                    store_16(to + (y * side + x) * place, row[x]);
                }
            }
        }
    }
}

INLINE void inverse_tiles(const struct winograd *w, const float *in, size_t begin, uint32_t count, void *dst,
                          uint32_t m, enum map_type type)
{
    const uint32_t side = m + 2;
    const struct map *map = &w->dst;
    size_t place = (size_t)w->tiles * map->channels;
    for (uint32_t t = 0; t < count; t++) {
        struct tile tile = tile_of(map, m, begin + t);
        for (uint32_t c = 0; c < map->channels / LANES; c++) {
            const float *from = in + (size_t)t * map->channels + (size_t)c * LANES;
            v16 values[SIDE_MAX * SIDE_MAX], half[SIDE_MAX * 4], row[4];
            size_t base = chunk_base(map, tile.image, c);
            for (uint32_t p = 0; p < side * side; p++) {
                values[p] = load_16(from + p * place);
            }
            for (uint32_t x = 0; x < side; x++) {
                result_line(values + x, (int)side, half + x, (int)side, m);
            }
            for (uint32_t y = 0; y < m && tile.y + y < map->side; y++) {
                result_line(half + y * side, 1, row, 1, m);
                for (uint32_t x = 0; x < m && tile.x + x < map->side; x++) {
                    store(dst, base + ((size_t)(tile.y + y) * map->side + (size_t)tile.x + x) * LANES, type, LANES,
                          row[x]);
                }
            }
        }
    }
}

/* ---- Products ---- */

/* out [rows, blocks * 16] = a [rows, depth] * b [depth, blocks * 16]; rows and blocks are constants after inlining, and
 * the sums stay in registers. */
INLINE void product(const float *a, size_t stride_a, const float *b, float *out, size_t stride_out, uint32_t depth,
                    const uint32_t rows, const uint32_t blocks)
{
    v16 sum[14][2];
#pragma GCC unroll 14
    for (uint32_t i = 0; i < rows; i++) {
        sum[i][0] = sum[i][1] = splat(0);
    }
    for (uint32_t k = 0; k < depth; k++) {
        v16 b0 = load_16(b + (size_t)k * blocks * LANES),
            b1 = blocks > 1 ? load_16(b + (size_t)k * blocks * LANES + LANES) : b0;
#pragma GCC unroll 14
        for (uint32_t i = 0; i < rows; i++) {
            v16 x = splat(a[i * stride_a + k]);
            sum[i][0] += x * b0;
            if (blocks > 1) {
                sum[i][1] += x * b1;
            }
        }
    }
#pragma GCC unroll 14
    for (uint32_t i = 0; i < rows; i++) {
        store_16(out + i * stride_out, sum[i][0]);
        if (blocks > 1) {
            store_16(out + i * stride_out + LANES, sum[i][1]);
        }
    }
}

#define PRODUCT(rows, blocks)                                                                                          \
    static __attribute__((noinline)) void product_##rows##_##blocks(const float *a, size_t stride_a, const float *b,   \
                                                                    float *out, size_t stride_out, uint32_t depth)     \
    {                                                                                                                  \
        product(a, stride_a, b, out, stride_out, depth, rows, blocks);                                                 \
    }
PRODUCT(14, 2)
PRODUCT(8, 2)
PRODUCT(4, 2)
PRODUCT(14, 1)
PRODUCT(8, 1)
PRODUCT(4, 1)

/* Rows behind the last tile belong to the buffer, and what they become is not read. */
INLINE void multiply_block(const float *a, const float *b, float *out, uint32_t count, uint32_t in,
                           uint32_t out_channels, uint32_t blocks)
{
    uint32_t i = 0;
    while (i < count) {
        const float *rows = a + (size_t)i * in;
        float *to = out + (size_t)i * out_channels;
        uint32_t rest = count - i;
        if (rest > 8) {
            (blocks > 1 ? product_14_2 : product_14_1)(rows, in, b, to, out_channels, in);
            i += 14;
        } else if (rest > 4) {
            (blocks > 1 ? product_8_2 : product_8_1)(rows, in, b, to, out_channels, in);
            i += 8;
        } else {
            (blocks > 1 ? product_4_2 : product_4_1)(rows, in, b, to, out_channels, in);
            i += 4;
        }
    }
}

/* out [in 8 of them][blocks * 16] += a^T * b over `depth` tiles. */
INLINE void outer(const float *a, size_t stride_a, const float *b, size_t stride_b, float *out, size_t stride_out,
                  uint32_t depth, bool first, const uint32_t blocks)
{
    v16 sum[8][2];
#pragma GCC unroll 8
    for (uint32_t i = 0; i < 8; i++) {
        sum[i][0] = first ? splat(0) : load_16(out + i * stride_out);
        sum[i][1] = first || blocks == 1 ? splat(0) : load_16(out + i * stride_out + LANES);
    }
    for (uint32_t t = 0; t < depth; t++) {
        v16 b0 = load_16(b + t * stride_b), b1 = blocks > 1 ? load_16(b + t * stride_b + LANES) : b0;
#pragma GCC unroll 8
        for (uint32_t i = 0; i < 8; i++) {
            v16 x = splat(a[t * stride_a + i]);
            sum[i][0] += x * b0;
            if (blocks > 1) {
                sum[i][1] += x * b1;
            }
        }
    }
#pragma GCC unroll 8
    for (uint32_t i = 0; i < 8; i++) {
        store_16(out + i * stride_out, sum[i][0]);
        if (blocks > 1) {
            store_16(out + i * stride_out + LANES, sum[i][1]);
        }
    }
}

static __attribute__((noinline)) void outer_2(const float *a, size_t stride_a, const float *b, size_t stride_b,
                                              float *out, size_t stride_out, uint32_t depth, bool first)
{
    outer(a, stride_a, b, stride_b, out, stride_out, depth, first, 2);
}

static __attribute__((noinline)) void outer_1(const float *a, size_t stride_a, const float *b, size_t stride_b,
                                              float *out, size_t stride_out, uint32_t depth, bool first)
{
    outer(a, stride_a, b, stride_b, out, stride_out, depth, first, 1);
}

/* ---- Passes ---- */

/* Where transformed weights of input channel `in` and the block of 16 output channels `block` lie, without p. */
INLINE size_t weight_at(uint32_t in_channels, uint32_t out_channels, uint32_t in, uint32_t block)
{
    uint32_t pair = block / 2, wide = pair * 32 + 32 <= out_channels ? 32 : 16;
    return (size_t)pair * in_channels * 32 + (size_t)in * wide + (block % 2) * LANES;
}

INLINE void prepare_m(const struct winograd *w, bool turned, const float *native, float *prepared, uint32_t m)
{
    const uint32_t side = m + 2;
    uint32_t in = w->src.channels, out = w->dst.channels;
    size_t place = (size_t)in * out;
    for (uint32_t o = 0; o < out / LANES; o++) {
        for (uint32_t i = 0; i < in; i++) {
            v16 taps[9], half[SIDE_MAX * 3], row[SIDE_MAX];
            for (uint32_t k = 0; k < 9; k++) {
                if (!turned) { /* [o][i / 16][k][i % 16][16 of o] */
                    taps[k] = load_16(native +
                                      ((((size_t)o * (in / LANES) + i / LANES) * 9 + k) * LANES + i % LANES) * LANES);
                    continue;
                }
                /* The convolution's own input channels are this one's outputs. */
                const float *at =
                    native + (((size_t)(i / LANES) * (out / LANES) + o) * 9 + (8 - k)) * LANES * LANES + i % LANES;
                for (uint32_t j = 0; j < LANES; j++) {
                    taps[k][j] = at[(size_t)j * LANES];
                }
            }
            for (uint32_t x = 0; x < 3; x++) {
                weight_line(taps + x, 3, half + x, 3, m);
            }
            float *to = prepared + weight_at(in, out, i, o);
            for (uint32_t y = 0; y < side; y++) {
                weight_line(half + y * 3, 1, row, 1, m);
                for (uint32_t x = 0; x < side; x++) {
                    store_16(to + (y * side + x) * place, row[x]);
                }
            }
        }
    }
}

static void prepare(const struct winograd *w, bool turned, const float *native, float *prepared)
{
    if (w->m == 2) {
        prepare_m(w, turned, native, prepared, 2);
    } else {
        prepare_m(w, turned, native, prepared, 4);
    }
}

INLINE void convolve_m(const struct winograd *w, const void *src, const float *prepared, void *dst, float *scratch,
                       uint32_t m, enum map_type type)
{
    uint32_t in = w->src.channels, out = w->dst.channels, places = (m + 2) * (m + 2);
    size_t all = tiles_of(&w->dst, m), weights = (size_t)in * out;
    float *values = scratch, *products = scratch + (size_t)places * w->tiles * in;
    for (size_t begin = 0; begin < all; begin += w->tiles) {
        uint32_t count = all - begin < w->tiles ? (uint32_t)(all - begin) : w->tiles;
        transform_tiles(w, &w->src, false, src, begin, count, values, m, type);
        for (uint32_t p = 0; p < places; p++) {
            const float *a = values + (size_t)p * w->tiles * in, *b = prepared + p * weights;
            float *to = products + (size_t)p * w->tiles * out;
            for (uint32_t o = 0; o < out; o += 32) {
                multiply_block(a, b + (size_t)o * in, to + o, count, in, out, o + 32 <= out ? 2 : 1);
            }
        }
        inverse_tiles(w, products, begin, count, dst, m, type);
    }
}

static void convolve(const struct winograd *w, const void *src, const float *prepared, void *dst, float *scratch)
{
    if (w->m == 2 && w->src.type == MAP_F32) {
        convolve_m(w, src, prepared, dst, scratch, 2, MAP_F32);
    } else if (w->m == 2) {
        convolve_m(w, src, prepared, dst, scratch, 2, MAP_BF16);
    } else if (w->src.type == MAP_F32) {
        convolve_m(w, src, prepared, dst, scratch, 4, MAP_F32);
    } else {
        convolve_m(w, src, prepared, dst, scratch, 4, MAP_BF16);
    }
}

/* sums [p][in][out] to the native gradient. */
INLINE void inverse_weights(const struct winograd *w, const float *sums, float *dweights, uint32_t m)
{
    const uint32_t side = m + 2;
    uint32_t in = w->src.channels, out = w->dst.channels;
    size_t place = (size_t)in * out;
    for (uint32_t o = 0; o < out / LANES; o++) {
        for (uint32_t i = 0; i < in; i++) {
            v16 values[SIDE_MAX * SIDE_MAX], half[SIDE_MAX * 3], row[3];
            for (uint32_t p = 0; p < side * side; p++) {
                values[p] = load_16(sums + p * place + (size_t)i * out + (size_t)o * LANES);
            }
            for (uint32_t x = 0; x < side; x++) {
                weight_gradient_line(values + x, (int)side, half + x, (int)side, m);
            }
            for (uint32_t y = 0; y < 3; y++) {
                weight_gradient_line(half + y * side, 1, row, 1, m);
                for (uint32_t x = 0; x < 3; x++) {
                    size_t k = y * 3 + x;
                    store_16(dweights + ((((size_t)o * (in / LANES) + i / LANES) * 9 + k) * LANES + i % LANES) * LANES,
                             row[x]);
                }
            }
        }
    }
}

INLINE void by_weights_m(const struct winograd *w, const void *src, const void *ddst, float *dweights, float *scratch,
                         uint32_t m, enum map_type type)
{
    uint32_t in = w->src.channels, out = w->dst.channels, places = (m + 2) * (m + 2);
    size_t all = tiles_of(&w->dst, m);
    float *values = scratch, *gradients = values + (size_t)places * w->tiles * in;
    float *sums = gradients + (size_t)places * w->tiles * out;
    for (size_t begin = 0; begin < all; begin += w->tiles) {
        uint32_t count = all - begin < w->tiles ? (uint32_t)(all - begin) : w->tiles;
        transform_tiles(w, &w->src, false, src, begin, count, values, m, type);
        transform_tiles(w, &w->dst, true, ddst, begin, count, gradients, m, type);
        for (uint32_t p = 0; p < places; p++) {
            const float *a = values + (size_t)p * w->tiles * in, *b = gradients + (size_t)p * w->tiles * out;
            float *to = sums + (size_t)p * in * out;
            for (uint32_t o = 0; o < out; o += 32) {
                for (uint32_t i = 0; i < in; i += 8) {
                    (o + 32 <= out ? outer_2 : outer_1)(a + i, in, b + o, out, to + (size_t)i * out + o, out, count,
                                                        begin == 0);
                }
            }
        }
    }
    inverse_weights(w, sums, dweights, m);
}

static void by_weights(const struct winograd *w, const void *src, const void *ddst, float *dweights, float *scratch)
{
    if (w->m == 2 && w->src.type == MAP_F32) {
        by_weights_m(w, src, ddst, dweights, scratch, 2, MAP_F32);
    } else if (w->m == 2) {
        by_weights_m(w, src, ddst, dweights, scratch, 2, MAP_BF16);
    } else if (w->src.type == MAP_F32) {
        by_weights_m(w, src, ddst, dweights, scratch, 4, MAP_F32);
    } else {
        by_weights_m(w, src, ddst, dweights, scratch, 4, MAP_BF16);
    }
}

extern const struct winograd_variant WINOGRAD_NAME;
const struct winograd_variant WINOGRAD_NAME = {prepare, convolve, by_weights};
