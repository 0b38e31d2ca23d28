/* The history: rows survive a restart, are trimmed to the checkpoint, come oldest first and bounded, and a damaged file
 * costs the rows but never the run. */
#include "common/base/mem.h"
#include "server/store/store.h"

#include <sqlite3.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char folder[64];

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/starling-history-XXXXXX");
    return mkdtemp(folder) ? 0 : 1;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static struct store *open_store(void)
{
    struct store *store;
    assert_int_equal(store_open(&disk_posix, folder, 0, NULL, &store, NULL), 0);
    return store;
}

static struct round_summary summary_of(uint32_t round)
{
    return (struct round_summary){
        .round = round,
        .accepted = round + 1,
        .declined = round + 2,
        .closed_unix_ms = INT64_C(1700000000000) + round,
        .seconds = round + 0.5,
        .images = round + 3,
        .loss = 0.1 * round,
        .loss_contrast = 0.2 * round,
        .loss_matching = 0.3 * round,
        .remote_share = 0.4,
        .bytes_up = (UINT64_C(1) << 40) + round,
        .bytes_down = round + 4,
        .aggregate = {true, 0.5, -1.5, 0.75, round + 1.5},
        .own = {round % 2, round % 2 ? 0.25 : 0, 0, 0, round % 2 ? 7 : 0},
    };
}

static void append(struct store *store, uint32_t first, uint32_t last)
{
    for (uint32_t round = first; round <= last; round++) {
        struct round_summary summary = summary_of(round);
        assert_int_equal(history_append(store, &summary, NULL), 0);
    }
}

static bool same_double(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static bool same_watch(const struct watch *a, const struct watch *b)
{
    return a->measured == b->measured && same_double(a->alignment, b->alignment) &&
           same_double(a->uniformity, b->uniformity) && same_double(a->deviation, b->deviation) &&
           same_double(a->rank, b->rank);
}

/* Field by field: the bytes between them are nobody's. */
static bool same(const struct round_summary *a, const struct round_summary *b)
{
    return a->round == b->round && a->accepted == b->accepted && a->declined == b->declined &&
           a->closed_unix_ms == b->closed_unix_ms && a->images == b->images && a->bytes_up == b->bytes_up &&
           a->bytes_down == b->bytes_down && same_double(a->seconds, b->seconds) && same_double(a->loss, b->loss) &&
           same_double(a->loss_contrast, b->loss_contrast) && same_double(a->loss_matching, b->loss_matching) &&
           same_double(a->remote_share, b->remote_share) && same_watch(&a->aggregate, &b->aggregate) &&
           same_watch(&a->own, &b->own);
}

static void check(struct store *store, uint32_t round, uint32_t most, uint32_t first, uint32_t count)
{
    struct round_summary *rows;
    uint32_t got;
    assert_int_equal(history_load(store, round, most, &rows, &got, NULL), 0);
    assert_int_equal(got, count);
    for (uint32_t i = 0; i < count; i++) {
        struct round_summary want = summary_of(first + i);
        assert_true(same(&rows[i], &want));
    }
    mem_free(rows);
}

static void rows_survive_and_are_bounded(void **state)
{
    (void)state;
    struct store *store = open_store();
    append(store, 1, 9);
    store_close(store);
    store = open_store();
    check(store, 9, 100, 1, 9);
    check(store, 9, 4, 6, 4);
    check(store, 9, 0, 0, 0);
    store_close(store);
}

static void rows_past_the_checkpoint_go(void **state)
{
    (void)state;
    struct store *store = open_store();
    append(store, 1, 9);
    check(store, 7, 100, 1, 7);
    check(store, 9, 100, 1, 7); /* they are gone for good */
    append(store, 8, 8);
    check(store, 8, 2, 7, 2);
    store_close(store);
}

static void a_round_that_is_written_twice_stands_once(void **state)
{
    (void)state;
    struct store *store = open_store();
    append(store, 1, 3);
    append(store, 3, 3);
    check(store, 3, 100, 1, 3);
    store_close(store);
}

static void a_damaged_file_is_replaced(void **state)
{
    (void)state;
    char path[128];
    struct store *store = open_store();
    append(store, 1, 3);
    store_close(store);
    (void)snprintf(path, sizeof path, "%s/history.db", folder);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fputs("this is no database, and SQLite says so", file) >= 0, 1);
    assert_int_equal(fclose(file), 0);
    store = open_store();
    check(store, 3, 100, 0, 0);
    append(store, 4, 4);
    check(store, 4, 100, 4, 1);
    store_close(store);
}

