/* The state folder on a real disk: what a start finds after saves, damage, a changed plan and a new run, and that a
 * disk which fails at any one step of a save leaves a state that loads. */
#include "common/base/byteorder.h"
#include "common/base/mem.h"
#include "common/config/plan.h"
#include "server/store/checkpoint.h"

#include <math.h>
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

struct room {
    char folder[64];
    struct plan plan;
    struct buf plan_bytes;
    struct layout *layout;
    float *params;
    struct buf seen; /* the log */
    struct log log;
};

static void collect(void *ctx, enum log_level level, const char *event, const char *fields)
{
    (void)level;
    (void)buf_printf(ctx, "%s %s\n", event, fields);
}

static bool logged(struct room *room, const char *what)
{
    (void)buf_append(&room->seen, "", 1);
    bool found = strstr((const char *)room->seen.data, what) != NULL;
    room->seen.len = 0;
    return found;
}

static int setup(void **state)
{
    struct room *room = calloc(1, sizeof *room);
    strcpy(room->folder, "/tmp/starling-store-XXXXXX");
    assert_non_null(mkdtemp(room->folder));
    config_defaults(&plan_set, &room->plan);
    room->plan.model.width = 8;
    room->plan.model.stages = 2;
    room->plan.model.blocks[0] = room->plan.model.blocks[1] = 1;
    room->plan.model.blocks[2] = room->plan.model.blocks[3] = 0;
    room->plan.model.input = 16;
    buf_init(&room->plan_bytes, (size_t)1 << 16);
    assert_int_equal(plan_encode(&room->plan, &room->plan_bytes), 0);
    assert_int_equal(layout_new(&room->plan.model, &room->layout, NULL), 0);
    room->params = mem_new_aligned((size_t)room->layout->total, sizeof(float));
    buf_init(&room->seen, 1 << 20);
    room->log = (struct log){.emit = collect, .ctx = &room->seen, .least = LOG_LEVEL_DEBUG};
    *state = room;
    return 0;
}

static int teardown(void **state)
{
    struct room *room = *state;
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", room->folder);
    assert_int_equal(system(command), 0);
    buf_fini(&room->plan_bytes);
    buf_fini(&room->seen);
    layout_free(room->layout);
    mem_free(room->params);
    free(room);
    return 0;
}

/* A state of a round that differs from that of every other round in each of its parts. Those of even rounds have an
 * optimiser's state. */
static struct checkpoint state_of(struct room *room, uint32_t round)
{
    static uint8_t bank[3000], optimiser[2000];
    static struct counted counted[2];
    params_init(room->layout, round + 1, room->params);
    memset(bank, (int)round + 1, sizeof bank);
    memset(optimiser, (int)round + 101, sizeof optimiser);
    (void)snprintf(counted[0].name, sizeof counted[0].name, "site-%u", round);
    memset(counted[1].name, 'n', NAME_MAX_BYTES - 1); /* the longest name */
    counted[0].round = counted[1].round = round;
    struct checkpoint checkpoint = {
        .round = round,
        .plan = room->plan_bytes.data,
        .plan_len = (uint32_t)room->plan_bytes.len,
        .params = room->params,
        .bank = bank,
        .bank_len = sizeof bank - round,
        .optimiser = optimiser,
        .optimiser_len = round % 2 ? 0 : sizeof optimiser - 4 * round,
        .counted = counted,
        .counted_count = 2,
        .summary = {.round = round,
                    .accepted = 3,
                    .closed_unix_ms = -5,
                    .seconds = 0.25,
                    .images = 1ull << 40,
                    .loss = -1.5,
                    .own = {true, 0.5, -2, 0.75, 12}},
    };
    for (int i = 0; i < CHECKPOINT_PARTS * CHECKPOINT_NORMS; i++) {
        checkpoint.norms[i / CHECKPOINT_NORMS][i % CHECKPOINT_NORMS] = round + 0.5 * i;
    }
    memset(checkpoint.run.bytes, 0xab, 16);
    return checkpoint;
}

static struct store *open_store(struct room *room, const struct disk *disk, uint32_t keep_every)
{
    struct store *store;
    struct err err = {0};
    if (store_open(disk, room->folder, keep_every, &room->log, &store, &err)) {
        fail_msg("%s", err.text);
    }
    return store;
}

