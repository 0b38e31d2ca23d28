/* The files of a client's state: what is written is read back, and nothing else is. */
#include "client/shell/files.h"
#include "common/base/byteorder.h"
#include "common/base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct kept_carry carry_of(size_t bytes, uint8_t first)
{
    struct kept_carry carry = {.round = 7, .data = bytes ? mem_new_aligned(bytes, 1) : NULL, .bytes = bytes};
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)carry.data)[i] = (uint8_t)(first + i);
    }
    return carry;
}

static struct blob blob_of(uint32_t kind, const struct bytes *bytes)
{
    return (struct blob){.kind = kind,
                         .round = 9,
                         .element = ELEMENT_F32,
                         .count = bytes->len / 4,
                         .dimension = kind == BLOB_FEATURES ? 4 : 0,
                         .encoder = kind == BLOB_FEATURES ? 1 : 0,
                         .bytes = bytes->len,
                         .layout.bytes = {1, 2, 3},
                         .hash = hash_of(bytes->data, bytes->len)};
}

static struct kept_pending pending_of(bool features)
{
    struct kept_pending pending = {.run.bytes = {1}, .plan_hash.bytes = {2}, .carry = carry_of(80, 100)};
    struct contribution *contribution = &pending.contribution;
    contribution->round = 9;
    contribution->report = (struct report){.images = 1,
                                           .seen = 2,
                                           .steps = 3,
                                           .loss = 4.5,
                                           .loss_contrast = -5,
                                           .loss_matching = 6,
                                           .remote_share = 0.5,
                                           .images_per_second = 7,
                                           .train_ms = UINT64_C(1) << 40,
                                           .aggregate = {true, 0.25, -3, 0.9, 7.5},
                                           .privacy = {true, 12, 1.5, 1e-5, 0, 0}};
    contribution->update = bytes_new(4 * 37);
    memset(contribution->update->data, 0x5a, contribution->update->len);
    contribution->update_blob = blob_of(BLOB_UPDATE, contribution->update);
    if (features) {
        contribution->features = bytes_new(4 * 4 * 3);
        memset(contribution->features->data, 0xa5, contribution->features->len);
        contribution->features_blob = blob_of(BLOB_FEATURES, contribution->features);
    }
    return pending;
}

static uint8_t *flatten(const struct file_image *image, size_t *len)
{
    *len = 0;
    for (size_t i = 0; i < image->count; i++) {
        *len += image->parts[i].len;
    }
    uint8_t *file = mem_new(*len, 1);
    size_t at = 0;
    for (size_t i = 0; i < image->count; i++) {
        memcpy(file + at, image->parts[i].data, image->parts[i].len);
        at += image->parts[i].len;
    }
    return file;
}

static uint8_t *pending_file(bool features, size_t *len)
{
    struct kept_pending pending = pending_of(features);
    struct file_image image;
    assert_int_equal(files_encode_pending(&pending, &image), 0);
    uint8_t *file = flatten(&image, len);
    file_image_fini(&image);
    kept_pending_fini(&pending);
    return file;
}

static uint8_t *state_file(size_t carry, size_t *len)
{
    struct kept_state state = {.run.bytes = {3}, .plan_hash.bytes = {4}, .round = 8, .carry = carry_of(carry, 1)};
    struct file_image image;
    assert_int_equal(files_encode_state(&state, &image), 0);
    uint8_t *file = flatten(&image, len);
    file_image_fini(&image);
    kept_carry_fini(&state.carry);
    return file;
}

static void resign(uint8_t *file, size_t len)
{
    struct hash128 hash = hash_of(file, len - 16);
    memcpy(file + len - 16, hash.bytes, 16);
}

/* As an older version had it: 2 without the measures, 3 without the privacy. */
static uint8_t *old_pending_file(uint32_t version, bool features, size_t *len)
{
    uint8_t *file = pending_file(features, len);
    size_t at = version == 2 ? 280 : 344;
    store_u32(file + 8, version);
    memmove(file + at, file + 384, *len - 384);
    *len -= 384 - at;
    resign(file, *len);
    return file;
}

static void same_watch(const struct watch *a, const struct watch *b)
{
    uint8_t x[WATCH_BYTES], y[WATCH_BYTES];
    watch_store(x, a);
    watch_store(y, b);
    assert_int_equal(a->measured, b->measured);
    assert_memory_equal(x, y, sizeof x);
}

static void the_state_comes_back(void **unused)
{
    (void)unused;
    for (size_t carry = 0; carry < 3; carry++) {
        size_t len;
        uint8_t *file = state_file(carry, &len);
        struct kept_state got;
        assert_int_equal(files_decode_state(file, len, &got, NULL), 0);
        assert_int_equal(got.run.bytes[0], 3);
        assert_int_equal(got.plan_hash.bytes[0], 4);
        assert_int_equal(got.round, 8);
        assert_int_equal(got.carry.bytes, carry);
        assert_int_equal(got.carry.round, 7);
        for (size_t i = 0; i < carry; i++) {
            assert_int_equal(((uint8_t *)got.carry.data)[i], 1 + i);
        }
        kept_carry_fini(&got.carry);
        mem_free(file);
    }
}

