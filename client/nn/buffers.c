#include "client/nn/buffers.h"

#include "common/base/mem.h"

int buffers_new(struct buffers *buffers, size_t bytes, int *buffer, struct err *err)
{
    if (buffers->count == buffers->cap) {
        int cap = buffers->cap ? buffers->cap * 2 : 64;
        struct buffer *grown = mem_resize(buffers->all, (size_t)cap, sizeof *grown);
        if (!grown) {
            return err_set(err, ERR_NOMEM, "out of memory");
        }
        buffers->all = grown;
        buffers->cap = cap;
    }
    *buffer = buffers->count++;
    buffers->all[*buffer] = (struct buffer){.bytes = bytes, .users = 1};
    return 0;
}

/* Among the free buffers the smallest that is large enough, else the largest, which grows. */
int buffers_acquire(struct buffers *buffers, size_t bytes, int *buffer, struct err *err)
{
    int best = BUFFER_NONE;
    for (int i = 0; i < buffers->count; i++) {
        const struct buffer *b = &buffers->all[i];
        if (!b->pooled || b->users > 0) {
            continue;
        }
        size_t now = best == BUFFER_NONE ? 0 : buffers->all[best].bytes;
        bool fits = b->bytes >= bytes, best_fits = now >= bytes;
        if (best == BUFFER_NONE || (fits ? !best_fits || b->bytes < now : !best_fits && b->bytes > now)) {
            best = i;
        }
    }
    if (best == BUFFER_NONE) {
        int rc = buffers_new(buffers, bytes, buffer, err);
        if (rc == 0) {
            buffers->all[*buffer].pooled = true;
        }
        return rc;
    }
    buffers->all[best].users = 1;
    if (buffers->all[best].bytes < bytes) {
        buffers->all[best].bytes = bytes;
    }
    *buffer = best;
    return 0;
}

void buffers_share(struct buffers *buffers, int buffer)
{
    buffers->all[buffer].users++;
}

void buffers_release(struct buffers *buffers, int buffer)
{
    buffers->all[buffer].users--;
}

uint64_t buffers_bytes(const struct buffers *buffers)
{
    uint64_t sum = 0;
    for (int i = 0; i < buffers->count; i++) {
        sum += buffers->all[i].bytes;
    }
    return sum;
}

int buffers_allocate(struct buffers *buffers, struct err *err)
{
    for (int i = 0; i < buffers->count; i++) {
        if (!(buffers->all[i].data = mem_new_aligned(buffers->all[i].bytes, 1))) {
            return err_set(err, ERR_NOMEM, "out of memory (%zu bytes for the network)", buffers->all[i].bytes);
        }
    }
    return 0;
}

void *buffers_data(const struct buffers *buffers, int buffer)
{
    return buffer == BUFFER_NONE ? NULL : buffers->all[buffer].data;
}

void buffers_fini(struct buffers *buffers)
{
    for (int i = 0; i < buffers->count; i++) {
        mem_free(buffers->all[i].data);
    }
    mem_free(buffers->all);
    *buffers = (struct buffers){0};
}
