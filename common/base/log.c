#include "common/base/log.h"

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/rng.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *log_level_name(enum log_level level)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    return names[level];
}

const char *log_quotable(const char *text, char *out, size_t size)
{
    (void)snprintf(out, size, "%s", text);
    for (char *at = out; (at = strchr(at, '"')) != NULL;) {
        *at = '\'';
    }
    return out;
}

void log_event(const struct log *log, enum log_level level, const char *event, const char *format, ...)
{
    if (!log || !log->emit || level < log->least) {
        return;
    }
    char fields[2048];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(fields, sizeof fields, format, args);
    va_end(args);
    for (char *c = fields; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            *c = '?';
        }
    }
    log->emit(log->ctx, level, event, fields);
}

#define LOG_LIMIT_TELL_MS 60000u

static const struct rate_limit limit_each = {.each_ms = 1000, .burst_ms = LOG_LIMIT_EACH * 1000u};
static const struct rate_limit limit_all = {.each_ms = 60, .burst_ms = LOG_LIMIT_ALL * 60u};

void log_limit_init(struct log_limit *limit, const struct log *log, uint64_t seed)
{
    *limit = (struct log_limit){.log = log, .seed = seed};
}

static uint64_t key_of(const char *text)
{
    struct hash128 hash = hash_of(text, strlen(text));
    uint64_t key;
    memcpy(&key, &hash, sizeof key);
    return key;
}

/* Takes from all rates or from none: what a crowd is not let write leaves the rates as they are, which others share.
 * kind: NULL: any number of its event. */
static const struct log *take(struct log_limit *limit, struct rate *each, struct rate *kind, const char *event,
                              const char *by, uint64_t now_ms)
{
    if (rate_has(each, &limit_each, now_ms) && (!kind || rate_has(kind, &limit_each, now_ms)) &&
        rate_has(&limit->all, &limit_all, now_ms)) {
        (void)rate_take(each, &limit_each, 1, now_ms);
        (void)rate_take(&limit->all, &limit_all, 1, now_ms);
        if (kind) {
            (void)rate_take(kind, &limit_each, 1, now_ms);
        }
        return limit->log;
    }
    if (limit->untold++ == 0) {
        limit->tell_ms = now_ms + LOG_LIMIT_TELL_MS;
    }
    limit->suppressed++;
    (void)snprintf(limit->event, sizeof limit->event, "%s", event);
    (void)snprintf(limit->by, sizeof limit->by, "%s", by);
    return NULL;
}

static struct rate *rate_of(struct log_limit *limit, uint64_t key)
{
    return &limit->each[rng_mix(key ^ limit->seed) % LOG_LIMIT_ROWS];
}

static struct rate *rate_of_kind(struct log_limit *limit, const char *event)
{
    size_t i = 0;
    while (i < LOG_LIMIT_KINDS - 1 && limit->kinds[i].event && strcmp(limit->kinds[i].event, event) != 0) {
        i++;
    }
    limit->kinds[i].event = event;
    return &limit->kinds[i].rate;
}

const struct log *log_limit_take(struct log_limit *limit, const char *event, const char *name, uint64_t now_ms)
{
    return take(limit, rate_of(limit, key_of(name)), NULL, event, name, now_ms);
}

const struct log *log_limit_take_of(struct log_limit *limit, const char *event, const char *address, uint64_t group,
                                    uint64_t now_ms)
{
    struct rate *each = rate_of(limit, group ? group : key_of(address));
    return take(limit, each, rate_of_kind(limit, event), event, address, now_ms);
}

void log_limit_tick(struct log_limit *limit, uint64_t now_ms)
{
    if (limit->untold > 0 && now_ms >= limit->tell_ms) {
        log_event(limit->log, LOG_LEVEL_WARN, "log_suppressed", "count=%llu latest=%s by=\"%s\"",
                  (unsigned long long)limit->untold, limit->event, limit->by);
        limit->untold = 0;
    }
}

uint64_t log_limit_next_ms(const struct log_limit *limit)
{
    return limit->untold > 0 ? limit->tell_ms : UINT64_MAX;
}

static int format_time(struct buf *out, int64_t unix_ms)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm;
    char text[32];
    if (!gmtime_r(&seconds, &tm) || strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm) == 0) {
        text[0] = '\0';
    }
    return buf_printf(out, "%s.%03dZ", text, (int)(unix_ms % 1000));
}

/* A value in quotes ends where nothing, or another key, follows: the sentence of an error may quote something itself.
 * (What a peer has written goes through log_quotable, so that it cannot add fields.) */
static size_t quoted_length(const char *value)
{
    size_t len = strcspn(value, "\"");
    while (value[len] == '"') {
        const char *next = value + len + 1;
        size_t key = *next == ' ' ? strspn(next + 1, "abcdefghijklmnopqrstuvwxyz_0123456789") : 0;
        if (*next == '\0' || (key > 0 && next[1 + key] == '=')) {
            break;
        }
        len += 1 + strcspn(next, "\"");
    }
    return len;
}

/* "a=1 b="two words"" -> ,"a":"1","b":"two words". What does not look like key=value goes into "text". */
static int json_fields(struct buf *out, const char *fields)
{
    int rc = 0;
    while (*fields && rc == 0) {
        while (*fields == ' ') {
            fields++;
        }
        size_t key = strcspn(fields, "= ");
        char part[2048];
        if (*fields == '\0') {
            break;
        }
        if (fields[key] != '=') {
            rc = buf_printf(out, ",\"text\":\"");
            rc = rc ? rc : buf_json_escape(out, fields);
            return rc ? rc : buf_printf(out, "\"");
        }
        (void)snprintf(part, sizeof part, "%.*s", (int)key, fields);
        rc = buf_printf(out, ",\"");
        rc = rc ? rc : buf_json_escape(out, part);
        rc = rc ? rc : buf_printf(out, "\":\"");
        const char *value = fields + key + 1;
        size_t len;
        if (*value == '"') {
            value++;
            len = quoted_length(value);
            fields = value + len + (value[len] == '"');
        } else {
            len = strcspn(value, " ");
            fields = value + len;
        }
        (void)snprintf(part, sizeof part, "%.*s", (int)len, value);
        rc = rc ? rc : buf_json_escape(out, part);
        rc = rc ? rc : buf_printf(out, "\"");
    }
    return rc;
}

int log_format_line(struct buf *out, bool json, int64_t unix_ms, enum log_level level, const char *event,
                    const char *fields)
{
    int rc = 0;
    if (json) {
        rc = buf_printf(out, "{\"time\":\"");
        rc = rc ? rc : format_time(out, unix_ms);
        rc = rc ? rc : buf_printf(out, "\",\"level\":\"%s\",\"event\":\"%s\"", log_level_name(level), event);
        rc = rc ? rc : json_fields(out, fields);
        return rc ? rc : buf_printf(out, "}\n");
    }
    rc = format_time(out, unix_ms);
    return rc ? rc : buf_printf(out, " %-5s %s%s%s\n", log_level_name(level), event, *fields ? " " : "", fields);
}

void log_fd_emit(void *ctx, enum log_level level, const char *event, const char *fields)
{
    const struct log_fd *sink = ctx;
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    struct buf line;
    buf_init(&line, 16384);
    if (log_format_line(&line, sink->json, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000, level, event, fields) ==
        0) {
        ssize_t ignored = write(sink->fd, line.data, line.len);
        (void)ignored; /* A full or closed stderr must not stop a daemon. */
    }
    buf_fini(&line);
}