static void save(struct room *room, struct store *store, uint32_t round)
{
    struct err err = {0};
    struct checkpoint checkpoint = state_of(room, round);
    if (store_save(store, room->layout, &checkpoint, &err)) {
        fail_msg("%s", err.text);
    }
}

static int load(struct room *room, struct store *store, bool new_run, struct checkpoint *out, bool *found,
                struct err *err)
{
    return store_load(store, room->layout, room->plan_bytes.data, (uint32_t)room->plan_bytes.len, new_run, out, found,
                      err);
}

static void check_is(struct room *room, const struct checkpoint *got, uint32_t round)
{
    struct checkpoint want = state_of(room, round);
    assert_int_equal(got->round, round);
    assert_memory_equal(got->run.bytes, want.run.bytes, 16);
    assert_memory_equal(got->norms, want.norms, sizeof want.norms);
    assert_int_equal(got->plan_len, want.plan_len);
    assert_memory_equal(got->plan, want.plan, want.plan_len);
    assert_memory_equal(got->params, want.params, room->layout->total * sizeof(float));
    assert_int_equal(got->bank_len, want.bank_len);
    assert_memory_equal(got->bank, want.bank, want.bank_len);
    assert_int_equal(got->optimiser_len, want.optimiser_len);
    assert_memory_equal(got->optimiser, want.optimiser, want.optimiser_len);
    assert_int_equal(got->counted_count, 2);
    assert_string_equal(got->counted[0].name, want.counted[0].name);
    assert_string_equal(got->counted[1].name, want.counted[1].name);
    assert_int_equal(got->counted[0].round, round);
    assert_int_equal(got->summary.accepted, 3);
    assert_int_equal(got->summary.closed_unix_ms, -5);
    assert_true(got->summary.seconds == 0.25 && got->summary.loss == -1.5 && got->summary.images == 1ull << 40);
    assert_true(!got->summary.aggregate.measured && got->summary.own.measured && got->summary.own.rank == 12);
}

/* Opens the folder anew and expects the state of `round`. */
static void check_loads(struct room *room, uint32_t round)
{
    struct store *store = open_store(room, &disk_posix, 0);
    struct checkpoint checkpoint;
    struct err err = {0};
    bool found;
    if (load(room, store, false, &checkpoint, &found, &err)) {
        fail_msg("%s", err.text);
    }
    assert_true(found);
    check_is(room, &checkpoint, round);
    checkpoint_fini(&checkpoint);
    store_close(store);
}

static bool exists(struct room *room, const char *name)
{
    char path[256];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/%s", room->folder, name);
    return stat(path, &st) == 0;
}

static void flip_byte(struct room *room, const char *name, long offset)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", room->folder, name);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, offset < 0 ? SEEK_END : SEEK_SET), 0);
    int c = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    assert_int_not_equal(fputc(c ^ 1, file), EOF);
    assert_int_equal(fclose(file), 0);
}

static void an_empty_folder_is_made_and_holds_nothing(void **state)
{
    struct room *room = *state;
    strcat(room->folder, "/x/y");
    struct store *store = open_store(room, &disk_posix, 0);
    struct checkpoint checkpoint;
    bool found = true;
    assert_int_equal(load(room, store, false, &checkpoint, &found, NULL), 0);
    assert_false(found);
    store_close(store);
    room->folder[strlen(room->folder) - 4] = '\0';
}

static void what_is_saved_comes_back(void **state)
{
    struct room *room = *state;
    struct store *store = open_store(room, &disk_posix, 0);
    save(room, store, 0);
    store_close(store);
    check_loads(room, 0);
    store = open_store(room, &disk_posix, 0);
    save(room, store, 1);
    store_close(store);
    check_loads(room, 1);
}

