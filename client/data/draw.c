/* Drawn pictures.
 *
 * What makes the class is the *kind* of pattern, which survives cropping, flipping, jittered colours and grey: those
 * are what contrastive views change. What is chance, and larger in pixels than the pattern's shape: which of the two
 * tones is the lighter one, their colours, scale, rotation, phase, the pattern's bends, shading, patches of another
 * tint, a shape in front, noise. So neither raw pixels nor an untrained network group the pictures by class. Colours
 * are muted on purpose: beyond what jitter can hide they tell single pictures apart, and an encoder then learns them
 * instead of patterns.
 *
 * Measured when this was settled (2,000 pictures of ten classes, 500 held out, k-nearest neighbours with k = 200): raw
 * pixels 0.24, an untrained ResNet-10 of width 16 0.30, the same after 360 steps of MoCo 0.64. A change here changes
 * every drawn set, and tests/unit/client/data/test_draw.c says so.
 *
 * A pattern is a function of a point in the plane, in units of its period, to ink in [0, 1]; each pixel averages
 * SAMPLES x SAMPLES points. No libm beyond sqrtf and floorf, so that a seed names the same bytes everywhere. */
#include "client/data/draw.h"

#include "common/base/rng.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#define SAMPLES 3

static float clamp01(float v)
{
    v = v < 0 ? 0 : v;
    return v > 1 ? 1 : v;
}

static float fraction(float v)
{
    return v - floorf(v);
}

/* A wave of period 1 and height 1, two parabolas: close to a sine. */
static float wave(float t)
{
    t = fraction(t);
    return t < 0.5f ? 16 * t * (0.5f - t) : -16 * (t - 0.5f) * (1 - t);
}

/* 1 well below the edge, 0 well above, with a ramp that keeps small pictures from flickering. */
static float below(float v, float edge)
{
    return clamp01((edge - v) * 8 + 0.5f);
}

/* Value noise: random heights at whole points, joined smoothly. */
static float corner(uint64_t key, float x, float y)
{
    uint64_t name = (uint64_t)(uint32_t)(int32_t)x << 32 | (uint32_t)(int32_t)y;
    return (float)(rng_mix(key ^ rng_mix(name)) >> 40) * 0x1p-24f;
}

static float noise(uint64_t key, float x, float y)
{
    float fx = floorf(x), fy = floorf(y), u = x - fx, v = y - fy;
    u = u * u * (3 - 2 * u);
    v = v * v * (3 - 2 * v);
    float top = corner(key, fx, fy) * (1 - u) + corner(key, fx + 1, fy) * u;
    float bottom = corner(key, fx, fy + 1) * (1 - u) + corner(key, fx + 1, fy + 1) * u;
    return top * (1 - v) + bottom * v;
}

/* ---- The patterns ---- */

static float stripes(float x, float y, uint64_t key)
{
    (void)y, (void)key;
    return below(fabsf(fraction(x) - 0.5f), 0.25f);
}

static float checks(float x, float y, uint64_t key)
{
    (void)key;
    float a = below(fabsf(fraction(x / 2) - 0.5f), 0.25f), b = below(fabsf(fraction(y / 2) - 0.5f), 0.25f);
    return a * b + (1 - a) * (1 - b);
}

static float dots(float x, float y, uint64_t key)
{
    (void)key;
    float u = fraction(x) - 0.5f, v = fraction(y) - 0.5f;
    return below(sqrtf(u * u + v * v), 0.3f);
}

static float rings(float x, float y, uint64_t key)
{
    (void)key;
    float u = (fraction(x / 1.6f) - 0.5f) * 1.6f, v = (fraction(y / 1.6f) - 0.5f) * 1.6f;
    return below(fabsf(sqrtf(u * u + v * v) - 0.5f), 0.14f);
}

static float crosses(float x, float y, uint64_t key)
{
    (void)key;
    float u = fabsf(fraction(x / 1.3f) - 0.5f) * 1.3f, v = fabsf(fraction(y / 1.3f) - 0.5f) * 1.3f;
    float far = u > v ? u : v, near = u > v ? v : u;
    return below(near, 0.13f) * below(far, 0.48f);
}

