/* What the model of each round must be, bit for bit.
 *
 * With the update of stream.h the server's fixed-point sum (common/vec/fixed.h) is exact: k * 2^-20 times the images is
 * a whole number of steps of the sum, and it fits in the 53 bits of a double. So what the server makes of a round is
 *
 *   next = (float)(model + (plus - minus) * k * 2^-20 / (plus + minus))
 *
 * in double, for each number by itself, where the division is the only rounding before the last: dividing both sides by
 * a power of two, as the server does, changes no bit of a quotient. Nothing of the server's arithmetic is used here. */
#ifndef STARLING_SWARM_CHAIN_H
#define STARLING_SWARM_CHAIN_H

#include "client/swarm/stream.h"

struct chain {
    const struct stream *stream;
    uint32_t round; /* `model` is what it begins with */
    bool known;     /* false: of a run that was under way; the first model that is judged is taken as it is */
    float *model;   /* [total] */
};

/* Round 1 begins with the random weights of the plan's seed. ERR_NOMEM. */
int chain_init(struct chain *chain, const struct stream *stream, uint64_t seed, uint32_t round);
void chain_fini(struct chain *chain);

/* Compares what was downloaded as the model of chain->round: [total] floats. ERR_FAILED names the round and the first
 * number that differs; ERR_DATA: the sum of this model's updates would not be exact. */
int chain_judge(struct chain *chain, const float *got, struct err *err);
/* The round ended with these images; plus + minus > 0. */
void chain_advance(struct chain *chain, uint64_t plus, uint64_t minus);

#endif
