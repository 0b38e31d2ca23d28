/* Views: a function of their name, and each part of the recipe does what it says, in the share of views it should. */
#include "tests/unit/client/data/data_support.h"

#include "client/data/augment.h"
#include "client/data/views/views.h"

#include <math.h>

#define SIDE   32u
#define N      (SIDE * SIDE)
#define FLOATS ((size_t)3 * N)

static const struct augment_options nothing = {.crop_least = 1};
static const struct augment_options everything = {.crop_least = 0.2f,
                                                  .jitter = 0.4f,
                                                  .jitter_probability = 0.8f,
                                                  .grey_probability = 0.2f,
                                                  .blur_probability = 0.5f,
                                                  .flip = true};

static uint8_t picture[N * 3];
static float scratch[AUGMENT_SCRATCH(SIDE)];

/* Noise around a slope, so that no two places are alike. */
static int setup(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 1, RNG_TEST, 0, 0, 0);
    paint(picture, SIDE, SIDE, 4);
    for (size_t i = 0; i < sizeof picture; i++) {
        picture[i] = (uint8_t)(picture[i] / 2 + rng_below(&rng, 100));
    }
    return 0;
}

/* A view with the normalisation taken back: values in [0, 1]. */
static void view_of(const struct augment_options *options, uint64_t image, float *out)
{
    augment_view(options, picture, SIDE, SIDE, 7, 3, image, 0, out, scratch);
    for (size_t i = 0; i < FLOATS; i++) {
        out[i] = out[i] * image_deviation[i / N] + image_mean[i / N];
    }
}

static float original(size_t c, size_t y, size_t x)
{
    return (float)picture[(y * SIDE + x) * 3 + c] / 255;
}

static void a_view_depends_on_its_name_alone(void **state)
{
    (void)state;
    float a[FLOATS], b[FLOATS], other[AUGMENT_SCRATCH(SIDE)];
    augment_view(&everything, picture, SIDE, SIDE, 7, 3, 11, 1, a, scratch);
    for (uint64_t i = 0; i < 9; i++) { /* others in between */
        augment_view(&everything, picture, SIDE, SIDE, 7, 3, i, 0, b, scratch);
    }
    memset(other, 0x7f, sizeof other); /* nothing is carried over in scratch */
    augment_view(&everything, picture, SIDE, SIDE, 7, 3, 11, 1, b, other);
    assert_memory_equal(a, b, sizeof a);
    const uint64_t names[][4] = {{8, 3, 11, 1}, {7, 4, 11, 1}, {7, 3, 12, 1}, {7, 3, 11, 0}};
    for (size_t i = 0; i < 4; i++) {
        augment_view(&everything, picture, SIDE, SIDE, names[i][0], names[i][1], names[i][2], (uint32_t)names[i][3], b,
                     scratch);
        assert_memory_not_equal(a, b, sizeof a);
    }
}

/* Whatever the processor has, the views are the same. */
static void instruction_sets_agree(void **state)
{
    (void)state;
    static uint8_t in[40 * 40 * 3];
    static float first[3 * 24 * 24], more[3 * 24 * 24], room[AUGMENT_SCRATCH(24)];
    const struct augment_options options = {.crop_least = 0.2f,
                                            .jitter = 0.4f,
                                            .jitter_probability = 0.8f,
                                            .grey_probability = 0.2f,
                                            .blur_probability = 0.5f,
                                            .flip = true};
    struct rng rng;
    rng_init(&rng, 1, RNG_TEST, 0, 0, 0);
    for (size_t i = 0; i < sizeof in; i++) {
        in[i] = (uint8_t)rng_below(&rng, 256);
    }
    assert_non_null(views_variant(0));
    for (uint32_t variant = 1; views_variant(variant); variant++) {
        for (uint64_t image = 0; image < 200; image++) {
            views_variant(0)(&options, in, 40, 24, 3, 0, image, 0, first, room);
            views_variant(variant)(&options, in, 40, 24, 3, 0, image, 0, more, room);
            assert_memory_equal(first, more, sizeof first);
        }
    }
}

static void plain_is_the_picture_normalised(void **state)
{
    (void)state;
    float plain[FLOATS], view[FLOATS];
    augment_plain(picture, SIDE, plain);
    augment_view(&nothing, picture, SIDE, SIDE, 1, 1, 1, 1, view, scratch);
    for (size_t i = 0; i < FLOATS; i++) {
        size_t c = i / N, at = i % N;
        float expected = (original(c, at / SIDE, at % SIDE) - image_mean[c]) / image_deviation[c];
        assert_true(fabsf(plain[i] - expected) < 1e-5f);
        assert_true(fabsf(view[i] - expected) < 1e-5f); /* a crop of everything changes nothing */
    }
}

