#include "client/nn/elementwise.h"

#include <float.h>
#include <math.h>

void add_relu_forward(float *restrict y, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float sum = y[i] + x[i];
        y[i] = sum < 0 ? 0 : sum;
    }
}

void add_relu_backward(float *restrict dy, const float *restrict more, const float *restrict y, size_t n)
{
    if (more) {
        for (size_t i = 0; i < n; i++) {
            float sum = dy[i] + more[i];
            dy[i] = y[i] > 0 ? sum : 0;
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            float d = dy[i];
            dy[i] = y[i] > 0 ? d : 0;
        }
    }
}

void add(float *restrict y, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] += x[i];
    }
}

bool all_finite(const float *x, size_t n)
{
    int bad = 0; /* no early exit, so that the loop is done in vectors */
    for (size_t i = 0; i < n; i++) {
        bad |= !(fabsf(x[i]) <= FLT_MAX);
    }
    return !bad;
}
