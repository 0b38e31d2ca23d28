/* The rules that withstand liars, against plain references in double; that neither the order of arrival nor where a
 * column ends leaves a trace; what a liar can do with each; lengths of updates. */
#include "server/agg/norm.h"
#include "tests/unit/server/agg/agg_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SITES = UPDATES };

static const struct rule median = {.kind = RULE_MEDIAN}, trimmed = {.kind = RULE_TRIMMED, .trim = 0.2},
                         krum = {.kind = RULE_KRUM, .byzantine = 1};
static const struct rule *const rules[] = {&median, &trimmed, &krum};

/* Updates in memory; `reads`: how often they were looked at, of which the one after `fails_after` fails. */
struct shelf {
    const float *updates[64];
    uint64_t reads, fails_after;
    size_t longest;
};

static int take(void *ctx, uint32_t i, uint64_t at, size_t count, float *out, struct err *err)
{
    struct shelf *shelf = ctx;
    if (shelf->fails_after > 0 && ++shelf->reads > shelf->fails_after) {
        return err_set(err, ERR_IO, "update %u: read: Input/output error", i);
    }
    shelf->longest = count > shelf->longest ? count : shelf->longest;
    memcpy(out, shelf->updates[i % 64] + at, count * sizeof *out);
    return 0;
}

/* What moves, [total]. */
static double *apply(const struct rule *rule, struct shelf *shelf, uint32_t count, bool *kept)
{
    const struct updates given = {count, take, shelf};
    struct agg *agg;
    struct bytes *next, *state;
    struct err err = {0};
    float *zero = mem_new(total, sizeof *zero);
    assert_int_equal(agg_new(layout, zero, &none, NULL, &agg), 0);
    assert_int_equal(agg_apply(agg, rule, &given, kept, &err), 0);
    assert_int_equal(agg_finish(agg, &next, &state), 0);
    double *moved = mem_new(total, sizeof *moved);
    for (size_t i = 0; i < total; i++) {
        moved[i] = (double)((const float *)(const void *)next->data)[i];
    }
    bytes_unref(next);
    agg_free(agg);
    mem_free(zero);
    return moved;
}

static double *apply_to(const struct rule *rule, const float *const *given, uint32_t count)
{
    struct shelf shelf = {0};
    bool kept[64];
    memcpy(shelf.updates, given, count * sizeof *given);
    return apply(rule, &shelf, count, kept);
}

/* ---- Plain references ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double sorted_mean(const float *const *given, uint32_t count, uint32_t cut, size_t i)
{
    double values[64], sum = 0;
    for (uint32_t s = 0; s < count; s++) {
        values[s] = (double)given[s][i];
    }
    qsort(values, count, sizeof *values, ascending);
    for (uint32_t s = cut; s < count - cut; s++) {
        sum += values[s];
    }
    return sum / (count - 2 * cut);
}

static double distance(const float *a, const float *b)
{
    double sum = 0;
    for (size_t i = 0; i < layout->trainable_end; i++) {
        sum += pow((double)a[i] - (double)b[i], 2);
    }
    return sum;
}

/* The one that krum leaves out with f = 1. */
static uint32_t krum_worst(const float *const *given, uint32_t count)
{
    double worst = -1;
    uint32_t which = 0;
    for (uint32_t i = 0; i < count; i++) {
        double near[64], score = 0;
        for (uint32_t j = 0, k = 0; j < count; j++) {
            if (j != i) {
                near[k++] = distance(given[i], given[j]);
            }
        }
        qsort(near, count - 1, sizeof *near, ascending);
        for (uint32_t k = 0; k < count - 3; k++) {
            score += near[k];
        }
        if (score > worst) {
            worst = score;
            which = i;
        }
    }
    return which;
}

static void rules_are_what_they_say(void **state)
{
    (void)state;
    const float *const *given = (const float *const *)updates;
    for (uint32_t count = 5; count <= SITES; count++) {
        double *m = apply_to(&median, given, count), *t = apply_to(&trimmed, given, count),
               *k = apply_to(&krum, given, count), differs = 0;
        uint32_t worst = krum_worst(given, count);
        for (size_t i = 0; i < total; i++) {
            double kept = 0, mean = sorted_mean(given, count, 0, i);
            for (uint32_t s = 0; s < count; s++) {
                kept += s == worst ? 0 : (double)given[s][i] / (count - 1);
            }
            assert_true(fabs(m[i] - sorted_mean(given, count, (count - 1) / 2, i)) < 1e-8);
            assert_true(fabs(t[i] - sorted_mean(given, count, 1, i)) < 1e-8);
            assert_true(fabs(k[i] - kept) < 1e-8);
            differs += fabs(m[i] - mean) + fabs(t[i] - mean) + fabs(k[i] - mean);
        }
        assert_true(differs / (double)total > 0.01); /* The mean would not pass. */
        mem_free(m);
        mem_free(t);
        mem_free(k);
    }
}

