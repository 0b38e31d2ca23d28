#include "server/bank/screen.h"

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

/* Rows are of unit length to a thousandth, so a dot product says first whether a cosine can be so large. */
static bool is_near(const float *a, const float *b, uint32_t dimension)
{
    double product = (double)dot(a, b, dimension);
    if (product < 0.99) {
        return false;
    }
    double squares = (double)dot(a, a, dimension) * (double)dot(b, b, dimension);
    return product * product > SCREEN_COSINE * SCREEN_COSINE * squares;
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

/* ---- Repeats ---- */

static bool repeats(const float *features, uint32_t rows, uint32_t dimension, uint32_t row)
{
    for (uint32_t i = 0; i < rows; i++) {
        if (i != row && is_near(features + (size_t)i * dimension, features + (size_t)row * dimension, dimension)) {
            return true;
        }
    }
    return false;
}

static bool repeats_itself(const float *features, uint32_t rows, uint32_t dimension)
{
    uint32_t looks = looks_of(rows), found = 0;
    for (uint32_t k = 0; k < looks; k++) {
        found += repeats(features, rows, dimension, spread(k, looks, rows));
    }
    return 4 * found > looks;
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

static bool bank_has_near(const struct bank *bank, const struct bank_owner *owner, const float *row)
{
    for (uint32_t r = 0; r < owner->count; r++) {
        if (is_near(bank->features + (size_t)(owner->first + r) * bank->dimension, row, bank->dimension)) {
            return true;
        }
    }
    return false;
}

/* Whether somebody else than `name` has such a row. */
static bool others_have(const struct bank *bank, const char *name, const float *row)
{
    for (uint32_t o = 0; o < bank->owners_count; o++) {
        if (strcmp(bank->owners[o].name, name) != 0 && bank_has_near(bank, &bank->owners[o], row)) {
            return true;
        }
    }
    return false;
}

/* Whether the owner has a second one of the same round. */
static bool has_twice(const struct bank *bank, const struct bank_owner *owner, uint32_t at)
{
    const float *row = bank->features + (size_t)at * bank->dimension;
    for (uint32_t r = owner->first; r < owner->first + owner->count; r++) {
        if (r != at && bank->rounds[r] == bank->rounds[at] &&
            is_near(bank->features + (size_t)r * bank->dimension, row, bank->dimension)) {
            return true;
        }
    }
    return false;
}

/* How often rows of others than `name` are near to another row of the bank. */
static void look_at_others(const struct bank *bank, const char *name, struct screen *out)
{
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
            out->common += has_twice(bank, owner, at) ||
                           others_have(bank, owner->name, bank->features + (size_t)at * bank->dimension);
        }
        first += owner->count;
    }
}

bool screen_copies(const struct bank *bank, const char *owner, const float *features, uint32_t rows, struct screen *out)
{
    *out = (struct screen){0};
    if (rows < SCREEN_LEAST) {
        return false;
    }
    out->looked = looks_of(rows);
    for (uint32_t k = 0; k < out->looked; k++) {
        const float *row = features + (size_t)spread(k, out->looked, rows) * bank->dimension;
        out->copied += others_have(bank, owner, row);
    }
    if (4 * out->copied <= out->looked) {
        return false;
    }
    look_at_others(bank, owner, out);
    return (uint64_t)out->copied * out->sample > 4 * (uint64_t)out->common * out->looked;
}
