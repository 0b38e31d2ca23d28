/* Scores of models on folders: labels by name, and what cannot be scored. Bright and dark images are told apart by any
 * encoder, so that the right score is known. */
#include "client/data/image.h"
#include "client/train/evaluate.h"
#include "common/base/disk.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SIDE 16

static char root[] = "/tmp/starling-test-XXXXXX";
static struct layout *layout;
static float *params;

static const char *under_root(const char *name)
{
    static char path[2][DISK_PATH_MAX];
    static int turn;
    turn = !turn;
    assert_int_equal(disk_join(path[turn], root, name), 0);
    return path[turn];
}

/* `count` images about as bright as `level` into root/folder. */
static void paint(const char *folder, uint32_t count, uint32_t level)
{
    uint8_t rgb[SIDE * SIDE * 3];
    struct rng rng;
    assert_int_equal(disk_make_folder(&disk_posix, under_root(folder), NULL), 0);
    for (uint32_t i = 0; i < count; i++) {
        rng_init(&rng, level, RNG_TEST, i, 0, 0);
        for (size_t j = 0; j < sizeof rgb; j++) {
            rgb[j] = (uint8_t)(level + rng_below(&rng, 40));
        }
        char name[256];
        (void)snprintf(name, sizeof name, "%s/%u.png", folder, i);
        assert_int_equal(image_write_png(under_root(name), rgb, SIDE, SIDE, NULL), 0);
    }
}

static int prepare(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(root));
    paint("train/bright", 12, 200);
    paint("train/dark", 12, 10);
    paint("good/bright", 5, 205);
    paint("good/dark", 5, 15);
    paint("swapped/bright", 5, 15);
    paint("swapped/dark", 5, 205);
    paint("dark-alone/dark", 5, 15);
    paint("stranger/green", 2, 100);
    paint("flat", 3, 100);
    paint("one/bright", 3, 200);
    const struct model_spec spec = {.stages = 1, .blocks = {1}, .width = 8, .input = SIDE, .features = 8};
    assert_int_equal(layout_new(&spec, &layout, NULL), 0);
    params = mem_new_aligned(layout->total, sizeof *params);
    assert_non_null(params);
    params_init(layout, 1, params);
    return 0;
}

static int clean(void **state)
{
    (void)state;
    char command[128];
    layout_free(layout);
    mem_free(params);
    (void)snprintf(command, sizeof command, "rm -r %s", root);
    return system(command);
}

static void scores(const char *test, double *knn, double *linear, double *pixels)
{
    struct evaluation evaluation;
    struct err err = {0};
    assert_int_equal(evaluation_open(under_root("train"), under_root(test), SIDE, 1, NULL, NULL, &evaluation, &err), 0);
    assert_int_equal(evaluation_judge(&evaluation, layout, params, knn, linear, &err), 0);
    assert_int_equal(evaluation_judge_pixels(&evaluation, pixels, &err), 0);
    evaluation_close(&evaluation);
}

static void what_is_easy_scores_one_and_what_is_wrong_scores_zero(void **state)
{
    (void)state;
    double knn, linear, pixels;
    scores("good", &knn, &linear, &pixels);
    assert_true(knn == 1 && linear == 1 && pixels == 1);
    scores("swapped", &knn, &linear, &pixels);
    assert_true(knn == 0 && linear == 0 && pixels == 0);
}

/* "dark" is class 1 of training and the only class here; by number alone it would be taken for "bright". */
static void classes_are_matched_by_name(void **state)
{
    (void)state;
    double knn, linear, pixels;
    scores("dark-alone", &knn, &linear, &pixels);
    assert_true(knn == 1 && linear == 1 && pixels == 1);
}

static void assert_refused(const char *train, const char *test, int code, const char *part)
{
    struct evaluation evaluation;
    struct err err = {0};
    assert_int_equal(evaluation_open(under_root(train), under_root(test), SIDE, 1, NULL, NULL, &evaluation, &err),
                     code);
    assert_non_null(strstr(err.text, part));
    assert_null(evaluation.train);
}

static void what_cannot_be_scored_is_said(void **state)
{
    (void)state;
    assert_refused("train", "stranger", ERR_DATA, "class \"green\"");
    assert_refused("flat", "good", ERR_DATA, "outside class folders");
    assert_refused("train", "flat", ERR_DATA, "outside class folders");
    assert_refused("one", "good", ERR_DATA, "one class");
    assert_refused("missing", "good", ERR_DATA, "missing");
}

static void a_model_of_another_input_size_is_refused(void **state)
{
    (void)state;
    struct evaluation evaluation;
    struct err err = {0};
    double knn;
    assert_int_equal(evaluation_open(under_root("train"), under_root("good"), 32, 1, NULL, NULL, &evaluation, &err), 0);
    assert_int_equal(evaluation_judge(&evaluation, layout, params, &knn, NULL, &err), ERR_CONFIG);
    evaluation_close(&evaluation);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_easy_scores_one_and_what_is_wrong_scores_zero),
        cmocka_unit_test(classes_are_matched_by_name),
        cmocka_unit_test(what_cannot_be_scored_is_said),
        cmocka_unit_test(a_model_of_another_input_size_is_refused),
    };
    return cmocka_run_group_tests(tests, prepare, clean);
}
