/* Keys, certificates and requests for them: what is made, and what is taken from others.
 *
 *     authority   "Starling CA 1a2b3c4d" (of its key's SHA-256), CA:TRUE, pathlen 0, keyCertSign, 20 years
 *     others      CN name, OU role, CA:FALSE, digitalSignature, clientAuth (a server: serverAuth and its hosts)
 *
 * Keys are P-256, signatures ECDSA with SHA-256. DER from outside counts only as a whole and without a byte more. */
#include "common/trust/internal.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

#define ROOT_YEARS 20
#define YEAR_S     INT64_C(31557600)
#define TIME_END   INT64_C(253402300800) /* the year 10000, which certificates cannot say */

/* A P-256 key as SubjectPublicKeyInfo, curve by name and point uncompressed: these bytes, then x and y. Other ways to
 * write one down (explicit parameters, compressed) are refused, and so is every other kind of key. */
static const uint8_t p256_head[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                                    0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04};
#define P256_BYTES (sizeof p256_head + 64)

int key_new(EVP_PKEY **out, struct err *err)
{
    *out = EVP_EC_gen("P-256");
    return *out ? 0 : trust_fail(err, ERR_FAILED, "a new key");
}

/* The key's bytes as above. */
static bool p256_bytes(const X509_PUBKEY *key, uint8_t out[P256_BYTES])
{
    uint8_t *bytes = NULL;
    int len = key ? i2d_X509_PUBKEY(key, &bytes) : -1;
    bool ok = len == (int)P256_BYTES && memcmp(bytes, p256_head, sizeof p256_head) == 0;
    if (ok) {
        memcpy(out, bytes, P256_BYTES);
    }
    OPENSSL_free(bytes);
    return ok;
}

int certificate_pin(const X509 *certificate, uint8_t pin[32], struct err *err)
{
    uint8_t bytes[P256_BYTES];
    if (!p256_bytes(X509_get_X509_PUBKEY(certificate), bytes)) {
        return trust_fail(err, ERR_DATA, "certificate: its key is not of the kind P-256");
    }
    return EVP_Digest(bytes, sizeof bytes, pin, NULL, EVP_sha256(), NULL)
               ? 0
               : trust_fail(err, ERR_FAILED, "certificate: digest");
}

static bool add_extension(X509 *certificate, X509 *ca, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, ca, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = extension && X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
    return ok;
}

/* 160 bits, positive: the generation, then 96 random bits. */
static bool set_serial(X509 *certificate, uint64_t generation)
{
    uint8_t bytes[20];
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(generation >> (56 - 8 * i));
    }
    BIGNUM *number = RAND_bytes(bytes + 8, 12) == 1 ? BN_bin2bn(bytes, sizeof bytes, NULL) : NULL;
    bool ok = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
    BN_free(number);
    return ok;
}

static bool set_name(X509_NAME *name, const char *field, const char *text)
{
    return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, (const unsigned char *)text, -1, -1, 0) == 1;
}

static bool set_dates(X509 *certificate, int64_t begin, int64_t end)
{
    return begin >= 0 && begin < end && end < TIME_END &&
           ASN1_TIME_set(X509_getm_notBefore(certificate), (time_t)begin) &&
           ASN1_TIME_set(X509_getm_notAfter(certificate), (time_t)end);
}

