/* What the demo leaves behind: scores, report.json for programs, report.md for people, and the closing lines. */
#include "client/tool/cli.h"
#include "client/tool/demo.h"
#include "client/tool/demo_process.h"
#include "client/tool/human.h"
#include "client/tool/status.h"
#include "client/train/evaluate.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REPORT_MAX ((size_t)64 << 20)

int demo_model_path(const struct demo *demo, uint32_t round, char out[DISK_PATH_MAX])
{
    int n = snprintf(out, DISK_PATH_MAX, "%s/server/models/round-%06u.starling", demo->workdir, round);
    return n < 0 || n >= DISK_PATH_MAX ? ERR_LIMIT : 0;
}

static int score_model(const struct demo *demo, const struct evaluation *evaluation, uint32_t round, double *knn,
                       double *linear, struct err *err)
{
    char path[DISK_PATH_MAX];
    return demo_model_path(demo, round, path) ? err_set(err, ERR_LIMIT, "%s: the path is too long", demo->workdir)
                                              : evaluation_judge_file(evaluation, path, knn, linear, err);
}

int demo_score(struct demo *demo, struct err *err)
{
    if (demo->classes == 0) {
        return 0;
    }
    struct evaluation evaluation;
    struct demo_scores *scores = &demo->scores;
    int code = evaluation_open(demo->train, demo->test, demo->plan.model.input, cli_processors(), NULL, cli_log(),
                               &evaluation, err);
    if (code) {
        return code;
    }
    char train[HUMAN_MAX], test[HUMAN_MAX];
    demo->test_count = dataset_count(evaluation.test);
    (void)printf("scoring     %s test images, by %s training images with their classes\n",
                 human_count(demo->test_count, test), human_count(dataset_count(evaluation.train), train));
    (void)fflush(stdout);
    code = evaluation_judge_pixels(&evaluation, &scores->pixels, err);
    code = code ? code : score_model(demo, &evaluation, 0, &scores->knn_untrained, &scores->linear_untrained, err);
    if (!code && demo_midway(&demo->plan)) {
        code =
            score_model(demo, &evaluation, demo_midway(&demo->plan), &scores->knn_midway, &scores->linear_midway, err);
    }
    code = code ? code : score_model(demo, &evaluation, demo->plan.rounds, &scores->knn, &scores->linear, err);
    evaluation_close(&evaluation);
    return code;
}

static void count_bytes(const struct demo *demo, uint64_t *up, uint64_t *down)
{
    *up = *down = 0;
    for (uint32_t i = 0; i < demo->rounds_closed; i++) {
        *up += demo->rounds[i].bytes_up;
        *down += demo->rounds[i].bytes_down;
    }
}

json_t *demo_json(const struct demo *demo)
{
    const struct demo_scores *s = &demo->scores;
    char model[DISK_PATH_MAX];
    uint64_t up, down;
    count_bytes(demo, &up, &down);
    if (demo_model_path(demo, demo->rounds_closed, model)) {
        return NULL;
    }
    return json_pack("{s:I, s:I, s:I, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:s, s:I, s:I, s:I}", "rounds",
                     (json_int_t)demo->rounds_closed, "clients", (json_int_t)demo->options.clients, "images",
                     (json_int_t)demo->images, "seconds", (double)(demo_now_ms() - demo->started_ms) / 1000, "knn_top1",
                     cli_number(s->knn), "knn_top1_untrained", cli_number(s->knn_untrained), "knn_top1_midway",
                     cli_number(s->knn_midway), "linear_top1", cli_number(s->linear), "linear_top1_untrained",
                     cli_number(s->linear_untrained), "knn_top1_pixels", cli_number(s->pixels), "model", model,
                     "workdir", demo->workdir, "bytes_up", (json_int_t)up, "bytes_down", (json_int_t)down,
                     "server_peak_rss_bytes", (json_int_t)demo->peak_rss_bytes);
}

/* "  after round 10    0.6020         0.6550" */
static int score_row(const char *what, double knn, double linear, struct buf *out)
{
    char first[16] = "-", second[16] = "-";
    if (isfinite(knn)) {
        (void)snprintf(first, sizeof first, "%.3f", knn);
    }
    if (isfinite(linear)) {
        (void)snprintf(second, sizeof second, "%.3f", linear);
    }
    return buf_printf(out, "  %-22s %18s %14s\n", what, first, second);
}

