/* Walks the network in the order of computation and finds each tensor by the name that common/vec/layout.c gave it. */
#include "client/nn/topology.h"

#include "common/base/mem.h"

#include <stdio.h>

struct builder {
    const struct layout *layout;
    struct topology *topology;
    const char *missing; /* the leaf of the first tensor that the layout does not have */
};

static const struct tensor *find(struct builder *builder, const char *prefix, const char *leaf)
{
    char name[TENSOR_NAME_MAX];
    (void)snprintf(name, sizeof name, "%s.%s", prefix, leaf);
    const struct tensor *tensor = layout_find(builder->layout, name);
    if (!tensor) {
        builder->missing = leaf;
    }
    return tensor;
}

static struct node *append(struct builder *builder, enum node_kind kind, uint32_t src, struct shape dst)
{
    struct topology *t = builder->topology;
    struct node *node = &t->nodes[t->nodes_count++];
    *node = (struct node){.kind = kind, .src = src, .dst = t->maps_count};
    t->maps[t->maps_count++] = dst;
    return node;
}

/* [side] to [side / stride rounded up]: what a kernel of odd size with padding (kernel - 1) / 2 leaves. */
static uint32_t shrunk(uint32_t side, uint32_t stride)
{
    return (side + stride - 1) / stride;
}

/* A convolution and the BN behind it; NULL when the layout lacks the convolution. */
static struct node *conv_bn(struct builder *builder, uint32_t src, const char *conv, const char *bn, uint32_t stride,
                            bool relu)
{
    const struct tensor *weight = find(builder, conv, "weight");
    if (!weight) {
        return NULL;
    }
    struct shape dst = {weight->shape[0], shrunk(builder->topology->maps[src].side, stride)};
    struct node *node = append(builder, NODE_CONV, src, dst);
    node->weight = weight;
    node->kernel = weight->shape[2];
    node->stride = stride;
    node = append(builder, NODE_BN, node->dst, dst);
    node->relu = relu;
    node->scale = find(builder, bn, "scale");
    node->shift = find(builder, bn, "shift");
    node->mean = find(builder, bn, "mean");
    node->square = find(builder, bn, "square");
    return node;
}

/* The shortcut comes first, so that the BN that closes the branch finds its map. */
static uint32_t block(struct builder *builder, uint32_t src, uint32_t stage, uint32_t index)
{
    const struct model_spec *spec = &builder->layout->spec;
    bool bottleneck = spec->block == MODEL_BLOCK_BOTTLENECK;
    uint32_t convs = bottleneck ? 3 : 2, strided = bottleneck ? 2 : 1, branch = src, other = src;
    uint32_t stride = stage > 0 && index == 0 ? 2 : 1;
    char conv[TENSOR_NAME_MAX], bn[TENSOR_NAME_MAX];
    (void)snprintf(conv, sizeof conv, "stage%u.%u.short.conv", stage, index);
    (void)snprintf(bn, sizeof bn, "stage%u.%u.short.bn", stage, index);
    if (stride > 1 || builder->topology->maps[src].channels != (spec->width << stage) * (bottleneck ? 4 : 1)) {
        struct node *node = conv_bn(builder, src, conv, bn, stride, false);
        other = node ? node->dst : src;
    }
    for (uint32_t i = 1; i <= convs; i++) {
        (void)snprintf(conv, sizeof conv, "stage%u.%u.conv%u", stage, index, i);
        (void)snprintf(bn, sizeof bn, "stage%u.%u.bn%u", stage, index, i);
        struct node *node = conv_bn(builder, branch, conv, bn, i == strided ? stride : 1, true);
        if (!node) {
            return src;
        }
        node->residual = i == convs;
        node->other = other;
        branch = node->dst;
    }
    return branch;
}

static void walk(struct builder *builder)
{
    const struct model_spec *spec = &builder->layout->spec;
    struct topology *t = builder->topology;
    t->maps[t->maps_count++] = (struct shape){3, spec->input};
    bool large = spec->stem == MODEL_STEM_LARGE;
    const struct node *stem = conv_bn(builder, 0, "stem.conv", "stem.bn", large ? 2 : 1, true);
    uint32_t map = stem ? stem->dst : 0;
    if (large) {
        struct shape dst = {t->maps[map].channels, shrunk(t->maps[map].side, 2)};
        struct node *node = append(builder, NODE_MAX, map, dst);
        node->kernel = 3;
        node->stride = 2;
        map = node->dst;
    }
    for (uint32_t stage = 0; stage < spec->stages; stage++) {
        for (uint32_t i = 0; i < spec->blocks[stage]; i++) {
            map = block(builder, map, stage, i);
        }
    }
    struct node *node = append(builder, NODE_AVERAGE, map, (struct shape){t->maps[map].channels, 1});
    node->kernel = t->maps[map].side;
    node->stride = 1;
}

int topology_new(const struct layout *layout, struct topology **out, struct err *err)
{
    *out = NULL;
    struct topology *topology = mem_new(1, sizeof *topology);
    if (!topology) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    size_t most = 4; /* stem, pooling, average; a block has at most four convolutions and four BNs */
    for (uint32_t stage = 0; stage < layout->spec.stages; stage++) {
        most += (size_t)layout->spec.blocks[stage] * 8;
    }
    topology->nodes = mem_new(most, sizeof *topology->nodes);
    topology->maps = mem_new(most + 1, sizeof *topology->maps);
    if (!topology->nodes || !topology->maps) {
        topology_free(topology);
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    struct builder builder = {.layout = layout, .topology = topology};
    walk(&builder);
    if (builder.missing) {
        topology_free(topology);
        return err_set(err, ERR_CONFIG, "the layout has no tensor for a %s of its own model", builder.missing);
    }
    *out = topology;
    return 0;
}

void topology_free(struct topology *topology)
{
    if (topology) {
        mem_free(topology->nodes);
        mem_free(topology->maps);
        mem_free(topology);
    }
}
