/* The history of closed rounds in SQLite, for people and scripts: one row a round, columns as in struct round_summary.
 *
 * PRAGMA user_version counts the upgrades that a file has had, so a folder of an older version goes on with its rows.
 * What a round did not measure is NULL.
 *
 * It is derived from the checkpoints: rows past the loaded checkpoint are deleted at start, a damaged file is replaced
 * by an empty one, and no failure here may stop a run. SQLite syncs once a commit (WAL, synchronous=NORMAL: none),
 * since losing the last row to a power cut costs nothing: the next start writes it again from the checkpoint. */
#include "server/store/internal.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

/* A small cache: rows are only added, and with SQLite's own of 2 MB a long run would keep them all in memory. */
static const char schema[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-64;"
                             "CREATE TABLE IF NOT EXISTS round("
                             " round INTEGER PRIMARY KEY, accepted INTEGER, declined INTEGER, closed_unix_ms INTEGER,"
                             " seconds REAL, images INTEGER, loss REAL, loss_contrast REAL, loss_matching REAL,"
                             " remote_share REAL, bytes_up INTEGER, bytes_down INTEGER)";

static const char *const upgrades[] = {
    "ALTER TABLE round ADD COLUMN alignment REAL; ALTER TABLE round ADD COLUMN uniformity REAL;"
    "ALTER TABLE round ADD COLUMN feature_std REAL; ALTER TABLE round ADD COLUMN effective_rank REAL;"
    "ALTER TABLE round ADD COLUMN own_alignment REAL; ALTER TABLE round ADD COLUMN own_uniformity REAL;"
    "ALTER TABLE round ADD COLUMN own_feature_std REAL; ALTER TABLE round ADD COLUMN own_effective_rank REAL;",
    "ALTER TABLE round ADD COLUMN knn_top1 REAL;",
};
#define UPGRADES (int)(sizeof upgrades / sizeof upgrades[0])

/* The order of insert and take_row. */
#define COLUMNS                                                                                                        \
    "round, accepted, declined, closed_unix_ms, seconds, images, loss, loss_contrast, loss_matching, remote_share,"    \
    "bytes_up, bytes_down, alignment, uniformity, feature_std, effective_rank,"                                        \
    "own_alignment, own_uniformity, own_feature_std, own_effective_rank, knn_top1"

const char *const history_files[HISTORY_FILES] = {"history.db-wal", "history.db-shm", "history.db"};

void history_close(struct store *store)
{
    (void)sqlite3_close(store->history);
    store->history = NULL;
}

/* Each upgrade and its count in one transaction; what a kill leaves of it is rolled back when the file is opened. */
static int upgrade(sqlite3 *db)
{
    sqlite3_stmt *version = NULL;
    int rc = sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &version, NULL), has = 0;
    if (rc == SQLITE_OK && (rc = sqlite3_step(version)) == SQLITE_ROW) {
        has = sqlite3_column_int(version, 0);
        rc = SQLITE_OK;
    }
    (void)sqlite3_finalize(version);
    for (; rc == SQLITE_OK && has >= 0 && has < UPGRADES; has++) {
        char count[64];
        (void)snprintf(count, sizeof count, "PRAGMA user_version = %d; COMMIT", has + 1);
        rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        rc = rc ? rc : sqlite3_exec(db, upgrades[has], NULL, NULL, NULL);
        rc = rc ? rc : sqlite3_exec(db, count, NULL, NULL, NULL);
    }
    return rc;
}

