/* The keys of server.yaml. */
#ifndef STARLING_SERVER_OPTIONS_H
#define STARLING_SERVER_OPTIONS_H

#include "common/config/config.h"

/* Describes a struct server_options (server/shell/daemon.h): how the server runs, and the plan under "plan". The set
 * points into the struct it lies in. */
struct server_option_set {
    struct option_table tables[2];
    struct option_set set;
};
void server_option_set_init(struct server_option_set *out);

#endif
