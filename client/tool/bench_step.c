/* Training steps on random images, as a client takes them: both encoders, loss, gradient, optimiser, queue. */
#include "client/nn/moco.h"
#include "client/nn/net.h"
#include "client/nn/onednn/onednn.h"
#include "client/shell/memory.h"
#include "client/tool/bench.h"
#include "client/tool/cli.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define SGEMM_SIDE 2048u
#define WARM_UP    2u

struct request {
    struct model_spec spec;
    struct moco_options options;
    struct choices choices;
    uint32_t steps;
};

struct result {
    double seconds, cpu; /* a step: median of wall time, and processor time of all threads */
    double sgemm;        /* GFLOP/s */
    double loss;
    uint64_t peak_rss; /* before the matrix product */
    char kernels[512];
};

static double cpu_now(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int run_steps(const struct request *request, struct moco *moco, const struct layout *layout, float *params,
                     float *views, double *seconds, struct result *out, struct err *err)
{
    size_t view = (size_t)request->options.batch * 3 * layout->spec.input * layout->spec.input;
    struct rng rng;
    struct moco_step step = {0};
    double cpu = 0;
    rng_init(&rng, 1, RNG_TEST, 0, 0, 0);
    for (size_t i = 0; i < 2 * view; i++) {
        views[i] = rng_normal(&rng);
    }
    params_init(layout, 1, params);
    int rc = moco_begin(moco, &(struct moco_round){.params = params}, err);
    for (uint32_t i = 0; rc == 0 && i < request->steps + WARM_UP; i++) {
        double begin = bench_now();
        cpu = i == WARM_UP ? cpu_now() : cpu;
        rc = moco_step(moco, NULL, views, views + view, 0.03f, &step, err);
        if (i >= WARM_UP) {
            seconds[i - WARM_UP] = bench_now() - begin;
        }
    }
    out->cpu = (cpu_now() - cpu) / request->steps;
    qsort(seconds, request->steps, sizeof *seconds, by_size);
    out->seconds = seconds[request->steps / 2];
    out->loss = step.loss;
    return rc;
}

static int measure_steps(struct request *request, const struct layout *layout, struct result *out, struct err *err)
{
    size_t view = (size_t)request->options.batch * 3 * layout->spec.input * layout->spec.input;
    struct moco *moco = NULL;
    float *params = mem_new_aligned(layout->total, sizeof *params), *views = mem_new_aligned(2 * view, sizeof *views);
    double *seconds = mem_new(request->steps, sizeof *seconds);
    int rc = params && views && seconds ? 0 : err_set(err, ERR_NOMEM, "out of memory");
    rc = rc ? rc : moco_new(layout, &request->options, &moco, err);
    if (rc == 0) {
        char machine[256], kernels[128];
        choices_machine(machine, sizeof machine);
        moco_text(moco, kernels, sizeof kernels);
        (void)snprintf(out->kernels, sizeof out->kernels, "%s; %s", kernels, machine);
        rc = run_steps(request, moco, layout, params, views, seconds, out, err);
    }
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    out->peak_rss = (uint64_t)usage.ru_maxrss * 1024;
    moco_free(moco);
    mem_free(params);
    mem_free(views);
    mem_free(seconds);
    return rc;
}

/* The best of five: what the machine can do, not what it did while something else ran. */
static int measure_sgemm(uint32_t threads, struct result *out, struct err *err)
{
    size_t n = SGEMM_SIDE;
    float *memory = mem_new_aligned(3 * n * n, sizeof *memory);
    if (!memory) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < 2 * n * n; i++) {
        memory[i] = (float)(i % 7) - 3;
    }
    double best = 0;
    for (int run = 0; run < 6; run++) {
        double begin = bench_now();
        onednn_sgemm(n, memory, memory + n * n, memory + 2 * n * n, (int)threads);
        double seconds = bench_now() - begin;
        best = run > 0 && (best == 0 || seconds < best) ? seconds : best;
    }
    out->sgemm = onednn_present() ? 2e-9 * (double)(n * n * n) / best : 0;
    mem_free(memory);
    return 0;
}

