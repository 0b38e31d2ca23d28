/* Tokens: one text each, and every damage to it is found before anybody goes by it. */
#include "common/base/byteorder.h"
#include "common/base/hash.h"
#include "tests/unit/common/trust/trust_world.h"

/* Computed by another program, from the byte table of token.c. */
#define GOLDEN                                                                                                         \
    "starling1:AQDSSWsAAAAAAQZzaXRlLWEYAGNvb3JkaW5hdG9yLmV4YW1wbGU6NzY0MAABAgMEBQYHC"                                  \
    "AkKCwwNDg8QERITFBUWFxgZGhscHR4f__79_Pv6-fj39vX08_Lx8O_u7ezr6uno5-bl5OPi4eDxzWMM"

static struct token sample(void)
{
    struct token token = {.address = ADDRESS, .name = "site-a", .role = TRUST_TRAINER, .expires = NOW};
    for (uint8_t i = 0; i < 32; i++) {
        token.pin[i] = i;
        token.secret[i] = (uint8_t)(255 - i);
    }
    return token;
}

static void same_token(const struct token *a, const struct token *b)
{
    assert_string_equal(a->address, b->address);
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->role, b->role);
    assert_int_equal(a->expires, b->expires);
    assert_memory_equal(a->pin, b->pin, 32);
    assert_memory_equal(a->secret, b->secret, 32);
}

static void comes_back(const struct token *token)
{
    char text[TOKEN_TEXT_MAX], line[TOKEN_TEXT_MAX + 1];
    struct token got;
    struct err err;
    assert_int_equal(token_write(token, text, &err), 0);
    assert_int_equal(token_read(text, &got, &err), 0);
    same_token(token, &got);
    (void)snprintf(line, sizeof line, "%s\n", text); /* as a file has it */
    assert_int_equal(token_read(line, &got, &err), 0);
    same_token(token, &got);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct token token = sample();
    comes_back(&token);
    for (size_t n = 1; n <= 64; n++) { /* every length of the last group of base64 */
        memset(token.name, 'n', n);
        token.name[n] = 0;
        comes_back(&token);
    }
    (void)snprintf(token.address, sizeof token.address, "[2001:db8::1]:1");
    token.role = TRUST_OPERATOR;
    token.expires = INT64_MAX;
    comes_back(&token);
    memset(token.address, 'h', 255);
    (void)snprintf(token.address + 255, 16, ":65535");
    comes_back(&token);
}

/* The format stays: sites may hold tokens while their software is upgraded. */
static void the_text_is_the_format(void **state)
{
    (void)state;
    struct token token = sample();
    char text[TOKEN_TEXT_MAX];
    assert_int_equal(token_write(&token, text, NULL), 0);
    assert_string_equal(text, GOLDEN);
}

static void every_damage_is_found(void **state)
{
    (void)state;
    char text[TOKEN_TEXT_MAX], bad[TOKEN_TEXT_MAX + 2];
    struct token token = sample(), got;
    const struct token nothing = {0};
    assert_int_equal(token_write(&token, text, NULL), 0);
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        for (int c = 1; c < 256; c++) {
            memcpy(bad, text, len + 1);
            bad[i] = (char)c;
            if (bad[i] != text[i]) {
                assert_int_not_equal(token_read(bad, &got, NULL), 0);
                assert_memory_equal(&got, &nothing, sizeof got); /* nothing of a bad one stays */
            }
        }
        memcpy(bad, text, i);
        bad[i] = 0;
        assert_int_equal(token_read(bad, &got, NULL), ERR_DATA); /* cut */
        (void)snprintf(bad, sizeof bad, "%.*s %s", (int)i, text, text + i);
        assert_int_not_equal(token_read(bad, &got, NULL), 0); /* a space, or a line that was broken */
        (void)snprintf(bad, sizeof bad, "%.*s\n%s", (int)i, text, text + i);
        assert_int_not_equal(token_read(bad, &got, NULL), 0);
    }
    static const char *const behind[] = {"A", "=", "==", "\n\n", " ", "\r\n", "AAAA"};
    for (size_t i = 0; i < sizeof behind / sizeof behind[0]; i++) {
        (void)snprintf(bad, sizeof bad, "%s%s", text, behind[i]);
        assert_int_equal(token_read(bad, &got, NULL), ERR_DATA);
    }
}

static void what_is_none_is_named(void **state)
{
    (void)state;
    struct token got;
    struct err err;
    char longest[3 * TOKEN_TEXT_MAX];
    assert_int_equal(token_read("starling2:AXxaCmsAAAAAAQ", &got, &err), ERR_VERSION);
    assert_int_equal(token_read("starling10:AXxaCmsAAAAAAQ", &got, &err), ERR_VERSION);
    static const char *const none[] = {"",
                                       "\n",
                                       "x",
                                       "starling",
                                       "starling1",
                                       "starling1:",
                                       "starling1:\n",
                                       "starling:AAAA",
                                       "Starling1:AAAA",
                                       " starling1:AAAA",
                                       "starlingx:AAAA",
                                       "starling1:A",
                                       "starling1:===="};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        assert_int_equal(token_read(none[i], &got, &err), ERR_DATA);
        assert_null(strstr(err.text, "AAAA")); /* who sees the log does not see the token */
    }
    memset(longest, 'A', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    for (size_t n = TOKEN_TEXT_MAX - 5; n < TOKEN_TEXT_MAX + 5; n++) {
        memcpy(longest, "starling1:", 10);
        longest[n] = 0;
        assert_int_equal(token_read(longest, &got, &err), ERR_DATA);
        longest[n] = 'A';
    }
    assert_int_equal(token_read(longest, &got, &err), ERR_DATA);
}

