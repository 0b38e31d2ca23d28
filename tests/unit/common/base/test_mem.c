/* Memory: what is promised of alignment, zeros, sizes that overflow, and failure on demand. */
#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_aligned(void **state)
{
    (void)state;
    static const size_t sizes[] = {
        0, 1, 63, 64, 65, 100000, ((size_t)4 << 20) - 1, (size_t)4 << 20, ((size_t)4 << 20) + 4, 5824384};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int again = 0; again < 2; again++) { /* The second time it is likely used memory. */
            uint8_t *zeros = mem_new_aligned(sizes[i], 1), *any = mem_room(sizes[i], 1);
            assert_non_null(zeros);
            assert_non_null(any);
            assert_int_equal((uintptr_t)zeros % 64, 0);
            assert_int_equal((uintptr_t)any % 64, 0);
            for (size_t at = 0; at < sizes[i]; at++) {
                if (zeros[at] != 0) {
                    fail_msg("byte %zu of %zu is not zero", at, sizes[i]);
                }
            }
            memset(zeros, 0xff, sizes[i]);
            memset(any, 0xff, sizes[i]);
            mem_free(zeros);
            mem_free(any);
        }
    }
}

static void test_too_much(void **state)
{
    (void)state;
    volatile size_t many = SIZE_MAX / 2; /* else the compiler would see it */
    assert_null(mem_new(many, 3));
    assert_null(mem_new_aligned(many, 3));
    assert_null(mem_room(many, 3));
    assert_null(mem_room(many, 1));
    assert_null(mem_resize(NULL, many, 3));
}

static void test_failure_on_demand(void **state)
{
    (void)state;
    mem_fail_after(2);
    void *first = mem_room(1, 1);
    assert_non_null(first);
    assert_null(mem_room(1, 1));
    assert_null(mem_new_aligned(1, 1));
    assert_null(mem_new(1, 1));
    mem_fail_after(0);
    mem_free(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aligned),
        cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_failure_on_demand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
