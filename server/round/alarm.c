#include "server/round/alarm.h"

bool alarm_knows(const struct round_summary *summary)
{
    return summary->round > 1 && summary->aggregate.measured;
}

bool alarm_collapsed(const struct round_summary *summary)
{
    const struct watch *watch = &summary->aggregate;
    return alarm_knows(summary) && (watch->deviation < ALARM_DEVIATION || watch->rank < ALARM_RANK);
}
