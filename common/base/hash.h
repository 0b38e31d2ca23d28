/* Content hashes: XXH3-128 (libxxhash), in its canonical big-endian byte order. They find damage and tell versions
 * apart; they are no defence against a forger, which is TLS's work. */
#ifndef STARLING_BASE_HASH_H
#define STARLING_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash128 {
    uint8_t bytes[16];
};
#define HASH_HEX 33 /* 32 digits and the zero */

struct hash128 hash_of(const void *data, size_t len);
bool hash_equal(const struct hash128 *a, const struct hash128 *b);
bool hash_is_zero(const struct hash128 *h);
const char *hash_hex(const struct hash128 *h, char out[HASH_HEX]);

/* Streaming. hash_stream_new may return NULL (memory). */
struct hash_stream;
struct hash_stream *hash_stream_new(void);
void hash_stream_add(struct hash_stream *stream, const void *data, size_t len);
struct hash128 hash_stream_end(const struct hash_stream *stream);
void hash_stream_free(struct hash_stream *stream);

/* CRC-32C (Castagnoli, as in RFC 3720 B.4: "123456789" -> 0xe3069283). Start with 0 and feed parts in order. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
