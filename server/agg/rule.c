#include "server/agg/rule.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define LANES 8u /* sums in a fixed order that a compiler can make vectors of */

uint32_t rule_cut(const struct rule *rule, uint32_t count)
{
    return (uint32_t)floor(rule->trim * count + 1e-9); /* 0.29 * 100 is a little less than 29. */
}

uint32_t rule_least(const struct rule *rule)
{
    switch (rule->kind) {
    case RULE_MEDIAN:
        return 3;
    case RULE_TRIMMED:
        return (uint32_t)ceil(1 / rule->trim - 1e-9);
    case RULE_KRUM:
        return 2 * rule->byzantine + 3;
    default:
        return 1;
    }
}

/* ---- Columns ---- */

struct column {
    const struct updates *updates;
    size_t room;    /* numbers of one update */
    float *numbers; /* [updates, room] */
    uint64_t at;
    size_t count; /* of one update; now */
};

static int column_begin(struct column *column, const struct updates *updates, struct err *err)
{
    size_t room = COLUMN_BYTES / sizeof(float) / updates->count / LANES * LANES;
    *column = (struct column){.updates = updates};
    column->room = room > COLUMN_MOST ? COLUMN_MOST : room < LANES ? LANES : room;
    column->numbers = mem_new_aligned(column->room * updates->count, sizeof *column->numbers);
    return column->numbers ? 0 : err_set(err, ERR_NOMEM, "out of memory for a column of %u updates", updates->count);
}

/* The next one, up to number `end`. *more false: there is none. */
static int column_next(struct column *column, uint64_t end, bool *more, struct err *err)
{
    column->at += column->count;
    *more = column->at < end;
    column->count = end - column->at < column->room ? (size_t)(end - column->at) : column->room;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && *more && i < column->updates->count; i++) {
        rc = column->updates->read(column->updates->ctx, i, column->at, column->count,
                                   column->numbers + i * column->room, err);
    }
    return rc;
}

static void column_end(struct column *column)
{
    mem_free(column->numbers);
}

/* ---- One number of all updates ---- */

/* Shell's, with the gaps of Ciura: it is short, and quick for the counts that a round has. */
static void sort(float *values, uint32_t count)
{
    static const uint32_t gaps[] = {29524, 9841, 3280, 1093, 301, 132, 57, 23, 10, 4, 1};
    for (size_t g = 0; g < sizeof gaps / sizeof gaps[0]; g++) {
        uint32_t gap = gaps[g];
        for (uint32_t i = gap; i < count; i++) {
            float value = values[i];
            uint32_t at = i;
            for (; at >= gap && values[at - gap] > value; at -= gap) {
                values[at] = values[at - gap];
            }
            values[at] = value;
        }
    }
}

/* The mean of [from, to) of sorted values. */
static double mean_of(const float *values, uint32_t from, uint32_t to)
{
    double sum = 0;
    for (uint32_t i = from; i < to; i++) {
        sum += (double)values[i];
    }
    return sum / (to - from);
}

static double middle(const struct rule *rule, float *values, uint32_t count)
{
    sort(values, count);
    uint32_t cut = rule->kind == RULE_MEDIAN ? (count - 1) / 2 : rule_cut(rule, count);
    return mean_of(values, cut, count - cut);
}

/* ---- What goes into the sum ---- */

/* Walks the tensors beside the columns. */
struct place {
    const struct layout *layout;
    const int32_t *shifts;
    uint32_t tensor;
    double scale; /* of the tensor */
};

static void place_set(struct place *place, uint32_t tensor)
{
    place->tensor = tensor;
    place->scale = ldexp((double)RULE_WEIGHT, place->shifts[tensor]);
}

static int64_t fixed_at(struct place *place, uint64_t i, double value)
{
    while (i >= place->layout->tensors[place->tensor].offset + place->layout->tensors[place->tensor].count) {
        place_set(place, place->tensor + 1);
    }
    return llrint(value * place->scale);
}

/* ---- Krum ---- */

static double squared_distance(const float *a, const float *b, size_t count)
{
    double lanes[LANES] = {0}, sum = 0;
    size_t whole = count / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) {
        for (size_t l = 0; l < LANES; l++) {
            double d = (double)a[i + l] - (double)b[i + l];
            lanes[l] += d * d;
        }
    }
    for (size_t i = whole; i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        lanes[i - whole] += d * d;
    }
    for (size_t l = 0; l < LANES; l++) {
        sum += lanes[l];
    }
    return sum;
}