/* ---- To the bit, for many counts ---- */

enum { MANY = 130 };

struct many {
    float *rows; /* [MANY, total] */
    int32_t *shifts;
    int64_t *sum;
    bool kept[MANY];
};

static int take_of_many(void *ctx, uint32_t i, uint64_t at, size_t count, float *out, struct err *err)
{
    (void)err;
    memcpy(out, ((struct many *)ctx)->rows + i * total + at, count * sizeof *out);
    return 0;
}

/* Tensors of large, usual and tiny numbers; in each, also zeros of both signs, the least float, and many that are
 * equal. */
static struct many *many_new(void)
{
    static const int exponents[] = {-2, 120, -120};
    struct many *many = mem_new(1, sizeof *many);
    struct rng rng;
    rng_init(&rng, 17, RNG_TEST, 0, 0, 0);
    many->rows = mem_new(MANY * total, sizeof(float));
    many->shifts = mem_new(layout->count, sizeof(int32_t));
    many->sum = mem_new(total, sizeof(int64_t));
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        int e = exponents[t % 3];
        many->shifts[t] = FIXED_BITS - 4 - e;
        for (uint64_t i = tensor->offset; i < tensor->offset + tensor->count; i++) {
            for (size_t s = 0; s < MANY; s++) {
                const float some[] = {0, -0.0f, ldexpf(1, e), ldexpf(-0.75f, e), 0x1p-149f, -0x1p-149f};
                uint32_t which = rng_below(&rng, i % 2 ? 6 : 60);
                many->rows[s * total + i] =
                    which < 6 ? some[which] : ldexpf(rng_range(&rng, -1, 1), e - (int)rng_below(&rng, 60));
            }
        }
    }
    return many;
}

static void many_free(struct many *many)
{
    mem_free(many->rows);
    mem_free(many->shifts);
    mem_free(many->sum);
    mem_free(many);
}

/* Of those that are kept, in order, or sorted. */
static double plain_mean(const struct many *many, uint32_t count, uint32_t cut, bool sorted, size_t i)
{
    double values[MANY], sum = 0;
    uint32_t n = 0;
    for (uint32_t s = 0; s < count; s++) {
        if (many->kept[s]) {
            values[n++] = (double)many->rows[s * total + i];
        }
    }
    if (sorted) {
        qsort(values, n, sizeof *values, ascending);
    }
    for (uint32_t s = cut; s < n - cut; s++) {
        sum += values[s];
    }
    return sum / (n - 2 * cut);
}

/* How many numbers differ. */
static size_t differ(const struct many *many, uint32_t count, uint32_t cut, bool sorted)
{
    size_t wrong = 0;
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        for (uint64_t i = tensor->offset; i < tensor->offset + tensor->count; i++) {
            double value = plain_mean(many, count, cut, sorted, (size_t)i);
            wrong += many->sum[i] != llrint(value * ldexp((double)RULE_WEIGHT, many->shifts[t]));
        }
    }
    return wrong;
}

static void every_count_sorts_to_the_bit(void **state)
{
    (void)state;
    const struct rule third = {.kind = RULE_TRIMMED, .trim = 0.34}, little = {.kind = RULE_TRIMMED, .trim = 0.05};
    struct many *many = many_new();
    for (uint32_t count = 3; count <= MANY; count++) {
        const struct updates given = {count, take_of_many, many};
        assert_int_equal(rule_apply(&median, layout, many->shifts, &given, many->sum, many->kept, NULL), 0);
        assert_int_equal(differ(many, count, (count - 1) / 2, true), 0);
        assert_true(differ(many, count, (count - 1) / 2, false) > total / 3); /* who forgets to sort is found */
        const struct rule *rule = count < 20 ? &third : &little;
        assert_int_equal(rule_apply(rule, layout, many->shifts, &given, many->sum, many->kept, NULL), 0);
        assert_int_equal(differ(many, count, rule_cut(rule, count), true), 0);
    }
    many_free(many);
}

