/* CRC-32C: the processor's instruction where there is one, eight bytes a step from a table elsewhere. Both are tested
 * against each other and against the RFC's vector.
 *
 * The instruction takes three cycles and one can begin in each, so long data is three strands that are summed at the
 * same time. The register is linear in what it has seen: that of two strands one after the other is that of the first,
 * moved over as many zero bytes as the second is long, plus that of the second begun at zero. */
#include "common/base/byteorder.h"
#include "common/base/hash.h"

#include <pthread.h>
#include <string.h>

static uint32_t table[8][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_fill(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
        }
        table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (int k = 1; k < 8; k++) {
            table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 0xff];
        }
    }
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t len);
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t len)
{
    (void)pthread_once(&table_once, table_fill);
    const uint8_t *p = data;
    crc = ~crc;
    for (; len >= 8; len -= 8, p += 8) {
        uint32_t low = crc ^ load_u32(p);
        crc = table[7][low & 0xff] ^ table[6][low >> 8 & 0xff] ^ table[5][low >> 16 & 0xff] ^ table[4][low >> 24] ^
              table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
    }
    for (; len > 0; len--, p++) {
        crc = crc >> 8 ^ table[0][(crc ^ *p) & 0xff];
    }
    return ~crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>

#define STRAND_BYTES 4096

static uint32_t moved[4][256]; /* a register's bytes, STRAND_BYTES zeros later */
static pthread_once_t moved_once = PTHREAD_ONCE_INIT;

static void moved_fill(void)
{
    static const uint8_t zeros[STRAND_BYTES];
    for (uint32_t bit = 0; bit < 32; bit++) {
        uint32_t *bytes = moved[bit / 8], step = 1u << bit % 8;
        bytes[step] = ~crc32c_portable(~(UINT32_C(1) << bit), zeros, sizeof zeros);
        for (uint32_t lower = 1; lower < step; lower++) {
            bytes[step + lower] = bytes[step] ^ bytes[lower];
        }
    }
}

static uint64_t move_on(uint64_t state)
{
    return moved[0][state & 0xff] ^ moved[1][state >> 8 & 0xff] ^ moved[2][state >> 16 & 0xff] ^
           moved[3][state >> 24 & 0xff];
}

static uint64_t word_at(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

__attribute__((target("sse4.2"))) static uint64_t three_strands(uint64_t first, const uint8_t *p)
{
    uint64_t second = 0, third = 0;
    for (const uint8_t *end = p + STRAND_BYTES; p < end; p += 8) {
        first = _mm_crc32_u64(first, word_at(p));
        second = _mm_crc32_u64(second, word_at(p + STRAND_BYTES));
        third = _mm_crc32_u64(third, word_at(p + (size_t)2 * STRAND_BYTES));
    }
    return move_on(move_on(first) ^ second) ^ third;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t state = ~crc;
    if (len >= (size_t)3 * STRAND_BYTES) {
        (void)pthread_once(&moved_once, moved_fill);
    }
    for (; len >= (size_t)3 * STRAND_BYTES; len -= (size_t)3 * STRAND_BYTES, p += (size_t)3 * STRAND_BYTES) {
        state = three_strands(state, p);
    }
    for (; len >= 8; len -= 8, p += 8) {
        state = _mm_crc32_u64(state, word_at(p));
    }
    uint32_t tail = (uint32_t)state;
    for (; len > 0; len--, p++) {
        tail = _mm_crc32_u8(tail, *p);
    }
    return ~tail;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
    return __builtin_cpu_supports("sse4.2") ? crc32c_sse42(crc, data, len) : crc32c_portable(crc, data, len);
}
#else
uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
    return crc32c_portable(crc, data, len);
}
#endif
