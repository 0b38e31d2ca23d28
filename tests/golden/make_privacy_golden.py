#!/usr/bin/python3
"""Prints the rows of `golden` in tests/unit/common/base/test_privacy.c, with 50 digits by mpmath (Debian's python3-mpmath).

Needed only to change them. Noise z is in units of the sensitivity; k releases of it are one of z / sqrt(k).

exact: the least epsilon of the Gaussian mechanism itself, from Balle and Wang (ICML 2018, theorem 8):
delta = Phi(1 / 2z - epsilon z) - e^epsilon Phi(-1 / 2z - epsilon z), solved for epsilon by bisection.
renyi: the infimum over all orders a > 1 of k a / 2 z^2 + log(1 - 1 / a) - (log delta + log a) / (a - 1), by golden section
over log(a - 1), from many starting intervals: what no grid can fall below.
"""
from mpmath import mp, mpf, exp, log, ncdf, sqrt

mp.dps = 50


def exact(z, k, delta):
    z = mpf(z) / sqrt(k)
    spent = lambda e: ncdf(1 / (2 * z) - e * z) - exp(e) * ncdf(-1 / (2 * z) - e * z)
    low, high = mpf(0), mpf(1)
    if spent(low) <= delta:
        return low
    while spent(high) > delta:
        high *= 2
    for _ in range(150):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high


def renyi(z, k, delta):
    def at(t):
        a = 1 + exp(t)
        return k * a / (2 * mpf(z) ** 2) + log(1 - 1 / a) - (log(delta) + log(a)) / (a - 1)

    best = None
    ratio = (sqrt(5) - 1) / 2
    for start in range(-30, 30, 4):
        low, high = mpf(start), mpf(start + 8)
        for _ in range(120):
            left, right = high - ratio * (high - low), low + ratio * (high - low)
            low, high = (low, right) if at(left) < at(right) else (left, high)
        best = at(low) if best is None else min(best, at(low))
    return max(best, mpf(0))


for z, k, delta in [
    (100, 1, 1e-5), (10, 1, 1e-5), (4, 1, 1e-5), (2, 1, 1e-5), (1, 1, 1e-5), (0.5, 1, 1e-5), (0.1, 1, 1e-5),
    (1, 1, 1e-9), (1, 1, 1e-2), (10, 10, 1e-5), (10, 1000, 1e-5), (2, 300, 1e-6), (0.05, 100, 1e-5),
]:
    d = mpf(str(delta))
    print(f"    {{{z}, {k}, {delta:g}, {mp.nstr(exact(z, k, d), 12)}, {mp.nstr(renyi(z, k, d), 12)}}},")
