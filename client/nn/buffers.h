/* The memory of a net. While it is planned, buffers are only numbers that remember how large they must become, and one
 * whose users have all gone may be taken again; buffers_allocate then makes them all at once, and from there on nothing
 * is allocated. */
#ifndef STARLING_NN_BUFFERS_H
#define STARLING_NN_BUFFERS_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUFFER_NONE (-1)

struct buffers {
    struct buffer {
        size_t bytes;
        int users; /* 0: it may be taken again */
        bool pooled;
        size_t offset;
    } * all;
    int count, cap;
    uint8_t *arena; /* all of them, one behind the other */
    bool borrowed;
};

/* A buffer of its own. */
int buffers_new(struct buffers *buffers, size_t bytes, int *buffer, struct err *err);
/* A buffer out of the pool, with one user; buffers_share adds one, buffers_release takes one away. Valid in the order
 * in which the net will run. */
int buffers_acquire(struct buffers *buffers, size_t bytes, int *buffer, struct err *err);
void buffers_share(struct buffers *buffers, int buffer);
void buffers_release(struct buffers *buffers, int buffer);
uint64_t buffers_bytes(const struct buffers *buffers);
/* lender: NULL, or buffers that are not in use at the same time, whose memory is taken where it is large enough. */
int buffers_allocate(struct buffers *buffers, const struct buffers *lender, struct err *err);
/* NULL for BUFFER_NONE. */
void *buffers_data(const struct buffers *buffers, int buffer);
void buffers_fini(struct buffers *buffers);

#endif
