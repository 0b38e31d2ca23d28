/* Augmented views; included once for each instruction set, with VIEWS_NAME defined. All variants give the same bits.
 *
 * A view's random numbers come from one stream named by (seed, epoch, image, view), so it depends neither on threads
 * nor on what was drawn before. Pixels are planar floats in [0, 1] until the last step, and each step clamps to that
 * range as 8-bit pictures would. The arithmetic is +, -, *, /, comparisons, sqrtf and floorf, all exact under IEEE 754:
 * no libm function whose last bit depends on its version.
 *
 * One place differs from SimCLR's published code: the crop's aspect ratio is drawn as r or 1/r, each half the time,
 * with r uniform in [3/4, 1] (symmetric like theirs, without exp and log). */
#include "client/data/views/views.h"

#include "common/base/rng.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define SHRINK_MAX 16                   /* side / size, at most */
#define TAPS_MAX   (2 * SHRINK_MAX + 2) /* source pixels that make one pixel of a view */

static float clamp01(float v)
{
    v = v < 0 ? 0 : v;
    return v > 1 ? 1 : v;
}

/* ---- Random resized crop and flip ---- */

struct crop {
    uint32_t x, y, width, height;
};

static struct crop crop_draw(struct rng *rng, uint32_t side, float least)
{
    struct crop crop = {0, 0, side, side};
    for (int attempt = 0; attempt < 10; attempt++) {
        float area = (float)side * (float)side * rng_range(rng, least, 1);
        float ratio = rng_range(rng, 0.75f, 1);
        float long_side = floorf(sqrtf(area / ratio) + 0.5f), short_side = floorf(sqrtf(area * ratio) + 0.5f);
        bool wide = rng_u32(rng) & 1;
        if (long_side <= (float)side && short_side >= 1) {
            crop.width = (uint32_t)(wide ? long_side : short_side);
            crop.height = (uint32_t)(wide ? short_side : long_side);
            crop.x = rng_below(rng, side - crop.width + 1);
            crop.y = rng_below(rng, side - crop.height + 1);
            break;
        }
    }
    return crop;
}

/* Pixel i of `to` that `from` source pixels become: a triangle filter, two source pixels wide when enlarging (that is
 * linear interpolation) and wider by the scale when shrinking. Weights sum to `sum`. Returns the number of taps. */
static uint32_t taps_of(uint32_t i, uint32_t from, uint32_t to, float sum, uint32_t *first, float *weights)
{
    float scale = (float)from / (float)to, reach = scale > 1 ? scale : 1;
    float centre = ((float)i + 0.5f) * scale - 0.5f;
    float low = floorf(centre - reach) + 1;
    low = low < 0 ? 0 : low;
    uint32_t count = 0;
    float total = 0;
    *first = (uint32_t)low;
    for (uint32_t j = *first; j < from && count < TAPS_MAX; j++) {
        float weight = 1 - fabsf((float)j - centre) / reach;
        if (weight <= 0) {
            break;
        }
        weights[count++] = weight;
        total += weight;
    }
    for (uint32_t k = 0; k < count; k++) {
        weights[k] *= sum / total;
    }
    return count;
}

struct columns {             /* taps of every column, in scratch */
    float *weights;          /* [size, TAPS_MAX] */
    uint32_t *first, *count; /* [size] */
};

/* One source row, filtered across: out [3, size]. */
static void filter_row(const uint8_t *row, const struct columns *columns, uint32_t size, bool flip, float *out)
{
    for (uint32_t x = 0; x < size; x++) {
        const uint8_t *p = row + (size_t)columns->first[x] * 3;
        const float *weights = columns->weights + (size_t)x * TAPS_MAX;
        float r = 0, g = 0, b = 0;
        for (uint32_t k = 0; k < columns->count[x]; k++, p += 3) {
            r += weights[k] * (float)p[0];
            g += weights[k] * (float)p[1];
            b += weights[k] * (float)p[2];
        }
        uint32_t to = flip ? size - 1 - x : x;
        out[to] = r;
        out[size + to] = g;
        out[2 * size + to] = b;
    }
}

/* in: [side, side, 3]; out: [3, size, size] in [0, 1]. Rows are filtered across when they are first needed; the two
 * last ones are kept, which is all that enlarging needs. */
