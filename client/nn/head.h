/* The projection head on pooled rows: linear c x c -> ReLU -> linear d x c -> L2 normalisation. */
#ifndef STARLING_NN_HEAD_H
#define STARLING_NN_HEAD_H

#include "client/nn/net_plan.h"

#include <stdbool.h>

struct head {
    uint32_t batch, c, d;
    uint64_t weight1, bias1, weight2, bias2; /* native offsets */
    float *hidden;                           /* [batch, c], after ReLU */
    float *features;                         /* [batch, d], unit rows */
    float *norms;                            /* [batch] */
    float *dfeatures; /* [batch, d], by the output of the second layer; like dhidden NULL without training */
    float *dhidden;   /* [batch, c] */
};

/* ERR_NOMEM, ERR_CONFIG. */
int head_init(struct head *head, const struct net_plan *plan, bool training, struct err *err);
void head_fini(struct head *head);
/* native: parameters; pooled: [batch, c]. Fills head->features. */
void head_forward(struct head *head, const float *native, const float *pooled);
/* dfeatures: [batch, d], by the unit rows. dpooled: [batch, c] and grad are overwritten; grad holds the gradients by
 * weight1, weight2, bias1 and bias2, one behind the other. */
void head_backward(struct head *head, const float *native, const float *pooled, const float *dfeatures, float *dpooled,
                   float *grad);

#endif
