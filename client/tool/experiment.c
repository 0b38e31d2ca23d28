/* starling experiment: methods x splits x seeds, each cell one federation of real processes.
 *
 * A cell runs in a process of its own, forked from here, whose output is the cell's log. This process starts them,
 * waits for them and writes the report anew after each. Whatever is interrupted is gone on with by the same command:
 * finished cells are read from their files, a begun one continues after its last durable round. */
#include "client/tool/experiment.h"

#include "client/data/split_plan.h"
#include "client/tool/cli.h"
#include "client/tool/demo_process.h"
#include "client/tool/folder.h"
#include "client/tool/human.h"
#include "client/tool/verbs.h"
#include "common/base/mem.h"
#include "common/base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define JOBS_MAX        32
#define TEXT_MAX        ((size_t)1 << 20)
#define LOG_LINES_SHOWN 3

struct options {
    const char *file, *out, *images, *test;
    uint32_t jobs;
};

struct job {
    pid_t pid;
    uint32_t cell;
    uint64_t began_ms;
};

struct lab {
    struct options options;
    struct experiment *experiment;
    struct experiment_images images;
    struct cell *cells;
    struct cell_result **results; /* NULL: not finished */
    uint32_t count, done, failed, outdated;
    uint32_t done_before; /* by earlier runs of the command */
    uint64_t began_ms;
    struct job jobs[JOBS_MAX];
    uint32_t running;
    int lock;
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    stopped = number;
}

/* ---- The cells ---- */

static void name_cell(struct cell *cell)
{
    (void)snprintf(cell->name, sizeof cell->name, "%s-%s-seed-%llu", cell->method->name, cell->split,
                   (unsigned long long)cell->seed);
    for (char *c = cell->name; *c; c++) {
        *c = *c == ':' ? '-' : *c;
    }
}

/* Of everything that decides the result. */
static int key_cell(const struct lab *lab, struct cell *cell, struct err *err)
{
    struct buf text;
    char hex[HASH_HEX];
    struct plan plan = cell->method->plan;
    plan.seed = cell->seed;
    buf_init(&text, TEXT_MAX);
    int rc = plan_encode(&plan, &text);
    rc = rc ? rc
            : buf_printf(&text, "place %u\nclients %u\npoints %u\nsplit %s\nimages %s\nmap %d\n", cell->method->place,
                         lab->experiment->clients, lab->experiment->points, cell->split,
                         hash_hex(&lab->images.hash, hex), cell->map);
    if (rc == 0) {
        cell->key = hash_of(text.data, text.len);
    }
    buf_fini(&text);
    return rc ? err_set(err, rc, "%s", err_meaning(rc)) : 0;
}

/* Seeds outermost, so that every method has its first result before any has its second. One place knows no split. */
static int make_cells(struct lab *lab, struct err *err)
{
    const struct experiment *e = lab->experiment;
    size_t most = (size_t)e->seeds_count * e->splits_count * e->methods_count;
    lab->cells = mem_new(most, sizeof *lab->cells);
    lab->results = mem_new(most, sizeof(struct cell_result *));
    int rc = lab->cells && lab->results ? 0 : err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    for (uint32_t i = 0; rc == 0 && i < most; i++) {
        uint32_t seed = i / (e->splits_count * e->methods_count);
        uint32_t split = i / e->methods_count % e->splits_count;
        const struct method *method = &e->methods[i % e->methods_count];
        bool one = method->place == PLACE_ONE;
        if ((method->seeds && seed >= method->seeds) || (one && split > 0)) {
            continue;
        }
        struct cell *cell = &lab->cells[lab->count++];
        *cell = (struct cell){.method = method,
                              .split = one ? "all" : e->splits[split],
                              .seed = e->seeds[seed],
                              .map = method->map && seed == 0};
        name_cell(cell);
        rc = key_cell(lab, cell, err);
    }
    return rc;
}