static void resample(const uint8_t *in, uint32_t side, const struct crop *crop, bool flip, uint32_t size, float *out,
                     float *scratch)
{
    struct columns columns = {.weights = scratch};
    float *rows = scratch + (size_t)size * TAPS_MAX; /* [2, 3, size] */
    columns.first = (uint32_t *)(void *)(rows + (size_t)6 * size);
    columns.count = columns.first + size;
    for (uint32_t x = 0; x < size; x++) {
        columns.count[x] =
            taps_of(x, crop->width, size, 1.0f / 255, &columns.first[x], columns.weights + (size_t)x * TAPS_MAX);
    }
    int64_t held[2] = {-1, -1};
    size_t plane = (size_t)size * size;
    for (uint32_t y = 0; y < size; y++) {
        float weights[TAPS_MAX];
        uint32_t first, count = taps_of(y, crop->height, size, 1, &first, weights);
        for (uint32_t k = 0; k < count; k++) {
            uint32_t source = first + k;
            float *row = rows + (size_t)(source & 1) * 3 * size, weight = weights[k];
            if (held[source & 1] != source) {
                filter_row(in + ((size_t)(crop->y + source) * side + crop->x) * 3, &columns, size, flip, row);
                held[source & 1] = source;
            }
            for (uint32_t c = 0; c < 3; c++) {
                float *to = out + c * plane + (size_t)y * size;
                const float *from = row + (size_t)c * size;
                for (uint32_t x = 0; x < size; x++) {
                    to[x] = k == 0 ? weight * from[x] : to[x] + weight * from[x];
                }
            }
        }
    }
}

/* ---- Colour: planes r, g, b of n pixels each ---- */

static float luma(float r, float g, float b)
{
    return 0.299f * r + 0.587f * g + 0.114f * b; /* ITU-R BT.601 */
}

static void brightness(float *pixels, size_t n, float factor)
{
    for (size_t i = 0; i < 3 * n; i++) {
        pixels[i] = clamp01(pixels[i] * factor);
    }
}

static void contrast(float *pixels, size_t n, float factor)
{
    const float *r = pixels, *g = r + n, *b = g + n;
    float sums[8] = {0}, mean = 0; /* eight sums side by side: the same order with and without vector code */
    for (size_t i = 0; i + 8 <= n; i += 8) {
        for (size_t k = 0; k < 8; k++) {
            sums[k] += luma(r[i + k], g[i + k], b[i + k]);
        }
    }
    for (size_t i = n / 8 * 8; i < n; i++) {
        mean += luma(r[i], g[i], b[i]);
    }
    for (size_t k = 0; k < 8; k++) {
        mean += sums[k];
    }
    mean /= (float)n;
    for (size_t i = 0; i < 3 * n; i++) {
        pixels[i] = clamp01(mean + (pixels[i] - mean) * factor);
    }
}

static void saturation(float *pixels, size_t n, float factor)
{
    float *restrict r = pixels, *restrict g = pixels + n, *restrict b = pixels + 2 * n;
    for (size_t i = 0; i < n; i++) {
        float grey = luma(r[i], g[i], b[i]);
        r[i] = clamp01(grey + (r[i] - grey) * factor);
        g[i] = clamp01(grey + (g[i] - grey) * factor);
        b[i] = clamp01(grey + (b[i] - grey) * factor);
    }
}

/* Of the HSV hexcone: the channel whose sector begins at n sixths has value - chroma * ramp(n + hue). */
static float hue_channel(float n, float hue, float value, float chroma)
{
    float k = n + hue;
    k = k >= 6 ? k - 6 : k;
    float ramp = k < 4 - k ? k : 4 - k;
    return value - chroma * clamp01(ramp);
}

/* shift: in sixths of a turn, within +-6. */
static void hue(float *pixels, size_t n, float shift)
{
    float *restrict r = pixels, *restrict g = pixels + n, *restrict b = pixels + 2 * n;
    for (size_t i = 0; i < n; i++) {
        float red = r[i], green = g[i], blue = b[i];
        float high = red > green ? red : green, low = red < green ? red : green;
        high = high > blue ? high : blue;
        low = low < blue ? low : blue;
        float chroma = high - low;
        float inverse = 1 / (chroma > 0 ? chroma : 1); /* grey: all differences are zero */
        float at_red = (green - blue) * inverse, at_green = 2 + (blue - red) * inverse,
              at_blue = 4 + (red - green) * inverse;
        float angle = high == red ? at_red : (high == green ? at_green : at_blue);
        angle += shift;
        angle = angle < 0 ? angle + 6 : angle; /* from within [-7, 11] to [0, 6) */
        angle = angle < 0 ? angle + 6 : angle;
        angle = angle >= 6 ? angle - 6 : angle;
        r[i] = hue_channel(5, angle, high, chroma);
        g[i] = hue_channel(3, angle, high, chroma);
        b[i] = hue_channel(1, angle, high, chroma);
    }
}

