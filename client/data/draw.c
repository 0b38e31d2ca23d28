/* Drawn pictures.
 *
 * What makes the class is the *kind* of pattern, which survives cropping, flipping, jittered colours and grey: those
 * are what contrastive views change. What is chance, and larger in pixels than the pattern: both colours and which of
 * them is lighter, scale, rotation, phase, the pattern's bends, shading, patches of other colour, shapes in front,
 * noise. So neither raw pixels nor an untrained network group the pictures by class (README has the figures).
 *
 * A pattern is a function of a point in the plane, in units of its period, to ink in [0, 1]; each pixel averages
 * SAMPLES x SAMPLES points. No libm beyond sqrtf and floorf, so that a seed names the same bytes everywhere. */
#include "client/data/draw.h"

#include "common/base/rng.h"

#include <math.h>
#include <stddef.h>

#define SAMPLES 3
#define SHAPES  3

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
    {"stripes", stripes, 0.16f, 0.3f},     {"checks", checks, 0.11f, 0.22f},   {"dots", dots, 0.16f, 0.3f},
    {"rings", rings, 0.2f, 0.34f},         {"crosses", crosses, 0.2f, 0.34f},  {"zigzag", zigzag, 0.16f, 0.3f},
    {"bricks", bricks, 0.18f, 0.32f},      {"blobs", blobs, 0.2f, 0.36f},      {"grid", grid, 0.2f, 0.34f},
    {"triangles", triangles, 0.2f, 0.36f}, {"strokes", strokes, 0.16f, 0.28f}, {"waves", waves, 0.18f, 0.3f},
};

const char *draw_class_name(uint32_t class)
{
    return patterns[class].name;
}

/* ---- The picture ---- */

struct shape { /* a disc or a bar in front of the pattern */
    float x, y, along_x, along_y, length, width, colour[3];
};

struct scene {
    uint32_t class;
    uint64_t key;
    float turn_x, turn_y, scale, shift_x, shift_y, bend;
    float paper[3], ink[3];
    float light_x, light_y, light, tint, grain;
    struct shape shapes[SHAPES];
    uint32_t shape_count;
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

static void scene_draw(struct rng *rng, uint32_t class, struct scene *scene)
{
    scene->class = class;
    scene->key = rng_u64(rng);
    direction(rng, &scene->turn_x, &scene->turn_y);
    scene->scale = 1 / rng_range(rng, patterns[class].finest, patterns[class].coarsest);
    scene->shift_x = rng_range(rng, 0, 64);
    scene->shift_y = rng_range(rng, 0, 64);
    scene->bend = rng_range(rng, 0, 0.5f);
    float contrast = rng_range(rng, 0.16f, 0.4f) * (rng_u32(rng) & 1 ? 1.0f : -1.0f);
    for (int c = 0; c < 3; c++) {
        scene->paper[c] = rng_range(rng, 0.15f, 0.85f);
        scene->ink[c] = scene->paper[c] + contrast + rng_range(rng, -0.15f, 0.15f);
    }
    direction(rng, &scene->light_x, &scene->light_y);
    scene->light = rng_range(rng, 0, 0.5f);
    scene->tint = rng_range(rng, 0.1f, 0.5f);
    scene->grain = rng_range(rng, 0.01f, 0.07f);
    scene->shape_count = rng_below(rng, SHAPES + 1);
    for (uint32_t i = 0; i < SHAPES; i++) {
        struct shape *shape = &scene->shapes[i];
        shape->x = rng_float(rng);
        shape->y = rng_float(rng);
        direction(rng, &shape->along_x, &shape->along_y);
        shape->length = rng_u32(rng) & 1 ? 0 : rng_range(rng, 0.1f, 0.5f);
        shape->width = shape->length > 0 ? rng_range(rng, 0.03f, 0.07f) : rng_range(rng, 0.06f, 0.16f);
        for (int c = 0; c < 3; c++) {
            shape->colour[c] = rng_float(rng);
        }
    }
}

static float shape_cover(const struct shape *shape, float x, float y)
{
    float dx = x - shape->x, dy = y - shape->y;
    float along = dx * shape->along_x + dy * shape->along_y;
    along = along > shape->length ? shape->length : along < -shape->length ? -shape->length : along;
    dx -= along * shape->along_x;
    dy -= along * shape->along_y;
    return sqrtf(dx * dx + dy * dy) < shape->width ? 1 : 0;
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
    for (uint32_t i = 0; i < scene->shape_count; i++) {
        float cover = shape_cover(&scene->shapes[i], x, y);
        for (uint32_t c = 0; c < 3; c++) {
            colour[c] += (scene->shapes[i].colour[c] - colour[c]) * cover;
        }
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