static int cell_folder(const struct lab *lab, const struct cell *cell, char out[DISK_PATH_MAX], struct err *err)
{
    char name[CELL_NAME_MAX + 16];
    (void)snprintf(name, sizeof name, "cells/%s", cell->name);
    return folder_make(lab->options.out, name, out, err);
}

/* ERR_NOTFOUND: it is still to be run. */
static int take_result(struct lab *lab, uint32_t index, struct err *err)
{
    char folder[DISK_PATH_MAX];
    struct cell_result *result = mem_new(1, sizeof *result);
    int rc = result ? cell_folder(lab, &lab->cells[index], folder, err) : err_set(err, ERR_NOMEM, "no memory");
    rc = rc ? rc : result_load(folder, &lab->cells[index].key, result, err);
    rc = rc ? rc : cell_clean(folder, err);
    if (rc) {
        mem_free(result);
        return rc;
    }
    lab->results[index] = result;
    lab->done++;
    return 0;
}

static void print_result(const struct lab *lab, uint32_t index)
{
    const struct cell *cell = &lab->cells[index];
    const struct cell_result *result = lab->results[index];
    char time[HUMAN_MAX], left[HUMAN_MAX];
    (void)printf("finished    %-40s kNN %.4f  linear %.4f  %s  (%u of %u", cell->name, result->knn, result->linear,
                 human_ms((uint64_t)(result->seconds * 1000), time), lab->done, lab->count);
    uint32_t to_do = lab->count - lab->done - lab->failed;
    if (to_do > 0) { /* the cells of this run are taken for typical */
        uint64_t each_ms = (demo_now_ms() - lab->began_ms) / (lab->done - lab->done_before);
        (void)printf(", about %s left", human_ms(each_ms * to_do, left));
    }
    (void)printf(")\n");
    (void)fflush(stdout);
}

/* ---- The processes ---- */

/* Signals end it at once where no federation runs, and in an orderly way (demo_run.c) where one does. */
static _Noreturn void run_child(const struct lab *lab, const struct cell *cell, const char *folder, pid_t parent)
{
    char log[DISK_PATH_MAX];
    struct err err;
    (void)signal(SIGINT, SIG_DFL);
    (void)signal(SIGTERM, SIG_DFL);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) {
        _exit(err_exit_code(ERR_CANCELLED));
    }
    /* A pipe that nobody reads is refused, not waited for. */
    int file =
        disk_join(log, folder, "log") ? -1 : open(log, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0666);
    if (file < 0 || dup2(file, STDOUT_FILENO) < 0 || dup2(file, STDERR_FILENO) < 0) {
        _exit(err_exit_code(ERR_CANTCREATE));
    }
    int rc = cell_run(lab->experiment, &lab->images, cell, folder, &err);
    int code = rc ? cli_fail(&err) : 0;
    (void)fflush(stdout);
    _exit(code);
}

static int start(struct lab *lab, uint32_t index, struct err *err)
{
    const struct cell *cell = &lab->cells[index];
    char folder[DISK_PATH_MAX];
    int rc = cell_folder(lab, cell, folder, err);
    if (rc) {
        return rc;
    }
    (void)printf("running     %-40s rounds in %s/log\n", cell->name, folder);
    (void)fflush(stdout);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        run_child(lab, cell, folder, parent);
    }
    if (pid < 0) {
        return err_set(err, ERR_IO, "cannot start a process: %s", strerror(errno));
    }
    lab->jobs[lab->running++] = (struct job){.pid = pid, .cell = index, .began_ms = demo_now_ms()};
    return 0;
}

/* The cell's own words, and the other cells go on. */
static void report_failure(struct lab *lab, const struct cell *cell, int status)
{
    struct process process = {0};
    struct buf text;
    struct err err;
    char folder[DISK_PATH_MAX];
    buf_init(&text, TEXT_MAX);
    (void)buf_printf(&text, "failed      %s with ", cell->name);
    (void)process_describe(status, &text);
    if (cell_folder(lab, cell, folder, &err) == 0 && disk_join(process.log, folder, "log") == 0) {
        (void)buf_printf(&text, "; the end of %s:\n", process.log);
        (void)process_log_tail(&process, LOG_LINES_SHOWN, "    ", &text);
    }
    (void)printf("%.*s", (int)text.len, (const char *)text.data);
    (void)fflush(stdout);
    buf_fini(&text);
    lab->failed++;
}

