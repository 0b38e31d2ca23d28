/* Command-line flags from one table: parsing, bounds, and --help all come from it. Pure: nothing is printed here.
 *
 * "--name VALUE" and "--name=VALUE" are both understood; "--" ends the flags. Every program and verb knows --help
 * (and -h). argv[0] is the program or verb and is passed over. */
#ifndef STARLING_CONFIG_FLAGS_H
#define STARLING_CONFIG_FLAGS_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum flag_type {
    FLAG_SWITCH,   /* bool */
    FLAG_TEXT,     /* const char *, points into argv */
    FLAG_U32,      /* uint32_t, within least..most */
    FLAG_U64,      /* uint64_t */
    FLAG_DURATION, /* uint64_t, milliseconds: "30m", "7d" */
    FLAG_LIST,     /* const char *[FLAG_LIST_MAX], repeatable; NULL-terminated */
};
#define FLAG_LIST_MAX 64

struct flag {
    const char *name; /* "listen", without dashes */
    enum flag_type type;
    void *value;
    const char *operand; /* "HOST:PORT", for help; NULL for switches */
    const char *help;
    uint64_t least, most; /* numbers and durations; most 0: no bound */
    bool required;
};

/* ERR_USAGE and the sentence for an unknown flag (with the nearest name), a missing or bad value, a flag given twice
 * (not lists), a missing required flag, more positional words than `positional_max`. *help is set when --help was
 * given, and then nothing else is judged. Positional words go to `positional` in order; *positional_count may be NULL
 * when max is 0. */
int flags_parse(const struct flag *flags, size_t count, int argc, char *const *argv, const char **positional,
                size_t positional_max, size_t *positional_count, bool *help, struct err *err);
/* Usage line, examples, then the flags in columns. */
int flags_help(const char *usage, const char *about, const char *examples, const struct flag *flags, size_t count,
               struct buf *out);

#endif