/* Leaves store->history NULL on failure. Returns SQLite's code. */
static int try_open(struct store *store, const char *path)
{
    int rc = sqlite3_open_v2(path, &store->history, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    if (rc == SQLITE_OK) {
        (void)sqlite3_busy_timeout(store->history, 1000); /* somebody reads it with another tool */
        rc = sqlite3_exec(store->history, schema, NULL, NULL, NULL);
        rc = rc ? rc : upgrade(store->history);
    }
    if (rc != SQLITE_OK) {
        history_close(store);
    }
    return rc;
}

static int failed(struct store *store, const char *step, int rc, struct err *err)
{
    struct err own;
    int code = err_set(&own,
                       rc == SQLITE_NOMEM  ? ERR_NOMEM
                       : rc == SQLITE_FULL ? ERR_FULL
                                           : ERR_IO,
                       "%s/history.db: %s: %s", store->folder, step, sqlite3_errstr(rc));
    log_event(store->log, LOG_LEVEL_WARN, "history_failed", "reason=\"%s\"", own.text);
    if (err) {
        *err = own;
    }
    return code;
}

static int history_open(struct store *store, struct err *err)
{
    char path[DISK_PATH_MAX];
    if (store->history) {
        return 0;
    }
    if (!store_is_real(store)) {
        (void)strcpy(path, ":memory:");
    } else if (disk_join(path, store->folder, "history.db")) {
        return failed(store, "open", SQLITE_CANTOPEN, err);
    }
    int rc = try_open(store, path);
    if (rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB) {
        log_event(store->log, LOG_LEVEL_WARN, "history_replaced", "file=%s reason=\"%s\"", path, sqlite3_errstr(rc));
        for (size_t i = 0; i < HISTORY_FILES; i++) {
            if (disk_join(path, store->folder, history_files[i]) == 0) {
                (void)disk_remove(store->disk, path, NULL);
            }
        }
        rc = try_open(store, path); /* the last one was the database itself */
    }
    return rc == SQLITE_OK ? 0 : failed(store, "open", rc, err);
}

static int bind_watch(sqlite3_stmt *row, int first, const struct watch *watch)
{
    const double measures[] = {watch->alignment, watch->uniformity, watch->deviation, watch->rank};
    int rc = SQLITE_OK;
    for (int i = 0; i < 4 && rc == SQLITE_OK && watch->measured; i++) {
        rc = sqlite3_bind_double(row, first + i, measures[i]);
    }
    return rc;
}

/* An evaluation comes later than its round: a row that is written again without one keeps what it has. */
static int insert(sqlite3 *db, const struct round_summary *summary)
{
    sqlite3_stmt *row = NULL;
    int rc =
        sqlite3_prepare_v2(db,
                           "INSERT OR REPLACE INTO round(" COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,"
                           "COALESCE(?, (SELECT knn_top1 FROM round WHERE round = ?1)))",
                           -1, &row, NULL);
    const int64_t whole[] = {summary->round, summary->accepted, summary->declined, summary->closed_unix_ms};
    for (int i = 0; i < 4 && rc == SQLITE_OK; i++) {
        rc = sqlite3_bind_int64(row, i + 1, whole[i]);
    }
    rc = rc ? rc : sqlite3_bind_double(row, 5, summary->seconds);
    rc = rc ? rc : sqlite3_bind_int64(row, 6, (int64_t)summary->images);
    rc = rc ? rc : sqlite3_bind_double(row, 7, summary->loss);
    rc = rc ? rc : sqlite3_bind_double(row, 8, summary->loss_contrast);
    rc = rc ? rc : sqlite3_bind_double(row, 9, summary->loss_matching);
    rc = rc ? rc : sqlite3_bind_double(row, 10, summary->remote_share);
    rc = rc ? rc : sqlite3_bind_int64(row, 11, (int64_t)summary->bytes_up);
    rc = rc ? rc : sqlite3_bind_int64(row, 12, (int64_t)summary->bytes_down);
    rc = rc ? rc : bind_watch(row, 13, &summary->aggregate);
    rc = rc ? rc : bind_watch(row, 17, &summary->own);
    if (rc == SQLITE_OK && summary->has_knn) {
        rc = sqlite3_bind_double(row, 21, summary->knn_top1);
    }
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(row);
        rc = rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
    (void)sqlite3_finalize(row);
    return rc;
}

int history_append(struct store *store, const struct round_summary *summary, struct err *err)
{
    int rc = history_open(store, err);
    if (rc) {
        return rc;
    }
    rc = insert(store->history, summary);
    return rc == SQLITE_OK ? 0 : failed(store, "append", rc, err);
}

static int trim(sqlite3 *db, uint32_t round)
{
    sqlite3_stmt *rows = NULL;
    int rc = sqlite3_prepare_v2(db, "DELETE FROM round WHERE round > ? OR round < 1", -1, &rows, NULL);
    rc = rc ? rc : sqlite3_bind_int64(rows, 1, round);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(rows);
        rc = rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
    (void)sqlite3_finalize(rows);
    return rc;
}

/* What is NULL, or was put there by somebody else, is not sane and counts as not measured. */
static struct watch take_watch(sqlite3_stmt *row, int first)
{
    struct watch watch = {true, sqlite3_column_double(row, first), sqlite3_column_double(row, first + 1),
                          sqlite3_column_double(row, first + 2), sqlite3_column_double(row, first + 3)};
    return watch_is_sane(&watch) ? watch : (struct watch){0};
}

static void take_row(sqlite3_stmt *row, struct round_summary *out)
{
    *out = (struct round_summary){
        .round = (uint32_t)sqlite3_column_int64(row, 0),
        .accepted = (uint32_t)sqlite3_column_int64(row, 1),
        .declined = (uint32_t)sqlite3_column_int64(row, 2),
        .closed_unix_ms = sqlite3_column_int64(row, 3),
        .seconds = sqlite3_column_double(row, 4),
        .images = (uint64_t)sqlite3_column_int64(row, 5),
        .loss = sqlite3_column_double(row, 6),
        .loss_contrast = sqlite3_column_double(row, 7),
        .loss_matching = sqlite3_column_double(row, 8),
        .remote_share = sqlite3_column_double(row, 9),
        .bytes_up = (uint64_t)sqlite3_column_int64(row, 10),
        .bytes_down = (uint64_t)sqlite3_column_int64(row, 11),
        .aggregate = take_watch(row, 12),
        .own = take_watch(row, 16),
    };
    double knn = sqlite3_column_double(row, 20);
    out->has_knn = sqlite3_column_type(row, 20) == SQLITE_FLOAT && knn >= 0 && knn <= 1;
    out->knn_top1 = out->has_knn ? knn : 0;
}

/* Newest first into the end of `all`, so that they stand oldest first. */
static int select_newest(sqlite3 *db, uint32_t most, struct round_summary *all, uint32_t *count)
{
    sqlite3_stmt *rows = NULL;
    int rc = sqlite3_prepare_v2(db, "SELECT " COLUMNS " FROM round ORDER BY round DESC LIMIT ?", -1, &rows, NULL);
    rc = rc ? rc : sqlite3_bind_int64(rows, 1, most);
    uint32_t n = 0;
    while (rc == SQLITE_OK && n < most && (rc = sqlite3_step(rows)) == SQLITE_ROW) {
        take_row(rows, &all[most - ++n]);
        rc = SQLITE_OK;
    }
    (void)sqlite3_finalize(rows);
    memmove(all, all + (most - n), n * sizeof *all);
    *count = n;
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int history_load(struct store *store, uint32_t round, uint32_t most, struct round_summary **out, uint32_t *count,
                 struct err *err)
{
    *out = NULL;
    *count = 0;
    int code = history_open(store, err);
    if (code) {
        return code;
    }
    int rc = trim(store->history, round);
    if (rc != SQLITE_OK) {
        return failed(store, "trim", rc, err);
    }
    struct round_summary *all = mem_new(most, sizeof *all);
    if (!all) {
        return failed(store, "read", SQLITE_NOMEM, err);
    }
    rc = select_newest(store->history, most, all, count);
    if (rc != SQLITE_OK) {
        mem_free(all);
        *count = 0;
        return failed(store, "read", rc, err);
    }
    *out = all;
    return 0;
}
