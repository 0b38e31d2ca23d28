/* The model file: there and back, readable by a stranger, and every kind of damage found, accidental (any bit, any
 * length) or crafted (any byte of the head with a fresh hash). */
#include "common/base/buf.h"
#include "common/base/byteorder.h"
#include "common/base/mem.h"
#include "common/vec/modelfile.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define HASH_BYTES 16
static struct layout *layout;
static float *params;
static struct model_info info;
static uint8_t *file; /* a whole valid file */
static size_t file_len, head_len;

static int set_up(void **state)
{
    (void)state;
    info = (struct model_info){.run = hash_of("run", 3), .plan_hash = hash_of("plan", 4), .round = 12};
    info.spec = (struct model_spec){.stages = 1, .blocks = {1}, .width = 2, .input = 8, .features = 3};
    if (layout_new(&info.spec, &layout, NULL)) {
        return -1;
    }
    params = mem_new_aligned((size_t)layout->total, sizeof *params);
    params_init(layout, 3, params);
    struct buf head;
    struct hash128 tail;
    buf_init(&head, 65536);
    if (modelfile_encode(&info, layout, params, &head, &tail)) {
        return -1;
    }
    head_len = head.len;
    file_len = head.len + (size_t)layout->total * 4 + HASH_BYTES;
    file = mem_new(file_len, 1);
    memcpy(file, head.data, head.len);
    memcpy(file + head.len, params, (size_t)layout->total * 4);
    memcpy(file + file_len - HASH_BYTES, tail.bytes, HASH_BYTES);
    buf_fini(&head);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mem_free(file);
    mem_free(params);
    layout_free(layout);
    return 0;
}

/* A copy on the heap of exactly len bytes, so that the sanitizer sees a read beyond. */
static int decode(const uint8_t *data, size_t len, struct err *err)
{
    struct model_info got;
    struct layout *got_layout;
    float *got_params;
    uint8_t *copy = mem_new(len, 1);
    memcpy(copy, data, len);
    int rc = modelfile_decode(copy, len, &got, &got_layout, &got_params, err);
    mem_free(copy);
    assert_true((rc == 0) == (got_layout != NULL));
    assert_true((rc == 0) == (got_params != NULL));
    layout_free(got_layout);
    mem_free(got_params);
    return rc;
}

static void seal(uint8_t *data, size_t len)
{
    struct hash128 hash = hash_of(data, len - HASH_BYTES);
    memcpy(data + len - HASH_BYTES, hash.bytes, HASH_BYTES);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct model_info got;
    struct layout *got_layout;
    float *got_params;
    struct err err;
    assert_int_equal(modelfile_decode(file, file_len, &got, &got_layout, &got_params, &err), 0);
    assert_memory_equal(&got, &info, sizeof got);
    assert_true(hash_equal(&got_layout->fingerprint, &layout->fingerprint));
    assert_memory_equal(got_params, params, (size_t)layout->total * 4);
    layout_free(got_layout);
    mem_free(got_params);
}

/* By the byte table of modelfile.c alone: a reader that knows nothing of layouts finds each tensor by its name. */
static void test_stranger_reads_it(void **state)
{
    (void)state;
    assert_memory_equal(file, "STARLNGM", 8);
    uint32_t head = load_u32(file + 12), table = load_u32(file + 108), tensors = 0;
    assert_int_equal(head % 64, 0);
    char *text = mem_text((const char *)file + 128, table), *rest = text;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char name[64], kind[16], shape[64];
        unsigned long long offset;
        assert_int_equal(sscanf(line, "%63s %15s %63s %llu", name, kind, shape, &offset), 4);
        const struct tensor *tensor = layout_find(layout, name);
        assert_non_null(tensor);
        uint64_t count = 1;
        char *more = shape;
        for (char *size = strtok_r(shape, "x", &more); size; size = strtok_r(NULL, "x", &more)) {
            count *= strtoull(size, NULL, 10);
        }
        assert_int_equal(count, tensor->count);
        assert_memory_equal(file + head + 4 * offset, params + tensor->offset, (size_t)count * 4);
        tensors++;
    }
    assert_int_equal(tensors, layout->count);
    mem_free(text);
}

static void test_every_truncation(void **state)
{
    (void)state;
    struct err err;
    for (size_t len = 0; len < file_len; len++) {
        assert_int_equal(decode(file, len, &err), ERR_DATA);
        assert_non_null(strstr(err.text, len < 8 ? "not a Starling model file" : "truncated"));
    }
    uint8_t *longer = mem_new(file_len + 1, 1);
    memcpy(longer, file, file_len);
    assert_int_equal(decode(longer, file_len + 1, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "too long"));
    mem_free(longer);
}

static void test_every_bit(void **state)
{
    (void)state;
    struct err err;
    for (size_t i = 0; i < file_len; i++) {
        uint8_t bit = (uint8_t)(1u << i % 8);
        file[i] ^= bit;
        assert_int_equal(decode(file, file_len, &err), ERR_DATA);
        file[i] ^= bit;
    }
    file[file_len - 20] ^= 1;
    assert_int_equal(decode(file, file_len, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "hash"));
    file[file_len - 20] ^= 1;
}

