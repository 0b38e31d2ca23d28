/* The functions of simd.h on vectors of 16 floats; included once for each instruction set, with SIMD_NAME defined.
 *
 * Maps are walked in chunks of up to 16 channels. Where a chunk is full, `lanes` is a constant after inlining and a
 * load is one instruction; the last chunk of a map whose channels are no multiple of 16 takes the slow way. */
#include "client/nn/simd/simd.h"
#include "client/nn/simd/vector.h"

#include <float.h>
#include <math.h>
#include <string.h>

typedef uint8_t b16 __attribute__((vector_size(16)));

INLINE i16 splat_int(int32_t x)
{
    return (i16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

/* a where the mask is set, else b. */
INLINE v16 choose(i16 mask, v16 a, v16 b)
{
    return (v16)(((i16)a & mask) | ((i16)b & ~mask));
}

INLINE v16 positive(v16 x)
{
    return choose(x < splat(0), splat(0), x); /* NaN stays */
}

/* Where a chunk of channels lies: element `first` + image * n + pixel * p. */
struct chunk {
    size_t first, image, pixel;
    uint32_t channel, lanes;
};

INLINE uint32_t chunks_of(const struct map *map)
{
    return (map->channels + LANES - 1) / LANES;
}

INLINE struct chunk chunk_of(const struct map *map, uint32_t i)
{
    size_t pixels = (size_t)map->side * map->side, rest = map->channels - (size_t)i * LANES;
    bool blocks = map->format == MAP_BLOCKS;
    return (struct chunk){
        .first = blocks ? i * pixels * LANES : (size_t)i * LANES,
        .image = pixels * map->channels,
        .pixel = blocks ? LANES : map->channels,
        .channel = i * LANES,
        .lanes = rest < LANES ? (uint32_t)rest : LANES,
    };
}

/* Calls `function` with constants for the type and for full chunks, so that each combination is compiled for itself. */
#define DISPATCH(function, map, chunk, ...)                                                                            \
    do {                                                                                                               \
        if ((chunk).lanes == LANES && (map)->type == MAP_BF16) {                                                       \
            function(__VA_ARGS__, MAP_BF16, LANES);                                                                    \
        } else if ((chunk).lanes == LANES) {                                                                           \
            function(__VA_ARGS__, MAP_F32, LANES);                                                                     \
        } else {                                                                                                       \
            function(__VA_ARGS__, (map)->type, (chunk).lanes);                                                         \
        }                                                                                                              \
    } while (0)

/* Mean and biased variance of a chunk. Each image is read twice in a row, the second time from the cache, and images
 * are joined by Chan, Golub and LeVeque's rule in double, so nothing cancels where the mean is large. */
INLINE void statistics(const struct map *map, const struct chunk *c, const void *x, float *mean, float *variance,
                       enum map_type type, uint32_t lanes)
{
    uint32_t pixels = map->side * map->side;
    double m[LANES] = {0}, m2[LANES] = {0};
    for (uint32_t n = 0; n < map->n; n++) {
        size_t at = c->first + n * c->image;
        v16 s[4] = {splat(0), splat(0), splat(0), splat(0)};
        uint32_t p = 0;
        for (; p + 4 <= pixels; p += 4) {
            for (uint32_t k = 0; k < 4; k++) {
                s[k] += load(x, at + (p + k) * c->pixel, type, lanes);
            }
        }
        for (; p < pixels; p++) {
            s[0] += load(x, at + p * c->pixel, type, lanes);
        }
        v16 here = ((s[0] + s[1]) + (s[2] + s[3])) / splat((float)pixels), q[2] = {splat(0), splat(0)};
        for (p = 0; p + 2 <= pixels; p += 2) {
            for (uint32_t k = 0; k < 2; k++) {
                v16 d = load(x, at + (p + k) * c->pixel, type, lanes) - here;
                q[k] += d * d;
            }
        }
        for (; p < pixels; p++) {
            v16 d = load(x, at + p * c->pixel, type, lanes) - here;
            q[0] += d * d;
        }
        q[0] += q[1];
        for (uint32_t k = 0; k < lanes; k++) {
            double delta = (double)here[k] - m[k];
            m[k] += delta / (n + 1);
            m2[k] += (double)q[0][k] + delta * delta * pixels * n / (n + 1);
        }
    }
    for (uint32_t k = 0; k < lanes; k++) {
        mean[k] = (float)m[k];
        variance[k] = (float)(m2[k] / ((double)map->n * pixels));
    }
}

INLINE void normalise(const struct bn_forward *op, const struct chunk *c, enum map_type type, uint32_t lanes)
{
    uint32_t pixels = op->map.side * op->map.side;
    float rate[LANES] = {0}, base[LANES] = {0};
    for (uint32_t k = 0; k < lanes; k++) {
        rate[k] = op->scale[c->channel + k] / sqrtf(op->variance[c->channel + k] + op->epsilon);
        base[k] = op->shift[c->channel + k] - op->mean[c->channel + k] * rate[k];
    }
    v16 a = load_row(rate, LANES), b = load_row(base, LANES);
    bool relu = op->relu;
    const void *residual = op->residual;
    for (uint32_t n = 0; n < op->map.n; n++) {
        size_t at = c->first + n * c->image;
        for (uint32_t p = 0; p < pixels; p++, at += c->pixel) {
            v16 y = load(op->x, at, type, lanes) * a + b;
            if (residual) {
                y += load(residual, at, type, lanes);
            }
            store(op->y, at, type, lanes, relu ? positive(y) : y);
        }
    }
}

INLINE void bn_forward_chunk(const struct bn_forward *op, const struct chunk *c, enum map_type type, uint32_t lanes)
{
    if (!op->given) {
        statistics(&op->map, c, op->x, op->mean + c->channel, op->variance + c->channel, type, lanes);
    }
    normalise(op, c, type, lanes);
}

static void bn_forward(const struct bn_forward *op)
{
    for (uint32_t i = 0; i < chunks_of(&op->map); i++) {
        struct chunk c = chunk_of(&op->map, i);
        DISPATCH(bn_forward_chunk, &op->map, c, op, &c);
    }
}

/* First trip: the masked sum g of the gradients is left in dy, and the sums of g and of g * (x - mean) are taken. */
INLINE void gradient_sums(const struct bn_backward *op, const struct chunk *c, double *sum, double *along,
                          enum map_type type, uint32_t lanes)
{
    uint32_t pixels = op->map.side * op->map.side;
    v16 mean = load_row(op->mean + c->channel, lanes);
    bool masked = op->y, two = op->dy2, writes = masked || two;
    for (uint32_t n = 0; n < op->map.n; n++) {
        size_t at = c->first + n * c->image;
        v16 s[2] = {splat(0), splat(0)}, t[2] = {splat(0), splat(0)};
        for (uint32_t p = 0; p < pixels; p++, at += c->pixel) {
            v16 g = load(op->dy, at, type, lanes);
            if (two) {
                g += load(op->dy2, at, type, lanes);
            }
            if (masked) {
                g = choose(load(op->y, at, type, lanes) > splat(0), g, splat(0));
            }
            if (writes) {
                store(op->dy, at, type, lanes, g);
            }
            s[p & 1] += g;
            t[p & 1] += g * (load(op->x, at, type, lanes) - mean);
        }
        s[0] += s[1];
        t[0] += t[1];
        for (uint32_t k = 0; k < lanes; k++) {
            sum[k] += (double)s[0][k];
            along[k] += (double)t[0][k];
        }
    }
}

/* dx = scale / std * (g - mean(g) - x^ * mean(g * x^)), x^ = (x - mean) / std. */
INLINE void bn_backward_chunk(const struct bn_backward *op, const struct chunk *c, enum map_type type, uint32_t lanes)
{
    uint32_t pixels = op->map.side * op->map.side;
    double sum[LANES] = {0}, along[LANES] = {0}, count = (double)op->map.n * pixels;
    float by[LANES] = {0}, less[LANES] = {0}, tilt[LANES] = {0};
    gradient_sums(op, c, sum, along, type, lanes);
    for (uint32_t k = 0; k < lanes; k++) {
        double inverse = 1 / sqrt((double)op->variance[c->channel + k] + (double)op->epsilon);
        op->dscale[c->channel + k] = (float)(along[k] * inverse);
        op->dshift[c->channel + k] = (float)sum[k];
        by[k] = (float)((double)op->scale[c->channel + k] * inverse);
        less[k] = (float)(sum[k] / count);
        tilt[k] = (float)(along[k] * inverse * inverse / count);
    }
    v16 rate = load_row(by, LANES), g0 = load_row(less, LANES), slope = load_row(tilt, LANES);
    v16 mean = load_row(op->mean + c->channel, lanes);
    for (uint32_t n = 0; n < op->map.n; n++) {
        size_t at = c->first + n * c->image;
        for (uint32_t p = 0; p < pixels; p++, at += c->pixel) {
            v16 g = load(op->dy, at, type, lanes), x = load(op->x, at, type, lanes);
            store(op->dx, at, type, lanes, rate * ((g - g0) - (x - mean) * slope));
        }
    }
}

static void bn_backward(const struct bn_backward *op)
{
    for (uint32_t i = 0; i < chunks_of(&op->map); i++) {
        struct chunk c = chunk_of(&op->map, i);
        DISPATCH(bn_backward_chunk, &op->map, c, op, &c);
    }
}

/* The pixel of the source that tap (0 to 8) of an output pixel reads; -1 outside. */
INLINE int64_t tap_pixel(const struct map *src, uint32_t oy, uint32_t ox, uint32_t tap)
{
    int64_t y = (int64_t)oy * 2 - 1 + tap / 3, x = (int64_t)ox * 2 - 1 + tap % 3, side = src->side;
    return y < 0 || x < 0 || y >= side || x >= side ? -1 : y * side + x;
}

INLINE void max_forward_chunk(const struct max_pool *op, const struct chunk *s, const struct chunk *d,
                              enum map_type type, uint32_t lanes)
{
    for (uint32_t n = 0; n < op->src.n; n++) {
        size_t from = s->first + n * s->image, to = d->first + n * d->image;
        for (uint32_t oy = 0; oy < op->dst.side; oy++) {
            for (uint32_t ox = 0; ox < op->dst.side; ox++, to += d->pixel) {
                v16 most = splat(-INFINITY);
                i16 best = splat_int(0);
                for (uint32_t tap = 0; tap < 9; tap++) {
                    int64_t pixel = tap_pixel(&op->src, oy, ox, tap);
                    if (pixel < 0) {
                        continue;
                    }
                    v16 x = load(op->x, from + (size_t)pixel * s->pixel, type, lanes);
                    i16 more = ~(x <= most) & (most == most); /* NaN wins, and stays */
                    most = choose(more, x, most);
                    best = (best & ~more) | (splat_int((int32_t)tap) & more);
                }
                store(op->y, to, type, lanes, most);
                if (op->best) {
                    b16 bytes = __builtin_convertvector(best, b16);
                    memcpy(op->best + to, &bytes, lanes);
                }
            }
        }
    }
}

static void max_forward(const struct max_pool *op)
{
    for (uint32_t i = 0; i < chunks_of(&op->src); i++) {
        struct chunk s = chunk_of(&op->src, i), d = chunk_of(&op->dst, i);
        DISPATCH(max_forward_chunk, &op->src, s, op, &s, &d);
    }
}

INLINE void max_backward_chunk(const struct map *src, const struct map *dst, const struct chunk *s,
                               const struct chunk *d, void *dx, const void *dy, const uint8_t *best, enum map_type type,
                               uint32_t lanes)
{
    for (uint32_t n = 0; n < src->n; n++) {
        size_t to = s->first + n * s->image, from = d->first + n * d->image;
        for (uint32_t oy = 0; oy < dst->side; oy++) {
            for (uint32_t ox = 0; ox < dst->side; ox++, from += d->pixel) {
                b16 bytes = {0};
                memcpy(&bytes, best + from, lanes);
                i16 which = __builtin_convertvector(bytes, i16);
                v16 g = load(dy, from, type, lanes);
                for (uint32_t tap = 0; tap < 9; tap++) {
                    int64_t pixel = tap_pixel(src, oy, ox, tap);
                    if (pixel >= 0) {
                        size_t at = to + (size_t)pixel * s->pixel;
                        v16 share = choose(which == splat_int((int32_t)tap), g, splat(0));
                        store(dx, at, type, lanes, load(dx, at, type, lanes) + share);
                    }
                }
            }
        }
    }
}

static void max_backward(const struct map *src, const struct map *dst, void *dx, const void *dy, const uint8_t *best)
{
    memset(dx, 0, map_bytes(src));
    for (uint32_t i = 0; i < chunks_of(src); i++) {
        struct chunk s = chunk_of(src, i), d = chunk_of(dst, i);
        DISPATCH(max_backward_chunk, src, s, src, dst, &s, &d, dx, dy, best);
    }
}

INLINE void average_forward_chunk(const struct map *map, const struct chunk *c, const void *x, float *y,
                                  enum map_type type, uint32_t lanes)
{
    uint32_t pixels = map->side * map->side;
    for (uint32_t n = 0; n < map->n; n++) {
        v16 sum = splat(0);
        for (uint32_t p = 0; p < pixels; p++) {
            sum += load(x, c->first + n * c->image + p * c->pixel, type, lanes);
        }
        store(y, (size_t)n * map->channels + c->channel, MAP_F32, lanes, sum / splat((float)pixels));
    }
}

static void average_forward(const struct map *map, const void *x, float *y)
{
    for (uint32_t i = 0; i < chunks_of(map); i++) {
        struct chunk c = chunk_of(map, i);
        DISPATCH(average_forward_chunk, map, c, map, &c, x, y);
    }
}

INLINE void average_backward_chunk(const struct map *map, const struct chunk *c, void *dx, const float *dy,
                                   enum map_type type, uint32_t lanes)
{
    uint32_t pixels = map->side * map->side;
    for (uint32_t n = 0; n < map->n; n++) {
        v16 share = load(dy, (size_t)n * map->channels + c->channel, MAP_F32, lanes) / splat((float)pixels);
        for (uint32_t p = 0; p < pixels; p++) {
            store(dx, c->first + n * c->image + p * c->pixel, type, lanes, share);
        }
    }
}

static void average_backward(const struct map *map, void *dx, const float *dy)
{
    for (uint32_t i = 0; i < chunks_of(map); i++) {
        struct chunk c = chunk_of(map, i);
        DISPATCH(average_backward_chunk, map, c, map, &c, dx, dy);
    }
}

INLINE void add_flat(void *y, const void *x, size_t n, enum map_type type)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        store(y, i, type, LANES, load(y, i, type, LANES) + load(x, i, type, LANES));
    }
    if (i < n) {
        uint32_t rest = (uint32_t)(n - i);
        store(y, i, type, rest, load(y, i, type, rest) + load(x, i, type, rest));
    }
}

