/* Checked memory: sizes are multiplied with an overflow check, failure is NULL, and every allocation of the product
 * goes through these three, so that a test can make each one fail in turn (mem_fail_after). */
#ifndef STARLING_BASE_MEM_H
#define STARLING_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

/* count * size bytes, zeroed. NULL when out of memory or when the product overflows. A zero size yields a valid
 * pointer. */
void *mem_new(size_t count, size_t size) __attribute__((malloc, alloc_size(1, 2)));
/* Aligned to 64 bytes, zeroed; for tensors. From 8 MiB in huge pages, where there are any. Release with mem_free. */
void *mem_new_aligned(size_t count, size_t size) __attribute__((malloc, alloc_size(1, 2)));
/* Grows `old` to count * size bytes. NULL leaves `old` valid. New bytes are not initialised. */
void *mem_resize(void *old, size_t count, size_t size);
/* A zero-terminated copy of `length` bytes. */
char *mem_text(const char *text, size_t length);
void mem_free(void *memory);

/* Tests only: the n-th allocation from now (1 is the next) and all later ones fail; 0 turns it off. */
void mem_fail_after(uint64_t n);

#endif
