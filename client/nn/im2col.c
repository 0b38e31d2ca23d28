/* Convolution as a matrix product by OpenBLAS: a tile of output pixels is unrolled into rows of kernel * kernel * in
 * values, which meet the weights [out, kernel, kernel, in]. Maps lie as [n, pixels, channels], the image as planes.
 * Tiles bound the memory and keep the rows in the cache. */
#include "client/nn/conv.h"

#include "client/nn/blas.h"
#include "common/base/mem.h"

#include <string.h>

#define TILE_BYTES ((size_t)256 << 10)

struct format {
    struct conv_format base;
    uint32_t in, out, taps;
};

struct kernel {
    struct conv_kernel base;
    struct conv_shape shape;
    enum conv_pass pass;
    uint32_t row;  /* values of an unrolled pixel */
    uint32_t tile; /* output pixels unrolled at a time */
    bool direct;   /* a 1x1 kernel of stride 1 on [n, pixels, channels] reads the map as it is */
};

static int format_new(const struct conv_shape *shape, bool trains, struct conv_format **out, struct err *err)
{
    (void)trains;
    *out = NULL;
    struct format *format = mem_new(1, sizeof *format);
    if (!format) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    *format = (struct format){.in = shape->src.channels, .out = shape->dst.channels};
    format->taps = shape->kernel * shape->kernel;
    format->base =
        (struct conv_format){.backend = conv_im2col(), .floats = (uint64_t)format->out * format->taps * format->in};
    *out = &format->base;
    return 0;
}

static void format_free(struct conv_format *base)
{
    mem_free(base);
}

/* Between plain [out, in, taps] and native [out, taps, in]. */
static void exchange(const struct format *f, const float *from, float *to, bool to_native)
{
    for (size_t o = 0; o < f->out; o++) {
        for (size_t t = 0; t < f->taps; t++) {
            for (size_t i = 0; i < f->in; i++) {
                size_t native = (o * f->taps + t) * f->in + i, plain = (o * f->in + i) * f->taps + t;
                to[to_native ? native : plain] = from[to_native ? plain : native];
            }
        }
    }
}

static int pack(const struct conv_format *base, const float *plain, float *native, struct err *err)
{
    (void)err;
    exchange((const struct format *)(const void *)base, plain, native, true);
    return 0;
}

static int unpack(const struct conv_format *base, const float *native, float *plain, struct err *err)
{
    (void)err;
    exchange((const struct format *)(const void *)base, native, plain, false);
    return 0;
}

static int kernel_new(const struct conv_format *format, const struct conv_shape *shape, enum conv_pass pass,
                      enum conv_method method, struct conv_kernel **out, struct err *err)
{
    (void)format;
    *out = NULL;
    if (method != CONV_IM2COL || shape->src.type != MAP_F32 || shape->dst.format != MAP_PIXELS ||
        shape->src.format == MAP_BLOCKS) {
        return err_set(err, ERR_CONFIG, "im2col works on f32 maps that lie as pixels");
    }
    struct kernel *kernel = mem_new(1, sizeof *kernel);
    if (!kernel) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    blas_setup();
    kernel->base.backend = conv_im2col();
    kernel->shape = *shape;
    kernel->pass = pass;
    kernel->row = shape->kernel * shape->kernel * shape->src.channels;
    kernel->direct = shape->kernel == 1 && shape->stride == 1 && shape->src.format == MAP_PIXELS;
    size_t tile = TILE_BYTES / (kernel->row * sizeof(float)), pixels = (size_t)shape->dst.side * shape->dst.side;
    tile = tile < 32 ? 32 : tile;
    tile = tile < shape->dst.n * pixels ? tile : shape->dst.n * pixels;
    kernel->tile = (uint32_t)tile;
    kernel->base.scratch = kernel->direct ? 0 : tile * kernel->row * sizeof(float);
    *out = &kernel->base;
    return 0;
}

static void kernel_free(struct conv_kernel *base)
{
    mem_free(base);
}

static int prepare(struct conv_kernel *base, const float *native, void *prepared, struct err *err)
{
    (void)base, (void)native, (void)prepared;
    return err_set(err, ERR_STATE, "im2col reads the native weights");
}

