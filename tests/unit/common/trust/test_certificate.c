/* Requests and certificates. A request is taken for its key alone, and only for a key of the one kind that has signed
 * it; a certificate says what the authority decided, and holds for that, for as long as it says, and for nothing else.
 */
#include "tests/unit/common/trust/trust_world.h"

static const struct trust_subject site = {
    .name = "site-a", .role = TRUST_TRAINER, .generation = UINT64_C(0x1122334455667788)};

static int sign_with(struct world *w, const struct trust_subject *subject, const uint8_t *csr, size_t len, X509 **out)
{
    struct buf der;
    struct err err;
    buf_init(&der, TRUST_DER_MAX);
    int rc = authority_sign(w->authority, subject, csr, len, DAY, NOW, &der, &err);
    assert_true(rc == 0 || (der.len == 0 && err.text[0]));
    if (rc == 0) {
        assert_int_equal(certificate_read(der.data, der.len, out, &err), 0);
    }
    buf_fini(&der);
    return rc;
}

static X509 *certificate_for(struct world *w, const struct trust_subject *subject)
{
    struct request *request;
    size_t len;
    X509 *made = NULL;
    assert_int_equal(request_new(&request, NULL), 0);
    const uint8_t *csr = request_csr(request, &len);
    assert_int_equal(sign_with(w, subject, csr, len, &made), 0);
    request_free(request);
    return made;
}

static X509 *root_of(struct world *w)
{
    size_t len;
    X509 *ca;
    const uint8_t *der = authority_ca_der(w->authority, &len);
    assert_int_equal(certificate_read(der, len, &ca, NULL), 0);
    return ca;
}

/* As the other side of TLS looks at it. */
static bool chain_holds(X509 *certificate, X509 *ca, int purpose, int64_t when)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    assert_int_equal(X509_STORE_add_cert(store, ca), 1);
    assert_int_equal(X509_STORE_CTX_init(ctx, store, certificate, NULL), 1);
    X509_STORE_CTX_set_time(ctx, 0, (time_t)when);
    assert_int_equal(X509_STORE_CTX_set_purpose(ctx, purpose), 1);
    int flags = X509_V_FLAG_X509_STRICT | X509_V_FLAG_CHECK_SS_SIGNATURE;
    X509_STORE_CTX_set_flags(ctx, (unsigned long)flags);
    bool ok = X509_verify_cert(ctx) == 1;
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    ERR_clear_error();
    return ok;
}

static void a_certificate_says_what_was_decided(void **state)
{
    struct world *w = *state;
    X509 *ca = root_of(w), *made = certificate_for(w, &site);
    struct trust_subject got;
    assert_int_equal(subject_of(made, &got, NULL), 0);
    assert_string_equal(got.name, "site-a");
    assert_int_equal(got.role, TRUST_TRAINER);
    assert_true(got.generation == site.generation);
    assert_int_equal(got.not_before, NOW - 300);
    assert_int_equal(got.not_after, NOW + DAY);
    assert_true(chain_holds(made, ca, X509_PURPOSE_SSL_CLIENT, NOW));
    assert_true(chain_holds(made, ca, X509_PURPOSE_SSL_CLIENT, NOW - 299)); /* a site whose clock is behind */
    assert_false(chain_holds(made, ca, X509_PURPOSE_SSL_CLIENT, NOW - 301));
    assert_true(chain_holds(made, ca, X509_PURPOSE_SSL_CLIENT, NOW + DAY - 1));
    assert_false(chain_holds(made, ca, X509_PURPOSE_SSL_CLIENT, NOW + DAY + 1));
    assert_false(chain_holds(made, ca, X509_PURPOSE_SSL_SERVER, NOW)); /* a site is no server */
    assert_int_equal(X509_check_ca(made), 0);
    assert_int_equal(X509_get_key_usage(made), KU_DIGITAL_SIGNATURE);
    assert_int_equal(X509_get_ext_by_NID(made, NID_subject_alt_name, -1), -1);
    X509 *second = certificate_for(w, &site); /* a renewal: the same generation, another number */
    assert_int_equal(subject_of(second, &got, NULL), 0);
    assert_true(got.generation == site.generation);
    assert_int_not_equal(ASN1_INTEGER_cmp(X509_get0_serialNumber(made), X509_get0_serialNumber(second)), 0);
    assert_int_not_equal(subject_of(ca, &got, NULL), 0); /* the authority is nobody */
    X509_free(second);
    X509_free(made);
    X509_free(ca);
}

