/* What is hashed: "starling streams", the secret, the plan's seed (8 bytes, little-endian), the name without a zero. */
#include "client/shell/secret.h"

#include "common/base/byteorder.h"
#include "common/base/name.h"
#include "common/trust/trust.h"

#include <string.h>

#define LABEL       "starling streams"
#define LABEL_BYTES (sizeof LABEL - 1)

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