static void add(const struct map *map, void *y, const void *x)
{
    if (map->type == MAP_BF16) {
        add_flat(y, x, map_elements(map), MAP_BF16);
    } else {
        add_flat(y, x, map_elements(map), MAP_F32);
    }
}

static void to_bf16(uint16_t *out, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        store(out, i, MAP_BF16, LANES, load(x, i, MAP_F32, LANES));
    }
    if (i < n) {
        store(out, i, MAP_BF16, (uint32_t)(n - i), load(x, i, MAP_F32, (uint32_t)(n - i)));
    }
}

static bool all_finite(const float *x, size_t n)
{
    i16 bad = splat_int(0);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        bad |= ((i16)load(x, i, MAP_F32, LANES) & 0x7f800000) == 0x7f800000;
    }
    if (i < n) {
        bad |= ((i16)load(x, i, MAP_F32, (uint32_t)(n - i)) & 0x7f800000) == 0x7f800000;
    }
    int32_t any = 0;
    for (uint32_t k = 0; k < LANES; k++) {
        any |= bad[k];
    }
    return any == 0;
}

static void accumulate(float *y, const float *x, size_t n, bool first)
{
    if (first) {
        memcpy(y, x, n * sizeof *y);
    } else {
        add_flat(y, x, n, MAP_F32);
    }
}

