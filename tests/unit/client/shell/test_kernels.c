/* The file of measured kernels: kept, locked, and never written over something else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first. */
#include <cmocka.h>

#include "client/shell/kernels.h"
#include "client/shell/memory.h"
#include "common/base/disk.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
    char folder[64], path[128], log[512];
    bool cancel;
};

static void keep_line(void *ctx, enum log_level level, const char *event, const char *fields)
{
    (void)level;
    struct fixture *f = ctx;
    (void)snprintf(f->log, sizeof f->log, "%s %s", event, fields);
}

static int setup(void **state)
{
    struct fixture *f = mem_new(1, sizeof *f);
    assert_non_null(f);
    (void)snprintf(f->folder, sizeof f->folder, "/tmp/starling-kernels-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(f->path, sizeof f->path, "%s/kernels", f->folder);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char lock[160];
    (void)snprintf(lock, sizeof lock, "%s.lock", f->path);
    (void)unlink(f->path);
    (void)unlink(lock);
    (void)rmdir(f->folder);
    mem_free(f);
    return 0;
}

static struct choice *one(void)
{
    struct choice *choice = mem_new(1, sizeof *choice);
    assert_non_null(choice);
    *choice = (struct choice){.shape = {{2, 16, 8, MAP_BLOCKS, MAP_F32}, {2, 16, 8, MAP_BLOCKS, MAP_F32}, 3, 1},
                              .time = {{3, 2, 1}}};
    return choice;
}

static void choices_are_kept(void **state)
{
    struct fixture *f = *state;
    const struct log log = {.emit = keep_line, .ctx = f};
    struct kernels kernels;
    kernels_open(f->path, &log, &f->cancel, &kernels);
    assert_int_equal(kernels.choices.count, 0);
    kernels.choices = (struct choices){.all = one(), .count = 1, .cap = 1, .measured = 1};
    kernels_close(&kernels);
    kernels_open(f->path, &log, &f->cancel, &kernels);
    assert_int_equal(kernels.choices.count, 1);
    assert_int_equal(kernels.choices.measured, 0);
    kernels_close(&kernels);
    assert_string_equal(f->log, "");
}

static void another_file_is_left_alone(void **state)
{
    struct fixture *f = *state;
    const struct log log = {.emit = keep_line, .ctx = f};
    const struct span part = {(const uint8_t *)"dear diary", 10};
    struct kernels kernels;
    uint8_t *data;
    size_t length;
    assert_int_equal(disk_save(&disk_posix, f->path, &part, 1, NULL), 0);
    kernels_open(f->path, &log, &f->cancel, &kernels);
    assert_non_null(strstr(f->log, "kernels_not_kept"));
    kernels.choices = (struct choices){.all = one(), .count = 1, .cap = 1, .measured = 1};
    kernels_close(&kernels);
    assert_int_equal(disk_load(&disk_posix, f->path, 100, &data, &length, NULL), 0);
    assert_int_equal(length, 10);
    assert_memory_equal(data, "dear diary", 10);
    mem_free(data);
}

static void no_file_is_made_of_what_is_none(void **state)
{
    struct fixture *f = *state;
    const struct log log = {.emit = keep_line, .ctx = f};
    char lock[160];
    (void)snprintf(lock, sizeof lock, "%s.lock", f->path);
    for (int kind = 0; kind < 3; kind++) {
        struct kernels kernels;
        struct stat before, after;
        assert_int_equal(kind == 0   ? mkfifo(f->path, 0600)
                         : kind == 1 ? mkdir(f->path, 0700)
                                     : symlink("nowhere", f->path),
                         0);
        assert_int_equal(lstat(f->path, &before), 0);
        f->log[0] = 0;
        kernels_open(f->path, &log, &f->cancel, &kernels);
        assert_non_null(strstr(f->log, "kernels_not_kept"));
        kernels.choices = (struct choices){.all = one(), .count = 1, .cap = 1, .measured = 1};
        kernels_close(&kernels);
        assert_int_equal(lstat(f->path, &after), 0);
        assert_true(before.st_ino == after.st_ino && before.st_mode == after.st_mode);
        assert_int_not_equal(access(lock, F_OK), 0);
        assert_int_equal(remove(f->path), 0);
    }
}

/* A second process waits: what the first has measured is there when it gets on. */
static void *measure_and_close(void *arg)
{
    struct kernels *kernels = arg;
    kernels->choices = (struct choices){.all = one(), .count = 1, .cap = 1, .measured = 1};
    kernels_close(kernels);
    return NULL;
}

static void who_comes_second_waits(void **state)
{
    struct fixture *f = *state;
    const struct log log = {.emit = keep_line, .ctx = f};
    struct kernels first, second;
    pthread_t thread;
    kernels_open(f->path, &log, &f->cancel, &first);
    f->cancel = true; /* who is cancelled does not wait, and says so */
    kernels_open(f->path, &log, &f->cancel, &second);
    assert_int_equal(second.choices.count, 0);
    assert_non_null(strstr(f->log, "kernels_not_kept"));
    kernels_close(&second);
    f->cancel = false;
    assert_int_equal(pthread_create(&thread, NULL, measure_and_close, &first), 0);
    kernels_open(f->path, &log, &f->cancel, &second);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(second.choices.count, 1);
    kernels_close(&second);
}

static void memory_is_known_here(void **state)
{
    (void)state;
    uint64_t bytes = memory_available();
    assert_true(bytes > 1u << 20 && bytes < UINT64_C(1) << 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(choices_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(another_file_is_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(no_file_is_made_of_what_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(who_comes_second_waits, setup, teardown),
        cmocka_unit_test(memory_is_known_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
