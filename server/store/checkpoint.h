/* The bytes of a checkpoint file. For the files of this room alone; the byte table stands in checkpoint.c. */
#ifndef STARLING_STORE_CHECKPOINT_H
#define STARLING_STORE_CHECKPOINT_H

#include "server/store/store.h"

/* What a checkpoint says about the model file beside it. */
struct checkpoint_model {
    struct hash128 layout; /* fingerprint */
    struct hash128 hash;   /* XXH3-128 of the floats */
};

/* `head` receives everything before the bank, whose bytes follow it in the file, and those of the optimiser's state
 * them; `tail` is the hash at the end. Bank and state, which may be large, are not copied. ERR_NOMEM, ERR_LIMIT. */
int checkpoint_encode(const struct checkpoint *checkpoint, const struct checkpoint_model *model, struct buf *head,
                      struct hash128 *tail);
/* Everything but params, which stays NULL. ERR_DATA and the check that failed; ERR_NOMEM. */
int checkpoint_decode(const uint8_t *data, size_t len, struct checkpoint *out, struct checkpoint_model *model,
                      struct err *err);

#endif