/* Every seventh lies: all of them are left out, and the others' mean is that of their order. Where all
 * are equal every distance is 0, and the first by name are kept. */
static void krum_keeps_the_honest_of_every_count(void **state)
{
    (void)state;
    struct many *many = many_new();
    for (size_t s = 0; s < MANY; s++) {
        for (size_t i = 0; s % 7 == 3 && i < layout->trainable_end; i++) {
            many->rows[s * total + i] *= s % 2 ? 4 : -4;
        }
    }
    for (uint32_t count = 7; count <= MANY; count++) {
        const struct rule rule = {.kind = RULE_KRUM, .byzantine = (count + 3) / 7};
        const struct updates given = {count, take_of_many, many};
        assert_int_equal(rule_apply(&rule, layout, many->shifts, &given, many->sum, many->kept, NULL), 0);
        for (uint32_t s = 0; s < count; s++) {
            assert_int_equal(many->kept[s], s % 7 != 3);
        }
        assert_int_equal(differ(many, count, 0, false), 0);
    }
    for (size_t s = 1; s < MANY; s++) {
        memcpy(many->rows + s * total, many->rows, total * sizeof(float));
    }
    for (uint32_t count = 5; count <= MANY; count++) {
        const struct rule rule = {.kind = RULE_KRUM, .byzantine = (count - 3) / 2};
        const struct updates given = {count, take_of_many, many};
        assert_int_equal(rule_apply(&rule, layout, many->shifts, &given, many->sum, many->kept, NULL), 0);
        for (uint32_t s = 0; s < count; s++) {
            assert_int_equal(many->kept[s], s < count - rule.byzantine);
        }
    }
    many_free(many);
}

/* Wherever one update is far from the others by a little less than another is at its first number, that other one is
 * left out; by a little more, and of what is trained, it is. */
static void krum_counts_every_number_once(void **state)
{
    (void)state;
    struct shelf shelf = {0};
    const struct updates given = {5, take, &shelf};
    int32_t *shifts = mem_new(layout->count, sizeof *shifts);
    int64_t *sum = mem_new(total, sizeof *sum);
    float *zero = mem_new(total, sizeof *zero), *one = mem_new(total, sizeof *one), *two = mem_new(total, sizeof *two);
    bool kept[5];
    const float *const rows[] = {zero, one, two, zero, zero};
    memcpy(shelf.updates, rows, sizeof rows);
    two[0] = 1;
    assert_true(layout->trainable_end > 256 && layout->trainable_end % 256 > 0 && layout->trainable_end < total);
    for (size_t i = 1; i < total; i++) {
        for (int more = 0; more < 2; more++) {
            one[i] = more ? 1.1f : -0.9f;
            assert_int_equal(rule_apply(&krum, layout, shifts, &given, sum, kept, NULL), 0);
            bool first = more && i < layout->trainable_end;
            assert_true(kept[0] && kept[1] == !first && kept[2] == first && kept[3] && kept[4]);
        }
        one[i] = 0;
    }
    mem_free(shifts);
    mem_free(sum);
    mem_free(zero);
    mem_free(one);
    mem_free(two);
}

/* All 120 orders of five. The caller sorts by name; what a rule makes of another order may differ in krum's ties and
 * roundings alone, and here not at all. */
static void no_order_leaves_a_trace(void **state)
{
    (void)state;
    for (int r = 0; r < 3; r++) {
        double *first = apply_to(rules[r], (const float *const *)updates, 5);
        for (uint32_t n = 0; n < 120; n++) {
            uint32_t left[5] = {0, 1, 2, 3, 4}, rest = n;
            const float *given[5];
            for (uint32_t k = 0; k < 5; k++) {
                uint32_t at = rest % (5 - k);
                rest /= 5 - k;
                given[k] = updates[left[at]];
                memmove(left + at, left + at + 1, (4 - at) * sizeof *left);
            }
            double *moved = apply_to(rules[r], given, 5);
            for (size_t i = 0; i < total; i++) {
                assert_true(fabs(moved[i] - first[i]) < 1e-8);
                assert_true(rules[r]->kind == RULE_KRUM || moved[i] == first[i]);
            }
            mem_free(moved);
        }
        mem_free(first);
    }
}

