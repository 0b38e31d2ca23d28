/* The variants of augment_view, one for each instruction set. */
#ifndef STARLING_DATA_VIEWS_H
#define STARLING_DATA_VIEWS_H

#include "client/data/augment.h"

typedef void (*views_fn)(const struct augment_options *options, const uint8_t *in, uint32_t side, uint32_t size,
                         uint64_t seed, uint64_t epoch, uint64_t image, uint32_t view, float *out, float *scratch);

/* Variant i that this processor has, 0 being the portable one; NULL behind the last. */
views_fn views_variant(uint32_t i);

#endif