static void old_states_go_except_what_is_to_be_kept(void **state)
{
    struct room *room = *state;
    struct store *store = open_store(room, &disk_posix, 3);
    for (uint32_t round = 0; round <= 8; round++) {
        save(room, store, round);
    }
    store_close(store);
    static const struct {
        const char *name;
        bool kept;
    } files[] = {
        {"checkpoint-000008", true},
        {"checkpoint-000007", true},
        {"checkpoint-000006", false},
        {"checkpoint-000000", false},
        {"models/round-000008.starling", true},
        {"models/round-000007.starling", true},
        {"models/round-000006.starling", true},
        {"models/round-000005.starling", false},
        {"models/round-000003.starling", true},
        {"models/round-000001.starling", false},
        {"models/round-000000.starling", true},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (exists(room, files[i].name) != files[i].kept) {
            fail_msg("%s should %sbe there", files[i].name, files[i].kept ? "" : "not ");
        }
    }
}

static void what_is_not_ours_stays(void **state)
{
    struct room *room = *state;
    static const char *const names[] = {"checkpoint-1", "checkpoint-000001.bak", "models/round-000001.starling.orig",
                                        "models/best.starling"};
    struct store *store = open_store(room, &disk_posix, 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[256];
        (void)snprintf(path, sizeof path, "%s/%s", room->folder, names[i]);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        (void)fclose(file);
    }
    for (uint32_t round = 0; round <= 4; round++) {
        save(room, store, round);
    }
    store_close(store);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_true(exists(room, names[i]));
    }
    check_loads(room, 4);
}

/* Each part of the newest state damaged in turn: the predecessor is loaded, and the log says what was skipped. */
static void a_damaged_state_falls_back_to_its_predecessor(void **state)
{
    struct room *room = *state;
    static const struct {
        const char *name;
        long offset;
    } damage[] = {
        {"checkpoint-000002", 0},
        {"checkpoint-000002", 12},
        {"checkpoint-000002", 64},
        {"checkpoint-000002", 68},
        {"checkpoint-000002", 72},
        {"checkpoint-000002", 79},
        {"checkpoint-000002", 200},
        {"checkpoint-000002", -1},
        {"checkpoint-000002", -20},
        {"models/round-000002.starling", 70},
        {"models/round-000002.starling", -100},
    };
    for (size_t i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        struct store *store = open_store(room, &disk_posix, 0);
        save(room, store, 1);
        save(room, store, 2);
        store_close(store);
        flip_byte(room, damage[i].name, damage[i].offset);
        room->seen.len = 0;
        check_loads(room, 1);
        assert_true(logged(room, "checkpoint_skipped round=2"));
    }
}

/* A model that is whole, but of another save of the same round: the checkpoint's hash tells. */
static void a_model_that_is_not_the_checkpoints_is_not_loaded(void **state)
{
    struct room *room = *state;
    struct store *store = open_store(room, &disk_posix, 0);
    save(room, store, 1);
    save(room, store, 2);
    char path[DISK_PATH_MAX], other[DISK_PATH_MAX];
    assert_int_equal(store_model_path(store, 2, path), 0);
    (void)snprintf(other, sizeof other, "%s/other", room->folder);
    assert_int_equal(rename(path, other), 0);
    struct checkpoint checkpoint = state_of(room, 2);
    checkpoint.params[7] += 1.0f;
    assert_int_equal(store_save(store, room->layout, &checkpoint, NULL), 0);
    assert_int_equal(rename(other, path), 0);
    store_close(store);
    check_loads(room, 1);
}

static void a_truncated_checkpoint_is_skipped_at_every_length(void **state)
{
    struct room *room = *state;
    char path[256];
    struct stat st;
    struct store *store = open_store(room, &disk_posix, 0);
    save(room, store, 1);
    save(room, store, 2);
    store_close(store);
    (void)snprintf(path, sizeof path, "%s/checkpoint-000002", room->folder);
    assert_int_equal(stat(path, &st), 0);
    for (long len = st.st_size - 1; len >= 0; len = len > 400 ? len - 301 : len - 37) {
        assert_int_equal(truncate(path, len), 0);
        check_loads(room, 1);
    }
}

