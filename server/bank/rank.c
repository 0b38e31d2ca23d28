/* The order of a bank's rows by their bytes, once for a snapshot: every receiver's sample is put in that order, and
 * comparing rows for each of them would cost more than sending them. */
#include "server/bank/bank.h"

#include "common/base/mem.h"

#include <endian.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    uint64_t head; /* its first bytes, which tell most rows apart */
    const float *row;
    uint32_t bytes, at;
};

static int by_bytes(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->head != y->head) {
        return x->head < y->head ? -1 : 1;
    }
    int order = memcmp(x->row, y->row, x->bytes);
    return order ? order : x->at < y->at ? -1 : x->at > y->at;
}

int bank_rank(struct bank *bank)
{
    struct entry *entries = mem_new(bank->rows, sizeof *entries);
    uint32_t *rank = mem_new(bank->rows, sizeof *rank);
    if (!entries || !rank) {
        mem_free(entries);
        mem_free(rank);
        return ERR_NOMEM;
    }
    uint32_t bytes = bank->dimension * (uint32_t)sizeof *bank->features;
    for (uint32_t r = 0; r < bank->rows; r++) {
        const float *row = bank->features + (size_t)r * bank->dimension;
        uint64_t head = 0;
        memcpy(&head, row, bytes < sizeof head ? bytes : sizeof head);
        entries[r] = (struct entry){be64toh(head), row, bytes, r};
    }
    qsort(entries, bank->rows, sizeof *entries, by_bytes);
    for (uint32_t i = 0; i < bank->rows; i++) {
        rank[entries[i].at] = i;
    }
    mem_free(entries);
    mem_free(bank->rank);
    bank->rank = rank;
    return 0;
}
