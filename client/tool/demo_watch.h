/* Watching the demo's server through its status: each closed round is one line, and whoever watches is told at least
 * every ten seconds what is being waited for. */
#ifndef STARLING_TOOL_DEMO_WATCH_H
#define STARLING_TOOL_DEMO_WATCH_H

#include "client/tool/demo.h"

struct demo_watch {
    struct demo *demo;
    uint64_t started_ms, spoke_ms;
    bool done;         /* the last round is closed */
    char trouble[512]; /* why the last question had no answer; empty: it had one */
    char stuck[512];   /* what the open round lacks and nobody here can bring; empty: it can close */
};

void demo_watch_init(struct demo_watch *watch, struct demo *demo);
/* News to stdout. */
void demo_watch_say(struct demo_watch *watch, const struct buf *line);
/* One question; new rounds go to demo->rounds and stdout. No answer is no error: the server may be starting again. */
void demo_watch_ask(struct demo_watch *watch);
/* Says what is waited for when nothing else was said for ten seconds. reply NULL: the server gave no answer. */
void demo_watch_waiting(struct demo_watch *watch, const struct msg_status_reply *reply);

#endif
