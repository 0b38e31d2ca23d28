/* A bank as bytes, for the checkpoint. Little-endian.
 *
 *   offset  size       field
 *   0       4          "SBNK"
 *   4       4          version, 1
 *   8       4          dimension d
 *   12      4          owners n
 *   16      4          rows r
 *   20      4          zero
 *   24      72 n       owners: name (64 bytes, zero-padded), rows, zero
 *   ..      4 r        rounds, in the order of the rows
 *   ..      4 r d      rows, f32
 *
 * Valid if and only if (1) magic and version are these, (2) d is the expected dimension, (3) the length is 24 + 72 n +
 * 4 r + 4 r d, (4) names are valid, without bytes behind their end, and strictly ascending, (5) each owner has rows,
 * and they add up to r, (6) an owner's rounds do not ascend, (7) all rows are finite and of unit length. */
#include "server/bank/bank.h"

#include "common/base/byteorder.h"
#include "common/base/mem.h"

#include <string.h>

#define HEAD_BYTES  24u
#define NAME_BYTES  64u
#define OWNER_BYTES 72u
#define VERSION     1u

static const uint8_t magic[4] = {'S', 'B', 'N', 'K'};

static uint64_t encoded_len(uint64_t owners, uint64_t rows, uint64_t dimension)
{
    return HEAD_BYTES + OWNER_BYTES * owners + 4 * rows + 4 * rows * dimension;
}

int bank_encode(const struct bank *bank, uint8_t **out, uint64_t *len)
{
    *len = encoded_len(bank->owners_count, bank->rows, bank->dimension);
    uint8_t *at = *out = mem_new((size_t)*len, 1);
    if (!at) {
        return ERR_NOMEM;
    }
    memcpy(at, magic, sizeof magic);
    store_u32(at + 4, VERSION);
    store_u32(at + 8, bank->dimension);
    store_u32(at + 12, bank->owners_count);
    store_u32(at + 16, bank->rows);
    at += HEAD_BYTES;
    for (uint32_t i = 0; i < bank->owners_count; i++, at += OWNER_BYTES) {
        memcpy(at, bank->owners[i].name, strlen(bank->owners[i].name));
        store_u32(at + NAME_BYTES, bank->owners[i].count);
    }
    for (uint32_t i = 0; i < bank->rows; i++, at += 4) {
        store_u32(at, bank->rounds[i]);
    }
    store_f32s(at, bank->features, (size_t)bank->rows * bank->dimension);
    return 0;
}

static int decode_owners(struct bank *bank, const uint8_t *at, struct err *err)
{
    uint64_t first = 0;
    for (uint32_t i = 0; i < bank->owners_count; i++, at += OWNER_BYTES) {
        struct bank_owner *owner = &bank->owners[i];
        memcpy(owner->name, at, NAME_BYTES);
        size_t length = strlen(owner->name);
        for (size_t k = length; k < NAME_BYTES; k++) {
            if (at[k] != 0) {
                return err_set(err, ERR_DATA, "feature bank: owner %u has bytes behind its name", i);
            }
        }
        if (!name_is_valid(owner->name) || (i > 0 && strcmp(bank->owners[i - 1].name, owner->name) >= 0)) {
            return err_set(err, ERR_DATA, "feature bank: the name of owner %u is not valid or out of order", i);
        }
        owner->first = (uint32_t)first;
        owner->count = load_u32(at + NAME_BYTES);
        first += owner->count;
        if (owner->count == 0 || first > bank->rows || load_u32(at + NAME_BYTES + 4) != 0) {
            return err_set(err, ERR_DATA, "feature bank: owner %u claims %u of %u rows", i, owner->count, bank->rows);
        }
    }
    if (first != bank->rows) {
        return err_set(err, ERR_DATA, "feature bank: %u rows, of which %llu have owners", bank->rows,
                       (unsigned long long)first);
    }
    return 0;
}

static int decode_rows(struct bank *bank, const uint8_t *at, struct err *err)
{
    for (uint32_t i = 0; i < bank->rows; i++, at += 4) {
        bank->rounds[i] = load_u32(at);
    }
    for (uint32_t i = 0; i < bank->owners_count; i++) {
        const struct bank_owner *owner = &bank->owners[i];
        for (uint32_t r = owner->first + 1; r < owner->first + owner->count; r++) {
            if (bank->rounds[r] > bank->rounds[r - 1]) {
                return err_set(err, ERR_DATA, "feature bank: row %u is newer than the one before it", r);
            }
        }
    }
    load_f32s(bank->features, at, (size_t)bank->rows * bank->dimension);
    uint32_t row;
    if (bank_check(bank->features, bank->rows, bank->dimension, &row) != BANK_OK) {
        return err_set(err, ERR_DATA, "feature bank: row %u is no unit vector", row);
    }
    return 0;
}

static int trim(struct bank **bank, uint32_t capacity)
{
    struct bank_intake *nothing;
    struct bank *smaller;
    int rc = bank_intake_new(capacity, (*bank)->dimension, &nothing);
    if (rc == 0) {
        rc = bank_merge(*bank, nothing, &smaller);
        bank_intake_free(nothing);
    }
    if (rc == 0) {
        bank_free(*bank);
        *bank = smaller;
    }
    return rc;
}

int bank_decode(const uint8_t *bytes, uint64_t len, uint32_t capacity, uint32_t dimension, struct bank **out,
                struct err *err)
{
    *out = NULL;
    if (len < HEAD_BYTES || memcmp(bytes, magic, sizeof magic) != 0 || load_u32(bytes + 4) != VERSION ||
        load_u32(bytes + 20) != 0) {
        return err_set(err, ERR_DATA, "feature bank: not the bytes of a bank of version %u", VERSION);
    }
    uint32_t owners = load_u32(bytes + 12), rows = load_u32(bytes + 16);
    if (load_u32(bytes + 8) != dimension) {
        return err_set(err, ERR_DATA, "feature bank: features of %u numbers; the plan says %u", load_u32(bytes + 8),
                       dimension);
    }
    /* The counts have 32 bits each and d at most 16, so that nothing overflows; a length that holds bounds them. */
    if (dimension > UINT16_MAX || len != encoded_len(owners, rows, dimension)) {
        return err_set(err, ERR_DATA, "feature bank: %llu bytes do not hold %u owners and %u rows",
                       (unsigned long long)len, owners, rows);
    }
    struct bank *bank;
    int rc = bank_new(capacity, dimension, &bank);
    if (rc) {
        return err_set(err, rc, "out of memory for the feature bank");
    }
    bank->owners_count = owners;
    bank->rows = rows;
    bank->owners = mem_new(owners, sizeof *bank->owners);
    bank->rounds = mem_new(rows, sizeof *bank->rounds);
    bank->features = mem_new_aligned((size_t)rows * dimension, sizeof *bank->features);
    if (!bank->owners || !bank->rounds || !bank->features) {
        rc = err_set(err, ERR_NOMEM, "out of memory for the feature bank");
    }
    rc = rc ? rc : decode_owners(bank, bytes + HEAD_BYTES, err);
    rc = rc ? rc : decode_rows(bank, bytes + HEAD_BYTES + (uint64_t)OWNER_BYTES * owners, err);
    if (rc == 0 && (rc = rows > capacity ? trim(&bank, capacity) : bank_rank(bank)) != 0) {
        (void)err_set(err, rc, "out of memory for the feature bank");
    }
    if (rc) {
        bank_free(bank);
        return rc;
    }
    *out = bank;
    return 0;
}
