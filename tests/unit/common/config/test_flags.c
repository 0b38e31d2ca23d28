/* Flags: every kind of value, every kind of mistake, and the help text. */
#include "common/config/flags.h"
#include "common/config/nearest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct {
    bool json;
    const char *images;
    uint32_t clients;
    uint64_t seed;
    const char *set[FLAG_LIST_MAX];
} got;

static const struct flag flags[] = {
    {"json", FLAG_SWITCH, &got.json, NULL, "one JSON object on the last line", 0, 0, false},
    {"images", FLAG_TEXT, &got.images, "DIR", "folder of images", 0, 0, true},
    {"clients", FLAG_U32, &got.clients, "N", "number of clients", 2, 100, false},
    {"seed", FLAG_U64, &got.seed, "N", "seed", 0, 0, false},
    {"set", FLAG_LIST, (void *)got.set, "KEY=VALUE", "one key of the plan", 0, 0, false},
};
#define FLAGS (sizeof flags / sizeof flags[0])

static struct err err;
static bool help;
static const char *words[2];
static size_t words_count;

/* Parses the words after the program's name; the list ends with NULL. */
static int parse(const char *first, ...)
{
    char *argv[FLAG_LIST_MAX * 3] = {(char *)"program"};
    int argc = 1;
    va_list args;
    va_start(args, first);
    for (const char *word = first; word; word = va_arg(args, const char *)) {
        argv[argc++] = (char *)word;
    }
    va_end(args);
    memset(&got, 0, sizeof got);
    err = (struct err){0};
    return flags_parse(flags, FLAGS, argc, argv, words, 2, &words_count, &help, &err);
}

static void assert_refused(int code, const char *sentence)
{
    assert_int_equal(code, ERR_USAGE);
    assert_int_equal(err.code, ERR_USAGE);
    assert_string_equal(err.text, sentence);
}

static void both_spellings_are_understood(void **state)
{
    (void)state;
    assert_int_equal(parse("--images", "a b", "--clients=7", "--json", "--seed", "18446744073709551615", NULL), 0);
    assert_string_equal(got.images, "a b");
    assert_int_equal(got.clients, 7);
    assert_true(got.json);
    assert_true(got.seed == UINT64_MAX);
    assert_int_equal(parse("--images=--odd=name", NULL), 0);
    assert_string_equal(got.images, "--odd=name");
    assert_false(got.json);
}

static void lists_collect_in_order(void **state)
{
    (void)state;
    assert_int_equal(parse("--images", "d", "--set", "rounds=3", "--set=model.width=8", NULL), 0);
    assert_string_equal(got.set[0], "rounds=3");
    assert_string_equal(got.set[1], "model.width=8");
    assert_null(got.set[2]);
}

static void a_full_list_is_refused_not_overrun(void **state)
{
    (void)state;
    char *argv[2 + FLAG_LIST_MAX] = {(char *)"program", (char *)"--images=d"};
    for (int i = 0; i < FLAG_LIST_MAX; i++) {
        argv[2 + i] = (char *)"--set=a=1";
    }
    memset(&got, 0, sizeof got);
    assert_int_equal(flags_parse(flags, FLAGS, FLAG_LIST_MAX + 1, argv, NULL, 0, NULL, &help, &err), 0);
    assert_null(got.set[FLAG_LIST_MAX - 1]);
    memset(&got, 0, sizeof got);
    int code = flags_parse(flags, FLAGS, FLAG_LIST_MAX + 2, argv, NULL, 0, NULL, &help, &err);
    assert_refused(code, "--set: given more than 63 times");
}

static void numbers_keep_their_bounds(void **state)
{
    (void)state;
    assert_int_equal(parse("--images=d", "--clients=2", NULL), 0);
    assert_int_equal(parse("--images=d", "--clients=100", NULL), 0);
    static const char *const bad[] = {"1",    "101", "-3", "3x", "4294967298", "99999999999999999999999",
                                      "0x10", " 3",  "3 "};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char sentence[128];
        (void)snprintf(sentence, sizeof sentence, "--clients: \"%s\" is no whole number from 2 to 100", bad[i]);
        assert_refused(parse("--images=d", "--clients", bad[i], NULL), sentence);
    }
    assert_refused(parse("--images=d", "--seed=18446744073709551616", NULL),
                   "--seed: \"18446744073709551616\" is no whole number");
    /* A bound below the first digit: 9 must not slip under "at most 3". */
    uint32_t small = 0;
    struct flag one = {"k", FLAG_U32, &small, "K", "", 1, 3, false};
    char *argv[] = {(char *)"program", (char *)"--k=9"};
    assert_int_equal(flags_parse(&one, 1, 2, argv, NULL, 0, NULL, &help, &err), ERR_USAGE);
    assert_int_equal(small, 0);
}