static int report(const struct request *request, const struct layout *layout, const struct result *result)
{
    double batch = request->options.batch, each = 4e-9 * (double)net_flops(layout);
    double gflops = each * batch / result->seconds;
    return cli_print_json(json_pack(
        "{s:o, s:o, s:o, s:o, s:I, s:s, s:o, s:o, s:I, s:I}", "images_per_second", cli_number(batch / result->seconds),
        "sgemm_gflops", result->sgemm > 0 ? json_real(result->sgemm) : json_null(), "gflops", cli_number(gflops),
        "fraction_of_peak", result->sgemm > 0 ? json_real(gflops / result->sgemm) : json_null(), "peak_rss_bytes",
        (json_int_t)result->peak_rss, "kernels", result->kernels, "images_per_cpu_second",
        cli_number(batch / result->cpu), "loss", cli_number(result->loss), "threads",
        (json_int_t)request->options.threads, "bn_groups", (json_int_t)request->options.bn_groups));
}

static int choose(const char *flag, const char *value, const char *const *names, uint32_t *out, struct err *err)
{
    for (uint32_t i = 0; names[i]; i++) {
        if (strcmp(value, names[i]) == 0) {
            *out = i;
            return 0;
        }
    }
    char all[128] = "";
    for (uint32_t i = 0; names[i]; i++) {
        size_t length = strlen(all);
        (void)snprintf(all + length, sizeof all - length, "%s%s", i ? ", " : "", names[i]);
    }
    return err_set(err, ERR_USAGE, "--%s: \"%.64s\" is none of %s", flag, value, all);
}

static int parse_blocks(const char *text, struct model_spec *spec, struct err *err)
{
    for (spec->stages = 0; spec->stages < MODEL_STAGES_MAX;) {
        char *end;
        unsigned long count = strtoul(text, &end, 10);
        if (end == text || count == 0 || count > 64 || (*end && *end != ',')) {
            break;
        }
        spec->blocks[spec->stages++] = (uint32_t)count;
        if (!*end) {
            return 0;
        }
        text = end + 1;
    }
    return err_set(err, ERR_USAGE,
                   "--blocks: one to four numbers from 1 to 64 with commas between them, as in 2,2,2,2");
}

/* Here flags say what elsewhere a configuration does. */
static int as_usage(int rc, struct err *err)
{
    if (rc == ERR_CONFIG) {
        err->code = rc = ERR_USAGE;
    }
    return rc;
}

static int check_memory(const struct request *request, const struct layout *layout, struct err *err)
{
    uint64_t needed, available = memory_available();
    int rc = moco_memory(layout, &request->options, &needed, err);
    if (rc == 0 && available > 0 && needed > available) {
        rc = err_set(err, ERR_NOMEM,
                     "these steps need %.1f GB of memory and %.1f GB are free: a smaller batch or model, or more "
                     "--bn-groups, need less",
                     (double)needed * 1e-9, (double)available * 1e-9);
    }
    return as_usage(rc, err);
}

static int run(struct request *request, struct err *err, int *exit_code)
{
    struct layout *layout;
    struct result result = {0};
    int rc = layout_new(&request->spec, &layout, err);
    if (rc != 0) {
        return as_usage(rc, err);
    }
    rc = check_memory(request, layout, err);
    rc = rc ? rc : measure_steps(request, layout, &result, err);
    rc = rc ? rc : measure_sgemm(request->options.threads, &result, err);
    if (rc == 0) {
        *exit_code = report(request, layout, &result);
    }
    layout_free(layout);
    return rc;
}

