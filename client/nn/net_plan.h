/* How a network will run on this machine: the layout and type of its maps, the method of each pass of each convolution,
 * and where parameters lie inside a round. Fixed before the first step; nets and weights share it and never change it.
 *
 * Native order: the tensors of the layout in the same three regions, each beginning at a multiple of 16 floats, the
 * convolutions' weights in their backend's format, the statistics as they are. Gaps are zero and stay zero. */
#ifndef STARLING_NN_NET_PLAN_H
#define STARLING_NN_NET_PLAN_H

#include "client/nn/choices.h"
#include "client/nn/conv.h"
#include "client/nn/topology.h"
#include "common/vec/layout.h"

enum compute_backend { COMPUTE_AUTO, COMPUTE_ONEDNN, COMPUTE_OPENBLAS };
enum compute_precision { COMPUTE_ANY, COMPUTE_F32, COMPUTE_BF16 };

struct compute {
    enum compute_backend backend;
    enum compute_precision precision; /* COMPUTE_ANY: bf16 where it is measured to be faster and right */
    bool winograd;                    /* may be used where it is measured to be faster and right */
    /* Measured choices, read and added to; NULL: neither Winograd nor COMPUTE_ANY's bf16 is tried, and the plan is a
     * function of layout, batch and processor alone. */
    struct choices *choices;
};

struct net_conv {
    struct conv_shape shape;
    enum conv_method methods[CONV_PASSES];
    struct conv_format *format;
};

struct net_plan {
    const struct layout *layout;
    struct topology *topology;
    uint32_t batch;
    bool trains;
    enum map_format format; /* of all maps but the image */
    enum map_type type;
    const struct conv_backend *backend;
    struct net_conv *convs; /* of each node; without a format where the node is none */
    uint64_t *offsets;      /* of each tensor of the layout, native */
    uint64_t decay_end, trainable_end, total;
};

/* Keeps the layout by reference. ERR_CONFIG: no such backend or precision here, an empty batch, a layout that is none;
 * ERR_NOMEM, ERR_FAILED. */
int net_plan_new(const struct layout *layout, uint32_t batch, bool trains, const struct compute *compute,
                 struct net_plan **out, struct err *err);
/* The same for a network made by hand. Takes the topology over, also when it fails. */
int net_plan_new_from(const struct layout *layout, struct topology *topology, uint32_t batch, bool trains,
                      const struct compute *compute, struct net_plan **out, struct err *err);
void net_plan_free(struct net_plan *plan);

struct map net_plan_map(const struct net_plan *plan, uint32_t map);
uint64_t net_plan_offset(const struct net_plan *plan, const struct tensor *tensor);
/* Between the layout's order [layout->total] and the native one [plan->total], whose gaps pack sets to zero. */
int net_pack(const struct net_plan *plan, const float *params, float *native, struct err *err);
int net_unpack(const struct net_plan *plan, const float *native, float *params, struct err *err);
/* The gradient [layout->trainable_end] out of a native one. */
int net_unpack_gradient(const struct net_plan *plan, const float *native, float *grad, struct err *err);
/* "onednn f32, Winograd in 22 of 59 passes". */
void net_plan_text(const struct net_plan *plan, char *out, size_t size);

#endif