static void half_of_the_views_are_mirrored(void **state)
{
    (void)state;
    struct augment_options flip = nothing;
    flip.flip = true;
    float view[FLOATS];
    unsigned mirrored = 0, straight = 0;
    for (uint64_t i = 0; i < 2000; i++) {
        view_of(&flip, i, view);
        mirrored +=
            fabsf(view[5] - original(0, 0, SIDE - 6)) < 1e-4f && fabsf(view[0] - original(0, 0, SIDE - 1)) < 1e-4f;
        straight += fabsf(view[5] - original(0, 0, 5)) < 1e-4f && fabsf(view[0] - original(0, 0, 0)) < 1e-4f;
    }
    assert_int_equal(mirrored + straight, 2000);
    assert_in_range(mirrored, 900, 1100); /* 4.5 deviations */
}

/* A slope from 0 to 1 along x and along y tells where a view was taken. */
static void crops_cover_the_range_of_areas_and_places(void **state)
{
    (void)state;
    const uint32_t side = 64;
    const float pixels = 64;
    uint8_t *slope = mem_new((size_t)side * side, 3);
    struct augment_options crop = {.crop_least = 0.2f};
    float view[FLOATS], least = 1, most = 0, wide = 0, high = 0, left = 1, right = 0;
    double area_sum = 0;
    for (uint32_t i = 0; i < side * side; i++) {
        slope[i * 3] = (uint8_t)(i % side * 4);
        slope[i * 3 + 1] = (uint8_t)(i / side * 4);
    }
    for (uint64_t i = 0; i < 3000; i++) {
        augment_view(&crop, slope, side, SIDE, 1, 1, i, 0, view, scratch);
        /* First to last pixel centre, in source pixels, then to the whole crop; 255 / 4 source pixels make 1. */
        float x0 = view[0], x1 = view[SIDE - 1], y0 = view[N], y1 = view[N + N - 1];
        float to_pixels = 255.0f / 4, ends = (float)SIDE / (SIDE - 1);
        float width = (x1 - x0) * image_deviation[0] * to_pixels * ends / pixels;
        float height = (y1 - y0) * image_deviation[1] * to_pixels * ends / pixels;
        float area = width * height, ratio = width / height;
        least = area < least ? area : least;
        most = area > most ? area : most;
        wide = ratio > wide ? ratio : wide;
        high = 1 / ratio > high ? 1 / ratio : high;
        float centre = ((x0 + x1) / 2 * image_deviation[0] + image_mean[0]) * to_pixels / pixels;
        left = centre < left ? centre : left;
        right = centre > right ? centre : right;
        area_sum += (double)area;
    }
    assert_true(least > 0.18f && least < 0.24f);
    assert_true(most > 0.93f && most < 1.02f);
    assert_true(wide > 1.25f && wide < 1.42f);
    assert_true(high > 1.25f && high < 1.42f);
    assert_true(left < 0.3f && right > 0.7f);
    assert_true(area_sum / 3000 > 0.52 && area_sum / 3000 < 0.62);
    mem_free(slope);
}

/* Fine stripes shrunk eight times: without antialiasing they would beat. */
static void shrinking_averages(void **state)
{
    (void)state;
    const uint32_t side = 256;
    uint8_t *stripes = mem_new((size_t)side * side, 3);
    float view[FLOATS];
    for (uint32_t i = 0; i < side * side * 3; i++) {
        stripes[i] = i / 3 % side % 2 ? 255 : 0;
    }
    augment_view(&nothing, stripes, side, SIDE, 1, 1, 1, 0, view, scratch);
    for (size_t i = 0; i < N; i++) {
        float value = view[i] * image_deviation[0] + image_mean[0];
        assert_true(value > 0.4f && value < 0.6f);
    }
    mem_free(stripes);
}

static float luma_of(const float *view, size_t i)
{
    return 0.299f * view[i] + 0.587f * view[N + i] + 0.114f * view[2 * N + i];
}

static bool is_grey(const float *view)
{
    for (size_t i = 0; i < N; i++) {
        if (fabsf(view[i] - view[N + i]) > 1e-4f || fabsf(view[i] - view[2 * N + i]) > 1e-4f) {
            return false;
        }
    }
    return true;
}

static void grey_keeps_the_luma_in_its_share_of_views(void **state)
{
    (void)state;
    struct augment_options grey = nothing;
    grey.grey_probability = 0.2f;
    float view[FLOATS];
    unsigned count = 0;
    for (uint64_t i = 0; i < 2000; i++) {
        view_of(&grey, i, view);
        count += is_grey(view);
        for (size_t k = 0; k < N; k += 100) {
            float expected = 0.299f * original(0, k / SIDE, k % SIDE) + 0.587f * original(1, k / SIDE, k % SIDE) +
                             0.114f * original(2, k / SIDE, k % SIDE);
            assert_true(fabsf(luma_of(view, k) - expected) < 1e-4f);
        }
    }
    assert_in_range(count, 320, 480);
}

