/* The log as an argument: rooms report events, the shell decides where they go.
 *
 * An event has a name (snake_case, stable: people grep for it) and fields "key=value key=value"; a value with spaces
 * stands in double quotes. Library code never prints. The sink may be called from any thread. */
#ifndef STARLING_BASE_LOG_H
#define STARLING_BASE_LOG_H

#include "common/base/buf.h"
#include "common/base/rate.h"

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

/* What others can make a program log, within bounds: each of them (a name, an address) LOG_LIMIT_EACH lines at once and
 * one a second, all together LOG_LIMIT_ALL lines at once and 1,000 a minute. The ordinary log stays far below both.
 * Names are given to people, addresses are as many as somebody likes to have: so of one event all addresses together
 * get no more than a single name. What is left out is counted, and told at most once a minute as log_suppressed. Whose
 * names fall together by their hash share a rate; a random seed keeps anybody from choosing with whom. Events are told
 * apart by name: strangers cause a dozen of them, and only those that find no row of their own any more share the last.
 */
#define LOG_LIMIT_EACH  120u
#define LOG_LIMIT_ALL   60000u
#define LOG_LIMIT_ROWS  1024u
#define LOG_LIMIT_KINDS 64u
struct log_limit {
    const struct log *log;
    uint64_t seed;
    struct rate all, each[LOG_LIMIT_ROWS];
    struct {
        const char *event; /* NULL: free */
        struct rate rate;
    } kinds[LOG_LIMIT_KINDS];
    uint64_t suppressed, untold; /* ever; since the last log_suppressed */
    uint64_t tell_ms;            /* while untold > 0 */
    char event[32], by[80];      /* the latest of them */
};
void log_limit_init(struct log_limit *limit, const struct log *log, uint64_t seed);
/* The log for one line of `event` that `name` causes; NULL: it is left out. To be handed to log_event. */
const struct log *log_limit_take(struct log_limit *limit, const char *event, const char *name, uint64_t now_ms);
/* ... that an address causes. event: a literal; group: what counts as one of them; 0: the text itself. */
const struct log *log_limit_take_of(struct log_limit *limit, const char *event, const char *address, uint64_t group,
                                    uint64_t now_ms);
/* Tells what was left out, when it is due. */
void log_limit_tick(struct log_limit *limit, uint64_t now_ms);
uint64_t log_limit_next_ms(const struct log_limit *limit); /* UINT64_MAX: never */

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