static int report(const struct lab *lab, struct err *err)
{
    const char *slash = strrchr(lab->options.file, '/'), *name = slash ? slash + 1 : lab->options.file;
    char title[256], clean[256];
    (void)snprintf(clean, sizeof clean, "%.*s", (int)strcspn(name, "."), name);
    text_clean(clean, strlen(clean), title);
    return experiment_report(lab->experiment, title, lab->cells, lab->results, lab->count, lab->options.out, err);
}

/* Waits for one of the running cells. */
static int reap(struct lab *lab, struct err *err)
{
    int status;
    pid_t pid = waitpid(-1, &status, 0);
    if (pid < 0) {
        return errno == EINTR ? 0 : err_set(err, ERR_IO, "cannot wait for a process: %s", strerror(errno));
    }
    uint32_t at = 0;
    while (at < lab->running && lab->jobs[at].pid != pid) {
        at++;
    }
    if (at == lab->running) {
        return 0;
    }
    const struct job job = lab->jobs[at];
    lab->jobs[at] = lab->jobs[--lab->running];
    if (stopped) {
        return 0;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        report_failure(lab, &lab->cells[job.cell], status);
        return 0;
    }
    int rc = take_result(lab, job.cell, err);
    if (rc == 0) {
        print_result(lab, job.cell);
        rc = report(lab, err);
    }
    return rc;
}

static int run_all(struct lab *lab, struct err *err)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && !stopped && i < lab->count; i++) {
        if (lab->results[i]) {
            continue;
        }
        while (rc == 0 && !stopped && lab->running == lab->options.jobs) {
            rc = reap(lab, err);
        }
        rc = rc || stopped ? rc : start(lab, i, err);
    }
    if (rc || stopped) {
        for (uint32_t i = 0; i < lab->running; i++) {
            (void)kill(lab->jobs[i].pid, SIGTERM);
        }
    }
    struct err ignored;
    int end = 0;
    while (lab->running > 0 && end == 0) {
        end = reap(lab, rc ? &ignored : err);
    }
    rc = rc ? rc : end;
    return rc == 0 && stopped
               ? err_set(err, ERR_CANCELLED, "stopped by signal %d; the same command goes on from where this one was",
                         (int)stopped)
               : rc;
}

static bool has_result(const struct lab *lab, const struct cell *cell)
{
    char folder[DISK_PATH_MAX], path[DISK_PATH_MAX];
    struct err ignored;
    return cell_folder(lab, cell, folder, &ignored) == 0 && disk_join(path, folder, "result.json") == 0 &&
           access(path, F_OK) == 0;
}

static int prepare(struct lab *lab, struct err *err)
{
    const struct options *options = &lab->options;
    struct err ignored;
    int rc = experiment_read(options->file, options->images, options->test, lab->experiment, err);
    rc = rc || disk_make_folder(&disk_posix, options->out, err) == 0
             ? rc
             : err_set(err, ERR_CANTCREATE, "cannot create the folder %s", options->out);
    const char *of[] = {lab->experiment->images, lab->experiment->test};
    for (uint32_t i = 0; rc == 0 && i < 2; i++) {
        if (of[i][0] && folder_lies_in(options->out, of[i])) {
            rc = err_set(err, ERR_CANTCREATE, "%s lies in %s and would join its images: name a folder elsewhere",
                         options->out, of[i]);
        }
    }
    rc = rc ? rc : disk_lock(options->out, "experiment", &lab->lock, err);
    rc = rc ? rc : experiment_images(lab->experiment, options->out, &lab->images, err);
    rc = rc ? rc : make_cells(lab, err);
    for (uint32_t i = 0; rc == 0 && i < lab->count; i++) {
        int found = take_result(lab, i, &ignored);
        lab->outdated += found == ERR_NOTFOUND && has_result(lab, &lab->cells[i]);
        rc = found == ERR_NOMEM ? err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM)) : 0;
    }
    return rc;
}

