/* Values of options: what each type accepts and refuses, and that what is printed reads back as the same bits, in every
 * locale. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/config/number.h"
#include "common/config/value.h"

#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct sample {
    bool on;
    uint32_t small, choice, list[3], list_count;
    uint64_t big, wait_ms;
    double number;
    char text[16];
};
#define AT(field) .offset = offsetof(struct sample, field)
static const char *const colours[] = {"red", "green", NULL};
static const struct option options[] = {
    {"on", OPTION_BOOL, AT(on), .standard = "true", .help = "h"},
    {"small", OPTION_U32, AT(small), .least = 1, .most = 100, .standard = "7", .help = "h"},
    {"big", OPTION_U64, AT(big), .least = 0, .most = 0x1p64, .standard = "8", .help = "h"},
    {"wait", OPTION_DURATION, AT(wait_ms), .least = 0, .most = 7200000, .standard = "90s", .help = "h"},
    {"number", OPTION_F64, AT(number), .least = -1e308, .most = 1e308, .standard = "0.5", .help = "h"},
    {"text", OPTION_TEXT, AT(text), .size = 16, .help = "h"},
    {"choice", OPTION_CHOICE, AT(choice), .choices = colours, .standard = "green", .help = "h"},
    {"list", OPTION_U32_LIST, AT(list), .size = 3, .count_offset = offsetof(struct sample, list_count), .least = 1,
     .most = 9, .standard = "[1, 2]", .help = "h"},
};
enum { COUNT = sizeof options / sizeof options[0] };
static const struct option_table table = {.prefix = "", .options = options, .count = COUNT};
static const struct option_set set = {.tables = &table, .count = 1};

static void test_defaults(void **state)
{
    (void)state;
    struct sample sample;
    memset(&sample, 0xee, sizeof sample);
    config_defaults(&set, &sample);
    assert_true(sample.on);
    assert_int_equal(sample.small, 7);
    assert_int_equal(sample.big, 8);
    assert_int_equal(sample.wait_ms, 90000);
    assert_true(sample.number == 0.5);
    assert_string_equal(sample.text, "");
    assert_int_equal(sample.choice, 1);
    assert_int_equal(sample.list_count, 2);
    assert_int_equal(sample.list[0], 1);
    assert_int_equal(sample.list[1], 2);
    assert_int_equal(sample.list[2], 0);
}

/* want: the value printed again, or NULL for a refusal. */
static void check(const char *key, const char *value, const char *want)
{
    struct sample sample, before;
    struct err err;
    struct buf out;
    memset(&sample, 0, sizeof sample);
    config_defaults(&set, &sample);
    before = sample;
    int rc = config_set(&set, "--set", key, value, &sample, &err);
    if (!want) {
        if (rc != ERR_CONFIG) {
            fail_msg("%s took \"%s\"", key, value);
        }
        assert_true(strncmp(err.text, "--set: ", 7) == 0 && strstr(err.text, key));
        assert_true(strcmp(key, "list") == 0 || memcmp(&sample, &before, sizeof sample) == 0);
        return;
    }
    if (rc) {
        fail_msg("%s", err.text);
    }
    buf_init(&out, 256);
    for (size_t i = 0; i < COUNT; i++) {
        if (strcmp(options[i].key, key) == 0) {
            assert_int_equal(value_print(&options[i], &sample, &out), 0);
        }
    }
    assert_int_equal(buf_append(&out, "", 1), 0);
    assert_string_equal((const char *)out.data, want);
    buf_fini(&out);
}