static float zigzag(float x, float y, uint64_t key)
{
    (void)key;
    float bend = fabsf(fraction(y / 2) - 0.5f) * 2;
    return below(fabsf(fraction(x + bend) - 0.5f), 0.25f);
}

static float bricks(float x, float y, uint64_t key)
{
    (void)key;
    float row = floorf(y), shift = fraction(row / 2); /* every other row by half a brick */
    float u = fabsf(fraction(x / 2 + shift) - 0.5f) * 2, v = fabsf(fraction(y) - 0.5f);
    return below(u, 0.86f) * below(v, 0.37f);
}

static float blobs(float x, float y, uint64_t key)
{
    return below(0.5f, noise(key, x * 1.4f, y * 1.4f) * 2 - 0.5f);
}

static float grid(float x, float y, uint64_t key)
{
    (void)key;
    float u = fabsf(fraction(x) - 0.5f), v = fabsf(fraction(y) - 0.5f);
    return below(u < v ? u : v, 0.11f);
}

static float triangles(float x, float y, uint64_t key)
{
    (void)key;
    float u = fraction(x / 1.3f), v = fraction(y / 1.3f);
    return below(fabsf(u - 0.5f) * 1.3f, (v - 0.15f) * 0.6f) * below(v, 0.85f);
}

static float strokes(float x, float y, uint64_t key)
{
    float column = floorf(x), shift = corner(key, column, 0); /* dashes, each column at its own place */
    return below(fabsf(fraction(x) - 0.5f), 0.2f) * below(fabsf(fraction(y / 2 + shift) - 0.5f), 0.3f);
}

static float waves(float x, float y, uint64_t key)
{
    (void)key;
    return below(fabsf(fraction(x + 0.35f * wave(y / 2.5f)) - 0.5f), 0.22f);
}

static const struct {
    const char *name;
    float (*ink)(float x, float y, uint64_t key);
    float finest, coarsest; /* period, as shares of the picture */
} patterns[DRAW_CLASSES_MAX] = {
    {"stripes", stripes, 0.13f, 0.24f},     {"checks", checks, 0.09f, 0.18f},    {"dots", dots, 0.13f, 0.24f},
    {"rings", rings, 0.16f, 0.27f},         {"crosses", crosses, 0.16f, 0.27f},  {"zigzag", zigzag, 0.13f, 0.24f},
    {"bricks", bricks, 0.145f, 0.255f},     {"blobs", blobs, 0.16f, 0.29f},      {"grid", grid, 0.16f, 0.27f},
    {"triangles", triangles, 0.16f, 0.29f}, {"strokes", strokes, 0.13f, 0.225f}, {"waves", waves, 0.145f, 0.24f},
};

const char *draw_class_name(uint32_t class)
{
    return patterns[class].name;
}

/* ---- The picture ---- */

struct shape { /* a grey disc or bar in front of the pattern */
    float x, y, along_x, along_y, length, width, tone;
    bool shown;
};

struct scene {
    uint32_t class;
    uint64_t key;
    float turn_x, turn_y, scale, shift_x, shift_y, bend;
    float paper[3], ink[3];
    float light_x, light_y, light, tint, grain;
    struct shape shape;
};

/* A direction, uniform: a point in the unit disc, pushed to its rim. */
static void direction(struct rng *rng, float *x, float *y)
{
    float square;
    do {
        *x = rng_range(rng, -1, 1);
        *y = rng_range(rng, -1, 1);
        square = *x * *x + *y * *y;
    } while (square > 1 || square < 0.01f);
    float length = sqrtf(square);
    *x /= length;
    *y /= length;
}

static void shape_draw(struct rng *rng, struct shape *shape)
{
    bool bar = rng_u32(rng) & 1;
    shape->shown = rng_u32(rng) & 1;
    shape->x = rng_float(rng);
    shape->y = rng_float(rng);
    direction(rng, &shape->along_x, &shape->along_y);
    shape->length = bar ? rng_range(rng, 0.1f, 0.5f) : 0;
    shape->width = bar ? rng_range(rng, 0.03f, 0.07f) : rng_range(rng, 0.06f, 0.16f);
    shape->tone = rng_float(rng);
}

