/* The `starling` command: the first word chooses the verb. */
#include "client/tool/verbs.h"
#include "common/base/err.h"
#include "common/config/nearest.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} verbs[] = {
    {"demo", verb_demo, "runs a whole federation on this machine and scores the encoder it learned"},
    {"status", verb_status, "asks a running server: round, state, what it waits for, each client"},
    {"ca", verb_ca, "decides who belongs to a federation: its authority, tokens for sites, revocations"},
    {"join", verb_join, "turns a token into a certificate, to ask a server with"},
    {"eval", verb_eval, "scores a model on labelled images: nearest neighbours and a linear probe"},
    {"embed", verb_embed, "turns a folder of images into feature vectors (NumPy file)"},
    {"inspect", verb_inspect, "shows what a model file holds"},
    {"draw-images", verb_draw_images, "draws a labelled set of images to try things on"},
    {"import-cifar", verb_import_cifar, "unpacks the official CIFAR-10 or CIFAR-100 archive into folders"},
    {"bench", verb_bench, "measures this machine: training steps, augmented views, frames, sums of updates"},
    {"swarm", verb_swarm, "loads a server with many clients that train nothing, and checks every model"},
    {"experiment", verb_experiment, "compares methods: a matrix of federations, as tables and charts"},
    {"split", verb_split, "deals a folder of images out to clients"},
};
#define VERBS (sizeof verbs / sizeof verbs[0])

static int finished(void)
{
    if (fflush(stdout) || ferror(stdout)) {
        (void)fprintf(stderr, "starling: cannot write to standard output\n");
        return err_exit_code(ERR_IO);
    }
    return 0;
}

static int print_help(void)
{
    (void)printf("Examples:\n"
                 "  starling demo                              the whole thing on this machine, in a few minutes\n"
                 "  starling demo --images FOLDER --clients 3  the same with your own images\n"
                 "  starling ca init --address host:7640       other machines: TLS, and a token for each site\n"
                 "  starling status --trust starling-trust     what a running server is doing\n"
                 "\n"
                 "Usage: starling VERB [flags]\n"
                 "\n"
                 "Verbs:\n");
    for (size_t i = 0; i < VERBS; i++) {
        (void)printf("  %-13s %s\n", verbs[i].name, verbs[i].help);
    }
    (void)printf("\n"
                 "starling VERB --help explains a verb; starling --version prints the version.\n"
                 "The daemons are starling-server and starling-client.\n");
    return finished();
}

static int unknown_verb(const char *word)
{
    struct nearest nearest = {0};
    for (size_t i = 0; i < VERBS; i++) {
        nearest_offer(&nearest, word, verbs[i].name);
    }
    if (nearest.name) {
        (void)fprintf(stderr, "starling: unknown verb \"%.64s\"; did you mean \"%s\"?\n", word, nearest.name);
    } else {
        (void)fprintf(stderr, "starling: unknown verb \"%.64s\"; starling --help lists them\n", word);
    }
    return err_exit_code(ERR_USAGE);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        (void)fprintf(stderr,
                      "starling: which verb? `starling demo` is a good first one; starling --help lists them\n");
        return err_exit_code(ERR_USAGE);
    }
    const char *word = argv[1];
    for (size_t i = 0; i < VERBS; i++) {
        if (strcmp(word, verbs[i].name) == 0) {
            return verbs[i].run(argc - 1, argv + 1);
        }
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        return print_help();
    }
    if (strcmp(word, "--version") == 0) {
        (void)printf("starling %s\n", STARLING_VERSION);
        return finished();
    }
    return unknown_verb(word);
}
