/* What somebody is in a federation: on the wire, in tokens, in certificates. */
#ifndef STARLING_BASE_ROLE_H
#define STARLING_BASE_ROLE_H

#include <stdbool.h>
#include <stdint.h>

/* HELLO says one of the first three; SERVER is in certificates alone. */
enum role { ROLE_TRAINER = 1, ROLE_OBSERVER, ROLE_OPERATOR, ROLE_SERVER };

const char *role_name(uint32_t role);             /* "trainer"; a number from outside may be anything: "unknown" */
bool role_parse(const char *text, uint32_t *out); /* of the four words */

#endif