static void the_pending_contribution_comes_back(void **unused)
{
    (void)unused;
    for (int i = 0; i < 6; i++) {
        size_t len;
        bool features = i % 2;
        uint32_t version = 2 + (uint32_t)i / 2;
        uint8_t *file = version < 4 ? old_pending_file(version, features, &len) : pending_file(features, &len);
        struct kept_pending got, want = pending_of(features);
        assert_int_equal(files_decode_pending(file, len, &got, NULL), 0);
        const struct contribution *a = &got.contribution, *b = &want.contribution;
        assert_int_equal(got.run.bytes[0], 1);
        assert_int_equal(got.plan_hash.bytes[0], 2);
        assert_int_equal(a->round, 9);
        assert_memory_equal(&a->report, &b->report, offsetof(struct report, aggregate));
        same_watch(&a->report.aggregate, version == 2 ? &(struct watch){0} : &b->report.aggregate);
        same_watch(&a->report.own, &b->report.own);
        assert_int_equal(a->report.privacy.counted, version == 4);
        if (version == 4) {
            assert_int_equal(a->report.privacy.releases, 12);
            assert_true(a->report.privacy.features_epsilon == 1.5 && a->report.privacy.features_delta == 1e-5);
            assert_true(a->report.privacy.update_epsilon == 0 && a->report.privacy.update_delta == 0);
        }
        assert_memory_equal(&a->update_blob, &b->update_blob, sizeof a->update_blob);
        assert_memory_equal(&a->features_blob, &b->features_blob, sizeof a->features_blob);
        assert_int_equal(a->update->len, b->update->len);
        assert_memory_equal(a->update->data, b->update->data, b->update->len);
        assert_int_equal(a->features != NULL, features);
        if (features) {
            assert_memory_equal(a->features->data, b->features->data, b->features->len);
        }
        assert_int_equal(got.carry.bytes, 80);
        assert_int_equal(got.carry.round, 7);
        assert_memory_equal(got.carry.data, want.carry.data, 80);
        kept_pending_fini(&got);
        kept_pending_fini(&want);
        mem_free(file);
    }
}

static void damage_is_found_wherever_it_is(void **unused)
{
    (void)unused;
    size_t len;
    struct kept_pending pending;
    struct kept_state kept;
    struct err err;
    uint8_t *file = pending_file(true, &len);
    for (size_t i = 0; i < len; i++) {
        file[i] ^= 0x40;
        assert_int_equal(files_decode_pending(file, len, &pending, &err), ERR_DATA);
        assert_null(pending.contribution.update);
        file[i] ^= 0x40;
        assert_int_equal(files_decode_pending(file, i, &pending, &err), ERR_DATA);
    }
    assert_int_equal(files_decode_state(file, len, &kept, &err), ERR_DATA); /* another file's magic */
    mem_free(file);
    file = state_file(3, &len);
    for (size_t i = 0; i < len; i++) {
        file[i] ^= 1;
        assert_int_equal(files_decode_state(file, len, &kept, &err), ERR_DATA);
        file[i] ^= 1;
        assert_int_equal(files_decode_state(file, i, &kept, &err), ERR_DATA);
    }
    mem_free(file);
}

/* A file that lies about its sizes under a checksum that holds: no read and no allocation may believe it. */
static void sizes_are_checked_behind_a_right_checksum(void **unused)
{
    (void)unused;
    static const size_t places[] = {48, 52, 136, 140, 144, 148, 152, 160, 168, 208, 212, 216, 220, 232, 240};
    static const uint32_t values[] = {0x7fffffff, 0xffffffff, 0x40000000, 77};
    for (size_t place = 0; place < sizeof places / sizeof places[0]; place++) {
        for (size_t value = 0; value < sizeof values / sizeof values[0]; value++) {
            size_t len;
            uint8_t *file = pending_file(true, &len);
            struct kept_pending got;
            memcpy(file + places[place], &values[value], 4);
            resign(file, len);
            assert_int_equal(files_decode_pending(file, len, &got, NULL), ERR_DATA);
            mem_free(file);
        }
    }
}

/* An update that claims 4 bytes a number more than there are, and a carry that claims as many less than none: the sum
 * is right in 64 bits, and the update would be read from beyond the end. */
static void sizes_that_agree_by_overflow_are_refused(void **unused)
{
    (void)unused;
    size_t len;
    uint8_t *file = pending_file(true, &len);
    struct kept_pending got;
    const uint64_t more = 1 << 20, carry = load_u64(file + 48), count = load_u64(file + 160);
    assert_int_equal(load_u64(file + 168), 4 * count);
    store_u64(file + 160, count + more);
    store_u64(file + 168, 4 * (count + more));
    store_u64(file + 48, carry - 4 * more);
    resign(file, len);
    assert_int_equal(files_decode_pending(file, len, &got, NULL), ERR_DATA);
    mem_free(file);
}

