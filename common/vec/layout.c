/* The tensor table of a ResNet (He et al., CVPR 2016) with a two-layer projection head.
 *
 * One walk over the network names every tensor once; it is taken three times, once for each region of the flat vector,
 * so that each region is in network order. The names, with S the stage and I the block in it, both from 0:
 *
 *   stem.conv.weight  stem.bn.scale|shift|mean|square
 *   stageS.I.conv1.weight  stageS.I.bn1.*   3x3, or 1x1 in a bottleneck
 *   stageS.I.conv2.weight  stageS.I.bn2.*   3x3
 *   stageS.I.conv3.weight  stageS.I.bn3.*   bottleneck only: 1x1 to four times the channels
 *   stageS.I.short.conv.weight  stageS.I.short.bn.*   1x1, where the stride is not 1 or the channels change
 *   head.0.weight  head.0.bias   [c, c]
 *   head.1.weight  head.1.bias   [features, c]
 *
 * The first block of each stage but the first has stride 2: in conv1 of a basic block, in conv2 of a bottleneck. */
#include "common/vec/layout.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* With these no product below leaves 64 bits, and the table stays small whatever a hostile file asks for. */
#define BLOCKS_MAX   64
#define WIDTH_MAX    4096
#define INPUT_MAX    4096
#define FEATURES_MAX 65536

enum region { REGION_DECAY, REGION_NO_DECAY, REGION_STATISTICS };

struct walk {
    enum region region;
    struct tensor *tensors; /* NULL: only counts */
    uint32_t count;
    uint64_t offset;
};

static enum region region_of(enum tensor_kind kind)
{
    return kind == TENSOR_CONV || kind == TENSOR_LINEAR         ? REGION_DECAY
           : kind == TENSOR_BN_MEAN || kind == TENSOR_BN_SQUARE ? REGION_STATISTICS
                                                                : REGION_NO_DECAY;
}

static void emit(struct walk *walk, enum tensor_kind kind, const uint32_t shape[4], const char *prefix,
                 const char *leaf)
{
    if (region_of(kind) != walk->region) {
        return;
    }
    uint64_t count = (uint64_t)shape[0] * shape[1] * shape[2] * shape[3];
    if (walk->tensors) {
        struct tensor *tensor = &walk->tensors[walk->count];
        (void)snprintf(tensor->name, sizeof tensor->name, "%.29s.%.17s", prefix, leaf);
        tensor->kind = kind;
        tensor->dims = kind == TENSOR_CONV ? 4 : kind == TENSOR_LINEAR ? 2 : 1;
        memcpy(tensor->shape, shape, sizeof tensor->shape);
        tensor->offset = walk->offset;
        tensor->count = count;
    }
    walk->count++;
    walk->offset += count;
}

static void emit_conv(struct walk *walk, const char *prefix, const char *leaf, uint32_t out, uint32_t in,
                      uint32_t kernel)
{
    emit(walk, TENSOR_CONV, (uint32_t[4]){out, in, kernel, kernel}, prefix, leaf);
}