static void durations_have_units(void **state)
{
    (void)state;
    uint64_t ms = 0;
    const uint64_t hour = 3600000;
    struct flag one = {"valid", FLAG_DURATION, &ms, "TIME", "", 1000, 240 * hour, false};
    const struct {
        const char *text;
        uint64_t ms;
    } good[] = {{"1s", 1000},       {"1500ms", 1500},     {"30m", hour / 2},  {"1h", hour},
                {"7d", 168 * hour}, {"240h", 240 * hour}, {"10d", 240 * hour}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char *argv[] = {(char *)"program", (char *)"--valid", (char *)good[i].text};
        assert_int_equal(flags_parse(&one, 1, 3, argv, NULL, 0, NULL, &help, &err), 0);
        assert_true(ms == good[i].ms);
    }
    enum { bounds = 3 }; /* so many of these are durations */
    static const char *const bad[] = {
        "0s", "999ms", "11d", "1", "1w", "1.5h", "-1h", "h", "1 h", "1D", "18446744073709551616s"};
    ms = 5;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char sentence[256], *argv[] = {(char *)"program", (char *)"--valid", (char *)bad[i]};
        (void)snprintf(sentence, sizeof sentence, "--valid: \"%s\" is no duration from 1s to 240h%s", bad[i],
                       i < bounds ? "" : "; write a number with a unit, as in 30s, 45m, 12h or 7d");
        assert_refused(flags_parse(&one, 1, 3, argv, NULL, 0, NULL, &help, &err), sentence);
        assert_true(ms == 5);
    }
    one.most = 0;
    char *argv[] = {(char *)"program", (char *)"--valid=400d"};
    assert_int_equal(flags_parse(&one, 1, 2, argv, NULL, 0, NULL, &help, &err), 0);
    assert_true(ms == 9600 * hour);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    assert_refused(parse("--images=d", "--client", "3", NULL), "unknown flag --client; did you mean --clients?");
    assert_refused(parse("--images=d", "--zebra", NULL), "unknown flag --zebra; --help lists them");
    assert_refused(parse("--images=d", "-v", NULL), "unknown flag -v; flags have long names, --help lists them");
    assert_refused(parse("--images=d", "-abcdefghijklmnopqrstuvwxyz", NULL),
                   "unknown flag -abcdefghijklmnopqrstuvw...; flags have long names, --help lists them");
    assert_refused(
        parse("--images=d", "--a123456789012345678901234567890123456789012345678901234567890123456789", NULL),
        "unknown flag --a12345678901234567890123456789012345678901234567890123456789012...; --help lists them");
    assert_refused(
        parse("--images=d", "--seed=12345678901234567890123456789012345678901234567890123456789012345678901234567890",
              NULL),
        "--seed: \"1234567890123456789012345678901234567890123456789012345678901234...\" is no whole number");
    assert_refused(parse("--images=d", "--json=yes", NULL), "--json takes no value");
    assert_refused(parse("--images=d", "--images=e", NULL), "--images is given twice");
    assert_refused(parse("--images", NULL), "--images needs a value: --images DIR");
    assert_refused(parse("--images", "--json", NULL), "--images needs a value: --images DIR");
    assert_refused(parse("--images=", NULL), "--images: the value is empty");
    assert_refused(parse("--json", NULL), "--images DIR is missing");
    assert_refused(parse("--images=d", "one", "two", "three", NULL),
                   "unexpected word \"three\"; --help shows how it is called");
    assert_refused(parse("--images=d", "one", "two", "abcdefghijklmnopqrstuvwxyz", NULL),
                   "unexpected word \"abcdefghijklmnopqrstuvwx...\"; --help shows how it is called");
}

static void two_dashes_end_the_flags(void **state)
{
    (void)state;
    assert_int_equal(parse("--images", "d", "-", "--", "--json", NULL), 0);
    assert_int_equal(words_count, 2);
    assert_string_equal(words[0], "-");
    assert_string_equal(words[1], "--json");
    assert_false(got.json);
    assert_int_equal(parse("--images=d", "--", "--help", NULL), 0);
    assert_false(help);
}

static void help_outranks_mistakes(void **state)
{
    (void)state;
    assert_int_equal(parse("--zebra", "--help", NULL), 0);
    assert_true(help);
    assert_int_equal(parse("-h", NULL), 0);
    assert_true(help);
}

static void help_text_has_every_flag_once(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 1 << 16);
    assert_int_equal(flags_help("starling demo [flags]", "Runs a demo.", "  starling demo\n", flags, FLAGS, &out), 0);
    assert_int_equal(buf_append(&out, "", 1), 0);
    const char *text = (const char *)out.data;
    assert_memory_equal(text, "Examples:\n  starling demo\n", 26);
    assert_non_null(strstr(text, "Usage: starling demo [flags]\n"));
    for (size_t i = 0; i < FLAGS; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "  --%s ", flags[i].name);
        const char *first = strstr(text, name);
        assert_non_null(first);
        assert_null(strstr(first + 1, name));
        assert_non_null(strstr(first, flags[i].help));
    }
    /* The ceiling of the buffer is reported, not ignored. */
    struct buf tiny;
    buf_init(&tiny, 40);
    assert_int_equal(flags_help("starling demo [flags]", "Runs a demo.", "  starling demo\n", flags, FLAGS, &tiny),
                     ERR_LIMIT);
    buf_fini(&tiny);
    buf_fini(&out);
}

static void distances_count_edits(void **state)
{
    (void)state;
    assert_int_equal(nearest_distance("", ""), 0);
    assert_int_equal(nearest_distance("", "abc"), 3);
    assert_int_equal(nearest_distance("rounds", "round"), 1);
    assert_int_equal(nearest_distance("kitten", "sitting"), 3);
    assert_int_equal(nearest_distance("widht", "width"), 1); /* a swap is one edit */
    char longer[NEAREST_WORD_MAX + 2];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_true(nearest_distance(longer, "a") == UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_spellings_are_understood),
        cmocka_unit_test(lists_collect_in_order),
        cmocka_unit_test(a_full_list_is_refused_not_overrun),
        cmocka_unit_test(numbers_keep_their_bounds),
        cmocka_unit_test(durations_have_units),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(two_dashes_end_the_flags),
        cmocka_unit_test(help_outranks_mistakes),
        cmocka_unit_test(help_text_has_every_flag_once),
        cmocka_unit_test(distances_count_edits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
