/* Tokens as people give them: whatever is wrong with one, it is not repeated; and what a join that failed leaves. */
#include "client/shell/passport.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SHOWN_MOST 23u /* characters of a token that may stand in a sentence */

static char folder[] = "/tmp/starling-passport-XXXXXX";
static struct token token;
static char text[TOKEN_TEXT_MAX];

static int set_up(void **state)
{
    (void)state;
    token = (struct token){.address = "127.0.0.1:1", .name = "clinic-a", .role = TRUST_TRAINER, .expires = INT64_MAX};
    for (int i = 0; i < 32; i++) {
        token.secret[i] = (uint8_t)(37 * i + 11);
        token.pin[i] = (uint8_t)(91 * i + 5);
    }
    return mkdtemp(folder) && chdir(folder) == 0 && token_write(&token, text, NULL) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    return chdir("/") || system(command);
}

/* The longest piece of the token in what was said. */
static size_t shown(const char *said)
{
    size_t longest = 0;
    for (; *said; said++) {
        for (const char *at = text; *at; at++) {
            size_t len = 0;
            while (said[len] && said[len] == at[len]) {
                len++;
            }
            longest = len > longest ? len : longest;
        }
    }
    return longest;
}

static void refuses_without_repeating(const char *given)
{
    struct token out;
    struct err err = {0};
    assert_true(passport_read_token(given, &out, &err) < 0);
    if (shown(err.text) > SHOWN_MOST) {
        fail_msg("\"%s\" repeats %zu characters", err.text, shown(err.text));
    }
}

static void a_broken_token_is_not_repeated(void **state)
{
    (void)state;
    char given[2 * TOKEN_TEXT_MAX];
    size_t len = strlen(text);
    assert_int_equal(passport_read_token(text, &token, NULL), 0);
    for (size_t cut = 1; cut < len; cut++) { /* without its first letters, its last, and both */
        refuses_without_repeating(text + cut);
        (void)snprintf(given, sizeof given, "%.*s", (int)(len - cut), text);
        refuses_without_repeating(given);
        (void)snprintf(given, sizeof given, "%.*s", (int)(len - cut), text + cut / 2 + 1);
        refuses_without_repeating(given);
    }
    static const char *const wrong[] = {"%s%s", "Starling1:%s", "starling1%s", "./%s", "token=%s", "<%s>"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        (void)snprintf(given, sizeof given, wrong[i], text + strlen("starling1:"), text);
        refuses_without_repeating(given);
    }
    struct err err;
    (void)err_set(&err, ERR_DATA, "%.200s: read: not found", text + 1); /* as it was */
    assert_true(shown(err.text) > SHOWN_MOST);
}

static void a_file_is_called_by_its_name(void **state)
{
    (void)state;
    struct token out;
    struct err err;
    assert_int_equal(passport_read_token("/etc/starling/clinic-a.token", &out, &err), ERR_NOTFOUND);
    assert_non_null(strstr(err.text, "/etc/starling/clinic-a.token"));
    FILE *file = fopen("clinic-a.token", "w");
    assert_true(file && fputs(text + 1, file) >= 0 && fclose(file) == 0);
    assert_int_equal(passport_read_token("clinic-a.token", &out, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "clinic-a.token"));
    assert_true(shown(err.text) <= SHOWN_MOST);
}

static bool is_there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

/* Nobody listens at the token's address. */
static void a_failed_join_leaves_nothing(void **state)
{
    (void)state;
    assert_int_equal(mkdir("was-there", 0700), 0);
    assert_int_equal(passport_join(&token, "was-there/made/identity", NULL, NULL, NULL), ERR_UNAVAILABLE);
    assert_false(is_there("was-there/made"));
    assert_true(is_there("was-there"));
    assert_int_equal(passport_join(&token, "was-there", NULL, NULL, NULL), ERR_UNAVAILABLE);
    assert_true(is_there("was-there"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_broken_token_is_not_repeated),
        cmocka_unit_test(a_file_is_called_by_its_name),
        cmocka_unit_test(a_failed_join_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