static void scene_draw(struct rng *rng, uint32_t class, struct scene *scene)
{
    scene->class = class;
    scene->key = rng_u64(rng);
    direction(rng, &scene->turn_x, &scene->turn_y);
    scene->scale = 1 / rng_range(rng, patterns[class].finest, patterns[class].coarsest);
    scene->shift_x = rng_range(rng, 0, 64);
    scene->shift_y = rng_range(rng, 0, 64);
    scene->bend = rng_range(rng, 0, 0.2f);
    float contrast = rng_range(rng, 0.5f, 0.8f) * (rng_u32(rng) & 1 ? 1.0f : -1.0f);
    float middle = rng_range(rng, 0.42f, 0.58f);
    for (int c = 0; c < 3; c++) {
        scene->paper[c] = middle - contrast / 2 + rng_range(rng, -0.06f, 0.06f);
        scene->ink[c] = middle + contrast / 2 + rng_range(rng, -0.06f, 0.06f);
    }
    direction(rng, &scene->light_x, &scene->light_y);
    scene->light = rng_range(rng, 0, 0.3f);
    scene->tint = rng_range(rng, 0, 0.15f);
    scene->grain = rng_range(rng, 0.01f, 0.03f);
    shape_draw(rng, &scene->shape);
}

static bool shape_covers(const struct shape *shape, float x, float y)
{
    float dx = x - shape->x, dy = y - shape->y;
    float along = dx * shape->along_x + dy * shape->along_y;
    along = along > shape->length ? shape->length : along < -shape->length ? -shape->length : along;
    dx -= along * shape->along_x;
    dy -= along * shape->along_y;
    return dx * dx + dy * dy < shape->width * shape->width;
}

/* The colour at a point of the unit square. */
static void scene_colour(const struct scene *scene, float x, float y, float colour[3])
{
    float u = (x * scene->turn_x - y * scene->turn_y) * scene->scale + scene->shift_x;
    float v = (x * scene->turn_y + y * scene->turn_x) * scene->scale + scene->shift_y;
    u += scene->bend * (noise(scene->key + 1, x * 2.5f, y * 2.5f) - 0.5f);
    v += scene->bend * (noise(scene->key + 2, x * 2.5f, y * 2.5f) - 0.5f);
    float ink = patterns[scene->class].ink(u, v, scene->key);
    float light = 1 + scene->light * ((x - 0.5f) * scene->light_x + (y - 0.5f) * scene->light_y) * 2;
    for (uint32_t c = 0; c < 3; c++) {
        float tint = scene->tint * (noise(scene->key + 3 + c, x * 2, y * 2) - 0.5f);
        colour[c] = (scene->paper[c] + (scene->ink[c] - scene->paper[c]) * ink + tint) * light;
    }
    if (scene->shape.shown && shape_covers(&scene->shape, x, y)) {
        colour[0] = colour[1] = colour[2] = scene->shape.tone;
    }
}

void draw_image(uint32_t class, uint64_t seed, uint64_t index, uint32_t size, uint8_t *rgb)
{
    struct rng rng;
    struct scene scene;
    rng_init(&rng, seed, RNG_DRAW, class, index, 0);
    scene_draw(&rng, class, &scene);
    float step = 1 / ((float)size * SAMPLES);
    for (uint32_t y = 0; y < size; y++) {
        for (uint32_t x = 0; x < size; x++) {
            float sum[3] = {0, 0, 0}, colour[3];
            for (uint32_t s = 0; s < SAMPLES * SAMPLES; s++) {
                scene_colour(&scene, ((float)(x * SAMPLES + s % SAMPLES) + 0.5f) * step,
                             ((float)(y * SAMPLES + s / SAMPLES) + 0.5f) * step, colour);
                for (uint32_t c = 0; c < 3; c++) {
                    sum[c] += clamp01(colour[c]);
                }
            }
            for (uint32_t c = 0; c < 3; c++) {
                float value = sum[c] / (SAMPLES * SAMPLES) + scene.grain * rng_normal(&rng);
                rgb[((size_t)y * size + x) * 3 + c] = (uint8_t)(clamp01(value) * 255 + 0.5f);
            }
        }
    }
}