static void grey(float *pixels, size_t n)
{
    float *restrict r = pixels, *restrict g = pixels + n, *restrict b = pixels + 2 * n;
    for (size_t i = 0; i < n; i++) {
        r[i] = g[i] = b[i] = luma(r[i], g[i], b[i]);
    }
}

static void jitter(struct rng *rng, float strength, float *pixels, size_t n)
{
    uint32_t order[4];
    rng_permutation(rng, order, 4);
    float least = strength < 1 ? 1 - strength : 0;
    for (uint32_t i = 0; i < 4; i++) {
        switch (order[i]) {
        case 0:
            brightness(pixels, n, rng_range(rng, least, 1 + strength));
            break;
        case 1:
            contrast(pixels, n, rng_range(rng, least, 1 + strength));
            break;
        case 2:
            saturation(pixels, n, rng_range(rng, least, 1 + strength));
            break;
        default:
            hue(pixels, n, rng_range(rng, -strength / 4, strength / 4) * 6);
        }
    }
}

/* ---- Gaussian blur, as SimCLR's: a kernel of a tenth of the side, deviation uniform in [0.1, 2] pixels ---- */

/* exp(-x) for x >= 0: Taylor at -x / 256, then squared eight times; relative error below 1e-4 wherever it matters. */
static float exp_minus(float x)
{
    float y = x < 64 ? x / 256 : 0.25f;
    float e = 1 - y * (1 - y / 2 * (1 - y / 3 * (1 - y / 4)));
    for (int i = 0; i < 8; i++) {
        e *= e;
    }
    return e;
}

/* Along one axis, edges repeated: neighbours lie `step` apart, lines `next` apart. */
static void blur_axis(const float *in, float *out, uint32_t size, size_t step, size_t next, int radius,
                      const float *kernel)
{
    for (uint32_t line = 0; line < size; line++) {
        for (int i = 0; i < (int)size; i++) {
            float sum = 0;
            for (int k = -radius; k <= radius; k++) {
                int at = i + k < 0 ? 0 : i + k >= (int)size ? (int)size - 1 : i + k;
                sum += kernel[k < 0 ? -k : k] * in[line * next + (size_t)at * step];
            }
            out[line * next + (size_t)i * step] = sum;
        }
    }
}

#define RADIUS_MAX 16
static void blur(struct rng *rng, float *pixels, uint32_t size, float *scratch)
{
    float deviation = rng_range(rng, 0.1f, 2), kernel[RADIUS_MAX + 1], total = 0;
    int radius = (int)(size / 20);
    radius = radius < 1 ? 1 : radius > RADIUS_MAX ? RADIUS_MAX : radius;
    for (int k = 0; k <= radius; k++) {
        kernel[k] = exp_minus((float)(k * k) / (2 * deviation * deviation));
        total += k == 0 ? kernel[k] : 2 * kernel[k];
    }
    for (int k = 0; k <= radius; k++) {
        kernel[k] /= total;
    }
    for (uint32_t c = 0; c < 3; c++) {
        float *plane = pixels + (size_t)c * size * size;
        blur_axis(plane, scratch, size, 1, size, radius, kernel);
        blur_axis(scratch, plane, size, size, 1, radius, kernel);
    }
}

/* ---- Views ---- */

static void view(const struct augment_options *options, const uint8_t *in, uint32_t side, uint32_t size, uint64_t seed,
                 uint64_t epoch, uint64_t image, uint32_t number, float *out, float *scratch)
{
    assert(size >= AUGMENT_SIZE_MIN && side <= SHRINK_MAX * size);
    struct rng rng;
    size_t n = (size_t)size * size;
    rng_init(&rng, seed, RNG_VIEW, epoch, image, number);
    struct crop crop = crop_draw(&rng, side, options->crop_least);
    bool flip = options->flip && (rng_u32(&rng) & 1);
    resample(in, side, &crop, flip, size, out, scratch);
    if (rng_float(&rng) < options->jitter_probability) {
        jitter(&rng, options->jitter, out, n);
    }
    if (rng_float(&rng) < options->grey_probability) {
        grey(out, n);
    }
    if (rng_float(&rng) < options->blur_probability) {
        blur(&rng, out, size, scratch);
    }
    for (size_t c = 0; c < 3; c++) {
        float scale = 1 / image_deviation[c], shift = -image_mean[c] / image_deviation[c];
        for (size_t i = 0; i < n; i++) {
            out[c * n + i] = out[c * n + i] * scale + shift;
        }
    }
}

extern const views_fn VIEWS_NAME;
const views_fn VIEWS_NAME = view;