int certificate_root(EVP_PKEY *key, int64_t now, X509 **out, struct err *err)
{
    X509 *ca = X509_new();
    uint8_t pin[32];
    char name[32] = "";
    bool ok =
        ca && X509_set_version(ca, X509_VERSION_3) && X509_set_pubkey(ca, key) && certificate_pin(ca, pin, err) == 0;
    if (ok) {
        (void)snprintf(name, sizeof name, "Starling CA %02x%02x%02x%02x", pin[0], pin[1], pin[2], pin[3]);
    }
    ok = ok && set_serial(ca, 0) && set_dates(ca, now - TRUST_CLOCKS_DIFFER_S, now + ROOT_YEARS * YEAR_S) &&
         set_name(X509_get_subject_name(ca), "CN", name) && X509_set_issuer_name(ca, X509_get_subject_name(ca)) &&
         add_extension(ca, ca, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
         add_extension(ca, ca, NID_key_usage, "critical,keyCertSign") &&
         add_extension(ca, ca, NID_subject_key_identifier, "hash") && X509_sign(ca, key, EVP_sha256());
    if (!ok) {
        X509_free(ca);
        *out = NULL;
        return trust_fail(err, ERR_FAILED, "the authority's certificate");
    }
    *out = ca;
    return 0;
}

/* The host, and this machine, each once. trust_host has seen to it that a host has no comma. */
static bool add_hosts(X509 *certificate, X509 *ca, const char *host)
{
    char names[TRUST_HOST_MAX + 64] = "DNS:localhost,IP:127.0.0.1,IP:::1";
    ASN1_OCTET_STRING *number = a2i_IPADDRESS(host);
    if (strcmp(host, "localhost") != 0 && strcmp(host, "127.0.0.1") != 0 && strcmp(host, "::1") != 0) {
        (void)snprintf(names, sizeof names, "%s:%s,DNS:localhost,IP:127.0.0.1,IP:::1", number ? "IP" : "DNS", host);
    }
    ASN1_OCTET_STRING_free(number);
    ERR_clear_error();
    return add_extension(certificate, ca, NID_subject_alt_name, names);
}

int certificate_new(EVP_PKEY *ca_key, X509 *ca, const struct trust_subject *subject, const char *host, EVP_PKEY *key,
                    X509 **out, struct err *err)
{
    X509 *made = X509_new();
    const char *purpose = subject->role == TRUST_SERVER ? "serverAuth" : "clientAuth";
    bool ok = made && X509_set_version(made, X509_VERSION_3) && X509_set_pubkey(made, key) &&
              set_serial(made, subject->generation) && set_dates(made, subject->not_before, subject->not_after) &&
              set_name(X509_get_subject_name(made), "OU", role_name(subject->role)) &&
              set_name(X509_get_subject_name(made), "CN", subject->name) &&
              X509_set_issuer_name(made, X509_get_subject_name(ca)) &&
              add_extension(made, ca, NID_basic_constraints, "critical,CA:FALSE") &&
              add_extension(made, ca, NID_key_usage, "critical,digitalSignature") &&
              add_extension(made, ca, NID_ext_key_usage, purpose) &&
              add_extension(made, ca, NID_subject_key_identifier, "hash") &&
              add_extension(made, ca, NID_authority_key_identifier, "keyid:always") &&
              (!host || add_hosts(made, ca, host)) && X509_sign(made, ca_key, EVP_sha256());
    if (!ok) {
        X509_free(made);
        *out = NULL;
        return trust_fail(err, ERR_FAILED, "a certificate");
    }
    *out = made;
    return 0;
}

int certificate_read(const uint8_t *der, size_t len, X509 **out, struct err *err)
{
    const uint8_t *at = der;
    X509 *read = len > 0 && len <= TRUST_DER_MAX ? d2i_X509(NULL, &at, (long)len) : NULL;
    if (!read || at != der + len) {
        X509_free(read);
        *out = NULL;
        return trust_fail(err, ERR_DATA, "certificate: damaged");
    }
    *out = read;
    return 0;
}

int certificate_check_root(X509 *ca, struct err *err)
{
    uint8_t bytes[P256_BYTES];
    if (!p256_bytes(X509_get_X509_PUBKEY(ca), bytes) || X509_check_ca(ca) != 1 || X509_self_signed(ca, 1) != 1) {
        return trust_fail(err, ERR_DATA, "certificate: it is no authority's");
    }
    return 0;
}

int certificate_check(X509 *certificate, X509 *ca, EVP_PKEY *key, struct err *err)
{
    int rc = certificate_check_root(ca, err);
    if (rc) {
        return rc;
    }
    if (X509_check_issued(ca, certificate) != X509_V_OK || X509_verify(certificate, X509_get0_pubkey(ca)) != 1) {
        return trust_fail(err, ERR_DATA, "certificate: not signed by the authority that came with it");
    }
    return X509_check_private_key(certificate, key) == 1
               ? 0
               : trust_fail(err, ERR_DATA, "certificate: it is for another key than the one beside it");
}

int csr_new(EVP_PKEY *key, uint8_t **der, size_t *len, struct err *err)
{
    X509_REQ *request = X509_REQ_new();
    int bytes = -1;
    *der = NULL;
    *len = 0;
    if (request && X509_REQ_set_version(request, X509_REQ_VERSION_1) && X509_REQ_set_pubkey(request, key) &&
        X509_REQ_sign(request, key, EVP_sha256())) {
        bytes = i2d_X509_REQ(request, der);
    }
    X509_REQ_free(request);
    if (bytes <= 0) {
        return trust_fail(err, ERR_FAILED, "a request for a certificate");
    }
    *len = (size_t)bytes;
    return 0;
}

int csr_key(const uint8_t *der, size_t len, EVP_PKEY **out, struct err *err)
{
    const uint8_t *at = der;
    uint8_t bytes[P256_BYTES];
    X509_REQ *request = len > 0 && len <= TRUST_DER_MAX ? d2i_X509_REQ(NULL, &at, (long)len) : NULL;
    int rc = 0;
    *out = NULL;
    if (!request || at != der + len) {
        rc = trust_fail(err, ERR_DATA, "request for a certificate: damaged");
    } else if (!p256_bytes(X509_REQ_get_X509_PUBKEY(request), bytes)) {
        rc = trust_fail(err, ERR_DATA, "request for a certificate: its key is not of the kind P-256");
    } else if (X509_REQ_get_signature_nid(request) != NID_ecdsa_with_SHA256 ||
               X509_REQ_verify(request, X509_REQ_get0_pubkey(request)) != 1) {
        rc = trust_fail(err, ERR_DATA, "request for a certificate: not signed with its own key");
    } else {
        *out = X509_REQ_get_pubkey(request);
    }
    X509_REQ_free(request);
    return rc;
}

BIO *pem_write(EVP_PKEY *key, X509 *first, X509 *second)
{
    BIO *out = BIO_new(BIO_s_mem());
    bool ok = out && (!key || PEM_write_bio_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL)) &&
              (!first || PEM_write_bio_X509(out, first)) && (!second || PEM_write_bio_X509(out, second));
    if (!ok) {
        BIO_free(out);
    }
    return ok ? out : NULL;
}