int bench_step(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling bench step [--width W] [--blocks A,B,C,D] [--input P] [--batch B] [--threads T] ...",
        .about = "Times training steps on random images and prints one JSON object: images_per_second (median), "
                 "sgemm_gflops (dnnl_sgemm 2048^3 on the same threads), gflops (as direct convolution counts them), "
                 "fraction_of_peak, peak_rss_bytes, kernels.",
        .examples = "  starling bench step --width 64 --blocks 2,2,2,2 --input 32 --batch 64 --queue 4096 --threads 2\n"
                    "  starling bench step --width 16 --batch 128 --dtype bf16\n",
    };
    static const char
        *const dtypes[] = {"auto", "f32", "bf16", NULL},
               *const backends[] = {"auto", "onednn", "openblas", NULL}, *const stems[] = {"small", "large", NULL},
               *const blocks_kinds[] = {"basic", "bottleneck", NULL}, *const winograds[] = {"off", "auto", NULL};
    uint64_t width = 64, input = 32, batch = 64, groups = 0, queue = 4096, threads = cli_processors(), features = 128,
             steps = 12;
    const char *blocks = "2,2,2,2", *dtype = "f32", *backend = "auto", *stem = "small", *block = "basic",
               *winograd = "auto";
    bool json = false;
    const struct flag flags[] = {
        {"width", FLAG_U64, &width, "W", "channels of the first stage (64)", 1, 4096, false},
        {"blocks", FLAG_TEXT, &blocks, "A,B,C,D", "blocks a stage (2,2,2,2: ResNet-18)", 0, 0, false},
        {"block", FLAG_TEXT, &block, "KIND", "basic or bottleneck (basic)", 0, 0, false},
        {"stem", FLAG_TEXT, &stem, "KIND", "small or large (small)", 0, 0, false},
        {"input", FLAG_U64, &input, "P", "pixels a side (32)", 8, 512, false},
        {"batch", FLAG_U64, &batch, "B", "images a step (64)", 1, 65536, false},
        {"bn-groups", FLAG_U64, &groups, "G", "groups of the batch, a divisor of it (as many as threads, or fewer)", 1,
         65536, false},
        {"queue", FLAG_U64, &queue, "K", "negatives (4096)", 1, 1u << 20, false},
        {"features", FLAG_U64, &features, "D", "width of the projection (128)", 1, 4096, false},
        {"threads", FLAG_U64, &threads, "T", "worker threads (all processors)", 1, 256, false},
        {"dtype", FLAG_TEXT, &dtype, "TYPE", "f32, bf16 or auto (f32)", 0, 0, false},
        {"backend", FLAG_TEXT, &backend, "NAME", "auto, onednn or openblas (auto)", 0, 0, false},
        {"winograd", FLAG_TEXT, &winograd, "auto|off", "whether Winograd may be chosen (auto)", 0, 0, false},
        {"steps", FLAG_U64, &steps, "N", "steps that are timed, after two (12)", 1, 100000, false},
        {"json", FLAG_SWITCH, &json, NULL, "for symmetry: the output is JSON in any case", 0, 0, false},
    };
    int exit_code;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    if (groups == 0) {
        groups = threads < batch ? threads : batch;
        while (batch % groups != 0) {
            groups--;
        }
    }
    struct request request = {
        .spec = {.width = (uint32_t)width, .input = (uint32_t)input, .features = (uint32_t)features},
        .options = {.batch = (uint32_t)batch,
                    .bn_groups = (uint32_t)groups,
                    .threads = (uint32_t)threads,
                    .queue = (uint32_t)queue,
                    .temperature = 0.1f,
                    .key_momentum = 0.99f,
                    .sgd_momentum = 0.9f,
                    .weight_decay = 1e-4f,
                    .seed = 1},
        .steps = (uint32_t)steps,
    };
    struct err err;
    uint32_t type = 0, back = 0, wino = 0;
    int rc;
    if ((rc = parse_blocks(blocks, &request.spec, &err)) || (rc = choose("dtype", dtype, dtypes, &type, &err)) ||
        (rc = choose("backend", backend, backends, &back, &err)) ||
        (rc = choose("stem", stem, stems, &request.spec.stem, &err)) ||
        (rc = choose("block", block, blocks_kinds, &request.spec.block, &err)) ||
        (rc = choose("winograd", winograd, winograds, &wino, &err))) {
        return cli_fail(&err);
    }
    request.options.compute = (struct compute){.backend = (enum compute_backend)back,
                                               .precision = (enum compute_precision)type,
                                               .winograd = wino == 1,
                                               .choices = &request.choices};
    rc = run(&request, &err, &exit_code);
    choices_fini(&request.choices);
    return rc ? cli_fail(&err) : exit_code;
}
