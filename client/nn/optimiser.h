/* SGD with momentum and weight decay, and the key encoder that follows: one pass over flat memory. */
#ifndef STARLING_NN_OPTIMISER_H
#define STARLING_NN_OPTIMISER_H

#include <stdint.h>

struct optimiser {
    float *params, *velocity, *key; /* [trainable_end] are touched */
    const float *const *grads;      /* one vector a group; their sum, taken in this order, is the gradient */
    uint32_t groups;
    uint64_t decay_end;
    float learning_rate, momentum, weight_decay, key_momentum;
};

/* For i in [begin, end), as torch.optim.SGD has it:
 *   g = sum of grads (+ weight_decay * p below decay_end);  v = momentum * v + g;  p -= learning_rate * v
 *   key = key_momentum * key + (1 - key_momentum) * p */
void optimiser_step(const struct optimiser *optimiser, uint64_t begin, uint64_t end);

#endif
