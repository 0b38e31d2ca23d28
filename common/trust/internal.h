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

#endif
