#include "common/base/bytes.h"

#include "common/base/mem.h"

#include <string.h>

struct bytes *bytes_new(size_t len)
{
    struct bytes *bytes = mem_new(1, sizeof *bytes);
    if (!bytes) {
        return NULL;
    }
    bytes->data = mem_new_aligned(len, 1);
    if (!bytes->data) {
        mem_free(bytes);
        return NULL;
    }
    bytes->references = 1;
    bytes->len = len;
    return bytes;
}

struct bytes *bytes_copy(const void *data, size_t len)
{
    struct bytes *bytes = bytes_new(len);
    if (bytes && len > 0) {
        memcpy(bytes->data, data, len);
    }
    return bytes;
}

struct bytes *bytes_ref(struct bytes *bytes)
{
    bytes->references++;
    return bytes;
}

void bytes_unref(struct bytes *bytes)
{
    if (bytes && --bytes->references == 0) {
        mem_free(bytes->data);
        mem_free(bytes);
    }
}
