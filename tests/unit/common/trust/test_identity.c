/* A site's identity: what was saved is loaded, only for its owner, and no damage goes unnoticed. */
#include "tests/unit/common/trust/trust_world.h"

struct site {
    struct world *world;
    struct request *request;
    struct buf certificate;
    char dir[128], path[160];
};

static int site_setup(void **state)
{
    struct site *site = mem_new(1, sizeof *site);
    const struct trust_subject subject = {.name = "site-a", .role = TRUST_OBSERVER, .generation = 77};
    size_t len;
    (void)world_setup((void **)&site->world);
    (void)snprintf(site->dir, sizeof site->dir, "%s/site", site->world->root);
    (void)snprintf(site->path, sizeof site->path, "%s/identity.pem", site->dir);
    buf_init(&site->certificate, TRUST_DER_MAX);
    assert_int_equal(request_new(&site->request, NULL), 0);
    const uint8_t *csr = request_csr(site->request, &len);
    assert_int_equal(authority_sign(site->world->authority, &subject, csr, len, DAY, NOW, &site->certificate, NULL), 0);
    *state = site;
    return 0;
}

static int site_teardown(void **state)
{
    struct site *site = *state;
    request_free(site->request);
    buf_fini(&site->certificate);
    (void)world_teardown((void **)&site->world);
    mem_free(site);
    return 0;
}

static int save_parts(struct site *site, const struct request *request, const uint8_t *certificate,
                      size_t certificate_len, const uint8_t *ca, size_t ca_len)
{
    struct credential *credential;
    int rc = request_credential(request, certificate, certificate_len, ca, ca_len, &credential, NULL);
    assert_true((rc == 0) == (credential != NULL));
    rc = rc ? rc : identity_save(site->dir, credential, ADDRESS, NULL);
    credential_free(credential);
    return rc;
}

static int save(struct site *site, const struct request *request, const struct buf *certificate,
                const struct authority *authority)
{
    size_t len;
    const uint8_t *ca = authority_ca_der(authority, &len);
    return save_parts(site, request, certificate->data, certificate->len, ca, len);
}

static int load(struct site *site, struct err *err)
{
    struct credential *credential;
    char address[TRUST_ADDRESS_MAX];
    int rc = identity_load(site->dir, &credential, address, err);
    assert_true((rc == 0) == (credential != NULL));
    assert_true((rc == 0) == (address[0] != 0));
    credential_free(credential);
    return rc;
}

