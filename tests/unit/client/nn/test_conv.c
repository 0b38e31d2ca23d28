/* Every kernel of every method against convolution as it is defined, in double; on shapes that no tile divides. */
#include "tests/unit/client/nn/net_support.h"

#include "client/nn/simd/simd.h"
#include "client/nn/winograd/winograd.h"

struct problem {
    struct conv_shape shape;
    float *src, *dst, *weights;             /* plain: [n, c, y, x] and OIHW */
    double *forward, *by_data, *by_weights; /* the truth, plain */
};

static size_t plain(const struct map *map, size_t n, size_t c, size_t y, size_t x)
{
    return ((n * map->channels + c) * map->side + y) * map->side + x;
}

static size_t weights_count(const struct conv_shape *s)
{
    return (size_t)s->dst.channels * s->src.channels * s->kernel * s->kernel;
}

static double *doubles(size_t n)
{
    double *out = mem_new(n, sizeof *out);
    assert_non_null(out);
    return out;
}

/* All three passes walk the same products. */
static void define(struct problem *p)
{
    const struct conv_shape *s = &p->shape;
    int64_t pad = (s->kernel - 1) / 2, side = s->src.side;
    p->forward = doubles(map_elements(&s->dst));
    p->by_data = doubles(map_elements(&s->src));
    p->by_weights = doubles(weights_count(s));
    for (size_t n = 0; n < s->src.n; n++) {
        for (size_t o = 0; o < s->dst.channels; o++) {
            for (size_t at = 0; at < (size_t)s->dst.side * s->dst.side; at++) {
                size_t oy = at / s->dst.side, ox = at % s->dst.side, to = plain(&s->dst, n, o, oy, ox);
                for (size_t tap = 0; tap < (size_t)s->kernel * s->kernel; tap++) {
                    int64_t y = (int64_t)(oy * s->stride + tap / s->kernel) - pad;
                    int64_t x = (int64_t)(ox * s->stride + tap % s->kernel) - pad;
                    for (size_t i = 0; y >= 0 && x >= 0 && y < side && x < side && i < s->src.channels; i++) {
                        size_t from = plain(&s->src, n, i, (size_t)y, (size_t)x);
                        size_t w = (o * s->src.channels + i) * s->kernel * s->kernel + tap;
                        p->forward[to] += (double)p->src[from] * (double)p->weights[w];
                        p->by_data[from] += (double)p->dst[to] * (double)p->weights[w];
                        p->by_weights[w] += (double)p->dst[to] * (double)p->src[from];
                    }
                }
            }
        }
    }
}

/* As the map lies, in its type. */
static void *lay_out(const struct map *map, const float *values)
{
    float *out = test_floats(map_elements(map));
    for (size_t n = 0; n < map->n; n++) {
        for (size_t c = 0; c < map->channels; c++) {
            for (size_t p = 0; p < (size_t)map->side * map->side; p++) {
                size_t pixels = (size_t)map->side * map->side;
                size_t at = map->format == MAP_PLANES ? (n * map->channels + c) * pixels + p
                            : map->format == MAP_PIXELS
                                ? (n * pixels + p) * map->channels + c
                                : ((n * (map->channels / 16) + c / 16) * pixels + p) * 16 + c % 16;
                out[at] = values[(n * map->channels + c) * pixels + p];
            }
        }
    }
    if (map->type == MAP_F32) {
        return out;
    }
    uint16_t *half = mem_new_aligned(map_elements(map), sizeof *half);
    assert_non_null(half);
    simd()->to_bf16(half, out, map_elements(map));
    mem_free(out);
    return half;
}

/* What a map that lies so holds of a truth; off by how much of its norm. */
static double map_distance(const struct map *map, const void *data, const double *truth)
{
    float *values = test_floats(map_elements(map));
    for (size_t i = 0; i < map_elements(map); i++) {
        values[i] = (float)truth[i];
    }
    struct map f32 = *map;
    f32.type = MAP_F32;
    float *expected = lay_out(&f32, values), *got = test_floats(map_elements(map));
    for (size_t i = 0; i < map_elements(map); i++) {
        uint32_t bits = map->type == MAP_BF16 ? (uint32_t)((const uint16_t *)data)[i] << 16 : 0;
        if (map->type == MAP_BF16) {
            memcpy(&got[i], &bits, sizeof bits);
        } else {
            got[i] = ((const float *)data)[i];
        }
    }
    double off = test_distance(got, expected, map_elements(map));
    mem_free(values);
    mem_free(expected);
    mem_free(got);
    return off;
}

