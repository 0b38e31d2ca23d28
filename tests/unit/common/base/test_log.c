/* The log: levels, the two forms of a line, and that nothing from outside can break out of its line. */
#include "common/base/err.h"
#include "common/base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels), cmocka_unit_test(test_hostile_fields), cmocka_unit_test(test_text),
        cmocka_unit_test(test_json),   cmocka_unit_test(test_line_limit),     cmocka_unit_test(test_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
