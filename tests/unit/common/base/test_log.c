/* The log: levels, the two forms of a line, and that nothing from outside can break out of its line. */
#include "common/base/err.h"
#include "common/base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct seen {
    int count;
    enum log_level level;
    char event[64], fields[4096];
};

static void remember(void *ctx, enum log_level level, const char *event, const char *fields)
{
    struct seen *seen = ctx;
    seen->count++;
    seen->level = level;
    (void)snprintf(seen->event, sizeof seen->event, "%s", event);
    (void)snprintf(seen->fields, sizeof seen->fields, "%s", fields);
}

static void test_levels(void **state)
{
    (void)state;
    struct seen seen = {0};
    const struct log log = {.emit = remember, .ctx = &seen, .least = LOG_LEVEL_WARN};
    log_event(&log, LOG_LEVEL_INFO, "quiet", "a=1");
    assert_int_equal(seen.count, 0);
    log_event(&log, LOG_LEVEL_WARN, "loud", "round=%d", 3);
    log_event(&log, LOG_LEVEL_ERROR, "louder", "round=%d name=%s", 4, "x");
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.level, LOG_LEVEL_ERROR);
    assert_string_equal(seen.event, "louder");
    assert_string_equal(seen.fields, "round=4 name=x");
    log_event(NULL, LOG_LEVEL_ERROR, "nobody", "a=1");
    const struct log deaf = {.least = LOG_LEVEL_DEBUG};
    log_event(&deaf, LOG_LEVEL_ERROR, "nobody", "a=1");
    assert_int_equal(seen.count, 2);
}

