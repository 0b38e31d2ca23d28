/* Transfers: chunks at their place, a broken transfer that goes on, and every chunk that does not belong. */
#include "common/wire/transfer.h"
#include "tests/support/msg_samples.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static uint8_t content[10240];

static struct blob make_blob(void)
{
    struct blob blob = SAMPLE_BLOB(BLOB_UPDATE, 0, 0);
    for (size_t i = 0; i < sizeof content; i++) {
        content[i] = (uint8_t)(i * 7 + i / 256);
    }
    blob.hash = hash_of(content, sizeof content);
    return blob;
}

static int give(struct transfer *transfer, uint32_t kind, uint32_t round, uint64_t offset, size_t len, struct err *err)
{
    struct msg msg = {.type = MSG_CHUNK, .chunk = {kind, round, offset}, .raw_len = (uint32_t)len};
    msg.raw = content + (offset < sizeof content ? offset : 0);
    return transfer_chunk(transfer, &msg, err);
}

static void test_whole(void **state)
{
    (void)state;
    struct blob blob = make_blob();
    struct transfer transfer = {0};
    assert_false(transfer_is_whole(&transfer));
    assert_int_equal(transfer_begin(&transfer, &blob), 0);
    assert_int_equal((uintptr_t)transfer.data % 64, 0);
    assert_int_equal(transfer_verify(&transfer, NULL), ERR_DATA); /* not whole yet */
    for (uint64_t at = 0; at < sizeof content; at += 1024) {
        assert_false(transfer_is_whole(&transfer));
        assert_int_equal(give(&transfer, BLOB_UPDATE, 7, at, 1024, NULL), 0);
    }
    assert_true(transfer_is_whole(&transfer));
    assert_int_equal(transfer_verify(&transfer, NULL), 0);
    uint8_t *data = transfer_take(&transfer);
    assert_memory_equal(data, content, sizeof content);
    assert_null(transfer.data);
    assert_false(transfer_is_whole(&transfer));
    mem_free(data);
    transfer_reset(&transfer);
}

static void test_resume(void **state)
{
    (void)state;
    struct blob blob = make_blob();
    struct transfer transfer = {0};
    assert_int_equal(transfer_begin(&transfer, &blob), 0);
    assert_int_equal(give(&transfer, BLOB_UPDATE, 7, 0, 4000, NULL), 0);
    /* The connection breaks; the same blob is announced again. */
    assert_int_equal(transfer_begin(&transfer, &blob), 0);
    assert_int_equal(transfer.received, 4000);
    assert_int_equal(give(&transfer, BLOB_UPDATE, 7, 4000, 6240, NULL), 0);
    assert_int_equal(transfer_verify(&transfer, NULL), 0);

    /* Anything else that names a blob starts from nothing. */
    struct blob others[4] = {blob, blob, blob, blob};
    others[0].kind = BLOB_MODEL;
    others[1].round++;
    others[2].bytes -= 4;
    others[3].hash.bytes[15] ^= 1;
    for (size_t i = 0; i < 4; i++) {
        transfer_reset(&transfer);
        assert_int_equal(transfer_begin(&transfer, &blob), 0);
        assert_int_equal(give(&transfer, BLOB_UPDATE, 7, 0, 1000, NULL), 0);
        assert_int_equal(transfer_begin(&transfer, &others[i]), 0);
        assert_int_equal(transfer.received, 0);
    }
    transfer_reset(&transfer);
    transfer_reset(&transfer);
}