/* What a version without measures and norms saved, which is shorter, goes on. */
static void check_version(struct room *room, uint8_t version)
{
    struct store *store = open_store(room, &disk_posix, 0);
    save(room, store, 1);
    char path[256];
    uint8_t *data;
    size_t len;
    (void)snprintf(path, sizeof path, "%s/checkpoint-000001", room->folder);
    assert_int_equal(disk_load(&disk_posix, path, 1 << 20, &data, &len, NULL), 0);
    data[8] = version;
    size_t fixed = version == 1 ? 168 : 240;
    memmove(data + fixed, data + 320, len - 320);
    len -= 320 - fixed;
    struct hash128 hash = hash_of(data, len - 16);
    memcpy(data + len - 16, hash.bytes, 16);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
    mem_free(data);
    struct checkpoint checkpoint;
    bool found;
    assert_int_equal(load(room, store, false, &checkpoint, &found, NULL), 0);
    assert_true(found && checkpoint.summary.own.measured == (version > 1) && checkpoint.norms[0][0] == 0);
    checkpoint.summary.own = state_of(room, 1).summary.own;
    memcpy(checkpoint.norms, state_of(room, 1).norms, sizeof checkpoint.norms);
    check_is(room, &checkpoint, 1);
    checkpoint_fini(&checkpoint);
    store_close(store);
}

static void checkpoints_of_older_versions_load(void **state)
{
    check_version(*state, 1);
    check_version(*state, 2);
}

/* A file whose checksum holds, and whose norms are none. */
static void norms_that_are_none_are_refused(void **state)
{
    struct room *room = *state;
    struct checkpoint checkpoint = state_of(room, 1), got;
    struct checkpoint_model model = {0}, model_got;
    static const double wrong[] = {-1, NAN, INFINITY};
    for (int i = 0; i < 3 * CHECKPOINT_PARTS; i++) {
        struct buf file;
        struct hash128 tail;
        struct err err = {0};
        double *norm = &checkpoint.norms[i / 3][CHECKPOINT_NORMS - 1];
        *norm = wrong[i % 3];
        checkpoint.bank_len = 0;
        buf_init(&file, SIZE_MAX);
        assert_int_equal(checkpoint_encode(&checkpoint, &model, &file, &tail), 0);
        assert_int_equal(buf_append(&file, tail.bytes, 16), 0);
        assert_int_equal(checkpoint_decode(file.data, file.len, &got, &model_got, &err), ERR_DATA);
        assert_non_null(strstr(err.text, "norm"));
        buf_fini(&file);
        *norm = 1;
    }
}

/* A file whose checksum holds, and whose header lies about the state. */
static void a_state_of_a_wrong_size_is_refused(void **state)
{
    struct room *room = *state;
    struct checkpoint checkpoint = state_of(room, 2), got;
    struct checkpoint_model model = {0}, model_got;
    for (uint64_t wrong = 0; wrong < 6; wrong++) {
        const uint64_t sizes[] = {
            0, 1, checkpoint.optimiser_len - 1, checkpoint.optimiser_len + 1, UINT64_MAX, checkpoint.optimiser_len};
        struct buf file;
        struct hash128 tail;
        struct err err = {0};
        buf_init(&file, SIZE_MAX);
        assert_int_equal(checkpoint_encode(&checkpoint, &model, &file, &tail), 0);
        file.max = SIZE_MAX;
        assert_int_equal(buf_append(&file, checkpoint.bank, checkpoint.bank_len), 0);
        assert_int_equal(buf_append(&file, checkpoint.optimiser, checkpoint.optimiser_len), 0);
        store_u64(file.data + 232, sizes[wrong]);
        tail = hash_of(file.data, file.len);
        assert_int_equal(buf_append(&file, tail.bytes, 16), 0);
        int rc = checkpoint_decode(file.data, file.len, &got, &model_got, &err);
        assert_int_equal(rc, wrong == 5 ? 0 : ERR_DATA);
        assert_true(rc == 0 || strstr(err.text, "do not agree with the sizes") != NULL);
        checkpoint_fini(&got);
        buf_fini(&file);
    }
}

