#include "common/base/rng.h"

#include <string.h>

uint64_t rng_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void rng_init(struct rng *rng, uint64_t seed, enum rng_purpose purpose, uint64_t a, uint64_t b, uint64_t c)
{
    memset(rng, 0, sizeof *rng);
    uint64_t key = rng_mix(seed);
    key = rng_mix(key ^ (uint64_t)purpose);
    uint64_t name = rng_mix(key ^ a);
    name = rng_mix(name ^ b);
    name = rng_mix(name ^ c);
    rng->key[0] = (uint32_t)key;
    rng->key[1] = (uint32_t)(key >> 32);
    rng->counter[2] = (uint32_t)name;
    rng->counter[3] = (uint32_t)(name >> 32);
    rng->used = 4;
}

static void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

uint32_t rng_u32(struct rng *rng)
{
    if (rng->used == 4) {
        philox(rng->counter, rng->key, rng->block);
        if (++rng->counter[0] == 0) {
            rng->counter[1]++;
        }
        rng->used = 0;
    }
    return rng->block[rng->used++];
}

uint64_t rng_u64(struct rng *rng)
{
    uint64_t low = rng_u32(rng);
    return low | (uint64_t)rng_u32(rng) << 32;
}

uint32_t rng_below(struct rng *rng, uint32_t n)
{
    /* Lemire's rejection: multiply, and throw away the few products that would favour small results. */
    uint64_t product = (uint64_t)rng_u32(rng) * n;
    uint32_t threshold = (uint32_t)(-n) % n;
    while ((uint32_t)product < threshold) {
        product = (uint64_t)rng_u32(rng) * n;
    }
    return (uint32_t)(product >> 32);
}

float rng_float(struct rng *rng)
{
    return (float)(rng_u32(rng) >> 8) * 0x1p-24f;
}

float rng_range(struct rng *rng, float low, float high)
{
    return low + (high - low) * rng_float(rng);
}

float rng_normal(struct rng *rng)
{
    int64_t sum = 0;
    for (int i = 0; i < 12; i++) {
        sum += (int64_t)(rng_u32(rng) >> 8);
    }
    return (float)(sum - 6 * (1 << 24)) * 0x1p-24f;
}

void rng_permute(struct rng *rng, uint32_t *items, uint32_t n)
{
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = rng_below(rng, i);
        uint32_t item = items[i - 1];
        items[i - 1] = items[j];
        items[j] = item;
    }
}

void rng_permutation(struct rng *rng, uint32_t *items, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        items[i] = i;
    }
    rng_permute(rng, items, n);
}
