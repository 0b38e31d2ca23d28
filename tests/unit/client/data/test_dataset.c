/* A folder as an array: order, classes, what is skipped, and when the cache is believed. */
#include "tests/unit/client/data/data_support.h"

#include "client/data/dataset.h"

#include <dirent.h>
#include <sys/file.h>
#include <time.h>

#define SIDE 16u

struct world {
    struct scratch scratch;
    char folder[DISK_PATH_MAX], cache[DISK_PATH_MAX];
    struct tally tally;
    struct log log;
    struct dataset_options options;
};

static int setup(void **state)
{
    struct world *w = mem_new(1, sizeof *w);
    assert_non_null(w);
    scratch_open(&w->scratch);
    (void)scratch_path(&w->scratch, "images/", w->folder);
    (void)scratch_path(&w->scratch, "cache", w->cache);
    w->folder[strlen(w->folder) - 1] = '\0';
    (void)pthread_mutex_init(&w->tally.lock, NULL);
    w->log = (struct log){.emit = tally_emit, .ctx = &w->tally};
    w->options =
        (struct dataset_options){.folder = w->folder, .cache = w->cache, .side = SIDE, .threads = 2, .log = &w->log};
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    scratch_close(&w->scratch);
    (void)pthread_mutex_destroy(&w->tally.lock);
    mem_free(w);
    return 0;
}

static struct dataset *open_it(struct world *w)
{
    struct dataset *dataset;
    struct err err = {0};
    memset(w->tally.events, 0, sizeof w->tally.events);
    if (dataset_open(&w->options, &dataset, &err)) {
        fail_msg("%s", err.text);
    }
    return dataset;
}

static void put_some(struct world *w)
{
    put_png(&w->scratch, "images/b/2.png", 20, 30, 1);
    put_jpeg(&w->scratch, "images/b/10.txt", 64, 48, 2); /* known by its bytes, not by its name */
    put_png(&w->scratch, "images/a-b/1.png", SIDE, SIDE, 3);
    put_png(&w->scratch, "images/a/deep/er/9.png", 7, 9, 4);
    put_png(&w->scratch, "images/.hidden/1.png", 8, 8, 5);
    put_png(&w->scratch, "images/b/.hidden.png", 8, 8, 6);
}

static void order_and_classes_come_from_the_paths(void **state)
{
    struct world *w = *state;
    put_some(w);
    struct dataset *dataset = open_it(w);
    static const char *const paths[] = {"a-b/1.png", "a/deep/er/9.png", "b/10.txt", "b/2.png"};
    static const uint32_t labels[] = {1, 0, 2, 2};
    assert_int_equal(dataset_count(dataset), 4);
    assert_int_equal(dataset_skipped(dataset), 0);
    assert_int_equal(dataset_side(dataset), SIDE);
    assert_int_equal(dataset_classes(dataset), 3);
    assert_string_equal(dataset_class_name(dataset, 0), "a");
    assert_string_equal(dataset_class_name(dataset, 1), "a-b");
    assert_string_equal(dataset_class_name(dataset, 2), "b");
    for (uint32_t i = 0; i < 4; i++) {
        assert_string_equal(dataset_path(dataset, i), paths[i]);
        assert_int_equal(dataset_label(dataset, i), labels[i]);
    }
    uint8_t rgb[SIDE * SIDE * 3];
    paint(rgb, SIDE, SIDE, 3);
    assert_memory_equal(dataset_pixels(dataset, 0), rgb, sizeof rgb);
    dataset_close(dataset);
}

static void a_flat_folder_has_no_classes(void **state)
{
    struct world *w = *state;
    put_some(w);
    put_png(&w->scratch, "images/loose.png", 8, 8, 7);
    struct dataset *dataset = open_it(w);
    assert_int_equal(dataset_count(dataset), 5);
    assert_int_equal(dataset_classes(dataset), 0);
    dataset_close(dataset);
}

