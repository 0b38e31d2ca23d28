#include "server/bank/screen.h"

#include <math.h>
#include <string.h>

#define LANES 8u /* sums in a fixed order that a compiler can make vectors of */

static float dot(const float *a, const float *b, uint32_t dimension)
{
    float lanes[LANES] = {0}, sum = 0;
    uint32_t whole = dimension / LANES * LANES;
    for (uint32_t i = 0; i < whole; i += LANES) {
        for (uint32_t l = 0; l < LANES; l++) {
            lanes[l] += a[i + l] * b[i + l];
        }
    }
    for (uint32_t i = whole; i < dimension; i++) {
        lanes[i - whole] += a[i] * b[i];
    }
    for (uint32_t l = 0; l < LANES; l++) {
        sum += lanes[l];
    }
    return sum;
}

static bool is_near(const float *a, const float *b, uint32_t dimension)
{
    double product = (double)dot(a, b, dimension);
    double squares = (double)dot(a, a, dimension) * (double)dot(b, b, dimension);
    return product > 0 && product * product > SCREEN_COSINE * SCREEN_COSINE * squares;
}

/* Row `k` of `looks` that are spread over `rows`. */
static uint32_t spread(uint32_t k, uint32_t looks, uint32_t rows)
{
    return (uint32_t)((uint64_t)k * rows / looks);
}

static uint32_t looks_of(uint32_t rows)
{
    return rows < SCREEN_LOOKS ? rows : SCREEN_LOOKS;
}

/* ---- Looks ---- */

/* Rows of unit length to a thousandth that are near lie no further apart than this, squared:
 * (2e-3)^2 + 2 (1.001)^2 (1 - SCREEN_COSINE) = 2.05e-4. */
#define NEAR_SQUARED 2.1e-4f
#define HEAD         8u /* so many numbers of a row say of almost every other row that it is far */

/* Rows that are looked for. Others go by one at a time, and their heads are compared with all at once. */
struct looks {
    uint32_t count, dimension;
    const float *row[SCREEN_LOOKS];
    float head[HEAD][SCREEN_LOOKS];
    uint32_t at[SCREEN_LOOKS];       /* where it is among those that go by, or NOWHERE */
    const char *owner[SCREEN_LOOKS]; /* whose it is, where that matters */
    uint32_t found;                  /* how many are near to one that went by */
};
#define NOWHERE UINT32_MAX

static void looks_add(struct looks *looks, const float *row, uint32_t at, const char *owner)
{
    uint32_t k = looks->count++;
    looks->row[k] = row;
    looks->at[k] = at;
    looks->owner[k] = owner;
    for (uint32_t d = 0; d < HEAD && d < looks->dimension; d++) {
        looks->head[d][k] = row[d];
    }
}

/* Whether the row may be near to a look that has not been found yet: *apart* is at most NEAR_SQUARED for each such. */
static bool heads_are_close(const struct looks *looks, const float *row, float apart[SCREEN_LOOKS])
{
    memset(apart, 0, SCREEN_LOOKS * sizeof *apart);
    for (uint32_t d = 0; d < HEAD && d < looks->dimension; d++) {
        for (uint32_t k = 0; k < SCREEN_LOOKS; k++) {
            float difference = looks->head[d][k] - row[d];
            apart[k] += difference * difference;
        }
    }
    uint32_t close = 0;
    for (uint32_t k = 0; k < SCREEN_LOOKS; k++) {
        close += apart[k] <= NEAR_SQUARED;
    }
    return close > 0;
}

static void look_at(struct looks *looks, uint32_t k, const float *row)
{
    if (is_near(looks->row[k], row, looks->dimension)) {
        looks->head[0][k] = INFINITY; /* It is found, and nothing is close to it any more. */
        looks->found++;
    }
}

/* ---- Repeats ---- */

