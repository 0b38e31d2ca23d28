/* Keys of an option set: finding one, and finding what was meant. For the files of this room alone. */
#ifndef STARLING_CONFIG_SET_H
#define STARLING_CONFIG_SET_H

#include "common/config/config.h"

#define KEY_MAX 128 /* a full dotted key with its zero; longer ones are unknown */

/* One option with its place in the set. `index` counts through all tables. */
struct set_option {
    const struct option *option;
    size_t index;
    size_t base; /* of the table's struct in the outer one */
    char key[KEY_MAX];
};

size_t set_count(const struct option_set *set);
/* index < set_count(set). */
void set_at(const struct option_set *set, size_t index, struct set_option *out);
bool set_find(const struct option_set *set, const char *key, struct set_option *out);
/* Whether keys lie below `key`; *index is that of the first. */
bool set_has_section(const struct option_set *set, const char *key, size_t *index);
/* ERR_CONFIG: where: unknown key "min_client"; did you mean "min_clients"? `section` is where the key stands, "" at the
 * top; names in the same section come first, then the same name elsewhere. */
int set_unknown(const struct option_set *set, const char *where, const char *section, const char *key, struct err *err);

#endif