/* exp(x) for x <= 0: 2^n * exp(r) with |r| <= ln(2) / 2 and a polynomial of degree 6 for exp(r), whose coefficients are
 * 1 / k!; the remainder of the series is below 2e-7 there. */
INLINE v16 exponential(v16 x)
{
    i16 tiny = x < splat(-87.0f);
    x = choose(tiny, splat(0), x);
    v16 scaled = x * splat(1.44269504f) - splat(0.5f); /* truncation then rounds, since x <= 0 */
    i16 n = __builtin_convertvector(scaled, i16);
    v16 whole = __builtin_convertvector(n, v16);
    v16 r = (x - whole * splat(0.693359375f)) + whole * splat(2.12194440e-4f);
    v16 p = splat(1.0f / 720);
    p = p * r + splat(1.0f / 120);
    p = p * r + splat(1.0f / 24);
    p = p * r + splat(1.0f / 6);
    p = p * r + splat(0.5f);
    p = p * r + splat(1.0f);
    p = p * r + splat(1.0f);
    v16 power = (v16)((n + 127) << 23);
    return choose(tiny, splat(0), p * power);
}

static double exponentials(float *values, size_t n, float top)
{
    double sum = 0;
    v16 part = splat(0), origin = splat(top);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        v16 e = exponential(load(values, i, MAP_F32, LANES) - origin);
        store(values, i, MAP_F32, LANES, e);
        part += e;
        if ((i / LANES & 63) == 63 || i + 2 * LANES > n) { /* floats do not add up more than 64 */
            for (uint32_t k = 0; k < LANES; k++) {
                sum += (double)part[k];
            }
            part = splat(0);
        }
    }
    if (i < n) {
        uint32_t rest = (uint32_t)(n - i);
        v16 e = exponential(load(values, i, MAP_F32, rest) - origin);
        store(values, i, MAP_F32, rest, e);
        for (uint32_t k = 0; k < rest; k++) {
            sum += (double)e[k];
        }
    }
    return sum;
}

