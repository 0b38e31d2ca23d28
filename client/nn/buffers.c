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

#define LINE 64u

static size_t rounded(size_t bytes)
{
    return (bytes + LINE - 1) / LINE * LINE;
}

uint64_t buffers_bytes(const struct buffers *buffers)
{
    uint64_t sum = 0;
    for (int i = 0; i < buffers->count; i++) {
        sum += rounded(buffers->all[i].bytes);
    }
    return sum;
}

int buffers_allocate(struct buffers *buffers, const struct buffers *lender, struct err *err)
{
    uint64_t all = buffers_bytes(buffers);
    size_t offset = 0;
    for (int i = 0; i < buffers->count; i++) {
        buffers->all[i].offset = offset;
        offset += rounded(buffers->all[i].bytes);
    }
    if (lender && buffers_bytes(lender) >= all) {
        buffers->arena = lender->arena;
        buffers->borrowed = true;
        return 0;
    }
    buffers->arena = mem_new_aligned(all, 1);
    return buffers->arena
               ? 0
               : err_set(err, ERR_NOMEM, "out of memory (%llu bytes for the network)", (unsigned long long)all);
}

void *buffers_data(const struct buffers *buffers, int buffer)
{
    return buffer == BUFFER_NONE ? NULL : buffers->arena + buffers->all[buffer].offset;
}

void buffers_fini(struct buffers *buffers)
{
    if (!buffers->borrowed) {
        mem_free(buffers->arena);
    }
    mem_free(buffers->all);
    *buffers = (struct buffers){0};
}
