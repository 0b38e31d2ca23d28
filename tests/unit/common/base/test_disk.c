/* Durable saving: on a simulated disk whatever step fails, and wherever the machine stops, the file is whole, the old
 * one or the new one; the same check catches two savers that are wrong on purpose. Then the real disk. */
#include "common/base/disk.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define OLD    "old content"
#define NEW    "the new content"
#define TARGET "folder/file"

/* Two files are enough: a target and its temporary. What was not synced is lost when the machine stops, also when the
 * file was renamed since; that is what `whole` holds against the target after every step. */
struct fake {
    struct fake_file {
        char path[32], data[64];
        size_t len, synced;
        bool exists;
    } files[2];
    int steps, fail_at; /* the fail_at-th step fails, 0: none */
    bool stays_broken;  /* so do all after it */
    const char *latest; /* that failed */
    bool damaged;       /* the target was ever less than whole */
    char trace[256];
    char folder[32];
};

static struct fake_file *fake_find(struct fake *fake, const char *path)
{
    for (int i = 0; i < 2; i++) {
        if (fake->files[i].exists && strcmp(fake->files[i].path, path) == 0) {
            return &fake->files[i];
        }
    }
    return NULL;
}

static bool target_is(struct fake *fake, const char *text)
{
    const struct fake_file *file = fake_find(fake, TARGET);
    return file && file->synced == strlen(text) && memcmp(file->data, text, file->synced) == 0;
}

/* Called at the end of each step. */
static int step(struct fake *fake, const char *name)
{
    size_t used = strlen(fake->trace);
    (void)snprintf(fake->trace + used, sizeof fake->trace - used, "%s%s", used ? " " : "", name);
    fake->damaged |= !target_is(fake, OLD) && !target_is(fake, NEW);
    return 0;
}

static bool fails(struct fake *fake, const char *step)
{
    fake->steps++;
    bool fail = fake->steps == fake->fail_at || (fake->stays_broken && fake->steps > fake->fail_at);
    fake->latest = fail ? step : fake->latest;
    return fail;
}

static int fake_create(void *ctx, const char *path, int *file)
{
    struct fake *fake = ctx;
    if (fails(fake, "create")) {
        return ERR_FULL;
    }
    struct fake_file *f = fake_find(fake, path);
    f = f ? f : fake->files[0].exists ? &fake->files[1] : &fake->files[0];
    *f = (struct fake_file){.exists = true};
    (void)snprintf(f->path, sizeof f->path, "%s", path);
    *file = (int)(f - fake->files);
    return step(fake, "create");
}

static int fake_write(void *ctx, int file, const void *data, size_t len)
{
    struct fake *fake = ctx;
    struct fake_file *f = &fake->files[file];
    bool fail = fails(fake, "write");
    len = fail ? len / 2 : len; /* a full disk takes a part */
    memcpy(f->data + f->len, data, len);
    f->len += len;
    (void)step(fake, "write");
    return fail ? ERR_FULL : 0;
}

static int fake_sync(void *ctx, int file)
{
    struct fake *fake = ctx;
    if (fails(fake, "sync")) {
        return ERR_IO;
    }
    fake->files[file].synced = fake->files[file].len;
    return step(fake, "sync");
}

static int fake_close(void *ctx, int file)
{
    (void)file;
    return fails(ctx, "close") ? ERR_IO : step(ctx, "close");
}

static int fake_rename(void *ctx, const char *from, const char *to)
{
    struct fake *fake = ctx;
    if (fails(fake, "rename")) {
        return ERR_IO;
    }
    struct fake_file *source = fake_find(fake, from), *old = fake_find(fake, to);
    if (old) {
        old->exists = false;
    }
    (void)snprintf(source->path, sizeof source->path, "%s", to);
    return step(fake, "rename");
}

static int fake_remove(void *ctx, const char *path)
{
    struct fake *fake = ctx;
    struct fake_file *file = fake_find(fake, path);
    if (fails(fake, "remove")) {
        return ERR_IO;
    }
    if (file) {
        file->exists = false;
    }
    return step(fake, "remove");
}

static int fake_sync_folder(void *ctx, const char *path)
{
    struct fake *fake = ctx;
    if (fails(fake, "sync_folder")) {
        return ERR_IO;
    }
    (void)snprintf(fake->folder, sizeof fake->folder, "%s", path);
    return step(fake, "sync_folder");
}

static const char *fake_why(void *ctx)
{
    const struct fake *fake = ctx;
    return fake->latest;
}

