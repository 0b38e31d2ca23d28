/* When to say again what is still waited for: after a while, then after twice as long each time, at least hourly. So no
 * wait is silent, and none fills the log. */
#ifndef STARLING_BASE_REMINDER_H
#define STARLING_BASE_REMINDER_H

#include <stdbool.h>
#include <stdint.h>

#define REMINDER_MOST_MS (UINT64_C(3600) * 1000)

struct reminder {
    uint64_t due_ms, wait_ms;
};

static inline void reminder_begin(struct reminder *reminder, uint64_t now_ms, uint64_t wait_ms)
{
    *reminder = (struct reminder){.due_ms = now_ms + wait_ms, .wait_ms = wait_ms};
}

/* True when it is to be said now; the next time is set then. */
static inline bool reminder_is_due(struct reminder *reminder, uint64_t now_ms)
{
    if (now_ms < reminder->due_ms) {
        return false;
    }
    uint64_t next_ms = 2 * reminder->wait_ms;
    reminder_begin(reminder, now_ms, next_ms < REMINDER_MOST_MS ? next_ms : REMINDER_MOST_MS);
    return true;
}

#endif
