/* What a message may cost. This program brings its own common/base/mem.h: an allocator that counts, independent of the
 * budget under test, and that fails where it is told to. */
#include "common/wire/frame.h"
#include "common/wire/msg.h"
#include "tests/support/msg_samples.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static size_t total_bytes, allocations, live;
static uint64_t fail_in; /* 0: never */

static bool may_allocate(size_t bytes)
{
    if (fail_in > 0 && --fail_in == 0) {
        fail_in = 1; /* and all later ones */
        return false;
    }
    total_bytes += bytes;
    allocations++;
    live++;
    return true;
}

void *mem_new(size_t count, size_t size)
{
    return may_allocate(count * size) ? calloc(1, count * size + 1) : NULL;
}

void *mem_new_aligned(size_t count, size_t size)
{
    return mem_new(count, size);
}

void *mem_resize(void *old, size_t count, size_t size)
{
    if (!may_allocate(count * size)) {
        return NULL;
    }
    live -= old != NULL;
    return realloc(old, count * size + 1);
}

char *mem_text(const char *text, size_t length)
{
    char *copy = mem_new(length + 1, 1);
    return copy ? memcpy(copy, text, length) : NULL;
}

void mem_free(void *memory)
{
    live -= memory != NULL;
    free(memory);
}

void mem_fail_after(uint64_t n)
{
    fail_in = n;
}

static void start_counting(void)
{
    total_bytes = allocations = 0;
}

/* A good STATUS followed by unknown fields of two bytes: 1 MB in all. */
static void make_bomb(struct buf *proto)
{
    buf_init(proto, 2 << 20);
    assert_int_equal(buf_append(proto, "\x08\x14", 2), 0);
    while (proto->len < 1000000) {
        assert_int_equal(buf_append(proto, "\x78\x01", 2), 0);
    }
}

static void test_bomb(void **state)
{
    (void)state;
    struct buf proto;
    make_bomb(&proto);
    struct frame frame = {.type = MSG_STATUS, .proto = proto.data, .proto_len = (uint32_t)proto.len};
    struct msg msg;
    struct err err = {0};
    size_t before = live;

    start_counting(); /* the threat is real: without a budget this is accepted, at this price */
    assert_int_equal(msg_decode(&frame, SIZE_MAX, &msg, &err), 0);
    assert_int_equal(msg.status.history, 20);
    print_message("1 MB of unknown fields: %zu bytes in %zu allocations\n", total_bytes, allocations);
    assert_true(total_bytes > 20 * proto.len && allocations > 400000);
    assert_int_equal(live, before);

    static const size_t budgets[] = {0, 1, 100, 4096, MSG_BUDGET_SERVER, 1 << 20, 8 << 20};
    for (size_t i = 0; i < sizeof budgets / sizeof budgets[0]; i++) {
        start_counting();
        assert_int_equal(msg_decode(&frame, budgets[i], &msg, &err), ERR_LIMIT);
        assert_true(total_bytes <= budgets[i]);
        assert_int_equal(live, before);
    }
    buf_fini(&proto);
}

/* Every budget from nothing to enough: refused or right, nothing left behind. */
static void test_each_budget(void **state)
{
    (void)state;
    struct msg msg, back;
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    sample_msg(MSG_STATUS_REPLY, &msg);
    assert_int_equal(msg_encode(&msg, &bytes, NULL), 0);
    struct frame frame = {.type = MSG_STATUS_REPLY,
                          .proto = bytes.data + FRAME_HEADER_BYTES,
                          .proto_len = (uint32_t)bytes.len - FRAME_HEADER_BYTES};
    size_t refused = 0, before = live;
    int rc = ERR_LIMIT;
    for (size_t budget = 0; rc == ERR_LIMIT; budget += 8) {
        rc = msg_decode(&frame, budget, &back, NULL);
        refused += rc == ERR_LIMIT;
        assert_true(rc == 0 || live == before);
    }
    assert_int_equal(rc, 0);
    assert_true(refused > 100 && sample_same(&msg, &back));
    msg_fini(&back);
    msg_fini(&msg);
    buf_fini(&bytes);
}

/* Lets each allocation on the way fail in turn, until there is none left to fail. */
static void test_each_allocation_fails(void **state)
{
    (void)state;
    for (uint8_t type = 1; type < MSG_TYPE_END; type++) {
        struct msg msg;
        sample_msg(type, &msg);
        int rc = ERR_NOMEM;
        size_t before = live;
        uint64_t n = 0;
        while (rc == ERR_NOMEM) {
            struct buf bytes;
            struct frame frame;
            struct msg back = {0};
            struct frame_limits any = {0};
            struct frame_decoder decoder;
            any.most[type] = 1 << 20;
            buf_init(&bytes, 1 << 20);
            frame_decoder_init(&decoder, &any);
            mem_fail_after(++n);
            rc = msg_encode(&msg, &bytes, NULL);
            rc = rc < 0 ? rc : frame_feed(&decoder, bytes.data, bytes.len);
            rc = rc < 0 ? rc : frame_feed(&decoder, msg.raw, msg.raw_len);
            rc = rc < 0 ? rc : frame_next(&decoder, &frame, NULL);
            rc = rc < 0 ? rc : msg_decode(&frame, 1 << 20, &back, NULL);
            mem_fail_after(0);
            if (rc == 0) {
                assert_true(sample_same(&msg, &back));
            }
            msg_fini(&back);
            frame_decoder_fini(&decoder);
            buf_fini(&bytes);
            assert_int_equal(live, before);
        }
        assert_int_equal(rc, 0);
        assert_true(n > 4); /* the encoder, the buffers and the decoder have all been made to fail */
        msg_fini(&msg);
    }
    assert_int_equal(live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bomb),
        cmocka_unit_test(test_each_budget),
        cmocka_unit_test(test_each_allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
