/* One deadline for a daemon's loop, for the programs whose logic says "call me by then" (coordinator_next_ms,
 * session_next_ms).
 *
 * After a stall of the process (SIGSTOP, a paused machine) libuv runs the timers that came due before it looks at the
 * sockets, and whoever judges time-outs there punishes peers whose bytes have long arrived. So a deadline that is
 * reached first lets the loop read its sockets once, and only then fires. */
#ifndef STARLING_NET_TICKER_H
#define STARLING_NET_TICKER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* The clock of all deadlines: monotonic milliseconds. */
uint64_t net_now_ms(void);

struct ticker {
    uv_timer_t timer;
    uv_idle_t idle;   /* keeps the loop from waiting while... */
    uv_check_t check; /* ...it reads the sockets, after which this fires */
    void (*fire)(void *ctx);
    void *ctx;
    bool due;
};

/* The ticker alone does not keep the loop alive. */
int ticker_init(uv_loop_t *loop, struct ticker *ticker, void (*fire)(void *ctx), void *ctx);
/* Fires once, when net_now_ms() >= when_ms; UINT64_MAX: not at all. Replaces the deadline that was set. */
void ticker_set(struct ticker *ticker, uint64_t when_ms);
/* The memory is needed until the loop has run once more. */
void ticker_close(struct ticker *ticker);

#endif
