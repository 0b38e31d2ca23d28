/* `starling draw-images`: one folder a class, numbered files, readable by the rest of Starling. */
#include "tests/unit/client/data/data_support.h"

#include "client/data/dataset.h"
#include "client/data/draw.h"
#include "client/tool/draw_images.h"
#include "client/tool/verbs.h"

static void the_set_is_drawn_and_readable(void **state)
{
    (void)state;
    struct scratch scratch;
    char out[DISK_PATH_MAX];
    struct err err;
    scratch_open(&scratch);
    struct draw_images_options options = {
        .out = scratch_path(&scratch, "set", out), .classes = 3, .per_class = 2, .size = 32, .seed = 9};
    if (draw_images_run(&options, &err)) {
        fail_msg("%s", err.text);
    }
    struct dataset_options read = {.folder = out, .side = 32, .threads = 1};
    struct dataset *dataset;
    assert_int_equal(dataset_open(&read, &dataset, &err), 0);
    assert_int_equal(dataset_count(dataset), 6);
    assert_int_equal(dataset_skipped(dataset), 0);
    assert_int_equal(dataset_classes(dataset), 3);
    uint8_t rgb[32 * 32 * 3];
    unsigned found = 0;
    for (uint32_t i = 0; i < 6; i++) {
        if (strcmp(dataset_class_name(dataset, dataset_label(dataset, i)), draw_class_name(1)) == 0) {
            draw_image(1, 9, found++, 32, rgb);
            assert_memory_equal(dataset_pixels(dataset, i), rgb, sizeof rgb);
        }
    }
    assert_int_equal(found, 2);
    dataset_close(dataset);
    assert_int_equal(draw_images_run(&options, &err), ERR_CANTCREATE);
    scratch_close(&scratch);
}

static void the_verb_answers_with_exit_codes(void **state)
{
    (void)state;
    struct scratch scratch;
    char out[DISK_PATH_MAX];
    scratch_open(&scratch);
    (void)scratch_path(&scratch, "set", out);
    char *words[] = {"draw-images", "--out", out, "--classes", "2", "--per-class", "1"};
    char *many[] = {"draw-images", "--out", out, "--classes", "1000"};
    assert_int_equal(verb_draw_images(1, words), 64);
    assert_int_equal(verb_draw_images(5, many), 64);
    assert_int_equal(verb_draw_images(7, words), 0);
    assert_int_equal(verb_draw_images(7, words), 73);
    scratch_close(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_set_is_drawn_and_readable),
                                       cmocka_unit_test(the_verb_answers_with_exit_codes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
