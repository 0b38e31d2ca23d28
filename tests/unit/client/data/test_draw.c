/* Drawn pictures: the same for the same name, different in everything but the class, and so hard that raw pixels do not
 * tell the classes apart (the figures for encoders are measured by hand; see client/data/draw.c). */
#include "tests/unit/client/data/data_support.h"

#include "client/data/draw.h"
#include "common/base/hash.h"

#include <math.h>

#define SIDE 32u
#define N    ((size_t)SIDE * SIDE * 3)

static void a_picture_depends_on_its_name_alone(void **state)
{
    (void)state;
    uint8_t a[N], b[N];
    draw_image(3, 5, 7, SIDE, a);
    draw_image(4, 5, 7, SIDE, b);
    assert_memory_not_equal(a, b, N);
    draw_image(3, 6, 7, SIDE, b);
    assert_memory_not_equal(a, b, N);
    draw_image(3, 5, 8, SIDE, b);
    assert_memory_not_equal(a, b, N);
    draw_image(3, 5, 7, SIDE, b);
    assert_memory_equal(a, b, N);
}

/* The pictures are part of every figure that was measured with them: whoever changes the drawer changes this hash, and
 * measures again. It also holds for every compiler and processor. */
static void the_drawer_is_settled(void **state)
{
    (void)state;
    static uint8_t rgb[DRAW_CLASSES_MAX][N];
    char hex[HASH_HEX];
    for (uint32_t class = 0; class < DRAW_CLASSES_MAX; class ++) {
        draw_image(class, 1, class, SIDE, rgb[class]);
    }
    struct hash128 hash = hash_of(rgb, sizeof rgb);
    assert_string_equal(hash_hex(&hash, hex), "820a2251dcc88c082e6c6dd8dd43efde");
}

static double difference(const uint8_t *a, const uint8_t *b)
{
    double sum = 0;
    for (size_t i = 0; i < N; i++) {
        sum += fabs((double)a[i] - (double)b[i]);
    }
    return sum / (double)N;
}

/* A larger picture shows the same scene: shrunk, it is close to the smaller one, and to no other. */
static void size_changes_the_pixels_only(void **state)
{
    (void)state;
    uint8_t small[N], other[N], large[4 * N], shrunk[N];
    for (uint32_t class = 0; class < DRAW_CLASSES_MAX; class ++) {
        struct image image = {2 * SIDE, 2 * SIDE, large};
        draw_image(class, 1, 1, SIDE, small);
        draw_image(class, 1, 2, SIDE, other);
        draw_image(class, 1, 1, 2 * SIDE, large);
        assert_int_equal(image_square(&image, SIDE, shrunk), 0);
        assert_true(difference(small, shrunk) < 10);
        assert_true(difference(other, shrunk) > 30);
    }
}

static void class_names_make_folders(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < DRAW_CLASSES_MAX; i++) {
        const char *name = draw_class_name(i);
        assert_true(strlen(name) > 2 && strspn(name, "abcdefghijklmnopqrstuvwxyz") == strlen(name));
        for (uint32_t k = 0; k < i; k++) {
            assert_string_not_equal(name, draw_class_name(k));
        }
    }
}

/* The set's promise, in small: one nearest neighbour among 400 by the cosine of centred pixels. A drawer whose classes
 * differ in colour, brightness or place would score far above. */
static void raw_pixels_do_not_tell_classes_apart(void **state)
{
    (void)state;
    const uint32_t train = 400, test = 100, classes = 10;
    float *rows = mem_new((size_t)(train + test) * N, sizeof(float));
    uint8_t rgb[N];
    uint32_t right = 0;
    for (uint32_t i = 0; i < train + test; i++) {
        float *row = rows + i * N, square = 0;
        draw_image(i % classes, 1, i / classes, SIDE, rgb);
        for (size_t k = 0; k < N; k++) {
            row[k] = (float)rgb[k] - 128;
            square += row[k] * row[k];
        }
        for (size_t k = 0; k < N; k++) {
            row[k] /= sqrtf(square);
        }
    }
    for (uint32_t i = train; i < train + test; i++) {
        float best = -2;
        uint32_t nearest = 0;
        for (uint32_t j = 0; j < train; j++) {
            float dot = 0;
            for (size_t k = 0; k < N; k++) {
                dot += rows[i * N + k] * rows[j * N + k];
            }
            if (dot > best) {
                best = dot;
                nearest = j;
            }
        }
        right += nearest % classes == i % classes;
    }
    mem_free(rows);
    assert_true(right < 35);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_drawer_is_settled),
        cmocka_unit_test(a_picture_depends_on_its_name_alone),
        cmocka_unit_test(size_changes_the_pixels_only),
        cmocka_unit_test(class_names_make_folders),
        cmocka_unit_test(raw_pixels_do_not_tell_classes_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
