/* What a coordinator does with an update that has arrived: its hash, and the addition, which looks at every number. One
 * thread does it, one contribution after the other, so one thread does it here, and copies memory for comparison. */
#include "client/tool/bench.h"
#include "client/tool/cli.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/config/plan.h"
#include "common/vec/fixed.h"
#include "common/vec/fixed_kernels.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

struct work {
    const struct layout *layout;
    float *model, *update, *copy; /* [total] */
    int32_t *shifts;
    int64_t *sum;
    struct hash128 hash;
    bool wrong;
};

static void verify(struct work *work)
{
    work->hash = hash_of(work->update, (size_t)work->layout->total * sizeof(float));
}

static void add(struct work *work)
{
    work->wrong |= fixed_add(work->layout, work->shifts, work->update, 1, work->sum, NULL) != FIXED_OK;
}

static void copy(struct work *work)
{
    memcpy(work->copy, work->update, (size_t)work->layout->total * sizeof(float));
}

enum { HASH, ADD, COPY, PARTS };
static void (*const parts[PARTS])(struct work *work) = {[HASH] = verify, [ADD] = add, [COPY] = copy};

/* Seconds of each: the shortest of several spans of time, since other programs only ever add to one. They take turns,
 * so that all meet the same machine; each runs once before it is timed, so that none has to write to memory what
 * another left in the caches. */
static void time_parts(struct work *work, double seconds, double *best)
{
    for (int i = 0; i < PARTS; i++) {
        best[i] = INFINITY;
    }
    double end = bench_now() + seconds;
    do {
        for (int i = 0; i < PARTS; i++) {
            parts[i](work);
            double begin = bench_now();
            parts[i](work);
            best[i] = fmin(best[i], bench_now() - begin);
        }
    } while (bench_now() < end);
}

static int measure(struct work *work, double seconds)
{
    double bytes = (double)work->layout->total * sizeof(float), best[PARTS];
    time_parts(work, seconds, best);
    double all_s = best[HASH] + best[ADD];
    return cli_print_json(json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:I, s:I}", "updates_per_second", 1 / all_s,
                                    "bytes_per_second", bytes / all_s, "hash_bytes_per_second", bytes / best[HASH],
                                    "add_bytes_per_second", bytes / best[ADD], "memcpy_bytes_per_second",
                                    bytes / best[COPY], "fraction_of_memcpy", best[COPY] / best[ADD], "kernel",
                                    fixed_best()->name, "update_bytes", (json_int_t)bytes, "threads", (json_int_t)1));
}

static int run(const struct layout *layout, double seconds, struct err *err, int *exit_code)
{
    struct work work = {.layout = layout};
    size_t total = (size_t)layout->total;
    work.model = mem_new_aligned(total, sizeof *work.model);
    work.update = mem_new_aligned(total, sizeof *work.update);
    work.copy = mem_new_aligned(total, sizeof *work.copy);
    work.sum = mem_new_aligned(total, sizeof *work.sum);
    work.shifts = mem_new(layout->count, sizeof *work.shifts);
    int rc = 0;
    if (!work.model || !work.update || !work.copy || !work.sum || !work.shifts) {
        rc = err_set(err, ERR_NOMEM, "out of memory for models of %zu numbers", total);
    } else {
        params_init(layout, 1, work.model);
        params_init(layout, 2, work.update);
        fixed_shifts(layout, work.model, work.shifts);
        *exit_code = measure(&work, seconds);
        rc = work.wrong ? err_set(err, ERR_FAILED, "an update of random weights was found out of range") : 0;
    }
    mem_free(work.model);
    mem_free(work.update);
    mem_free(work.copy);
    mem_free(work.sum);
    mem_free(work.shifts);
    return rc;
}

int bench_aggregate(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling bench aggregate [--width W] [--seconds S]",
        .about =
            "Times what a coordinator does with an update of a ResNet-18 (hash; then, in one pass, the check of every "
            "number and the fixed-point sum; one thread) and memcpy of the same bytes, and prints one JSON object: "
            "updates_per_second and bytes_per_second of hash and sum together, hash_bytes_per_second, "
            "add_bytes_per_second (check and sum), memcpy_bytes_per_second (bytes copied), fraction_of_memcpy (add "
            "over memcpy), kernel, update_bytes, threads.",
        .examples = "  starling bench aggregate --width 64\n",
    };
    uint32_t width = 64, seconds = 4;
    bool json = false;
    const struct flag flags[] = {
        {"width", FLAG_U32, &width, "W", "channels of the first stage (64)", 1, 1024, false},
        {"seconds", FLAG_U32, &seconds, "S", "how long to measure (4)", 1, 600, false},
        {"json", FLAG_SWITCH, &json, NULL, "for symmetry: the output is JSON in any case", 0, 0, false},
    };
    int exit_code;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    struct plan plan;
    struct layout *layout;
    struct err err;
    config_defaults(&plan_set, &plan);
    plan.model.width = width;
    int rc = layout_new(&plan.model, &layout, &err);
    if (rc == 0) {
        rc = run(layout, seconds, &err, &exit_code);
        layout_free(layout);
    }
    return rc ? cli_fail(&err) : exit_code;
}
