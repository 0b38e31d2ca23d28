/* A swarm (client/swarm) on one loop: its connections, its clock, its end. */
#ifndef STARLING_CLIENT_SWARM_RUN_H
#define STARLING_CLIENT_SWARM_RUN_H

#include "client/swarm/swarm.h"

struct swarm_run_options {
    const char *server;
    const char *trust;          /* the CA's folder: each client gets a certificate of its own; NULL: plain */
    struct swarm_options swarm; /* instance, send and ctx are filled in here */
    uint64_t idle_ms;           /* with swarm.idle: for how long after the last was welcomed */
    /* Once, when all are welcomed; then as rounds end. May be NULL. */
    void (*on_welcomed)(void *ctx, const struct swarm *swarm, double seconds);
    void (*on_round)(void *ctx, const struct swarm *swarm, const struct swarm_round *round);
    void *ctx;
};

/* Runs to the end, or to the first thing that is not as it should be. Raises the process's soft limit of open files
 * where that is needed. *out: the swarm at its end, also after a failure; NULL when there was none. ERR_LIMIT (open
 * files), ERR_FAILED (a wrong model), and whatever connections and the swarm fail with. */
int swarm_run(const struct swarm_run_options *options, struct swarm **out, struct err *err);

#endif
