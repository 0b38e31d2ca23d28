/* Winograd behind conv.h. */
#include "client/nn/winograd/winograd.h"

#include "common/base/cpu.h"
#include "common/base/mem.h"

extern const struct winograd_variant winograd_portable;
#ifdef __x86_64__
extern const struct winograd_variant winograd_avx512;
#endif

const struct winograd_variant *winograd_variant(uint32_t i)
{
#ifdef __x86_64__
    if (i == 1) {
        return cpu_has_avx512() ? &winograd_avx512 : NULL;
    }
#endif
    return i == 0 ? &winograd_portable : NULL;
}

const struct winograd_variant *winograd(void)
{
    const struct winograd_variant *best = winograd_variant(1);
    return best ? best : winograd_variant(0);
}

size_t winograd_weights(const struct winograd *w)
{
    return (size_t)(w->m + 2) * (w->m + 2) * w->src.channels * w->dst.channels;
}

size_t winograd_scratch(const struct winograd *w, bool by_weights)
{
    size_t places = (size_t)(w->m + 2) * (w->m + 2), channels = (size_t)w->src.channels + w->dst.channels;
    return places * w->tiles * channels + (by_weights ? winograd_weights(w) : 0);
}

struct kernel {
    struct conv_kernel base;
    struct winograd winograd;
    enum conv_pass pass;
};

/* So few that what lies between the transforms stays in the second-level cache of a core, and a multiple of the 14 rows
 * of a product; for the sums of wide gradients more, since each visit walks all of them. Measured on Zen 5. */
static uint32_t tiles_at_a_time(const struct winograd *w, bool by_weights)
{
    uint32_t channels = w->src.channels + w->dst.channels;
    if (by_weights) {
        return channels >= 1024 ? 112 : channels <= 64 ? 56 : 28;
    }
    return channels <= 128 ? 28 : 14;
}

static int kernel_new(const struct conv_format *format, const struct conv_shape *shape, enum conv_pass pass,
                      enum conv_method method, struct conv_kernel **out, struct err *err)
{
    *out = NULL;
    bool fits = shape->kernel == 3 && shape->stride == 1 && shape->src.format == MAP_BLOCKS &&
                shape->dst.format == MAP_BLOCKS && format->blocks &&
                (method == CONV_WINOGRAD2 || method == CONV_WINOGRAD4);
    if (!fits) {
        return err_set(err, ERR_CONFIG, "Winograd is for 3x3 convolutions of stride 1 on maps that lie in blocks");
    }
    struct kernel *kernel = mem_new(1, sizeof *kernel);
    if (!kernel) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    bool data = pass == CONV_BACKWARD_DATA, weights = pass == CONV_BACKWARD_WEIGHTS;
    kernel->pass = pass;
    kernel->winograd = (struct winograd){.src = data ? shape->dst : shape->src,
                                         .dst = data ? shape->src : shape->dst,
                                         .m = method == CONV_WINOGRAD2 ? 2 : 4};
    kernel->winograd.tiles = tiles_at_a_time(&kernel->winograd, weights);
    kernel->base = (struct conv_kernel){
        .backend = conv_winograd(),
        .scratch = winograd_scratch(&kernel->winograd, weights) * sizeof(float),
        .prepared = weights ? 0 : winograd_weights(&kernel->winograd) * sizeof(float),
    };
    *out = &kernel->base;
    return 0;
}

static void kernel_free(struct conv_kernel *base)
{
    mem_free(base);
}

static int prepare(struct conv_kernel *base, const float *native, void *prepared, struct err *err)
{
    (void)err;
    const struct kernel *kernel = (const struct kernel *)(const void *)base;
    winograd()->prepare(&kernel->winograd, kernel->pass == CONV_BACKWARD_DATA, native, prepared);
    return 0;
}

static int run(struct conv_kernel *base, const void *a, const void *b, void *out, void *scratch, struct err *err)
{
    (void)err;
    const struct kernel *kernel = (const struct kernel *)(const void *)base;
    if (kernel->pass == CONV_BACKWARD_WEIGHTS) {
        winograd()->by_weights(&kernel->winograd, a, b, out, scratch);
    } else {
        winograd()->convolve(&kernel->winograd, a, b, out, scratch);
    }
    return 0;
}

const struct conv_backend *conv_winograd(void)
{
    static const struct conv_backend backend = {
        .name = "winograd", .kernel_new = kernel_new, .kernel_free = kernel_free, .prepare = prepare, .run = run};
    return &backend;
}