static void links_to_files_are_followed_and_circles_are_not(void **state)
{
    struct world *w = *state;
    char target[DISK_PATH_MAX], link[DISK_PATH_MAX];
    put_png(&w->scratch, "elsewhere.png", 8, 8, 1);
    (void)scratch_path(&w->scratch, "elsewhere.png", target);
    assert_int_equal(symlink(target, scratch_path(&w->scratch, "images/linked.png", link)), 0);
    assert_int_equal(symlink(w->folder, scratch_path(&w->scratch, "images/circle", link)), 0);
    assert_int_equal(symlink("nowhere", scratch_path(&w->scratch, "images/dangling.png", link)), 0);
    struct dataset *dataset = open_it(w);
    assert_int_equal(dataset_count(dataset), 1);
    assert_string_equal(dataset_path(dataset, 0), "linked.png");
    dataset_close(dataset);
}

static void broken_images_are_named_counted_and_skipped(void **state)
{
    struct world *w = *state;
    char path[DISK_PATH_MAX];
    put_some(w);
    write_bytes(scratch_path(&w->scratch, "images/b/1-broken.jpg", path), "\xff\xd8\xff\xe0 no more", 12);
    write_bytes(scratch_path(&w->scratch, "images/b/empty.png", path), "", 0);
    for (int again = 0; again < 2; again++) { /* decoded, then from the cache */
        struct dataset *dataset = open_it(w);
        assert_int_equal(dataset_count(dataset), 4);
        assert_int_equal(dataset_skipped(dataset), 2);
        assert_int_equal(tally_of(&w->tally, "image_skipped"), 2);
        assert_true(strstr(w->tally.fields, "b/1-broken.jpg") || strstr(w->tally.fields, "b/empty.png"));
        assert_string_equal(dataset_path(dataset, 2), "b/10.txt");
        assert_string_equal(dataset_path(dataset, 3), "b/2.png");
        uint8_t rgb[SIDE * SIDE * 3];
        paint(rgb, SIDE, SIDE, 3);
        assert_memory_equal(dataset_pixels(dataset, 0), rgb, sizeof rgb);
        dataset_close(dataset);
    }
}

static void expect_failure(struct world *w, const char *folder)
{
    struct dataset *dataset = (struct dataset *)w;
    struct err err = {0};
    w->options.folder = folder;
    assert_int_equal(dataset_open(&w->options, &dataset, &err), ERR_DATA);
    assert_null(dataset);
    assert_non_null(strstr(err.text, folder));
    assert_int_equal(err_exit_code(err.code), 65);
}

static void a_useless_folder_is_an_error_with_its_path(void **state)
{
    struct world *w = *state;
    char path[DISK_PATH_MAX];
    expect_failure(w, "/nonexistent/images");
    expect_failure(w, w->folder); /* empty */
    write_bytes(scratch_path(&w->scratch, "images/note.txt", path), "no image", 8);
    expect_failure(w, w->folder);
    expect_failure(w, path); /* not a folder */
    w->options.cache = NULL;
    expect_failure(w, w->folder);
}

static bool same_pixels(const struct dataset *a, const struct dataset *b)
{
    bool same = dataset_count(a) == dataset_count(b);
    for (uint32_t i = 0; same && i < dataset_count(a); i++) {
        same = memcmp(dataset_pixels(a, i), dataset_pixels(b, i), SIDE * SIDE * 3) == 0;
    }
    return same;
}

static void threads_and_cache_do_not_change_the_pixels(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 0; i < 40; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "images/%u.png", i);
        put_png(&w->scratch, name, 10 + i, 30 - i / 2, i);
    }
    w->options.cache = NULL;
    w->options.threads = 1;
    struct dataset *one = open_it(w);
    w->options.threads = 7;
    struct dataset *seven = open_it(w);
    w->options.cache = w->cache;
    struct dataset *cached = open_it(w), *again = open_it(w);
    assert_true(same_pixels(one, seven));
    assert_true(same_pixels(one, cached));
    assert_true(same_pixels(one, again));
    dataset_close(one);
    dataset_close(seven);
    dataset_close(cached);
    dataset_close(again);
}

