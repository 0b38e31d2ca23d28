/* Memory, buffers with a ceiling, shared bytes, byte order. */
#include "common/base/buf.h"
#include "common/base/byteorder.h"
#include "common/base/bytes.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_ceiling(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 1000);
    char block[600];
    memset(block, 'a', sizeof block);
    assert_int_equal(buf_append(&buf, block, 600), 0);
    /* What does not fit leaves the buffer as it was, and what fits still goes in. */
    assert_int_equal(buf_append(&buf, block, 401), ERR_LIMIT);
    assert_int_equal(buf.len, 600);
    assert_int_equal(buf_append(&buf, block, SIZE_MAX), ERR_LIMIT);
    assert_int_equal(buf_reserve(&buf, SIZE_MAX - 100), ERR_LIMIT);
    assert_int_equal(buf_append(&buf, block, 400), 0);
    assert_int_equal(buf.len, 1000);
    assert_true(buf.cap <= 1000);
    assert_int_equal(buf_append(&buf, block, 1), ERR_LIMIT);
    assert_int_equal(buf_append(&buf, NULL, 0), 0);
    buf_fini(&buf);
    assert_int_equal(buf_append(&buf, "x", 1), ERR_LIMIT); /* a finished buffer holds nothing */
}

static void test_consume(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 64);
    assert_int_equal(buf_append(&buf, "abcdef", 6), 0);
    buf_consume(&buf, 2);
    assert_int_equal(buf.len, 4);
    assert_memory_equal(buf.data, "cdef", 4);
    buf_consume(&buf, 0);
    assert_int_equal(buf.len, 4);
    buf_consume(&buf, 100);
    assert_int_equal(buf.len, 0);
    buf_fini(&buf);
}

static void test_printf(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 4096);
    char longer[1500];
    memset(longer, 'z', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(buf_printf(&buf, "%d-%s", 42, "x"), 0);
    assert_memory_equal(buf.data, "42-x", 4);
    /* Around the size of the small buffer on the stack, and far beyond. */
    for (int len = 509; len <= 514; len++) {
        buf.len = 0;
        assert_int_equal(buf_printf(&buf, "%.*s", len, longer), 0);
        assert_int_equal(buf.len, len);
        assert_memory_equal(buf.data, longer, (size_t)len);
    }
    buf.len = 0;
    assert_int_equal(buf_printf(&buf, "%s|%s", longer, "end"), 0);
    assert_int_equal(buf.len, 1503);
    assert_memory_equal(buf.data + 1499, "|end", 4);
    assert_int_equal(buf_printf(&buf, "%s%s", longer, longer), ERR_LIMIT);
    assert_int_equal(buf.len, 1503);
    buf_fini(&buf);
}

static void test_json(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 256);
    assert_int_equal(buf_json_escape(&buf, "a\"b\\c\n\x1f\x7f/\xc3\xa9"), 0);
    static const char want[] = "a\\\"b\\\\c\\u000a\\u001f\\u007f/\xc3\xa9";
    assert_int_equal(buf.len, sizeof want - 1);
    assert_memory_equal(buf.data, want, buf.len);
    buf_fini(&buf);
}

static void test_memory(void **state)
{
    (void)state;
    uint8_t *block = mem_new(7, 3);
    for (int i = 0; i < 21; i++) {
        assert_int_equal(block[i], 0);
    }
    memset(block, 1, 21);
    block = mem_resize(block, 100, 1);
    assert_int_equal(block[20], 1);
    mem_free(block);
    uint8_t *aligned = mem_new_aligned(65, 1);
    assert_int_equal((uintptr_t)aligned % 64, 0);
    assert_int_equal(aligned[64], 0);
    mem_free(aligned);
    for (int i = 0; i < 2; i++) { /* from 8 MiB in huge pages: also what was used before is zeroed, to the last byte */
        const size_t large = ((size_t)9 << 20) + 4097;
        aligned = mem_new_aligned(large, 1);
        assert_int_equal((uintptr_t)aligned % 64, 0);
        for (size_t at = 0; at < large; at += 4096) {
            assert_int_equal(aligned[at], 0);
        }
        assert_int_equal(aligned[large - 1], 0);
        memset(aligned, 1, large);
        mem_free(aligned);
    }
    void *empty = mem_new(0, 8), *empty_aligned = mem_new_aligned(0, 8);
    assert_non_null(empty);
    assert_non_null(empty_aligned);
    mem_free(empty);
    mem_free(empty_aligned);
    char *text = mem_text("abcdef", 3);
    assert_string_equal(text, "abc");
    mem_free(text);
    mem_free(NULL);
}

static void test_memory_overflow(void **state)
{
    (void)state;
    volatile size_t half = SIZE_MAX / 2 + 2; /* 2 * half wraps to a small number */
    assert_null(mem_new(half, 2));
    assert_null(mem_new_aligned(half, 2));
    uint8_t *block = mem_new(8, 1);
    assert_null(mem_resize(block, half, 2));
    block[7] = 1; /* still ours */
    mem_free(block);
}

static void test_memory_failure(void **state)
{
    (void)state;
    mem_fail_after(2);
    void *first = mem_new(1, 1);
    assert_non_null(first);
    assert_null(mem_new(1, 1));
    assert_null(mem_new_aligned(1, 1));
    assert_null(mem_resize(first, 2, 1));
    assert_null(mem_text("a", 1));
    struct buf buf;
    buf_init(&buf, 100);
    assert_int_equal(buf_append(&buf, "abc", 3), ERR_NOMEM);
    assert_int_equal(buf.len, 0);
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_after(n);
        assert_null(bytes_new(4));
        assert_null(bytes_copy("abcd", 4));
    }
    mem_fail_after(0);
    assert_int_equal(buf_append(&buf, "abc", 3), 0);
    buf_fini(&buf);
    mem_free(first);
}

static void test_bytes(void **state)
{
    (void)state;
    struct bytes *bytes = bytes_copy("hello", 5);
    assert_int_equal(bytes->len, 5);
    assert_int_equal((uintptr_t)bytes->data % 64, 0);
    struct bytes *same = bytes_ref(bytes);
    assert_ptr_equal(same, bytes);
    bytes_unref(bytes);
    assert_memory_equal(same->data, "hello", 5); /* one reference is left; the sanitizer sees a free too early */
    bytes_unref(same);
    bytes_unref(NULL);
    bytes = bytes_copy(NULL, 0);
    assert_int_equal(bytes->len, 0);
    bytes_unref(bytes);
}

static void test_byteorder(void **state)
{
    (void)state;
    uint8_t p[8];
    store_u64(p, UINT64_C(0x8877665544332211));
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(p[i], 0x11 * (i + 1));
    }
    assert_int_equal(load_u64(p), UINT64_C(0x8877665544332211));
    assert_int_equal(load_u32(p + 4), 0x88776655);
    assert_int_equal(load_u16(p + 6), 0x8877);
    store_u32(p + 1, 0xfffefdfc);
    store_u16(p + 6, 0xabcd);
    assert_memory_equal(p, "\x11\xfc\xfd\xfe\xff\x66\xcd\xab", 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ceiling),        cmocka_unit_test(test_consume), cmocka_unit_test(test_printf),
        cmocka_unit_test(test_json),           cmocka_unit_test(test_memory),  cmocka_unit_test(test_memory_overflow),
        cmocka_unit_test(test_memory_failure), cmocka_unit_test(test_bytes),   cmocka_unit_test(test_byteorder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