static int score_table(const struct demo *demo, struct buf *out)
{
    const struct demo_scores *s = &demo->scores;
    char midway[32], last[32], count[HUMAN_MAX];
    if (demo->classes == 0) {
        return buf_printf(out, "No scores: the images have no class folders.\n");
    }
    (void)snprintf(midway, sizeof midway, "after round %u", demo_midway(&demo->plan));
    (void)snprintf(last, sizeof last, "after round %u", demo->plan.rounds);
    int code = buf_printf(out, "Share of %s test images named right (%u classes; guessing: %.3f)\n",
                          human_count(demo->test_count, count), demo->classes, 1.0 / demo->classes);
    code = code ? code : buf_printf(out, "  %-22s %18s %14s\n", "", "nearest neighbours", "linear probe");
    code = code ? code : score_row("raw pixels", s->pixels, (double)NAN, out);
    code = code ? code : score_row("untrained encoder", s->knn_untrained, s->linear_untrained, out);
    if (!code && demo_midway(&demo->plan)) {
        code = score_row(midway, s->knn_midway, s->linear_midway, out);
    }
    return code ? code : score_row(last, s->knn, s->linear, out);
}

static int figures(const struct demo *demo, struct buf *out)
{
    char images[HUMAN_MAX], total[HUMAN_MAX], first[HUMAN_MAX], up[HUMAN_MAX], down[HUMAN_MAX], rss[HUMAN_MAX];
    uint64_t bytes_up, bytes_down;
    count_bytes(demo, &bytes_up, &bytes_down);
    int code = buf_printf(out, "%u round%s with %u client%s on %s images in %s, the first round closed after %s\n",
                          demo->rounds_closed, demo->rounds_closed == 1 ? "" : "s", demo->options.clients,
                          demo->options.clients == 1 ? "" : "s", human_count(demo->images, images),
                          human_ms(demo_now_ms() - demo->started_ms, total), human_ms(demo->first_round_ms, first));
    code = code ? code
                : buf_printf(out, "all clients together sent %s and received %s; the server's peak memory was %s\n",
                             human_bytes(bytes_up, up), human_bytes(bytes_down, down),
                             human_bytes(demo->peak_rss_bytes, rss));
    if (!code && demo->restarts) {
        code = buf_printf(out, "%u process%s died on the way and came back\n", demo->restarts,
                          demo->restarts == 1 ? "" : "es");
    }
    return code;
}

/* How this program is called from here: its name when it is installed, else its path, short where that is possible. */
static void own_command(char out[DISK_PATH_MAX])
{
    char path[DISK_PATH_MAX], here[DISK_PATH_MAX];
    size_t prefix = getcwd(here, sizeof here) ? strlen(here) : 0;
    (void)snprintf(out, DISK_PATH_MAX, "starling");
    if (process_own_path(path)) {
        return;
    }
    if (strcmp(path, "/usr/bin/starling") != 0 && strcmp(path, "/usr/local/bin/starling") != 0) {
        bool below = prefix > 1 && strncmp(path, here, prefix) == 0 && path[prefix] == '/';
        (void)snprintf(out, DISK_PATH_MAX, "%s", below ? path + prefix + 1 : path);
    }
}

/* The flags that decide what this run learned, as they would be typed. */
static int own_flags(const struct demo_options *options, struct buf *out)
{
    int code = options->images ? buf_printf(out, " --images %s", options->images) : 0;
    code = code || !options->test ? code : buf_printf(out, " --test %s", options->test);
    code = code ? code : buf_printf(out, " --clients %u --split %s", options->clients, options->split);
    code = code || !options->rounds ? code : buf_printf(out, " --rounds %u", options->rounds);
    code = code ? code : buf_printf(out, " --seed %llu", (unsigned long long)options->seed);
    for (size_t i = 0; !code && options->set[i]; i++) {
        code = buf_printf(out, " --set %s", options->set[i]);
    }
    return code;
}

