/* Receiving a blob: chunks are put at their place, in order; what was received survives a lost connection, and the
 * transfer goes on at `received` when the other side still announces the same hash. Sans-I/O. */
#ifndef STARLING_WIRE_TRANSFER_H
#define STARLING_WIRE_TRANSFER_H

#include "common/wire/msg.h"

/* How often whoever receives a blob whose hash is wrong asks for it again from its first byte. */
#define TRANSFER_AGAIN_MOST 3u

struct transfer {
    struct blob blob;
    uint8_t *data; /* blob.bytes, aligned; NULL when idle */
    uint64_t received;
    uint8_t *spare; /* idle: memory of spare_bytes that the last blob left; else NULL */
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
/* Becomes idle, and keeps the memory for a next blob of the same length: to get a model's memory anew takes longer than
 * to receive it from a fast network. */
void transfer_end(struct transfer *transfer);
/* Becomes idle without memory. */
void transfer_reset(struct transfer *transfer);

#endif
