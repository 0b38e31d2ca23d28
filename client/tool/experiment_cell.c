/* One cell: images dealt out, the federation run to its end, its models scored.
 *
 * Everything lies in work/: the demo's files (several of them for PLACE_ONE's opposite, PLACE_ALONE: one a client, in
 * alone-N/), and `begun`, which holds the cell's key once the images are dealt out. A work folder with that key is gone
 * on with: the server and the clients find their state and continue after the last durable round, and rounds that are
 * done are not repeated. Any other is removed. */
#include "client/data/scan.h"
#include "client/nn/tsne.h"
#include "client/tool/cli.h"
#include "client/tool/experiment.h"
#include "client/tool/folder.h"
#include "client/tool/split.h"
#include "client/train/evaluate.h"
#include "client/train/train.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/base/text.h"
#include "common/vec/modelfile.h"

#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TABLE_MAX ((size_t)4 << 20)
#define MAP_LEAST 4
#define OPEN_MOST 16

struct run {
    const struct experiment *experiment;
    const struct experiment_images *images;
    const struct cell *cell;
    char work[DISK_PATH_MAX];
    struct evaluation evaluation;
    struct cell_result *result;
};

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *place)
{
    (void)about, (void)kind, (void)place;
    return remove(path);
}

static int remove_tree(const char *path, struct err *err)
{
    return nftw(path, remove_one, OPEN_MOST, FTW_DEPTH | FTW_PHYS) && errno != ENOENT
               ? err_set(err, ERR_CANTCREATE, "cannot remove %s: %s", path, strerror(errno))
               : 0;
}

static bool has_begun(const char *begun, const struct hash128 *key)
{
    uint8_t *data;
    size_t len;
    char hex[HASH_HEX];
    if (disk_load(&disk_posix, begun, HASH_HEX, &data, &len, NULL)) {
        return false;
    }
    bool same = len == HASH_HEX - 1 && memcmp(data, hash_hex(key, hex), len) == 0;
    mem_free(data);
    return same;
}

static uint32_t folders_to_deal(const struct run *run)
{
    return run->cell->method->place == PLACE_ONE ? 1 : run->experiment->clients;
}

static int deal_out(const struct run *run, struct err *err)
{
    char sites[DISK_PATH_MAX], hex[HASH_HEX], begun[DISK_PATH_MAX];
    struct split_options options = {
        .images = run->images->train, .out = sites, .clients = folders_to_deal(run), .seed = run->cell->seed};
    int rc = remove_tree(run->work, err);
    rc = rc ? rc : split_parse(options.clients == 1 ? "iid" : run->cell->split, &options.spec, err);
    rc = rc ? rc : folder_path(run->work, "sites", sites, err);
    struct buf table;
    buf_init(&table, TABLE_MAX);
    rc = rc ? rc : split_run(&options, &table, err);
    (void)printf("%.*s", (int)table.len, table.len ? (const char *)table.data : "");
    buf_fini(&table);
    const struct span text = {hash_hex(&run->cell->key, hex), HASH_HEX - 1};
    rc = rc ? rc : folder_path(run->work, "begun", begun, err);
    return rc ? rc : disk_save(&disk_posix, begun, &text, 1, err);
}

/* ---- One federation ---- */

static struct demo *demo_new(const struct run *run, const char *workdir, uint32_t clients, struct err *err)
{
    struct demo *demo = mem_new(1, sizeof *demo);
    struct status_round *rounds = mem_new(run->cell->method->plan.rounds, sizeof *rounds);
    if (!demo || !rounds) {
        mem_free(demo);
        mem_free(rounds);
        (void)err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
        return NULL;
    }
    const struct plan *plan = &run->cell->method->plan;
    uint32_t points = run->experiment->points;
    *demo = (struct demo){
        .options = {.clients = clients, .seed = run->cell->seed},
        .plan = *plan,
        .keep_every = (plan->rounds + points - 1) / points,
        .started_ms = demo_now_ms(),
        .rounds = rounds,
    };
    demo->plan.seed = run->cell->seed;
    (void)snprintf(demo->workdir, sizeof demo->workdir, "%s", workdir);
    return demo;
}

static void demo_free(struct demo *demo)
{
    if (demo) {
        mem_free(demo->rounds);
        mem_free(demo);
    }
}

/* What a client of this demo sees in all, with repeats. */
static int count_images(const struct demo *demo, struct cell_result *result, struct err *err)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < demo->options.clients; i++) {
        char name[32], sites[DISK_PATH_MAX], folder[DISK_PATH_MAX];
        struct scan scan = {0};
        (void)snprintf(name, sizeof name, "client-%u", i + 1);
        rc = folder_path(demo->workdir, "sites", sites, err);
        rc = rc ? rc : folder_path(sites, name, folder, err);
        rc = rc ? rc : scan_folder(folder, NULL, &scan, err);
        result->images += scan.count;
        result->images_seen += (uint64_t)demo->plan.rounds * train_steps(&demo->plan, scan.count) * demo->plan.batch;
        scan_fini(&scan);
    }
    return rc;
}

