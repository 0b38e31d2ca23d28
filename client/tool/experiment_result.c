/* result.json of a finished cell: small, sorted, and enough for every table and chart, so that it can be committed. */
#include "client/tool/cli.h"
#include "client/tool/experiment.h"
#include "common/base/mem.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESULT_MAX ((size_t)16 << 20)

static json_t *number(double value, double unit)
{
    return isfinite(value) ? json_real(round(value / unit) * unit) : json_null();
}

static json_t *points_json(const struct cell_result *result)
{
    json_t *points = json_array();
    for (uint32_t i = 0; i < result->points_count; i++) {
        const struct point *point = &result->points[i];
        (void)json_array_append_new(points, json_pack("{s:I, s:I, s:o}", "round", (json_int_t)point->round, "bytes",
                                                      (json_int_t)point->bytes, "knn_top1", cli_number(point->knn)));
    }
    return points;
}

/* [x, y, class, client] a dot. */
static json_t *map_json(const struct cell_result *result)
{
    json_t *classes = json_array(), *dots = json_array();
    for (uint32_t i = 0; i < result->classes_count; i++) {
        (void)json_array_append_new(classes, json_string(result->classes[i]));
    }
    for (uint32_t i = 0; i < result->dots_count; i++) {
        const struct map_dot *dot = &result->dots[i];
        (void)json_array_append_new(dots, json_pack("[o, o, I, I]", number((double)dot->x, 0.01),
                                                    number((double)dot->y, 0.01), (json_int_t)dot->class,
                                                    (json_int_t)dot->client));
    }
    return json_pack("{s:o, s:o}", "classes", classes, "dots", dots);
}

int result_save(const char *folder, const struct cell *cell, const struct cell_result *result, struct err *err)
{
    char path[DISK_PATH_MAX], hex[HASH_HEX];
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "key",
        hash_hex(&cell->key, hex), "method", cell->method->name, "split", cell->split, "seed", (json_int_t)cell->seed,
        "clients", (json_int_t)result->clients, "images", (json_int_t)result->images, "images_seen",
        (json_int_t)result->images_seen, "rounds", (json_int_t)result->rounds, "seconds", round(result->seconds),
        "restarts", (json_int_t)result->restarts, "bytes_up", (json_int_t)result->bytes_up, "bytes_down",
        (json_int_t)result->bytes_down, "knn_top1_pixels", cli_number(result->pixels), "knn_top1_untrained",
        cli_number(result->knn_untrained), "knn_top1", cli_number(result->knn), "linear_top1_untrained",
        cli_number(result->linear_untrained), "linear_top1", cli_number(result->linear), "curve", points_json(result));
    if (object && result->interrupted) {
        (void)json_object_set_new(object, "interrupted", json_true());
    }
    if (object && result->dots_count) {
        (void)json_object_set_new(object, "map", map_json(result));
    }
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(object);
    if (!text) {
        return err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    }
    const struct span parts[] = {{text, strlen(text)}, {"\n", 1}};
    int rc = disk_join(path, folder, "result.json") ? err_set(err, ERR_CANTCREATE, "%s: the path is too long", folder)
                                                    : disk_save(&disk_posix, path, parts, 2, err);
    free(text);
    return rc;
}

static double real_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static uint64_t count_of(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

static int read_map(const json_t *map, struct cell_result *out)
{
    const json_t *classes = json_object_get(map, "classes"), *dots = json_object_get(map, "dots");
    size_t n = json_array_size(dots), names = json_array_size(classes);
    if (n == 0 || n > MAP_DOTS_MAX || names > sizeof out->classes / sizeof out->classes[0]) {
        return 0; /* There is no map. */
    }
    out->dots = mem_new(n, sizeof *out->dots);
    if (!out->dots) {
        return ERR_NOMEM;
    }
    out->dots_count = (uint32_t)n;
    out->classes_count = (uint32_t)names;
    for (size_t i = 0; i < names; i++) {
        const char *name = json_string_value(json_array_get(classes, i));
        (void)snprintf(out->classes[i], sizeof out->classes[i], "%s", name ? name : "");
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *dot = json_array_get(dots, i);
        out->dots[i] = (struct map_dot){.x = (float)json_number_value(json_array_get(dot, 0)),
                                        .y = (float)json_number_value(json_array_get(dot, 1)),
                                        .class = (uint32_t)json_integer_value(json_array_get(dot, 2)),
                                        .client = (uint32_t)json_integer_value(json_array_get(dot, 3))};
    }
    return 0;
}

static bool is_share(double value)
{
    return value >= 0 && value <= 1;
}

static int read_result(const json_t *object, struct cell_result *out)
{
    *out = (struct cell_result){
        .clients = (uint32_t)count_of(object, "clients"),
        .images = count_of(object, "images"),
        .images_seen = count_of(object, "images_seen"),
        .rounds = (uint32_t)count_of(object, "rounds"),
        .seconds = real_of(object, "seconds"),
        .interrupted = json_is_true(json_object_get(object, "interrupted")),
        .restarts = (uint32_t)count_of(object, "restarts"),
        .bytes_up = count_of(object, "bytes_up"),
        .bytes_down = count_of(object, "bytes_down"),
        .pixels = real_of(object, "knn_top1_pixels"),
        .knn_untrained = real_of(object, "knn_top1_untrained"),
        .knn = real_of(object, "knn_top1"),
        .linear_untrained = real_of(object, "linear_top1_untrained"),
        .linear = real_of(object, "linear_top1"),
    };
    const json_t *curve = json_object_get(object, "curve");
    for (size_t i = 0; i < json_array_size(curve) && i < POINTS_MAX; i++) {
        const json_t *point = json_array_get(curve, i);
        out->points[out->points_count++] = (struct point){.round = (uint32_t)count_of(point, "round"),
                                                          .bytes = count_of(point, "bytes"),
                                                          .knn = real_of(point, "knn_top1")};
    }
    bool whole =
        out->clients >= 1 && out->clients <= CLIENTS_MAX && out->rounds && is_share(out->knn) && is_share(out->linear);
    for (uint32_t i = 0; i < out->points_count; i++) {
        whole = whole && is_share(out->points[i].knn);
    }
    return whole ? read_map(json_object_get(object, "map"), out) : ERR_NOTFOUND;
}

int result_load(const char *folder, const struct hash128 *key, struct cell_result *out, struct err *err)
{
    char path[DISK_PATH_MAX], hex[HASH_HEX];
    uint8_t *text;
    size_t len;
    memset(out, 0, sizeof *out);
    int rc = disk_join(path, folder, "result.json") ? ERR_NOTFOUND
                                                    : disk_load(&disk_posix, path, RESULT_MAX, &text, &len, err);
    if (rc) {
        return rc;
    }
    json_t *object = json_loadb((const char *)text, len, 0, NULL);
    const char *has = json_string_value(json_object_get(object, "key"));
    rc = has && strcmp(has, hash_hex(key, hex)) == 0 ? read_result(object, out) : ERR_NOTFOUND;
    json_decref(object);
    mem_free(text);
    return rc ? err_set(err, rc, "%s: %s", path, rc == ERR_NOTFOUND ? "of another cell" : err_meaning(rc)) : 0;
}

void result_fini(struct cell_result *result)
{
    mem_free(result->dots);
    memset(result, 0, sizeof *result);
}
