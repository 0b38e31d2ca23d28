/* What is hashed: "starling streams", the secret, the plan's seed (8 bytes, little-endian), the name without a zero. */
#include "client/shell/secret.h"

#include "common/base/byteorder.h"
#include "common/base/name.h"
#include "common/trust/trust.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define LABEL       "starling streams"
#define LABEL_BYTES (sizeof LABEL - 1)

int secret_draw(void *ctx, void *out, size_t bytes)
{
    uint8_t *at = out;
    (void)ctx;
    while (bytes > 0) {
        ssize_t got = getrandom(at, bytes, 0);
        if (got < 0 && errno != EINTR) {
            return ERR_FAILED;
        }
        at += got > 0 ? got : 0;
        bytes -= got > 0 ? (size_t)got : 0;
    }
    return 0;
}

int secret_seed(const uint8_t secret[SECRET_BYTES], uint64_t plan_seed, const char *name, uint64_t *out,
                struct err *err)
{
    uint8_t text[LABEL_BYTES + SECRET_BYTES + 8 + NAME_MAX_BYTES], digest[TRUST_DIGEST];
    size_t len = strnlen(name, NAME_MAX_BYTES);
    memcpy(text, LABEL, LABEL_BYTES);
    memcpy(text + LABEL_BYTES, secret, SECRET_BYTES);
    store_u64(text + LABEL_BYTES + SECRET_BYTES, plan_seed);
    memcpy(text + LABEL_BYTES + SECRET_BYTES + 8, name, len);
    int rc = trust_digest(text, LABEL_BYTES + SECRET_BYTES + 8 + len, digest, err);
    *out = rc ? 0 : load_u64(digest);
    return rc;
}