static double run_pass(const struct problem *p, const struct conv_shape *s, const struct conv_format *format,
                       enum conv_pass pass, enum conv_method method)
{
    struct conv_kernel *kernel;
    struct err err;
    if (conv_kernel_new(format, s, pass, method, &kernel, &err) != 0) {
        fail_msg("%s", err.text);
    }
    void *src = lay_out(&s->src, p->src), *dst = lay_out(&s->dst, p->dst),
         *scratch = mem_new_aligned(kernel->scratch, 1);
    float *native = test_floats(format->floats), *back = test_floats(weights_count(s));
    void *prepared = mem_new_aligned(kernel->prepared, 1);
    assert_true(scratch && prepared);
    assert_int_equal(format->backend->pack(format, p->weights, native, NULL), 0);
    if (kernel->prepared) {
        assert_int_equal(kernel->backend->prepare(kernel, native, prepared, NULL), 0);
    }
    const void *weights = kernel->prepared ? prepared : native;
    double off = 0;
    if (pass == CONV_FORWARD) {
        assert_int_equal(kernel->backend->run(kernel, src, weights, dst, scratch, NULL), 0);
        off = map_distance(&s->dst, dst, p->forward);
    } else if (pass == CONV_BACKWARD_DATA) {
        assert_int_equal(kernel->backend->run(kernel, dst, weights, src, scratch, NULL), 0);
        off = map_distance(&s->src, src, p->by_data);
    } else {
        float *truth = test_floats(weights_count(s));
        for (size_t i = 0; i < weights_count(s); i++) {
            truth[i] = (float)p->by_weights[i];
        }
        assert_int_equal(kernel->backend->run(kernel, src, dst, native, scratch, NULL), 0);
        assert_int_equal(format->backend->unpack(format, native, back, NULL), 0);
        off = test_distance(back, truth, weights_count(s));
        mem_free(truth);
    }
    kernel->backend->kernel_free(kernel);
    mem_free(src);
    mem_free(dst);
    mem_free(scratch);
    mem_free(native);
    mem_free(back);
    mem_free(prepared);
    return off;
}

/* Numbers that bf16 has, so that its products are compared and not the rounding of what went in. */
static float *short_numbers(uint64_t name, size_t n)
{
    float *out = test_normal(name, n);
    for (size_t i = 0; i < n; i++) {
        out[i] = roundf(out[i] * 16) / 16;
    }
    return out;
}

static void check(const struct conv_backend *backend, enum conv_method method, enum map_format format,
                  enum map_type type, uint32_t in, uint32_t out, uint32_t side, uint32_t kernel, uint32_t stride,
                  double tolerance)
{
    struct problem p = {.shape = {{3, in, side, in == 3 ? MAP_PLANES : format, type},
                                  {3, out, (side + stride - 1) / stride, format, type},
                                  kernel,
                                  stride}};
    const struct conv_shape *s = &p.shape;
    p.src = short_numbers(1, map_elements(&s->src));
    p.dst = short_numbers(2, map_elements(&s->dst));
    p.weights = short_numbers(3, weights_count(s));
    define(&p);
    struct conv_format *weights;
    struct err err;
    if (backend->format_new(s, true, &weights, &err) != 0) {
        fail_msg("%s", err.text);
    }
    for (int pass = 0; pass < CONV_PASSES; pass++) {
        if (pass == CONV_BACKWARD_DATA && in == 3) {
            continue;
        }
        double off = run_pass(&p, s, weights, (enum conv_pass)pass, method);
        if (!(off <= tolerance)) {
            fail_msg("%s, method %d, pass %d, %u -> %u channels, %u pixels, kernel %u, stride %u: off by %g",
                     backend->name, method, pass, in, out, side, kernel, stride, off);
        }
    }
    backend->format_free(weights);
    mem_free(p.src);
    mem_free(p.dst);
    mem_free(p.weights);
    mem_free(p.forward);
    mem_free(p.by_data);
    mem_free(p.by_weights);
}

static void im2col(void **state)
{
    (void)state;
    static const uint32_t kernels[] = {1, 3, 7};
    for (size_t i = 0; i < 3; i++) {
        for (uint32_t stride = 1; stride <= 2; stride++) {
            check(conv_im2col(), CONV_IM2COL, MAP_PIXELS, MAP_F32, 3, 12, 13, kernels[i], stride, 1e-6);
            check(conv_im2col(), CONV_IM2COL, MAP_PIXELS, MAP_F32, 20, 12, 9, kernels[i], stride, 1e-6);
        }
    }
}

