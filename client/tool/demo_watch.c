#include "client/tool/demo_watch.h"

#include "client/shell/query.h"
#include "client/tool/human.h"

#include <stdio.h>
#include <string.h>

#define QUERY_MS      2000
#define QUIET_MS      10000 /* the longest time without a line */
#define HISTORY_USUAL 32
#define STUCK_MS      10000 /* a client that is being started again may yet help */
#define LINE_MAX      4096

void demo_watch_init(struct demo_watch *watch, struct demo *demo)
{
    *watch = (struct demo_watch){.demo = demo};
    watch->started_ms = watch->spoke_ms = demo_now_ms();
    (void)snprintf(watch->trouble, sizeof watch->trouble, "it has not said yet where it listens");
}

void demo_watch_say(struct demo_watch *watch, const struct buf *line)
{
    (void)printf("%.*s", (int)line->len, (const char *)line->data);
    (void)fflush(stdout);
    watch->spoke_ms = demo_now_ms();
}

int demo_round_line(const struct status_round *round, uint32_t rounds, uint32_t clients, struct buf *out)
{
    char up[HUMAN_MAX], down[HUMAN_MAX];
    int code = buf_printf(out, "round %2u/%u  %u of %u clients", round->round, rounds, round->accepted, clients);
    if (!code && round->declined) {
        code = buf_printf(out, " (%u declined)", round->declined);
    }
    return code
               ? code
               : buf_printf(
                     out, "  loss %.2f (contrast %.2f, matching %.2f)  remote negatives %.0f %%  %.1f s  up %s down %s",
                     round->loss, round->loss_contrast, round->loss_matching, 100 * round->remote_share, round->seconds,
                     human_bytes(round->bytes_up, up), human_bytes(round->bytes_down, down));
}

/* One line for each round that closed since the last answer. */
static void take_rounds(struct demo_watch *watch, const struct msg_status_reply *reply)
{
    struct demo *demo = watch->demo;
    while (demo->rounds_closed < reply->round && demo->rounds_closed < demo->plan.rounds) {
        uint32_t number = demo->rounds_closed + 1;
        const struct status_round *round = NULL;
        for (uint32_t i = 0; i < reply->history_count; i++) {
            if (reply->history[i].round == number) {
                round = &reply->history[i];
            }
        }
        struct buf line;
        buf_init(&line, LINE_MAX);
        if (round) {
            demo->rounds[demo->rounds_closed] = *round;
            (void)demo_round_line(round, demo->plan.rounds, demo->options.clients, &line);
            (void)buf_printf(&line, "\n");
        } else {
            demo->rounds[demo->rounds_closed].round = number;
            (void)buf_printf(&line, "round %2u/%u  closed; its figures are lost\n", number, demo->plan.rounds);
        }
        if (demo->rounds_closed++ == 0) {
            demo->first_round_ms = demo_now_ms() - watch->started_ms;
        }
        demo_watch_say(watch, &line);
        buf_fini(&line);
    }
}

/* "3 of 3 clients: north, south, west; at least 28 of 60 batches are done (29 min 50 s left)" */
static void describe_wait(const struct msg_status_reply *reply, struct buf *line)
{
    char left[HUMAN_MAX];
    uint32_t done = 0, all = 0;
    for (uint32_t i = 0; i < reply->clients_count; i++) {
        done += reply->clients[i].step;
        all += reply->clients[i].steps;
    }
    (void)buf_printf(line, "%s", reply->waits_for);
    if (done > 0 && done < all && strcmp(reply->state, "OPEN") == 0) { /* clients tell it with their heartbeats */
        (void)buf_printf(line, "; at least %u of %u batches are done", done, all);
    }
    if (reply->remaining_ms) {
        (void)buf_printf(line, " (%s left)", human_ms(reply->remaining_ms, left));
    }
}

void demo_watch_waiting(struct demo_watch *watch, const struct msg_status_reply *reply)
{
    if (demo_now_ms() - watch->spoke_ms < QUIET_MS) {
        return;
    }
    struct buf line;
    buf_init(&line, LINE_MAX);
    (void)buf_printf(&line, "waiting     for ");
    if (reply) {
        describe_wait(reply, &line);
    } else {
        (void)buf_printf(&line, "the server: %s", watch->trouble);
    }
    (void)buf_printf(&line, "\n");
    demo_watch_say(watch, &line);
    buf_fini(&line);
}

void demo_watch_ask(struct demo_watch *watch)
{
    struct msg_status_reply reply;
    struct err why;
    int code = query_status(watch->demo->address, NULL, HISTORY_USUAL, QUERY_MS, &reply, &why);
    if (!code && reply.round > watch->demo->rounds_closed + HISTORY_USUAL) {
        status_reply_fini(&reply);
        code = query_status(watch->demo->address, NULL, MSG_HISTORY_MAX, QUERY_MS, &reply, &why);
    }
    if (code) {
        (void)snprintf(watch->trouble, sizeof watch->trouble, "%s", why.text);
        demo_watch_waiting(watch, NULL);
        return;
    }
    watch->trouble[0] = 0;
    if (reply.peak_rss_bytes > watch->demo->peak_rss_bytes) {
        watch->demo->peak_rss_bytes = reply.peak_rss_bytes;
    }
    take_rounds(watch, &reply);
    if (strcmp(reply.state, "STUCK") == 0 && reply.waited_ms >= STUCK_MS) {
        (void)snprintf(watch->stuck, sizeof watch->stuck, "round %u cannot close; it waits for %s", reply.round + 1,
                       reply.waits_for);
    }
    watch->done = watch->demo->rounds_closed == watch->demo->plan.rounds;
    if (!watch->done) {
        demo_watch_waiting(watch, &reply);
    }
    status_reply_fini(&reply);
}