static void what_is_saved_is_loaded(void **state)
{
    struct site *site = *state;
    struct credential *credential;
    char address[TRUST_ADDRESS_MAX];
    struct stat st;
    assert_false(identity_exists(site->dir));
    assert_int_equal(load(site, NULL), ERR_NOTFOUND);
    assert_int_equal(save(site, site->request, &site->certificate, site->world->authority), 0);
    assert_true(identity_exists(site->dir));
    assert_int_equal(stat(site->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(identity_load(site->dir, &credential, address, NULL), 0);
    const struct trust_subject *subject = credential_subject(credential);
    assert_string_equal(subject->name, "site-a");
    assert_int_equal(subject->role, TRUST_OBSERVER);
    assert_int_equal(subject->generation, 77);
    assert_int_equal(subject->not_after, NOW + DAY);
    assert_string_equal(address, ADDRESS);
    assert_int_equal(EVP_PKEY_eq(credential->key, X509_get0_pubkey(credential->certificate)), 1);
    credential_free(credential);
}

static void only_for_its_owner(void **state)
{
    struct site *site = *state;
    struct err err;
    assert_int_equal(save(site, site->request, &site->certificate, site->world->authority), 0);
    static const mode_t open_to_others[] = {0640, 0604, 0610, 0620, 0602, 0601, 0644, 0666, 0660};
    for (size_t i = 0; i < sizeof open_to_others / sizeof open_to_others[0]; i++) {
        assert_int_equal(chmod(site->path, open_to_others[i]), 0);
        assert_int_equal(load(site, &err), ERR_CONFIG);
        assert_non_null(strstr(err.text, "chmod 600 "));
        assert_non_null(strstr(err.text, site->path));
    }
    assert_int_equal(chmod(site->path, 0400), 0);
    assert_int_equal(load(site, NULL), 0);
}

/* What a server that errs, or lies, may send: none of it takes the place of a good identity. */
static void only_what_fits_is_saved(void **state)
{
    struct site *site = *state;
    struct world *other = NULL;
    struct request *request;
    size_t len;
    assert_int_equal(save(site, site->request, &site->certificate, site->world->authority), 0);
    struct file before = file_read(site->path);

    assert_int_equal(request_new(&request, NULL), 0);
    assert_int_equal(save(site, request, &site->certificate, site->world->authority), ERR_DATA); /* another key */
    request_free(request);

    (void)world_setup((void **)&other);
    assert_int_equal(save(site, site->request, &site->certificate, other->authority), ERR_DATA); /* another authority */
    (void)world_teardown((void **)&other);

    const uint8_t *own = site->certificate.data, *ca = authority_ca_der(site->world->authority, &len);
    const size_t own_len = site->certificate.len;
    assert_int_equal(save_parts(site, site->request, own, own_len, own, own_len), ERR_DATA);
    assert_int_equal(save_parts(site, site->request, ca, len, ca, len), ERR_DATA);
    assert_int_equal(save_parts(site, site->request, own, own_len - 1, ca, len), ERR_DATA);
    assert_int_equal(save_parts(site, site->request, own, 0, ca, len), ERR_DATA);
    assert_int_equal(save_parts(site, site->request, own, own_len, ca, len - 1), ERR_DATA);
    struct credential *credential;
    assert_int_equal(request_credential(site->request, own, own_len, ca, len, &credential, NULL), 0);
    assert_int_equal(identity_save(site->dir, credential, "nowhere", NULL), ERR_USAGE);
    credential_free(credential);
    assert_int_equal(buf_append(&site->certificate, "", 1), 0); /* a byte behind the end */
    assert_int_equal(save(site, site->request, &site->certificate, site->world->authority), ERR_DATA);
    site->certificate.len--;
    for (size_t i = 0; i < own_len; i++) {
        site->certificate.data[i] ^= 1;
        assert_int_equal(save(site, site->request, &site->certificate, site->world->authority), ERR_DATA);
        site->certificate.data[i] ^= 1;
    }

    struct file after = file_read(site->path);
    assert_int_equal(after.len, before.len);
    assert_memory_equal(after.data, before.data, after.len);
    mem_free(before.data);
    mem_free(after.data);
}

/* Signed by whom, for whom, as what: each is asked for. */
static void a_credential_is_one_site_s(void **state)
{
    struct site *site = *state;
    struct world *other = NULL;
    struct credential *credential;
    struct err err;
    uint8_t pin[32];
    size_t len;
    const uint8_t *ca = authority_ca_der(site->world->authority, &len);
    const struct token token = world_token(site->world, "site-a", TRUST_TRAINER, NOW);
    (void)world_setup((void **)&other);
    const struct token foreign = world_token(other, "site-a", TRUST_OBSERVER, NOW);
    (void)world_teardown((void **)&other);
    assert_int_equal(
        request_credential(site->request, site->certificate.data, site->certificate.len, ca, len, &credential, NULL),
        0);
    assert_int_equal(credential_pin(credential, pin, NULL), 0);
    assert_memory_equal(pin, token.pin, sizeof pin);
    assert_int_equal(credential_check(credential, pin, "site-a", TRUST_OBSERVER, NULL), 0);
    assert_int_equal(credential_check(credential, foreign.pin, "site-a", TRUST_OBSERVER, &err), ERR_ACCESS);
    assert_non_null(strstr(err.text, "another authority"));
    assert_int_equal(credential_check(credential, pin, "site-b", TRUST_OBSERVER, &err), ERR_ACCESS);
    assert_non_null(strstr(err.text, "for the observer site-a, and this is the observer site-b"));
    assert_int_equal(credential_check(credential, pin, "site-a", TRUST_TRAINER, &err), ERR_ACCESS);
    credential_free(credential);
}

static void damage_is_found(void **state)
{
    struct site *site = *state;
    struct err err;
    assert_int_equal(save(site, site->request, &site->certificate, site->world->authority), 0);
    struct file file = file_read(site->path);
    uint8_t *bad = mem_new(file.len + 1, 1);
    const uint8_t *body = memchr(file.data, '\n', file.len);
    for (size_t i = (size_t)(body - file.data); i < file.len; i++) {
        memcpy(bad, file.data, file.len);
        bad[i] ^= i % 2 ? 1 : 0x20;
        file_write(site->path, bad, file.len);
        assert_int_equal(load(site, &err), ERR_DATA);
        assert_non_null(strstr(err.text, site->path));
    }
    for (size_t len = 0; len < file.len; len++) {
        file_write(site->path, file.data, len);
        assert_int_equal(load(site, &err), ERR_DATA);
    }
    memcpy(bad, file.data, file.len);
    static const char behind[] = {0, '\n', ' ', 'x'};
    for (size_t i = 0; i < sizeof behind; i++) {
        bad[file.len] = (uint8_t)behind[i];
        file_write(site->path, bad, file.len + 1);
        assert_int_equal(load(site, &err), ERR_DATA);
    }
    file_write(site->path, file.data, file.len);
    assert_int_equal(load(site, &err), 0);
    mem_free(bad);
    mem_free(file.data);
}

/* Parts that are each whole, put together wrongly; an encrypted key, for whose passphrase nobody may be asked. */
static void parts_must_fit(void **state)
{
    struct site *site = *state;
    struct credential *credential;
    char address[TRUST_ADDRESS_MAX];
    EVP_PKEY *other;
    assert_int_equal(save(site, site->request, &site->certificate, site->world->authority), 0);
    assert_int_equal(identity_load(site->dir, &credential, address, NULL), 0);
    assert_int_equal(key_new(&other, NULL), 0);
    X509 *own = credential->certificate, *ca = credential->ca;
    struct {
        EVP_PKEY *key;
        X509 *first, *second;
        int want;
    } rows[] = {{credential->key, own, ca, 0},
                {other, own, ca, ERR_DATA},
                {credential->key, ca, own, ERR_DATA},
                {credential->key, own, own, ERR_DATA},
                {credential->key, ca, ca, ERR_DATA},
                {credential->key, own, NULL, ERR_DATA},
                {NULL, own, ca, ERR_DATA}};
    for (size_t i = 0; i <= sizeof rows / sizeof rows[0]; i++) {
        bool locked = i == sizeof rows / sizeof rows[0];
        BIO *file = BIO_new(BIO_s_mem());
        char *data = NULL;
        assert_true(BIO_printf(file, "starling-identity 1 %s\n", ADDRESS) > 0);
        if (locked) {
            assert_int_equal(
                PEM_write_bio_PKCS8PrivateKey(file, credential->key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL), 1);
        }
        BIO *pem = locked ? pem_write(NULL, own, ca) : pem_write(rows[i].key, rows[i].first, rows[i].second);
        long len = BIO_get_mem_data(pem, &data);
        assert_int_equal(BIO_write(file, data, (int)len), len);
        len = BIO_get_mem_data(file, &data);
        file_write(site->path, data, (size_t)len);
        assert_int_equal(load(site, NULL), locked ? ERR_DATA : rows[i].want);
        BIO_free(pem);
        BIO_free(file);
    }
    EVP_PKEY_free(other);
    credential_free(credential);
}

static void memory_may_run_out(void **state)
{
    struct site *site = *state;
    int rc = ERR_NOMEM;
    assert_int_equal(save(site, site->request, &site->certificate, site->world->authority), 0);
    for (uint64_t n = 1; rc == ERR_NOMEM; n++) {
        mem_fail_after(n);
        rc = load(site, NULL);
    }
    mem_fail_after(0);
    assert_int_equal(rc, 0);
    struct request *request;
    mem_fail_after(1);
    assert_int_equal(request_new(&request, NULL), ERR_NOMEM);
    assert_null(request);
    mem_fail_after(0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_saved_is_loaded, site_setup, site_teardown),
        cmocka_unit_test_setup_teardown(only_for_its_owner, site_setup, site_teardown),
        cmocka_unit_test_setup_teardown(only_what_fits_is_saved, site_setup, site_teardown),
        cmocka_unit_test_setup_teardown(a_credential_is_one_site_s, site_setup, site_teardown),
        cmocka_unit_test_setup_teardown(damage_is_found, site_setup, site_teardown),
        cmocka_unit_test_setup_teardown(parts_must_fit, site_setup, site_teardown),
        cmocka_unit_test_setup_teardown(memory_may_run_out, site_setup, site_teardown),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