static const struct disk_ops fake_ops = {
    .create = fake_create,
    .write = fake_write,
    .sync = fake_sync,
    .close = fake_close,
    .rename = fake_rename,
    .remove = fake_remove,
    .sync_folder = fake_sync_folder,
    .why = fake_why,
};

static void fake_init(struct fake *fake)
{
    *fake = (struct fake){.files = {{.path = TARGET, .data = OLD, .exists = true}}};
    fake->files[0].len = fake->files[0].synced = strlen(OLD);
}

static const struct span new_parts[] = {{NEW, 4}, {&NEW[4], sizeof NEW - 5}};

static void test_save_steps(void **state)
{
    (void)state;
    struct fake fake;
    fake_init(&fake);
    const struct disk disk = {&fake_ops, &fake};
    struct err err;
    assert_int_equal(disk_save(&disk, TARGET, new_parts, 2, &err), 0);
    assert_true(target_is(&fake, NEW));
    assert_false(fake.damaged);
    assert_string_equal(fake.trace, "create write write sync close rename sync_folder");
    assert_string_equal(fake.folder, "folder");
}

static void test_save_each_step_fails(void **state)
{
    (void)state;
    static const char *const names[] = {"create", "write", "write", "sync", "sync", "rename", "sync folder"};
    for (int k = 1; k <= 7; k++) {
        struct fake fake;
        fake_init(&fake);
        fake.fail_at = k;
        const struct disk disk = {&fake_ops, &fake};
        struct err err;
        int rc = disk_save(&disk, TARGET, new_parts, 2, &err);
        assert_true(rc == ERR_FULL || rc == ERR_IO);
        assert_int_equal(rc, err.code);
        assert_non_null(strstr(err.text, names[k - 1]));
        assert_non_null(strstr(err.text, "folder"));
        assert_false(fake.damaged);
        assert_true(
            target_is(&fake, k == 7 ? NEW : OLD));    /* after the rename the new one stands, not yet for certain */
        assert_null(fake_find(&fake, TARGET ".tmp")); /* and no litter */
        /* When there is room again, the same save goes through. */
        fake.fail_at = 0;
        assert_int_equal(disk_save(&disk, TARGET, new_parts, 2, &err), 0);
        assert_true(target_is(&fake, NEW));
    }
}

/* What is told is why the save failed, not why nothing could be put away after it. */
static void test_save_tells_the_first_reason(void **state)
{
    (void)state;
    static const char *const why[] = {"sync: sync", "sync: close", "rename: rename"};
    for (int k = 0; k < 3; k++) {
        struct fake fake;
        fake_init(&fake);
        fake.fail_at = 4 + k;
        fake.stays_broken = true;
        const struct disk disk = {&fake_ops, &fake};
        struct err err;
        assert_int_equal(disk_save(&disk, TARGET, new_parts, 2, &err), ERR_IO);
        assert_string_equal(fake.latest, "remove");
        assert_non_null(strstr(err.text, why[k]));
    }
}

/* The check can fail: it catches a saver that writes in place, and one that renames what is not synced. */
static void test_check_catches_wrong_savers(void **state)
{
    (void)state;
    struct fake fake;
    int file;
    fake_init(&fake);
    assert_int_equal(fake_create(&fake, TARGET, &file), 0);
    assert_int_equal(fake_write(&fake, file, NEW, strlen(NEW)), 0);
    assert_int_equal(fake_sync(&fake, file), 0);
    assert_true(target_is(&fake, NEW));
    assert_true(fake.damaged);

    fake_init(&fake);
    assert_int_equal(fake_create(&fake, TARGET ".tmp", &file), 0);
    assert_int_equal(fake_write(&fake, file, NEW, strlen(NEW)), 0);
    assert_int_equal(fake_rename(&fake, TARGET ".tmp", TARGET), 0);
    assert_true(fake.damaged);
}

static void test_folder_of_path(void **state)
{
    (void)state;
    static const char *const rows[][2] = {{"file", "."}, {"/file", "/"}, {"a/b/file", "a/b"}};
    for (size_t i = 0; i < 3; i++) {
        struct fake fake = {0};
        const struct disk disk = {&fake_ops, &fake};
        assert_int_equal(disk_save(&disk, rows[i][0], NULL, 0, NULL), 0);
        assert_string_equal(fake.folder, rows[i][1]);
    }
}

static char room[64]; /* a folder of this test's own */

static int room_open(void **state)
{
    (void)state;
    (void)snprintf(room, sizeof room, "/tmp/starling-disk-XXXXXX");
    return mkdtemp(room) ? 0 : -1;
}

static const char *in_room(const char *name)
{
    static char path[DISK_PATH_MAX];
    assert_int_equal(disk_join(path, room, name), 0);
    return path;
}

