/* Pairs of augmented views: from decoded pixels, as from the cache, and from the files themselves. */
#include "client/data/augment.h"
#include "client/data/dataset.h"
#include "client/tool/bench.h"
#include "client/tool/cli.h"
#include "client/train/train.h"
#include "common/base/mem.h"
#include "common/config/plan.h"

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#define THREADS_MAX   256
#define CACHE_SECONDS 1.0 /* at least: a folder may be small */

struct run {
    const struct dataset *dataset;
    const char *folder;
    bool files;
    uint32_t size, passes;
    struct augment_options augment;
    _Atomic uint64_t next;
    _Atomic int failed;
};

static void *work(void *argument)
{
    struct run *run = argument;
    uint32_t count = dataset_count(run->dataset);
    size_t view = (size_t)3 * run->size * run->size;
    float *out = mem_new_aligned(2 * view, sizeof *out),
          *scratch = mem_new_aligned(AUGMENT_SCRATCH(run->size), sizeof *scratch);
    uint8_t *pixels = mem_new_aligned(view, 1);
    if (!out || !scratch || !pixels) {
        atomic_store(&run->failed, ERR_NOMEM);
    }
    for (uint64_t i;
         !atomic_load(&run->failed) && (i = atomic_fetch_add(&run->next, 1)) < (uint64_t)count * run->passes;) {
        uint32_t image = (uint32_t)(i % count);
        const uint8_t *in = run->files ? pixels : dataset_pixels(run->dataset, image);
        bool unread;
        if (run->files &&
            dataset_decode(run->folder, dataset_path(run->dataset, image), run->size, pixels, &unread, NULL) != 0) {
            atomic_store(&run->failed, ERR_DATA);
        }
        for (uint32_t v = 0; v < 2; v++) {
            augment_view(&run->augment, in, run->size, run->size, 1, i / count, image, v, out + v * view, scratch);
        }
    }
    mem_free(out);
    mem_free(scratch);
    mem_free(pixels);
    return NULL;
}

/* Images a second of all threads together. */
static int time_run(struct run *run, uint32_t threads, double *rate, struct err *err)
{
    pthread_t started[THREADS_MAX];
    uint32_t count = 0;
    atomic_store(&run->next, 0);
    double begin = bench_now();
    while (count + 1 < threads && pthread_create(&started[count], NULL, work, run) == 0) {
        count++;
    }
    (void)work(run);
    for (uint32_t i = 0; i < count; i++) {
        (void)pthread_join(started[i], NULL);
    }
    *rate = (double)dataset_count(run->dataset) * run->passes / (bench_now() - begin);
    int failed = atomic_load(&run->failed);
    return failed ? err_set(err, failed, "%s: %s", run->folder, err_meaning(failed)) : 0;
}

static int measure(struct run *run, uint32_t threads, double *cache, double *files, struct err *err)
{
    run->files = false;
    run->passes = 1;
    int rc = time_run(run, threads, cache, err);
    double once = dataset_count(run->dataset) / *cache;
    run->passes = once < CACHE_SECONDS ? (uint32_t)(CACHE_SECONDS / once) + 1 : 1;
    rc = rc ? rc : time_run(run, threads, cache, err);
    run->files = true;
    run->passes = 1;
    rc = rc ? rc : time_run(run, threads, files, err); /* once, so that all files are in the system's cache */
    return rc ? rc : time_run(run, threads, files, err);
}

int bench_input(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling bench input --images DIR [--size P] [--threads T]",
        .about =
            "Times two augmented views of every image and prints one JSON object: from_cache and from_files, images "
            "a second and core. The folder's files are read twice, so that the second time they come from memory.",
        .examples = "  starling bench input --images photos --size 32 --threads 1\n",
    };
    const char *images = NULL;
    uint64_t size = 32, threads = 1;
    bool json = false;
    const struct flag flags[] = {
        {"images", FLAG_TEXT, &images, "DIR", "folder of JPEG and PNG images", 0, 0, true},
        {"size", FLAG_U64, &size, "P", "pixels a side (32)", AUGMENT_SIZE_MIN, 512, false},
        {"threads", FLAG_U64, &threads, "T", "threads (1)", 1, THREADS_MAX, false},
        {"json", FLAG_SWITCH, &json, NULL, "for symmetry: the output is JSON in any case", 0, 0, false},
    };
    int exit_code;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    struct dataset *dataset;
    struct plan plan;
    struct err err;
    const struct dataset_options options = {
        .folder = images, .side = (uint32_t)size, .threads = cli_processors(), .log = cli_log()};
    int rc = dataset_open(&options, &dataset, &err);
    if (rc != 0) {
        return cli_fail(&err);
    }
    config_defaults(&plan_set, &plan);
    struct run run = {.dataset = dataset, .folder = images, .size = (uint32_t)size, .augment = train_augment(&plan)};
    double cache, files;
    rc = measure(&run, (uint32_t)threads, &cache, &files, &err);
    exit_code =
        rc ? cli_fail(&err)
           : cli_print_json(json_pack("{s:f, s:f, s:I, s:I, s:I}", "from_cache", cache / (double)threads, "from_files",
                                      files / (double)threads, "images", (json_int_t)dataset_count(dataset), "size",
                                      (json_int_t)size, "threads", (json_int_t)threads));
    dataset_close(dataset);
    return exit_code;
}
