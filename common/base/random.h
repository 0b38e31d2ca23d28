/* Random bytes of the kernel's, which nobody can draw again: for ids, and for what must stay secret. What sites must
 * agree on comes from rng.h. */
#ifndef STARLING_BASE_RANDOM_H
#define STARLING_BASE_RANDOM_H

#include "common/base/err.h"

#include <stddef.h>

/* ERR_FAILED: the kernel has none to give. */
int random_bytes(void *out, size_t bytes, struct err *err);

#endif