static void test_each_type(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"on", "true", "true"},
        {"on", "false", "false"},
        {"on", "yes", NULL},
        {"on", "True", NULL},
        {"on", "", NULL},
        {"small", "1", "1"},
        {"small", "100", "100"},
        {"small", "0", NULL},
        {"small", "101", NULL},
        {"small", "-1", NULL},
        {"small", "+1", NULL},
        {"small", " 1", NULL},
        {"small", "1 ", NULL},
        {"small", "07", NULL},
        {"small", "0x7", NULL},
        {"small", "1e1", NULL},
        {"small", "7.0", NULL},
        {"small", "", NULL},
        {"small", "4294967297", NULL}, /* 1 after cutting to 32 bits */
        {"small", "18446744073709551617", NULL},
        {"big", "18446744073709551615", "18446744073709551615"},
        {"big", "0", "0"},
        {"big", "18446744073709551616", NULL},
        {"big", "184467440737095516150", NULL},
        {"wait", "0s", "0s"},
        {"wait", "1500ms", "1500ms"},
        {"wait", "2000ms", "2s"},
        {"wait", "60s", "1m"},
        {"wait", "90s", "90s"},
        {"wait", "60m", "1h"},
        {"wait", "2h", "2h"},
        {"wait", "3h", NULL},
        {"wait", "30", NULL},
        {"wait", "30 s", NULL},
        {"wait", "s", NULL},
        {"wait", "1.5s", NULL},
        {"wait", "-1s", NULL},
        {"wait", "1d", NULL},
        {"wait", "1sx", NULL},
        {"wait", "5124095576030432h", NULL}, /* wraps to a small number of ms */
        {"number", "0.06", "0.06"},
        {"number", "-12.5e-3", "-0.0125"},
        {"number", "1E3", "1000"},
        {"number", "1000000", "1000000"},
        {"number", "-0", "-0"},
        {"number", "1e300", "1e+300"},
        {"number", "1e309", NULL},
        {"number", "inf", NULL},
        {"number", "nan", NULL},
        {"number", "0x1p3", NULL},
        {"number", ".5", NULL},
        {"number", "5.", NULL},
        {"number", "1e", NULL},
        {"number", "1,5", NULL},
        {"number", " 1", NULL},
        {"number", "--1", NULL},
        {"number", "", NULL},
        {"text", "", "\"\""},
        {"text", "fifteen bytes..", "\"fifteen bytes..\""},
        {"text", "sixteen bytes...", NULL},
        {"text", "a\"b\\c", "\"a\\\"b\\\\c\""},
        {"text", "caf\xc3\xa9", "\"caf\xc3\xa9\""},
        {"text", "\xf0\x9f\x90\xa6", "\"\xf0\x9f\x90\xa6\""},
        {"text", "a\nb", NULL},
        {"text", "a\tb", NULL},
        {"text", "\x7f", NULL},
        {"text", "\xc2\x85", NULL},     /* NEL, a line break to YAML */
        {"text", "\xe2\x80\xa8", NULL}, /* so is LINE SEPARATOR */
        {"text", "\xef\xbb\xbf", NULL}, /* byte order mark */
        {"text", "\xef\xbf\xbf", NULL}, /* U+FFFF */
        {"text", "\xff", NULL},         /* no UTF-8 from here on */
        {"text", "\x80", NULL},
        {"text", "\xc3", NULL},
        {"text", "\xc3(", NULL},
        {"text", "\xc0\xaf", NULL},         /* overlong */
        {"text", "\xed\xa0\x80", NULL},     /* surrogate */
        {"text", "\xf4\x90\x80\x80", NULL}, /* beyond U+10FFFF */
        {"choice", "red", "red"},
        {"choice", "Red", NULL},
        {"choice", "blue", NULL},
        {"choice", "1", NULL},
        {"list", "3", "[3]"},
        {"list", "3,2,1", "[3, 2, 1]"},
        {"list", "[3, 2 ,1]", "[3, 2, 1]"},
        {"list", "[ 3 ]", "[3]"},
        {"list", "1,1,1,1", NULL},
        {"list", "", NULL},
        {"list", "[]", NULL},
        {"list", "[", NULL},
        {"list", "1,", NULL},
        {"list", ",1", NULL},
        {"list", "1,,1", NULL},
        {"list", "1 1", NULL},
        {"list", "10", NULL},
        {"list", "0", NULL},
        {"list", "[1", NULL},
        {"list", "1,a", NULL},
        {"list", "100000000000000000000000000", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check(rows[i][0], rows[i][1], rows[i][2]);
    }
}

