#include "server/agg/rule.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define ROW 64u /* numbers of each update that are sorted at once: those of 100 updates fit the first cache */

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
    size_t room = COLUMN_BYTES / sizeof(float) / updates->count / ROW * ROW;
    *column = (struct column){.updates = updates};
    column->room = room > COLUMN_MOST ? COLUMN_MOST : room < ROW ? ROW : room;
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

/* ---- The same numbers of all updates ---- */

/* The lesser into a, the greater into b. Of equal numbers none is lost, so that zeros keep their signs; which of them
 * comes first is nobody's business, since no sum in mean_of can tell. */
static inline void exchange(float *restrict a, float *restrict b)
{
    for (size_t l = 0; l < ROW; l++) {
        float low = a[l] < b[l] ? a[l] : b[l], high = a[l] < b[l] ? b[l] : a[l];
        a[l] = low;
        b[l] = high;
    }
}

static void sweep(float *rows, uint32_t count, uint32_t far, uint32_t bit, uint32_t set)
{
    for (uint32_t i = 0; i + far < count; i++) {
        if ((i & bit) == set) {
            exchange(rows + (size_t)i * ROW, rows + ((size_t)i + far) * ROW);
        }
    }
}

/* Batcher's merge exchange (Knuth, volume 3, 5.2.2, algorithm M). Which rows meet depends on their number alone, so
 * that whole rows are minima and maxima, which a compiler makes vectors of. A network for the middle alone would save a
 * sixth at the most. */
static void sort(float *rows, uint32_t count)
{
    uint32_t top = 1;
    while (top < count - top) {
        top *= 2;
    }
    for (uint32_t p = top; p > 0; p /= 2) {
        sweep(rows, count, p, p, 0);
        for (uint32_t q = top; q > p; q /= 2) {
            sweep(rows, count, q - p, p, p);
        }
    }
}

/* Of the rows [from, to), from the least up. The sums begin with +0, and so none is -0. */
static void mean_of(const float *rows, uint32_t from, uint32_t to, double *means)
{
    memset(means, 0, ROW * sizeof *means);
    for (uint32_t i = from; i < to; i++) {
        for (size_t l = 0; l < ROW; l++) {
            means[l] += (double)rows[(size_t)i * ROW + l];
        }
    }
    for (size_t l = 0; l < ROW; l++) {
        means[l] /= to - from;
    }
}