static float largest(const float *values, size_t n)
{
    v16 most = splat(-INFINITY);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        v16 x = load(values, i, MAP_F32, LANES);
        most = choose(x > most, x, most);
    }
    float best = -INFINITY;
    for (uint32_t k = 0; k < LANES; k++) {
        best = most[k] > best ? most[k] : best;
    }
    for (; i < n; i++) {
        best = values[i] > best ? values[i] : best;
    }
    return best;
}

static void scale(float *values, size_t n, float by)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        store(values, i, MAP_F32, LANES, load(values, i, MAP_F32, LANES) * splat(by));
    }
    for (; i < n; i++) {
        values[i] *= by;
    }
}

INLINE void optimise_vector(const struct optimiser *o, uint64_t at, float decay, uint32_t lanes)
{
    v16 g = load(o->grad, at, MAP_F32, lanes);
    v16 p = load(o->params, at, MAP_F32, lanes), v = load(o->velocity, at, MAP_F32, lanes);
    v16 key = load(o->key, at, MAP_F32, lanes);
    v = splat(o->momentum) * v + (g + splat(decay) * p);
    p = p - splat(o->learning_rate) * v;
    key = splat(o->key_momentum) * key + splat(1 - o->key_momentum) * p;
    store(o->velocity, at, MAP_F32, lanes, v);
    store(o->params, at, MAP_F32, lanes, p);
    store(o->key, at, MAP_F32, lanes, key);
}

static void optimise(const struct optimiser *o, uint64_t begin, uint64_t end)
{
    while (begin < end) {
        bool decays = begin < o->decay_end;
        uint64_t stop = decays && o->decay_end < end ? o->decay_end : end;
        float decay = decays ? o->weight_decay : 0;
        for (; begin + LANES <= stop; begin += LANES) {
            optimise_vector(o, begin, decay, LANES);
        }
        if (begin < stop) {
            optimise_vector(o, begin, decay, (uint32_t)(stop - begin));
        }
        begin = stop;
    }
}

extern const struct simd SIMD_NAME;
#define SIMD_TEXT_OF(name) #name
#define SIMD_TEXT(name)    SIMD_TEXT_OF(name)
const struct simd SIMD_NAME = {
    .name = SIMD_TEXT(SIMD_NAME),
    .bn_forward = bn_forward,
    .bn_backward = bn_backward,
    .max_forward = max_forward,
    .max_backward = max_backward,
    .average_forward = average_forward,
    .average_backward = average_backward,
    .add = add,
    .to_bf16 = to_bf16,
    .all_finite = all_finite,
    .accumulate = accumulate,
    .exponentials = exponentials,
    .largest = largest,
    .scale = scale,
    .optimise = optimise,
};
