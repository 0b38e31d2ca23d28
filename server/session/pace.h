/* How many upload slots may be in use: decided by what more of them have brought.
 *
 * A slot costs memory, and is worth it for as long as the sites' own links, and not the server's, are what is slow: 20
 * sites of 1 MB/s each are ten times as fast side by side as two at a time, while over a link that two of them fill the
 * others had better wait. The server cannot see which it is, so it tries. While members wait in the line all bytes that
 * arrive are counted, window by window. Twice as many slots are tried; if they bring half as much again or more (the
 * half of what they could bring), they stay and twice as many again are tried; if not, the number falls back for
 * PACE_REST windows. A number's first window is not judged, because new uploads have yet to get going, and a window
 * needs PACE_CHUNKS chunks a slot, or six times its length, lest the grain of chunks be taken for a rate.
 *
 * A round begins with what the last one found to be worth it; one that found nothing gives half back, so that what is
 * not needed any more goes, and what is costs a trial now and then. Two are the least, unless fewer are allowed: one
 * contribution comes in while another is checked. Nothing here touches a result: in what order contributions arrive
 * decides nothing. */
#ifndef STARLING_SESSION_PACE_H
#define STARLING_SESSION_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_LEAST  2u
#define PACE_CHUNKS 4u
#define PACE_REST   8u

struct pace {
    uint32_t slots, most;   /* that may be in use now, and ever */
    uint32_t begun, proven; /* with how many the round began; the latest that were worth it in it, 0: none yet */
    uint64_t window_ms;
    uint64_t rate;   /* bytes a second in the latest window that was judged */
    uint32_t before; /* the slots that a trial began with, and what they brought; 0: no trial */
    uint64_t before_rate;
    uint32_t rest; /* windows until the next trial */
    /* Of the window in progress. */
    bool running; /* only while members wait */
    bool settling;
    uint64_t since_ms, due_ms, bytes;
    uint32_t chunks;
};

void pace_init(struct pace *pace, uint32_t most, uint64_t window_ms);
void pace_round(struct pace *pace); /* a round is over */
void pace_chunk(struct pace *pace, uint32_t bytes);
/* After whatever happened; `waiting`: members stand in the line. True when `slots` has changed. */
bool pace_step(struct pace *pace, bool waiting, uint64_t now_ms);
/* When pace_step wants to be called at the latest; UINT64_MAX: never. */
uint64_t pace_next_ms(const struct pace *pace);

#endif