static bool repeats_itself(const float *features, uint32_t rows, uint32_t dimension)
{
    struct looks looks = {.dimension = dimension};
    for (uint32_t k = 0, count = looks_of(rows); k < count; k++) {
        uint32_t at = spread(k, count, rows);
        looks_add(&looks, features + (size_t)at * dimension, at, NULL);
    }
    for (uint32_t i = 0; i < rows && looks.found < looks.count; i++) {
        const float *row = features + (size_t)i * dimension;
        float apart[SCREEN_LOOKS];
        if (!heads_are_close(&looks, row, apart)) {
            continue;
        }
        for (uint32_t k = 0; k < looks.count; k++) {
            if (apart[k] <= NEAR_SQUARED && looks.at[k] != i) {
                look_at(&looks, k, row);
            }
        }
    }
    return 4 * looks.found > looks.count;
}

uint32_t screen_repeats(float *features, uint32_t rows, uint32_t dimension)
{
    if (rows < SCREEN_LEAST || !repeats_itself(features, rows, dimension)) {
        return rows;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < rows; i++) {
        const float *row = features + (size_t)i * dimension;
        uint32_t compared = kept < SCREEN_KEPT ? kept : SCREEN_KEPT, k = 0;
        while (k < compared && !is_near(features + (size_t)k * dimension, row, dimension)) {
            k++;
        }
        if (k == compared) {
            memmove(features + (size_t)kept * dimension, row, dimension * sizeof *row);
            kept++;
        }
    }
    return kept;
}

/* ---- Copies ---- */

/* Whether row `r` of the owner is another one than what is looked for: somebody else's, or the same owner's second one
 * of the same round. */
static bool is_another(const struct bank *bank, const struct bank_owner *owner, uint32_t r, const struct looks *looks,
                       uint32_t k)
{
    if (strcmp(owner->name, looks->owner[k]) != 0) {
        return true;
    }
    return looks->at[k] != NOWHERE && looks->at[k] != r && bank->rounds[looks->at[k]] == bank->rounds[r];
}

static void look_through(const struct bank *bank, struct looks *looks)
{
    for (uint32_t o = 0; o < bank->owners_count; o++) {
        const struct bank_owner *owner = &bank->owners[o];
        for (uint32_t r = owner->first; r < owner->first + owner->count && looks->found < looks->count; r++) {
            const float *row = bank->features + (size_t)r * bank->dimension;
            float apart[SCREEN_LOOKS];
            if (!heads_are_close(looks, row, apart)) {
                continue;
            }
            for (uint32_t k = 0; k < looks->count; k++) {
                if (apart[k] <= NEAR_SQUARED && is_another(bank, owner, r, looks, k)) {
                    look_at(looks, k, row);
                }
            }
        }
    }
}

/* How often rows of others than `name` are near to another row of the bank. */
static void look_at_others(const struct bank *bank, const char *name, struct screen *out)
{
    struct looks looks = {.dimension = bank->dimension};
    uint32_t rows = 0, first = 0;
    for (uint32_t o = 0; o < bank->owners_count; o++) {
        rows += strcmp(bank->owners[o].name, name) != 0 ? bank->owners[o].count : 0;
    }
    out->sample = looks_of(rows);
    for (uint32_t o = 0, k = 0; o < bank->owners_count; o++) {
        const struct bank_owner *owner = &bank->owners[o];
        if (strcmp(owner->name, name) == 0) {
            continue;
        }
        for (; k < out->sample && spread(k, out->sample, rows) < first + owner->count; k++) {
            uint32_t at = owner->first + spread(k, out->sample, rows) - first;
            looks_add(&looks, bank->features + (size_t)at * bank->dimension, at, owner->name);
        }
        first += owner->count;
    }
    look_through(bank, &looks);
    out->common = looks.found;
}

bool screen_copies(const struct bank *bank, const char *owner, const float *features, uint32_t rows, struct screen *out)
{
    *out = (struct screen){0};
    if (rows < SCREEN_LEAST) {
        return false;
    }
    struct looks looks = {.dimension = bank->dimension};
    out->looked = looks_of(rows);
    for (uint32_t k = 0; k < out->looked; k++) {
        looks_add(&looks, features + (size_t)spread(k, out->looked, rows) * bank->dimension, NOWHERE, owner);
    }
    look_through(bank, &looks);
    out->copied = looks.found;
    if (4 * out->copied <= out->looked) {
        return false;
    }
    look_at_others(bank, owner, out);
    return (uint64_t)out->copied * out->sample > 4 * (uint64_t)out->common * out->looked;
}
