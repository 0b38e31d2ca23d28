/* Renewal: what a server sends takes the place of the identity only if it is of the same authority, for the same name
 * and role, and holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first. */
#include <cmocka.h>

#include "client/shell/passport.h"
#include "tests/support/tls_world.h"

struct site {
    struct tls_world world, other;
    char folder[128];
    struct passport passport;
};

/* Signs what was asked for, as of so many seconds ago; the message's parts are borrowed from `out` and `world`. */
static struct msg_certificate sign(struct tls_world *world, const char *name, uint32_t role, int64_t ago,
                                   const uint8_t *csr, size_t csr_len, struct buf *out)
{
    struct trust_subject subject = {.role = role};
    size_t len;
    (void)snprintf(subject.name, sizeof subject.name, "%s", name);
    buf_init(out, TRUST_DER_MAX);
    assert_int_equal(authority_sign(world->authority, &subject, csr, csr_len, 3 * TLS_DAY, tls_now() - ago, out, NULL),
                     0);
    const uint8_t *ca = authority_ca_der(world->authority, &len);
    return (struct msg_certificate){.certificate = out->data,
                                    .certificate_len = (uint32_t)out->len,
                                    .authority = (uint8_t *)(uintptr_t)ca,
                                    .authority_len = (uint32_t)len};
}

/* A site whose certificate has a sixth of its time left. */
static int setup(void **state)
{
    struct site *site = mem_new(1, sizeof *site);
    struct request *request;
    struct credential *credential;
    struct buf der;
    size_t len;
    tls_world_init(&site->world);
    tls_world_init(&site->other);
    (void)snprintf(site->folder, sizeof site->folder, "%s/site", site->world.root);
    assert_int_equal(request_new(&request, NULL), 0);
    const uint8_t *csr = request_csr(request, &len);
    struct msg_certificate given = sign(&site->world, "site-a", TRUST_TRAINER, 5 * TLS_DAY / 2, csr, len, &der);
    assert_int_equal(request_credential(request, given.certificate, given.certificate_len, given.authority,
                                        given.authority_len, &credential, NULL),
                     0);
    assert_int_equal(identity_save(site->folder, credential, "127.0.0.1:7640", NULL), 0);
    assert_int_equal(passport_open(&site->passport, site->folder, NULL), 0);
    credential_free(credential);
    request_free(request);
    buf_fini(&der);
    *state = site;
    return 0;
}

static int teardown(void **state)
{
    struct site *site = *state;
    passport_close(&site->passport);
    tls_world_fini(&site->world);
    tls_world_fini(&site->other);
    mem_free(site);
    return 0;
}

/* Asks, and is answered by this world; what passport_take says. */
static int renew(struct site *site, struct tls_world *world, const char *name, uint32_t role, int64_t ago,
                 struct err *err)
{
    struct msg ask;
    struct buf der;
    site->passport.ask_at = tls_now();
    assert_int_equal(passport_renew(&site->passport, &ask, NULL), 1);
    struct msg_certificate answer = sign(world, name, role, ago, ask.enrol.request, ask.enrol.request_len, &der);
    int rc = passport_take(&site->passport, &answer, err);
    buf_fini(&der);
    return rc;
}

/* What the folder's identity and the passport say alike. */
static int64_t expires(const struct site *site)
{
    struct credential *credential;
    char address[TRUST_ADDRESS_MAX];
    uint8_t pin[32];
    assert_int_equal(identity_load(site->folder, &credential, address, NULL), 0);
    assert_int_equal(credential_check(credential, site->world.pin, "site-a", TRUST_TRAINER, NULL), 0);
    assert_int_equal(credential_pin(credential, pin, NULL), 0);
    assert_memory_equal(pin, site->passport.pin, sizeof pin);
    assert_memory_equal(credential_subject(credential), &site->passport.subject, sizeof site->passport.subject);
    credential_free(credential);
    return site->passport.subject.not_after;
}

static void a_renewal_takes_its_place(void **state)
{
    struct site *site = *state;
    int64_t before = expires(site);
    assert_int_equal(renew(site, &site->world, "site-a", TRUST_TRAINER, 0, NULL), 0);
    assert_in_range(expires(site), before + 2 * TLS_DAY, before + 3 * TLS_DAY);
    assert_true(passport_next(&site->passport) > tls_now() + TLS_DAY);
}

static void what_was_not_asked_for_does_not(void **state)
{
    struct site *site = *state;
    struct err err;
    int64_t before = expires(site);
    const struct tls_setup *setup = site->passport.setup;
    struct {
        struct tls_world *world;
        const char *name;
        uint32_t role;
        int64_t ago;
        const char *words;
    } rows[] = {
        {&site->other, "site-a", TRUST_TRAINER, 0, "of another authority"},
        {&site->world, "site-b", TRUST_TRAINER, 0, "for the trainer site-b, and this is the trainer site-a"},
        {&site->world, "site-a", TRUST_OPERATOR, 0, "for the operator site-a, and this is the trainer site-a"},
        {&site->world, "site-a", TRUST_TRAINER, 4 * TLS_DAY, "has expired"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(renew(site, rows[i].world, rows[i].name, rows[i].role, rows[i].ago, &err), ERR_ACCESS);
        assert_non_null(strstr(err.text, rows[i].words));
        assert_int_equal(expires(site), before);
        assert_ptr_equal(site->passport.setup, setup);
        assert_true(passport_next(&site->passport) > tls_now()); /* it asks again, and not at once */
    }
    assert_int_equal(renew(site, &site->world, "site-a", TRUST_TRAINER, 0, NULL), 0);
    struct msg_certificate unasked = {0};
    assert_int_equal(passport_take(&site->passport, &unasked, NULL), ERR_PROTOCOL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_renewal_takes_its_place, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_not_asked_for_does_not, setup, teardown),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
