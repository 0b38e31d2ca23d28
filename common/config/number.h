/* Numbers and durations as text, the same in every locale. For the files of this room alone. */
#ifndef STARLING_CONFIG_NUMBER_H
#define STARLING_CONFIG_NUMBER_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The shortest decimal that reads back as the same bits: "0.06", "1e-05", "1000000". value is finite. ERR_NOMEM. */
int number_print(double value, char out[32]);
/* *ok: a finite decimal, without spaces, hexadecimal, "inf" or a bare point. ERR_NOMEM. */
int number_parse(const char *text, double *out, bool *ok);
/* text[0, len) as digits alone, without a leading zero (which would mean octal to other readers of YAML). */
bool whole_parse(const char *text, size_t len, uint64_t *out);
/* Behind the complaint about what is none: what was forgotten is mostly the unit. */
#define DURATION_HINT "; write a number with a unit, as in 30s, 45m, 12h or 7d"
/* "500ms", "30s", "30m", "2h", "7d". */
bool duration_parse(const char *text, uint64_t *out_ms);
/* With the largest unit up to hours that leaves a whole number. */
int duration_print(uint64_t ms, struct buf *out);

#endif