static void emit_bn(struct walk *walk, uint32_t channels, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void emit_bn(struct walk *walk, uint32_t channels, const char *format, ...)
{
    char prefix[TENSOR_NAME_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    const uint32_t shape[4] = {channels, 1, 1, 1};
    emit(walk, TENSOR_BN_SCALE, shape, prefix, "scale");
    emit(walk, TENSOR_BN_SHIFT, shape, prefix, "shift");
    emit(walk, TENSOR_BN_MEAN, shape, prefix, "mean");
    emit(walk, TENSOR_BN_SQUARE, shape, prefix, "square");
}

static void emit_linear(struct walk *walk, const char *prefix, uint32_t out, uint32_t in)
{
    emit(walk, TENSOR_LINEAR, (uint32_t[4]){out, in, 1, 1}, prefix, "weight");
    emit(walk, TENSOR_BIAS, (uint32_t[4]){out, 1, 1, 1}, prefix, "bias");
}

static uint32_t expansion(const struct model_spec *spec)
{
    return spec->block == MODEL_BLOCK_BOTTLENECK ? 4 : 1;
}

static void walk_block(struct walk *walk, const struct model_spec *spec, uint32_t stage, uint32_t index, uint32_t in)
{
    char prefix[TENSOR_NAME_MAX];
    uint32_t inner = spec->width << stage, out = inner * expansion(spec);
    bool bottleneck = spec->block == MODEL_BLOCK_BOTTLENECK;
    (void)snprintf(prefix, sizeof prefix, "stage%u.%u", stage, index);
    emit_conv(walk, prefix, "conv1.weight", inner, in, bottleneck ? 1 : 3);
    emit_bn(walk, inner, "stage%u.%u.bn1", stage, index);
    emit_conv(walk, prefix, "conv2.weight", inner, inner, 3);
    emit_bn(walk, inner, "stage%u.%u.bn2", stage, index);
    if (bottleneck) {
        emit_conv(walk, prefix, "conv3.weight", out, inner, 1);
        emit_bn(walk, out, "stage%u.%u.bn3", stage, index);
    }
    if ((stage > 0 && index == 0) || in != out) {
        emit_conv(walk, prefix, "short.conv.weight", out, in, 1);
        emit_bn(walk, out, "stage%u.%u.short.bn", stage, index);
    }
}

static void walk_network(struct walk *walk, const struct model_spec *spec, enum region region)
{
    walk->region = region;
    emit_conv(walk, "stem", "conv.weight", spec->width, 3, spec->stem == MODEL_STEM_LARGE ? 7 : 3);
    emit_bn(walk, spec->width, "stem.bn");
    uint32_t channels = spec->width;
    for (uint32_t stage = 0; stage < spec->stages; stage++) {
        for (uint32_t index = 0; index < spec->blocks[stage]; index++) {
            walk_block(walk, spec, stage, index, channels);
            channels = (spec->width << stage) * expansion(spec);
        }
    }
    emit_linear(walk, "head.0", channels, channels);
    emit_linear(walk, "head.1", spec->features, channels);
}

static int check_size(struct err *err, const char *name, uint32_t value, uint32_t most)
{
    return value >= 1 && value <= most ? 0
                                       : err_set(err, ERR_CONFIG, "%s is %u, allowed are 1 to %u", name, value, most);
}

static int check_spec(const struct model_spec *spec, struct err *err)
{
    if (spec->block > MODEL_BLOCK_BOTTLENECK) {
        return err_set(err, ERR_CONFIG, "block is %u, which is no kind of block", spec->block);
    }
    if (spec->stem > MODEL_STEM_LARGE) {
        return err_set(err, ERR_CONFIG, "stem is %u, which is no kind of stem", spec->stem);
    }
    int rc = check_size(err, "the number of stages", spec->stages, MODEL_STAGES_MAX);
    for (uint32_t stage = 0; rc == 0 && stage < spec->stages; stage++) {
        rc = check_size(err, "the number of blocks in a stage", spec->blocks[stage], BLOCKS_MAX);
    }
    rc = rc ? rc : check_size(err, "width", spec->width, WIDTH_MAX);
    rc = rc ? rc : check_size(err, "input", spec->input, INPUT_MAX);
    rc = rc ? rc : check_size(err, "features", spec->features, FEATURES_MAX);
    /* Each stage but the first halves the map, and so do both steps of the large stem. One pixel has no half. */
    uint32_t halvings = spec->stages - 1 + (spec->stem == MODEL_STEM_LARGE ? 2 : 0), map = spec->input;
    for (uint32_t i = 0; rc == 0 && i < halvings; i++) {
        if (map < 2) {
            rc =
                err_set(err, ERR_CONFIG, "an input of %u pixels is too small for %u stages", spec->input, spec->stages);
        }
        map = (map + 1) / 2;
    }
    return rc;
}

/* Three walks; with layout->tensors NULL they only count. */
static void measure(struct layout *layout)
{
    struct walk walk = {.tensors = layout->tensors};
    walk_network(&walk, &layout->spec, REGION_DECAY);
    layout->decay_end = walk.offset;
    walk_network(&walk, &layout->spec, REGION_NO_DECAY);
    layout->trainable_end = walk.offset;
    walk_network(&walk, &layout->spec, REGION_STATISTICS);
    layout->total = walk.offset;
    layout->count = walk.count;
}

int layout_new(const struct model_spec *spec, struct layout **out, struct err *err)
{
    *out = NULL;
    int rc = check_spec(spec, err);
    if (rc) {
        return rc;
    }
    struct layout *layout = mem_new(1, sizeof *layout);
    if (!layout) {
        return err_set(err, ERR_NOMEM, "out of memory for the layout");
    }
    layout->spec = *spec;
    for (uint32_t stage = spec->stages; stage < MODEL_STAGES_MAX; stage++) {
        layout->spec.blocks[stage] = 0;
    }
    layout->backbone = (spec->width << (spec->stages - 1)) * expansion(spec);
    measure(layout);
    if (layout->total > LAYOUT_TOTAL_MAX) {
        rc = err_set(err, ERR_CONFIG, "the model has %llu parameters, more than 2^31",
                     (unsigned long long)layout->total);
        goto fail;
    }
    layout->tensors = mem_new(layout->count, sizeof *layout->tensors);
    struct buf table;
    buf_init(&table, LAYOUT_TABLE_MAX);
    rc = layout->tensors ? 0 : ERR_NOMEM;
    if (rc == 0) {
        measure(layout);
        rc = layout_table(layout, &table);
    }
    layout->fingerprint = hash_of(table.data, table.len);
    buf_fini(&table);
    if (rc) {
        (void)err_set(err, rc, "out of memory for the layout");
        goto fail;
    }
    *out = layout;
    return 0;
fail:
    layout_free(layout);
    return rc;
}

void layout_free(struct layout *layout)
{
    if (layout) {
        mem_free(layout->tensors);
        mem_free(layout);
    }
}

const struct tensor *layout_find(const struct layout *layout, const char *name)
{
    for (uint32_t i = 0; i < layout->count; i++) {
        if (strcmp(layout->tensors[i].name, name) == 0) {
            return &layout->tensors[i];
        }
    }
    return NULL;
}

int layout_table(const struct layout *layout, struct buf *out)
{
    static const char *const kinds[] = {"conv", "linear", "bias", "bn_scale", "bn_shift", "bn_mean", "bn_square"};
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < layout->count; i++) {
        const struct tensor *tensor = &layout->tensors[i];
        rc = buf_printf(out, "%s %s %u", tensor->name, kinds[tensor->kind], tensor->shape[0]);
        for (uint32_t d = 1; rc == 0 && d < tensor->dims; d++) {
            rc = buf_printf(out, "x%u", tensor->shape[d]);
        }
        rc = rc ? rc : buf_printf(out, " %llu\n", (unsigned long long)tensor->offset);
    }
    return rc;
}

/* The square root is correctly rounded by IEEE 754, so the bound has the same bits everywhere. */
static void init_uniform(const struct tensor *tensor, uint64_t seed, uint32_t index, float *values)
{
    uint32_t fan_in = tensor->shape[1] * tensor->shape[2] * tensor->shape[3];
    float bound = sqrtf((tensor->kind == TENSOR_CONV ? 6.0f : 1.0f) / (float)fan_in);
    struct rng rng;
    rng_init(&rng, seed, RNG_WEIGHTS, index, 0, 0);
    for (uint64_t i = 0; i < tensor->count; i++) {
        values[i] = rng_range(&rng, -bound, bound);
    }
}

void params_init(const struct layout *layout, uint64_t seed, float *params)
{
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        float *values = params + tensor->offset;
        if (tensor->kind == TENSOR_CONV || tensor->kind == TENSOR_LINEAR) {
            init_uniform(tensor, seed, t, values);
            continue;
        }
        float value = tensor->kind == TENSOR_BN_SCALE || tensor->kind == TENSOR_BN_SQUARE ? 1.0f : 0.0f;
        for (uint64_t i = 0; i < tensor->count; i++) {
            values[i] = value;
        }
    }
}
