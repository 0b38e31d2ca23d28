#include "common/base/hash.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

static struct hash128 canonical(XXH128_hash_t hash)
{
    XXH128_canonical_t bytes;
    XXH128_canonicalFromHash(&bytes, hash);
    struct hash128 out;
    memcpy(out.bytes, bytes.digest, sizeof out.bytes);
    return out;
}

struct hash128 hash_of(const void *data, size_t len)
{
    return canonical(XXH3_128bits(data, len));
}

bool hash_equal(const struct hash128 *a, const struct hash128 *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

bool hash_is_zero(const struct hash128 *h)
{
    static const struct hash128 zero;
    return hash_equal(h, &zero);
}

const char *hash_hex(const struct hash128 *h, char out[HASH_HEX])
{
    for (int i = 0; i < 16; i++) {
        (void)snprintf(out + (size_t)i * 2, 3, "%02x", h->bytes[i]);
    }
    return out;
}

struct hash_stream *hash_stream_new(void)
{
    XXH3_state_t *state = XXH3_createState();
    if (state) {
        (void)XXH3_128bits_reset(state);
    }
    return (struct hash_stream *)state;
}

void hash_stream_add(struct hash_stream *stream, const void *data, size_t len)
{
    (void)XXH3_128bits_update((XXH3_state_t *)stream, data, len);
}

struct hash128 hash_stream_end(const struct hash_stream *stream)
{
    return canonical(XXH3_128bits_digest((const XXH3_state_t *)stream));
}

void hash_stream_free(struct hash_stream *stream)
{
    (void)XXH3_freeState((XXH3_state_t *)stream);
}
