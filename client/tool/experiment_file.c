/* FILE.yaml of `starling experiment`:
 *
 *     images: cifar10/train       # relative to where the command runs; --images and --test have the last word
 *     test: cifar10/test
 *     train_per_class: 2000       # 0: all
 *     validation_per_class: 500   # held out of `images` and judged instead of `test`
 *     clients: 5
 *     points: 5
 *     seeds: [1, 2, 3]
 *     splits: [iid, classes:2]
 *     plan: {rounds: 60, ...}     # of every method
 *     methods:
 *       fedavg: {fusion: {enabled: false}, matching: {enabled: false}}
 *       centralised: {place: one, fusion: {enabled: false}, matching: {enabled: false}}
 *
 * A method is a plan: its keys are the plan's, after those of `plan`. Three keys are the experiment's: place (sites,
 * alone, one), seeds, map. */
#include "client/tool/experiment.h"

#include "client/data/split_plan.h"
#include "common/base/mem.h"
#include "common/config/number.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_MOST 1000000u /* as the plan has it */
#define AT(field)  .offset = offsetof(struct experiment, field)

/* clang-format off */
static const struct option experiment_options[] = {
    {"images", OPTION_TEXT, AT(images), .size = DISK_PATH_MAX, .help = "Training images, one folder a class."},
    {"test", OPTION_TEXT, AT(test), .size = DISK_PATH_MAX, .help = "Images to be judged by."},
    {"train_per_class", OPTION_U32, AT(train_per_class), .least = 0, .most = 1e9, .standard = "0",
     .help = "Training images of each class; 0: all."},
    {"validation_per_class", OPTION_U32, AT(validation_per_class), .least = 0, .most = 1e9, .standard = "0",
     .help = "Held out of the training images and judged instead of `test`."},
    {"clients", OPTION_U32, AT(clients), .least = 1, .most = CLIENTS_MAX, .standard = "5", .help = "Sites."},
    {"points", OPTION_U32, AT(points), .least = 1, .most = POINTS_MAX, .standard = "5",
     .help = "Models of a run that are scored."},
};
static const struct option_table experiment_table = {
    .prefix = "", .options = experiment_options, .count = sizeof experiment_options / sizeof experiment_options[0]};
static const struct option_set experiment_set = {.tables = &experiment_table, .count = 1};

static const char *const places[] = {"sites", "alone", "one", NULL};
static const struct option method_options[] = {
    {"place", OPTION_CHOICE, .offset = offsetof(struct method, place), .choices = places, .standard = "sites",
     .help = "Where the images are: at the sites; at the sites, each on its own; in one place."},
    {"seeds", OPTION_U32, .offset = offsetof(struct method, seeds), .least = 0, .most = SEEDS_MAX, .standard = "0",
     .help = "The first so many seeds; 0: all."},
    {"map", OPTION_BOOL, .offset = offsetof(struct method, map), .standard = "false", .help = "Draws a map."},
};
/* clang-format on */
static const struct option_table method_tables[] = {
    {.prefix = "", .options = method_options, .count = sizeof method_options / sizeof method_options[0]},
};
static const struct option_set method_set = {.tables = method_tables, .count = 1};

struct reading {
    struct experiment *experiment;
    struct plan base;
    bool methods; /* the second pass: methods, now that all of `plan` is known */
};

static bool below(const char *key, const char *section, const char **rest)
{
    size_t len = strlen(section);
    *rest = key + len + 1;
    return strncmp(key, section, len) == 0 && key[len] == '.';
}

/* The next element of "[a, b]" from *at on; false at the end. One that does not fit becomes "?", which is nothing. */
static bool next_element(const char **at, char *out, size_t size)
{
    const char *begin = *at + strspn(*at, "[, ");
    size_t len = strcspn(begin, ",]");
    (void)snprintf(out, size, "%.*s", len < size ? (int)len : 1, len < size ? begin : "?");
    *at = begin + len;
    return len > 0;
}

