/* Option sets: defaults, single keys, files and printing. Keys are found by set.c, the YAML reader is yaml.c, the
 * values are value.c. */
#include "common/config/config.h"

#include "common/base/mem.h"
#include "common/config/set.h"
#include "common/config/value.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

void config_defaults(const struct option_set *set, void *out)
{
    for (size_t i = 0; i < set_count(set); i++) {
        struct set_option found;
        set_at(set, i, &found);
        struct err err;
        int rc = value_parse(found.option, found.option->standard ? found.option->standard : "",
                             (char *)out + found.base, &err);
        assert(rc == 0 && "a default out of its own bounds"); /* the table is part of the program */
        (void)rc;
    }
}

int config_set(const struct option_set *set, const char *where, const char *key, const char *value, void *out,
               struct err *err)
{
    struct set_option found;
    if (!set_find(set, key, &found)) {
        size_t index;
        if (*key && set_has_section(set, key, &index)) {
            set_at(set, index, &found);
            return err_set(err, ERR_CONFIG, "%s: \"%s\" is a section; name a key in it, such as \"%s\"", where, key,
                           found.key);
        }
        return set_unknown(set, where, "", key, err);
    }
    int rc = value_parse(found.option, value, (char *)out + found.base, err);
    if (rc) {
        (void)err_prefix(err, "%s: %s", where, key);
    }
    return rc;
}

int config_assign(const struct option_set *set, const char *where, const char *pair, void *out, struct err *err)
{
    char key[KEY_MAX];
    const char *equals = strchr(pair, '=');
    size_t len = equals ? (size_t)(equals - pair) : 0;
    if (len == 0 || len >= sizeof key) {
        struct set_option example;
        set_at(set, set_count(set) - 1, &example);
        return err_set(err, ERR_USAGE, "%s %.64s: it is written KEY=VALUE, as in %s %s=%s", where, pair, where,
                       example.key, example.option->standard ? example.option->standard : "VALUE");
    }
    memcpy(key, pair, len);
    key[len] = '\0';
    return config_set(set, where, key, equals + 1, out, err);
}

int config_load(const struct option_set *set, const struct disk *disk, const char *path, void *out, struct err *err)
{
    uint8_t *text;
    size_t len;
    int rc = disk_load(disk, path, CONFIG_FILE_MAX, &text, &len, err);
    if (rc) {
        if (err) {
            err->code = ERR_CONFIG; /* a configuration that cannot be read is a wrong configuration */
        }
        return ERR_CONFIG;
    }
    rc = config_parse(set, path, text, len, out, err);
    mem_free(text);
    return rc;
}

static int indent(struct buf *out, size_t depth)
{
    return buf_printf(out, "%*s", (int)(2 * depth), "");
}

/* The help in lines of at most 100 columns, then the bounds and the default. */
static int print_comment(const struct option *option, size_t depth, struct buf *out)
{
    const char *text = option->help;
    int rc = 0;
    while (rc == 0 && *text) {
        size_t len = strlen(text), most = 98 - 2 * depth;
        if (len > most) {
            for (len = most; len > 0 && text[len] != ' '; len--) {
            }
            len = len ? len : most;
        }
        rc = indent(out, depth);
        rc = rc ? rc : buf_printf(out, "# %.*s\n", (int)len, text);
        text += len;
        text += *text == ' ';
    }
    rc = rc ? rc : indent(out, depth);
    rc = rc ? rc : buf_printf(out, "# (");
    rc = rc ? rc : value_print_bounds(option, out);
    if (option->standard) {
        rc = rc ? rc : buf_printf(out, "; default %s", option->standard);
    }
    return rc ? rc : buf_printf(out, ")\n");
}

/* Headers of the sections that `key` lies in and `before` did not; *depth is how many key lies in. */
static int print_sections(const char *before, const char *key, size_t *depth, struct buf *out)
{
    int rc = 0;
    bool same = true;
    *depth = 0;
    for (const char *dot = strchr(key, '.'); dot && rc == 0; dot = strchr(dot + 1, '.')) {
        size_t end = (size_t)(dot - key) + 1;
        same = same && strncmp(before, key, end) == 0;
        if (!same) {
            const char *name = dot;
            while (name > key && name[-1] != '.') {
                name--;
            }
            rc = indent(out, *depth);
            rc = rc ? rc : buf_printf(out, "%.*s:\n", (int)(dot - name), name);
        }
        ++*depth;
    }
    return rc;
}

/* Whether the canonical form does without this option. */
static int is_left_out(const struct set_option *found, const void *in, struct buf *scratch, bool *out)
{
    const char *standard = found->option->standard;
    *out = false;
    scratch->len = 0;
    if (!found->option->added) {
        return 0;
    }
    int rc = value_print(found->option, (const char *)in + found->base, scratch);
    *out = rc == 0 && scratch->len == strlen(standard) && memcmp(scratch->data, standard, scratch->len) == 0;
    return rc;
}

static int print(const struct option_set *set, const void *in, bool comments, bool canonical, struct buf *out)
{
    char before[KEY_MAX] = "";
    struct buf scratch;
    int rc = 0;
    buf_init(&scratch, CONFIG_FILE_MAX);
    for (size_t i = 0; rc == 0 && i < set_count(set); i++) {
        struct set_option found;
        size_t depth;
        bool left_out = false;
        set_at(set, i, &found);
        rc = canonical ? is_left_out(&found, in, &scratch, &left_out) : 0;
        if (left_out) {
            continue;
        }
        rc = rc ? rc : print_sections(before, found.key, &depth, out);
        if (comments) {
            rc = rc ? rc : print_comment(found.option, depth, out);
        }
        const char *dot = strrchr(found.key, '.');
        rc = rc ? rc : indent(out, depth);
        rc = rc ? rc : buf_printf(out, "%s: ", dot ? dot + 1 : found.key);
        rc = rc ? rc : value_print(found.option, (const char *)in + found.base, out);
        rc = rc ? rc : buf_append(out, "\n", 1);
        memcpy(before, found.key, sizeof before);
    }
    buf_fini(&scratch);
    return rc;
}

int config_print(const struct option_set *set, const void *in, bool comments, struct buf *out)
{
    return print(set, in, comments, false, out);
}

int config_print_canonical(const struct option_set *set, const void *in, struct buf *out)
{
    return print(set, in, false, true, out);
}
