/* Winograd's minimal filtering for 3x3 convolutions of stride 1 (Lavin & Gray, CVPR 2016): F(m x m, 3 x 3) turns an
 * (m + 2) x (m + 2) tile of the source into an m x m tile of the result with (m + 2)^2 products for each pair of
 * channels in place of 9 m^2: 4 times fewer for m = 4, 2.25 times for m = 2. Maps lie in blocks of 16 channels; f32 or
 * bf16 maps, f32 inside.
 *
 * Unlike a library that sees one call at a time, we transform the weights once a step for all groups and threads, and
 * keep a few tiles of all channels in the cache from their transform to the inverse one. */
#ifndef STARLING_NN_WINOGRAD_H
#define STARLING_NN_WINOGRAD_H

#include "client/nn/conv.h"

struct winograd {
    struct map src, dst; /* of the pass as it runs: backward by data reads the gradient of the result */
    uint32_t m;          /* 2 or 4 */
    uint32_t tiles;      /* worked on at a time; a multiple of 14, the rows of a product */
};

struct winograd_variant {
    /* native: [out / 16, in / 16, 9, 16 in, 16 out], as the convolution has it. prepared: winograd_weights floats.
     * turned: for the gradient by the data, which is a convolution with the kernel turned by 180 degrees and the roles
     * of the channels exchanged. */
    void (*prepare)(const struct winograd *w, bool turned, const float *native, float *prepared);
    void (*convolve)(const struct winograd *w, const void *src, const float *prepared, void *dst, float *scratch);
    /* dweights: as native. */
    void (*by_weights)(const struct winograd *w, const void *src, const void *ddst, float *dweights, float *scratch);
};

size_t winograd_weights(const struct winograd *w); /* floats */
size_t winograd_scratch(const struct winograd *w, bool by_weights);

/* The best variant for this processor; variant i that it has, 0 being the portable one, NULL behind the last. */
const struct winograd_variant *winograd(void);
const struct winograd_variant *winograd_variant(uint32_t i);

#endif
