/* Whether a representation has collapsed: a pure judgement on a closed round's measures.
 *
 * The model with which a round began is judged, as the clients measured it in their first steps, so a collapse is seen
 * one round after it happened, and the last model of a run is not judged. Nor is the first: it is untrained. */
#ifndef STARLING_ROUND_ALARM_H
#define STARLING_ROUND_ALARM_H

#include "server/round/summary.h"

#include <stdbool.h>

/* An even spread over the sphere has a deviation of 1, a point 0; a rank of 1.05 says that 99 % of the variance lie on
 * one line. Small encoders that learn stayed above 0.064 and 1.17 (13 runs), at their lowest in the second or third
 * round; those that collapse go to 0.000 and 1.000 (3 runs). Near a collapse, at 0.04 to 0.3 and 1.0 to 1.3, a run may
 * pass unseen (3 of 6 did). */
#define ALARM_DEVIATION 0.05
#define ALARM_RANK      1.05

/* Whether `summary` says anything about it. */
bool alarm_knows(const struct round_summary *summary);
bool alarm_collapsed(const struct round_summary *summary);

#endif
