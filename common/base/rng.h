/* Random numbers by counter: Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).
 *
 * A stream is named by a seed and up to three numbers (say epoch, image, view); the same name yields the same values on
 * every machine, in any order of use and on any thread. Everything here is integer arithmetic or exact in float: no
 * libm, whose last bit differs between versions. */
#ifndef STARLING_BASE_RNG_H
#define STARLING_BASE_RNG_H

#include <stdint.h>

struct rng {
    uint32_t key[2];
    uint32_t counter[4];
    uint32_t block[4];
    uint32_t used; /* words of block already handed out; 4: empty */
};

/* `purpose` separates uses of one seed; add yours to the list. */
enum rng_purpose {
    RNG_WEIGHTS = 1,
    RNG_VIEW,
    RNG_ORDER,
    RNG_REMOTE,
    RNG_SHUFFLE,
    RNG_CHOICE,
    RNG_DRAW,
    RNG_SPLIT,
    RNG_TEST,
    RNG_NETWORK,
    RNG_NEGATIVES,
    RNG_PROBE,
    RNG_UPLOAD,
    RNG_MAP,
};

void rng_init(struct rng *rng, uint64_t seed, enum rng_purpose purpose, uint64_t a, uint64_t b, uint64_t c);
uint32_t rng_u32(struct rng *rng);
uint64_t rng_u64(struct rng *rng);
uint32_t rng_below(struct rng *rng, uint32_t n); /* uniform in [0, n), without bias; n > 0 */
float rng_float(struct rng *rng);                /* uniform in [0, 1), multiples of 2^-24 */
float rng_range(struct rng *rng, float low, float high);
/* Mean 0, variance 1: the sum of twelve uniforms less six, exact on every machine; its tails end at 6. */
float rng_normal(struct rng *rng);
void rng_permute(struct rng *rng, uint32_t *items, uint32_t n);     /* Fisher-Yates */
void rng_permutation(struct rng *rng, uint32_t *items, uint32_t n); /* 0 to n - 1, permuted */
uint64_t rng_mix(uint64_t x);                                       /* splitmix64's finaliser */

#endif