/* A forger can make the hash right again. Only the run, the plan and the round are free to say anything. */
static void test_every_byte_of_the_head_resealed(void **state)
{
    (void)state;
    struct err err;
    static const uint8_t changes[] = {0x01, 0x80, 0xff, 0x20};
    uint8_t *forged = mem_new(file_len, 1);
    for (size_t i = 0; i < head_len; i++) {
        for (size_t c = 0; c < sizeof changes; c++) {
            memcpy(forged, file, file_len);
            forged[i] ^= changes[c];
            seal(forged, file_len);
            bool is_free = (i >= 16 && i < 48) || (i >= 64 && i < 68);
            /* The pixels of the input shape no tensor: 9 or 40 in the place of 8 is another, valid model. */
            bool input = i >= 100 && i < 104;
            int rc = decode(forged, file_len, &err);
            assert_true(rc == (is_free ? 0 : ERR_DATA) || (input && rc == 0));
        }
    }
    mem_free(forged);
}

/* Sizes from the head are believed only after they fit the file: none of these may be allocated or read. */
static void test_hostile_sizes(void **state)
{
    (void)state;
    static const uint64_t totals[] = {0, 1, UINT64_C(1) << 31, (UINT64_C(1) << 31) + 1, UINT64_C(1) << 62, UINT64_MAX};
    static const uint32_t sizes[] = {0, 1, 64, 0x100000, 0x7fffffff, 0x80000000, 0xffffff80, UINT32_MAX};
    struct err err;
    uint8_t *forged = mem_new(file_len, 1);
    for (size_t i = 0; i < sizeof totals / sizeof totals[0]; i++) {
        memcpy(forged, file, file_len);
        store_u64(forged + 112, totals[i]);
        seal(forged, file_len);
        assert_int_equal(decode(forged, file_len, &err), ERR_DATA);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t j = 0; j < sizeof sizes / sizeof sizes[0]; j++) {
            memcpy(forged, file, file_len);
            store_u32(forged + 12, sizes[i]);
            store_u32(forged + 108, sizes[j]);
            seal(forged, file_len);
            assert_int_equal(decode(forged, file_len, &err), ERR_DATA);
        }
    }
    for (size_t field = 68; field < 108; field += 4) { /* the model's numbers */
        memcpy(forged, file, file_len);
        store_u32(forged + field, UINT32_MAX);
        seal(forged, file_len);
        int rc = decode(forged, file_len, &err);
        bool unused = field > 76 && field < 92; /* blocks of stages that the model does not have */
        assert_int_equal(rc, ERR_DATA);
        assert_non_null(strstr(err.text, unused ? "tensor table" : "model in the header"));
    }
    mem_free(forged);
}

static void test_not_finite(void **state)
{
    (void)state;
    static const float wrong[] = {NAN, INFINITY, -INFINITY};
    struct err err;
    uint8_t *forged = mem_new(file_len, 1);
    for (size_t i = 0; i < 3; i++) {
        memcpy(forged, file, file_len);
        memcpy(forged + head_len + 4 * 5, &wrong[i], 4);
        seal(forged, file_len);
        assert_int_equal(decode(forged, file_len, &err), ERR_DATA);
        assert_string_equal(err.text, "parameter 5 is not finite");
    }
    mem_free(forged);
}

static void test_each_allocation_fails(void **state)
{
    (void)state;
    struct model_info got;
    struct layout *got_layout;
    float *got_params;
    int rc = ERR_NOMEM;
    uint64_t n = 0;
    while (rc == ERR_NOMEM) {
        mem_fail_after(++n);
        rc = modelfile_decode(file, file_len, &got, &got_layout, &got_params, NULL);
        mem_fail_after(0);
        assert_true((rc == 0) == (got_layout && got_params));
    }
    assert_int_equal(rc, 0);
    assert_true(n > 4);
    layout_free(got_layout);
    mem_free(got_params);
    struct hash128 tail;
    for (size_t max = 0; max < head_len; max += 50) {
        struct buf head;
        buf_init(&head, max);
        assert_int_equal(modelfile_encode(&info, layout, params, &head, &tail), ERR_LIMIT);
        buf_fini(&head);
    }
    struct err err;
    mem_fail_after(1);
    assert_int_equal(modelfile_save(&disk_posix, "/tmp/never-written", &info, layout, params, &err), ERR_NOMEM);
    mem_fail_after(0);
    assert_int_equal(access("/tmp/never-written", F_OK), -1);
}

static void test_disk(void **state)
{
    (void)state;
    char folder[] = "/tmp/starling-model-XXXXXX", path[64];
    struct model_info got;
    struct layout *got_layout = layout;
    float *got_params = params;
    struct err err;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/model", folder);
    assert_int_equal(modelfile_load(&disk_posix, path, &got, &got_layout, &got_params, &err), ERR_NOTFOUND);
    assert_null(got_layout);
    assert_null(got_params);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(modelfile_save(&disk_posix, path, &info, layout, params, &err), 0);
    assert_int_equal(modelfile_load(&disk_posix, path, &got, &got_layout, &got_params, &err), 0);
    assert_memory_equal(&got, &info, sizeof got);
    assert_memory_equal(got_params, params, (size_t)layout->total * 4);
    layout_free(got_layout);
    mem_free(got_params);
    assert_int_equal(truncate(path, (off_t)file_len - 1), 0);
    assert_int_equal(modelfile_load(&disk_posix, path, &got, &got_layout, &got_params, &err), ERR_DATA);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, "truncated"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_stranger_reads_it),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_every_byte_of_the_head_resealed),
        cmocka_unit_test(test_hostile_sizes),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_each_allocation_fails),
        cmocka_unit_test(test_disk),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
