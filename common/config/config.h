/* Configuration from one table: each option has a dotted key, a type, bounds, a default and a sentence; the YAML
 * reader, --set, --print-config and the commented sample files all come from the same table.
 *
 * Unknown keys, wrong types and values out of bounds are errors of the form
 *     server.yaml:14:3: unknown key "min_client"; did you mean "min_clients"?
 * with ERR_CONFIG. Duplicate keys, anchors and multiple documents are refused. */
#ifndef STARLING_CONFIG_CONFIG_H
#define STARLING_CONFIG_CONFIG_H

#include "common/base/buf.h"
#include "common/base/disk.h"
#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_FILE_MAX ((size_t)1 << 20)

enum option_type {
    OPTION_BOOL,     /* bool:     true | false */
    OPTION_U32,      /* uint32_t */
    OPTION_U64,      /* uint64_t */
    OPTION_F64,      /* double */
    OPTION_DURATION, /* uint64_t, milliseconds: "500ms", "30s", "30m", "2h" */
    OPTION_TEXT,     /* char[size] */
    OPTION_CHOICE,   /* uint32_t, index into `choices` */
    OPTION_U32_LIST, /* uint32_t[size], its length as uint32_t at `count_offset` */
};

struct option {
    const char *key; /* dotted, as in "model.width" */
    enum option_type type;
    size_t offset; /* of the field in the struct the table describes */
    size_t size;   /* TEXT: bytes with the zero; U32_LIST: most elements */
    size_t count_offset;
    double least, most;         /* numbers and durations (ms), inclusive; lists: of each element */
    const char *standard;       /* the default, written as in YAML; NULL: no default, a TEXT that starts empty */
    const char *const *choices; /* NULL-terminated */
    const char *help;
    bool
        added; /* after canonical forms were kept and sent: left out of them at its default, so they keep their bytes */
};

/* Options of one section (the same key up to the last dot) stand together, so that it is printed once.
 * One struct may be described by several tables: the server's is its own options plus the plan's under "plan". */
struct option_table {
    const char *prefix; /* "" or "plan"; without the dot */
    size_t base;        /* offset of the described struct in the outer one */
    const struct option *options;
    size_t count;
};
struct option_set {
    const struct option_table *tables;
    size_t count;
};

void config_defaults(const struct option_set *set, void *out);
/* `name` is the file's name for messages. Values not named in the file stay as they are. */
int config_parse(const struct option_set *set, const char *name, const uint8_t *text, size_t len, void *out,
                 struct err *err);
/* The same, and every key of the set must be there; one that was added later has its default when it is not. */
int config_parse_complete(const struct option_set *set, const char *name, const uint8_t *text, size_t len, void *out,
                          struct err *err);
/* One key from a flag or --set; `where` is for messages ("--set"). */
int config_set(const struct option_set *set, const char *where, const char *key, const char *value, void *out,
               struct err *err);
/* The same for "KEY=VALUE", as --set takes it. ERR_USAGE when it is not written so. */
int config_assign(const struct option_set *set, const char *where, const char *pair, void *out, struct err *err);
/* config_parse of a file. ERR_CONFIG also when it cannot be read. */
int config_load(const struct option_set *set, const struct disk *disk, const char *path, void *out, struct err *err);
/* The leaves of a YAML file whose keys are not all known beforehand, in the file's order: `key` is dotted, a list of
 * scalars is one value "[a, b]", and each map announces itself by a call with value NULL before its keys. `where` is
 * "FILE:LINE:COLUMN", for messages. What visit returns, if it is not 0, is returned. The same is refused as by
 * config_parse, and more than 4,096 keys. */
typedef int config_visit(void *arg, const char *where, const char *key, const char *value, struct err *err);
int config_leaves(const char *name, const uint8_t *text, size_t len, config_visit *visit, void *arg, struct err *err);
/* The whole set as YAML; with comments: each option's help and bounds above it (the sample file). */
int config_print(const struct option_set *set, const void *in, bool comments, struct buf *out);
/* The same without comments, and without keys that were added later and have their default. */
int config_print_canonical(const struct option_set *set, const void *in, struct buf *out);

#endif
