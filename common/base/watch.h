/* Four measures of a representation that need no labels, over the features of one batch (client/nn/watch.h takes them).
 *
 *   alignment   mean squared distance between the two views of an image; 0: views agree, 2: they are unrelated
 *   uniformity  log of the mean of exp(-2 |x - y|^2) over pairs; 0: all in one place, near -4: evenly spread
 *   deviation   mean over the dimensions of the standard deviation, times sqrt(d); 0: collapsed, 1: evenly spread
 *   rank        effective rank of the features' covariance; 1: a point or a line, at most min(rows - 1, d)
 */
#ifndef STARLING_BASE_WATCH_H
#define STARLING_BASE_WATCH_H

#include <stdbool.h>
#include <stdint.h>

struct watch {
    bool measured; /* false: the rest is zero */
    double alignment, uniformity, deviation, rank;
};

/* Whether these are measures of unit rows, give or take rounding. */
bool watch_is_sane(const struct watch *watch);

/* As files have it: the four measures, f64 each; all zero when not measured. What is not sane reads as not measured. */
#define WATCH_BYTES 32
void watch_store(uint8_t out[WATCH_BYTES], const struct watch *watch);
struct watch watch_load(const uint8_t in[WATCH_BYTES]);

#endif