static void direct(void **state)
{
    (void)state;
    if (!onednn_present()) {
        print_message("    not in this program: oneDNN\n");
        return;
    }
    enum map_format format = onednn_has_avx512() ? MAP_BLOCKS : MAP_PIXELS;
    check(conv_onednn(), CONV_DIRECT, format, MAP_F32, 32, 48, 9, 3, 1, 1e-6);
    check(conv_onednn(), CONV_DIRECT, format, MAP_F32, 32, 48, 9, 3, 2, 1e-6);
    check(conv_onednn(), CONV_DIRECT, format, MAP_F32, 16, 32, 7, 1, 2, 1e-6);
    if (onednn_has_bf16()) {
        check(conv_onednn(), CONV_DIRECT, MAP_BLOCKS, MAP_BF16, 32, 48, 9, 3, 1, 4e-3);
    }
}

/* 48 channels end in half a block of the products; 9 and 6 pixels in a part of a tile; one pixel is nearly all border.
 */
static void winograd_kernels(void **state)
{
    (void)state;
    if (!onednn_has_avx512()) {
        print_message("    not on this machine: maps that lie in blocks\n");
        return;
    }
    static const struct {
        uint32_t in, out, side;
    } shapes[] = {{32, 48, 9}, {16, 16, 6}, {48, 32, 4}, {16, 48, 1}, {64, 64, 20}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (enum conv_method method = CONV_WINOGRAD2; method <= CONV_WINOGRAD4; method++) {
            check(conv_onednn(), method, MAP_BLOCKS, MAP_F32, shapes[i].in, shapes[i].out, shapes[i].side, 3, 1, 5e-6);
            check(conv_onednn(), method, MAP_BLOCKS, MAP_BF16, shapes[i].in, shapes[i].out, shapes[i].side, 3, 1, 4e-3);
        }
    }
}

/* The portable variant against the one that this processor runs: they differ in rounding alone. */
static void winograd_variants(void **state)
{
    (void)state;
    const uint32_t n = 2, in = 32, out = 48, side = 10;
    for (uint32_t m = 2; m <= 4; m += 2) {
        struct winograd w = {{n, in, side, MAP_BLOCKS, MAP_F32}, {n, out, side, MAP_BLOCKS, MAP_F32}, m, 14};
        size_t weights = winograd_weights(&w), native = (size_t)in * out * 9, results = map_elements(&w.dst);
        float *src = test_normal(1, map_elements(&w.src)), *ddst = test_normal(2, results),
              *kernel = test_normal(3, native);
        float *first[3] = {NULL}, *scratch = test_floats(winograd_scratch(&w, true));
        const size_t counts[3] = {weights, results, native};
        for (uint32_t i = 0; winograd_variant(i); i++) {
            float *more[3] = {test_floats(weights), test_floats(results), test_floats(native)};
            winograd_variant(i)->prepare(&w, true, kernel, more[0]); /* turned: any weights do */
            winograd_variant(i)->convolve(&w, src, more[0], more[1], scratch);
            winograd_variant(i)->by_weights(&w, src, ddst, more[2], scratch);
            for (size_t k = 0; k < 3; k++) {
                assert_true(i == 0 || test_distance(more[k], first[k], counts[k]) < 5e-6);
                mem_free(i == 0 ? NULL : more[k]);
                first[k] = i == 0 ? more[k] : first[k];
            }
        }
        for (size_t k = 0; k < 3; k++) {
            mem_free(first[k]);
        }
        mem_free(src);
        mem_free(ddst);
        mem_free(kernel);
        mem_free(scratch);
    }
}

static void methods_refuse_other_shapes(void **state)
{
    (void)state;
    struct conv_shape s = {{1, 16, 8, MAP_PIXELS, MAP_F32}, {1, 16, 8, MAP_PIXELS, MAP_F32}, 3, 1};
    struct conv_format *format;
    struct conv_kernel *kernel;
    struct err err;
    assert_int_equal(conv_im2col()->format_new(&s, true, &format, &err), 0);
    assert_int_equal(conv_kernel_new(format, &s, CONV_FORWARD, CONV_WINOGRAD4, &kernel, &err), ERR_CONFIG);
    assert_int_equal(conv_kernel_new(format, &s, CONV_FORWARD, CONV_DIRECT, &kernel, &err), ERR_CONFIG);
    s.src.type = MAP_BF16;
    assert_int_equal(conv_kernel_new(format, &s, CONV_FORWARD, CONV_IM2COL, &kernel, &err), ERR_CONFIG);
    conv_im2col()->format_free(format);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(im2col),
        cmocka_unit_test(direct),
        cmocka_unit_test(winograd_kernels),
        cmocka_unit_test(winograd_variants),
        cmocka_unit_test(methods_refuse_other_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
