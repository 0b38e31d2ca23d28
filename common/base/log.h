/* The log as an argument: rooms report events, the shell decides where they go.
 *
 * An event has a name (snake_case, stable: people grep for it) and fields "key=value key=value"; a value with spaces
 * stands in double quotes. Library code never prints. The sink may be called from any thread. */
#ifndef STARLING_BASE_LOG_H
#define STARLING_BASE_LOG_H

#include "common/base/buf.h"

#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

struct log {
    void (*emit)(void *ctx, enum log_level level, const char *event, const char *fields);
    void *ctx;
    enum log_level least; /* events below are dropped */
};

/* What comes from outside (a name, a path, a peer's sentence) stands in double quotes, made fit for them: "..." */
const char *log_quotable(const char *text, char *out, size_t size);
/* A NULL log drops everything. */
void log_event(const struct log *log, enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

const char *log_level_name(enum log_level level); /* "info" */

/* One line with its newline, as text (2026-11-25T01:02:03.004Z info round_opened round=3 ...) or as one JSON object
 * {"time":..,"level":..,"event":..,"round":"3",..}. unix_ms is the wall clock, passed in. */
int log_format_line(struct buf *out, bool json, int64_t unix_ms, enum log_level level, const char *event,
                    const char *fields);

/* The sink of programs: lines to a file descriptor (stderr), one write per line, from any thread. */
struct log_fd {
    int fd;
    bool json;
};
void log_fd_emit(void *ctx, enum log_level level, const char *event, const char *fields);

#endif
