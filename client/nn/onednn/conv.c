/* Convolutions by oneDNN. Native weights lie as the pass by the weights writes their gradient; forward reads them so on
 * AVX-512, and the gradient by the data has a prepared copy with in and out exchanged inside the blocks. */
#include "client/nn/conv.h"

#include "client/nn/onednn/onednn.h"
#include "common/base/mem.h"

#include <oneapi/dnnl/dnnl.h>
#include <string.h>

#define ARGS_MAX 4

struct format {
    struct conv_format base;
    dnnl_memory_desc_t plain, native;
};

struct call {
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[ARGS_MAX];
    dnnl_exec_arg_t args[ARGS_MAX];
    int count;
};

/* Arguments in the order of conv_backend.run: a, b, out, scratchpad. */
struct kernel {
    struct conv_kernel base;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct call run, load; /* load: native -> prepared */
};

static int check(dnnl_status_t status, const char *what, struct err *err)
{
    switch (status) {
    case dnnl_success:
        return 0;
    case dnnl_out_of_memory:
        return err_set(err, ERR_NOMEM, "oneDNN: %s: out of memory", what);
    case dnnl_unimplemented:
        return err_set(err, ERR_CONFIG, "oneDNN: %s: not implemented for this processor", what);
    default:
        return err_set(err, ERR_FAILED, "oneDNN: %s: status %d", what, (int)status);
    }
}

static int map_desc(const struct map *map, dnnl_memory_desc_t *md, struct err *err)
{
    dnnl_dims_t dims = {map->n, map->channels, map->side, map->side};
    dnnl_data_type_t type = map->type == MAP_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_format_tag_t tag = map->format == MAP_BLOCKS   ? dnnl_nChw16c
                            : map->format == MAP_PIXELS ? dnnl_nhwc
                                                        : dnnl_nchw;
    return check(dnnl_memory_desc_init_by_tag(md, 4, dims, type, tag), "map", err);
}

/* The descriptor of one pass. native: NULL lets the pass by the weights choose. */
static int describe(dnnl_engine_t engine, const struct conv_shape *s, enum conv_pass pass,
                    const dnnl_memory_desc_t *native, dnnl_primitive_desc_t *out, struct err *err)
{
    dnnl_memory_desc_t src, dst, weights, gradient;
    dnnl_dims_t dims = {s->dst.channels, s->src.channels, s->kernel, s->kernel}, strides = {s->stride, s->stride};
    dnnl_dim_t pad = (s->kernel - 1) / 2;
    dnnl_dims_t padding = {pad, pad};
    dnnl_data_type_t type = s->src.type == MAP_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_convolution_desc_t op;
    dnnl_primitive_desc_t hint = NULL;
    dnnl_primitive_attr_t attr = NULL;
    int rc;
    *out = NULL;
    if ((rc = map_desc(&s->src, &src, err)) || (rc = map_desc(&s->dst, &dst, err)) ||
        (rc = check(dnnl_memory_desc_init_by_tag(&weights, 4, dims, type, dnnl_format_tag_any), "weights", err)) ||
        (rc = check(dnnl_memory_desc_init_by_tag(&gradient, 4, dims, dnnl_f32, dnnl_format_tag_any), "weights", err)) ||
        (rc = check(dnnl_primitive_attr_create(&attr), "attributes", err)) ||
        (rc = check(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user), "scratchpad", err))) {
        goto done;
    }
    rc = check(dnnl_convolution_forward_desc_init(&op, dnnl_forward_training, dnnl_convolution_direct, &src, &weights,
                                                  NULL, &dst, strides, padding, padding),
               "convolution", err);
    if (rc == 0 && pass != CONV_FORWARD) {
        rc = check(dnnl_primitive_desc_create(&hint, &op, attr, engine, NULL), "convolution", err);
    }
    if (rc == 0 && pass == CONV_BACKWARD_DATA) {
        rc = check(dnnl_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, &src, &weights, &dst, strides,
                                                            padding, padding),
                   "convolution, gradient by the data", err);
    }
    if (rc == 0 && pass == CONV_BACKWARD_WEIGHTS) {
        rc = check(dnnl_convolution_backward_weights_desc_init(&op, dnnl_convolution_direct, &src,
                                                               native ? native : &gradient, NULL, &dst, strides,
                                                               padding, padding),
                   "convolution, gradient by the weights", err);
    }
    if (rc == 0) {
        rc = check(dnnl_primitive_desc_create(out, &op, attr, engine, hint), "convolution", err);
    }
done:
    dnnl_primitive_desc_destroy(hint);
    dnnl_primitive_attr_destroy(attr);
    return rc;
}

/* The reference implementation is right, and a hundred times slower than anything else. */
static int refuse_reference(const_dnnl_primitive_desc_t desc, struct err *err)
{
    const char *text = "";
    (void)dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &text);
    return strncmp(text, "ref", 3) == 0 ? err_set(err, ERR_CONFIG, "oneDNN has no fast convolution for this shape") : 0;
}

