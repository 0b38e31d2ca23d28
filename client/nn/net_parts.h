/* A net from the inside, without oneDNN's types: for tests of single operations and of what a net holds. */
#ifndef STARLING_NN_NET_PARTS_H
#define STARLING_NN_NET_PARTS_H

#include "client/nn/net.h"
#include "client/nn/topology.h"

/* net_new for a network made by hand; the layout must have its tensors and a head. Takes the topology over, also when
 * it fails. */
int net_new_from(const struct layout *layout, struct topology *topology, uint32_t batch, enum net_mode mode,
                 struct net **out, struct err *err);

/* Bytes of maps, gradients, weights and scratchpad. */
uint64_t net_bytes(const struct net *net);
/* Maps that are moved from one layout into another between the first and the last. */
uint32_t net_reorders(const struct net *net);

#endif