static void set_mtime(const char *path, time_t seconds)
{
    struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* The same size and time of change with other content: what is seen tells whether the file or the cache was read. */
static void the_cache_is_used_until_a_file_changes(void **state)
{
    struct world *w = *state;
    char path[DISK_PATH_MAX];
    uint8_t dark[SIDE * SIDE * 3], light[SIDE * SIDE * 3];
    memset(dark, 10, sizeof dark);
    memset(light, 200, sizeof light);
    (void)scratch_path(&w->scratch, "images/x.png", path);
    assert_int_equal(image_write_png(path, dark, SIDE, SIDE, NULL), 0);
    set_mtime(path, 1000);
    dataset_close(open_it(w));
    assert_int_equal(tally_of(&w->tally, "cache_rebuilt"), 0); /* there was none */
    assert_int_equal(image_write_png(path, light, SIDE, SIDE, NULL), 0);
    set_mtime(path, 1000);
    struct dataset *dataset = open_it(w);
    assert_int_equal(dataset_pixels(dataset, 0)[0], 10);
    dataset_close(dataset);
    set_mtime(path, 1001);
    dataset = open_it(w);
    assert_int_equal(dataset_pixels(dataset, 0)[0], 200);
    assert_int_equal(tally_of(&w->tally, "cache_rebuilt"), 1);
    dataset_close(dataset);
    put_png(&w->scratch, "images/another.png", 8, 8, 1);
    dataset = open_it(w);
    assert_int_equal(dataset_count(dataset), 2);
    assert_int_equal(tally_of(&w->tally, "cache_rebuilt"), 1);
    dataset_close(dataset);
    w->options.side = 8;
    dataset = open_it(w);
    assert_int_equal(dataset_side(dataset), 8);
    assert_int_equal(dataset_pixels(dataset, 1)[0], 200);
    assert_int_equal(tally_of(&w->tally, "cache_rebuilt"), 1);
    dataset_close(dataset);
}

/* The one file in the cache folder. */
static void find_cache(const struct world *w, char out[DISK_PATH_MAX])
{
    DIR *dir = opendir(w->cache);
    struct dirent *entry;
    unsigned found = 0;
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            assert_int_equal(disk_join(out, w->cache, entry->d_name), 0);
            found++;
        }
    }
    (void)closedir(dir);
    assert_int_equal(found, 1); /* and so no temporary file is left */
}

static void a_damaged_cache_is_made_again(void **state)
{
    struct world *w = *state;
    char path[DISK_PATH_MAX];
    put_some(w);
    struct dataset *first = open_it(w);
    find_cache(w, path);
    size_t len;
    uint8_t *good = read_bytes(path, &len);
    const struct {
        size_t at, len;
    } damages[] = {{0, len},  {8, len},  {13, len},    {16, len}, {40, len}, {60, len},
                   {64, len}, {67, len}, {0, len - 1}, {0, 64},   {0, 10},   {0, 0}};
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        uint8_t *bad = mem_new(len, 1);
        memcpy(bad, good, len);
        if (damages[i].len == len) {
            bad[damages[i].at] ^= 1;
        }
        assert_int_equal(unlink(path), 0); /* the first one is still mapped */
        write_bytes(path, bad, damages[i].len);
        mem_free(bad);
        struct dataset *dataset = open_it(w);
        assert_int_equal(tally_of(&w->tally, "cache_rebuilt"), 1);
        assert_true(same_pixels(first, dataset));
        dataset_close(dataset);
        dataset = open_it(w);
        assert_int_equal(tally_of(&w->tally, "cache_rebuilt"), 0);
        assert_true(same_pixels(first, dataset));
        dataset_close(dataset);
        find_cache(w, path);
    }
    mem_free(good);
    dataset_close(first);
}