/* What has ended leaves its memory, and nothing else. */
static void test_the_memory_of_one_that_ended(void **state)
{
    (void)state;
    struct blob blob = make_blob(), longer = blob;
    longer.bytes += 4;
    struct transfer transfer = {0};
    transfer_end(&transfer);
    assert_int_equal(transfer_begin(&transfer, &blob), 0);
    assert_int_equal(give(&transfer, BLOB_UPDATE, 7, 0, sizeof content, NULL), 0);
    uint8_t *memory = transfer.data;
    transfer_end(&transfer);
    transfer_end(&transfer);
    assert_null(transfer.data);
    assert_false(transfer_is_whole(&transfer));
    assert_int_equal(give(&transfer, BLOB_UPDATE, 7, 0, 10, NULL), ERR_PROTOCOL);
    mem_fail_after(1); /* the same bytes need no more */
    assert_int_equal(transfer_begin(&transfer, &blob), 0);
    mem_fail_after(0);
    assert_ptr_equal(transfer.data, memory);
    assert_int_equal(transfer.received, 0); /* not resumed, although the blob is the same */
    assert_int_equal(transfer_verify(&transfer, NULL), ERR_DATA);
    transfer_end(&transfer);
    assert_int_equal(transfer_begin(&transfer, &longer), 0);
    assert_int_equal(transfer.received, 0);
    transfer_end(&transfer);
    mem_fail_after(1);
    assert_int_equal(transfer_begin(&transfer, &blob), ERR_NOMEM);
    mem_fail_after(0);
    assert_null(transfer.data);
    transfer_reset(&transfer);
}

static void test_chunks_that_do_not_belong(void **state)
{
    (void)state;
    struct blob blob = make_blob();
    struct transfer transfer = {0};
    struct err err;
    assert_int_equal(give(&transfer, BLOB_UPDATE, 7, 0, 10, &err), ERR_PROTOCOL); /* nothing under way */
    assert_int_equal(transfer_begin(&transfer, &blob), 0);
    assert_int_equal(give(&transfer, BLOB_UPDATE, 7, 0, 1000, &err), 0);
    assert_int_equal(give(&transfer, BLOB_FEATURES, 7, 1000, 10, &err), ERR_PROTOCOL);
    assert_int_equal(give(&transfer, BLOB_UPDATE, 8, 1000, 10, &err), ERR_PROTOCOL);
    assert_int_equal(give(&transfer, BLOB_UPDATE, 7, 999, 10, &err), ERR_PROTOCOL);  /* again */
    assert_int_equal(give(&transfer, BLOB_UPDATE, 7, 1001, 10, &err), ERR_PROTOCOL); /* a gap */
    assert_non_null(strstr(err.text, "expected byte 1000"));
    assert_int_equal(give(&transfer, BLOB_UPDATE, 7, UINT64_MAX, 10, &err), ERR_PROTOCOL);
    assert_int_equal(give(&transfer, BLOB_UPDATE, 7, 1000, sizeof content - 999, &err),
                     ERR_PROTOCOL); /* one too many */
    assert_int_equal(transfer.received, 1000);
    assert_int_equal(give(&transfer, BLOB_UPDATE, 7, 1000, sizeof content - 1000, &err), 0);
    assert_int_equal(transfer_verify(&transfer, &err), 0);
    transfer_reset(&transfer);
}

static void test_other_bytes_than_announced(void **state)
{
    (void)state;
    struct blob blob = make_blob();
    struct transfer transfer = {0};
    struct err err;
    assert_int_equal(transfer_begin(&transfer, &blob), 0);
    assert_int_equal(give(&transfer, BLOB_UPDATE, 7, 0, sizeof content, &err), 0);
    transfer.data[5000] ^= 1;
    assert_int_equal(transfer_verify(&transfer, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "hash"));
    transfer_reset(&transfer);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct blob blob = make_blob();
    struct transfer transfer = {0};
    mem_fail_after(1);
    assert_int_equal(transfer_begin(&transfer, &blob), ERR_NOMEM);
    mem_fail_after(0);
    assert_null(transfer.data);
    assert_int_equal(give(&transfer, BLOB_UPDATE, 7, 0, 10, NULL), ERR_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_the_memory_of_one_that_ended),
        cmocka_unit_test(test_chunks_that_do_not_belong),
        cmocka_unit_test(test_other_bytes_than_announced),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
