#include "common/base/privacy.h"

#include <math.h>

#define STEPS       64    /* of the grid, to either side of where the optimum nearly is */
#define STEP_FACTOR 0.125 /* in octaves of the order less one */

double privacy_rho(double sensitivity, double noise)
{
    double ratio = sensitivity / noise;
    return noise > 0 ? ratio * ratio / 2 : (double)INFINITY;
}

/* What order 1 + b gives. */
static double epsilon_at(double rho, double delta, double b)
{
    return rho * (1 + b) + log(b / (1 + b)) - (log(delta) + log1p(b)) / b;
}

double privacy_epsilon(double rho, double delta)
{
    if (!(rho > 0) || isinf(rho)) {
        return rho > 0 ? (double)INFINITY : 0;
    }
    double middle = sqrt(-log(delta) / rho), least = (double)INFINITY;
    for (int i = -STEPS; i <= STEPS; i++) {
        double epsilon = epsilon_at(rho, delta, middle * exp2(i * STEP_FACTOR));
        least = epsilon < least ? epsilon : least;
    }
    return least > 0 ? least : 0;
}