static void without_a_cache_file_memory_serves(void **state)
{
    struct world *w = *state;
    char path[DISK_PATH_MAX];
    put_some(w);
    dataset_close(open_it(w));
    find_cache(w, path);
    assert_int_equal(unlink(path), 0);
    /* Another process is writing the cache: it holds the lock of the temporary file. */
    char temporary[DISK_PATH_MAX];
    assert_true((size_t)snprintf(temporary, sizeof temporary, "%.4000s.tmp", path) < sizeof temporary);
    int busy = open(temporary, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(busy >= 0);
    assert_int_equal(flock(busy, LOCK_EX | LOCK_NB), 0);
    struct dataset *dataset = open_it(w);
    assert_int_equal(dataset_count(dataset), 4);
    assert_int_equal(tally_of(&w->tally, "cache_unusable"), 1);
    dataset_close(dataset);
    assert_int_equal(access(temporary, F_OK), 0); /* the other's file was not removed */
    (void)close(busy);
    /* The process was killed: its file stays behind, unlocked, and is used. */
    dataset_close(open_it(w));
    assert_int_equal(tally_of(&w->tally, "cache_unusable"), 0);
    find_cache(w, path);
    /* A cache folder that cannot be. */
    w->options.cache = path;
    dataset = open_it(w);
    assert_int_equal(dataset_count(dataset), 4);
    assert_int_equal(tally_of(&w->tally, "cache_unusable"), 1);
    dataset_close(dataset);
}

#define NOBODY 65534
static int give_to_nobody(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return lchown(path, NOBODY, NOBODY);
}

/* What cannot be read today may be readable tomorrow without its time of change telling. */
static void unreadable_files_do_not_settle_in_the_cache(void **state)
{
    struct world *w = *state;
    char path[DISK_PATH_MAX];
    put_some(w);
    (void)scratch_path(&w->scratch, "images/a-b/1.png", path);
    bool root = geteuid() == 0;
    if (root) { /* nothing is unreadable to root: someone else goes on */
        assert_int_equal(nftw(w->scratch.path, give_to_nobody, 16, FTW_PHYS), 0);
        assert_int_equal(seteuid(NOBODY), 0);
    }
    assert_int_equal(chmod(path, 0), 0);
    struct dataset *dataset = open_it(w);
    assert_int_equal(dataset_skipped(dataset), 1);
    dataset_close(dataset);
    assert_int_equal(chmod(path, 0600), 0);
    dataset = open_it(w);
    assert_int_equal(dataset_skipped(dataset), 0);
    dataset_close(dataset);
    assert_int_equal(root ? seteuid(0) : 0, 0);
}

static void cancel_ends_the_decoding(void **state)
{
    struct world *w = *state;
    bool cancel = true;
    struct dataset *dataset;
    struct err err;
    put_some(w);
    w->options.cancel = &cancel;
    assert_int_equal(dataset_open(&w->options, &dataset, &err), ERR_CANCELLED);
    assert_null(dataset);
}

/* Each allocation fails in turn; under ASan nothing may leak or be used after its end. */
static void running_out_of_memory_is_an_error(void **state)
{
    struct world *w = *state;
    put_some(w);
    w->options.threads = 1;
    unsigned failures = 0;
    for (int cached = 0; cached < 2; cached++) {
        w->options.cache = cached ? w->cache : NULL;
        for (uint64_t n = 1;; n++) {
            struct dataset *dataset;
            struct err err;
            mem_fail_after(n);
            int rc = dataset_open(&w->options, &dataset, &err);
            mem_fail_after(0);
            if (rc == 0) {
                dataset_close(dataset);
                break;
            }
            assert_int_equal(rc, ERR_NOMEM);
            assert_null(dataset);
            failures++;
        }
    }
    assert_true(failures > 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(order_and_classes_come_from_the_paths, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flat_folder_has_no_classes, setup, teardown),
        cmocka_unit_test_setup_teardown(links_to_files_are_followed_and_circles_are_not, setup, teardown),
        cmocka_unit_test_setup_teardown(broken_images_are_named_counted_and_skipped, setup, teardown),
        cmocka_unit_test_setup_teardown(a_useless_folder_is_an_error_with_its_path, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_and_cache_do_not_change_the_pixels, setup, teardown),
        cmocka_unit_test_setup_teardown(the_cache_is_used_until_a_file_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_cache_is_made_again, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_cache_file_memory_serves, setup, teardown),
        cmocka_unit_test_setup_teardown(unreadable_files_do_not_settle_in_the_cache, setup, teardown),
        cmocka_unit_test_setup_teardown(cancel_ends_the_decoding, setup, teardown),
        cmocka_unit_test_setup_teardown(running_out_of_memory_is_an_error, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
