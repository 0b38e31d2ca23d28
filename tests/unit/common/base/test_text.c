/* What is a clean text, and what a cleaned one looks like. */
#include "common/base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_table(void **state)
{
    (void)state;
    static const struct {
        const char *text, *cleaned; /* equal: clean */
    } rows[] = {
        {"", ""},
        {"plain ~", "plain ~"},
        {"\xc2\xa0\xc3\xa9", "\xc2\xa0\xc3\xa9"},                 /* U+00A0, U+00E9 */
        {"\xe0\xa0\x80\xe2\x82\xac", "\xe0\xa0\x80\xe2\x82\xac"}, /* U+0800, euro */
        {"\xed\x9f\xbf\xee\x80\x80", "\xed\x9f\xbf\xee\x80\x80"}, /* around the surrogates */
        {"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"},
        {"a\tb", "a?b"},
        {"\x7f", "?"},
        {"\x1b[31m", "?[31m"},
        {"\xc2\x9b", "??"},           /* C1: the one-character escape sequence */
        {"\x80", "?"},                /* no first byte */
        {"\xc0\xaf", "??"},           /* overlong "/" */
        {"\xc1\xbf", "??"},           /* overlong */
        {"\xe0\x9f\xbf", "???"},      /* overlong */
        {"\xf0\x8f\xbf\xbf", "????"}, /* overlong */
        {"\xed\xa0\x80", "???"},      /* surrogate */
        {"\xf4\x90\x80\x80", "????"}, /* past U+10FFFF */
        {"\xf8\x88\x80\x80\x80", "?????"},
        {"\xc3", "?"},           /* cut off */
        {"x\xe2\x82", "x??"},    /* cut off */
        {"\xf0\x9f\x98", "???"}, /* cut off */
        {"\xc3\x28", "?("},      /* second byte is none */
        {"\xff\xfe", "??"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char out[32];
        size_t len = strlen(rows[i].text);
        text_clean(rows[i].text, len, out);
        assert_string_equal(out, rows[i].cleaned);
        assert_int_equal(text_is_clean(rows[i].text, len), strcmp(rows[i].text, rows[i].cleaned) == 0);
        assert_true(text_is_clean(out, len));
    }
}

/* Of all sequences of three bytes that begin like a character of three, as many are clean as there are such characters.
 */
static void test_all_three_byte_sequences(void **state)
{
    (void)state;
    size_t clean = 0;
    for (uint32_t code = 0xe00000; code < 0xf00000; code++) {
        char text[3] = {(char)(code >> 16), (char)(code >> 8), (char)code};
        clean += text_is_clean(text, 3);
    }
    assert_int_equal(clean, 0x10000 - 0x800 - 0x800); /* U+0800 to U+FFFF less the surrogates */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_all_three_byte_sequences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
