/* starling bench: what this machine does in a second. Each part prints one JSON object, whose names are a contract. */
#include "client/tool/bench.h"

#include "client/tool/cli.h"
#include "client/tool/verbs.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct {
    const char *name;
    const char *called; /* as messages call it */
    int (*run)(int argc, char **argv);
    const char *help;
} parts[] = {
    {"step", "bench step", bench_step, "training steps a second, by the kernels that were fastest here"},
    {"input", "bench input", bench_input, "pairs of augmented views a second, from the cache and from files"},
    {"wire", "bench wire", bench_wire, "frames written and read, against bare sockets on loopback"},
    {"aggregate", "bench aggregate", bench_aggregate, "updates that a coordinator checks and adds, against memcpy"},
};
#define PARTS (sizeof parts / sizeof parts[0])

double bench_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int help(FILE *out)
{
    (void)fprintf(out, "Examples:\n"
                       "  starling bench step --width 64 --blocks 2,2,2,2 --input 32 --batch 64\n"
                       "  starling bench input --images FOLDER --size 32\n"
                       "\n"
                       "Usage: starling bench PART [flags]\n"
                       "\n"
                       "Parts:\n");
    for (size_t i = 0; i < PARTS; i++) {
        (void)fprintf(out, "  %-10s %s\n", parts[i].name, parts[i].help);
    }
    (void)fprintf(out, "\n"
                       "starling bench PART --help explains a part.\n");
    return 0;
}

int verb_bench(int argc, char **argv)
{
    const char *part = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < PARTS; i++) {
        if (strcmp(part, parts[i].name) == 0) {
            argv[1] = (char *)parts[i].called;
            return parts[i].run(argc - 1, argv + 1);
        }
    }
    if (strcmp(part, "--help") == 0) {
        return help(stdout);
    }
    if (*part) {
        (void)fprintf(stderr, "starling: unknown part \"%.64s\" of bench; starling bench --help lists them\n", part);
    } else {
        (void)fprintf(stderr, "starling: bench what? starling bench --help lists the parts\n");
    }
    return err_exit_code(ERR_USAGE);
}
