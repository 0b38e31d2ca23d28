/* Rules of aggregation: what one update stands for all updates of a round. The mean, which is a sum, needs no rule here
 * (agg_add). The others withstand contributions that lie, and look at all updates at once:
 *
 *   median   of each number, the middle one; of an even count, the mean of the two middle ones
 *   trimmed  of each number, the mean of those that remain when floor(trim * n) are cut at either end
 *   krum     multi-Krum (Blanchard, El Mhamdi, Guerraoui, Stainer, NeurIPS 2017): an update's score is the sum of the
 *            squared distances to the n - f - 2 others that are nearest; the n - f with the least scores are averaged.
 *            Distances are those of the trained parameters; among equal scores the first by name wins. n >= 2 f + 3
 *
 * None of them is weighted by images: how many a site has is its claim, and a claim must not buy a majority. Of the
 * statistics of batch normalisation the median and the trimmed mean keep what the average keeps, E[x^2] >= E[x]^2: the
 * order of |x| is that of x^2, and a trimmed mean of |x| is never less than that of x.
 *
 * Updates are read by columns, so many numbers of all of them at a time that they fill COLUMN_BYTES at most, in the
 * order in which the caller has them, which must not be that of arrival. The result depends on nothing else. */
#ifndef STARLING_AGG_RULE_H
#define STARLING_AGG_RULE_H

#include "common/vec/fixed.h"
#include "common/vec/layout.h"

#include <stdbool.h>

enum rule_kind { RULE_MEAN, RULE_MEDIAN, RULE_TRIMMED, RULE_KRUM };

struct rule {
    enum rule_kind kind;
    double trim;        /* above 0, below 1/2 */
    uint32_t byzantine; /* f */
};

struct updates {
    uint32_t count;
    /* Numbers [at, at + count) of update i. 0, or an error and its sentence, which rule_apply returns. */
    int (*read)(void *ctx, uint32_t i, uint64_t at, size_t count, float *out, struct err *err);
    void *ctx;
};

#define COLUMN_BYTES ((size_t)32 << 20)
#define COLUMN_MOST  ((size_t)65536) /* numbers of one update */

/* The weight that the result has in a sum: one that leaves the sum's last bit far below a float's. */
#define RULE_WEIGHT FIXED_WEIGHT_MAX

/* How many are cut at either end. */
uint32_t rule_cut(const struct rule *rule, uint32_t count);
/* How few updates the rule can withstand anything with. */
uint32_t rule_least(const struct rule *rule);

/* sum [layout->total] = RULE_WEIGHT * the result, as fixed_add would add it. kept [updates->count]: whether krum took
 * it; all, for the other rules. The rule is not mean, and has rule_least updates or more. ERR_NOMEM, and what `read`
 * returns; the sum then is worth nothing. */
int rule_apply(const struct rule *rule, const struct layout *layout, const int32_t *shifts,
               const struct updates *updates, int64_t *sum, bool *kept, struct err *err);

#endif
