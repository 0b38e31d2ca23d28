/* The parts of `starling demo`, in the order in which they run:
 *
 *   demo.c          the verb: flags, the order of things, exit codes
 *   demo_plan.c     the plan: defaults made for a demonstration, then --set; server.yaml
 *   demo_images.c   the images: drawn or given, a test part, one folder a client
 *   demo_run.c      the federation: starts, supervises and stops the processes
 *   demo_process.c  one child process
 *   demo_watch.c    what the server's status tells: one line a round
 *   demo_report.c   scores, report files, closing lines
 *
 * Everything that is made lies in one folder, the workdir: server.yaml, images/ or train/, test/, sites/<client>/,
 * state/<client>/, server/ (the server's state, with its models), logs/, report.json, report.md. */
#ifndef STARLING_TOOL_DEMO_H
#define STARLING_TOOL_DEMO_H

#include "common/base/buf.h"
#include "common/base/disk.h"
#include "common/config/flags.h"
#include "common/config/plan.h"
#include "common/wire/msg.h"

#include <stdbool.h>
#include <stdint.h>

struct demo_options {
    const char *images; /* NULL: drawn */
    const char *test;   /* NULL: drawn, or a part of images is held out */
    const char *split;  /* NULL: classes:2 for drawn images, iid for given ones */
    const char *workdir;
    const char *set[FLAG_LIST_MAX];
    uint32_t clients;
    uint32_t rounds; /* 0: the demo's default */
    uint64_t seed;
    bool json;
};

struct demo_scores { /* NAN: not measured */
    double pixels, knn_untrained, knn_midway, knn, linear_untrained, linear_midway, linear;
};

struct demo {
    struct demo_options options;
    struct plan plan;
    uint32_t keep_every; /* of which rounds the models stay, beside the first and the last */
    uint64_t started_ms;
    char workdir[DISK_PATH_MAX]; /* as the user writes it */
    char train[DISK_PATH_MAX], test[DISK_PATH_MAX];
    uint32_t images;     /* dealt out to the clients */
    uint32_t classes;    /* 0: the images have none, so nothing can be scored */
    uint32_t test_count; /* images to score on */
    /* What the federation did. */
    char address[300];
    struct status_round *rounds; /* [plan.rounds], those closed are filled in */
    uint32_t rounds_closed;
    uint64_t first_round_ms; /* from the server's start to the first closed round */
    uint64_t peak_rss_bytes;
    uint32_t restarts;
    struct demo_scores scores;
};

/* Monotonic. */
uint64_t demo_now_ms(void);

/* Fills demo->plan. ERR_CONFIG for a bad --set. */
int demo_plan(struct demo *demo, struct err *err);
/* Models kept: untrained, midway and last. */
uint32_t demo_midway(const struct plan *plan); /* 0: there is none */
/* The text of server.yaml. state: absolute path. */
int demo_server_yaml(const struct demo *demo, const char *state, struct buf *out);

/* Makes or finds the images, holds a test part out, deals the rest out to sites/. */
int demo_images(struct demo *demo, struct err *err);
/* Which of a class's n images are held out: every fifth, at least one of two. held: [n]. */
void demo_hold_out(uint64_t seed, uint32_t class, uint32_t n, bool *held);

/* Runs all rounds. ERR_FAILED, ERR_CANCELLED (Ctrl-C), ERR_CONFIG ...; no child is left in any case. */
int demo_run(struct demo *demo, struct err *err);
/* "round  3/10  5 of 5 clients  loss 4.21 (contrast 4.10, matching 0.11)  ..." without a newline. */
int demo_round_line(const struct status_round *round, uint32_t rounds, uint32_t clients, struct buf *out);

/* Scores the models (nothing when the images have no classes). */
int demo_score(struct demo *demo, struct err *err);
/* Writes report.json and report.md, prints the closing lines and, with --json, the object. */
int demo_report(const struct demo *demo, struct err *err);
/* The object of --json: its keys and no others. NULL when out of memory. */
struct json_t *demo_json(const struct demo *demo);
int demo_model_path(const struct demo *demo, uint32_t round, char out[DISK_PATH_MAX]);

#endif
