/* A site's secret, 32 bytes that it draws once and tells nobody (state.h keeps them), and the seed of its random
 * streams that follows from it: the order of its images, their views, what it draws from its queue. Whoever can draw
 * these again makes the views of an image that he suspects here, and finds it among the features that the site shares.
 *
 * The seed is the first 64 bits of SHA-256 over secret, plan's seed and name: it tells nothing of the secret, nor of
 * the site's seed under another plan. 64 bits are what the generator's key has (common/base/rng.h), and they are enough
 * for this: to try one is to draw an order and views by it and see whether features fit, and there are 2^64 for one
 * site and plan. Whoever affords that has its views and no more; noise (fusion.privacy) is for what views betray. */
#ifndef STARLING_CLIENT_SHELL_SECRET_H
#define STARLING_CLIENT_SHELL_SECRET_H

#include "client/shell/files.h"

/* ERR_FAILED. */
int secret_seed(const uint8_t secret[SECRET_BYTES], uint64_t plan_seed, const char *name, uint64_t *out,
                struct err *err);

#endif