static void middle(const struct rule *rule, float *rows, uint32_t count, double *means)
{
    sort(rows, count);
    uint32_t cut = rule->kind == RULE_MEDIAN ? (count - 1) / 2 : rule_cut(rule, count);
    mean_of(rows, cut, count - cut, means);
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

/* Distances are made of products, |a - b|^2 = a a + b b - 2 a b, those of a few updates with a few others at a time:
 * each number that is loaded serves GROUP times. A product of two floats has no rounding in double, so that fusing it
 * with the addition, or not, gives the same sum; and equal updates have the distance 0 to the bit. */
#define GROUP 3u
#define SPAN  256u /* numbers of each update, in the second cache */

typedef double lanes __attribute__((vector_size(16))); /* of 2, on every machine: their order is part of the result */
#define LANES 2u

static void multiply(const lanes *a, const lanes *b, size_t side, double *products)
{
    lanes sums[GROUP][GROUP] = {0};
    for (size_t k = 0; k < SPAN / LANES; k++) {
        for (size_t i = 0; i < GROUP; i++) {
            for (size_t j = 0; j < GROUP; j++) {
                sums[i][j] += a[i * (SPAN / LANES) + k] * b[j * (SPAN / LANES) + k];
            }
        }
    }
    for (size_t i = 0; i < GROUP; i++) {
        for (size_t j = 0; j < GROUP; j++) {
            products[i * side + j] += sums[i][j][0] + sums[i][j][1];
        }
    }
}

static void multiply_all(const struct column *column, size_t at, size_t side, lanes *rows, double *products)
{
    size_t count = column->count - at < SPAN ? column->count - at : SPAN, width = SPAN / LANES;
    for (uint32_t i = 0; i < column->updates->count; i++) {
        const float *from = column->numbers + i * column->room + at;
        double *row = (double *)(rows + i * width);
        for (size_t k = 0; k < count; k++) {
            row[k] = (double)from[k];
        }
        memset(row + count, 0, (SPAN - count) * sizeof *row);
    }
    for (size_t i = 0; i < side; i += GROUP) {
        for (size_t j = i; j < side; j += GROUP) {
            multiply(rows + i * width, rows + j * width, side, products + i * side + j);
        }
    }
}

/* distances [side, side] of all pairs; side is the number of updates, and what is missing to a whole GROUP. How long a
 * column is depends on the number of updates alone, and so does the order of the sums. */
static int measure(const struct layout *layout, const struct updates *updates, size_t side, double *distances,
                   struct err *err)
{
    struct column column = {0};
    bool more = true;
    lanes *rows = mem_new_aligned(side * (SPAN / LANES), sizeof *rows);
    int rc = rows ? column_begin(&column, updates, err)
                  : err_set(err, ERR_NOMEM, "out of memory for a span of %u updates", updates->count);
    while (rc == 0 && (rc = column_next(&column, layout->trainable_end, &more, err)) == 0 && more) {
        for (size_t at = 0; at < column.count; at += SPAN) {
            multiply_all(&column, at, side, rows, distances);
        }
    }
    for (size_t i = 0; rc == 0 && i < side; i++) {
        for (size_t j = i + 1; j < side; j++) {
            double *to = distances + i * side + j;
            distances[j * side + i] = *to = distances[i * side + i] + distances[j * side + j] - 2 * *to;
        }
    }
    column_end(&column);
    mem_free(rows);
    return rc;
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

/* Of update i, whose distances are given. */
static double score(uint32_t n, uint32_t near, uint32_t i, const double *distances, double *room)
{
    uint32_t others = 0;
    for (uint32_t j = 0; j < n; j++) {
        if (j != i) {
            room[others++] = distances[j];
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
    size_t side = ((size_t)n + GROUP - 1) / GROUP * GROUP;
    double *distances = mem_new(side * side, sizeof *distances);
    double *scores = mem_new(n, sizeof *scores), *room = mem_new(n, sizeof *room);
    int rc = distances && scores && room ? measure(layout, updates, side, distances, err)
                                         : err_set(err, ERR_NOMEM, "out of memory for the distances of %u updates", n);
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        scores[i] = score(n, n - rule->byzantine - 2, i, distances + i * side, room);
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

/* Numbers [at, at + ROW) of a column, of those that are kept; beyond its end whatever was there. */
static uint32_t gather(const struct column *column, const bool *kept, size_t at, float *rows)
{
    size_t count = column->count - at < ROW ? column->count - at : ROW;
    uint32_t next = 0;
    for (uint32_t i = 0; i < column->updates->count; i++) {
        if (kept[i]) {
            memcpy(rows + (size_t)next++ * ROW, column->numbers + i * column->room + at, count * sizeof *rows);
        }
    }
    return next;
}

int rule_apply(const struct rule *rule, const struct layout *layout, const int32_t *shifts,
               const struct updates *updates, int64_t *sum, bool *kept, struct err *err)
{
    assert(rule->kind != RULE_MEAN && updates->count >= rule_least(rule));
    memset(kept, rule->kind != RULE_KRUM, updates->count * sizeof *kept);
    int rc = rule->kind == RULE_KRUM ? krum(rule, layout, updates, kept, err) : 0;
    float *rows = rc ? NULL : mem_new_aligned((size_t)updates->count * ROW, sizeof *rows);
    if (!rows) {
        return rc ? rc : err_set(err, ERR_NOMEM, "out of memory for %u rows", updates->count);
    }
    double means[ROW];
    struct column column;
    struct place place = {.layout = layout, .shifts = shifts};
    bool more = true;
    place_set(&place, 0);
    rc = column_begin(&column, updates, err);
    while (rc == 0 && (rc = column_next(&column, layout->total, &more, err)) == 0 && more) {
        for (size_t at = 0; at < column.count; at += ROW) {
            uint32_t count = gather(&column, kept, at, rows);
            if (rule->kind == RULE_KRUM) {
                mean_of(rows, 0, count, means);
            } else {
                middle(rule, rows, count, means);
            }
            for (size_t l = 0; l < ROW && at + l < column.count; l++) {
                uint64_t i = column.at + at + l;
                sum[i] = fixed_at(&place, i, means[l]);
            }
        }
    }
    column_end(&column);
    mem_free(rows);
    return rc;
}
