/* Random streams: the published vectors of Philox4x32-10, independence of order, and that the numbers look as they
 * should. */
#include "common/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The known answers that come with the Random123 library of the paper's authors (counter, key, result). */
static void test_philox_vectors(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct rng rng = {.used = 4};
        memcpy(rng.counter, rows[i].counter, sizeof rng.counter);
        memcpy(rng.key, rows[i].key, sizeof rng.key);
        for (int word = 0; word < 4; word++) {
            assert_int_equal(rng_u32(&rng), rows[i].want[word]);
        }
    }
}

static void test_counter_carries(void **state)
{
    (void)state;
    struct rng rng = {.used = 4, .counter = {0xffffffff, 7, 1, 2}};
    (void)rng_u32(&rng);
    assert_int_equal(rng.counter[0], 0);
    assert_int_equal(rng.counter[1], 8);
    assert_int_equal(rng.counter[2], 1);
}

/* A stream's values depend on its name alone: drawing streams in turns or one after the other gives the same. */
static void test_order_of_use(void **state)
{
    (void)state;
    enum { STREAMS = 8, DRAWS = 100 };
    static uint32_t apart[STREAMS][DRAWS], turns[STREAMS][DRAWS];
    struct rng rng[STREAMS];
    for (uint32_t s = STREAMS; s-- > 0;) {
        struct rng one;
        rng_init(&one, 5, RNG_TEST, 1, s, 0);
        for (int i = 0; i < DRAWS; i++) {
            apart[s][i] = rng_u32(&one);
        }
    }
    for (uint32_t s = 0; s < STREAMS; s++) {
        rng_init(&rng[s], 5, RNG_TEST, 1, s, 0);
    }
    for (int i = 0; i < DRAWS; i++) {
        for (uint32_t s = 0; s < STREAMS; s++) {
            turns[s][i] = rng_u32(&rng[s]);
        }
    }
    assert_memory_equal(apart, turns, sizeof apart);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Every part of a name counts, and its place in the name too: no two of these streams begin alike. */
static void test_names_differ(void **state)
{
    (void)state;
    enum { SIDE = 6, COUNT = 2 * 2 * SIDE * SIDE * SIDE };
    static uint64_t first[COUNT];
    size_t n = 0;
    for (uint64_t seed = 0; seed < 2; seed++) {
        for (uint32_t purpose = 0; purpose < 2; purpose++) {
            for (uint64_t name = 0; name < SIDE * SIDE * SIDE; name++) {
                struct rng rng;
                rng_init(&rng, seed, purpose ? RNG_VIEW : RNG_ORDER, name % SIDE, name / SIDE % SIDE,
                         name / SIDE / SIDE);
                first[n++] = rng_u64(&rng);
            }
        }
    }
    qsort(first, COUNT, sizeof first[0], compare);
    for (size_t i = 1; i < COUNT; i++) {
        assert_true(first[i] != first[i - 1]);
    }
}

/* 64 bits by 100,000 draws: each bit is set half of the time (6 sigma), over successive words and over successive
 * names. */
static void test_bits_are_even(void **state)
{
    (void)state;
    enum { DRAWS = 100000 };
    uint32_t along[64] = {0}, across[64] = {0};
    struct rng rng, other;
    rng_init(&rng, 1, RNG_TEST, 0, 0, 0);
    for (uint32_t i = 0; i < DRAWS; i++) {
        uint64_t a = rng_u64(&rng);
        rng_init(&other, 1, RNG_TEST, i, 0, 0);
        uint64_t b = rng_u64(&other);
        for (int bit = 0; bit < 64; bit++) {
            along[bit] += (uint32_t)(a >> bit & 1);
            across[bit] += (uint32_t)(b >> bit & 1);
        }
    }
    double slack = 6 * sqrt(DRAWS / 4.0);
    for (int bit = 0; bit < 64; bit++) {
        assert_true(fabs(along[bit] - DRAWS / 2.0) < slack);
        assert_true(fabs(across[bit] - DRAWS / 2.0) < slack);
    }
}

static void test_below(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 2, RNG_TEST, 0, 0, 0);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(rng_below(&rng, 1), 0);
    }
    enum { N = 13, DRAWS = 130000 };
    uint32_t bins[N] = {0};
    for (int i = 0; i < DRAWS; i++) {
        uint32_t x = rng_below(&rng, N);
        assert_true(x < N);
        bins[x]++;
    }
    double chi = 0, expected = (double)DRAWS / N;
    for (int i = 0; i < N; i++) {
        chi += (bins[i] - expected) * (bins[i] - expected) / expected;
    }
    assert_true(chi < 45); /* 12 degrees of freedom: beyond 45 with probability 1e-5 */
    /* A plain modulo or product would favour the low half here: n is 3/4 of 2^32, so a third of the products are
     * thrown. */
    uint32_t big = 0xc0000000u, low = 0;
    for (int i = 0; i < DRAWS; i++) {
        low += rng_below(&rng, big) < big / 2;
    }
    assert_true(fabs(low - DRAWS / 2.0) < 6 * sqrt(DRAWS / 4.0));
}

