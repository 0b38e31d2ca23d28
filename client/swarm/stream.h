/* What the clients of a swarm contribute: one update and its negative, and one batch of features, in the bytes that
 * travel, shared by all.
 *
 * Each number of the update is k * 2^-20 with a whole k from -127 to 127, a function of its place alone: k is 127 or
 * -127 in the first place of each trained tensor and everywhere in the statistics of batch normalisation, so that f32,
 * f16 and int8 all hold it exactly (int8's scales come out as 2^-20). Client i sends the update, or for every third
 * client its negative, and says that it has 1 to 7 images. So the images-weighted mean of any of them is
 * (plus - minus) / (plus + minus) times the update, where plus and minus are the images of those who sent it with
 * either sign; and a contribution that is lost, or counted twice, moves it. */
#ifndef STARLING_SWARM_STREAM_H
#define STARLING_SWARM_STREAM_H

#include "common/base/bytes.h"
#include "common/config/plan.h"
#include "common/wire/msg.h"

struct stream {
    const struct layout *layout;
    int8_t *numbers;         /* [total], k */
    struct bytes *update[2]; /* as the plan's wire.update has it; [1] is the negative */
    struct bytes *features;  /* as wire.features has it; NULL: none */
    struct blob update_blob[2], features_blob;
};

/* rows: features of each client, at most fusion.upload; 0: none. Keeps the layout by reference. ERR_USAGE, ERR_NOMEM,
 * ERR_FAILED; after a failure there is nothing to free. */
int stream_init(struct stream *stream, const struct plan *plan, const struct layout *layout, uint32_t rows,
                struct err *err);
void stream_fini(struct stream *stream);

int stream_sign(uint32_t client);        /* 0, or 1 for the negative */
uint32_t stream_images(uint32_t client); /* its weight, at least 1 */

#endif
