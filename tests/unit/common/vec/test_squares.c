/* The sum of squares: every variant the same bits, and right. */
#include "common/base/rng.h"
#include "common/vec/squares.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { MOST = 1003 };

static float values[MOST];

static void draw(float most)
{
    struct rng rng;
    rng_init(&rng, 5, RNG_TEST, 0, 0, 0);
    for (uint32_t i = 0; i < MOST; i++) {
        values[i] = rng_range(&rng, -most, most);
    }
}

static void every_variant_gives_the_same_bits(void **state)
{
    (void)state;
    uint32_t variants = 0;
    for (squares_fn *variant; (variant = squares_variant(variants)); variants++) {
        for (uint32_t size = 0; size < 3; size++) {
            draw((const float[]){1, 1e-20f, 1e19f}[size]);
            for (uint32_t count = 0; count <= MOST; count++) {
                assert_true(variant(values, count) == squares_sum(values, count));
            }
        }
    }
    assert_true(variants >= 1);
}

static void it_is_the_sum(void **state)
{
    (void)state;
    draw(1);
    for (uint32_t count = 0; count <= MOST; count++) {
        long double right = 0;
        for (uint32_t i = 0; i < count; i++) {
            right += (long double)values[i] * (long double)values[i];
        }
        assert_true(fabsl((long double)squares_sum(values, count) - right) <= 1e-14L * right);
    }
}

static void what_is_not_finite_stays_so(void **state)
{
    (void)state;
    for (uint32_t at = 0; at < 20; at++) {
        draw(1);
        values[at] = INFINITY;
        assert_true(isinf(squares_sum(values, 20)));
        values[at] = NAN;
        assert_true(isnan(squares_sum(values, 20)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_gives_the_same_bits),
        cmocka_unit_test(it_is_the_sum),
        cmocka_unit_test(what_is_not_finite_stays_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
