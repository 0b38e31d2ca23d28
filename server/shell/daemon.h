/* The coordinator daemon: owns the loop, the listener, the connections, the store and the job thread, and turns the
 * coordinator's actions into I/O. */
#ifndef STARLING_SERVER_DAEMON_H
#define STARLING_SERVER_DAEMON_H

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/config/plan.h"

struct server_options {
    char listen[300];
    char state[1024];
    char trust[1024];              /* folder of `starling ca`: TLS; empty: plain */
    uint64_t certificate_valid_ms; /* of those that are given out */
    bool plain_beyond_loopback;
    uint64_t idle_timeout_ms;
    uint32_t upload_slots;
    uint32_t upload_rate;                          /* bytes a second that keep a slot while others wait */
    uint32_t max_clients;                          /* connections at a time */
    uint32_t strangers_max, strangers_per_address; /* beside these: not welcomed yet */
    uint32_t socket_buffer; /* bytes of each kernel buffer of a connection; 0: as the kernel likes */
    uint32_t keep_every;    /* models of rounds that are multiples of it are kept; 0: only round 0, the last and its
                               predecessor */
    struct {
        uint32_t capacity;
    } bank;
    struct {
        uint32_t format; /* text, json */
        uint32_t level;
    } log;
    struct plan plan;
    bool new_run;
};

/* What the bounds of single keys cannot say. ERR_CONFIG and the sentence. */
int daemon_check(const struct server_options *options, struct err *err);
/* What a start would find wrong with the folder of `trust`. */
int daemon_check_trust(const struct server_options *options, struct err *err);
/* Runs until SIGTERM or SIGINT; after the last round it stays, to answer status and late clients. Returns 0 or the code
 * whose exit code the program ends with. A second signal ends the process at once, with exit code 1. */
int daemon_run(const struct server_options *options, const struct log *log, struct err *err);

#endif
