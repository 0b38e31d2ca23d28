/* Values of options: text to field and back. For the files of this room alone.
 *
 * Numbers are read and written the same in every locale. What value_print writes, value_parse reads back to the same
 * bits; the text of a TEXT option stands in double quotes there, and only there. */
#ifndef STARLING_CONFIG_VALUE_H
#define STARLING_CONFIG_VALUE_H

#include "common/config/config.h"

/* Longest text a single value may have in messages; longer ones are cut there. */
#define VALUE_SHOWN 64

/* One scalar, its quotes already taken off, into `field`; for a U32_LIST that is the element `index`, and `count` in
 * the described struct is left alone. ERR_CONFIG with "is no whole number from 1 to 10" or the like, to stand after the
 * name. ERR_NOMEM. On failure the field stays as it was, a list apart. */
int value_parse_scalar(const struct option *option, const char *text, size_t len, uint32_t index, void *base,
                       struct err *err);
/* The same for a whole value as a flag has it: a list is "1,1,1,1" or "[1, 1, 1, 1]". */
int value_parse(const struct option *option, const char *text, void *base, struct err *err);
/* Sets the length of a U32_LIST and zeroes what lies behind it. ERR_CONFIG when it is empty. */
int value_end_list(const struct option *option, uint32_t count, void *base, struct err *err);
int value_print(const struct option *option, const void *base, struct buf *out);
/* "1 to 10", "true or false", "small or large", "at most 255 bytes": what an option accepts, for the comments. */
int value_print_bounds(const struct option *option, struct buf *out);

#endif