/* What a version without measures left behind goes on: its rows, and new ones beside them. */
static void a_file_of_an_older_version_goes_on(void **state)
{
    (void)state;
    char path[128];
    sqlite3 *db;
    (void)snprintf(path, sizeof path, "%s/history.db", folder);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db,
                     "CREATE TABLE round("
                     " round INTEGER PRIMARY KEY, accepted INTEGER, declined INTEGER, closed_unix_ms INTEGER,"
                     " seconds REAL, images INTEGER, loss REAL, loss_contrast REAL, loss_matching REAL,"
                     " remote_share REAL, bytes_up INTEGER, bytes_down INTEGER);"
                     "INSERT INTO round VALUES(1, 2, 3, 1700000000001, 1.5, 4, 0.1, 0.2, 0.3, 0.4, 7, 5)",
                     NULL, NULL, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    struct store *store = open_store();
    append(store, 2, 2);
    store_close(store);
    store = open_store(); /* the upgrade is not done twice */
    struct round_summary *rows, want = summary_of(2);
    uint32_t count;
    assert_int_equal(history_load(store, 2, 10, &rows, &count, NULL), 0);
    assert_int_equal(count, 2);
    assert_int_equal(rows[0].accepted, 2);
    assert_int_equal(rows[0].bytes_down, 5);
    assert_false(rows[0].aggregate.measured || rows[0].own.measured);
    assert_true(same(&rows[1], &want));
    mem_free(rows);
    store_close(store);
}

/* Somebody's hand in the file: a row that would not pass the wire must not reach the status. */
static void impossible_measures_count_as_none(void **state)
{
    (void)state;
    char path[128];
    sqlite3 *db;
    struct store *store = open_store();
    append(store, 1, 1);
    store_close(store);
    (void)snprintf(path, sizeof path, "%s/history.db", folder);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE round SET effective_rank = 1e300", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    struct round_summary *rows;
    uint32_t count;
    store = open_store();
    assert_int_equal(history_load(store, 1, 10, &rows, &count, NULL), 0);
    assert_false(rows[0].aggregate.measured);
    assert_true(rows[0].own.measured);
    mem_free(rows);
    store_close(store);
}

/* A row that is written again, as each start does, keeps the evaluation that came meanwhile. */
static void an_evaluation_is_not_lost(void **state)
{
    (void)state;
    static const double found[] = {0, 0.5}; /* nothing right is an evaluation too */
    struct store *store = open_store();
    append(store, 1, 2);
    for (size_t i = 0; i < 2; i++) {
        struct round_summary *rows, evaluated = summary_of(1);
        uint32_t count;
        evaluated.has_knn = true;
        evaluated.knn_top1 = found[i];
        assert_int_equal(history_append(store, &evaluated, NULL), 0);
        append(store, 1, 2);
        assert_int_equal(history_load(store, 2, 10, &rows, &count, NULL), 0);
        assert_true(rows[0].has_knn && same_double(rows[0].knn_top1, found[i]));
        assert_false(rows[1].has_knn);
        mem_free(rows);
    }
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rows_survive_and_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(rows_past_the_checkpoint_go, setup, teardown),
        cmocka_unit_test_setup_teardown(a_round_that_is_written_twice_stands_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_file_is_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_of_an_older_version_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(an_evaluation_is_not_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(impossible_measures_count_as_none, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