/* As token.c writes, with a right checksum, whatever the fields say. */
static int read_bytes(uint8_t *bytes, size_t len, struct token *got)
{
    char text[TOKEN_TEXT_MAX] = "starling1:";
    store_u32(bytes + len, crc32c(0, bytes, len));
    (void)EVP_EncodeBlock((unsigned char *)text + 10, bytes, (int)len + 4);
    for (char *c = text; *c; c++) {
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    }
    text[strcspn(text, "=")] = 0;
    return token_read(text, got, NULL);
}

static size_t good_bytes(uint8_t *bytes, const char *name, const char *address)
{
    size_t n = strlen(name), m = strlen(address);
    bytes[0] = 1;
    store_u64(bytes + 1, (uint64_t)NOW);
    bytes[9] = TRUST_TRAINER;
    bytes[10] = (uint8_t)n;
    memcpy(bytes + 11, name, n);
    store_u16(bytes + 11 + n, (uint32_t)m);
    memcpy(bytes + 13 + n, address, m);
    memset(bytes + 13 + n + m, 7, 64);
    return 77 + n + m;
}

/* A right checksum is no licence: whoever can write a token can compute it. */
static void fields_are_checked(void **state)
{
    (void)state;
    uint8_t bytes[600];
    struct token got;
    size_t len = good_bytes(bytes, "a", "h:1");
    assert_int_equal(read_bytes(bytes, len, &got), 0);
    static const struct {
        size_t at;
        uint8_t value;
    } wrong[] = {{0, 0},    {0, 2},    {8, 0x80}, {9, 0},    {9, TRUST_SERVER}, {9, 5},   {10, 0},
                 {10, 2},   {10, 255}, {11, ' '}, {11, 0},   {12, 2},           {12, 4},  {13, 1},
                 {13, 255}, {14, ','}, {14, 0},   {15, 'x'}, {16, '0'},         {16, ':'}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        (void)good_bytes(bytes, "a", "h:1");
        bytes[wrong[i].at] = wrong[i].value;
        assert_int_equal(read_bytes(bytes, len, &got), ERR_DATA);
    }
    len = good_bytes(bytes, "a", "h:1");
    assert_int_equal(read_bytes(bytes, len + 1, &got), ERR_DATA); /* a byte more */
    len = good_bytes(bytes, "a", "h:1");
    assert_int_equal(read_bytes(bytes, len - 1, &got), ERR_DATA);
    memset(bytes + 1, 0, 8);
    assert_int_equal(read_bytes(bytes, len, &got), ERR_DATA); /* never expires is no date */
}

static void what_would_not_be_read_is_not_written(void **state)
{
    (void)state;
    static const char *const addresses[] = {"",          "h",
                                            "h:",        ":1",
                                            "h:0",       "h:01",
                                            "h:65536",   "h:1x",
                                            "h:1:2",     "::1:7640",
                                            "[::1]",     "[::1]7640",
                                            "[::1]:0",   "[::]:1",
                                            "[x]:1",     "[]:1",
                                            "0.0.0.0:1", "a b:1",
                                            "a,b:1",     "a/b:1",
                                            "a;b:1",     "[fe80::1%eth0]:1",
                                            "h:123456"};
    char text[TOKEN_TEXT_MAX];
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        struct token token = sample();
        (void)snprintf(token.address, sizeof token.address, "%s", addresses[i]);
        assert_int_equal(token_write(&token, text, NULL), ERR_DATA);
        assert_string_equal(text, "");
    }
    struct token token = sample();
    memset(token.address, 'h', 256);
    (void)snprintf(token.address + 256, 16, ":1");
    assert_int_equal(token_write(&token, text, NULL), ERR_DATA);
    token = sample();
    token.role = TRUST_SERVER;
    assert_int_equal(token_write(&token, text, NULL), ERR_DATA);
    token = sample();
    token.name[0] = 0;
    assert_int_equal(token_write(&token, text, NULL), ERR_DATA);
    token = sample();
    token.expires = 0;
    assert_int_equal(token_write(&token, text, NULL), ERR_DATA);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read), cmocka_unit_test(the_text_is_the_format),
        cmocka_unit_test(every_damage_is_found),   cmocka_unit_test(what_is_none_is_named),
        cmocka_unit_test(fields_are_checked),      cmocka_unit_test(what_would_not_be_read_is_not_written),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
