/* What a net will cost, from the topology alone. */
#include "client/nn/net.h"
#include "client/nn/topology.h"

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
