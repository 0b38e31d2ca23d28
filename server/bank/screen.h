/* Batches of features that lie: rows that say one thing many times over, and rows that are those of others.
 *
 * Two rows are *near* when their cosine is above SCREEN_COSINE: no two images of an encoder that learns lie so close.
 * An encoder that has collapsed puts all rows near each other, and its sites do not lie; they must get on, or nobody
 * could ever mend it. Neither lie is a reason to refuse, since the update that comes along is needed. So
 *
 *   - where more than a quarter of a batch is near to an earlier row of it, these rows are dropped, and the others
 *     count: a batch weighs by what it says, and at least one row is left;
 *   - a batch is a copy when more than a quarter of it is near to rows that the bank has of others, and that is four
 *     times as often as the bank's own rows of others are near to one another (other owners' rows, or the owner's of
 *     the same round). What is common to a whole cohort, or to sites that hold the same images, is no copy. Of a copy
 *     all rows are dropped: which ones are its owner's is not known.
 *
 * Shares are those of at most SCREEN_LOOKS rows spread over a batch, and batches of fewer than SCREEN_LEAST rows are
 * not judged: then a quarter of them is chance. So an honest batch costs SCREEN_LOOKS times (its rows + the bank's)
 * comparisons of the first few numbers of two rows, and one full of repeats SCREEN_KEPT times its rows dot products at
 * most. */
#ifndef STARLING_BANK_SCREEN_H
#define STARLING_BANK_SCREEN_H

#include "server/bank/bank.h"

#include <stdbool.h>

#define SCREEN_COSINE 0.9999
#define SCREEN_LOOKS  32u
#define SCREEN_LEAST  8u
#define SCREEN_KEPT   1024u /* a row is compared with so many of those that are kept before it */

/* Rows have passed bank_check. */

/* Drops repeats, where there are too many: moves the rows that stay to the front, in order. How many they are. */
uint32_t screen_repeats(float *features, uint32_t rows, uint32_t dimension);

struct screen {
    uint32_t looked, copied; /* rows of the batch; those that are near to one of others' */
    uint32_t sample, common; /* rows of others; those that are near to another one; 0 where that was not asked */
};
/* Whether the batch of `owner` is a copy. */
bool screen_copies(const struct bank *bank, const char *owner, const float *features, uint32_t rows,
                   struct screen *out);

#endif
