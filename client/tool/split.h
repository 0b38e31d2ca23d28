#ifndef STARLING_TOOL_SPLIT_H
#define STARLING_TOOL_SPLIT_H

#include "client/data/split_plan.h"
#include "common/base/buf.h"

struct split_options {
    const char *images; /* folder to deal out, with a folder for each class or flat (iid only) */
    const char *out;    /* new or empty; receives client-1, client-2, ... with the same class folders and file names */
    uint32_t clients;
    struct split_spec spec;
    uint64_t seed;
};
#define SPLIT_CLIENTS_MAX 10000

/* Hard links where the file system allows, else copies. table (may be NULL) receives who got what, for people.
 * ERR_DATA, ERR_CANTCREATE, ERR_FULL, ERR_IO, ERR_NOMEM. */
int split_run(const struct split_options *options, struct buf *table, struct err *err);

#endif
