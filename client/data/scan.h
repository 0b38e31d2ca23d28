/* The files of a folder as a sorted list: what dataset.c decodes and `starling split` deals out. */
#ifndef STARLING_DATA_SCAN_H
#define STARLING_DATA_SCAN_H

#include "common/base/err.h"
#include "common/base/hash.h"

#include <stdbool.h>
#include <stdint.h>

struct scan_file {
    char *path; /* relative to the folder */
    uint64_t size;
    int64_t mtime_ns;
};

struct scan {
    struct scan_file *files; /* by path, bytewise */
    uint32_t count;
    uint32_t capacity;
};

/* Regular files below the folder, links to files followed, links to folders not, hidden names skipped. ERR_DATA with
 * the path for a missing folder or one without files; ERR_CANCELLED when *cancel (may be NULL) becomes true. */
int scan_folder(const char *folder, const bool *cancel, struct scan *out, struct err *err);
void scan_fini(struct scan *scan);
/* Of all paths, sizes and times of change; zero when out of memory. */
struct hash128 scan_hash(const struct scan *scan);

/* Classes: the first folder of a path. */
struct classes {
    char **names; /* sorted bytewise */
    uint32_t count;
    uint32_t *labels; /* one per path; NULL when there are no classes */
};
/* No classes at all (count 0) when any path lies directly in the folder. ERR_NOMEM. */
int classes_of(const char *const *paths, uint32_t count, struct classes *out);
void classes_fini(struct classes *classes);

#endif
