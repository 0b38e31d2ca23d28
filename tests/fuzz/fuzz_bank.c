/* The feature bank's reader. Input: byte 0 is the capacity; the rest are the bytes.
 *
 * Must hold: what is accepted fits the capacity and, unless it was cut down to it, is byte for byte what the writer
 * makes of it; a sample is of others' rows alone, each at most once. */
#include "common/base/mem.h"
#include "server/bank/bank.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : abort())

enum { DIMENSION = 4, SAMPLE = 64 };

static void check_sample(const struct bank *bank, const struct bank_owner *receiver)
{
    uint32_t rows[SAMPLE];
    uint32_t count = bank_sample(bank, 1, 2, receiver->name, SAMPLE, rows);
    REQUIRE(count <= SAMPLE);
    for (uint32_t i = 0; i < count; i++) {
        REQUIRE(rows[i] < bank->rows);
        REQUIRE(rows[i] < receiver->first || rows[i] >= receiver->first + receiver->count);
        for (uint32_t k = 0; k < i; k++) {
            REQUIRE(rows[k] != rows[i]);
        }
    }
}

static void check_accepted(const struct bank *bank, const uint8_t *bytes, size_t len)
{
    uint8_t *again;
    uint64_t again_len;
    struct bank *second = NULL;
    REQUIRE(bank->rows <= bank->capacity && bank->dimension == DIMENSION);
    REQUIRE(bank_check(bank->features, bank->rows, DIMENSION, NULL) == BANK_OK);
    REQUIRE(bank_encode(bank, &again, &again_len) == 0);
    REQUIRE(bank_decode(again, again_len, bank->capacity, DIMENSION, &second, NULL) == 0);
    REQUIRE(second->rows == bank->rows && second->owners_count == bank->owners_count);
    REQUIRE(again_len < len || (again_len == len && memcmp(again, bytes, len) == 0));
    for (uint32_t i = 0; i < bank->owners_count && i < 8; i++) {
        check_sample(bank, &bank->owners[i]);
    }
    bank_free(second);
    mem_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 1 << 18) {
        return 0;
    }
    struct bank *bank = NULL;
    struct err err = {0};
    int rc = bank_decode(data + 1, size - 1, 1 + (uint32_t)data[0], DIMENSION, &bank, &err);
    if (rc == 0) {
        check_accepted(bank, data + 1, size - 1);
        bank_free(bank);
    } else {
        REQUIRE(!bank && err.code == rc && err.text[0] != 0);
    }
    return 0;
}
