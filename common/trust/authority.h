/* The certificate authority: a folder on the server's machine, used by the server and by `starling ca` at the same
 * time. Whoever can read it can be anybody in the federation.
 *
 * Times are unix seconds and come from the caller. What changes the folder is done under its lock, and is on the disk
 * when the function returns 0. Failures of the disk are ERR_IO, ERR_FULL, ERR_READONLY; a file that is missing, damaged
 * or readable by others is ERR_DATA, ERR_NOTFOUND or ERR_CONFIG, and the sentence says how to mend it. */
#ifndef STARLING_TRUST_AUTHORITY_H
#define STARLING_TRUST_AUTHORITY_H

#include "common/base/buf.h"
#include "common/trust/token.h"
#include "common/trust/trust.h"

#include <stddef.h>

struct authority;

/* A new authority in a folder that is made, or empty. ERR_CANTCREATE when there is one, or something else in it. */
int authority_init(const char *dir, const char *address, int64_t now, struct err *err);
int authority_open(const char *dir, struct authority **out, struct err *err);
void authority_close(struct authority *authority); /* NULL is allowed */
const char *authority_address(const struct authority *authority);
/* The authority's own certificate. */
const uint8_t *authority_ca_der(const struct authority *authority, size_t *len);

/* A fresh key and a certificate for it, in memory and never on disk. TRUST_SERVER: for the host of the address and for
 * localhost; the other roles: for who has the folder at hand and tries the server out. */
int authority_credential(struct authority *authority, const char *name, uint32_t role, uint64_t valid_s, int64_t now,
                         struct credential **out, struct err *err);

/* A token of the next generation. Only the SHA-256 of its secret stays here. */
int authority_token(struct authority *authority, const char *name, uint32_t role, uint64_t valid_s, int64_t now,
                    char out[TOKEN_TEXT_MAX], struct err *err);
/* Spends the secret: for good, once, whoever else tries. ERR_ACCESS: unknown, spent or withdrawn (these cannot be told
 * apart), or expired. out->not_before and not_after are 0. The secret is spent before its certificate is made: a server
 * that dies between the two leaves a site that needs a new token, never a token that is good twice. */
int authority_redeem(struct authority *authority, const uint8_t secret[32], int64_t now, struct trust_subject *out,
                     struct err *err);
/* A certificate (DER, appended) for subject's name, role and generation and the key of the request (PKCS #10, DER),
 * which must be P-256 and have signed the request; nothing else is taken from the request. ERR_DATA: a bad request;
 * ERR_ACCESS: the subject is revoked. */
int authority_sign(struct authority *authority, const struct trust_subject *subject, const uint8_t *csr, size_t csr_len,
                   uint64_t valid_s, int64_t now, struct buf *certificate, struct err *err);

/* Certificates of the name that exist are void from now on, and so are its tokens; a new token makes it welcome. */
int authority_revoke(struct authority *authority, const char *name, struct err *err);
/* Reads the revocations from the disk; on failure the old ones stay. */
int authority_reload(struct authority *authority, struct err *err);
/* By the revocations as last read (open, reload, revoke). */
bool authority_is_revoked(const struct authority *authority, const struct trust_subject *subject);

/* What there is, sorted by name: unspent tokens (not those that expired before `now`), and revocations. */
struct authority_entry {
    char name[NAME_MAX_BYTES];
    uint32_t role;       /* 0 for a revocation */
    uint64_t generation; /* the token's; or the last one that is revoked */
    int64_t expires;     /* 0 for a revocation */
};
int authority_tokens(struct authority *authority, int64_t now, struct authority_entry **out, size_t *count,
                     struct err *err); /* mem_free */
int authority_revoked(struct authority *authority, struct authority_entry **out, size_t *count,
                      struct err *err); /* mem_free */
/* Who was ever given a token, and the generation of the latest. Negative: nobody knows. ERR_NOTFOUND:
 * the folder is older, or there were too many. */
int authority_names(struct authority *authority, struct authority_entry **out, size_t *count,
                    struct err *err); /* mem_free */

#endif
