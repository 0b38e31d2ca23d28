/* Keys of an option set. A set is a few tables of constant rows; every question is answered by walking them, since
 * there are some dozens of rows and questions are asked at start-up. */
#include "common/config/set.h"

#include "common/config/nearest.h"
#include "common/config/value.h"

#include <stdio.h>
#include <string.h>

size_t set_count(const struct option_set *set)
{
    size_t count = 0;
    for (size_t t = 0; t < set->count; t++) {
        count += set->tables[t].count;
    }
    return count;
}

void set_at(const struct option_set *set, size_t index, struct set_option *out)
{
    const struct option_table *table = set->tables;
    size_t row = index;
    for (; row >= table->count; table++) {
        row -= table->count;
    }
    *out = (struct set_option){.option = &table->options[row], .index = index, .base = table->base};
    (void)snprintf(out->key, sizeof out->key, "%s%s%s", table->prefix, *table->prefix ? "." : "", out->option->key);
}

bool set_find(const struct option_set *set, const char *key, struct set_option *out)
{
    for (size_t i = 0; i < set_count(set); i++) {
        set_at(set, i, out);
        if (strcmp(out->key, key) == 0) {
            return true;
        }
    }
    return false;
}

static bool lies_below(const char *key, const char *section)
{
    size_t len = strlen(section);
    return len == 0 || (strncmp(key, section, len) == 0 && key[len] == '.');
}

bool set_has_section(const struct option_set *set, const char *key, size_t *index)
{
    struct set_option option;
    for (*index = 0; *index < set_count(set); ++*index) {
        set_at(set, *index, &option);
        if (lies_below(option.key, key)) {
            return true;
        }
    }
    return false;
}

int set_unknown(const struct option_set *set, const char *where, const char *section, const char *key, struct err *err)
{
    char nearest[KEY_MAX] = "", full[KEY_MAX], name[KEY_MAX];
    uint32_t least = strlen(key) < 6 ? 2 : (uint32_t)strlen(key) / 3 + 1; /* what lies as far is no help */
    (void)snprintf(full, sizeof full, "%s%s%s", section, *section ? "." : "", key);
    for (size_t i = 0; i < set_count(set); i++) {
        struct set_option option;
        set_at(set, i, &option);
        if (lies_below(option.key, section)) {
            const char *below = option.key + strlen(section) + (*section != '\0');
            (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(below, "."), below);
            if (nearest_distance(key, name) < least) {
                least = nearest_distance(key, name);
                memcpy(nearest, name, sizeof nearest);
            }
        }
        const char *dot = strrchr(option.key, '.');
        uint32_t edits = dot && strcmp(dot + 1, key) == 0 ? 1 : nearest_distance(full, option.key);
        if (edits < least) {
            least = edits;
            memcpy(nearest, option.key, sizeof nearest);
        }
    }
    if (*nearest) {
        return err_set(err, ERR_CONFIG, "%s: unknown key \"%.*s\"; did you mean \"%s\"?", where, VALUE_SHOWN, key,
                       nearest);
    }
    return err_set(err, ERR_CONFIG, "%s: unknown key \"%.*s\"", where, VALUE_SHOWN, key);
}
