/* What the finished cells say together: results.json for programs, table.md for people, and the charts. All of it is a
 * function of the cells' files, so it is written again after each cell. */
#include "client/tool/chart.h"
#include "client/tool/cli.h"
#include "client/tool/experiment.h"
#include "client/tool/human.h"
#include "common/base/mem.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX ((size_t)64 << 20)

struct findings {
    const struct experiment *experiment;
    const char *title;
    const struct cell *cells;
    struct cell_result *const *results;
    uint32_t count;
    const char *out;
};

static int save(const struct findings *findings, const char *name, const void *data, size_t len, struct err *err)
{
    char path[DISK_PATH_MAX];
    const struct span part = {data, len};
    return disk_join(path, findings->out, name)
               ? err_set(err, ERR_CANTCREATE, "%s: the path is too long", findings->out)
               : disk_save(&disk_posix, path, &part, 1, err);
}

/* The finished result of a method, split and seed, or NULL. */
static const struct cell_result *find(const struct findings *findings, const struct method *method, const char *split,
                                      uint64_t seed)
{
    for (uint32_t i = 0; i < findings->count; i++) {
        const struct cell *cell = &findings->cells[i];
        if (cell->method == method && cell->seed == seed &&
            (method->place == PLACE_ONE || strcmp(cell->split, split) == 0)) {
            return findings->results[i];
        }
    }
    return NULL;
}

/* ---- Numbers ---- */

struct mean {
    double sum, squares;
    uint32_t n;
};

static void add(struct mean *mean, double value)
{
    if (isfinite(value)) {
        mean->sum += value;
        mean->squares += value * value;
        mean->n++;
    }
}

static double mean_of(const struct mean *mean)
{
    return mean->n ? mean->sum / mean->n : (double)NAN;
}

/* Standard deviation over seeds, with n - 1. */
static double spread_of(const struct mean *mean)
{
    double centre = mean_of(mean);
    double variance = mean->n > 1 ? (mean->squares - mean->n * centre * centre) / (mean->n - 1) : (double)NAN;
    return variance > 0 ? sqrt(variance) : mean->n > 1 ? 0 : (double)NAN;
}

/* "0.4249 ± 0.0031"; one seed has no spread. */
static int print_mean(const struct mean *mean, bool sign, struct buf *out)
{
    if (mean->n == 0) {
        return buf_printf(out, " - |");
    }
    int rc = buf_printf(out, sign ? " %+.4f" : " %.4f", mean_of(mean));
    return rc ? rc : mean->n > 1 ? buf_printf(out, " ± %.4f |", spread_of(mean)) : buf_printf(out, " |");
}

struct row {
    struct mean knn, linear, ahead_knn, ahead_linear, seconds, images_seen, up, down, pixels, untrained,
        untrained_linear;
    uint32_t rounds;
};

static double a_site(uint64_t bytes, const struct cell_result *result)
{
    return (double)bytes / result->clients;
}

/* ahead_*: over the experiment's first method with the same seed. */
static struct row row_of(const struct findings *findings, const struct method *method, const char *split)
{
    struct row row = {0};
    for (uint32_t i = 0; i < findings->experiment->seeds_count; i++) {
        uint64_t seed = findings->experiment->seeds[i];
        const struct cell_result *result = find(findings, method, split, seed);
        const struct cell_result *first = find(findings, &findings->experiment->methods[0], split, seed);
        if (result) {
            add(&row.knn, result->knn);
            add(&row.linear, result->linear);
            add(&row.ahead_knn, first ? result->knn - first->knn : (double)NAN);
            add(&row.ahead_linear, first ? result->linear - first->linear : (double)NAN);
            add(&row.seconds, result->interrupted ? (double)NAN : result->seconds);
            add(&row.images_seen, (double)result->images_seen);
            add(&row.up, a_site(result->bytes_up, result));
            add(&row.down, a_site(result->bytes_down, result));
            add(&row.pixels, result->pixels);
            add(&row.untrained, result->knn_untrained);
            add(&row.untrained_linear, result->linear_untrained);
            row.rounds = result->rounds;
        }
    }
    return row;
}