static int room_close(void **state)
{
    (void)state;
    static const char *const names[] = {"file",  "sub/deep/er", "sub/deep", "sub", "stays/empty",
                                        "stays", "other/file",  "other",    "loop"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)remove(in_room(names[i]));
    }
    return rmdir(room); /* fails when a temporary was left behind */
}

static void test_posix_save_and_load(void **state)
{
    (void)state;
    uint8_t *data;
    size_t len;
    struct err err;
    const char *path = in_room("file");
    assert_int_equal(disk_load(&disk_posix, path, 100, &data, &len, &err), ERR_NOTFOUND);
    assert_non_null(strstr(err.text, "read"));
    assert_null(data);
    const struct span first = {OLD, strlen(OLD)};
    assert_int_equal(disk_save(&disk_posix, path, &first, 1, &err), 0);
    assert_int_equal(disk_save(&disk_posix, path, new_parts, 2, &err), 0);
    assert_int_equal(disk_load(&disk_posix, path, 100, &data, &len, &err), 0);
    assert_int_equal(len, strlen(NEW));
    assert_memory_equal(data, NEW, len);
    mem_free(data);
    assert_int_equal(disk_load(&disk_posix, path, strlen(NEW) - 1, &data, &len, &err), ERR_LIMIT);
    assert_null(data);
    mem_fail_after(1);
    assert_int_equal(disk_load(&disk_posix, path, 100, &data, &len, &err), ERR_NOMEM);
    mem_fail_after(0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(disk_remove(&disk_posix, path, &err), 0);
    assert_int_equal(disk_remove(&disk_posix, path, &err), 0);
    assert_int_equal(access(path, F_OK), -1);
}

static void test_posix_errors(void **state)
{
    (void)state;
    uint8_t *data;
    size_t len;
    struct err err;
    assert_int_equal(disk_load(&disk_posix, room, 100, &data, &len, &err), ERR_IO); /* a folder is no file */
    assert_int_equal(disk_save(&disk_posix, in_room("missing/file"), new_parts, 2, &err), ERR_NOTFOUND);
    assert_non_null(strstr(err.text, "create"));
    assert_int_equal(disk_remove(&disk_posix, room, &err), ERR_IO);
    assert_int_equal(disk_posix.ops->sync_folder(NULL, in_room("missing")), ERR_NOTFOUND);
    assert_int_equal(disk_posix.ops->rename(NULL, in_room("missing"), room), ERR_NOTFOUND);
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(full >= 0);
    assert_int_equal(disk_posix.ops->write(NULL, full, "x", 1), ERR_FULL);
    (void)close(full);
    assert_int_equal(disk_posix.ops->sync(NULL, full), ERR_IO); /* closed */
    assert_int_equal(disk_posix.ops->close(NULL, full), ERR_IO);
    static char longer[DISK_PATH_MAX];
    memset(longer, 'a', sizeof longer - 2);
    assert_int_equal(disk_save(&disk_posix, longer, new_parts, 2, &err), ERR_LIMIT);
    char out[DISK_PATH_MAX];
    assert_int_equal(disk_join(out, longer, "b"), ERR_LIMIT);
    assert_int_equal(disk_join(out, "a", "b"), 0);
    assert_string_equal(out, "a/b");
}

static int count_names(void *arg, const char *name)
{
    int *seen = arg;
    *seen += strcmp(name, "file") == 0 ? 1 : strcmp(name, "sub") == 0 ? 10 : 100;
    return 0;
}

static int stop_at_once(void *arg, const char *name)
{
    (void)name;
    ++*(int *)arg;
    return ERR_CANCELLED;
}

static void test_posix_folders(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(disk_make_folder(&disk_posix, in_room("sub/deep/er"), &err), 0);
    assert_int_equal(disk_make_folder(&disk_posix, in_room("sub/deep/er"), &err), 0);
    struct stat st;
    assert_int_equal(stat(in_room("sub"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(disk_save(&disk_posix, in_room("file"), new_parts, 2, &err), 0);
    int seen = 0;
    assert_int_equal(disk_posix.ops->list(NULL, room, count_names, &seen), 0);
    assert_int_equal(seen, 11); /* each once, neither "." nor ".." nor a temporary */
    seen = 0;
    assert_int_equal(disk_posix.ops->list(NULL, room, stop_at_once, &seen), ERR_CANCELLED);
    assert_int_equal(seen, 1);
    assert_int_equal(disk_posix.ops->list(NULL, in_room("missing"), count_names, &seen), ERR_NOTFOUND);
    assert_int_equal(disk_make_folder(&disk_posix, in_room("file"), &err), ERR_CANTCREATE);
    assert_int_equal(disk_make_folder(&disk_posix, in_room("file/x"), &err), ERR_CANTCREATE);
    assert_non_null(strstr(err.text, "create folder"));
    static char longer[DISK_PATH_MAX + 10];
    memset(longer, 'a', sizeof longer - 1);
    assert_int_equal(disk_make_folder(&disk_posix, longer, &err), ERR_CANTCREATE);
}

/* Only what was made goes again, and of that only what is empty. */
static void test_posix_takes_folders_back(void **state)
{
    (void)state;
    char path[DISK_PATH_MAX];
    struct err err;
    assert_int_equal(disk_make_folder(&disk_posix, in_room("stays/empty"), &err), 0);
    static const char *const made[] = {"stays/a", "stays/empty/a/b/c", "stays//x/y//", "other/deep"};
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        (void)snprintf(path, sizeof path, "%s", in_room(made[i]));
        size_t there = disk_there(path);
        assert_int_equal(disk_make_folder(&disk_posix, path, &err), 0);
        assert_int_equal(disk_there(path), strlen(path));
        disk_remove_made(path, there);
        assert_int_equal(access(path, F_OK), -1);
        assert_int_equal(disk_there(path), there);
    }
    assert_int_equal(access(in_room("other"), F_OK), -1);
    disk_remove_made(in_room("stays/empty"), disk_there(in_room("stays/empty"))); /* was there before */
    assert_int_equal(access(in_room("stays/empty"), F_OK), 0);
    assert_int_equal(disk_make_folder(&disk_posix, in_room("other/deep"), &err), 0);
    assert_int_equal(disk_save(&disk_posix, in_room("other/file"), new_parts, 2, &err), 0);
    disk_remove_made(in_room("other/deep"), strlen(room)); /* something else has come to it */
    assert_int_equal(access(in_room("other/deep"), F_OK), -1);
    assert_int_equal(access(in_room("other/file"), F_OK), 0);
    assert_int_equal(disk_there(""), 0);
}

/* These share two codes; the words must not be the same. */
static void test_posix_says_what_the_system_said(void **state)
{
    (void)state;
    struct err err;
    uint8_t *data;
    size_t len;
    assert_int_equal(disk_save(&disk_posix, in_room("file"), new_parts, 2, &err), 0);
    assert_int_equal(disk_make_folder(&disk_posix, in_room("sub"), &err), 0);
    assert_int_equal(disk_save(&disk_posix, in_room("sub"), new_parts, 2, &err), ERR_IO);
    assert_non_null(strstr(err.text, "sub: rename: Is a directory"));
    assert_int_equal(disk_load(&disk_posix, in_room("sub"), 100, &data, &len, &err), ERR_IO);
    assert_non_null(strstr(err.text, "sub: read: no regular file"));
    assert_int_equal(symlink("loop", in_room("loop")), 0);
    assert_int_equal(disk_load(&disk_posix, in_room("loop"), 100, &data, &len, &err), ERR_IO);
    assert_non_null(strstr(err.text, "Too many levels of symbolic links"));
    /* A pipe that nobody reads: without O_NONBLOCK the save would wait for ever. */
    assert_int_equal(mkfifo(in_room("file.tmp"), 0600), 0);
    assert_int_equal(disk_save(&disk_posix, in_room("file"), new_parts, 2, &err), ERR_IO);
    assert_non_null(strstr(err.text, "file.tmp: create: No such device or address"));
    assert_int_equal(remove(in_room("file.tmp")), 0);
    assert_int_equal(disk_make_folder(&disk_posix, in_room("file"), &err), ERR_CANTCREATE);
    assert_non_null(strstr(err.text, "file: create folder: File exists"));
    assert_int_equal(disk_make_folder(&disk_posix, in_room("file/x"), &err), ERR_CANTCREATE);
    assert_non_null(strstr(err.text, "file/x: create folder: Not a directory"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_save_steps),
        cmocka_unit_test(test_save_each_step_fails),
        cmocka_unit_test(test_save_tells_the_first_reason),
        cmocka_unit_test(test_check_catches_wrong_savers),
        cmocka_unit_test(test_folder_of_path),
        cmocka_unit_test_setup_teardown(test_posix_save_and_load, room_open, room_close),
        cmocka_unit_test_setup_teardown(test_posix_errors, room_open, room_close),
        cmocka_unit_test_setup_teardown(test_posix_folders, room_open, room_close),
        cmocka_unit_test_setup_teardown(test_posix_takes_folders_back, room_open, room_close),
        cmocka_unit_test_setup_teardown(test_posix_says_what_the_system_said, room_open, room_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
