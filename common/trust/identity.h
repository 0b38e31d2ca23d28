/* A site's identity: one file, identity.pem, mode 0600, in a folder of the client's. It holds the private key, which
 * was made here and never leaves, the certificate, the authority's certificate and the server's address. */
#ifndef STARLING_TRUST_IDENTITY_H
#define STARLING_TRUST_IDENTITY_H

#include "common/trust/trust.h"

#include <stddef.h>

/* A fresh key (P-256), and the request for its certificate (PKCS #10, DER; the subject is empty). */
struct request;
int request_new(struct request **out, struct err *err);
void request_free(struct request *request); /* NULL is allowed */
const uint8_t *request_csr(const struct request *request, size_t *len);

/* The credential for the request's key of what the server sent (DER). ERR_DATA when the certificate is not for that key
 * or not signed by `ca`. */
int request_credential(const struct request *request, const uint8_t *certificate, size_t certificate_len,
                       const uint8_t *ca, size_t ca_len, struct credential **out, struct err *err);

/* Writes the file, atomically and durably; the old one stays whole when that fails. */
int identity_save(const char *dir, const struct credential *credential, const char *address, struct err *err);
/* ERR_NOTFOUND: there is none; ERR_CONFIG: others can read it; ERR_DATA: damaged. Expiry is the caller's to judge. */
int identity_load(const char *dir, struct credential **out, char address[TRUST_ADDRESS_MAX], struct err *err);
bool identity_exists(const char *dir);

#endif
