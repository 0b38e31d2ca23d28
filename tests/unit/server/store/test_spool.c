/* The spool: what is put there is read back by parts, a start empties it, a disk that fails at any step leaves nothing
 * that counts, and how much room there is. */
#include "common/base/mem.h"
#include "server/store/spool.h"
#include "tests/support/simdisk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { NUMBERS = 1000 };
static float numbers[NUMBERS], got[NUMBERS];
/* As long as names may be. */
static const char longest[] = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn";

static void fill(float by)
{
    for (int i = 0; i < NUMBERS; i++) {
        numbers[i] = (float)i * by;
    }
}

static void check(const struct spool *spool, const char *name, float by)
{
    struct err err = {0};
    fill(by);
    for (uint64_t at = 0; at < NUMBERS; at += 7 * 31) {
        size_t count = NUMBERS - at < 217 ? (size_t)(NUMBERS - at) : 217;
        assert_int_equal(spool_read(spool, name, at, count, got, &err), 0);
        assert_memory_equal(got, numbers + at, count * sizeof *got);
    }
}

static void lives(const struct disk *disk, const char *state)
{
    struct spool spool;
    struct err err = {0};
    const char *const names[] = {"a", "..", longest};
    assert_int_equal(spool_open(disk, state, true, &spool, &err), 0);
    for (int n = 0; n < 3; n++) {
        fill((float)n);
        assert_int_equal(spool_put(&spool, names[n], numbers, NUMBERS, &err), 0);
    }
    fill(9);
    assert_int_equal(spool_put(&spool, "a", numbers, NUMBERS, &err), 0); /* again */
    check(&spool, "a", 9);
    check(&spool, "..", 1);
    check(&spool, longest, 2);
    assert_int_equal(spool_read(&spool, "a", NUMBERS - 1, 2, got, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "update-a: read: it ends before byte"));
    assert_int_equal(spool_read(&spool, "b", 0, 1, got, &err), ERR_NOTFOUND);
    assert_int_equal(spool_clear(&spool, &err), 0);
    for (int n = 0; n < 3; n++) {
        assert_int_equal(spool_read(&spool, names[n], 0, 1, got, &err), ERR_NOTFOUND);
    }
    uint32_t updates = 0;
    uint64_t left = 0;
    assert_int_equal(spool_put(&spool, "a", numbers, NUMBERS, &err), 0);
    assert_int_equal(spool_room(&spool, 4096, &updates, &left, &err), 0);
    assert_true(updates > 0 && (updates == UINT32_MAX || updates == left / 4096));
    assert_int_equal(spool_open(disk, state, true, &spool, &err), 0); /* what an earlier process left */
    assert_int_equal(spool_read(&spool, "a", 0, 1, got, &err), ERR_NOTFOUND);
    assert_int_equal(spool_put(&spool, "a", numbers, NUMBERS, &err), 0);
    assert_int_equal(spool_open(disk, state, false, &spool, &err), 0); /* and where none is wanted any more */
    assert_int_equal(spool_read(&spool, "a", 0, 1, got, &err), ERR_NOTFOUND);
}

static void on_a_real_disk(void **state)
{
    (void)state;
    char folder[] = "/tmp/starling-spool-XXXXXX", command[64];
    assert_non_null(mkdtemp(folder));
    struct spool spool;
    struct err err = {0};
    assert_int_equal(spool_open(&disk_posix, folder, false, &spool, &err), 0);
    assert_int_not_equal(access(spool.folder, F_OK), 0); /* none is wanted, and none is made */
    lives(&disk_posix, folder);
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

static void on_a_simulated_disk(void **state)
{
    (void)state;
    struct simdisk disk;
    simdisk_init(&disk);
    lives(&disk.disk, "state");
    simdisk_fini(&disk);
}

/* Whatever step fails, the sentence names it, and half an update does not stay. */
static void a_failing_disk_is_told(void **state)
{
    (void)state;
    struct simdisk disk;
    struct spool spool;
    struct err err = {0};
    simdisk_init(&disk);
    assert_int_equal(spool_open(&disk.disk, "state", true, &spool, &err), 0);
    static const char *const steps[] = {"create", "write", "write"};
    for (uint64_t n = 0; n < 3; n++) {
        disk.fails_at = disk.operations + n;
        assert_int_equal(spool_put(&spool, "a", numbers, NUMBERS, &err), ERR_IO);
        assert_non_null(strstr(err.text, "state/spool/update-a: "));
        assert_non_null(strstr(err.text, steps[n]));
        assert_int_equal(spool_read(&spool, "a", 0, 1, got, &err), ERR_NOTFOUND);
    }
    disk.full = true;
    uint32_t updates = 7;
    uint64_t left = 7;
    assert_int_equal(spool_put(&spool, "a", numbers, NUMBERS, &err), ERR_FULL);
    assert_int_equal(spool_room(&spool, 4096, &updates, &left, &err), 0);
    assert_true(updates == 0 && left == 0);
    disk.full = false;
    assert_int_equal(spool_put(&spool, "a", numbers, NUMBERS, &err), 0);
    disk.fails_at = disk.operations;
    assert_int_equal(spool_read(&spool, "a", 0, 1, got, &err), ERR_IO);
    disk.fails_at = disk.operations;
    assert_int_equal(spool_room(&spool, 4096, &updates, &left, &err), ERR_IO);
    simdisk_fini(&disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_a_real_disk),
        cmocka_unit_test(on_a_simulated_disk),
        cmocka_unit_test(a_failing_disk_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
