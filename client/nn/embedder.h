/* Features of many images with one set of parameters: NET_EVAL nets on worker threads. Results do not depend on the
 * number of threads. */
#ifndef STARLING_NN_EMBEDDER_H
#define STARLING_NN_EMBEDDER_H

#include "common/vec/layout.h"

#include <stdint.h>

struct embedder;

int embedder_new(const struct layout *layout, const float *params, uint32_t threads, struct embedder **out,
                 struct err *err);
void embedder_free(struct embedder *embedder);
/* fetch fills image i of the set, normalised floats [3, input, input]; it is called from worker threads. backbone:
 * [n, layout->backbone] or NULL, not normalised; features: [n, d] or NULL, unit rows. */
int embedder_run(struct embedder *embedder, uint32_t n, void (*fetch)(void *ctx, uint32_t i, float *image), void *ctx,
                 float *backbone, float *features, struct err *err);

#endif
