/* The file of measured kernel choices (client/nn/choices.h). It is locked from before it is read until what was
 * measured is written, so that several clients of one machine measure one after the other and agree. */
#ifndef STARLING_CLIENT_SHELL_KERNELS_H
#define STARLING_CLIENT_SHELL_KERNELS_H

#include "client/nn/choices.h"
#include "common/base/log.h"

struct kernels {
    struct choices choices;
    char path[4096];
    int lock; /* -1: none */
    const struct log *log;
};

/* path: the file; its folder exists. A file that cannot be read or written costs a new measurement at the next start,
 * which the log says, and nothing else. */
void kernels_open(const char *path, const struct log *log, struct kernels *out);
void kernels_close(struct kernels *kernels);

/* Bytes that this process may still take: the system's MemAvailable, or what a control group leaves of its limit. 0:
 * not known. */
uint64_t memory_available(void);

#endif
