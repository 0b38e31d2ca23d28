/* The CIFAR archives, small but of the right structure, whole and damaged in every way that the format can be. */
#include "tests/unit/client/data/data_support.h"

#include "client/data/scan.h"
#include "client/tool/import_cifar.h"
#include "client/tool/verbs.h"

#include <zlib.h>

#define PIXELS 3072u

struct world {
    struct scratch scratch;
    char archive[DISK_PATH_MAX], out[DISK_PATH_MAX];
    struct buf tar;
    struct import_cifar_options options;
    struct import_cifar_result result;
    struct err err;
};

static int setup(void **state)
{
    struct world *w = mem_new(1, sizeof *w);
    assert_non_null(w);
    scratch_open(&w->scratch);
    (void)scratch_path(&w->scratch, "archive.tar.gz", w->archive);
    (void)scratch_path(&w->scratch, "out", w->out);
    w->options = (struct import_cifar_options){.archive = w->archive, .out = w->out};
    buf_init(&w->tar, 64u << 20);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    buf_fini(&w->tar);
    scratch_close(&w->scratch);
    mem_free(w);
    return 0;
}

static void tar_entry(struct world *w, const char *name, char type, const void *data, size_t len)
{
    static const uint8_t zeros[512];
    char header[512] = {0};
    (void)snprintf(header, 100, "%s", name);
    memcpy(header + 100,
           "0000644\0"
           "0000000\0"
           "0000000\0",
           24);
    (void)snprintf(header + 124, 12, "%011o", (unsigned)len);
    memset(header + 148, ' ', 8);
    header[156] = type;
    memcpy(header + 257,
           "ustar\0"
           "00",
           8);
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof header; i++) {
        sum += (unsigned char)header[i];
    }
    (void)snprintf(header + 148, 8, "%06o", sum);
    assert_int_equal(buf_append(&w->tar, header, sizeof header), 0);
    assert_int_equal(buf_append(&w->tar, data, len), 0);
    assert_int_equal(buf_append(&w->tar, zeros, (512 - len % 512) % 512), 0);
}

/* `count` records of class (first + i) % classes; red, green and blue planes of a value each. */
static void tar_records(struct world *w, const char *name, uint32_t head, uint32_t classes, uint32_t first,
                        uint32_t count)
{
    size_t bytes = head + PIXELS;
    uint8_t *data = mem_new(count, bytes);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *record = data + i * bytes;
        memset(record, 99, head); /* the superclass of CIFAR-100 is not looked at */
        record[head - 1] = (uint8_t)((first + i) % classes);
        for (uint32_t c = 0; c < 3; c++) {
            memset(record + head + c * 1024, (int)(first + i + 50 * c), 1024);
        }
    }
    tar_entry(w, name, '0', data, count * bytes);
    mem_free(data);
}

static void tar_names(struct world *w, const char *name, uint32_t classes)
{
    char text[2048] = "";
    for (uint32_t i = 0; i < classes; i++) {
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), "name-%u\n", i);
    }
    tar_entry(w, name, '0', text, strlen(text));
}

static void tar_end(struct world *w)
{
    static const uint8_t zeros[10240];
    assert_int_equal(buf_append(&w->tar, zeros, sizeof zeros), 0);
}

static void cifar10(struct world *w, uint32_t last_batch)
{
    tar_entry(w, "cifar-10-batches-bin/", '5', "", 0);
    tar_entry(w, "cifar-10-batches-bin/readme.html", '0', "<html>", 6);
    for (uint32_t b = 1; b <= last_batch; b++) {
        char name[64];
        (void)snprintf(name, sizeof name, "cifar-10-batches-bin/data_batch_%u.bin", b);
        tar_records(w, name, 1, 10, b, 4);
    }
    tar_records(w, "cifar-10-batches-bin/test_batch.bin", 1, 10, 3, 2);
    tar_names(w, "cifar-10-batches-bin/batches.meta.txt", 10); /* after the data */
}

static void pack(struct world *w)
{
    gzFile file = gzopen(w->archive, "wb1");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, w->tar.data, (unsigned)w->tar.len), w->tar.len);
    assert_int_equal(gzclose(file), Z_OK);
}

static int import(struct world *w)
{
    return import_cifar_run(&w->options, &w->result, &w->err);
}

static void cifar10_becomes_folders(void **state)
{
    struct world *w = *state;
    char path[DISK_PATH_MAX];
    struct image image;
    size_t len;
    cifar10(w, 5);
    tar_end(w);
    pack(w);
    if (import(w)) {
        fail_msg("%s", w->err.text);
    }
    assert_int_equal(w->result.classes, 10);
    assert_int_equal(w->result.train, 20);
    assert_int_equal(w->result.test, 2);
    struct scan scan;
    assert_int_equal(scan_folder(w->out, NULL, &scan, NULL), 0);
    assert_int_equal(scan.count, 22);
    scan_fini(&scan);
    /* Class 4 in batches 1, 2, 3, 4; the second record of the test batch. */
    assert_int_equal(access(scratch_path(&w->scratch, "out/train/name-4/0003.png", path), F_OK), 0);
    assert_int_equal(access(scratch_path(&w->scratch, "out/train/name-4/0004.png", path), F_OK), -1);
    uint8_t *file = read_bytes(scratch_path(&w->scratch, "out/test/name-4/0000.png", path), &len);
    assert_int_equal(image_decode(file, len, 0, &image, NULL), 0);
    assert_int_equal(image.width, 32);
    assert_int_equal(image.height, 32);
    for (size_t i = 0; i < PIXELS; i++) {
        assert_int_equal(image.rgb[i], 4 + 50 * (i % 3)); /* planes became pixels */
    }
    image_free(&image);
    mem_free(file);
    assert_int_equal(import(w), ERR_CANTCREATE); /* out is not empty any more */
}

