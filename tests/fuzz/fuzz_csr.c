/* Requests for certificates, and certificates. Input: byte 0 is 0: a request; 1: a request that is signed anew, with a
 * key of ours, so that what is in it reaches the authority; 2: a certificate.
 *
 * Must hold: a certificate for a request says what the authority decided and nothing of the request, whatever stands in
 * it; one that was signed properly is accepted; nothing that is read is taken for an authority's but the authority. */
#include "common/trust/internal.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : abort())

static EVP_PKEY *ca_key, *own;
static X509 *ca;

static void begin(void)
{
    if (!ca) {
        REQUIRE(key_new(&ca_key, NULL) == 0 && key_new(&own, NULL) == 0);
        REQUIRE(certificate_root(ca_key, 1800000000, &ca, NULL) == 0);
    }
}

static void certify(EVP_PKEY *key)
{
    const struct trust_subject want = {
        .name = "site-a", .role = TRUST_TRAINER, .generation = 7, .not_before = 1800000000, .not_after = 1800086400};
    struct trust_subject got;
    X509 *made = NULL;
    REQUIRE(certificate_new(ca_key, ca, &want, NULL, key, &made, NULL) == 0);
    REQUIRE(subject_of(made, &got, NULL) == 0 && strcmp(got.name, want.name) == 0 && got.role == want.role);
    REQUIRE(got.generation == 7 && got.not_before == want.not_before && got.not_after == want.not_after);
    REQUIRE(X509_get_ext_count(made) == 5 && X509_check_ca(made) == 0);
    REQUIRE(certificate_check(made, ca, key, NULL) == 0);
    X509_free(made);
}

static void sign_anew(const uint8_t *data, size_t size)
{
    const uint8_t *at = data;
    uint8_t *der = NULL;
    EVP_PKEY *key = NULL;
    X509_REQ *request = d2i_X509_REQ(NULL, &at, (long)size);
    if (request && X509_REQ_set_pubkey(request, own) && X509_REQ_sign(request, own, EVP_sha256())) {
        int len = i2d_X509_REQ(request, &der);
        if (len > 0 && len <= TRUST_DER_MAX) {
            REQUIRE(csr_key(der, (size_t)len, &key, NULL) == 0);
            certify(key);
        }
    }
    EVP_PKEY_free(key);
    OPENSSL_free(der);
    X509_REQ_free(request);
    ERR_clear_error();
}

static void read_certificate(const uint8_t *data, size_t size)
{
    struct trust_subject subject;
    uint8_t pin[32], ours[32];
    X509 *read;
    if (certificate_read(data, size, &read, NULL) == 0) {
        if (subject_of(read, &subject, NULL) == 0) {
            REQUIRE(name_is_valid(subject.name) && subject.role >= TRUST_TRAINER && subject.role <= TRUST_SERVER);
        }
        if (certificate_pin(read, pin, NULL) == 0 && certificate_pin(ca, ours, NULL) == 0) {
            REQUIRE(memcmp(pin, ours, 32) != 0);
        }
        REQUIRE(certificate_check(ca, read, ca_key, NULL) == ERR_DATA);
        X509_free(read);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    EVP_PKEY *key = NULL;
    if (size < 1 || size > TRUST_DER_MAX + 2) {
        return 0;
    }
    begin();
    if (data[0] == 0 && csr_key(data + 1, size - 1, &key, NULL) == 0) {
        certify(key);
        EVP_PKEY_free(key);
    } else if (data[0] == 1) {
        sign_anew(data + 1, size - 1);
    } else if (data[0] == 2) {
        read_certificate(data + 1, size - 1);
    }
    return 0;
}