static int next_steps(const struct demo *demo, struct buf *out)
{
    char starling[DISK_PATH_MAX], model[DISK_PATH_MAX];
    own_command(starling);
    int code = demo_model_path(demo, demo->plan.rounds, model);
    code = code ? code : buf_printf(out, "Try next:\n");
    if (!code && demo->classes) {
        code = buf_printf(out, "  %s eval --model %s --train %s --test %s\n", starling, model, demo->train, demo->test);
    }
    code =
        code ? code
             : buf_printf(out, "  %s embed --model %s --images %s --out features.npy\n", starling, model, demo->train);
    if (!code && !demo->options.images) {
        code = buf_printf(out, "  %s demo --images FOLDER          with your own images\n", starling);
    }
    if (!code && plan_shares_features(&demo->plan)) {
        code = buf_printf(out, "  %s demo", starling);
        code = code ? code : own_flags(&demo->options, out);
        code = code ? code
                    : buf_printf(out, " --set fusion.enabled=false --set matching.enabled=false\n"
                                      "      the same without what clients learn from each other's features\n");
    }
    return code;
}

static int markdown(const struct demo *demo, struct buf *out)
{
    int code = buf_printf(out, "# starling demo\n\n");
    code = code ? code : figures(demo, out);
    code = code ? code : buf_printf(out, "\n```\n");
    code = code ? code : score_table(demo, out);
    code = code ? code : buf_printf(out, "```\n\n## Rounds\n\n```\n");
    for (uint32_t i = 0; !code && i < demo->rounds_closed; i++) {
        code = demo_round_line(&demo->rounds[i], demo->plan.rounds, demo->options.clients, out);
        code = code ? code : buf_printf(out, "\n");
    }
    code = code ? code : buf_printf(out, "```\n\n## Plan\n\n```yaml\n");
    code = code ? code : config_print(&plan_set, &demo->plan, false, out);
    code = code ? code : buf_printf(out, "```\n\n## Next\n\n```\n");
    code = code ? code : next_steps(demo, out);
    return code ? code : buf_printf(out, "```\n");
}

/* The object of --json, and what else a program may want to know of the run. */
static json_t *full_json(const struct demo *demo)
{
    json_t *object = demo_json(demo), *rounds = json_array();
    for (uint32_t i = 0; rounds && i < demo->rounds_closed; i++) {
        (void)json_array_append_new(rounds, status_round_json(&demo->rounds[i]));
    }
    (void)json_object_set_new(object, "first_round_seconds", json_real((double)demo->first_round_ms / 1000));
    (void)json_object_set_new(object, "restarts", json_integer(demo->restarts));
    (void)json_object_set_new(object, "split", json_string(demo->options.split));
    (void)json_object_set_new(object, "linear_top1_midway", cli_number(demo->scores.linear_midway));
    (void)json_object_set_new(object, "images_test", json_integer(demo->test_count));
    (void)json_object_set_new(object, "history", rounds);
    return object;
}

static int save(const struct demo *demo, const char *name, const void *data, size_t len, struct err *err)
{
    char path[DISK_PATH_MAX];
    const struct span part = {data, len};
    return disk_join(path, demo->workdir, name)
               ? err_set(err, ERR_CANTCREATE, "%s: the path is too long", demo->workdir)
               : disk_save(&disk_posix, path, &part, 1, err);
}

static int save_reports(const struct demo *demo, struct err *err)
{
    struct buf text;
    buf_init(&text, REPORT_MAX);
    json_t *object = full_json(demo);
    char *json = object ? json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    int code = json ? markdown(demo, &text) : ERR_NOMEM;
    code =
        code ? err_set(err, code, "report: %s", err_meaning(code)) : save(demo, "report.md", text.data, text.len, err);
    code = code ? code : save(demo, "report.json", json, strlen(json), err);
    free(json);
    json_decref(object);
    buf_fini(&text);
    return code;
}

int demo_report(const struct demo *demo, struct err *err)
{
    struct buf text;
    buf_init(&text, REPORT_MAX);
    int code = buf_printf(&text, "\n");
    code = code ? code : score_table(demo, &text);
    code = code ? code : buf_printf(&text, "\n");
    code = code ? code : figures(demo, &text);
    code = code ? code : buf_printf(&text, "report      %s/report.md, report.json\n\n", demo->workdir);
    code = code ? code : next_steps(demo, &text);
    if (code) {
        (void)err_set(err, code, "report: %s", err_meaning(code));
    } else {
        (void)printf("%.*s", (int)text.len, (const char *)text.data);
    }
    buf_fini(&text);
    code = code ? code : save_reports(demo, err);
    if (!code && demo->options.json && cli_print_json(demo_json(demo))) {
        code = err_set(err, ERR_IO, "the result could not be printed");
    }
    return code;
}