static void roles_and_generations_come_back(void **state)
{
    struct world *w = *state;
    struct trust_subject got;
    static const uint64_t generations[] = {0, 1, 255, 256, UINT64_C(999999999999999999)};
    for (uint32_t role = TRUST_TRAINER; role <= TRUST_OPERATOR; role++) {
        for (size_t i = 0; i < sizeof generations / sizeof generations[0]; i++) {
            struct trust_subject subject = {.role = role, .generation = generations[i]};
            memset(subject.name, 'n', 64);
            X509 *made = certificate_for(w, &subject);
            assert_int_equal(subject_of(made, &got, NULL), 0);
            assert_string_equal(got.name, subject.name);
            assert_int_equal(got.role, role);
            assert_true(got.generation == generations[i]);
            X509_free(made);
        }
    }
    struct trust_subject server = site;
    struct request *request;
    size_t len;
    X509 *made;
    server.role = TRUST_SERVER; /* nobody from outside becomes one */
    assert_int_equal(request_new(&request, NULL), 0);
    const uint8_t *csr = request_csr(request, &len);
    assert_int_equal(sign_with(w, &server, csr, len, &made), ERR_USAGE);
    server.role = 0;
    assert_int_equal(sign_with(w, &server, csr, len, &made), ERR_USAGE);
    assert_int_equal(authority_revoke(w->authority, "site-r", NULL), 0);
    const struct trust_subject revoked = {.name = "site-r", .role = TRUST_TRAINER};
    assert_int_equal(sign_with(w, &revoked, csr, len, &made), ERR_ACCESS);
    request_free(request);
}

static void the_server_has_its_own(void **state)
{
    struct world *w = *state;
    X509 *ca = root_of(w);
    struct credential *server, *operator;
    assert_int_equal(authority_credential(w->authority, "server", TRUST_SERVER, DAY, NOW, &server, NULL), 0);
    assert_true(chain_holds(server->certificate, ca, X509_PURPOSE_SSL_SERVER, NOW));
    assert_false(chain_holds(server->certificate, ca, X509_PURPOSE_SSL_CLIENT, NOW));
    assert_int_equal(X509_check_host(server->certificate, "coordinator.example", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(server->certificate, "localhost", 0, 0, NULL), 1);
    assert_int_equal(X509_check_ip_asc(server->certificate, "127.0.0.1", 0), 1);
    assert_int_equal(X509_check_ip_asc(server->certificate, "::1", 0), 1);
    assert_int_equal(X509_check_host(server->certificate, "other.example", 0, 0, NULL), 0);
    assert_int_equal(X509_check_ip_asc(server->certificate, "10.0.0.1", 0), 0);
    assert_int_equal(credential_subject(server)->role, TRUST_SERVER);
    assert_int_equal(EVP_PKEY_eq(server->key, X509_get0_pubkey(server->certificate)), 1);
    assert_int_equal(authority_credential(w->authority, "local", TRUST_OPERATOR, DAY, NOW, &operator, NULL), 0);
    assert_true(chain_holds(operator->certificate, ca, X509_PURPOSE_SSL_CLIENT, NOW));
    assert_false(chain_holds(operator->certificate, ca, X509_PURPOSE_SSL_SERVER, NOW));
    credential_free(operator);
    assert_int_equal(authority_credential(w->authority, "a b", TRUST_TRAINER, DAY, NOW, &operator, NULL), ERR_USAGE);
    assert_null(operator);
    credential_free(server);
    X509_free(ca);
}

static void addresses_become_hosts(void **state)
{
    static const char *const addresses[] = {"10.1.2.3:7640", "[2001:db8::1]:7640"};
    static const char *const hosts[] = {"10.1.2.3", "2001:db8::1"};
    struct world *w = *state;
    for (size_t i = 0; i < 2; i++) {
        char dir[160];
        struct authority *authority;
        struct credential *server;
        (void)snprintf(dir, sizeof dir, "%s/%zu", w->root, i);
        assert_int_equal(authority_init(dir, addresses[i], NOW, NULL), 0);
        assert_int_equal(authority_open(dir, &authority, NULL), 0);
        assert_int_equal(authority_credential(authority, "server", TRUST_SERVER, DAY, NOW, &server, NULL), 0);
        assert_int_equal(X509_check_ip_asc(server->certificate, hosts[i], 0), 1);
        credential_free(server);
        authority_close(authority);
    }
}

/* A request as a hostile site would write one: what it says of itself is not heard. */
static void nothing_of_a_request_is_taken_but_its_key(void **state)
{
    struct world *w = *state;
    EVP_PKEY *key;
    uint8_t *der = NULL;
    X509 *made;
    struct trust_subject got;
    assert_int_equal(key_new(&key, NULL), 0);
    X509_REQ *request = X509_REQ_new();
    X509_NAME *name = X509_REQ_get_subject_name(request);
    static const char *const fields[][2] = {{"CN", "site-b"}, {"OU", "server"}, {"O", "Evil"}};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(
            X509_NAME_add_entry_by_txt(name, fields[i][0], MBSTRING_ASC, (const uint8_t *)fields[i][1], -1, -1, 0), 1);
    }
    STACK_OF(X509_EXTENSION) *extensions = NULL;
    static const struct {
        int nid;
        const char *value;
    } wishes[] = {{NID_basic_constraints, "critical,CA:TRUE"},
                  {NID_subject_alt_name, "DNS:coordinator.example"},
                  {NID_ext_key_usage, "serverAuth"},
                  {NID_key_usage, "keyCertSign"}};
    for (size_t i = 0; i < 4; i++) {
        X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, wishes[i].nid, wishes[i].value);
        assert_non_null(X509v3_add_ext(&extensions, extension, -1));
        X509_EXTENSION_free(extension);
    }
    assert_int_equal(X509_REQ_add_extensions(request, extensions), 1);
    sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
    assert_int_equal(X509_REQ_set_pubkey(request, key), 1);
    assert_true(X509_REQ_sign(request, key, EVP_sha256()) > 0);
    int len = i2d_X509_REQ(request, &der);
    assert_true(len > 0);
    assert_int_equal(sign_with(w, &site, der, (size_t)len, &made), 0);
    assert_int_equal(subject_of(made, &got, NULL), 0);
    assert_string_equal(got.name, "site-a");
    assert_int_equal(got.role, TRUST_TRAINER);
    assert_int_equal(X509_NAME_entry_count(X509_get_subject_name(made)), 2);
    assert_int_equal(X509_check_ca(made), 0);
    assert_int_equal(X509_get_ext_count(made), 5);
    assert_int_equal(X509_get_ext_by_NID(made, NID_subject_alt_name, -1), -1);
    assert_int_equal(X509_get_extended_key_usage(made), XKU_SSL_CLIENT);
    assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(made), key), 1);
    X509_free(made);
    X509_REQ_free(request);
    OPENSSL_free(der);
    EVP_PKEY_free(key);
}

