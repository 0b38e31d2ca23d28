/* How often something may happen: once every each_ms in the long run, and as often as fits into burst_ms at a time.
 *
 * One number is kept: until when all that has happened would have lasted at that pace. What happens moves it on; it is
 * never behind the clock, so nothing is saved up beyond the burst; and what lies further ahead than burst_ms is a debt.
 * A zeroed rate has all of its burst. Time comes in as a number. */
#ifndef STARLING_BASE_RATE_H
#define STARLING_BASE_RATE_H

#include <stdbool.h>
#include <stdint.h>

struct rate {
    uint64_t until_ms;
};
struct rate_limit {
    uint32_t each_ms, burst_ms;
};

/* Takes `count` of them in any case. 0: they were within the rate; else in how many ms the debt is paid. */
static inline uint64_t rate_take(struct rate *rate, const struct rate_limit *limit, uint64_t count, uint64_t now_ms)
{
    rate->until_ms = (rate->until_ms > now_ms ? rate->until_ms : now_ms) + count * limit->each_ms;
    return rate->until_ms > now_ms + limit->burst_ms ? rate->until_ms - now_ms - limit->burst_ms : 0;
}

/* Whether one more is within the rate. */
static inline bool rate_has(const struct rate *rate, const struct rate_limit *limit, uint64_t now_ms)
{
    struct rate copy = *rate;
    return rate_take(&copy, limit, 1, now_ms) == 0;
}

/* Gives `count` of them back: they were asked for. */
static inline void rate_pay(struct rate *rate, const struct rate_limit *limit, uint64_t count)
{
    uint64_t ms = count * limit->each_ms;
    rate->until_ms = rate->until_ms > ms ? rate->until_ms - ms : 0;
}

#endif