static void cifar100_is_named_after_its_fine_classes(void **state)
{
    struct world *w = *state;
    char path[DISK_PATH_MAX];
    tar_names(w, "cifar-100-binary/coarse_label_names.txt", 20);
    tar_names(w, "cifar-100-binary/fine_label_names.txt", 100);
    tar_records(w, "cifar-100-binary/train.bin", 2, 100, 90, 5);
    tar_records(w, "cifar-100-binary/test.bin", 2, 100, 7, 1);
    tar_end(w);
    pack(w);
    if (import(w)) {
        fail_msg("%s", w->err.text);
    }
    assert_int_equal(w->result.classes, 100);
    assert_int_equal(access(scratch_path(&w->scratch, "out/train/name-94/0000.png", path), F_OK), 0);
    assert_int_equal(access(scratch_path(&w->scratch, "out/test/name-7/0000.png", path), F_OK), 0);
}

/* Refused with exit 65, and nothing is left behind. */
static void expect_damage(struct world *w, const char *words)
{
    assert_int_equal(import(w), ERR_DATA);
    if (words && !strstr(w->err.text, words)) {
        fail_msg("\"%s\" does not say \"%s\"", w->err.text, words);
    }
    assert_non_null(strstr(w->err.text, w->archive));
    assert_int_equal(access(w->out, F_OK), -1);
    w->tar.len = 0;
}

static void incomplete_archives_are_refused(void **state)
{
    struct world *w = *state;
    cifar10(w, 4);
    tar_end(w);
    pack(w);
    expect_damage(w, "lacks data_batch_5.bin");
    tar_entry(w, "something/else.txt", '0', "x", 1);
    tar_end(w);
    pack(w);
    expect_damage(w, "no binary version");
    cifar10(w, 5);
    tar_records(w, "cifar-10-batches-bin/test_batch.bin", 1, 10, 3, 2);
    tar_end(w);
    pack(w);
    expect_damage(w, "twice");
    cifar10(w, 5);
    tar_records(w, "cifar-100-binary/train.bin", 2, 100, 0, 1);
    tar_end(w);
    pack(w);
    expect_damage(w, "CIFAR-100");
}

static void wrong_contents_are_refused(void **state)
{
    struct world *w = *state;
    cifar10(w, 4);
    tar_entry(w, "cifar-10-batches-bin/data_batch_5.bin", '0', "half a record", 13);
    tar_end(w);
    pack(w);
    expect_damage(w, "whole number of records");
    cifar10(w, 4);
    tar_records(w, "cifar-10-batches-bin/data_batch_5.bin", 1, 256, 10, 1);
    tar_end(w);
    pack(w);
    expect_damage(w, "class 10");
    tar_entry(w, "cifar-10-batches-bin/batches.meta.txt", '0', "airplane\n../../etc\n", 19);
    tar_end(w);
    pack(w);
    expect_damage(w, "no usable name for class 1");
}

static void damaged_archives_are_refused(void **state)
{
    struct world *w = *state;
    size_t len;
    uint8_t noise[20000]; /* cannot be packed, so that most of the archive is content of a file nobody asks for */
    struct rng rng;
    rng_init(&rng, 1, RNG_TEST, 0, 0, 0);
    for (size_t i = 0; i < sizeof noise; i++) {
        noise[i] = (uint8_t)rng_u32(&rng);
    }
    cifar10(w, 5);
    tar_entry(w, "cifar-10-batches-bin/noise", '0', noise, sizeof noise);
    tar_end(w);
    pack(w);
    w->tar.len = 0;
    uint8_t *good = read_bytes(w->archive, &len);
    for (size_t cut = 0; cut < len; cut += cut + 997 < len ? 997 : 1) {
        write_bytes(w->archive, good, cut);
        expect_damage(w, NULL);
    }
    unsigned refused = 0, harmless = 0;
    for (size_t at = 10; at < len; at += 301) { /* behind the gzip header, whose bytes are not all checked */
        good[at] ^= 0x10;
        write_bytes(w->archive, good, len);
        if (import(w) == 0) { /* a changed distance within a run of equal bytes unpacks to the same */
            struct scratch out;
            (void)snprintf(out.path, sizeof out.path, "%.60s", w->out);
            assert_int_equal(w->result.train + w->result.test, 22);
            scratch_close(&out);
            harmless++;
        } else {
            expect_damage(w, NULL);
            refused++;
        }
        good[at] ^= 0x10;
    }
    assert_true(refused > 50 && harmless < 4);
    mem_free(good);
    write_bytes(w->archive, "plain text, long enough to be taken for a block of tar or not, whichever", 72);
    expect_damage(w, NULL);
    assert_int_equal(unlink(w->archive), 0);
    assert_int_equal(import(w), ERR_NOTFOUND);
    assert_int_equal(err_exit_code(w->err.code), 65);
}

static void the_verb_answers_with_exit_codes(void **state)
{
    struct world *w = *state;
    char *words[] = {"import-cifar", "--archive", w->archive, "--out", w->out};
    assert_int_equal(verb_import_cifar(3, words), 64);
    assert_int_equal(verb_import_cifar(5, words), 65);
    cifar10(w, 5);
    tar_end(w);
    pack(w);
    assert_int_equal(verb_import_cifar(5, words), 0);
    assert_int_equal(verb_import_cifar(5, words), 73);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(cifar10_becomes_folders, setup, teardown),
        cmocka_unit_test_setup_teardown(cifar100_is_named_after_its_fine_classes, setup, teardown),
        cmocka_unit_test_setup_teardown(incomplete_archives_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_contents_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_archives_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(the_verb_answers_with_exit_codes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