static int check_passes(dnnl_engine_t engine, const struct conv_shape *shape, bool trains, struct err *err)
{
    int rc = 0;
    for (int pass = CONV_FORWARD; pass < (trains ? CONV_PASSES : 1) && rc == 0; pass++) {
        dnnl_primitive_desc_t desc = NULL;
        if (pass != CONV_BACKWARD_DATA || shape->src.format != MAP_PLANES) { /* nobody wants it by the image */
            rc = describe(engine, shape, (enum conv_pass)pass, NULL, &desc, err);
            rc = rc ? rc : refuse_reference(desc, err);
        }
        dnnl_primitive_desc_destroy(desc);
    }
    return rc;
}

static const dnnl_memory_desc_t *weights_of(const_dnnl_primitive_desc_t desc, enum conv_pass pass)
{
    return dnnl_primitive_desc_query_md(
        desc, pass == CONV_BACKWARD_WEIGHTS ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
}

static int format_new(const struct conv_shape *shape, bool trains, struct conv_format **out, struct err *err)
{
    *out = NULL;
    onednn_single_thread();
    enum conv_pass pass = trains ? CONV_BACKWARD_WEIGHTS : CONV_FORWARD;
    dnnl_engine_t engine = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_memory_desc_t blocks;
    dnnl_dims_t dims = {shape->dst.channels, shape->src.channels, shape->kernel, shape->kernel};
    struct format *format = mem_new(1, sizeof *format);
    int rc = format ? 0 : err_set(err, ERR_NOMEM, "out of memory");
    if (rc == 0 && !(rc = check(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine", err)) &&
        !(rc = check_passes(engine, shape, trains, err)) && !(rc = describe(engine, shape, pass, NULL, &desc, err)) &&
        !(rc = check(dnnl_memory_desc_init_by_tag(&format->plain, 4, dims, dnnl_f32, dnnl_oihw), "weights", err))) {
        format->native = *weights_of(desc, pass);
        format->native.data_type = dnnl_f32;
        if (shape->src.type == MAP_BF16 && !trains) { /* a layout with bf16 pairs inside is no place for f32 */
            format->native = format->plain;
        }
        format->base.backend = conv_onednn();
        format->base.floats = dnnl_memory_desc_get_size(&format->native) / sizeof(float);
        format->base.blocks =
            dnnl_memory_desc_init_by_tag(&blocks, 4, dims, dnnl_f32, dnnl_OIhw16i16o) == dnnl_success &&
            dnnl_memory_desc_equal(&blocks, &format->native) && dims[0] % 16 == 0 && dims[1] % 16 == 0;
        *out = &format->base;
        format = NULL;
    }
    dnnl_primitive_desc_destroy(desc);
    dnnl_engine_destroy(engine);
    mem_free(format);
    return rc;
}

static void format_free(struct conv_format *base)
{
    mem_free(base);
}

static int argument(struct call *call, dnnl_engine_t engine, int arg, const dnnl_memory_desc_t *md, struct err *err)
{
    int i = call->count++;
    int rc = check(dnnl_memory_create(&call->memory[i], md, engine, DNNL_MEMORY_NONE), "memory", err);
    call->args[i] = (dnnl_exec_arg_t){arg, call->memory[i]};
    return rc;
}

static int point(struct call *call, int i, const void *data, struct err *err)
{
    void *handle;
    memcpy(&handle, &data, sizeof handle); /* oneDNN takes a pointer to non-const also for what it only reads */
    return check(dnnl_memory_set_data_handle(call->memory[i], handle), "memory", err);
}

static int execute(struct call *call, dnnl_stream_t stream, struct err *err)
{
    onednn_single_thread();
    return check(dnnl_primitive_execute(call->primitive, stream, call->count, call->args), "execute", err);
}

static void call_fini(struct call *call)
{
    dnnl_primitive_destroy(call->primitive);
    for (int i = 0; i < call->count; i++) {
        dnnl_memory_destroy(call->memory[i]);
    }
    *call = (struct call){0};
}

static int reorder_init(struct call *call, dnnl_engine_t engine, const dnnl_memory_desc_t *from,
                        const dnnl_memory_desc_t *to, struct err *err)
{
    dnnl_primitive_desc_t desc = NULL;
    int rc;
    if (!(rc = check(dnnl_reorder_primitive_desc_create(&desc, from, engine, to, engine, NULL), "reorder", err)) &&
        !(rc = check(dnnl_primitive_create(&call->primitive, desc), "reorder", err)) &&
        !(rc = argument(call, engine, DNNL_ARG_FROM, from, err))) {
        rc = argument(call, engine, DNNL_ARG_TO, to, err);
    }
    dnnl_primitive_desc_destroy(desc);
    return rc;
}

/* Once a round, so nothing is kept for it. */
static int reorder(const dnnl_memory_desc_t *from, const void *a, const dnnl_memory_desc_t *to, void *b,
                   struct err *err)
{
    dnnl_engine_t engine = NULL;
    dnnl_stream_t stream = NULL;
    struct call call = {0};
    int rc;
    onednn_single_thread();
    if (!(rc = check(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine", err)) &&
        !(rc = check(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "stream", err)) &&
        !(rc = reorder_init(&call, engine, from, to, err)) && !(rc = point(&call, 0, a, err)) &&
        !(rc = point(&call, 1, b, err))) {
        rc = execute(&call, stream, err);
    }
    call_fini(&call);
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
    return rc;
}

static int pack(const struct conv_format *base, const float *plain, float *native, struct err *err)
{
    const struct format *format = (const struct format *)(const void *)base;
    return reorder(&format->plain, plain, &format->native, native, err);
}

static int unpack(const struct conv_format *base, const float *native, float *plain, struct err *err)
{
    const struct format *format = (const struct format *)(const void *)base;
    return reorder(&format->native, native, &format->plain, plain, err);
}

static void kernel_free(struct conv_kernel *base)
{
    struct kernel *kernel = (struct kernel *)(void *)base;
    if (kernel) {
        call_fini(&kernel->run);
        call_fini(&kernel->load);
        dnnl_stream_destroy(kernel->stream);
        dnnl_engine_destroy(kernel->engine);
        mem_free(kernel);
    }
}

static int bind(struct kernel *kernel, const struct format *format, const struct conv_shape *shape, enum conv_pass pass,
                dnnl_primitive_desc_t desc, struct err *err)
{
    static const int args[CONV_PASSES][3] = {{DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                                             {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC},
                                             {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS}};
    dnnl_memory_desc_t src, dst;
    const dnnl_memory_desc_t *weights = weights_of(desc, pass);
    const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    int rc;
    if ((rc = map_desc(&shape->src, &src, err)) || (rc = map_desc(&shape->dst, &dst, err))) {
        return rc;
    }
    const dnnl_memory_desc_t *mds[CONV_PASSES][3] = {
        {&src, weights, &dst}, {&dst, weights, &src}, {&src, &dst, weights}};
    rc = check(dnnl_primitive_create(&kernel->run.primitive, desc), "convolution", err);
    for (int i = 0; i < 3 && rc == 0; i++) {
        rc = argument(&kernel->run, kernel->engine, args[pass][i], mds[pass][i], err);
    }
    if (rc == 0) {
        rc = argument(&kernel->run, kernel->engine, DNNL_ARG_SCRATCHPAD, scratch, err);
    }
    kernel->base.scratch = dnnl_memory_desc_get_size(scratch);
    if (rc == 0 && pass != CONV_BACKWARD_WEIGHTS && !dnnl_memory_desc_equal(weights, &format->native)) {
        kernel->base.prepared = dnnl_memory_desc_get_size(weights);
        rc = reorder_init(&kernel->load, kernel->engine, &format->native, weights, err);
    }
    return rc;
}

static int kernel_new(const struct conv_format *base, const struct conv_shape *shape, enum conv_pass pass,
                      enum conv_method method, struct conv_kernel **out, struct err *err)
{
    const struct format *format = (const struct format *)(const void *)base;
    *out = NULL;
    if (method != CONV_DIRECT) {
        return err_set(err, ERR_CONFIG, "oneDNN computes convolutions directly");
    }
    onednn_single_thread();
    dnnl_primitive_desc_t desc = NULL;
    struct kernel *kernel = mem_new(1, sizeof *kernel);
    int rc = kernel ? 0 : err_set(err, ERR_NOMEM, "out of memory");
    if (rc == 0 && !(rc = check(dnnl_engine_create(&kernel->engine, dnnl_cpu, 0), "engine", err)) &&
        !(rc = check(dnnl_stream_create(&kernel->stream, kernel->engine, dnnl_stream_default_flags), "stream", err)) &&
        !(rc = describe(kernel->engine, shape, pass, &format->native, &desc, err)) &&
        !(rc = refuse_reference(desc, err))) {
        kernel->base.backend = conv_onednn();
        rc = bind(kernel, format, shape, pass, desc, err);
    }
    dnnl_primitive_desc_destroy(desc);
    if (rc != 0) {
        kernel_free(kernel ? &kernel->base : NULL);
        return rc;
    }
    *out = &kernel->base;
    return 0;
}

static int prepare(struct conv_kernel *base, const float *native, void *prepared, struct err *err)
{
    struct kernel *kernel = (struct kernel *)(void *)base;
    int rc = point(&kernel->load, 0, native, err);
    rc = rc ? rc : point(&kernel->load, 1, prepared, err);
    return rc ? rc : execute(&kernel->load, kernel->stream, err);
}

static int run(struct conv_kernel *base, const void *a, const void *b, void *out, void *scratch, struct err *err)
{
    struct kernel *kernel = (struct kernel *)(void *)base;
    const void *data[ARGS_MAX] = {a, b, out, scratch};
    int rc = 0;
    for (int i = 0; i < ARGS_MAX && rc == 0; i++) {
        rc = point(&kernel->run, i, data[i], err);
    }
    return rc ? rc : execute(&kernel->run, kernel->stream, err);
}

const struct conv_backend *conv_onednn(void)
{
    static const struct conv_backend backend = {"onednn",   format_new,  format_free, pack, unpack,
                                                kernel_new, kernel_free, prepare,     run};
    return &backend;
}
