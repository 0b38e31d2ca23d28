/* Hashes: published vectors, streaming in any cut, both ways of CRC-32C. */
#include "common/base/err.h"
#include "common/base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* The table version, which a machine with the instruction never calls by itself. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t len);

static void fill(uint8_t *data, size_t len)
{
    uint32_t x = 12345;
    for (size_t i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        data[i] = (uint8_t)(x >> 24);
    }
}

/* RFC 3720, B.4. */
static void test_crc_vectors(void **state)
{
    (void)state;
    uint8_t block[32];
    uint32_t (*const versions[])(uint32_t, const void *, size_t) = {crc32c, crc32c_portable};
    for (int v = 0; v < 2; v++) {
        assert_int_equal(versions[v](0, "123456789", 9), 0xe3069283);
        assert_int_equal(versions[v](0, "", 0), 0);
        memset(block, 0, sizeof block);
        assert_int_equal(versions[v](0, block, 32), 0x8a9136aa);
        memset(block, 0xff, sizeof block);
        assert_int_equal(versions[v](0, block, 32), 0x62a8ab43);
        for (int i = 0; i < 32; i++) {
            block[i] = (uint8_t)i;
        }
        assert_int_equal(versions[v](0, block, 32), 0x46dd794e);
    }
}

static void test_crc_versions_agree(void **state)
{
    (void)state;
    static uint8_t data[300];
    fill(data, sizeof data);
    for (size_t start = 0; start < 9; start++) {
        for (size_t len = 0; start + len <= sizeof data; len++) {
            assert_int_equal(crc32c(7, data + start, len), crc32c_portable(7, data + start, len));
        }
    }
}

/* Long input is read in three lanes of 4,096 bytes at a time. */
static void test_crc_lanes(void **state)
{
    (void)state;
    enum { LANES = 3 * 4096 };
    static uint8_t data[2 * LANES + 100];
    fill(data, sizeof data);
    static const size_t lengths[] = {LANES - 1, LANES, LANES + 1, LANES + 99, 2 * LANES - 1, 2 * LANES, 2 * LANES + 9};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (size_t start = 0; start < 9; start++) {
            uint32_t crc = crc32c_portable(7, data + start, lengths[i]);
            assert_int_equal(crc32c(7, data + start, lengths[i]), crc);
        }
    }
    uint32_t before = crc32c(0, data, LANES); /* Each lane counts, and so does its place. */
    for (size_t at = 0; at < LANES; at += 64) {
        data[at] ^= 1;
        assert_int_equal(crc32c(0, data, LANES), crc32c_portable(0, data, LANES));
        assert_int_not_equal(crc32c(0, data, LANES), before);
        data[at] ^= 1;
    }
}

static void test_crc_parts(void **state)
{
    (void)state;
    uint8_t data[100];
    fill(data, sizeof data);
    uint32_t whole = crc32c(0, data, sizeof data);
    for (size_t cut = 0; cut <= sizeof data; cut++) {
        assert_int_equal(crc32c(crc32c(0, data, cut), data + cut, sizeof data - cut), whole);
    }
    data[50] ^= 4;
    assert_int_not_equal(crc32c(0, data, sizeof data), whole);
}

/* XXH3_128bits of the empty input with seed 0, as xxHash's own test has it; canonical order is big-endian. */
static void test_xxh3_vector(void **state)
{
    (void)state;
    char hex[HASH_HEX];
    struct hash128 hash = hash_of("", 0);
    assert_string_equal(hash_hex(&hash, hex), "99aa06d3014798d86001c324468d497f");
}

static void test_stream(void **state)
{
    (void)state;
    static uint8_t data[1000];
    fill(data, sizeof data);
    struct hash128 whole = hash_of(data, sizeof data);
    for (size_t cut = 0; cut <= sizeof data; cut += 37) {
        struct hash_stream *stream = hash_stream_new();
        hash_stream_add(stream, data, cut);
        hash_stream_add(stream, data + cut, sizeof data - cut);
        struct hash128 parts = hash_stream_end(stream);
        assert_true(hash_equal(&whole, &parts));
        hash_stream_free(stream);
    }
    hash_stream_free(NULL);
    data[999] ^= 1;
    struct hash128 other = hash_of(data, sizeof data);
    assert_false(hash_equal(&whole, &other));
}

static void test_hex(void **state)
{
    (void)state;
    struct hash128 hash = {
        {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}};
    struct hash128 zero = {{0}};
    char hex[HASH_HEX];
    assert_string_equal(hash_hex(&hash, hex), "00112233445566778899aabbccddeeff");
    assert_true(hash_is_zero(&zero));
    assert_false(hash_is_zero(&hash));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc_vectors), cmocka_unit_test(test_crc_versions_agree), cmocka_unit_test(test_crc_lanes),
        cmocka_unit_test(test_crc_parts),   cmocka_unit_test(test_xxh3_vector),        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_hex),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