static void no_whole_state_is_an_error_and_no_fresh_start(void **state)
{
    struct room *room = *state;
    struct store *store = open_store(room, &disk_posix, 0);
    save(room, store, 1);
    save(room, store, 2);
    flip_byte(room, "checkpoint-000001", 100);
    flip_byte(room, "checkpoint-000002", 100);
    struct checkpoint checkpoint;
    struct err err = {0};
    bool found = true;
    assert_int_equal(load(room, store, false, &checkpoint, &found, &err), ERR_DATA);
    assert_false(found);
    assert_non_null(strstr(err.text, room->folder));
    assert_non_null(strstr(err.text, "checkpoint-000002")); /* of the newest, not of the last that was tried */
    /* --new-run works even then, and loses nothing. */
    assert_int_equal(load(room, store, true, &checkpoint, &found, &err), 0);
    assert_false(found);
    assert_true(exists(room, "old-damaged/checkpoint-000002"));
    assert_true(exists(room, "old-damaged/models/round-000002.starling"));
    store_close(store);
}

static void two_servers_cannot_share_a_folder(void **state)
{
    struct room *room = *state;
    struct store *store = open_store(room, &disk_posix, 0), *second;
    struct err err = {0};
    assert_int_equal(store_open(&disk_posix, room->folder, 0, NULL, &second, &err), ERR_UNAVAILABLE);
    assert_null(second);
    assert_non_null(strstr(err.text, room->folder));
    store_close(store);
    store_close(open_store(room, &disk_posix, 0)); /* free again */
}

static void another_plan_is_refused_and_the_changed_keys_are_named(void **state)
{
    struct room *room = *state;
    struct store *store = open_store(room, &disk_posix, 0);
    save(room, store, 1);
    room->plan.rounds += 5;
    room->plan.model.width = 16; /* also another layout: the plan must be what is complained about */
    room->plan_bytes.len = 0;
    assert_int_equal(plan_encode(&room->plan, &room->plan_bytes), 0);
    struct checkpoint checkpoint;
    struct err err = {0};
    bool found = true;
    assert_int_equal(load(room, store, false, &checkpoint, &found, &err), ERR_CONFIG);
    assert_false(found);
    assert_non_null(strstr(err.text, "rounds"));
    assert_non_null(strstr(err.text, "model.width"));
    assert_null(strstr(err.text, "learning_rate"));
    assert_non_null(strstr(err.text, "--new-run"));
    store_close(store);
}

static void a_new_run_moves_the_old_one_aside(void **state)
{
    struct room *room = *state;
    struct store *store = open_store(room, &disk_posix, 0);
    save(room, store, 1);
    save(room, store, 2);
    struct checkpoint one = state_of(room, 1);
    assert_int_equal(history_append(store, &one.summary, NULL), 0);
    struct checkpoint checkpoint;
    struct err err = {0};
    bool found = true;
    if (load(room, store, true, &checkpoint, &found, &err)) {
        fail_msg("%s", err.text);
    }
    assert_false(found);
    struct round_summary *history;
    uint32_t count;
    assert_int_equal(history_load(store, 9, 10, &history, &count, NULL), 0);
    assert_int_equal(count, 0);
    mem_free(history);
    save(room, store, 0);
    store_close(store);
    check_loads(room, 0);
    size_t root = strlen(room->folder);
    strcat(room->folder, "/old-abababababababababababababababab"); /* a whole state folder by itself */
    assert_true(exists(room, "history.db"));
    check_loads(room, 2);
    room->folder[root] = '\0';
}

/* A disk that fails at the n-th operation; `dead`: and at every later one. */
struct weak_disk {
    int countdown;
    bool dead;
    int code;
};

static bool strikes(struct weak_disk *weak)
{
    weak->countdown -= weak->countdown > 0 ? 1 : 0;
    bool now = weak->countdown == 0;
    if (now && !weak->dead) {
        weak->countdown = -1;
    }
    return now;
}

#define WEAK(name, params, call)                                                                                       \
    static int weak_##name params                                                                                      \
    {                                                                                                                  \
        struct weak_disk *weak = ctx;                                                                                  \
        return strikes(weak) ? weak->code : disk_posix.ops->name call;                                                 \
    }