/* Without it OpenSSL asks the terminal for the passphrase of an encrypted key. */
static int no_passphrase(char *out, int size, int writing, void *arg)
{
    (void)out, (void)size, (void)writing, (void)arg;
    return -1;
}

/* The private half goes with the public one, which is all that is compared with a certificate's. */
static bool halves_agree(EVP_PKEY *key)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    bool ok = ctx && EVP_PKEY_pairwise_check(ctx) == 1;
    EVP_PKEY_CTX_free(ctx);
    return ok;
}

int pem_read(const uint8_t *text, size_t len, EVP_PKEY **key, X509 **first, X509 **second, struct err *err)
{
    BIO *in = len <= INT32_MAX ? BIO_new_mem_buf(text, (int)len) : NULL, *again = NULL;
    EVP_PKEY *k = in && key ? PEM_read_bio_PrivateKey(in, NULL, no_passphrase, NULL) : NULL;
    X509 *a = in && first ? PEM_read_bio_X509(in, NULL, no_passphrase, NULL) : NULL;
    X509 *b = in && second ? PEM_read_bio_X509(in, NULL, no_passphrase, NULL) : NULL;
    bool ok =
        (!key || (k && halves_agree(k))) && (!first || a) && (!second || b) && (again = pem_write(k, a, b)) != NULL;
    if (ok) {
        char *data = NULL;
        long bytes = BIO_get_mem_data(again, &data);
        ok = bytes >= 0 && (size_t)bytes == len && memcmp(data, text, len) == 0;
    }
    BIO_free(in);
    BIO_free(again);
    if (!ok) {
        EVP_PKEY_free(k);
        X509_free(a);
        X509_free(b);
        return trust_fail(err, ERR_DATA, "damaged");
    }
    if (key) {
        *key = k;
    }
    if (first) {
        *first = a;
    }
    if (second) {
        *second = b;
    }
    return 0;
}
