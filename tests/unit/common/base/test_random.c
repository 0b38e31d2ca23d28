/* Random bytes: all of what was asked for, and never the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first. */
#include <cmocka.h>

#include "common/base/random.h"

#include <string.h>

static void test_all_is_filled(void **state)
{
    (void)state;
    static uint8_t bytes[(1 << 20) + 1];
    uint32_t seen[256] = {0};
    assert_int_equal(random_bytes(bytes, 0, NULL), 0);
    assert_int_equal(bytes[0], 0);
    assert_int_equal(random_bytes(bytes, sizeof bytes - 1, NULL), 0);
    assert_int_equal(bytes[sizeof bytes - 1], 0);
    for (size_t part = 0; part < sizeof bytes - 1; part += 1 << 18) { /* no part was left out */
        memset(seen, 0, sizeof seen);
        for (size_t i = 0; i < 1 << 18; i++) {
            seen[bytes[part + i]]++;
        }
        for (int i = 0; i < 256; i++) {
            assert_in_range(seen[i], 800, 1250); /* 1024, and seven times its root */
        }
    }
}

static void test_nothing_comes_twice(void **state)
{
    (void)state;
    uint8_t a[16], b[16];
    assert_int_equal(random_bytes(a, sizeof a, NULL), 0);
    assert_int_equal(random_bytes(b, sizeof b, NULL), 0);
    assert_memory_not_equal(a, b, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_is_filled),
        cmocka_unit_test(test_nothing_comes_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
