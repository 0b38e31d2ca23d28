/* A site's secret: its file, on disks that die and fill up and with others who look; and the seed that it makes, which
 * is a function of secret, plan and name, and of all of each. The check of that is tried on the planted mistakes. */
#include "client/shell/secret.h"
#include "client/shell/state.h"
#include "tests/support/simdisk.h"

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

#define FOLDER "site"

static const struct hash128 run = {.bytes = {1}}, plan = {.bytes = {2}};

/* ---- The seed ---- */

typedef int seeder(const uint8_t secret[SECRET_BYTES], uint64_t plan_seed, const char *name, uint64_t *out,
                   struct err *err);

/* The mistakes: what others know decides alone; half of the secret decides; all sites of one secret are alike. */
static int without_secret(const uint8_t secret[SECRET_BYTES], uint64_t plan_seed, const char *name, uint64_t *out,
                          struct err *err)
{
    static const uint8_t none[SECRET_BYTES];
    (void)secret;
    return secret_seed(none, plan_seed, name, out, err);
}

static int of_half_a_secret(const uint8_t secret[SECRET_BYTES], uint64_t plan_seed, const char *name, uint64_t *out,
                            struct err *err)
{
    uint8_t half[SECRET_BYTES] = {0};
    memcpy(half, secret, SECRET_BYTES / 2);
    return secret_seed(half, plan_seed, name, out, err);
}

static int without_plan(const uint8_t secret[SECRET_BYTES], uint64_t plan_seed, const char *name, uint64_t *out,
                        struct err *err)
{
    (void)plan_seed;
    return secret_seed(secret, 0, name, out, err);
}

static uint64_t seed_of(seeder *seed, const uint8_t secret[SECRET_BYTES], uint64_t plan_seed, const char *name)
{
    uint64_t out = 0;
    assert_int_equal(seed(secret, plan_seed, name, &out, NULL), 0);
    return out;
}

