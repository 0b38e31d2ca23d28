/* What is remembered of a closed round: for the history, status and metrics. */
#ifndef STARLING_ROUND_SUMMARY_H
#define STARLING_ROUND_SUMMARY_H

#include <stdint.h>

struct round_summary {
    uint32_t round;
    uint32_t accepted, declined;
    int64_t closed_unix_ms;                                  /* wall clock, given by the shell */
    double seconds;                                          /* from opening to durable */
    uint64_t images;                                         /* sum of weights */
    double loss, loss_contrast, loss_matching, remote_share; /* means over contributions, weighted by images */
    uint64_t bytes_up, bytes_down;                           /* chunk payload of this round */
};

#endif
