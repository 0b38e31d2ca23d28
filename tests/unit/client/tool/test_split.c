/* `starling split` on real files: everything arrives once, class folders stay, originals are untouched. */
#include "tests/unit/client/data/data_support.h"

#include "client/data/scan.h"
#include "client/tool/split.h"
#include "client/tool/verbs.h"

struct world {
    struct scratch scratch;
    char images[DISK_PATH_MAX], out[DISK_PATH_MAX];
    struct split_options options;
};

static int setup(void **state)
{
    struct world *w = mem_new(1, sizeof *w);
    assert_non_null(w);
    scratch_open(&w->scratch);
    (void)scratch_path(&w->scratch, "images", w->images);
    (void)scratch_path(&w->scratch, "out", w->out);
    w->options = (struct split_options){.images = w->images, .out = w->out, .clients = 3, .seed = 1};
    assert_int_equal(split_parse("iid", &w->options.spec, NULL), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    scratch_close(&w->scratch);
    mem_free(w);
    return 0;
}

static void put_classes(struct world *w)
{
    for (uint32_t i = 0; i < 30; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "images/class-%u/%u.png", i % 3, i);
        put_png(&w->scratch, name, 8, 8, i);
    }
}

static void each_image_arrives_once_in_its_class(void **state)
{
    struct world *w = *state;
    struct buf table;
    struct err err;
    struct scan scan;
    char path[DISK_PATH_MAX];
    put_classes(w);
    write_bytes(scratch_path(&w->scratch, "images/labels.csv", path), "not an image", 12);
    buf_init(&table, 65536);
    if (split_run(&w->options, &table, &err)) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(scan_folder(w->out, NULL, &scan, &err), 0);
    assert_int_equal(scan.count, 30);
    uint32_t seen = 0;
    for (uint32_t i = 0; i < scan.count; i++) {
        unsigned client, class, number;
        assert_int_equal(sscanf(scan.files[i].path, "client-%u/class-%u/%u.png", &client, &class, &number), 3);
        assert_in_range(client, 1, 3);
        assert_int_equal(class, number % 3);
        seen |= 1u << number;
        char source[DISK_PATH_MAX], target[DISK_PATH_MAX];
        struct stat a, b;
        (void)snprintf(path, sizeof path, "class-%u/%u.png", class, number);
        assert_int_equal(disk_join(source, w->images, path), 0);
        assert_int_equal(disk_join(target, w->out, scan.files[i].path), 0);
        assert_int_equal(stat(source, &a), 0);
        assert_int_equal(stat(target, &b), 0);
        assert_int_equal(a.st_ino, b.st_ino); /* linked, not copied */
    }
    assert_int_equal(seen, (1u << 30) - 1);
    scan_fini(&scan);
    assert_int_equal(buf_append(&table, "", 1), 0);
    assert_non_null(strstr((char *)table.data, "client-3"));
    assert_non_null(strstr((char *)table.data, "class-2"));
    buf_fini(&table);
}

static void classes_go_where_the_plan_says(void **state)
{
    struct world *w = *state;
    struct err err;
    struct scan scan;
    put_classes(w);
    assert_int_equal(split_parse("classes:1", &w->options.spec, NULL), 0);
    assert_int_equal(split_run(&w->options, NULL, &err), 0);
    assert_int_equal(scan_folder(w->out, NULL, &scan, &err), 0);
    unsigned class_of[4] = {9, 9, 9, 9};
    for (uint32_t i = 0; i < scan.count; i++) {
        unsigned client, class;
        assert_int_equal(sscanf(scan.files[i].path, "client-%u/class-%u/", &client, &class), 2);
        assert_true(class_of[client] == 9 || class_of[client] == class);
        class_of[client] = class;
    }
    assert_int_equal(class_of[1] + class_of[2] + class_of[3], 3);
    scan_fini(&scan);
}