static int print_row(const struct method *method, const struct row *row, bool first, struct buf *out)
{
    char seen[HUMAN_MAX], up[HUMAN_MAX], down[HUMAN_MAX];
    bool travels = method->place == PLACE_SITES;
    int rc = buf_printf(out, "| %s | %u |", method->name, row->knn.n);
    rc = rc ? rc : print_mean(&row->knn, false, out);
    rc = rc ? rc : print_mean(&row->linear, false, out);
    if (first) {
        rc = rc ? rc : buf_printf(out, " | |");
    } else {
        rc = rc ? rc : print_mean(&row->ahead_knn, true, out);
        rc = rc ? rc : print_mean(&row->ahead_linear, true, out);
    }
    rc = rc ? rc
            : buf_printf(out, " %s | %u | %s | %s |", human_count((uint64_t)mean_of(&row->images_seen), seen),
                         row->rounds, travels ? human_bytes((uint64_t)mean_of(&row->up), up) : "-",
                         travels ? human_bytes((uint64_t)mean_of(&row->down), down) : "-");
    if (rc || row->seconds.n == 0) { /* all were interrupted */
        return rc ? rc : buf_printf(out, " |\n");
    }
    return buf_printf(out, " %.0f s |\n", mean_of(&row->seconds));
}

static int print_split(const struct findings *findings, const char *split, struct buf *out)
{
    const struct experiment *experiment = findings->experiment;
    struct mean pixels = {0}, untrained = {0}, untrained_linear = {0};
    int rc = buf_printf(out,
                        "\n### %s\n\n| method | seeds | kNN | linear | kNN over %s | linear over %s | images seen | "
                        "rounds | up a site | down a site | time |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
                        split, experiment->methods[0].name, experiment->methods[0].name);
    for (uint32_t i = 0; rc == 0 && i < experiment->methods_count; i++) {
        const struct row row = row_of(findings, &experiment->methods[i], split);
        if (row.knn.n) {
            rc = print_row(&experiment->methods[i], &row, i == 0, out);
            add(&pixels, mean_of(&row.pixels));
            add(&untrained, mean_of(&row.untrained));
            add(&untrained_linear, mean_of(&row.untrained_linear));
        }
    }
    if (rc == 0 && untrained.n == 0) {
        return buf_printf(out, "\nNo cell is finished yet.\n");
    }
    return rc ? rc
              : buf_printf(out,
                           "| untrained encoder | | %.4f | %.4f | | | 0 | | | | |\n| raw pixels | | %.4f | - | | | | | "
                           "| | |\n",
                           mean_of(&untrained), mean_of(&untrained_linear), mean_of(&pixels));
}

static int save_table(const struct findings *findings, struct err *err)
{
    const struct experiment *experiment = findings->experiment;
    struct buf text;
    buf_init(&text, TEXT_MAX);
    int rc = buf_printf(&text,
                        "# %s\n\n%u clients. Share of the %s images named right: mean ± standard deviation over seeds; "
                        "differences are paired by seed.\n",
                        findings->title, experiment->clients, experiment->validation_per_class ? "validation" : "test");
    for (uint32_t i = 0; rc == 0 && i < experiment->splits_count; i++) {
        rc = print_split(findings, experiment->splits[i], &text);
    }
    rc = rc ? err_set(err, rc, "table.md: %s", err_meaning(rc)) : save(findings, "table.md", text.data, text.len, err);
    buf_fini(&text);
    return rc;
}

/* ---- results.json ---- */

static json_t *mean_json(const struct mean *mean)
{
    return json_pack("{s:o, s:o}", "mean", cli_number(mean_of(mean)), "sd", cli_number(spread_of(mean)));
}