/* Of all pairs. How long a column is depends on the number of updates alone, and so does the order of the sums. */
static int measure(const struct layout *layout, const struct updates *updates, double *distances, struct err *err)
{
    struct column column;
    uint32_t n = updates->count;
    bool more = true;
    int rc = column_begin(&column, updates, err);
    while (rc == 0 && (rc = column_next(&column, layout->trainable_end, &more, err)) == 0 && more) {
        size_t pair = 0;
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t j = i + 1; j < n; j++, pair++) {
                distances[pair] +=
                    squared_distance(column.numbers + i * column.room, column.numbers + j * column.room, column.count);
            }
        }
    }
    column_end(&column);
    return rc;
}

/* Of i < j < n: where the pair stands when all are counted in order. */
static size_t pair_of(uint32_t n, uint32_t i, uint32_t j)
{
    size_t a = i < j ? i : j, b = i < j ? j : i;
    return a * (2 * (size_t)n - a - 1) / 2 + b - a - 1;
}

/* Moves the `count` least of `values` to the front, ascending. */
static void least_first(double *values, uint32_t total, uint32_t count)
{
    for (uint32_t k = 0; k < count; k++) {
        for (uint32_t i = k + 1; i < total; i++) {
            if (values[i] < values[k]) {
                double swap = values[k];
                values[k] = values[i];
                values[i] = swap;
            }
        }
    }
}

static double score(uint32_t n, uint32_t near, uint32_t i, const double *distances, double *room)
{
    uint32_t others = 0;
    for (uint32_t j = 0; j < n; j++) {
        if (j != i) {
            room[others++] = distances[pair_of(n, i, j)];
        }
    }
    least_first(room, others, near);
    double sum = 0;
    for (uint32_t k = 0; k < near; k++) {
        sum += room[k];
    }
    return sum;
}

static int krum(const struct rule *rule, const struct layout *layout, const struct updates *updates, bool *kept,
                struct err *err)
{
    uint32_t n = updates->count, keep = n - rule->byzantine;
    double *distances = mem_new((size_t)n * (n - 1) / 2, sizeof *distances);
    double *scores = mem_new(n, sizeof *scores), *room = mem_new(n, sizeof *room);
    int rc = distances && scores && room ? measure(layout, updates, distances, err)
                                         : err_set(err, ERR_NOMEM, "out of memory for the distances of %u updates", n);
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        scores[i] = score(n, n - rule->byzantine - 2, i, distances, room);
    }
    for (uint32_t k = 0; rc == 0 && k < keep; k++) {
        uint32_t best = n;
        for (uint32_t i = 0; i < n; i++) {
            best = !kept[i] && (best == n || scores[i] < scores[best]) ? i : best;
        }
        kept[best] = true;
    }
    mem_free(distances);
    mem_free(scores);
    mem_free(room);
    return rc;
}

/* ---- All ---- */

/* The numbers at one place of those that are kept. */
static uint32_t gather(const struct column *column, const bool *kept, size_t at, float *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < column->updates->count; i++) {
        if (kept[i]) {
            out[count++] = column->numbers[i * column->room + at];
        }
    }
    return count;
}

int rule_apply(const struct rule *rule, const struct layout *layout, const int32_t *shifts,
               const struct updates *updates, int64_t *sum, bool *kept, struct err *err)
{
    assert(rule->kind != RULE_MEAN && updates->count >= rule_least(rule));
    memset(kept, rule->kind != RULE_KRUM, updates->count * sizeof *kept);
    int rc = rule->kind == RULE_KRUM ? krum(rule, layout, updates, kept, err) : 0;
    float *values = rc ? NULL : mem_new(updates->count, sizeof *values);
    if (!values) {
        return rc ? rc : err_set(err, ERR_NOMEM, "out of memory for %u numbers", updates->count);
    }
    struct column column;
    struct place place = {.layout = layout, .shifts = shifts};
    bool more = true;
    place_set(&place, 0);
    rc = column_begin(&column, updates, err);
    while (rc == 0 && (rc = column_next(&column, layout->total, &more, err)) == 0 && more) {
        for (size_t i = 0; i < column.count; i++) {
            uint32_t count = gather(&column, kept, i, values);
            double value = rule->kind == RULE_KRUM ? mean_of(values, 0, count) : middle(rule, values, count);
            sum[column.at + i] = fixed_at(&place, column.at + i, value);
        }
    }
    column_end(&column);
    mem_free(values);
    return rc;
}
