/* Convolutions without bias, as one pass of one convolution at a time, so that each pass can run by the method that is
 * fastest there. Two backends stand behind this interface, onednn/ and im2col.c, and winograd/, which serves
 * convolutions whose weights lie as oneDNN has them.
 *
 * Weights live in three places. Plain (OIHW) is how the layout has them, and how they travel. Native is how they lie
 * inside a round: the optimiser's vectors, where the gradient arrives; it is chosen so that most passes read it as it
 * is. Prepared is a copy that a pass wants otherwise (other blocks, bf16), made once a step and shared by all threads.
 */
#ifndef STARLING_NN_CONV_H
#define STARLING_NN_CONV_H

#include "client/nn/map.h"
#include "common/base/err.h"

#include <stdbool.h>

enum conv_pass { CONV_FORWARD, CONV_BACKWARD_DATA, CONV_BACKWARD_WEIGHTS };
#define CONV_PASSES 3
enum conv_method { CONV_DIRECT, CONV_WINOGRAD2, CONV_WINOGRAD4, CONV_IM2COL };
#define CONV_METHODS 4

/* Padding is (kernel - 1) / 2. */
struct conv_shape {
    struct map src, dst;
    uint32_t kernel, stride;
};

/* What a convolution's native weights look like. */
struct conv_format {
    const struct conv_backend *backend;
    uint64_t floats;
    bool blocks; /* [out / 16, in / 16, kernel, kernel, 16 in, 16 out] */
};

/* One pass, ready to run, by one thread at a time. */
struct conv_kernel {
    const struct conv_backend *backend;
    size_t scratch;  /* bytes that run needs */
    size_t prepared; /* bytes of the prepared weights; 0: it reads the native ones */
};

struct conv_backend {
    const char *name;
    /* trains: all passes will be asked for, else CONV_FORWARD alone. ERR_CONFIG when there is no good kernel for this
     * shape on this processor. This and the next three are NULL where formats are another backend's. */
    int (*format_new)(const struct conv_shape *shape, bool trains, struct conv_format **out, struct err *err);
    void (*format_free)(struct conv_format *format);
    int (*pack)(const struct conv_format *format, const float *plain, float *native, struct err *err);
    int (*unpack)(const struct conv_format *format, const float *native, float *plain, struct err *err);
    /* ERR_CONFIG when this method does not exist for this shape on this processor. */
    int (*kernel_new)(const struct conv_format *format, const struct conv_shape *shape, enum conv_pass pass,
                      enum conv_method method, struct conv_kernel **out, struct err *err);
    void (*kernel_free)(struct conv_kernel *kernel);
    int (*prepare)(struct conv_kernel *kernel, const float *native, void *prepared, struct err *err);
    /* CONV_FORWARD: a = src, b = weights, out = dst. CONV_BACKWARD_DATA: a = ddst, b = weights, out = dsrc.
     * CONV_BACKWARD_WEIGHTS: a = src, b = ddst, out = the native gradient. out is overwritten. */
    int (*run)(struct conv_kernel *kernel, const void *a, const void *b, void *out, void *scratch, struct err *err);
};

/* NULL where the program was built without it. */
const struct conv_backend *conv_onednn(void);
const struct conv_backend *conv_im2col(void);
const struct conv_backend *conv_winograd(void);

/* Of the method's backend. */
static inline int conv_kernel_new(const struct conv_format *format, const struct conv_shape *shape, enum conv_pass pass,
                                  enum conv_method method, struct conv_kernel **out, struct err *err)
{
    bool winograd = method == CONV_WINOGRAD2 || method == CONV_WINOGRAD4;
    const struct conv_backend *backend = winograd ? conv_winograd() : format->backend;
    return backend->kernel_new(format, shape, pass, method, out, err);
}

#endif