static void test_floats(void **state)
{
    (void)state;
    enum { DRAWS = 200000 };
    struct rng rng;
    rng_init(&rng, 3, RNG_TEST, 0, 0, 0);
    double sum = 0, squares = 0, normal = 0, normal_squares = 0, normal_fourth = 0;
    for (int i = 0; i < DRAWS; i++) {
        float x = rng_float(&rng);
        assert_true(x >= 0.0f && x < 1.0f);
        assert_true(x * 0x1p24f == floorf(x * 0x1p24f));
        float y = rng_range(&rng, -2.0f, 3.0f);
        assert_true(y >= -2.0f && y <= 3.0f);
        double z = (double)rng_normal(&rng);
        assert_true(fabs(z) <= 6);
        sum += (double)x;
        squares += (double)x * (double)x;
        normal += z;
        normal_squares += z * z;
        normal_fourth += z * z * z * z;
    }
    double root = sqrt(DRAWS);
    assert_true(fabs(sum / DRAWS - 0.5) < 6 * 0.289 / root);
    assert_true(fabs(squares / DRAWS - 1.0 / 3) < 6 * 0.298 / root);
    assert_true(fabs(normal / DRAWS) < 6 / root);
    assert_true(fabs(normal_squares / DRAWS - 1) < 6 * 1.4 / root);
    /* The sum of twelve uniforms has kurtosis 2.9; a sum of three would have 2.6. */
    assert_true(fabs(normal_fourth / DRAWS - 2.9) < 0.15);
}

static void test_permute(void **state)
{
    (void)state;
    enum { N = 4, SHUFFLES = 24000 };
    uint32_t seen[256] = {0};
    for (uint32_t s = 0; s < SHUFFLES; s++) {
        uint32_t items[N] = {0, 1, 2, 3}, present = 0, code = 0;
        struct rng rng;
        rng_init(&rng, 4, RNG_SHUFFLE, s, 0, 0);
        rng_permute(&rng, items, N);
        for (int i = 0; i < N; i++) {
            present |= 1u << items[i];
            code = code * 4 + items[i];
        }
        assert_int_equal(present, 15); /* nothing lost, nothing doubled */
        seen[code]++;
    }
    double chi = 0;
    int orders = 0;
    for (int code = 0; code < 256; code++) {
        orders += seen[code] > 0;
        chi += seen[code] ? (seen[code] - 1000.0) * (seen[code] - 1000.0) / 1000 : 0;
    }
    assert_int_equal(orders, 24);
    assert_true(chi < 64); /* 23 degrees of freedom, probability 1e-5 */
    uint32_t one = 9;
    struct rng rng;
    rng_init(&rng, 4, RNG_SHUFFLE, 0, 0, 0);
    rng_permute(&rng, &one, 1);
    rng_permute(&rng, NULL, 0);
    assert_int_equal(one, 9);
}

/* Saved states and caches name streams by these numbers: they may never change. splitmix64 of 0 and 1 as in its
 * author's reference (the first output after seeding with that value). */
static void test_mix(void **state)
{
    (void)state;
    assert_int_equal(rng_mix(0), UINT64_C(0xe220a8397b1dcdaf));
    assert_int_equal(rng_mix(1), UINT64_C(0x910a2dec89025cc1));
}

static void test_permutation(void **state)
{
    (void)state;
    enum { N = 100 };
    uint32_t items[N], by_hand[N];
    struct rng a, b;
    rng_init(&a, 1, RNG_TEST, 7, 0, 0);
    rng_init(&b, 1, RNG_TEST, 7, 0, 0);
    for (uint32_t i = 0; i < N; i++) {
        by_hand[i] = i;
    }
    rng_permute(&a, by_hand, N);
    memset(items, 0xff, sizeof items);
    rng_permutation(&b, items, N);
    assert_memory_equal(items, by_hand, sizeof items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutation),     cmocka_unit_test(test_philox_vectors),
        cmocka_unit_test(test_counter_carries), cmocka_unit_test(test_order_of_use),
        cmocka_unit_test(test_names_differ),    cmocka_unit_test(test_bits_are_even),
        cmocka_unit_test(test_below),           cmocka_unit_test(test_floats),
        cmocka_unit_test(test_permute),         cmocka_unit_test(test_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
