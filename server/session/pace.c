#include "server/session/pace.h"

static uint32_t least_of(const struct pace *pace)
{
    return pace->most < PACE_LEAST ? pace->most : PACE_LEAST;
}

void pace_init(struct pace *pace, uint32_t most, uint64_t window_ms)
{
    *pace = (struct pace){.most = most, .window_ms = window_ms > 0 ? window_ms : 1};
    pace->slots = pace->begun = least_of(pace);
}

void pace_round(struct pace *pace)
{
    uint32_t next = pace->proven > 0 ? pace->proven : pace->begun / 2;
    pace->slots = pace->begun = next > least_of(pace) ? next : least_of(pace);
    pace->proven = pace->before = pace->rest = 0;
    pace->running = false;
}

void pace_chunk(struct pace *pace, uint32_t bytes)
{
    pace->bytes += bytes;
    pace->chunks++;
}

static void begin_window(struct pace *pace, uint64_t now_ms)
{
    pace->running = true;
    pace->since_ms = now_ms;
    pace->due_ms = now_ms + pace->window_ms;
    pace->bytes = 0;
    pace->chunks = 0;
}

static void change(struct pace *pace, uint32_t slots)
{
    pace->slots = slots;
    pace->settling = true;
}

static void try_more(struct pace *pace)
{
    if (pace->slots < pace->most) {
        pace->before = pace->slots;
        pace->before_rate = pace->rate;
        change(pace, pace->most - pace->slots < pace->slots ? pace->most : 2 * pace->slots);
    }
}

/* Half of what as many times the slots could have brought. */
static bool was_worth_it(const struct pace *pace)
{
    uint64_t wanted = pace->before_rate + pace->before_rate * (pace->slots - pace->before) / (2 * pace->before);
    return pace->rate > 0 && pace->rate >= wanted;
}

static void judge(struct pace *pace)
{
    if (pace->before > 0) {
        bool keep = was_worth_it(pace);
        uint32_t before = pace->before;
        pace->before = 0;
        if (!keep) {
            pace->rest = PACE_REST;
            change(pace, before);
            return;
        }
        pace->proven = pace->slots;
    } else if (pace->rest > 0) {
        pace->rest--;
        return;
    }
    try_more(pace);
}

bool pace_step(struct pace *pace, bool waiting, uint64_t now_ms)
{
    uint32_t slots = pace->slots;
    if (!waiting || !pace->running) {
        pace->running = false;
        if (waiting) {
            begin_window(pace, now_ms);
        }
        return false;
    }
    uint64_t elapsed_ms = now_ms - pace->since_ms;
    bool enough = pace->chunks >= PACE_CHUNKS * pace->slots || elapsed_ms >= 6 * pace->window_ms;
    if (elapsed_ms < pace->window_ms) {
        return false;
    }
    if (!enough) {
        pace->due_ms = pace->since_ms + 6 * pace->window_ms;
        return false;
    }
    pace->rate = pace->bytes * 1000 / elapsed_ms;
    if (pace->settling) {
        pace->settling = false;
    } else {
        judge(pace);
    }
    begin_window(pace, now_ms);
    return pace->slots != slots;
}

uint64_t pace_next_ms(const struct pace *pace)
{
    return pace->running ? pace->due_ms : UINT64_MAX;
}
