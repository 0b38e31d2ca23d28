/* Receiving a blob: chunks are put at their place, in order; what was received survives a lost connection, and the
 * transfer goes on at `received` when the other side still announces the same hash. Sans-I/O. */
#ifndef STARLING_WIRE_TRANSFER_H
#define STARLING_WIRE_TRANSFER_H

#include "common/wire/msg.h"

struct transfer {
    struct blob blob;
    uint8_t *data; /* blob.bytes, aligned; NULL when idle */
    uint64_t received;
    uint8_t *spare; /* memory of an ended transfer, for the next one */
    uint64_t spare_bytes;
};

/* Starts, or goes on when `blob` has the same kind, round, length and hash as what is already there (then received
 * stays). ERR_NOMEM. The caller has checked blob.bytes against its own limit. */
int transfer_begin(struct transfer *transfer, const struct blob *blob);
/* ERR_PROTOCOL when the chunk is of another blob, out of order or too long. */
int transfer_chunk(struct transfer *transfer, const struct msg *chunk, struct err *err);
/* Whether all bytes are there. */
bool transfer_is_whole(const struct transfer *transfer);
/* Compares the content hash. ERR_DATA. */
int transfer_verify(const struct transfer *transfer, struct err *err);
/* Hands the memory over (mem_free) and becomes idle. */
uint8_t *transfer_take(struct transfer *transfer);
/* Becomes idle, but keeps the memory for a next transfer of as many bytes: that of a large blob costs as much time to
 * get and to give back as the blob to receive. */
void transfer_end(struct transfer *transfer);
/* Becomes idle and holds nothing. */
void transfer_reset(struct transfer *transfer);

#endif