static void damaged_requests_are_refused(void **state)
{
    struct world *w = *state;
    struct request *request;
    size_t len;
    X509 *made;
    uint8_t bad[TRUST_DER_MAX + 1] = {0};
    assert_int_equal(request_new(&request, NULL), 0);
    const uint8_t *csr = request_csr(request, &len);
    for (size_t i = 0; i < len; i++) {
        for (int bit = 0; bit < 8; bit += 3) {
            memcpy(bad, csr, len);
            bad[i] ^= (uint8_t)(1 << bit);
            assert_int_equal(sign_with(w, &site, bad, len, &made), ERR_DATA);
        }
        assert_int_equal(sign_with(w, &site, csr, i, &made), ERR_DATA);
    }
    memcpy(bad, csr, len);
    for (size_t more = 1; len + more <= sizeof bad; more *= 2) {
        assert_int_equal(sign_with(w, &site, bad, len + more, &made), ERR_DATA);
    }
    assert_int_equal(sign_with(w, &site, bad, sizeof bad, &made), ERR_DATA);
    assert_int_equal(sign_with(w, &site, csr, len, &made), 0);
    X509_free(made);
    request_free(request);
}

/* The same request, signed by another key: whoever asks must have the key. */
static void the_key_must_have_signed(void **state)
{
    struct world *w = *state;
    EVP_PKEY *own, *other;
    X509 *made;
    uint8_t *der = NULL;
    assert_int_equal(key_new(&own, NULL), 0);
    assert_int_equal(key_new(&other, NULL), 0);
    X509_REQ *request = X509_REQ_new();
    assert_int_equal(X509_REQ_set_pubkey(request, own), 1);
    assert_true(X509_REQ_sign(request, other, EVP_sha256()) > 0);
    int len = i2d_X509_REQ(request, &der);
    assert_int_equal(sign_with(w, &site, der, (size_t)len, &made), ERR_DATA);
    OPENSSL_free(der);
    X509_REQ_free(request);
    EVP_PKEY_free(own);
    EVP_PKEY_free(other);
}

static void ask_with(struct world *w, EVP_PKEY *key, const EVP_MD *digest, int want)
{
    X509 *made = NULL;
    uint8_t *der = NULL;
    X509_REQ *request = X509_REQ_new();
    assert_non_null(key);
    assert_int_equal(X509_REQ_set_pubkey(request, key), 1);
    assert_true(X509_REQ_sign(request, key, digest) > 0);
    int len = i2d_X509_REQ(request, &der);
    assert_int_equal(sign_with(w, &site, der, (size_t)len, &made), want);
    X509_free(made);
    OPENSSL_free(der);
    X509_REQ_free(request);
}

