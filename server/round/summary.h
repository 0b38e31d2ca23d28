/* What is remembered of a closed round: for the history, status and metrics. */
#ifndef STARLING_ROUND_SUMMARY_H
#define STARLING_ROUND_SUMMARY_H

#include "common/base/watch.h"

#include <stdint.h>

struct round_summary {
    uint32_t round;
    uint32_t accepted, declined;
    int64_t closed_unix_ms;                                  /* wall clock, given by the shell */
    double seconds;                                          /* from opening to durable */
    uint64_t images;                                         /* sum of weights */
    double loss, loss_contrast, loss_matching, remote_share; /* means over contributions, weighted by images */
    uint64_t bytes_up, bytes_down;                           /* chunk payload of this round */
    /* Weighted means as well, over the contributions that say them: of the model with which the round began, and of the
     * encoders that clients trained. */
    struct watch aggregate, own;
    bool has_knn;
    double knn_top1; /* of the round's model, as an observer found it, maybe much later */
    bool unrecorded; /* the coordinator's: it is not in the history file yet */
};

#endif