static void test_hostile_fields(void **state)
{
    (void)state;
    struct seen seen = {0};
    const struct log log = {.emit = remember, .ctx = &seen, .least = LOG_LEVEL_DEBUG};
    log_event(&log, LOG_LEVEL_INFO, "hello", "name=%s", "evil\n2026 error fake\x1b[31m\x7f");
    assert_string_equal(seen.fields, "name=evil?2026 error fake?[31m?");
    char text[32];
    log_event(&log, LOG_LEVEL_INFO, "hello", "name=\"%s\" end=1", log_quotable("x\" event=\"done", text, sizeof text));
    assert_string_equal(seen.fields, "name=\"x' event='done\" end=1");
    char longer[8000];
    memset(longer, 'y', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    log_event(&log, LOG_LEVEL_INFO, "hello", "name=%s", longer);
    assert_true(strlen(seen.fields) > 1000 && strlen(seen.fields) < 4096);
}

static void check_line(bool json, enum log_level level, const char *fields, const char *want)
{
    struct buf out;
    buf_init(&out, 16384);
    /* 2026-11-25 01:02:03.004 UTC */
    assert_int_equal(log_format_line(&out, json, INT64_C(1795568523004), level, "round_opened", fields), 0);
    assert_int_equal(out.len, strlen(want));
    assert_memory_equal(out.data, want, out.len);
    buf_fini(&out);
}

static void test_text(void **state)
{
    (void)state;
    check_line(false, LOG_LEVEL_INFO, "round=3 of=50", "2026-11-25T01:02:03.004Z info  round_opened round=3 of=50\n");
    check_line(false, LOG_LEVEL_ERROR, "", "2026-11-25T01:02:03.004Z error round_opened\n");
}

#define JSON_HEAD "{\"time\":\"2026-11-25T01:02:03.004Z\",\"level\":\"warn\",\"event\":\"round_opened\""
static void test_json(void **state)
{
    (void)state;
    check_line(true, LOG_LEVEL_INFO, "reason=\"key \"a b\"; say \"c\"\" code=3 last=\"\"",
               "{\"time\":\"2026-11-25T01:02:03.004Z\",\"level\":\"info\",\"event\":\"round_opened\","
               "\"reason\":\"key \\\"a b\\\"; say \\\"c\\\"\",\"code\":\"3\",\"last\":\"\"}\n");
    check_line(true, LOG_LEVEL_WARN, "", JSON_HEAD "}\n");
    check_line(true, LOG_LEVEL_WARN, "round=3  of=50 ", JSON_HEAD ",\"round\":\"3\",\"of\":\"50\"}\n");
    check_line(true, LOG_LEVEL_WARN, "text=\"two words\" n=1", JSON_HEAD ",\"text\":\"two words\",\"n\":\"1\"}\n");
    check_line(true, LOG_LEVEL_WARN, "path=C:\\x", JSON_HEAD ",\"path\":\"C:\\\\x\"}\n");
    check_line(true, LOG_LEVEL_WARN, "text=\"open", JSON_HEAD ",\"text\":\"open\"}\n");
    check_line(true, LOG_LEVEL_WARN, "a= b=2", JSON_HEAD ",\"a\":\"\",\"b\":\"2\"}\n");
    check_line(true, LOG_LEVEL_WARN, "no \"fields\" here", JSON_HEAD ",\"text\":\"no \\\"fields\\\" here\"}\n");
}

static void test_line_limit(void **state)
{
    (void)state;
    for (size_t max = 0; max < 90; max++) { /* a line that does not fit is an error at every place it can end */
        struct buf out;
        buf_init(&out, max);
        assert_int_equal(log_format_line(&out, true, 0, LOG_LEVEL_INFO, "event", "key=value text=\"a b\" more"),
                         ERR_LIMIT);
        buf_fini(&out);
    }
}

static void test_descriptor(void **state)
{
    (void)state;
    int ends[2];
    char got[512];
    assert_int_equal(pipe(ends), 0);
    struct log_fd sink = {.fd = ends[1], .json = false};
    const struct log log = {.emit = log_fd_emit, .ctx = &sink, .least = LOG_LEVEL_DEBUG};
    log_event(&log, LOG_LEVEL_DEBUG, "started", "pid=%d", 12);
    ssize_t n = read(ends[0], got, sizeof got - 1);
    assert_true(n > 0);
    got[n] = '\0';
    assert_non_null(strstr(got, "Z debug started pid=12\n"));
    assert_int_equal(got[4], '-');
    (void)close(ends[0]);
    (void)close(ends[1]);
    sink.fd = -1;
    log_event(&log, LOG_LEVEL_DEBUG, "started", "pid=%d", 12); /* a closed descriptor stops nobody */
}

/* A second's burst of ten, ten a second afterwards, debts, and what is given back. */
static void test_rate(void **state)
{
    (void)state;
    const struct rate_limit limit = {.each_ms = 100, .burst_ms = 1000};
    for (uint64_t now = 0; now <= UINT64_C(1) << 40; now += UINT64_C(1) << 40) {
        struct rate rate = {0};
        for (int i = 0; i < 10; i++) {
            assert_true(rate_has(&rate, &limit, now));
            assert_int_equal(rate_take(&rate, &limit, 1, now), 0);
        }
        assert_false(rate_has(&rate, &limit, now));
        assert_int_equal(rate_take(&rate, &limit, 5, now), 500);
        assert_int_equal(rate_take(&rate, &limit, 1, now + 500), 100);
        assert_false(rate_has(&rate, &limit, now + 699));
        assert_true(rate_has(&rate, &limit, now + 700));
        rate_pay(&rate, &limit, 1000);
        for (int i = 0; i < 10; i++) { /* no more is saved up than the burst */
            assert_int_equal(rate_take(&rate, &limit, 1, now + 700), 0);
        }
        assert_int_equal(rate_take(&rate, &limit, 1, now + 700), 100);
    }
}

struct lines {
    uint64_t count, told, suppressed;
};
static void count_lines(void *ctx, enum log_level level, const char *event, const char *fields)
{
    struct lines *lines = ctx;
    (void)level;
    lines->count++;
    if (strcmp(event, "log_suppressed") == 0) {
        lines->told++;
        lines->suppressed += strtoull(strchr(fields, '=') + 1, NULL, 10);
    }
}

static struct log_limit limit; /* too large for a stack */

/* One that floods the log gets a line a second, and is told of once a minute with the exact number; another one's lines
 * are all there. */
static void test_limit_of_one(void **state)
{
    (void)state;
    struct lines lines = {0};
    const struct log log = {.emit = count_lines, .ctx = &lines, .least = LOG_LEVEL_DEBUG};
    uint64_t others = 0, now = 5000, end = now + 600 * 1000;
    log_limit_init(&limit, &log, 7);
    for (uint32_t i = 0; now < end; now++, i++) {
        log_event(log_limit_take(&limit, "client_joined", "flood", now), LOG_LEVEL_INFO, "client_joined", "name=flood");
        if (i % 10000 == 0) {
            others++;
            log_event(log_limit_take(&limit, "client_joined", "other", now), LOG_LEVEL_INFO, "client_joined", "a=b");
        }
        if (now >= log_limit_next_ms(&limit)) {
            log_limit_tick(&limit, now);
        }
    }
    assert_in_range(lines.told, 9, 10);
    assert_in_range(lines.count - lines.told - others, 600, 600 + LOG_LIMIT_EACH + 1);
    assert_int_equal(lines.count - lines.told + limit.suppressed, 600 * 1000 + others);
    assert_int_equal(lines.suppressed + limit.untold, limit.suppressed);
}

/* The ordinary log: 10,000 clients that come and go at once lose no line. Names that are made up for the purpose meet
 * the limit of all together. */
static void test_limit_of_all(void **state)
{
    (void)state;
    struct lines lines = {0};
    const struct log log = {.emit = count_lines, .ctx = &lines, .least = LOG_LEVEL_DEBUG};
    char name[32];
    log_limit_init(&limit, &log, 7);
    for (uint32_t i = 0; i < 20000; i++) {
        (void)snprintf(name, sizeof name, "client-%u", i / 2);
        log_event(log_limit_take(&limit, "client_left", name, 1000), LOG_LEVEL_INFO, "client_left", "a=b");
    }
    assert_int_equal(lines.count, 20000);
    for (uint32_t i = 0; i < 1000000; i++) {
        (void)snprintf(name, sizeof name, "made-up-%u", i);
        log_event(log_limit_take(&limit, "client_left", name, 1000 + i / 100), LOG_LEVEL_INFO, "client_left", "a=b");
    }
    assert_in_range(lines.count, LOG_LIMIT_ALL, LOG_LIMIT_ALL + 10 * 17 + 1);
}

/* Ten minutes of a flood from more addresses than there are rates: of one event they have what a single one has. What
 * others of them do is told, and names keep their lines, one of which causes as many as it may. */
static void test_limit_of_a_crowd(void **state)
{
    (void)state;
    struct lines lines = {0};
    const struct log log = {.emit = count_lines, .ctx = &lines, .least = LOG_LEVEL_DEBUG};
    uint64_t others = 0, names = 0, now = 5000, end = now + 600 * 1000;
    char name[32];
    log_limit_init(&limit, &log, 7);
    for (uint32_t i = 0; now < end; now += i % 4 == 0, i++) {
        log_event(log_limit_take_of(&limit, "connection_refused", "crowd", 1 + i % 100000, now), LOG_LEVEL_WARN,
                  "connection_refused", "address=crowd");
        if (i % 10000 == 0) {
            (void)snprintf(name, sizeof name, "site-%u", i);
            others += log_limit_take_of(&limit, "client_rejected", "late", 0, now) != NULL;
            names += log_limit_take(&limit, "client_left", name, now) != NULL;
        }
    }
    assert_in_range(lines.count, 600, 600 + LOG_LIMIT_EACH + 1);
    assert_int_equal(others, 240);
    assert_int_equal(names, 240);
}

/* How many lines of an event a crowd may still write. */
static uint32_t use_up(const char *event)
{
    static uint64_t group;
    uint32_t lines = 0;
    while (log_limit_take_of(&limit, event, "crowd", ++group, 1000)) {
        lines++;
    }
    return lines;
}

/* A crowd that has used up one event has used up no other one. Where there are more events than rows, the rest share
 * one. */
static void test_events_share_no_rate(void **state)
{
    (void)state;
    static const char *const events[] = {"accept_failed",      "access_refused",   "client_rejected",
                                         "connection_refused", "connections_full", "protocol_error",
                                         "send_failed",        "stranger_left",    "trust_unreadable"};
    static char more[LOG_LIMIT_KINDS][16];
    const struct log log = {.least = LOG_LEVEL_DEBUG};
    log_limit_init(&limit, &log, 7);
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        assert_int_equal(use_up(events[i]), LOG_LIMIT_EACH);
        assert_int_equal(use_up(events[i]), 0);
    }
    for (size_t i = 0; i < LOG_LIMIT_KINDS; i++) {
        (void)snprintf(more[i], sizeof more[i], "more_%zu", i);
        assert_int_equal(use_up(more[i]), i + sizeof events / sizeof events[0] < LOG_LIMIT_KINDS ? LOG_LIMIT_EACH : 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_hostile_fields),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_line_limit),
        cmocka_unit_test(test_descriptor),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_limit_of_one),
        cmocka_unit_test(test_limit_of_all),
        cmocka_unit_test(test_limit_of_a_crowd),
        cmocka_unit_test(test_events_share_no_rate),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