static void one_kind_of_key(void **state)
{
    struct world *w = *state;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    ask_with(w, key, EVP_sha256(), 0);
    ask_with(w, key, EVP_sha1(), ERR_DATA);
    ask_with(w, key, EVP_sha512(), ERR_DATA);
    /* The same key, written in other ways. */
    assert_int_equal(EVP_PKEY_set_utf8_string_param(key, "point-format", "compressed"), 1);
    ask_with(w, key, EVP_sha256(), ERR_DATA);
    assert_int_equal(EVP_PKEY_set_utf8_string_param(key, "point-format", "uncompressed"), 1);
    assert_int_equal(EVP_PKEY_set_utf8_string_param(key, "encoding", "explicit"), 1);
    ask_with(w, key, EVP_sha256(), ERR_DATA);
    EVP_PKEY_free(key);
    EVP_PKEY *others[] = {EVP_EC_gen("P-384"), EVP_EC_gen("secp256k1"), EVP_RSA_gen(1024),
                          EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        ask_with(w, others[i], i == 3 ? NULL : EVP_sha256(), ERR_DATA);
        EVP_PKEY_free(others[i]);
    }
}

static X509 *forged(struct world *w, const char *const fields[][2], size_t count)
{
    X509 *made = certificate_for(w, &site);
    X509_NAME *name = X509_NAME_new();
    for (size_t i = 0; i < count; i++) {
        int len = strcmp(fields[i][1], "zero") == 0 ? 5 : -1; /* "zero" and its zero */
        assert_int_equal(
            X509_NAME_add_entry_by_txt(name, fields[i][0], MBSTRING_UTF8, (const uint8_t *)fields[i][1], len, -1, 0),
            1);
    }
    assert_int_equal(X509_set_subject_name(made, name), 1);
    X509_NAME_free(name);
    return made;
}

/* What is read from a certificate is read from one that the authority signed; even so it takes only its own kind. */
static void other_subjects_are_nobody(void **state)
{
    struct world *w = *state;
    struct trust_subject got;
    static const struct {
        const char *fields[3][2];
        size_t count;
        int want;
    } rows[] = {
        {{{"OU", "trainer"}, {"CN", "a"}}, 2, 0},
        {{{"CN", "a"}, {"OU", "trainer"}}, 2, 0},
        {{{"CN", "a"}}, 1, ERR_DATA},
        {{{"OU", "trainer"}}, 1, ERR_DATA},
        {{{"CN", "a"}, {"CN", "b"}}, 2, ERR_DATA},
        {{{"CN", "a"}, {"O", "trainer"}}, 2, ERR_DATA},
        {{{"CN", "a"}, {"CN", "b"}, {"OU", "trainer"}}, 3, ERR_DATA},
        {{{"CN", "a"}, {"OU", "trainer"}, {"OU", "operator"}}, 3, ERR_DATA},
        {{{"CN", "a"}, {"OU", "root"}}, 2, ERR_DATA},
        {{{"CN", "a b"}, {"OU", "trainer"}}, 2, ERR_DATA},
        {{{"CN", "zero"}, {"OU", "trainer"}}, 2, ERR_DATA},
        {{{"CN", "a"}, {"OU", "trainer "}}, 2, ERR_DATA},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        X509 *made = forged(w, rows[i].fields, rows[i].count);
        assert_int_equal(subject_of(made, &got, NULL), rows[i].want);
        X509_free(made);
    }
    X509 *made = certificate_for(w, &site);
    BIGNUM *number = BN_new();
    assert_int_equal(BN_set_word(number, 5), 1);
    BN_set_negative(number, 1);
    assert_non_null(BN_to_ASN1_INTEGER(number, X509_get_serialNumber(made)));
    assert_int_equal(subject_of(made, &got, NULL), ERR_DATA);
    BN_set_negative(number, 0);
    assert_int_equal(BN_lshift(number, number, 160), 1);
    assert_non_null(BN_to_ASN1_INTEGER(number, X509_get_serialNumber(made)));
    assert_int_equal(subject_of(made, &got, NULL), ERR_DATA);
    BN_free(number);
    X509_free(made);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_certificate_says_what_was_decided),
        TEST(roles_and_generations_come_back),
        TEST(the_server_has_its_own),
        TEST(addresses_become_hosts),
        TEST(nothing_of_a_request_is_taken_but_its_key),
        TEST(damaged_requests_are_refused),
        TEST(the_key_must_have_signed),
        TEST(one_kind_of_key),
        TEST(other_subjects_are_nobody),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