/* Adds this demo's part, 1 / parts, of the scores. */
static int score_demo(struct run *run, const struct demo *demo, uint32_t parts, struct err *err)
{
    struct cell_result *result = run->result;
    char path[DISK_PATH_MAX];
    uint64_t bytes = 0;
    uint32_t n = 0;
    double knn, linear;
    int rc = demo_model_path(demo, 0, path);
    rc = rc ? rc : evaluation_judge_file(&run->evaluation, path, &knn, &linear, err);
    if (rc) {
        return rc;
    }
    result->knn_untrained += knn / parts;
    result->linear_untrained += linear / parts;
    for (uint32_t round = 1; rc == 0 && round <= demo->plan.rounds; round++) {
        bool last = round == demo->plan.rounds;
        const struct status_round *closed = &demo->rounds[round - 1];
        bytes += closed->bytes_up + closed->bytes_down;
        result->bytes_up += closed->bytes_up;
        result->bytes_down += closed->bytes_down;
        if (round % demo->keep_every && !last) {
            continue;
        }
        rc = demo_model_path(demo, round, path);
        rc = rc ? rc : evaluation_judge_file(&run->evaluation, path, &knn, last ? &linear : NULL, err);
        if (rc == 0) {
            struct point *point = &result->points[n++];
            point->round = round;
            point->bytes += bytes;
            point->knn += knn / parts;
        }
    }
    if (rc == 0) {
        result->points_count = n;
        result->knn += knn / parts;
        result->linear += linear / parts;
    }
    return rc;
}

static int run_demo(struct run *run, const char *workdir, uint32_t clients, uint32_t parts, struct err *err)
{
    struct demo *demo = demo_new(run, workdir, clients, err);
    if (!demo) {
        return ERR_NOMEM;
    }
    int rc = demo_run(demo, err);
    rc = rc ? rc : score_demo(run, demo, parts, err);
    rc = rc ? rc : count_images(demo, run->result, err);
    run->result->clients += clients;
    run->result->rounds = demo->plan.rounds;
    run->result->restarts += demo->restarts;
    demo_free(demo);
    return rc;
}

/* Client i's folder as the only site of a demo of its own. */
static int prepare_alone(const struct run *run, uint32_t i, char workdir[DISK_PATH_MAX], struct err *err)
{
    char name[64], sites[DISK_PATH_MAX], target[DISK_PATH_MAX], source[64];
    (void)snprintf(name, sizeof name, "alone-%u", i + 1);
    int rc = folder_make(run->work, name, workdir, err);
    rc = rc ? rc : folder_make(workdir, "sites", sites, err);
    rc = rc ? rc : folder_path(sites, "client-1", target, err);
    (void)snprintf(source, sizeof source, "../../sites/client-%u", i + 1);
    if (rc == 0 && symlink(source, target) && errno != EEXIST) {
        rc = err_set(err, ERR_CANTCREATE, "cannot link %s: %s", target, strerror(errno));
    }
    return rc;
}

static int run_demos(struct run *run, struct err *err)
{
    uint32_t clients = folders_to_deal(run);
    if (run->cell->method->place != PLACE_ALONE) {
        return run_demo(run, run->work, clients, 1, err);
    }
    char workdir[DISK_PATH_MAX];
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < clients; i++) {
        rc = prepare_alone(run, i, workdir, err);
        rc = rc ? rc : run_demo(run, workdir, 1, clients, err);
    }
    return rc;
}

/* ---- The map ---- */

/* The number of the class whose folder `path` ("client-3/cat/0001.png") lies in. */
static uint32_t class_of(const struct run *run, const char *path)
{
    const char *name = strchr(path, '/') + 1;
    size_t len = strcspn(name, "/");
    for (uint32_t c = 0; c < run->evaluation.classes; c++) {
        const char *known = dataset_class_name(run->evaluation.train, c);
        if (strlen(known) == len && memcmp(known, name, len) == 0) {
            return c;
        }
    }
    return 0;
}

