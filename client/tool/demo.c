/* starling demo: the whole federation on one machine, with the real programs. */
#include "client/tool/demo.h"

#include "client/data/split_plan.h"
#include "client/tool/cli.h"
#include "client/tool/folder.h"
#include "client/tool/verbs.h"
#include "common/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define WORKDIR     "starling-demo"
#define WORKDIR_MAX 1000 /* numbered folders tried */

uint64_t demo_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The folder that was asked for, or the first of starling-demo, starling-demo-2, ... that is new or empty. */
static int choose_workdir(struct demo *demo, struct err *err)
{
    if (demo->options.workdir) {
        if ((size_t)snprintf(demo->workdir, sizeof demo->workdir, "%s", demo->options.workdir) >=
            sizeof demo->workdir) {
            return err_set(err, ERR_CANTCREATE, "--workdir: the path is too long");
        }
        return folder_claim(demo->workdir, demo->options.images, err);
    }
    int code = 0;
    for (uint32_t i = 1; i <= WORKDIR_MAX; i++) {
        (void)snprintf(demo->workdir, sizeof demo->workdir, i == 1 ? WORKDIR : WORKDIR "-%u", i);
        code = folder_claim(demo->workdir, demo->options.images, err);
        if (!code) {
            break;
        }
    }
    return code;
}

/* Drawn images are dealt out as the product expects sites to be: each knows only some of the classes. */
static void choose_split(struct demo *demo, char text[32])
{
    if (!demo->options.split) {
        uint32_t each = (10 + demo->options.clients - 1) / demo->options.clients;
        (void)snprintf(text, 32, demo->options.images ? "iid" : "classes:%u", each > 2 ? each : 2);
        demo->options.split = text;
    }
}

static int prepare(struct demo *demo, struct err *err)
{
    struct split_spec spec;
    int code = split_parse(demo->options.split, &spec, err);
    code = code ? code : demo_plan(demo, err);
    code = code ? code : choose_workdir(demo, err);
    if (code) {
        return code;
    }
    demo->rounds = mem_new(demo->plan.rounds, sizeof *demo->rounds);
    if (!demo->rounds) {
        return err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    }
    (void)printf("demo        %u client%s, %u round%s; everything goes into %s\n", demo->options.clients,
                 demo->options.clients == 1 ? "" : "s", demo->plan.rounds, demo->plan.rounds == 1 ? "" : "s",
                 demo->workdir);
    (void)fflush(stdout);
    code = demo_images(demo, err);
    if (code) {
        (void)rmdir(demo->workdir); /* Only when nothing came to lie in it. */
    }
    return code;
}

static int run(const struct demo_options *options)
{
    struct demo demo = {.options = *options, .started_ms = demo_now_ms()};
    char split[32];
    struct err err;
    demo.scores = (struct demo_scores){.pixels = (double)NAN,
                                       .knn_untrained = (double)NAN,
                                       .knn_midway = (double)NAN,
                                       .knn = (double)NAN,
                                       .linear_untrained = (double)NAN,
                                       .linear_midway = (double)NAN,
                                       .linear = (double)NAN};
    choose_split(&demo, split);
    int code = prepare(&demo, &err);
    code = code ? code : demo_run(&demo, &err);
    code = code ? code : demo_score(&demo, &err);
    code = code ? code : demo_report(&demo, &err);
    mem_free(demo.rounds);
    return code ? cli_fail(&err) : 0;
}

int verb_demo(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling demo [--images DIR] [--test DIR] [--clients N] [--split S] [--rounds R] [--workdir DIR] "
                 "[--set KEY=VALUE]... [--seed N] [--json]",
        .about =
            "Runs a whole federation on this machine: deals images out to N clients, starts one starling-server and "
            "N starling-client processes on loopback, prints one line a round, scores the untrained, the midway and "
            "the final encoder, and leaves all logs and models in the workdir. Exit 0 only if every round closed.",
        .examples =
            "  starling demo                                  draws its own images; a few minutes\n"
            "  starling demo --images photos --clients 3      one folder a class, a fifth is held out for scoring\n"
            "  starling demo --images cifar/train --test cifar/test --split classes:2 --rounds 50\n"
            "  starling demo --set fusion.enabled=false --set matching.enabled=false\n",
    };
    struct demo_options options = {.clients = 5, .seed = 1};
    const struct flag flags[] = {
        {"images", FLAG_TEXT, &options.images, "DIR",
         "JPEG and PNG images, one folder a class, or flat (then nothing is scored); without it pictures are drawn", 0,
         0, false},
        {"test", FLAG_TEXT, &options.test, "DIR",
         "labelled images to score on; without it a fifth of each class is held out", 0, 0, false},
        {"clients", FLAG_U32, &options.clients, "N", "client processes (5); 1 trains on all images in one place", 1,
         100, false},
        {"split", FLAG_TEXT, &options.split, "S",
         "how images are dealt out: iid, classes:K (K classes each) or dirichlet:A (drawn images: classes:2, more "
         "with fewer than 5 clients; others: iid)",
         0, 0, false},
        {"rounds", FLAG_U32, &options.rounds, "R", "rounds in all (drawn images: 40, others: 300)", 1, 1000000, false},
        {"workdir", FLAG_TEXT, &options.workdir, "DIR",
         "new or empty folder for everything (starling-demo, or starling-demo-2 ... when that is taken)", 0, 0, false},
        {"set", FLAG_LIST, (void *)options.set, "KEY=VALUE",
         "sets a key of the plan, dotted: model.width=32; may be repeated", 0, 0, false},
        {"seed", FLAG_U64, &options.seed, "N", "seed of everything random (1)", 0, 0, false},
        {"json", FLAG_SWITCH, &options.json, NULL, "the last line of output is one JSON object", 0, 0, false},
    };
    int exit_code;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    struct err err;
    if (options.test && !options.images) {
        (void)err_set(&err, ERR_USAGE, "--test goes with --images");
        return cli_fail(&err);
    }
    return run(&options);
}