static void the_instance_comes_back(void **unused)
{
    (void)unused;
    struct hash128 instance = {.bytes = {5, 6, 7}}, got;
    struct file_image image;
    size_t len;
    assert_int_equal(files_encode_instance(&instance, &image), 0);
    uint8_t *file = flatten(&image, &len);
    file_image_fini(&image);
    assert_int_equal(files_decode_instance(file, len, &got, NULL), 0);
    assert_true(hash_equal(&got, &instance));
    file[18] ^= 1;
    assert_int_equal(files_decode_instance(file, len, &got, NULL), ERR_DATA);
    mem_free(file);
}

static void the_secret_comes_back(void **unused)
{
    (void)unused;
    uint8_t secret[SECRET_BYTES], got[SECRET_BYTES];
    struct file_image image;
    size_t len;
    memset(secret, 0x5c, sizeof secret);
    assert_int_equal(files_encode_secret(secret, &image), 0);
    uint8_t *file = flatten(&image, &len);
    file_image_fini(&image);
    assert_int_equal(len, 64);
    assert_int_equal(files_decode_secret(file, len, got, NULL), 0);
    assert_memory_equal(got, secret, sizeof got);
    memset(secret, 0, sizeof secret);
    for (size_t i = 0; i < len; i++) {
        file[i] ^= 1;
        assert_int_equal(files_decode_secret(file, len, got, NULL), ERR_DATA);
        assert_memory_equal(got, secret, sizeof got);
        file[i] ^= 1;
        assert_int_equal(files_decode_secret(file, i, got, NULL), ERR_DATA);
    }
    uint8_t longer[65] = {0};
    memcpy(longer, file, 48);
    resign(longer, sizeof longer);
    assert_int_equal(files_decode_secret(longer, sizeof longer, got, NULL), ERR_DATA);
    mem_free(file);
}

static uint8_t *spent_file(const struct kept_spent *spent, size_t *len)
{
    struct file_image image;
    assert_int_equal(files_encode_spent(spent, &image), 0);
    uint8_t *file = flatten(&image, len);
    file_image_fini(&image);
    return file;
}

static void what_was_spent_comes_back(void **unused)
{
    (void)unused;
    const struct kept_spent spent = {.run = {.bytes = {5, 6, 7}}, .releases = 9, .features = 0.25, .updates = 1e30};
    struct kept_spent got;
    size_t len;
    uint8_t *file = spent_file(&spent, &len);
    assert_int_equal(len, 64);
    assert_int_equal(files_decode_spent(file, len, &got, NULL), 0);
    assert_true(hash_equal(&got.run, &spent.run) && got.releases == 9);
    assert_true(got.features == 0.25 && got.updates == 1e30);
    for (size_t i = 0; i < len; i++) {
        file[i] ^= 1;
        assert_int_equal(files_decode_spent(file, len, &got, NULL), ERR_DATA);
        assert_int_equal(got.releases, 0);
        file[i] ^= 1;
        assert_int_equal(files_decode_spent(file, i, &got, NULL), ERR_DATA);
    }
    static const double impossible[] = {-1, (double)INFINITY, (double)NAN};
    for (size_t i = 0; i < 6; i++) {
        store_f64(file + (i < 3 ? 32 : 40), impossible[i % 3]);
        resign(file, len);
        assert_int_equal(files_decode_spent(file, len, &got, NULL), ERR_DATA);
        store_f64(file + (i < 3 ? 32 : 40), 1);
    }
    mem_free(file);
}

static void memory_may_run_out_at_each_allocation(void **unused)
{
    (void)unused;
    size_t len;
    uint8_t *file = pending_file(true, &len);
    struct kept_pending got;
    int rc = ERR_NOMEM;
    for (uint64_t n = 1; rc == ERR_NOMEM; n++) {
        mem_fail_after(n);
        rc = files_decode_pending(file, len, &got, NULL);
        mem_fail_after(0);
        assert_true(rc == 0 || rc == ERR_NOMEM);
        assert_true(n < 50);
    }
    kept_pending_fini(&got);
    mem_free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_state_comes_back),
        cmocka_unit_test(the_pending_contribution_comes_back),
        cmocka_unit_test(damage_is_found_wherever_it_is),
        cmocka_unit_test(sizes_are_checked_behind_a_right_checksum),
        cmocka_unit_test(sizes_that_agree_by_overflow_are_refused),
        cmocka_unit_test(the_instance_comes_back),
        cmocka_unit_test(the_secret_comes_back),
        cmocka_unit_test(what_was_spent_comes_back),
        cmocka_unit_test(memory_may_run_out_at_each_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
