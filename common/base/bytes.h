/* Immutable, reference-counted bytes: what is encoded once and written to many peers. One thread (the loop) owns all
 * references, so the count is a plain integer. */
#ifndef STARLING_BASE_BYTES_H
#define STARLING_BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>

struct bytes {
    size_t references;
    size_t len;
    uint8_t *data; /* owned, 64-byte aligned */
};

/* len zeroed bytes with one reference; the caller fills them before sharing. NULL when out of memory. */
struct bytes *bytes_new(size_t len);
struct bytes *bytes_copy(const void *data, size_t len);
struct bytes *bytes_ref(struct bytes *bytes);
void bytes_unref(struct bytes *bytes); /* NULL is allowed */

#endif
