/* Whether a representation has collapsed: a pure judgement on a closed round's measures.
 *
 * The model with which a round began is judged, as the clients measured it in their first steps, so a collapse is seen
 * one round after it happened, and the last model of a run is not judged. Nor is the first: it is untrained. */
#ifndef STARLING_ROUND_ALARM_H
#define STARLING_ROUND_ALARM_H

#include "server/round/summary.h"

#include <stdbool.h>

/* An even spread over the sphere has a deviation of 1, a point 0; a rank of 1.05 says that 99 % of the variance lie on
 * one line. Both were chosen, and lowered twice, on some twenty short runs with small encoders, and then held on 13
 * others that learn (none told; lowest: 0.064 and 1.17, in the second or third round, from which they widen) and 3 that
 * collapse for good (each told; 0.000 and 1.000). The room between is small: a plan that hovers near a collapse, at
 * 0.04 to 0.3 and 1.0 to 1.3, was missed in 3 of 6 runs and told more than once in another. Large encoders were not
 * tried. */
#define ALARM_DEVIATION 0.05
#define ALARM_RANK      1.05

/* Whether `summary` says anything about it. */
bool alarm_knows(const struct round_summary *summary);
bool alarm_collapsed(const struct round_summary *summary);

#endif
