#include "common/base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

static _Atomic uint64_t fail_countdown; /* 0: off; 1: this and every later allocation fails */

static int should_fail(void)
{
    uint64_t left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    if (left == 0) {
        return 0;
    }
    if (left > 1) {
        atomic_store_explicit(&fail_countdown, left - 1, memory_order_relaxed);
        return 0;
    }
    return 1;
}

void mem_fail_after(uint64_t n)
{
    atomic_store(&fail_countdown, n);
}

static int product(size_t count, size_t size, size_t *bytes)
{
    return __builtin_mul_overflow(count, size, bytes) || *bytes > PTRDIFF_MAX / 2;
}

void *mem_new(size_t count, size_t size)
{
    size_t bytes;
    if (product(count, size, &bytes) || should_fail()) {
        return NULL;
    }
    return calloc(1, bytes ? bytes : 1);
}

/* Whole cache lines, so that vector code may end in the middle of one. */
static void *room(size_t count, size_t size, size_t *bytes)
{
    if (product(count, size, bytes) || should_fail()) {
        return NULL;
    }
    size_t alignment = *bytes >= 2 * HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : 64;
    void *memory;
    *bytes = *bytes ? (*bytes + 63) / 64 * 64 : 64;
    if (posix_memalign(&memory, alignment, *bytes) != 0) {
        return NULL;
    }
    if (alignment == HUGE_PAGE_BYTES) { /* A model's small pages take longer to get than the model to copy. */
        (void)madvise(memory, *bytes, MADV_HUGEPAGE);
    }
    return memory;
}

void *mem_room(size_t count, size_t size)
{
    size_t bytes;
    return room(count, size, &bytes);
}

void *mem_new_aligned(size_t count, size_t size)
{
    size_t bytes;
    void *memory = room(count, size, &bytes);
    if (memory) {
        memset(memory, 0, bytes);
    }
    return memory;
}

void *mem_resize(void *old, size_t count, size_t size)
{
    size_t bytes;
    if (product(count, size, &bytes) || should_fail()) {
        return NULL;
    }
    return realloc(old, bytes ? bytes : 1);
}

char *mem_text(const char *text, size_t length)
{
    char *copy = mem_new(length + 1, 1);
    if (copy) {
        memcpy(copy, text, length);
    }
    return copy;
}

void mem_free(void *memory)
{
    free(memory);
}
