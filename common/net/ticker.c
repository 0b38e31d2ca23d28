/* The deadline of a loop; see ticker.h. The order within one turn of libuv's loop is timers, sockets, checks. */
#include "common/net/ticker.h"

uint64_t net_now_ms(void)
{
    return uv_hrtime() / 1000000;
}

static void on_idle(uv_idle_t *idle)
{
    (void)idle; /* that it runs is enough: the loop polls without waiting */
}

static void on_check(uv_check_t *check)
{
    struct ticker *ticker = check->data;
    (void)uv_idle_stop(&ticker->idle);
    (void)uv_check_stop(&ticker->check);
    ticker->due = false;
    ticker->fire(ticker->ctx);
}

static void on_timer(uv_timer_t *timer)
{
    struct ticker *ticker = timer->data;
    ticker->due = true;
    (void)uv_idle_start(&ticker->idle, on_idle);
    (void)uv_check_start(&ticker->check, on_check);
}

int ticker_init(uv_loop_t *loop, struct ticker *ticker, void (*fire)(void *ctx), void *ctx)
{
    int rc = uv_timer_init(loop, &ticker->timer);
    rc = rc ? rc : uv_idle_init(loop, &ticker->idle);
    rc = rc ? rc : uv_check_init(loop, &ticker->check);
    ticker->timer.data = ticker->check.data = ticker;
    ticker->fire = fire;
    ticker->ctx = ctx;
    ticker->due = false;
    uv_unref((uv_handle_t *)&ticker->timer);
    uv_unref((uv_handle_t *)&ticker->idle);
    uv_unref((uv_handle_t *)&ticker->check);
    return rc;
}

void ticker_set(struct ticker *ticker, uint64_t when_ms)
{
    if (ticker->due) {
        return; /* it fires in this turn of the loop, and whoever it calls sets the next one */
    }
    uint64_t now_ms = uv_now(ticker->timer.loop); /* the loop's own idea of now, from which it counts */
    if (when_ms == UINT64_MAX) {
        (void)uv_timer_stop(&ticker->timer);
    } else {
        (void)uv_timer_start(&ticker->timer, on_timer, when_ms > now_ms ? when_ms - now_ms : 0, 0);
    }
}

void ticker_close(struct ticker *ticker)
{
    uv_close((uv_handle_t *)&ticker->timer, NULL);
    uv_close((uv_handle_t *)&ticker->idle, NULL);
    uv_close((uv_handle_t *)&ticker->check, NULL);
}
