/* Inside common/trust alone, and the only file that includes OpenSSL's headers: one of their types has the name of an
 * error of ours. */
#ifndef STARLING_TRUST_INTERNAL_H
#define STARLING_TRUST_INTERNAL_H

#include "common/trust/trust.h"

#define ERR_STATE openssl_err_state
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#undef ERR_STATE
#include <stddef.h>

struct credential {
    EVP_PKEY *key;
    X509 *certificate, *ca;
    struct trust_subject subject;
};

/* "what: OpenSSL's reason"; empties the queue of errors and returns `code`. */
int trust_fail(struct err *err, int code, const char *what);
/* What a certificate of ours says: exactly one name and one role, a generation, dates. The signature is not looked at.
 * ERR_DATA. */
int subject_of(const X509 *certificate, struct trust_subject *out, struct err *err);

/* The host of "host:port" or "[ipv6]:port"; an address that others can call: no port 0, no 0.0.0.0, and nothing in the
 * host that means something to a shell, a page or OpenSSL's notation. ERR_USAGE. */
#define TRUST_HOST_MAX 256
int trust_host(const char *address, char host[TRUST_HOST_MAX], struct err *err);

/* Keys are P-256, and their public half is written in one way only. */
int key_new(EVP_PKEY **out, struct err *err);
/* SHA-256 of the SubjectPublicKeyInfo. ERR_DATA. */
int certificate_pin(const X509 *certificate, uint8_t pin[32], struct err *err);

/* An authority's own certificate. */
int certificate_root(EVP_PKEY *key, int64_t now, X509 **out, struct err *err);
/* A certificate for the subject and key, signed by the authority; `host` is a server's, else NULL. */
int certificate_new(EVP_PKEY *ca_key, X509 *ca, const struct trust_subject *subject, const char *host, EVP_PKEY *key,
                    X509 **out, struct err *err);
/* All of der[0, len) is one certificate. ERR_DATA. */
int certificate_read(const uint8_t *der, size_t len, X509 **out, struct err *err);
/* It is an authority's, signed by itself. ERR_DATA. */
int certificate_check_root(X509 *ca, struct err *err);
/* It is signed by `ca`, itself good, and for this key. ERR_DATA. */
int certificate_check(X509 *certificate, X509 *ca, EVP_PKEY *key, struct err *err);

/* A request (PKCS #10, DER) for the key, and the key of a request, which has signed it. ERR_DATA. */
int csr_new(EVP_PKEY *key, uint8_t **der, size_t *len, struct err *err); /* OPENSSL_free */
int csr_key(const uint8_t *der, size_t len, EVP_PKEY **out, struct err *err);

/* PEM blocks in this order, those that are not NULL; memory that is wiped when it is freed. */
BIO *pem_write(EVP_PKEY *key, X509 *first, X509 *second);
/* text[0, len) is exactly what pem_write makes of what is asked for. ERR_DATA. */
int pem_read(const uint8_t *text, size_t len, EVP_PKEY **key, X509 **first, X509 **second, struct err *err);

#endif