static void a_flat_folder_can_only_be_split_iid(void **state)
{
    struct world *w = *state;
    struct err err;
    put_classes(w);
    put_png(&w->scratch, "images/loose.png", 8, 8, 1);
    assert_int_equal(split_parse("classes:1", &w->options.spec, NULL), 0);
    assert_int_equal(split_run(&w->options, NULL, &err), ERR_DATA);
    assert_int_equal(err_exit_code(err.code), 65);
    assert_non_null(strstr(err.text, w->images));
    assert_int_equal(access(w->out, F_OK), -1); /* nothing was begun */
    assert_int_equal(split_parse("iid", &w->options.spec, NULL), 0);
    assert_int_equal(split_run(&w->options, NULL, &err), 0);
}

static void what_is_there_is_not_mixed_with_a_new_split(void **state)
{
    struct world *w = *state;
    struct err err;
    put_classes(w);
    assert_int_equal(split_run(&w->options, NULL, &err), 0);
    assert_int_equal(split_run(&w->options, NULL, &err), ERR_CANTCREATE);
    assert_non_null(strstr(err.text, "not empty"));
}

static void a_folder_without_images_is_an_error(void **state)
{
    struct world *w = *state;
    struct err err;
    char path[DISK_PATH_MAX];
    assert_int_equal(split_run(&w->options, NULL, &err), ERR_DATA);
    write_bytes(scratch_path(&w->scratch, "images/note.txt", path), "no image", 8);
    assert_int_equal(split_run(&w->options, NULL, &err), ERR_DATA);
    assert_non_null(strstr(err.text, w->images));
}

/* A link cannot cross file systems. */
static void files_are_copied_where_links_are_not_possible(void **state)
{
    struct world *w = *state;
    struct scratch other = {"/dev/shm/starling-test-XXXXXX"};
    struct stat here, there;
    struct scan scan;
    struct err err;
    if (!mkdtemp(other.path)) {
        skip();
    }
    put_classes(w);
    assert_int_equal(stat(w->images, &here), 0);
    assert_int_equal(stat(other.path, &there), 0);
    if (here.st_dev == there.st_dev) {
        scratch_close(&other);
        skip();
    }
    w->options.out = other.path;
    int rc = split_run(&w->options, NULL, &err);
    int scanned = scan_folder(other.path, NULL, &scan, NULL);
    unsigned client, class, number;
    char path[DISK_PATH_MAX];
    size_t len[2];
    assert_int_equal(rc, 0);
    assert_int_equal(scanned, 0);
    assert_int_equal(scan.count, 30);
    for (uint32_t i = 0; i < scan.count; i++) {
        assert_int_equal(sscanf(scan.files[i].path, "client-%u/class-%u/%u.png", &client, &class, &number), 3);
        (void)snprintf(path, sizeof path, "%s/images/class-%u/%u.png", w->scratch.path, class, number);
        uint8_t *from = read_bytes(path, &len[0]);
        assert_int_equal(disk_join(path, other.path, scan.files[i].path), 0);
        uint8_t *to = read_bytes(path, &len[1]);
        assert_int_equal(len[0], len[1]);
        assert_memory_equal(from, to, len[0]);
        mem_free(from);
        mem_free(to);
    }
    scan_fini(&scan);
    scratch_close(&other);
}

static void the_verb_answers_with_exit_codes(void **state)
{
    struct world *w = *state;
    char *good[] = {"split", "--images", w->images, "--clients", "3", "--split", "iid", "--out", w->out};
    char *bad[] = {"split", "--images", w->images, "--clients", "3", "--split", "fair", "--out", w->out};
    char *help[] = {"split", "--help"};
    assert_int_equal(verb_split(2, help), 0);
    assert_int_equal(verb_split(8, good), 64); /* --out without its value */
    assert_int_equal(verb_split(9, bad), 64);
    assert_int_equal(verb_split(9, good), 65); /* no such folder */
    put_classes(w);
    assert_int_equal(verb_split(9, good), 0);
    assert_int_equal(verb_split(9, good), 73);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_image_arrives_once_in_its_class, setup, teardown),
        cmocka_unit_test_setup_teardown(classes_go_where_the_plan_says, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flat_folder_can_only_be_split_iid, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_there_is_not_mixed_with_a_new_split, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_without_images_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(files_are_copied_where_links_are_not_possible, setup, teardown),
        cmocka_unit_test_setup_teardown(the_verb_answers_with_exit_codes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