/* Output pixel `at` of the batch, tap (ky, kx): the pixel of its image that it reads, or -1 in the padding. */
static int64_t source_pixel(const struct conv_shape *s, size_t at, uint32_t ky, uint32_t kx, size_t *image)
{
    size_t pixels = (size_t)s->dst.side * s->dst.side, pixel = at % pixels;
    int64_t pad = (s->kernel - 1) / 2, side = s->src.side;
    int64_t y = (int64_t)(pixel / s->dst.side * s->stride) + ky - pad;
    int64_t x = (int64_t)(pixel % s->dst.side * s->stride) + kx - pad;
    *image = at / pixels;
    return y < 0 || x < 0 || y >= side || x >= side ? -1 : y * side + x;
}

static void unroll(const struct kernel *k, const float *src, size_t begin, size_t count, float *rows)
{
    const struct conv_shape *s = &k->shape;
    uint32_t c = s->src.channels;
    size_t pixels = (size_t)s->src.side * s->src.side, image;
    for (size_t i = 0; i < count; i++) {
        for (uint32_t ky = 0; ky < s->kernel; ky++) {
            for (uint32_t kx = 0; kx < s->kernel; kx++, rows += c) {
                int64_t pixel = source_pixel(s, begin + i, ky, kx, &image);
                if (pixel < 0) {
                    memset(rows, 0, c * sizeof *rows);
                } else if (s->src.format == MAP_PIXELS) {
                    memcpy(rows, src + (image * pixels + (size_t)pixel) * c, c * sizeof *rows);
                } else {
                    for (uint32_t j = 0; j < c; j++) {
                        rows[j] = src[(image * c + j) * pixels + (size_t)pixel];
                    }
                }
            }
        }
    }
}

/* dsrc += the rows, each value where it was read from. */
static void roll(const struct kernel *k, const float *rows, size_t begin, size_t count, float *dsrc)
{
    const struct conv_shape *s = &k->shape;
    uint32_t c = s->src.channels;
    size_t pixels = (size_t)s->src.side * s->src.side, image;
    for (size_t i = 0; i < count; i++) {
        for (uint32_t ky = 0; ky < s->kernel; ky++) {
            for (uint32_t kx = 0; kx < s->kernel; kx++, rows += c) {
                int64_t pixel = source_pixel(s, begin + i, ky, kx, &image);
                float *to = dsrc + (image * pixels + (size_t)(pixel < 0 ? 0 : pixel)) * c;
                for (uint32_t j = 0; pixel >= 0 && j < c; j++) {
                    to[j] += rows[j];
                }
            }
        }
    }
}

static int run(struct conv_kernel *base, const void *a, const void *b, void *out, void *scratch, struct err *err)
{
    struct kernel *k = (struct kernel *)(void *)base;
    const struct conv_shape *s = &k->shape;
    uint32_t in = s->src.channels, oc = s->dst.channels, row = k->row;
    size_t all = (size_t)s->dst.n * s->dst.side * s->dst.side;
    if (k->pass == CONV_BACKWARD_DATA && s->src.format != MAP_PIXELS) {
        return err_set(err, ERR_STATE, "nobody wants the gradient by the image");
    }
    if (k->pass == CONV_BACKWARD_DATA && !k->direct) {
        memset(out, 0, map_bytes(&s->src));
    }
    for (size_t begin = 0; begin < all; begin += k->tile) {
        uint32_t count = (uint32_t)(all - begin < k->tile ? all - begin : k->tile);
        const float *rows = k->direct ? (const float *)a + begin * in : scratch;
        if (k->pass == CONV_BACKWARD_DATA) {
            float *to = k->direct ? (float *)out + begin * in : scratch;
            const float *ddst = (const float *)a + begin * oc;
            blas_gemm(count, row, oc, 1, (struct blas_matrix){ddst, oc, 0}, (struct blas_matrix){b, row, 0}, 0, to,
                      row);
            if (!k->direct) {
                roll(k, to, begin, count, out);
            }
            continue;
        }
        if (!k->direct) {
            unroll(k, a, begin, count, scratch);
        }
        if (k->pass == CONV_FORWARD) {
            blas_gemm(count, oc, row, 1, (struct blas_matrix){rows, row, 0}, (struct blas_matrix){b, row, 1}, 0,
                      (float *)out + begin * oc, oc);
        } else {
            const float *ddst = (const float *)b + begin * oc;
            blas_gemm(oc, row, count, 1, (struct blas_matrix){ddst, oc, 1}, (struct blas_matrix){rows, row, 0},
                      begin == 0 ? 0 : 1, out, row);
        }
    }
    return 0;
}

const struct conv_backend *conv_im2col(void)
{
    static const struct conv_backend backend = {"openblas", format_new,  format_free, pack, unpack,
                                                kernel_new, kernel_free, prepare,     run};
    return &backend;
}