/* How many changes of one bit, or of the name, leave the seed what it was. */
static uint32_t changes_that_do_not_matter(seeder *seed)
{
    uint8_t secret[SECRET_BYTES];
    uint32_t same = 0;
    for (uint32_t i = 0; i < SECRET_BYTES; i++) {
        secret[i] = (uint8_t)i;
    }
    uint64_t first = seed_of(seed, secret, 7, "site-a");
    assert_true(first == seed_of(seed, secret, 7, "site-a"));
    for (uint32_t bit = 0; bit < 8 * SECRET_BYTES; bit++) {
        secret[bit / 8] ^= (uint8_t)(1u << bit % 8);
        same += seed_of(seed, secret, 7, "site-a") == first;
        secret[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (uint32_t bit = 0; bit < 64; bit++) {
        same += seed_of(seed, secret, 7 ^ UINT64_C(1) << bit, "site-a") == first;
    }
    same += seed_of(seed, secret, 7, "site-b") == first;
    same += seed_of(seed, secret, 7, "site-") == first;
    return same;
}

static void all_of_it_is_in_the_seed(void **state)
{
    (void)state;
    assert_int_equal(changes_that_do_not_matter(secret_seed), 0);
    assert_int_equal(changes_that_do_not_matter(without_secret), 8 * SECRET_BYTES);
    assert_int_equal(changes_that_do_not_matter(of_half_a_secret), 4 * SECRET_BYTES);
    assert_int_equal(changes_that_do_not_matter(without_plan), 64);
}

/* A later version goes on with the same bits: sha256("starling streams" + secret + seed + name), computed apart. */
static void the_seed_stays_what_it_is(void **state)
{
    (void)state;
    uint8_t secret[SECRET_BYTES];
    for (uint32_t i = 0; i < SECRET_BYTES; i++) {
        secret[i] = (uint8_t)i;
    }
    assert_true(seed_of(secret_seed, secret, 7, "site-a") == UINT64_C(0x4d785cc64a66cc76));
}

/* ---- The file ---- */

static void open_state(const struct disk *disk, const char *folder, bool forget, struct state *state)
{
    struct contribution *pending;
    struct err err = {0};
    if (state_open(state, disk, folder, forget, NULL, &pending, &err) || (forget && state_forget(state, &err))) {
        fail_msg("%s", err.text);
    }
    assert_null(pending);
}

static void get(struct state *state, uint8_t out[SECRET_BYTES])
{
    struct err err = {0};
    if (state_secret(state, &err)) {
        fail_msg("%s", err.text);
    }
    assert_true(state->has_secret);
    memcpy(out, state->secret, SECRET_BYTES);
}

static void it_is_drawn_once(void **unused)
{
    (void)unused;
    struct simdisk disk, elsewhere;
    struct state state;
    uint8_t first[SECRET_BYTES], again[SECRET_BYTES];
    simdisk_init(&disk);
    open_state(&disk.disk, FOLDER, false, &state);
    assert_false(state.has_secret);
    get(&state, first);
    for (int life = 0; life < 3; life++) { /* restarted, in a run, with the run forgotten */
        assert_int_equal(life == 1 ? state_begin(&state, &run, &plan, NULL) : 0, 0);
        state_close(&state);
        open_state(&disk.disk, FOLDER, life == 2, &state);
        get(&state, again);
        assert_memory_equal(first, again, sizeof first);
    }
    state_close(&state);

    simdisk_init(&elsewhere);
    open_state(&elsewhere.disk, FOLDER, false, &state);
    get(&state, again);
    assert_memory_not_equal(first, again, sizeof first);
    state_close(&state);
    simdisk_fini(&elsewhere);
    simdisk_fini(&disk);
}

static void a_damaged_one_is_drawn_anew(void **unused)
{
    (void)unused;
    struct simdisk disk;
    struct state state;
    uint8_t first[SECRET_BYTES], other[SECRET_BYTES], again[SECRET_BYTES];
    simdisk_init(&disk);
    open_state(&disk.disk, FOLDER, false, &state);
    get(&state, first);
    state_close(&state);
    struct span damaged = {"STARLNGK", 8};
    assert_int_equal(disk_save(&disk.disk, FOLDER "/secret", &damaged, 1, NULL), 0);
    open_state(&disk.disk, FOLDER, false, &state);
    get(&state, other);
    assert_memory_not_equal(first, other, sizeof first);
    state_close(&state);
    open_state(&disk.disk, FOLDER, false, &state);
    get(&state, again);
    assert_memory_equal(other, again, sizeof other);
    state_close(&state);
    simdisk_fini(&disk);
}

/* What was used is there after any crash; what could not be saved is not used. */
static void it_is_durable_before_it_is_used(void **unused)
{
    (void)unused;
    bool reached = true;
    for (uint64_t n = 0; reached; n++) {
        struct simdisk disk;
        struct state state;
        uint8_t used[SECRET_BYTES], again[SECRET_BYTES];
        simdisk_init(&disk);
        open_state(&disk.disk, FOLDER, false, &state);
        uint64_t before = disk.operations;
        disk.dies_after = before + n;
        bool made = state_secret(&state, NULL) == 0;
        assert_int_equal(state.has_secret, made);
        memcpy(used, state.secret, sizeof used);
        reached = disk.operations > before + n;
        assert_true(made || reached);
        simdisk_crash(&disk, NULL);
        disk.dies_after = UINT64_MAX;
        state_close(&state);
        open_state(&disk.disk, FOLDER, false, &state);
        get(&state, again);
        assert_true(!made || memcmp(used, again, sizeof used) == 0);
        state_close(&state);
        simdisk_fini(&disk);
    }
}

static void no_room_no_secret(void **unused)
{
    (void)unused;
    struct simdisk disk;
    struct state state;
    simdisk_init(&disk);
    open_state(&disk.disk, FOLDER, false, &state);
    disk.full = true;
    assert_int_equal(state_secret(&state, NULL), ERR_FULL);
    assert_false(state.has_secret);
    state_close(&state);
    simdisk_fini(&disk);
}

static void for_its_owner_alone(void **unused)
{
    (void)unused;
    static const mode_t others[] = {0640, 0602, 0604, 0610, 0666};
    char folder[] = "/tmp/starling-secret-XXXXXX", path[64], command[64];
    struct state state;
    struct err err;
    struct stat st;
    uint8_t first[SECRET_BYTES], again[SECRET_BYTES];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/secret", folder);
    mode_t mask = umask(0);
    open_state(&disk_posix, folder, false, &state);
    get(&state, first);
    (void)umask(mask);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_int_equal(chmod(path, others[i]), 0);
        assert_int_equal(state_secret(&state, &err), ERR_CONFIG);
        assert_non_null(strstr(err.text, path));
        assert_false(state.has_secret);
    }
    assert_int_equal(chmod(path, 0400), 0);
    get(&state, again);
    assert_memory_equal(first, again, sizeof first);
    for (int kind = 0; kind < 3;
         kind++) { /* nothing waits for the pipe's writer, and nobody is to chmod what is there */
        assert_int_equal(remove(path), 0);
        assert_int_equal(kind == 0   ? mkfifo(path, 0600)
                         : kind == 1 ? mkdir(path, 0700)
                                     : symlink("/dev/null", path),
                         0);
        assert_int_equal(state_secret(&state, &err), ERR_CONFIG);
        assert_non_null(strstr(err.text, "no regular file"));
        assert_null(strstr(err.text, "chmod"));
    }
    state_close(&state);
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_it_is_in_the_seed),
        cmocka_unit_test(the_seed_stays_what_it_is),
        cmocka_unit_test(it_is_drawn_once),
        cmocka_unit_test(a_damaged_one_is_drawn_anew),
        cmocka_unit_test(it_is_durable_before_it_is_used),
        cmocka_unit_test(no_room_no_secret),
        cmocka_unit_test(for_its_owner_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