static void equal_updates_are_kept_to_the_bit(void **state)
{
    (void)state;
    const float *given[9] = {updates[3], updates[3], updates[3], updates[3], updates[3],
                             updates[3], updates[3], updates[3], updates[3]};
    for (int r = 0; r < 3; r++) {
        for (uint32_t count = 5; count <= 9; count++) {
            double *moved = apply_to(rules[r], given, count);
            for (size_t i = 0; i < total; i++) {
                /* 2^-62 of the range, 2 or more, is what a sum of full weight can tell. */
                assert_true(fabs(moved[i] - (double)updates[3][i]) <= 0x1p-55);
            }
            mem_free(moved);
        }
    }
}

/* One of five lies as it likes: the result stays among the honest. `mean`: the planted mistake, a rule that is none. */
static bool stays_among_the_honest(const struct rule *rule, const float *lie, bool mean)
{
    const float *given[5] = {updates[0], updates[1], lie, updates[3], updates[4]};
    double *moved = apply_to(rule, given, 5);
    bool stays = true;
    for (size_t i = 0; i < total; i++) {
        double low = INFINITY, high = -INFINITY;
        for (int s = 0; s < 5; s++) {
            low = s == 2 ? low : fmin(low, (double)given[s][i]);
            high = s == 2 ? high : fmax(high, (double)given[s][i]);
        }
        double value = mean ? sorted_mean(given, 5, 0, i) : moved[i];
        stays = stays && value >= low - 1e-8 && value <= high + 1e-8;
    }
    mem_free(moved);
    return stays;
}

static void one_liar_of_five_moves_nothing_far(void **state)
{
    (void)state;
    float *lie = mem_new(total, sizeof *lie);
    for (int how = 0; how < 3; how++) {
        for (size_t i = 0; i < total; i++) {
            lie[i] = how == 0 ? 1.9f : how == 1 ? -20 * updates[2][i] : (float)(i % 2) * 1.5f - 0.75f;
        }
        for (int r = 0; r < 3; r++) {
            assert_true(stays_among_the_honest(rules[r], lie, false));
            assert_false(stays_among_the_honest(rules[r], lie, true));
        }
    }
    mem_free(lie);
}

/* What no rule gets to see. */
static void absurd_numbers_are_refused(void **state)
{
    (void)state;
    struct agg *agg;
    uint32_t tensor;
    float *lie = mem_new(total, sizeof *lie);
    assert_int_equal(agg_new(layout, params, &none, NULL, &agg), 0);
    assert_int_equal(agg_check(agg, updates[0], &tensor), FIXED_OK);
    memcpy(lie, updates[0], total * sizeof *lie);
    lie[total - 1] = 1e30f;
    assert_int_equal(agg_check(agg, lie, &tensor), FIXED_OUT_OF_RANGE);
    assert_int_equal(tensor, layout->count - 1);
    lie[0] = NAN;
    assert_int_equal(agg_check(agg, lie, &tensor), FIXED_NOT_FINITE);
    assert_int_equal(tensor, 0);
    assert_int_equal(agg_weight(agg), 0);
    mem_free(lie);
    agg_free(agg);
}

/* E[x^2] - E[x]^2 of what comes out: sites' means lie on either side of zero, with no variance of their own. */
static void statistics_keep_a_variance(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 5, RNG_TEST, 0, 0, 0);
    const struct tensor *mean = NULL, *square = NULL;
    for (uint32_t t = 0; t < layout->count && !square; t++) {
        mean = layout->tensors[t].kind == TENSOR_BN_MEAN && !mean ? &layout->tensors[t] : mean;
        square = layout->tensors[t].kind == TENSOR_BN_SQUARE ? &layout->tensors[t] : NULL;
    }
    float *made[8];
    for (uint32_t s = 0; s < 8; s++) {
        made[s] = mem_new(total, sizeof(float));
    }
    for (int trial = 0; trial < 200; trial++) {
        uint32_t count = 5 + rng_below(&rng, 4);
        for (uint32_t s = 0; s < count; s++) {
            for (uint64_t c = 0; c < mean->count; c++) {
                float x = rng_range(&rng, rng_below(&rng, 2) ? -1.5f : 0, 1.5f);
                made[s][mean->offset + c] = x;
                made[s][square->offset + c] = x * x;
            }
        }
        for (int r = 0; r < 3; r++) {
            double *moved = apply_to(rules[r], (const float *const *)made, count);
            for (uint64_t c = 0; c < mean->count; c++) {
                double m = moved[mean->offset + c];
                assert_true(moved[square->offset + c] - m * m > -1e-6);
            }
            mem_free(moved);
        }
    }
    for (uint32_t s = 0; s < 8; s++) {
        mem_free(made[s]);
    }
}

