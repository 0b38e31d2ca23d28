/* Reads a golden file; its byte table is in make_golden.py. */
#ifndef STARLING_TESTS_GOLDEN_H
#define STARLING_TESTS_GOLDEN_H

#include "tests/unit/client/nn/nn_support.h"

#include <stdio.h>

struct array {
    char name[33];
    uint32_t count;
    const void *data;
};

struct golden {
    uint8_t *bytes;
    uint32_t count;
    struct array arrays[16];
};

static inline uint32_t get_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline void golden_open(struct golden *golden, const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/tests/golden/%s", STARLING_SOURCE_DIR, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size_t size = (size_t)ftell(file), at = 12;
    rewind(file);
    memset(golden, 0, sizeof *golden);
    golden->bytes = mem_new_aligned(size, 1);
    assert_non_null(golden->bytes);
    assert_int_equal(fread(golden->bytes, 1, size, file), size);
    (void)fclose(file);
    assert_memory_equal(golden->bytes, "STGOLD01", 8);
    golden->count = get_u32(golden->bytes + 8);
    assert_true(golden->count <= 16);
    for (uint32_t i = 0; i < golden->count; i++) {
        struct array *array = &golden->arrays[i];
        assert_true(at + 40 <= size);
        memcpy(array->name, golden->bytes + at, 32);
        array->count = get_u32(golden->bytes + at + 36);
        array->data = golden->bytes + at + 40; /* a multiple of four; the machine is little-endian as the file is */
        at += 40 + (size_t)array->count * 4;
        assert_true(at <= size);
    }
    assert_int_equal(at, size);
}

static inline const struct array *find(const struct golden *golden, const char *name)
{
    for (uint32_t i = 0; i < golden->count; i++) {
        if (strcmp(golden->arrays[i].name, name) == 0) {
            return &golden->arrays[i];
        }
    }
    fail_msg("the golden file has no %s", name);
    return NULL;
}

static inline const float *floats(const struct golden *golden, const char *name, size_t count)
{
    const struct array *array = find(golden, name);
    assert_int_equal(array->count, count);
    return array->data;
}

static inline const uint32_t *numbers(const struct golden *golden, const char *name, size_t count)
{
    const struct array *array = find(golden, name);
    assert_int_equal(array->count, count);
    return array->data;
}

#endif
