#include "server/bank/bank.h"

#include "common/base/mem.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#define UNIT_TOLERANCE 1e-3

int bank_new(uint32_t capacity, uint32_t dimension, struct bank **out)
{
    *out = mem_new(1, sizeof **out);
    if (!*out) {
        return ERR_NOMEM;
    }
    (*out)->capacity = capacity;
    (*out)->dimension = dimension;
    return 0;
}

void bank_free(struct bank *bank)
{
    if (bank) {
        mem_free(bank->owners);
        mem_free(bank->rounds);
        mem_free(bank->rank);
        mem_free(bank->features);
        mem_free(bank);
    }
}

void bank_expire(struct bank *bank, uint32_t oldest)
{
    size_t dimension = bank->dimension;
    uint32_t owners = 0, rows = 0;
    for (uint32_t i = 0; i < bank->owners_count; i++) {
        struct bank_owner owner = bank->owners[i];
        uint32_t kept = 0;
        while (kept < owner.count && bank->rounds[owner.first + kept] >= oldest) { /* newest first */
            kept++;
        }
        memmove(bank->rounds + rows, bank->rounds + owner.first, kept * sizeof *bank->rounds);
        memmove(bank->rank + rows, bank->rank + owner.first, kept * sizeof *bank->rank);
        memmove(bank->features + rows * dimension, bank->features + owner.first * dimension,
                kept * dimension * sizeof *bank->features);
        owner.first = rows;
        owner.count = kept;
        bank->owners[owners] = owner;
        owners += kept > 0;
        rows += kept;
    }
    bank->owners_count = owners;
    bank->rows = rows;
}

enum bank_verdict bank_check(const float *features, uint32_t rows, uint32_t dimension, uint32_t *row)
{
    for (uint32_t r = 0; r < rows; r++) {
        const float *feature = features + (size_t)r * dimension;
        double square = 0;
        for (uint32_t i = 0; i < dimension; i++) {
            square += (double)feature[i] * (double)feature[i];
        }
        double length = sqrt(square); /* NaN and infinity come through to here */
        if (!(fabs(length - 1) <= UNIT_TOLERANCE)) {
            if (row) {
                *row = r;
            }
            return isfinite(length) ? BANK_NOT_UNIT : BANK_NOT_FINITE;
        }
    }
    return BANK_OK;
}
