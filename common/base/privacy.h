/* What noisy releases of a site's data cost in privacy: the accountant of the Gaussian mechanism.
 *
 * A release is a vector to which N(0, s^2) was added in each coordinate. Its sensitivity D is how far, in L2, the
 * vector can move when the data changes to a neighbour. Its Rényi divergence of order a between neighbours is a r, with
 * r = (D / s)^2 / 2 (Mironov, CSF 2017, corollary 3), and for releases that follow each other, each chosen in the
 * knowledge of the earlier ones, these r add up (proposition 1). So the whole account of a site is one sum, `rho` (it
 * is that of zero-concentrated differential privacy: Bun and Steinke, TCC 2016), whatever the noise of each release
 * was.
 *
 * Nothing is taken off for subsampling: every release counts as if all images had been in it. */
#ifndef STARLING_BASE_PRIVACY_H
#define STARLING_BASE_PRIVACY_H

#include <stdbool.h>
#include <stdint.h>

/* What the contributions of a site to a run have cost so far. Two figures, since they say different things:
 * client/train/noise.h tells what neighbours are for each. */
struct privacy {
    bool counted;                            /* false: the plan has no noise, and the rest is zero */
    uint32_t releases;                       /* contributions that were made to be sent */
    double features_epsilon, features_delta; /* zero: the plan has no noise for them, or none are sent */
    double update_epsilon, update_delta;     /* likewise */
};

/* The cost of one release; infinite without noise. */
double privacy_rho(double sensitivity, double noise);
/* The least epsilon for which (epsilon, delta)-differential privacy follows from `rho`, by the conversion of Canonne,
 * Kamath and Steinke (NeurIPS 2020, proposition 12), minimised over a grid of orders. Each order's value is an upper
 * bound, so a coarser grid could only overstate it. rho >= 0 (infinite: infinite), 0 < delta < 1. */
double privacy_epsilon(double rho, double delta);

#endif
