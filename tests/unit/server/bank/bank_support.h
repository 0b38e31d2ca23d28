/* Rows that say whose they are: the owner's number and the round stand in the first two components, and the third makes
 * the length one. */
#ifndef STARLING_TESTS_BANK_SUPPORT_H
#define STARLING_TESTS_BANK_SUPPORT_H

#include "common/base/mem.h"
#include "server/bank/bank.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { DIMENSION = 4 };

static inline void mark(float *row, uint32_t owner, uint32_t round, uint32_t number)
{
    row[0] = (float)owner / 4096;
    row[1] = (float)round / 4096;
    row[2] = (float)number / 4096;
    row[3] = sqrtf(1 - row[0] * row[0] - row[1] * row[1] - row[2] * row[2]);
}

static inline uint32_t owner_of(const struct bank *bank, uint32_t row)
{
    return (uint32_t)lrintf(bank->features[(size_t)row * DIMENSION] * 4096);
}

static inline uint32_t number_of(const struct bank *bank, uint32_t row)
{
    return (uint32_t)lrintf(bank->features[(size_t)row * DIMENSION + 2] * 4096);
}

static inline const char *name_of(uint32_t owner, char out[NAME_MAX_BYTES])
{
    (void)snprintf(out, NAME_MAX_BYTES, "site-%u", owner);
    return out;
}

static inline int add(struct bank_intake *intake, uint32_t owner, uint32_t round, uint32_t rows)
{
    char name[NAME_MAX_BYTES];
    float *features = mem_new((size_t)rows * DIMENSION, sizeof *features);
    for (uint32_t i = 0; i < rows; i++) {
        mark(features + (size_t)i * DIMENSION, owner, round, i);
    }
    int rc = bank_intake_add(intake, name_of(owner, name), round, features, rows);
    mem_free(features);
    return rc;
}

/* *bank becomes the next snapshot; the intake is empty again. */
static inline void turn(struct bank **bank, struct bank_intake *intake)
{
    struct bank *next;
    assert_int_equal(bank_merge(*bank, intake, &next), 0);
    bank_intake_clear(intake);
    bank_free(*bank);
    *bank = next;
}

static inline const struct bank_owner *find(const struct bank *bank, uint32_t owner)
{
    char name[NAME_MAX_BYTES];
    for (uint32_t i = 0; i < bank->owners_count; i++) {
        if (strcmp(bank->owners[i].name, name_of(owner, name)) == 0) {
            return &bank->owners[i];
        }
    }
    return NULL;
}

static inline void assert_same_bank(const struct bank *a, const struct bank *b)
{
    uint8_t *x, *y;
    uint64_t x_len, y_len;
    assert_int_equal(bank_encode(a, &x, &x_len), 0);
    assert_int_equal(bank_encode(b, &y, &y_len), 0);
    assert_int_equal(x_len, y_len);
    assert_memory_equal(x, y, (size_t)x_len);
    mem_free(x);
    mem_free(y);
}

#endif
