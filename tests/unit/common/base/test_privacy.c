/* The accountant against the exact epsilon of the Gaussian mechanism, which it may not fall below, and against the
 * infimum over all orders, which a grid can only approach. The figures are make_privacy_golden.py's. */
#include "common/base/privacy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct {
    double noise; /* in units of the sensitivity */
    int releases;
    double delta, exact, renyi;
} golden[] = {
    {100, 1, 1e-05, 0.0272194198146, 0.0308209348306}, {10, 1, 1e-05, 0.340669364684, 0.375261235699},
    {4, 1, 1e-05, 0.926341503998, 1.01228663776},      {2, 1, 1e-05, 1.99309140442, 2.16571554518},
    {1, 1, 1e-05, 4.37717809568, 4.72838698494},       {0.5, 1, 1e-05, 9.99725614643, 10.7248241129},
    {0.1, 1, 1e-05, 91.8172896247, 96.0352706752},     {1, 1, 1e-09, 6.17393504667, 6.47407002073},
    {1, 1, 0.01, 2.3177890403, 2.75304954833},         {10, 10, 1e-05, 1.19936957375, 1.30811834291},
    {10, 1000, 1e-05, 17.8565868301, 19.0472595523},   {2, 300, 1e-06, 77.870067465, 81.2609516127},
    {0.05, 100, 1e-05, 20851.9886797, 20954.9627636},
};

typedef double epsilon_fn(double noise, int releases, double delta);

static double ours(double noise, int releases, double delta)
{
    double rho = 0;
    for (int i = 0; i < releases; i++) {
        rho += privacy_rho(3, 3 * noise);
    }
    return privacy_epsilon(rho, delta);
}

/* ---- Planted ---- */

static double forgets_all_but_the_last(double noise, int releases, double delta)
{
    (void)releases;
    return privacy_epsilon(privacy_rho(1, noise), delta);
}

static double takes_the_wrong_sensitivity(double noise, int releases, double delta)
{
    return privacy_epsilon(releases * privacy_rho(1, 2 * noise), delta);
}

static double converts_as_mironov(double noise, int releases, double delta)
{
    double rho = releases * privacy_rho(1, noise);
    return rho + 2 * sqrt(rho * -log(delta));
}

/* Where it is wrong for the first time; NULL: nowhere. */
static const char *fault(epsilon_fn *epsilon)
{
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
        double got = epsilon(golden[i].noise, golden[i].releases, golden[i].delta);
        if (!(got >= golden[i].exact)) {
            return "less than the mechanism spends";
        }
        if (!(got >= golden[i].renyi * (1 - 1e-9) && got <= golden[i].renyi * 1.003)) {
            return "not the least of all orders";
        }
        if (!(got <= golden[i].exact * 1.2)) {
            return "far above what the mechanism spends";
        }
    }
    return NULL;
}

static void figures_agree(void **state)
{
    (void)state;
    assert_null(fault(ours));
}

static void planted_accountants_are_found(void **state)
{
    (void)state;
    assert_non_null(fault(forgets_all_but_the_last));
    assert_non_null(fault(takes_the_wrong_sensitivity));
    assert_non_null(fault(converts_as_mironov));
}

static void ends_of_the_range(void **state)
{
    (void)state;
    assert_true(privacy_epsilon(0, 1e-5) == 0);
    assert_true(isinf(privacy_rho(2, 0)));
    assert_true(isinf(privacy_epsilon((double)INFINITY, 1e-5)));
    assert_true(privacy_epsilon(1e-12, 1e-5) >= 0);
    double before = 0;
    for (double rho = 1e-9; rho < 1e12; rho *= 1.5) { /* finite, and never less for more */
        double epsilon = privacy_epsilon(rho, 1e-5);
        assert_true(isfinite(epsilon) && epsilon >= before);
        assert_true(privacy_epsilon(rho, 1e-9) >= epsilon);
        before = epsilon;
    }
    assert_true(before > 1e11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_agree),
        cmocka_unit_test(planted_accountants_are_found),
        cmocka_unit_test(ends_of_the_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