static int save_json(const struct findings *findings, struct err *err)
{
    const struct experiment *experiment = findings->experiment;
    json_t *rows = json_array();
    for (uint32_t s = 0; s < experiment->splits_count; s++) {
        for (uint32_t m = 0; m < experiment->methods_count; m++) {
            const struct row row = row_of(findings, &experiment->methods[m], experiment->splits[s]);
            (void)json_array_append_new(
                rows,
                json_pack("{s:s, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "method",
                          experiment->methods[m].name, "split", experiment->splits[s], "seeds", (json_int_t)row.knn.n,
                          "knn_top1", mean_json(&row.knn), "linear_top1", mean_json(&row.linear), "knn_top1_untrained",
                          mean_json(&row.untrained), "knn_top1_pixels", mean_json(&row.pixels), "images_seen",
                          cli_number(mean_of(&row.images_seen)), "bytes_up_a_site", cli_number(mean_of(&row.up)),
                          "bytes_down_a_site", cli_number(mean_of(&row.down)), "seconds",
                          cli_number(mean_of(&row.seconds))));
        }
    }
    json_t *object = json_pack("{s:s, s:I, s:I, s:o}", "experiment", findings->title, "clients",
                               (json_int_t)experiment->clients, "cells", (json_int_t)findings->count, "rows", rows);
    char *text = object ? json_dumps(object, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(object);
    int rc = text ? save(findings, "results.json", text, strlen(text), err)
                  : err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    free(text);
    return rc;
}

/* ---- Charts ---- */

struct curve {
    double images[POINTS_MAX], megabytes[POINTS_MAX], knn[POINTS_MAX];
    uint32_t count;
};

/* Means over the seeds that are there; their points lie at the same rounds. Methods whose rounds differ in length are
 * comparable by what they have seen. */
static void curve_of(const struct findings *findings, const struct method *method, const char *split, struct curve *out)
{
    uint32_t n = 0;
    *out = (struct curve){0};
    for (uint32_t i = 0; i < findings->experiment->seeds_count; i++) {
        const struct cell_result *result = find(findings, method, split, findings->experiment->seeds[i]);
        for (uint32_t p = 0; result && p < result->points_count; p++) {
            out->images[p] = (double)result->images_seen * result->points[p].round / result->rounds / 1e3;
            out->megabytes[p] += a_site(result->points[p].bytes, result) / 1e6;
            out->knn[p] += result->points[p].knn;
            out->count = p + 1;
        }
        n += result != NULL;
    }
    for (uint32_t p = 0; p < out->count; p++) {
        out->megabytes[p] /= n;
        out->knn[p] /= n;
    }
}

/* "classes:2" as it stands in a file's name. */
static void file_name(const char *kind, const char *split, const char *method, char *out, size_t size)
{
    (void)snprintf(out, size, "%s-%s%s%s.svg", kind, split, *method ? "-" : "", method);
    for (char *c = out; *c; c++) {
        *c = *c == ':' ? '-' : *c;
    }
}

/* What costs nothing, as level lines below the others. */
struct baselines {
    double x[2], pixels[2], untrained[2];
};

static void add_baselines(const struct findings *findings, const char *split, struct baselines *level,
                          struct chart *chart, struct chart_line *lines)
{
    struct mean pixels = {0}, untrained = {0};
    *level = (struct baselines){.x = {INFINITY, -INFINITY}};
    for (uint32_t m = 0; m < findings->experiment->methods_count; m++) {
        const struct row row = row_of(findings, &findings->experiment->methods[m], split);
        add(&pixels, mean_of(&row.pixels));
        add(&untrained, mean_of(&row.untrained));
    }
    for (uint32_t l = 0; l < chart->lines_count; l++) {
        for (uint32_t i = 0; i < lines[l].count; i++) {
            level->x[0] = fmin(level->x[0], lines[l].x[i]);
            level->x[1] = fmax(level->x[1], lines[l].x[i]);
        }
    }
    level->pixels[0] = level->pixels[1] = mean_of(&pixels);
    level->untrained[0] = level->untrained[1] = mean_of(&untrained);
    lines[chart->lines_count++] = (struct chart_line){"raw pixels", level->x, level->pixels, 2};
    lines[chart->lines_count++] = (struct chart_line){"untrained", level->x, level->untrained, 2};
}

static int save_lines(const struct findings *findings, const char *split, bool bytes, struct curve *curves,
                      struct err *err)
{
    const struct experiment *experiment = findings->experiment;
    struct chart_line lines[METHODS_MAX + 2];
    struct baselines level;
    char title[160], name[128];
    (void)snprintf(title, sizeof title, "%.100s, %s", findings->title, split);
    struct chart chart = {.title = title,
                          .x_label = bytes ? "megabytes a site, both ways (logarithmic)" : "thousands of images seen",
                          .y_label = "kNN accuracy",
                          .log_x = bytes,
                          .lines = lines};
    for (uint32_t m = 0; m < experiment->methods_count; m++) {
        if (curves[m].count && !(bytes && experiment->methods[m].place != PLACE_SITES)) {
            lines[chart.lines_count++] = (struct chart_line){.name = experiment->methods[m].name,
                                                             .x = bytes ? curves[m].megabytes : curves[m].images,
                                                             .y = curves[m].knn,
                                                             .count = curves[m].count};
        }
    }
    if (chart.lines_count == 0) {
        return 0;
    }
    add_baselines(findings, split, &level, &chart, lines);
    struct buf text;
    buf_init(&text, TEXT_MAX);
    int rc = chart_lines(&chart, &text);
    file_name(bytes ? "bytes" : "rounds", split, "", name, sizeof name);
    rc = rc ? err_set(err, rc, "%s: %s", name, err_meaning(rc)) : save(findings, name, text.data, text.len, err);
    buf_fini(&text);
    return rc;
}

static int save_map(const struct findings *findings, const struct cell *cell, const struct cell_result *result,
                    struct err *err)
{
    uint32_t n = result->dots_count;
    float *x = mem_new(n, sizeof *x), *y = mem_new(n, sizeof *y);
    uint32_t *class = mem_new(n, sizeof *class), *client = mem_new(n, sizeof *client);
    char sites[CLIENTS_MAX][16], title[160], name[128];
    const char *site_names[CLIENTS_MAX], *class_names[64];
    struct buf text;
    buf_init(&text, TEXT_MAX);
    int rc = x && y && class && client ? 0 : ERR_NOMEM;
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        x[i] = result->dots[i].x;
        y[i] = result->dots[i].y;
        class[i] = result->dots[i].class;
        client[i] = result->dots[i].client ? result->dots[i].client - 1 : 0;
    }
    uint32_t clients = result->clients < CLIENTS_MAX ? result->clients : CLIENTS_MAX;
    for (uint32_t i = 0; i < clients; i++) {
        (void)snprintf(sites[i], sizeof sites[i], "site %u", i + 1);
        site_names[i] = sites[i];
    }
    for (uint32_t i = 0; i < result->classes_count; i++) {
        class_names[i] = result->classes[i];
    }
    const struct chart_panel panels[] = {{"by site", client, site_names, clients},
                                         {"by class", class, class_names, result->classes_count}};
    (void)snprintf(title, sizeof title, "Features of %u training images: %s, %s", n, cell->method->name, cell->split);
    file_name("map", cell->split, cell->method->name, name, sizeof name);
    rc = rc ? rc : chart_dots(title, x, y, n, panels, 2, &text);
    rc = rc ? err_set(err, rc, "%s: %s", name, err_meaning(rc)) : save(findings, name, text.data, text.len, err);
    buf_fini(&text);
    mem_free(x);
    mem_free(y);
    mem_free(class);
    mem_free(client);
    return rc;
}

