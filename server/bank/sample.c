/* A sample of the others' rows. Every owner gives the same number of rows, its newest, or all that it has; what is left
 * over is given by owners that are drawn. Newest, because features of an older encoder teach less, and in short rounds
 * a bank reaches back many of them.
 *
 * Receivers know the plan's seed, their name and the round, and can so undo whatever is drawn from these. So the rows
 * are put in the order of their bytes before they are permuted: what comes out depends on which rows go, and not on
 * whose they are. */
#include "server/bank/bank.h"

#include "common/base/hash.h"
#include "common/base/rng.h"

#include <string.h>

/* The receiver's place among the owners; owners_count when it has no rows. */
static uint32_t place_of(const struct bank *bank, const char *receiver)
{
    uint32_t i = 0;
    while (i < bank->owners_count && strcmp(bank->owners[i].name, receiver) != 0) {
        i++;
    }
    return i;
}

bool bank_has(const struct bank *bank, const char *name)
{
    return place_of(bank, name) < bank->owners_count;
}

uint32_t bank_others(const struct bank *bank, const char *receiver)
{
    return bank->owners_count - bank_has(bank, receiver);
}

/* Rows that the others give if each gives at most `level`. */
static uint64_t rows_at(const struct bank *bank, uint32_t own, uint32_t level)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < bank->owners_count; i++) {
        if (i != own) {
            rows += bank->owners[i].count < level ? bank->owners[i].count : level;
        }
    }
    return rows;
}

/* The highest level at which there are no more than `most` rows. Levels above `most` need no look: an owner with so
 * many rows would give too many, and where there is none such a level is no other than `most`. */
static uint32_t level_for(const struct bank *bank, uint32_t own, uint32_t most)
{
    uint32_t low = 0, high = bank->rows < most ? bank->rows : most;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (rows_at(bank, own, middle) <= most) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

/* rows[at] goes down to its place in a heap whose largest row is the first. */
static void sink(const uint32_t *rank, uint32_t *rows, uint32_t at, uint32_t count)
{
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        child += child + 1 < count && rank[rows[child]] < rank[rows[child + 1]];
        if (rank[rows[at]] >= rank[rows[child]]) {
            return;
        }
        uint32_t row = rows[at];
        rows[at] = rows[child];
        rows[child] = row;
    }
}

/* In the order of their bytes; rows that are alike are told apart by nobody. */
static void sort_by(const uint32_t *rank, uint32_t *rows, uint32_t count)
{
    for (uint32_t at = count / 2; at > 0; at--) {
        sink(rank, rows, at - 1, count);
    }
    for (uint32_t left = count; left > 1; left--) {
        uint32_t row = rows[0];
        rows[0] = rows[left - 1];
        rows[left - 1] = row;
        sink(rank, rows, 0, left - 1);
    }
}

uint32_t bank_sample(const struct bank *bank, uint64_t seed, uint32_t round, const char *receiver, uint32_t most,
                     uint32_t *out)
{
    uint32_t own = place_of(bank, receiver), level = level_for(bank, own, most);
    uint32_t spare = most - (uint32_t)rows_at(bank, own, level), givers = 0;
    for (uint32_t i = 0; i < bank->owners_count; i++) {
        givers += i != own && bank->owners[i].count > level;
    }
    struct hash128 name = hash_of(receiver, strlen(receiver));
    uint64_t name_half;
    memcpy(&name_half, name.bytes, sizeof name_half);
    struct rng rng;
    rng_init(&rng, seed, RNG_REMOTE, round, name_half, 0);

    uint32_t taken = 0;
    for (uint32_t i = 0; i < bank->owners_count; i++) {
        const struct bank_owner *owner = &bank->owners[i];
        if (i == own) {
            continue;
        }
        uint32_t take = owner->count < level ? owner->count : level;
        if (owner->count > level && rng_below(&rng, givers--) < spare) {
            take++;
            spare--;
        }
        for (uint32_t r = 0; r < take; r++) {
            out[taken++] = owner->first + r;
        }
    }
    sort_by(bank->rank, out, taken);
    rng_init(&rng, seed, RNG_REMOTE, round, name_half, 1); /* how much was drawn before depends on owners */
    rng_permute(&rng, out, taken);
    return taken;
}
