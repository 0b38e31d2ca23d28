/* The error list: codes, names and exit codes agree; sentences are cut and scrubbed, never overrun. */
#include "common/base/err.h"
#include "common/base/name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_list(void **state)
{
    (void)state;
    assert_int_equal(ERR_NOMEM, -1);
    for (int code = -1; code >= -ERR_COUNT; code--) {
        assert_string_not_equal(err_name(code), "UNKNOWN");
        assert_true(strlen(err_meaning(code)) > 0);
        assert_true(err_exit_code(code) > 0 && err_exit_code(code) < 128);
        for (int other = -1; other > code; other--) {
            assert_string_not_equal(err_name(code), err_name(other));
        }
    }
    assert_string_equal(err_name(ERR_CONFIG), "CONFIG");
    assert_int_equal(err_exit_code(ERR_CONFIG), 78); /* EX_CONFIG */
    assert_int_equal(err_exit_code(ERR_DATA), 65);
    assert_int_equal(err_exit_code(ERR_UNAVAILABLE), 69);
    assert_int_equal(err_exit_code(ERR_PROTOCOL), 76);
    assert_int_equal(err_exit_code(0), 0);
    assert_string_equal(err_name(0), "OK");
    assert_string_equal(err_meaning(0), "no error");
    const int outside[] = {1, -1 - ERR_COUNT, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(err_name(outside[i]), "UNKNOWN");
        assert_string_equal(err_meaning(outside[i]), "unknown error");
        assert_int_equal(err_exit_code(outside[i]), 1);
    }
}

static void test_set(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(err_set(&err, ERR_DATA, "file %s is bad", "a\nb\x1b[2J\x7f"), ERR_DATA);
    assert_int_equal(err.code, ERR_DATA);
    assert_string_equal(err.text, "file a?b?[2J? is bad");
    assert_int_equal(err_set(NULL, ERR_IO, "nobody reads this"), ERR_IO);
    char longer[2000];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    (void)err_set(&err, ERR_DATA, "%s", longer);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

static void test_prefix(void **state)
{
    (void)state;
    struct err err;
    (void)err_set(&err, ERR_DATA, "truncated");
    assert_int_equal(err_prefix(&err, "model-%d", 7), ERR_DATA);
    assert_string_equal(err.text, "model-7: truncated");
    assert_int_equal(err_prefix(&err, "a\nb"), ERR_DATA);
    assert_string_equal(err.text, "a?b: model-7: truncated");
    assert_int_equal(err_prefix(NULL, "x"), ERR_FAILED);
    char longer[sizeof err.text];
    for (size_t len = sizeof longer - 8; len < sizeof longer; len++) { /* all the ways in which the rest can be cut */
        memset(longer, 'p', len);
        longer[len] = '\0';
        (void)err_set(&err, ERR_IO, "the sentence");
        assert_int_equal(err_prefix(&err, "%s", longer), ERR_IO);
        assert_true(strlen(err.text) < sizeof err.text);
        assert_memory_equal(err.text, longer, len);
    }
}

static void test_names(void **state)
{
    (void)state;
    assert_true(name_is_valid("site-1.example_X"));
    const char *const bad[] = {"", "a b", "a/b", "a\n", "caf\xc3\xa9", "a;b", "<b>", "a\"", "~"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(name_is_valid(bad[i]));
    }
    char name[NAME_MAX_BYTES + 1];
    memset(name, 'n', sizeof name);
    name[NAME_MAX_BYTES - 1] = '\0';
    assert_true(name_is_valid(name)); /* 64 */
    name[NAME_MAX_BYTES - 1] = 'n';
    name[NAME_MAX_BYTES] = '\0';
    assert_false(name_is_valid(name)); /* 65 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
