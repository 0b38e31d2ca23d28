/* The file of measured kernel choices (client/nn/choices.h). It is locked from before it is read until what was
 * measured is written, so that several clients of one machine measure one after the other and agree. */
#ifndef STARLING_CLIENT_SHELL_KERNELS_H
#define STARLING_CLIENT_SHELL_KERNELS_H

#include "client/nn/choices.h"
#include "common/base/log.h"

struct kernels {
    struct choices choices;
    char path[4096];
    int lock;     /* -1: none */
    bool foreign; /* the path is not ours to write: it is left alone */
    const struct log *log;
};

/* path: the file; its folder exists. A file that cannot be read or written, or that is something else, costs a new
 * measurement at the next start, which the log says, and nothing else. Waits a minute at most for another process's
 * lock, and not any longer once *cancel is true. */
void kernels_open(const char *path, const struct log *log, const bool *cancel, struct kernels *out);
void kernels_close(struct kernels *kernels);

#endif