static void jitter_changes_colours_in_its_share_of_views(void **state)
{
    (void)state;
    struct augment_options jitter = nothing;
    jitter.jitter = 0.4f;
    jitter.jitter_probability = 0.8f;
    float view[FLOATS], plain[FLOATS];
    double least = 10, most = 0, before = 0;
    unsigned changed = 0;
    view_of(&nothing, 0, plain);
    for (size_t i = 0; i < FLOATS; i++) {
        before += (double)plain[i];
    }
    for (uint64_t i = 0; i < 2000; i++) {
        view_of(&jitter, i, view);
        double sum = 0, difference = 0;
        for (size_t k = 0; k < FLOATS; k++) {
            assert_true(view[k] > -1e-4f && view[k] < 1.0001f);
            sum += (double)view[k];
            difference += (double)fabsf(view[k] - plain[k]);
        }
        changed += difference > 1;
        least = sum / before < least ? sum / before : least;
        most = sum / before > most ? sum / before : most;
    }
    assert_in_range(changed, 1530, 1670);
    assert_true(least > 0.5 && least < 0.68); /* brightness within 1 +- 0.4 */
    assert_true(most > 1.32 && most < 1.5);
}

/* Hue turns colours without touching the largest and the smallest channel; grey stays grey. Jitter's other three can be
 * told from it, since for pure hue (strength so that only hue is drawn wide) max and min stay: here each view is
 * compared on its hexcone angle, with saturated red as input. */
static void hue_turns_within_its_quarter(void **state)
{
    (void)state;
    struct augment_options jitter = nothing;
    jitter.jitter = 0.4f; /* hue within +-0.1 turns: +-0.6 sixths */
    jitter.jitter_probability = 1;
    uint8_t red[N * 3];
    float view[FLOATS], least = 0, most = 0;
    for (size_t i = 0; i < N; i++) {
        memcpy(red + 3 * i, (const uint8_t[]){150, 50, 50}, 3);
    }
    for (uint64_t i = 0; i < 2000; i++) {
        augment_view(&jitter, red, SIDE, SIDE, 7, 3, i, 0, view, scratch);
        float r = view[0] * image_deviation[0] + image_mean[0], g = view[N] * image_deviation[1] + image_mean[1],
              b = view[2 * N] * image_deviation[2] + image_mean[2];
        assert_true(r > g && r > b);
        float low = g < b ? g : b, angle = (g - b) / (r - low);
        least = angle < least ? angle : least;
        most = angle > most ? angle : most;
    }
    assert_true(least < -0.57f && least > -0.61f);
    assert_true(most > 0.57f && most < 0.61f);
}

static double roughness(const float *view)
{
    double sum = 0;
    for (size_t i = 0; i + 1 < N; i++) {
        sum += (double)fabsf(view[i + 1] - view[i]);
    }
    return sum;
}

static void blur_smooths_and_keeps_the_mean(void **state)
{
    (void)state;
    struct augment_options blur = nothing;
    blur.blur_probability = 1;
    float view[FLOATS], plain[FLOATS];
    unsigned smoother = 0;
    view_of(&nothing, 0, plain);
    double before = roughness(plain);
    for (uint64_t i = 0; i < 200; i++) {
        view_of(&blur, i, view);
        double a = 0, b = 0;
        for (size_t k = 0; k < N; k++) {
            a += (double)view[k];
            b += (double)plain[k];
        }
        assert_true(fabs(a / b - 1) < 0.02);
        assert_true(roughness(view) < before * 1.0001);
        smoother += roughness(view) < before * 0.7;
    }
    assert_true(smoother > 120); /* small deviations leave the picture nearly as it is */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_view_depends_on_its_name_alone),
        cmocka_unit_test(instruction_sets_agree),
        cmocka_unit_test(plain_is_the_picture_normalised),
        cmocka_unit_test(half_of_the_views_are_mirrored),
        cmocka_unit_test(crops_cover_the_range_of_areas_and_places),
        cmocka_unit_test(shrinking_averages),
        cmocka_unit_test(grey_keeps_the_luma_in_its_share_of_views),
        cmocka_unit_test(jitter_changes_colours_in_its_share_of_views),
        cmocka_unit_test(hue_turns_within_its_quarter),
        cmocka_unit_test(blur_smooths_and_keeps_the_mean),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
