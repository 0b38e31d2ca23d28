/* The projection head on pooled rows: linear c x c -> ReLU -> linear d x c -> L2 normalisation. */
#ifndef STARLING_NN_HEAD_H
#define STARLING_NN_HEAD_H

#include "common/vec/layout.h"

#include <stdbool.h>

struct head {
    uint32_t batch, c, d;
    const struct tensor *weight1, *bias1, *weight2, *bias2;
    float *hidden;    /* [batch, c], after ReLU */
    float *features;  /* [batch, d], unit rows */
    float *norms;     /* [batch] */
    float *dfeatures; /* [batch, d], by the output of the second layer; like dhidden NULL without training */
    float *dhidden;   /* [batch, c] */
};

/* ERR_NOMEM, ERR_CONFIG. */
int head_init(struct head *head, const struct layout *layout, uint32_t batch, bool training, struct err *err);
void head_fini(struct head *head);
/* pooled: [batch, c]. Fills head->features. */
void head_forward(struct head *head, const float *params, const float *pooled);
/* dfeatures: [batch, d], by the unit rows. dpooled: [batch, c], overwritten. grad is accumulated into. */
void head_backward(struct head *head, const float *params, const float *pooled, const float *dfeatures, float *dpooled,
                   float *grad);

#endif