/* Krum says whom it left out. */
static void krum_names_the_liar(void **state)
{
    (void)state;
    struct shelf shelf = {0};
    bool kept[SITES];
    float *lie = mem_new(total, sizeof *lie);
    for (size_t i = 0; i < total; i++) {
        lie[i] = -updates[4][i] * 3;
    }
    memcpy(shelf.updates, updates, sizeof updates);
    shelf.updates[4] = lie;
    mem_free(apply(&krum, &shelf, SITES, kept));
    for (uint32_t s = 0; s < SITES; s++) {
        assert_int_equal(kept[s], s != 4);
    }
    mem_free(lie);
}

/* Memory is that of a column, however many updates there are; where a column ends decides nothing. */
static void memory_is_that_of_a_column(void **state)
{
    (void)state;
    const struct model_spec spec = {.stages = 2, .blocks = {1, 1}, .width = 64, .input = 8, .features = 8};
    struct layout *large;
    assert_int_equal(layout_new(&spec, &large, NULL), 0);
    assert_true(large->total > 2 * COLUMN_MOST);
    struct shelf shelf = {0};
    float *rows = mem_new_aligned((size_t)large->total + 64, sizeof *rows);
    int64_t *sum = mem_new_aligned((size_t)large->total, sizeof *sum);
    int32_t *shifts = mem_new(large->count, sizeof *shifts);
    bool kept[160];
    struct rng rng;
    rng_init(&rng, 9, RNG_TEST, 0, 0, 0);
    for (uint64_t i = 0; i < large->total + 64; i++) {
        rows[i] = rng_range(&rng, -0.1f, 0.1f);
    }
    for (uint32_t s = 0; s < 64; s++) {
        shelf.updates[s] = rows + s;
    }
    fixed_shifts(large, rows, shifts);
    const struct updates many = {160, take, &shelf}, given = {64, take, &shelf};
    assert_int_equal(rule_apply(&median, large, shifts, &many, sum, kept, NULL), 0);
    assert_true(shelf.longest * 160 * sizeof(float) <= COLUMN_BYTES);
    shelf.longest = 0;
    assert_int_equal(rule_apply(&trimmed, large, shifts, &given, sum, kept, NULL), 0);
    assert_int_equal(shelf.longest, COLUMN_MOST);
    for (uint64_t i = 0, t = 0; i < large->total; i += 977) {
        while (i >= large->tensors[t].offset + large->tensors[t].count) {
            t++;
        }
        double got = (double)sum[i] / ldexp((double)RULE_WEIGHT, shifts[t]);
        assert_true(fabs(got - sorted_mean(shelf.updates, 64, 12, i)) < 1e-12);
    }
    mem_free(rows);
    mem_free(sum);
    mem_free(shifts);
    layout_free(large);
}

static void failures_are_told_and_may_pass(void **state)
{
    (void)state;
    int64_t *sum = mem_new_aligned(total, sizeof *sum), *again = mem_new_aligned(total, sizeof *again);
    int32_t *shifts = mem_new(layout->count, sizeof *shifts);
    bool kept[SITES];
    fixed_shifts(layout, params, shifts);
    for (int r = 0; r < 3; r++) {
        struct shelf shelf = {0};
        struct err err = {0};
        const struct updates given = {SITES, take, &shelf};
        memcpy(shelf.updates, updates, sizeof updates);
        assert_int_equal(rule_apply(rules[r], layout, shifts, &given, sum, kept, &err), 0);
        shelf.fails_after = 1;
        assert_int_equal(rule_apply(rules[r], layout, shifts, &given, again, kept, &err), ERR_IO);
        assert_non_null(strstr(err.text, "update 1: read"));
        shelf.fails_after = 0;
        for (uint64_t n = 1; n <= (r == 2 ? 7 : 2); n++) { /* krum measures first */
            mem_fail_after(n);
            assert_int_equal(rule_apply(rules[r], layout, shifts, &given, again, kept, &err), ERR_NOMEM);
            mem_fail_after(0);
        }
        assert_int_equal(rule_apply(rules[r], layout, shifts, &given, again, kept, &err), 0);
        assert_memory_equal(sum, again, total * sizeof *sum);
    }
    mem_free(sum);
    mem_free(again);
    mem_free(shifts);
}

