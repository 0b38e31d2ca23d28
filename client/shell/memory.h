/* How much memory is left for this process, and how much it had. */
#ifndef STARLING_CLIENT_SHELL_MEMORY_H
#define STARLING_CLIENT_SHELL_MEMORY_H

#include <stdint.h>

/* Bytes: the system's MemAvailable, or what this process's control group (version 2) leaves of its limit, where that is
 * less; memory that only caches files counts as free. 0: not known. */
uint64_t memory_available(void);
/* Bytes: the most that this process has had in memory so far. 0: not known. */
uint64_t memory_peak(void);

#endif