static int read_splits(struct experiment *experiment, const char *where, const char *value, struct err *err)
{
    char text[SPLIT_NAME_MAX];
    struct split_spec spec;
    while (next_element(&value, text, sizeof text)) {
        int rc = split_parse(text, &spec, err) ? ERR_CONFIG : 0;
        if (rc) {
            (void)err_prefix(err, "%s", where);
            err->code = rc;
            return rc;
        }
        if (experiment->splits_count == SPLITS_MAX) {
            return err_set(err, ERR_CONFIG, "%s: more than %d splits", where, SPLITS_MAX);
        }
        for (uint32_t i = 0; i < experiment->splits_count; i++) {
            if (strcmp(experiment->splits[i], text) == 0) {
                return err_set(err, ERR_CONFIG, "%s: split %s is given twice", where, text);
            }
        }
        memcpy(experiment->splits[experiment->splits_count++], text, sizeof text);
    }
    return 0;
}

static int read_seeds(struct experiment *experiment, const char *where, const char *value, struct err *err)
{
    char text[24];
    while (next_element(&value, text, sizeof text)) {
        char *end;
        errno = 0;
        uint64_t seed = strtoull(text, &end, 10);
        if (errno || *end || text[0] < '0' || text[0] > '9' || experiment->seeds_count == SEEDS_MAX) {
            return err_set(err, ERR_CONFIG, "%s: seeds: a list of at most %d whole numbers is expected", where,
                           SEEDS_MAX);
        }
        for (uint32_t i = 0; i < experiment->seeds_count; i++) {
            if (experiment->seeds[i] == seed) {
                return err_set(err, ERR_CONFIG, "%s: seed %s is given twice", where, text);
            }
        }
        experiment->seeds[experiment->seeds_count++] = seed;
    }
    return 0;
}

static bool decided_here(const char *key)
{
    return strcmp(key, "seed") == 0 || strcmp(key, "min_clients") == 0 || strcmp(key, "clients_per_round") == 0;
}

static int read_common(struct reading *reading, const char *where, const char *key, const char *value, struct err *err)
{
    struct experiment *experiment = reading->experiment;
    const char *rest;
    if (below(key, "plan", &rest) && decided_here(rest)) {
        return err_set(err, ERR_CONFIG, "%s: the experiment itself decides %s", where, rest);
    }
    if (below(key, "plan", &rest)) {
        return value ? config_set(&plan_set, where, rest, value, &reading->base, err) : 0;
    }
    if (!value || !*value) { /* a map, or one whose keys are all commented out */
        return strcmp(key, "plan") == 0 || strcmp(key, "methods") == 0
                   ? 0
                   : err_set(err, ERR_CONFIG, "%s: unknown section \"%s\"", where, key);
    }
    if (strcmp(key, "splits") == 0) {
        return read_splits(experiment, where, value, err);
    }
    if (strcmp(key, "seeds") == 0) {
        return read_seeds(experiment, where, value, err);
    }
    return config_set(&experiment_set, where, key, value, experiment, err);
}

static int add_method(struct reading *reading, const char *where, const char *name, struct err *err)
{
    struct experiment *experiment = reading->experiment;
    if (experiment->methods_count == METHODS_MAX) {
        return err_set(err, ERR_CONFIG, "%s: more than %d methods", where, METHODS_MAX);
    }
    if (strlen(name) >= METHOD_NAME_MAX ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != strlen(name)) {
        return err_set(err, ERR_CONFIG, "%s: a method's name is 1 to %d letters, digits, - and _", where,
                       METHOD_NAME_MAX - 1);
    }
    struct method *method = &experiment->methods[experiment->methods_count++];
    (void)snprintf(method->name, sizeof method->name, "%s", name);
    config_defaults(&method_set, method);
    method->plan = reading->base;
    return 0;
}

static int read_method(struct reading *reading, const char *where, const char *rest, const char *value, struct err *err)
{
    const char *dot = strchr(rest, '.');
    if (!dot) {
        return value ? err_set(err, ERR_CONFIG, "%s: a method is a map of keys of the plan; {} has none", where)
                     : add_method(reading, where, rest, err);
    }
    size_t len = (size_t)(dot - rest);
    uint32_t count = reading->experiment->methods_count;
    struct method *method = count ? &reading->experiment->methods[count - 1] : NULL;
    if (!method || strncmp(method->name, rest, len) != 0 || method->name[len]) {
        return err_set(err, ERR_CONFIG, "%s: \"%s\": a method is a map of keys, such as {seeds: 1}", where, rest);
    }
    const char *key = dot + 1;
    if (!value) {
        return 0;
    }
    if (decided_here(key)) {
        return err_set(err, ERR_CONFIG, "%s: the experiment itself decides %s", where, key);
    }
    for (size_t i = 0; i < method_tables[0].count; i++) {
        if (strcmp(method_options[i].key, key) == 0) {
            return config_set(&method_set, where, key, value, method, err);
        }
    }
    return config_set(&plan_set, where, key, value, &method->plan, err);
}