static int save_charts(const struct findings *findings, struct err *err)
{
    const struct experiment *experiment = findings->experiment;
    struct curve *curves = mem_new(experiment->methods_count, sizeof *curves);
    int rc = curves ? 0 : err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    for (uint32_t s = 0; rc == 0 && s < experiment->splits_count; s++) {
        for (uint32_t m = 0; m < experiment->methods_count; m++) {
            curve_of(findings, &experiment->methods[m], experiment->splits[s], &curves[m]);
        }
        rc = save_lines(findings, experiment->splits[s], false, curves, err);
        rc = rc ? rc : save_lines(findings, experiment->splits[s], true, curves, err);
    }
    for (uint32_t i = 0; rc == 0 && i < findings->count; i++) {
        if (findings->results[i] && findings->results[i]->dots_count) {
            rc = save_map(findings, &findings->cells[i], findings->results[i], err);
        }
    }
    mem_free(curves);
    return rc;
}

int experiment_report(const struct experiment *experiment, const char *title, const struct cell *cells,
                      struct cell_result *const *results, uint32_t count, const char *out, struct err *err)
{
    const struct findings findings = {experiment, title, cells, results, count, out};
    int rc = save_table(&findings, err);
    rc = rc ? rc : save_json(&findings, err);
    return rc ? rc : save_charts(&findings, err);
}
