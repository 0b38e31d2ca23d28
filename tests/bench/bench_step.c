/* Images a second of training steps on random images:
 *
 *   bench_step WIDTH A,B,C,D BATCH GROUPS QUEUE THREADS [STEPS] */
#include "client/nn/moco.h"
#include "client/nn/net.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(clockid_t clock)
{
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x, y;
    x = *(const double *)a;
    y = *(const double *)b;
    return (x > y) - (x < y);
}

static int measure(struct moco *moco, const struct layout *layout, uint32_t batch, uint32_t steps)
{
    size_t view = (size_t)batch * 3 * layout->spec.input * layout->spec.input;
    float *params = mem_new_aligned(layout->total, sizeof *params), *views = mem_new_aligned(2 * view, sizeof *views);
    double *seconds = mem_new(steps, sizeof *seconds);
    struct moco_step out = {0};
    struct err err;
    struct rng rng;
    double cpu = 0;
    int rc = params && views && seconds ? 0 : err_set(&err, ERR_NOMEM, "out of memory");
    rng_init(&rng, 1, RNG_TEST, 0, 0, 0);
    for (size_t i = 0; rc == 0 && i < 2 * view; i++) {
        views[i] = rng_normal(&rng);
    }
    if (rc == 0) {
        params_init(layout, 1, params);
        rc = moco_begin(moco, &(struct moco_round){.params = params}, &err);
    }
    for (uint32_t i = 0; rc == 0 && i < steps + 2; i++) { /* two to warm up */
        double start = now(CLOCK_MONOTONIC);
        cpu = i == 2 ? now(CLOCK_PROCESS_CPUTIME_ID) : cpu;
        rc = moco_step(moco, NULL, views, views + view, 0.03f, &out, &err);
        if (i >= 2) {
            seconds[i - 2] = now(CLOCK_MONOTONIC) - start;
        }
    }
    if (rc != 0) {
        (void)fprintf(stderr, "%s\n", err.text);
    } else {
        qsort(seconds, steps, sizeof *seconds, by_size);
        /* Of one core: what is left to measure by where other programs take turns on the processor. */
        double each_core = (double)batch * steps / (now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
        double median = seconds[steps / 2], best = seconds[0], each = 4e-9 * (double)net_flops(layout) * batch;
        printf("{\"images_per_second\": %.1f, \"images_per_second_best\": %.1f, \"images_per_cpu_second\": %.1f, "
               "\"gflops\": %.1f, \"gflops_best\": %.1f, "
               "\"loss\": %.4f}\n",
               batch / median, batch / best, each_core, each / median, each / best, out.loss);
    }
    mem_free(params);
    mem_free(views);
    mem_free(seconds);
    return rc;
}

int main(int argc, char **argv)
{
    struct model_spec spec = {
        .block = MODEL_BLOCK_BASIC, .stages = 4, .stem = MODEL_STEM_SMALL, .input = 32, .features = 128};
    struct moco_options options = {
        .temperature = 0.1f, .key_momentum = 0.99f, .sgd_momentum = 0.9f, .weight_decay = 1e-4f, .seed = 1};
    struct choices choices = {0};
    options.compute = (struct compute){.precision = getenv("BF16") ? COMPUTE_BF16 : COMPUTE_F32, .winograd = !getenv("DIRECT"), .choices = &choices};
    if (argc < 7 ||
        sscanf(argv[2], "%u,%u,%u,%u", &spec.blocks[0], &spec.blocks[1], &spec.blocks[2], &spec.blocks[3]) != 4) {
        (void)fprintf(stderr, "usage: bench_step WIDTH A,B,C,D BATCH GROUPS QUEUE THREADS [STEPS]\n");
        return 64;
    }
    spec.width = (uint32_t)strtoul(argv[1], NULL, 10);
    options.batch = (uint32_t)strtoul(argv[3], NULL, 10);
    options.bn_groups = (uint32_t)strtoul(argv[4], NULL, 10);
    options.queue = (uint32_t)strtoul(argv[5], NULL, 10);
    options.threads = (uint32_t)strtoul(argv[6], NULL, 10);
    uint32_t steps = argc > 7 ? (uint32_t)strtoul(argv[7], NULL, 10) : 12;
    struct layout *layout = NULL;
    struct moco *moco = NULL;
    struct err err;
    int rc = layout_new(&spec, &layout, &err);
    if (rc == 0) {
        rc = moco_new(layout, &options, &moco, &err);
    }
    if (rc != 0) {
        (void)fprintf(stderr, "%s\n", err.text);
    } else {
        rc = measure(moco, layout, options.batch, steps > 0 ? steps : 1);
    }
    moco_free(moco);
    layout_free(layout);
    return rc == 0 ? 0 : 1;
}