static int visit(void *arg, const char *where, const char *key, const char *value, struct err *err)
{
    struct reading *reading = arg;
    const char *rest;
    bool of_method = below(key, "methods", &rest);
    if (of_method != reading->methods) {
        return 0;
    }
    return of_method ? read_method(reading, where, rest, value, err) : read_common(reading, where, key, value, err);
}

/* What the experiment decides about a method's plan, rather than its file. */
static int complete(const struct experiment *experiment, struct method *method, struct err *err)
{
    struct plan *plan = &method->plan;
    plan->min_clients = method->place == PLACE_SITES ? experiment->clients : 1;
    plan->clients_per_round = 0;
    uint64_t steps = (uint64_t)plan->local_steps * (method->place == PLACE_ONE ? experiment->clients : 1);
    if (steps > STEPS_MOST) {
        return err_set(err, ERR_CONFIG, "method %s: local_steps: %llu of all clients in one place are more than %u",
                       method->name, (unsigned long long)steps, STEPS_MOST);
    }
    plan->local_steps = (uint32_t)steps;
    int rc = plan_check(plan, err);
    if (rc == 0 && plan->model.input != experiment->methods[0].plan.model.input) {
        rc = err_set(err, ERR_CONFIG, "all methods are scored on the same images, so model.input must be the same");
    }
    return rc ? err_prefix(err, "method %s", method->name) : 0;
}

static int check(struct experiment *experiment, const char *path, struct err *err)
{
    if (!experiment->images[0]) {
        return err_set(err, ERR_CONFIG, "%s: nothing to learn from: give --images DIR, or `images` in the file", path);
    }
    if (!experiment->test[0] && !experiment->validation_per_class) {
        return err_set(err, ERR_CONFIG,
                       "%s: nothing to be judged by: give --test DIR, or `test` or `validation_per_class` in the file",
                       path);
    }
    if (!experiment->methods_count || !experiment->splits_count || !experiment->seeds_count) {
        return err_set(err, ERR_CONFIG, "%s: methods, splits and seeds: at least one of each is needed", path);
    }
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < experiment->methods_count; i++) {
        rc = complete(experiment, &experiment->methods[i], err);
    }
    return rc ? err_prefix(err, "%s", path) : 0;
}

static int set_path(char out[DISK_PATH_MAX], const char *path, struct err *err)
{
    return path && (size_t)snprintf(out, DISK_PATH_MAX, "%s", path) >= DISK_PATH_MAX
               ? err_set(err, ERR_USAGE, "%.64s...: the path is too long", path)
               : 0;
}

int experiment_read(const char *path, const char *images, const char *test, struct experiment *out, struct err *err)
{
    uint8_t *text;
    size_t len;
    struct reading reading = {.experiment = out};
    memset(out, 0, sizeof *out);
    config_defaults(&experiment_set, out);
    config_defaults(&plan_set, &reading.base);
    int rc = disk_load(&disk_posix, path, CONFIG_FILE_MAX, &text, &len, err);
    if (rc) {
        return err_set(err, ERR_CONFIG, "%s: cannot be read: %s", path, disk_why(&disk_posix, rc));
    }
    rc = config_leaves(path, text, len, visit, &reading, err);
    reading.methods = true;
    rc = rc ? rc : config_leaves(path, text, len, visit, &reading, err);
    mem_free(text);
    rc = rc ? rc : set_path(out->images, images, err);
    rc = rc ? rc : set_path(out->test, test, err);
    if (rc == 0 && test && out->validation_per_class) {
        rc = err_set(
            err, ERR_USAGE,
            "--test %s: %s has validation_per_class, so that images held out of the training images are judged; "
            "leave one of the two out",
            test, path);
    }
    return rc ? rc : check(out, path, err);
}