/* Places drawn images of the sites by their features. */
static int place_dots(struct run *run, const struct dataset *sites, const struct layout *layout, const float *params,
                      struct err *err)
{
    struct cell_result *result = run->result;
    uint32_t n = dataset_count(sites), shown = n < MAP_DOTS_MAX ? n : MAP_DOTS_MAX, d = layout->backbone;
    uint32_t *order = mem_new(n, sizeof *order);
    float *all = NULL, *rows = mem_new((size_t)shown * d, sizeof *rows), *places = mem_new(shown * 2, sizeof *places);
    result->dots = mem_new(shown, sizeof *result->dots);
    int rc = order && rows && places && result->dots ? 0 : err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    rc = rc ? rc : evaluation_features(sites, layout, params, run->evaluation.threads, &all, err);
    if (rc == 0) {
        struct rng rng;
        rng_init(&rng, run->cell->seed, RNG_MAP, 0, 0, 0);
        rng_permutation(&rng, order, n);
        for (uint32_t i = 0; i < shown; i++) {
            memcpy(rows + (size_t)i * d, all + (size_t)order[i] * d, d * sizeof *rows);
        }
        rc = tsne(rows, shown, d, run->cell->seed, places, err);
    }
    for (uint32_t i = 0; rc == 0 && i < shown; i++) {
        const char *path = dataset_path(sites, order[i]);
        result->dots[i] = (struct map_dot){.x = places[2 * i],
                                           .y = places[2 * i + 1],
                                           .class = class_of(run, path),
                                           .client = (uint32_t)strtoul(path + strlen("client-"), NULL, 10)};
    }
    result->dots_count = rc ? 0 : shown;
    mem_free(all);
    mem_free(rows);
    mem_free(places);
    mem_free(order);
    return rc;
}

static int make_map(struct run *run, struct err *err)
{
    char sites[DISK_PATH_MAX], path[DISK_PATH_MAX], name[64];
    const struct plan *plan = &run->cell->method->plan;
    struct model_info info;
    struct layout *layout = NULL;
    float *params = NULL;
    struct dataset *dataset = NULL;
    struct cell_result *result = run->result;
    const struct dataset_options options = {
        .folder = sites, .side = plan->model.input, .threads = run->evaluation.threads, .log = cli_log()};
    (void)snprintf(name, sizeof name, "server/models/round-%06u.starling", plan->rounds);
    int rc = folder_path(run->work, "sites", sites, err);
    rc = rc ? rc : folder_path(run->work, name, path, err);
    rc = rc ? rc : dataset_open(&options, &dataset, err);
    rc = rc ? rc : modelfile_load(&disk_posix, path, &info, &layout, &params, err);
    if (rc == 0 && dataset_count(dataset) < MAP_LEAST) { /* too few for a map are no reason to lose the scores */
        goto done;
    }
    rc = rc ? rc : place_dots(run, dataset, layout, params, err);
    result->classes_count = run->evaluation.classes < 64 ? run->evaluation.classes : 64;
    for (uint32_t c = 0; c < result->classes_count; c++) {
        char class[sizeof result->classes[c]];
        (void)snprintf(class, sizeof class, "%s", dataset_class_name(run->evaluation.train, c));
        text_clean(class, strlen(class), result->classes[c]);
    }
done:
    layout_free(layout);
    mem_free(params);
    dataset_close(dataset);
    return rc;
}

/* ---- All of it ---- */

static int run_cell(struct run *run, struct err *err)
{
    char begun[DISK_PATH_MAX];
    uint64_t started = demo_now_ms();
    int rc = folder_path(run->work, "begun", begun, err);
    run->result->interrupted = rc == 0 && has_begun(begun, &run->cell->key);
    rc = rc || run->result->interrupted ? rc : deal_out(run, err);
    rc = rc ? rc
            : evaluation_open(run->images->train, run->images->judge, run->cell->method->plan.model.input,
                              cli_processors(), NULL, cli_log(), &run->evaluation, err);
    if (rc) {
        return rc;
    }
    rc = evaluation_judge_pixels(&run->evaluation, &run->result->pixels, err);
    rc = rc ? rc : run_demos(run, err);
    run->result->seconds = (double)(demo_now_ms() - started) / 1000;
    if (rc == 0 && run->cell->map && run->cell->method->place != PLACE_ALONE) {
        rc = make_map(run, err);
    }
    evaluation_close(&run->evaluation);
    return rc;
}

int cell_clean(const char *folder, struct err *err)
{
    char work[DISK_PATH_MAX];
    int rc = folder_path(folder, "work", work, err);
    return rc ? rc : remove_tree(work, err);
}

int cell_run(const struct experiment *experiment, const struct experiment_images *images, const struct cell *cell,
             const char *folder, struct err *err)
{
    struct cell_result *result = mem_new(1, sizeof *result);
    struct run run = {.experiment = experiment, .images = images, .cell = cell, .result = result};
    int rc =
        result ? folder_path(folder, "work", run.work, err) : err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    rc = rc ? rc : run_cell(&run, err);
    rc = rc ? rc : result_save(folder, cell, result, err);
    rc = rc ? rc : cell_clean(folder, err);
    if (result) {
        result_fini(result);
        mem_free(result);
    }
    return rc;
}
