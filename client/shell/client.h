/* The client daemon: the loop (connection, timers, signals) and one trainer thread. */
#ifndef STARLING_CLIENT_SHELL_H
#define STARLING_CLIENT_SHELL_H

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/name.h"

#include <stdbool.h>
#include <stdint.h>

#define DEFAULT_SERVER "127.0.0.1:7640"

enum client_role { CLIENT_TRAINER, CLIENT_OBSERVER };

struct client_options {
    uint32_t role;     /* enum client_role */
    char server[300];  /* empty: as the token said, or DEFAULT_SERVER */
    char images[1024]; /* a trainer's */
    char train[1024];  /* an observer's labelled folders */
    char test[1024];
    char name[NAME_MAX_BYTES]; /* empty: the host's name */
    char state[1024];          /* empty: starling-client-NAME in the working folder */
    char identity[1024];       /* empty: identity in the state folder */
    const char *join;          /* a token, or a file that holds one; NULL: none was given */
    uint32_t threads;          /* 0: all processors */
    uint32_t nice;             /* 0 to 19 */
    struct {
        uint32_t backend;   /* enum compute_backend */
        uint32_t precision; /* enum compute_precision */
        uint32_t winograd;  /* 0 auto, 1 off */
        char kernels[1024]; /* file of measured choices; empty: in the state folder */
    } compute;
    bool share_features;
    bool reproducible; /* without a secret */
    bool stay;         /* after the run is done */
    bool new_run;      /* forget the state of another run */
    struct {
        uint32_t format;
        uint32_t level;
    } log;
};

/* What the bounds of single keys cannot say. ERR_CONFIG and the sentence. */
int client_check(const struct client_options *options, struct err *err);
/* Runs until the run is done (with `stay`: until a signal), SIGTERM or SIGINT: 0; or until there is a reason to stop:
 * its code. A second signal ends the process at once, with exit code 1. */
int client_run(const struct client_options *options, const struct log *log, struct err *err);

#endif
