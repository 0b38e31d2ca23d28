/* Quantities as people read them. */
#ifndef STARLING_TOOL_HUMAN_H
#define STARLING_TOOL_HUMAN_H

#include <stdint.h>

#define HUMAN_MAX 32
/* "0 B", "999 B", "1.2 KB", "45 MB", "2.3 GB": powers of 1000, two digits or more. Returns out. */
const char *human_bytes(uint64_t bytes, char out[HUMAN_MAX]);
/* "0.4 s", "12 s", "3 min 20 s", "2 h 5 min", "3 d 4 h". Returns out. */
const char *human_ms(uint64_t ms, char out[HUMAN_MAX]);
/* "1,234,567". Returns out. */
const char *human_count(uint64_t count, char out[HUMAN_MAX]);

#endif