static void test_messages(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"on", "yes", "--set: on: \"yes\" is not true or false"},
        {"small", "-5", "--set: small: \"-5\" is no whole number from 1 to 100"},
        {"big", "x", "--set: big: \"x\" is no whole number from 0 to 18446744073709551615"},
        {"wait", "3h", "--set: wait: \"3h\" is no duration from 0s to 2h"},
        {"wait", "90",
         "--set: wait: \"90\" is no duration from 0s to 2h; write a number with a unit, as in 30s, 45m, 12h or 7d"},
        {"choice", "blue", "--set: choice: \"blue\" is none of red, green"},
        {"list", "0", "--set: list: \"0\" is no list of 1 to 3 numbers from 1 to 9"},
        {"text", "\n", "--set: text: \"?\" is no printable text of at most 15 bytes"},
        {"smal", "5", "--set: unknown key \"smal\"; did you mean \"small\"?"},
        {"colour", "5", "--set: unknown key \"colour\""},
        {"", "5", "--set: unknown key \"\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sample sample = {0};
        struct err err;
        assert_int_equal(config_set(&set, "--set", rows[i][0], rows[i][1], &sample, &err), ERR_CONFIG);
        assert_string_equal(err.text, rows[i][2]);
    }
    assert_int_equal(config_set(&set, "--set", "small", "x", &(struct sample){0}, NULL), ERR_CONFIG);
}

static void check_number(double value)
{
    char text[32];
    double back = 0;
    bool ok;
    assert_int_equal(number_print(value, text), 0);
    assert_int_equal(number_parse(text, &back, &ok), 0);
    if (!ok || memcmp(&back, &value, sizeof value) != 0) {
        fail_msg("%a became %s became %a", value, text, back);
    }
}

static void test_numbers_survive(void **state)
{
    (void)state;
    static const double odd[] = {0,
                                 -0.0,
                                 0.1,
                                 1.0 / 3,
                                 5e-324,
                                 2.2250738585072014e-308,
                                 1e15,
                                 1e15 + 1,
                                 0x1p53 + 2,
                                 1e22,
                                 1.7976931348623157e308,
                                 123456789012345680};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        check_number(odd[i]);
    }
    struct rng rng;
    rng_init(&rng, 1, RNG_TEST, 0, 0, 0);
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = rng_u64(&rng);
        double value;
        memcpy(&value, &bits, sizeof value);
        if (isfinite(value)) {
            check_number(value);
        }
    }
}

/* A locale with a decimal comma: one that is installed, or one made on the spot of the C library's sources. False when
 * this machine has neither. */
static bool enter_comma_locale(char folder[64])
{
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "fr_FR", "pt_BR.UTF-8"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (setlocale(LC_ALL, names[i])) {
            return true;
        }
    }
    (void)snprintf(folder, 64, "/tmp/starling-locale-XXXXXX");
    if (!mkdtemp(folder)) {
        return false;
    }
    char command[256];
    (void)snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >/dev/null 2>&1", folder);
    return system(command) == 0 && setenv("LOCPATH", folder, 1) == 0 && setlocale(LC_ALL, "de_DE.UTF-8");
}

static void test_locale(void **state)
{
    (void)state;
    char folder[64] = "", text[32], command[128];
    if (enter_comma_locale(folder)) {
        (void)snprintf(text, sizeof text, "%.1f", 0.5);
        assert_string_equal(text, "0,5"); /* the locale does what it is here for */
        check("number", "0.06", "0.06");
        check("number", "0,06", NULL);
        assert_int_equal(number_print(0.25, text), 0);
        assert_string_equal(text, "0.25");
        (void)snprintf(text, sizeof text, "%.1f", 0.5);
        assert_string_equal(text, "0,5"); /* and the thread's locale is as it was */
    } else {
        print_message("no locale with a decimal comma here\n");
    }
    (void)setlocale(LC_ALL, "C");
    if (*folder) {
        (void)snprintf(command, sizeof command, "rm -rf %s", folder);
        assert_int_equal(system(command), 0);
    }
    check("number", "0.06", "0.06");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),        cmocka_unit_test(test_each_type), cmocka_unit_test(test_messages),
        cmocka_unit_test(test_numbers_survive), cmocka_unit_test(test_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
