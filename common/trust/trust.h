/* Who somebody is, and with what he proves it.
 *
 * A federation has one certificate authority, a folder on the server's machine (authority.h). A site gets a token
 * (token.h), one line of text that is good once; with it the site's client checks that it talks to the right server and
 * gets a certificate for a key that never leaves the site (identity.h). From then on the certificate says who it is.
 *
 * OpenSSL is seen in this room alone. */
#ifndef STARLING_TRUST_TRUST_H
#define STARLING_TRUST_TRUST_H

#include "common/base/err.h"
#include "common/base/name.h"
#include "common/base/role.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Roles as certificates and tokens have them. */
#define TRUST_TRAINER  ((uint32_t)ROLE_TRAINER)
#define TRUST_OBSERVER ((uint32_t)ROLE_OBSERVER)
#define TRUST_OPERATOR ((uint32_t)ROLE_OPERATOR)
#define TRUST_SERVER   ((uint32_t)ROLE_SERVER)

#define TRUST_ADDRESS_MAX 300  /* "host:port" and the zero */
#define TRUST_DER_MAX     4096 /* a certificate or a request for one: ours have fewer than 700 bytes */

#define TRUST_CLOCKS_DIFFER_S 300 /* a certificate holds from so long before it is made */

/* What a certificate says. It holds from not_before to not_after, unix seconds. The generation is the number of the
 * token that it goes back to; whoever is revoked is revoked up to a generation, so that no clock decides. */
struct trust_subject {
    char name[NAME_MAX_BYTES];
    uint32_t role;
    uint64_t generation;
    int64_t not_before, not_after;
};

/* A private key, its certificate and the authority's. */
struct credential;
void credential_free(struct credential *credential); /* NULL is allowed */
const struct trust_subject *credential_subject(const struct credential *credential);
/* SHA-256 of its authority's public key. */
int credential_pin(const struct credential *credential, uint8_t pin[32], struct err *err);
/* ERR_ACCESS unless it is of the authority with this pin, and for this name and role. */
int credential_check(const struct credential *credential, const uint8_t pin[32], const char *name, uint32_t role,
                     struct err *err);

/* ERR_CONFIG: somebody but its owner may do something with the file or folder, or it is something else. ERR_NOTFOUND,
 * ERR_IO. */
int trust_private(const char *path, bool folder, struct err *err);
/* SHA-256. ERR_FAILED. */
#define TRUST_DIGEST 32
int trust_digest(const void *data, size_t len, uint8_t out[TRUST_DIGEST], struct err *err);

#endif
