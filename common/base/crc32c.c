/* CRC-32C: the processor's instruction where there is one, eight bytes a step from a table elsewhere. Both are tested
 * against each other and against the RFC's vector.
 *
 * The instruction takes three cycles, and a new one can begin in each: long input is read as three lanes at a time. The
 * register's state is a linear function of the state before and of the data, so the state after lanes A and B is the
 * state after A, moved on over as many zeros as B has bytes, xor what B makes of an empty register. */
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

#define LANE_BYTES ((size_t)4096)

static uint32_t over_lane[4][256]; /* the state after a lane of zeros, by each byte of the state before */
static pthread_once_t over_lane_once = PTHREAD_ONCE_INIT;

__attribute__((target("sse4.2"))) static void over_lane_fill(void)
{
    for (uint32_t k = 0; k < 4; k++) {
        for (uint32_t bit = 0; bit < 8; bit++) {
            uint64_t state = UINT64_C(1) << (8 * k + bit);
            for (size_t i = 0; i < LANE_BYTES; i += 8) {
                state = _mm_crc32_u64(state, 0);
            }
            for (uint32_t value = 0; value < 1u << bit; value++) { /* those below are there already */
                over_lane[k][value | 1u << bit] = over_lane[k][value] ^ (uint32_t)state;
            }
        }
    }
}

static uint32_t move_over_lane(uint32_t state)
{
    return over_lane[0][state & 0xff] ^ over_lane[1][state >> 8 & 0xff] ^ over_lane[2][state >> 16 & 0xff] ^
           over_lane[3][state >> 24];
}

static uint64_t word_at(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* The state after three lanes. */
__attribute__((target("sse4.2"))) static uint32_t three_lanes(uint32_t state, const uint8_t *p)
{
    uint64_t a = state, b = 0, c = 0;
    for (const uint8_t *end = p + LANE_BYTES; p < end; p += 8) {
        a = _mm_crc32_u64(a, word_at(p));
        b = _mm_crc32_u64(b, word_at(p + LANE_BYTES));
        c = _mm_crc32_u64(c, word_at(p + 2 * LANE_BYTES));
    }
    return move_over_lane(move_over_lane((uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint32_t state = ~crc;
    if (len >= 3 * LANE_BYTES) {
        (void)pthread_once(&over_lane_once, over_lane_fill);
    }
    for (; len >= 3 * LANE_BYTES; len -= 3 * LANE_BYTES, p += 3 * LANE_BYTES) {
        state = three_lanes(state, p);
    }
    for (; len >= 8; len -= 8, p += 8) {
        state = (uint32_t)_mm_crc32_u64(state, word_at(p));
    }
    for (; len > 0; len--, p++) {
        state = _mm_crc32_u8(state, *p);
    }
    return ~state;
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