WEAK(create, (void *ctx, const char *path, int *file), (NULL, path, file))
WEAK(write, (void *ctx, int file, const void *data, size_t len), (NULL, file, data, len))
WEAK(sync, (void *ctx, int file), (NULL, file))
WEAK(rename, (void *ctx, const char *from, const char *to), (NULL, from, to))
WEAK(remove, (void *ctx, const char *path), (NULL, path))
WEAK(sync_folder, (void *ctx, const char *path), (NULL, path))
WEAK(make_folder, (void *ctx, const char *path), (NULL, path))
WEAK(load, (void *ctx, const char *path, size_t max, uint8_t **data, size_t *len), (NULL, path, max, data, len))
WEAK(list, (void *ctx, const char *path, int (*visit)(void *, const char *), void *arg), (NULL, path, visit, arg))

static int weak_close(void *ctx, int file)
{
    struct weak_disk *weak = ctx;
    int rc = disk_posix.ops->close(NULL, file); /* or the test would leak it */
    return strikes(weak) ? weak->code : rc;
}

static const struct disk_ops weak_ops = {
    weak_create,      weak_write, weak_sync, weak_close, weak_rename, weak_remove, weak_sync_folder,
    weak_make_folder, weak_load,  weak_list, NULL,       NULL,        NULL};

/* Returns whether the n-th operation was reached. */
static bool save_on_weak_disk(struct room *room, int n, bool dead, int code)
{
    struct weak_disk weak = {.countdown = -1, .dead = dead, .code = code};
    const struct disk disk = {.ops = &weak_ops, .ctx = &weak};
    struct store *store = open_store(room, &disk, 0);
    struct checkpoint checkpoint = state_of(room, 2);
    struct err err = {0};
    weak.countdown = n;
    int rc = store_save(store, room->layout, &checkpoint, &err);
    bool reached = weak.countdown <= 0;
    weak.countdown = -1;
    if (rc) {
        assert_int_equal(rc, code);
        assert_non_null(strstr(err.text, room->folder)); /* it says where */
    }
    store_close(store);
    /* The state of round 2 may be there although the save failed (its last sync did); half of it may not. */
    store = open_store(room, &disk_posix, 0);
    bool found;
    assert_int_equal(load(room, store, false, &checkpoint, &found, &err), 0);
    assert_true(found);
    assert_true(checkpoint.round == 2 || (rc && checkpoint.round == 1));
    uint32_t round = checkpoint.round;
    struct checkpoint got = checkpoint;
    check_is(room, &got, round);
    checkpoint_fini(&got);
    /* There is room again: the same save goes through. */
    save(room, store, 2);
    store_close(store);
    check_loads(room, 2);
    return reached;
}

static void a_disk_that_fails_at_any_step_leaves_a_state(void **state)
{
    struct room *room = *state;
    for (int dead = 0; dead <= 1; dead++) {
        int n = 0;
        bool reached = true;
        while (reached) {
            struct store *store = open_store(room, &disk_posix, 0);
            struct checkpoint checkpoint;
            bool found;
            assert_int_equal(load(room, store, true, &checkpoint, &found, NULL), 0); /* an empty folder again */
            save(room, store, 0);
            save(room, store, 1);
            store_close(store);
            n++;
            reached = save_on_weak_disk(room, n, dead != 0, n % 2 ? ERR_FULL : ERR_IO);
        }
        assert_in_range(n, 14, 60); /* two durable saves of seven operations or more, and the cleaning */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_folder_is_made_and_holds_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_saved_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(old_states_go_except_what_is_to_be_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_ours_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_state_falls_back_to_its_predecessor, setup, teardown),
        cmocka_unit_test_setup_teardown(a_model_that_is_not_the_checkpoints_is_not_loaded, setup, teardown),
        cmocka_unit_test_setup_teardown(a_truncated_checkpoint_is_skipped_at_every_length, setup, teardown),
        cmocka_unit_test_setup_teardown(a_state_of_a_wrong_size_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(checkpoints_of_older_versions_load, setup, teardown),
        cmocka_unit_test_setup_teardown(norms_that_are_none_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(no_whole_state_is_an_error_and_no_fresh_start, setup, teardown),
        cmocka_unit_test_setup_teardown(two_servers_cannot_share_a_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(another_plan_is_refused_and_the_changed_keys_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_run_moves_the_old_one_aside, setup, teardown),
        cmocka_unit_test_setup_teardown(a_disk_that_fails_at_any_step_leaves_a_state, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
