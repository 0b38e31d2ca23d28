/* What a net will cost, from the topology alone. */
#include "client/nn/net.h"
#include "client/nn/topology.h"

/* Blocked layouts pad channels to whole vectors. */
static uint64_t map_bytes(struct shape shape)
{
    uint64_t channels = ((uint64_t)shape.channels + 15) / 16 * 16;
    return channels * shape.side * shape.side * sizeof(float);
}

uint64_t net_memory(const struct layout *layout, uint32_t batch, enum net_mode mode)
{
    struct topology *topology;
    if (topology_new(layout, &topology, NULL) != 0) {
        return 0;
    }
    uint64_t all = 0, largest = 0;
    for (uint32_t i = 0; i < topology->maps_count; i++) {
        uint64_t bytes = map_bytes(topology->maps[i]);
        all += bytes;
        largest = bytes > largest ? bytes : largest;
    }
    topology_free(topology);
    /* Training keeps all maps, a byte a float for the masks of ReLU at most, and has up to four gradients in flight;
     * without it three maps are live at a time, and the workspace that nobody reads. Weights lie in the layout of
     * forward and of backward, their gradient once; padding of narrow layers and scratchpads are the rest. */
    uint64_t weights = layout->total * sizeof(float);
    uint64_t maps = mode == NET_TRAIN ? all + all / 4 + 4 * largest : 4 * largest;
    return maps * batch + weights * (mode == NET_TRAIN ? 3 : 1) + weights / 2 + (UINT64_C(8) << 20);
}

uint64_t net_flops(const struct layout *layout)
{
    struct topology *topology;
    if (topology_new(layout, &topology, NULL) != 0) {
        return 0;
    }
    uint64_t c = layout->backbone, sum = c * c + c * layout->spec.features;
    for (uint32_t i = 0; i < topology->nodes_count; i++) {
        const struct node *node = &topology->nodes[i];
        if (node->kind == NODE_CONV) {
            uint64_t side = topology->maps[node->dst].side;
            sum += node->weight->count * side * side;
        }
    }
    topology_free(topology);
    return 2 * sum;
}
