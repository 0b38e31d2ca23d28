/* "Did you mean": which known name is nearest to a mistyped one. */
#ifndef STARLING_CONFIG_NEAREST_H
#define STARLING_CONFIG_NEAREST_H

#include <stddef.h>
#include <stdint.h>

/* Edits (insert, delete, replace, swap neighbours) that turn one word into the other; UINT32_MAX when either is longer
 * than NEAREST_WORD_MAX. */
#define NEAREST_WORD_MAX 63
uint32_t nearest_distance(const char *a, const char *b);

/* Feeds candidates one by one: start with {0}, offer each, then read `name`: NULL when none is within a third of the
 * word's length (at least one edit). The first of equals wins. */
struct nearest {
    const char *name;
    uint32_t distance;
};
void nearest_offer(struct nearest *nearest, const char *word, const char *candidate);

#endif