static void few_updates_are_too_few(void **state)
{
    (void)state;
    static const double trims[] = {0.49, 0.34, 0.2, 0.1, 0.29, 0.01};
    static const uint32_t least[] = {3, 3, 5, 10, 4, 100};
    for (int i = 0; i < 6; i++) {
        const struct rule rule = {.kind = RULE_TRIMMED, .trim = trims[i]};
        assert_int_equal(rule_least(&rule), least[i]);
        assert_int_equal(rule_cut(&rule, least[i]), 1);
        assert_int_equal(rule_cut(&rule, least[i] - 1), 0);
    }
    const struct rule hundred = {.kind = RULE_TRIMMED, .trim = 0.29};
    assert_int_equal(rule_cut(&hundred, 100), 29); /* though 0.29 * 100 is less */
    assert_int_equal(rule_least(&median), 3);
    assert_int_equal(rule_least(&krum), 5);
}

/* ---- Lengths ---- */

static double length_between(const float *numbers, size_t begin, size_t end)
{
    double sum = 0;
    for (size_t i = begin; i < end; i++) {
        sum += (double)numbers[i] * (double)numbers[i];
    }
    return sqrt(sum);
}

static void each_part_has_its_length(void **state)
{
    (void)state;
    size_t trained = layout->trainable_end;
    const size_t begins[NORM_PARTS] = {0, trained}, ends[NORM_PARTS] = {trained, total};
    for (enum norm_part part = 0; part < NORM_PARTS; part++) {
        size_t begin = begins[part], end = ends[part], other = part == NORM_TRAINED ? total - 1 : 0;
        float *update = mem_new(total, sizeof *update);
        memcpy(update, updates[0], total * sizeof *update);
        update[other] = 1e20f;
        assert_true(fabs(norm_of(layout, part, update) - length_between(update, begin, end)) < 1e-9);
        norm_scale(layout, part, update, 0.5);
        for (size_t i = 0; i < total; i++) {
            bool halved = i >= begin && i < end;
            assert_true(update[i] == (i == other ? 1e20f : halved ? updates[0][i] / 2 : updates[0][i]));
        }
        update[other] = NAN;
        assert_true(isfinite(norm_of(layout, part, update)));
        update[begin] = update[end - 1] = NAN;
        assert_true(isnan(norm_of(layout, part, update)));
        mem_free(update);
    }
}

static void the_usual_length_is_a_median_of_medians(void **state)
{
    (void)state;
    double history[NORM_ROUNDS] = {0}, two[] = {900, 1}, five[] = {5, 1e30, 3, 4, 1};
    assert_true(norm_usual(history) == 0);
    assert_true(norm_median(two, 2) == 1 && norm_median(five, 5) == 4 && norm_median(NULL, 0) == 0);
    norm_push(history, 7);
    assert_true(norm_usual(history) == 7);
    norm_push(history, 0); /* a round in which nothing moved says nothing */
    assert_true(norm_usual(history) == 7);
    static const double more[] = {1e9, 8, 6, 9};
    for (int i = 0; i < 4; i++) {
        norm_push(history, more[i]);
    }
    assert_true(history[0] == 9 && history[NORM_ROUNDS - 1] == 0); /* the first is forgotten */
    assert_true(norm_usual(history) == 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_are_what_they_say),
        cmocka_unit_test(every_count_sorts_to_the_bit),
        cmocka_unit_test(krum_keeps_the_honest_of_every_count),
        cmocka_unit_test(krum_counts_every_number_once),
        cmocka_unit_test(no_order_leaves_a_trace),
        cmocka_unit_test(equal_updates_are_kept_to_the_bit),
        cmocka_unit_test(one_liar_of_five_moves_nothing_far),
        cmocka_unit_test(absurd_numbers_are_refused),
        cmocka_unit_test(statistics_keep_a_variance),
        cmocka_unit_test(krum_names_the_liar),
        cmocka_unit_test(memory_is_that_of_a_column),
        cmocka_unit_test(failures_are_told_and_may_pass),
        cmocka_unit_test(few_updates_are_too_few),
        cmocka_unit_test(each_part_has_its_length),
        cmocka_unit_test(the_usual_length_is_a_median_of_medians),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
