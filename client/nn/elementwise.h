/* Passes over raw memory that oneDNN 2.6 does not fuse. They are blind to the layout: all arguments lie alike, and
 * padding holds zeros, which every pass keeps. */
#ifndef STARLING_NN_ELEMENTWISE_H
#define STARLING_NN_ELEMENTWISE_H

#include <stdbool.h>
#include <stddef.h>

/* y = ReLU(y + x). Keeps NaN, so that a broken step is seen in the loss. */
void add_relu_forward(float *restrict y, const float *restrict x, size_t n);
/* dy = (dy + more) where y > 0, else 0; more may be NULL. */
void add_relu_backward(float *restrict dy, const float *restrict more, const float *restrict y, size_t n);
/* False when one is infinite or NaN. */
bool all_finite(const float *x, size_t n);
void add(float *restrict y, const float *restrict x, size_t n);

#endif