static int run(const struct options *options)
{
    struct err err;
    struct lab lab = {.options = *options, .experiment = mem_new(1, sizeof(struct experiment)), .lock = -1};
    const struct sigaction stop = {.sa_handler = on_signal};
    int rc = lab.experiment ? prepare(&lab, &err) : err_set(&err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    if (rc == 0) {
        (void)printf("experiment  %u cell%s, %u finished before; everything goes into %s\n", lab.count,
                     lab.count == 1 ? "" : "s", lab.done, options->out);
        if (lab.outdated) {
            (void)printf(
                "again       %u of them had a result of another plan or of other images, and will replace it\n",
                lab.outdated);
        }
        (void)fflush(stdout);
        (void)signal(SIGCHLD, SIG_DFL); /* ignored, there would be nothing to wait for */
        (void)sigaction(SIGINT, &stop, NULL);
        (void)sigaction(SIGTERM, &stop, NULL);
        lab.done_before = lab.done;
        lab.began_ms = demo_now_ms();
        rc = run_all(&lab, &err);
        rc = rc ? rc : report(&lab, &err);
    }
    if (rc == 0 && lab.failed) {
        rc = err_set(&err, ERR_FAILED, "%u of %u cells failed; the same command tries them again", lab.failed,
                     lab.count);
    } else if (rc == 0) {
        (void)printf("report      %s/table.md, results.json, *.svg\n", options->out);
    }
    for (uint32_t i = 0; i < lab.count; i++) {
        if (lab.results[i]) {
            result_fini(lab.results[i]);
            mem_free(lab.results[i]);
        }
    }
    if (lab.lock >= 0) {
        (void)close(lab.lock);
    }
    mem_free(lab.cells);
    mem_free((void *)lab.results);
    mem_free(lab.experiment);
    return rc ? cli_fail(&err) : 0;
}

int verb_experiment(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling experiment FILE.yaml --out DIR [--images DIR] [--test DIR] [--jobs N]",
        .about =
            "Compares methods: every method of the file on every split with every seed, each as one federation of "
            "real processes, scored on the same images. Writes results.json, table.md and charts. The same command "
            "goes on after an interruption; finished cells are not run again. Keys of the file: images, test, "
            "train_per_class (0: all), validation_per_class (held out of the training images and judged instead of "
            "test), clients, points (models of a run that are scored), seeds, splits (iid, classes:K, dirichlet:A), "
            "plan (of every method; the keys of starling-server --print-config), methods (NAME: {keys of the plan; "
            "place: sites, alone or one; seeds: the first so many; map: true draws a map of the features}).",
        .examples =
            "  starling experiment tests/experiments/smoke.yaml --images photos --out out\n"
            "  starling experiment tests/experiments/two-class.yaml --images cifar/train --test cifar/test --out out\n",
    };
    struct options options = {.jobs = 1};
    const struct flag flags[] = {
        {"out", FLAG_TEXT, &options.out, "DIR", "folder for results; an earlier run's is gone on with", 0, 0, true},
        {"images", FLAG_TEXT, &options.images, "DIR", "training images, instead of the file's", 0, 0, false},
        {"test", FLAG_TEXT, &options.test, "DIR", "images to be judged by, instead of the file's", 0, 0, false},
        {"jobs", FLAG_U32, &options.jobs, "N", "cells that run at the same time (1)", 1, JOBS_MAX, false},
    };
    int exit_code;
    if (!cli_flags_word(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, "FILE.yaml", &options.file,
                        &exit_code)) {
        return exit_code;
    }
    return run(&options);
}
