/* The keys of client.yaml. */
#ifndef STARLING_CLIENT_OPTIONS_H
#define STARLING_CLIENT_OPTIONS_H

#include "common/config/config.h"

/* Describes a struct client_options (client/shell/client.h). */
extern const struct option_set client_option_set;

#endif
