/* TLS against whoever is on the way (damage, floods), against peers that do what ours never would (OpenSSL's own
 * endpoint plays them), and without memory. */
#include "tests/unit/common/trust/channel_world.h"

/* ---- Damage ---- */

enum { HELLO, ANSWER, PROOF, FLIGHTS }; /* client's, server's, client's */

/* The handshake with one byte of a flight changed. Returns the flight's length. *both: it came about all the same. */
static size_t damaged_handshake(struct tls_setup *server, struct tls_setup *client, int flight, size_t at, bool *both)
{
    static uint8_t bytes[1 << 16];
    struct pair pair;
    size_t len = 0;
    pair_init(&pair, server, client);
    for (int i = 0; i < FLIGHTS; i++) {
        struct end *from = i == ANSWER ? &pair.server : &pair.client;
        struct end *to = i == ANSWER ? &pair.client : &pair.server;
        size_t sent = take(from, bytes, sizeof bytes);
        if (i == flight) {
            len = sent;
            bytes[at < sent ? at : sent - 1] ^= (uint8_t)(1 + dice(255));
        }
        hear(to, bytes, sent);
    }
    converse(&pair, WHOLE);
    *both = channel_is_open(pair.server.channel) && channel_is_open(pair.client.channel) && pair.server.rc == 0 &&
            pair.client.rc == 0;
    /* Whoever is open knows the right peer. */
    if (channel_is_open(pair.server.channel)) {
        assert_peer(&pair.server, "site-a", TRUST_TRAINER);
    }
    if (channel_is_open(pair.client.channel)) {
        assert_peer(&pair.client, "coordinator", TRUST_SERVER);
    }
    assert_true(*both || !channel_is_open(pair.server.channel));
    assert_int_equal(pair.server.got.len + pair.client.got.len, 0);
    pair_fini(&pair);
    return len;
}

static void test_damaged_handshakes(void **state)
{
    (void)state;
    struct tls_setup *server = good_server(), *client = good_client();
    for (int flight = 0; flight < FLIGHTS; flight++) {
        size_t len = 1, passed = 0;
        for (size_t at = 0; at < len; at++) {
            bool both;
            size_t now = damaged_handshake(server, client, flight, at, &both);
            len = at == 0 ? now : len; /* signatures differ in length */
            passed += both;
        }
        assert_true(len > 200);
        /* The version in the header of a plain record means nothing (RFC 8446, 5.1): two bytes of a ClientHello's, a
         * ServerHello's and a change_cipher_spec's. */
        assert_in_range(passed, 0, 4);
    }
    tls_setup_free(server);
    tls_setup_free(client);
}

static void test_damaged_data(void **state)
{
    (void)state;
    static uint8_t bytes[4096];
    struct tls_setup *server = good_server(), *client = good_client();
    size_t len = 1;
    for (size_t at = 0; at < len; at++) {
        struct pair pair;
        pair_init(&pair, server, client);
        converse(&pair, WHOLE);
        assert_int_equal(channel_write(pair.client.channel, "hello", 5, NULL), 0);
        len = take(&pair.client, bytes, sizeof bytes);
        bytes[at] ^= (uint8_t)(1 + dice(255));
        hear(&pair.server, bytes, len);
        assert_int_equal(pair.server.got.len, 0);
        assert_true(pair.server.rc == ERR_PROTOCOL || (pair.server.rc == 0 && (at == 3 || at == 4))); /* a longer one */
        assert_false(channel_has_ended(pair.server.channel));
        pair_fini(&pair);
    }
    tls_setup_free(server);
    tls_setup_free(client);
}

/* A record that is left out, sent twice or out of order. */
static void test_replay(void **state)
{
    (void)state;
    static const char orders[][4] = {"1", "00", "10", "02", "011"};
    static uint8_t bytes[3][64];
    struct tls_setup *server = good_server(), *client = good_client();
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        struct pair pair;
        size_t len[3];
        pair_init(&pair, server, client);
        converse(&pair, WHOLE);
        for (int k = 0; k < 3; k++) {
            assert_int_equal(channel_write(pair.client.channel, "012" + k, 1, NULL), 0);
            len[k] = take(&pair.client, bytes[k], sizeof bytes[k]);
        }
        for (const char *order = orders[i]; *order; order++) {
            hear(&pair.server, bytes[*order - '0'], len[*order - '0']);
        }
        assert_int_equal(pair.server.rc, ERR_PROTOCOL);
        assert_memory_equal(pair.server.got.data ? (char *)pair.server.got.data : "", "01", pair.server.got.len);
        pair_fini(&pair);
    }
    tls_setup_free(server);
    tls_setup_free(client);
}

/* Without the peer's last word nobody has ended; a false one is none. */
static void test_last_word(void **state)
{
    (void)state;
    static const uint8_t plain_notify[] = {21, 3, 3, 0, 2, 1, 0};
    struct tls_setup *server = good_server(), *client = good_client();
    struct pair pair;
    pair_init(&pair, server, client);
    converse(&pair, WHOLE);
    assert_int_equal(channel_write(pair.client.channel, "hello", 5, NULL), 0);
    converse(&pair, WHOLE);
    assert_int_equal(pair.server.got.len, 5);
    assert_false(channel_has_ended(pair.server.channel));
    hear(&pair.server, plain_notify, sizeof plain_notify); /* somebody on the way */
    assert_int_equal(pair.server.rc, ERR_PROTOCOL);
    assert_false(channel_has_ended(pair.server.channel));
    pair_fini(&pair);
    /* In the middle of a handshake it is no end of a connection either: nothing has been proven. */
    pair_init(&pair, server, client);
    hear(&pair.client, plain_notify, sizeof plain_notify);
    assert_false(channel_is_open(pair.client.channel));
    assert_true(pair.client.rc < 0);
    pair_fini(&pair);
    tls_setup_free(server);
    tls_setup_free(client);
}

/* ---- Floods ---- */

/* The same bytes again and again, as a stranger would. Returns how many were taken before the end fell. */
static size_t flood(struct end *end, const void *head, size_t head_len, const void *more, size_t more_len)
{
    size_t sent = head_len;
    hear(end, head, head_len);
    while (end->rc == 0 && sent < (1u << 20)) {
        hear(end, more, more_len);
        sent += more_len;
    }
    assert_false(channel_is_open(end->channel));
    assert_true(channel_output(end->channel)->len < 1024);
    return sent;
}

static void test_floods_of_strangers(void **state)
{
    (void)state;
    static uint8_t fragment[5 + 1000] = {22, 3, 3, 1000 >> 8, 1000 & 255};
    /* A message of 100,000 bytes, in records; one that names a length; and records that mean nothing. */
    static const uint8_t hello[] = {22, 3, 1, 0, 4, 1, 1, 0x86, 0xa0};
    static const uint8_t ccs[] = {20, 3, 3, 0, 1, 1};
    static const uint8_t empty[] = {22, 3, 3, 0, 0};
    static const uint8_t warning[] = {21, 3, 3, 0, 2, 1, 90};
    struct tls_setup *server = good_server(), *client = good_client();
    struct tls_setup *const setups[] = {server, client};
    struct end end;
    for (int i = 0; i < 2; i++) {
        static const uint8_t answer[] = {22, 3, 3, 0, 4, 2, 1, 0x86, 0xa0};
        uint8_t drop[4096];
        end_init(&end, setups[i]);
        (void)take(&end, drop, sizeof drop);
        size_t taken = flood(&end, i ? answer : hello, sizeof hello, fragment, sizeof fragment);
        assert_in_range(taken, 1, (16 << 10) + sizeof fragment);
        assert_int_equal(end.rc, ERR_PROTOCOL);
        end_fini(&end);
        end_init(&end, setups[i]); /* all at once */
        (void)take(&end, drop, sizeof drop);
        static uint8_t all[100000];
        memset(all, 22, sizeof all);
        memcpy(all, i ? answer : hello, sizeof hello);
        for (size_t at = sizeof hello; at + sizeof fragment < sizeof all; at += sizeof fragment) {
            memcpy(all + at, fragment, sizeof fragment);
        }
        hear(&end, all, sizeof all);
        assert_int_equal(end.rc, ERR_PROTOCOL);
        end_fini(&end);
        const struct {
            const uint8_t *bytes;
            size_t len;
        } small[] = {{ccs, sizeof ccs}, {empty, sizeof empty}, {warning, sizeof warning}};
        for (size_t k = 0; k < 3; k++) {
            end_init(&end, setups[i]);
            (void)take(&end, drop, sizeof drop);
            assert_in_range(flood(&end, small[k].bytes, small[k].len, small[k].bytes, small[k].len), 1, 17 << 10);
            end_fini(&end);
        }
    }
    tls_setup_free(server);
    tls_setup_free(client);
}

/* ---- OpenSSL's own endpoint ---- */

struct raw {
    SSL_CTX *context;
    SSL *ssl;
    BIO *in, *out;
};

static int take_first(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *offered,
                      unsigned len, void *arg)
{
    (void)ssl, (void)arg;
    assert_true(len > 1 && offered[0] < len);
    *out = offered + 1;
    *out_len = offered[0];
    return SSL_TLSEXT_ERR_OK;
}

static void raw_init(struct raw *raw, bool server, const struct credential *credential)
{
    raw->context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    assert_non_null(raw->context);
    assert_int_equal(SSL_CTX_set_alpn_protos(raw->context, (const uint8_t *)"\2h2\012starling/1", 14), 0);
    SSL_CTX_set_alpn_select_cb(raw->context, take_first, NULL);
    if (credential) {
        STACK_OF(X509) *chain = sk_X509_new_null();
        assert_true(sk_X509_push(chain, credential->ca) > 0);
        assert_int_equal(SSL_CTX_use_cert_and_key(raw->context, credential->certificate, credential->key, chain, 1), 1);
        sk_X509_free(chain);
    }
    raw->ssl = NULL;
}

/* With what was set in the context by then. */
static void raw_begin(struct raw *raw, bool server)
{
    raw->ssl = SSL_new(raw->context);
    raw->in = BIO_new(BIO_s_mem());
    raw->out = BIO_new(BIO_s_mem());
    assert_true(raw->ssl && raw->in && raw->out);
    SSL_set_bio(raw->ssl, raw->in, raw->out);
    server ? SSL_set_accept_state(raw->ssl) : SSL_set_connect_state(raw->ssl);
}

static void raw_fini(struct raw *raw)
{
    SSL_free(raw->ssl);
    SSL_CTX_free(raw->context);
    ERR_clear_error();
}

/* Until neither has something to say. Returns OpenSSL's reason for a failure of the raw side, or 0. */
static int raw_converse(struct raw *raw, struct end *end)
{
    static uint8_t bytes[1 << 20];
    int reason = 0;
    for (bool more = true; more;) {
        char plain[4096];
        ERR_clear_error();
        int rc = SSL_is_init_finished(raw->ssl) ? SSL_read(raw->ssl, plain, sizeof plain) : SSL_do_handshake(raw->ssl);
        if (rc <= 0 && SSL_get_error(raw->ssl, rc) == SSL_ERROR_SSL) {
            reason = reason ? reason : ERR_GET_REASON(ERR_peek_error());
        }
        int len = BIO_read(raw->out, bytes, sizeof bytes);
        hear(end, bytes, len > 0 ? (size_t)len : 0);
        size_t back = take(end, bytes, sizeof bytes);
        assert_int_equal(BIO_write(raw->in, bytes, (int)back), back);
        more = len > 0 || back > 0;
    }
    ERR_clear_error();
    return reason;
}

typedef void twist(SSL_CTX *context);

/* A client with one thing that a server of ours does not take. */
static void client_is_refused(twist *change, int code, const char *words, int reason)
{
    struct raw raw;
    struct end end;
    struct tls_setup *server = good_server();
    raw_init(&raw, false, NULL);
    change(raw.context);
    raw_begin(&raw, false);
    end_init(&end, server);
    int heard = raw_converse(&raw, &end);
    if (end.rc != code || !strstr(end.err.text, words)) {
        fail_msg("%s: %s", err_name(end.rc), end.err.text);
    }
    assert_int_equal(heard, reason);
    assert_false(channel_is_open(end.channel));
    end_fini(&end);
    raw_fini(&raw);
    tls_setup_free(server);
}

static void only_1_2(SSL_CTX *context)
{
    assert_int_equal(SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION), 1);
}

static void only_1_1(SSL_CTX *context)
{
    SSL_CTX_set_security_level(context, 0);
    assert_int_equal(SSL_CTX_set_min_proto_version(context, TLS1_VERSION), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(context, TLS1_1_VERSION), 1);
}

static void only_ccm(SSL_CTX *context)
{
    assert_int_equal(SSL_CTX_set_ciphersuites(context, "TLS_AES_128_CCM_SHA256:TLS_AES_128_CCM_8_SHA256"), 1);
    assert_int_equal(SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION), 1);
}

static void only_p521(SSL_CTX *context)
{
    assert_int_equal(SSL_CTX_set1_groups_list(context, "P-521:P-384:ffdhe2048"), 1);
    assert_int_equal(SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION), 1);
}

static void only_rsa(SSL_CTX *context)
{
    assert_int_equal(SSL_CTX_set1_sigalgs_list(context, "rsa_pss_rsae_sha256"), 1);
    assert_int_equal(SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION), 1);
}

static void only_another_protocol(SSL_CTX *context)
{
    assert_int_equal(SSL_CTX_set_alpn_protos(context, (const uint8_t *)"\2h2\012starling/2\011starling/", 24), 0);
}

static void no_protocol(SSL_CTX *context)
{
    assert_int_equal(SSL_CTX_set_alpn_protos(context, NULL, 0), 0);
}

static void test_what_clients_must_speak(void **state)
{
    (void)state;
    client_is_refused(only_another_protocol, ERR_VERSION, "does not offer the protocol \"starling/1\"",
                      SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
    client_is_refused(no_protocol, ERR_VERSION, "ALPN", SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
    client_is_refused(only_1_2, ERR_VERSION, "TLS 1.3", SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
    client_is_refused(only_1_1, ERR_VERSION, "TLS 1.3", SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
    client_is_refused(only_ccm, ERR_PROTOCOL, "no shared cipher", SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE);
    client_is_refused(only_p521, ERR_PROTOCOL, "no suitable key share", SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE);
    client_is_refused(only_rsa, ERR_PROTOCOL, "no suitable signature algorithm", SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE);
}

static int refuse_all(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *offered,
                      unsigned len, void *arg)
{
    (void)ssl, (void)out, (void)out_len, (void)offered, (void)len, (void)arg;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void takes_no_protocol(SSL_CTX *context)
{
    SSL_CTX_set_alpn_select_cb(context, NULL, NULL);
}

static void refuses_protocols(SSL_CTX *context)
{
    SSL_CTX_set_alpn_select_cb(context, refuse_all, NULL);
}

static void as_it_is(SSL_CTX *context)
{
    (void)context;
}

/* Servers with a good certificate: what is said of those that a client must not take. */
static void test_other_servers(void **state)
{
    (void)state;
    static const struct {
        twist *change;
        const char *words;
    } rows[] = {{only_1_2, "TLS 1.3"},
                {takes_no_protocol, "does not take the protocol \"starling/1\""},
                {refuses_protocols, "another service"},
                {as_it_is, NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct raw raw;
        struct end end;
        struct credential *credential = tls_credential(&ours, "coordinator", TRUST_SERVER, 0);
        struct tls_setup *client = good_client();
        raw_init(&raw, true, credential);
        rows[i].change(raw.context);
        raw_begin(&raw, true);
        end_init(&end, client);
        (void)raw_converse(&raw, &end);
        assert_int_equal(end.rc, rows[i].words ? ERR_VERSION : 0);
        assert_true(!rows[i].words || strstr(end.err.text, rows[i].words));
        assert_true(channel_is_open(end.channel) == !rows[i].words);
        end_fini(&end);
        raw_fini(&raw);
        credential_free(credential);
        tls_setup_free(client);
    }
}

/* A site signs a certificate for another name with its own key, and shows all of the chain. */
static void test_a_site_is_no_authority(void **state)
{
    (void)state;
    struct raw raw;
    struct end end;
    struct tls_setup *server = good_server();
    struct credential *site = tls_credential(&ours, "site-a", TRUST_TRAINER, 0), made = {0};
    struct trust_subject subject = *credential_subject(site);
    (void)snprintf(subject.name, sizeof subject.name, "site-b");
    assert_int_equal(key_new(&made.key, NULL), 0);
    assert_int_equal(certificate_new(site->key, site->certificate, &subject, NULL, made.key, &made.certificate, NULL),
                     0);
    made.ca = site->certificate;
    raw_init(&raw, false, &made);
    raw_begin(&raw, false);
    assert_int_equal(SSL_add1_chain_cert(raw.ssl, site->certificate), 1);
    assert_int_equal(SSL_add1_chain_cert(raw.ssl, site->ca), 1);
    end_init(&end, server);
    (void)raw_converse(&raw, &end);
    assert_int_equal(end.rc, ERR_ACCESS);
    assert_false(channel_is_open(end.channel));
    end_fini(&end);
    raw_fini(&raw);
    EVP_PKEY_free(made.key);
    X509_free(made.certificate);
    credential_free(site);
    tls_setup_free(server);
}

/* An intermediate authority is none: the root allows no path (pathlen 0) and we follow none. */
static void test_nothing_stands_between(void **state)
{
    (void)state;
    struct raw raw;
    struct end end;
    struct tls_setup *server = good_server();
    struct credential *site = tls_credential(&ours, "site-a", TRUST_TRAINER, 0), made = {0};
    EVP_PKEY *key;
    X509 *middle, *last;
    assert_int_equal(key_new(&key, NULL), 0);
    assert_int_equal(key_new(&made.key, NULL), 0);
    assert_int_equal(certificate_root(key, tls_now() - TLS_DAY, &middle, NULL), 0);
    assert_int_equal(certificate_new(key, middle, credential_subject(site), NULL, made.key, &last, NULL), 0);
    made.certificate = last;
    made.ca = middle; /* signed by itself alone: not ours at all */
    raw_init(&raw, false, &made);
    raw_begin(&raw, false);
    end_init(&end, server);
    (void)raw_converse(&raw, &end);
    assert_int_equal(end.rc, ERR_ACCESS);
    end_fini(&end);
    raw_fini(&raw);
    EVP_PKEY_free(key);
    EVP_PKEY_free(made.key);
    X509_free(middle);
    X509_free(last);
    credential_free(site);
    tls_setup_free(server);
}

/* Our authority's key has signed something that this program does not make: not a stranger without a certificate, whom
 * a server hears, but an error. */
static void test_a_certificate_that_says_nothing(void **state)
{
    (void)state;
    struct raw raw;
    struct end end;
    struct tls_setup *server = good_server();
    struct credential *site = tls_credential(&ours, "site-a", TRUST_TRAINER, 0), made = {.ca = site->ca};
    struct trust_subject subject = *credential_subject(site);
    char path[160];
    (void)snprintf(path, sizeof path, "%s/ca.key", ours.dir);
    BIO *file = BIO_new_file(path, "r");
    EVP_PKEY *key = PEM_read_bio_PrivateKey(file, NULL, NULL, NULL);
    subject.role = 77;
    assert_int_equal(key_new(&made.key, NULL), 0);
    assert_int_equal(certificate_new(key, site->ca, &subject, NULL, made.key, &made.certificate, NULL), 0);
    raw_init(&raw, false, &made);
    raw_begin(&raw, false);
    end_init(&end, server);
    (void)raw_converse(&raw, &end);
    assert_int_equal(end.rc, ERR_DATA);
    assert_false(channel_is_open(end.channel));
    assert_null(channel_peer(end.channel));
    end_fini(&end);
    raw_fini(&raw);
    BIO_free(file);
    EVP_PKEY_free(key);
    EVP_PKEY_free(made.key);
    X509_free(made.certificate);
    credential_free(site);
    tls_setup_free(server);
}

/* All in one piece, as one read of a socket may bring them. */
static void ask_for_keys(struct raw *raw, struct end *end, int count)
{
    static uint8_t bytes[1 << 20];
    for (int i = 0; i < count; i++) {
        assert_int_equal(SSL_key_update(raw->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(raw->ssl), 1);
    }
    int len = BIO_read(raw->out, bytes, sizeof bytes);
    assert_true(len >= count * 20);
    hear(end, bytes, (size_t)len);
}

/* Some are answered, with no more than was said; without end they are not. */
static void test_new_keys_again_and_again(void **state)
{
    (void)state;
    static uint8_t bytes[1 << 20];
    struct raw raw;
    struct end end;
    struct credential *site = tls_credential(&ours, "site-a", TRUST_TRAINER, 0);
    struct tls_setup *server = good_server();
    raw_init(&raw, false, site);
    raw_begin(&raw, false);
    end_init(&end, server);
    assert_int_equal(raw_converse(&raw, &end), 0);
    assert_peer(&end, "site-a", TRUST_TRAINER);
    ask_for_keys(&raw, &end, 64);
    assert_int_equal(end.rc, 0);
    assert_int_equal(SSL_write(raw.ssl, "still", 5), 5);
    assert_int_equal(raw_converse(&raw, &end), 0);
    assert_int_equal(end.got.len, 5);
    assert_int_equal(channel_write(end.channel, "here", 4, NULL), 0);
    size_t len = take(&end, bytes, sizeof bytes);
    assert_int_equal(BIO_write(raw.in, bytes, (int)len), len);
    char back[8];
    assert_int_equal(SSL_read(raw.ssl, back, sizeof back), 4);
    ask_for_keys(&raw, &end, 5000);
    assert_int_equal(end.rc, ERR_LIMIT);
    assert_in_range(channel_output(end.channel)->len, 0, 4096);
    end_fini(&end);
    raw_fini(&raw);
    credential_free(site);
    tls_setup_free(server);
}

/* ---- Memory ---- */

static uint64_t crypto_left = UINT64_MAX; /* allocations of OpenSSL that succeed from here on */

static bool crypto_fails(void)
{
    if (crypto_left == UINT64_MAX) {
        return false;
    }
    crypto_left -= crypto_left > 0;
    return crypto_left == 0;
}

static void *crypto_malloc(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return crypto_fails() ? NULL : malloc(size);
}

static void *crypto_realloc(void *old, size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return crypto_fails() ? NULL : realloc(old, size);
}

static void crypto_free(void *memory, const char *file, int line)
{
    (void)file, (void)line;
    free(memory);
}

/* A handshake and a word each way, as far as it gets. Asserts that whoever is open knows the right peer, and that what
 * arrives is what was said. Returns the first error. */
static int short_talk(struct tls_setup *server, struct tls_setup *client)
{
    static uint8_t bytes[1 << 16], plain[64];
    struct channel *ends[2] = {0};
    int rc = channel_new(server, &ends[0], NULL);
    rc = rc ? rc : channel_new(client, &ends[1], NULL);
    assert_true(rc == 0 || rc == ERR_NOMEM);
    bool said[2] = {0};
    size_t heard = 0;
    for (int turn = 0; turn < 10 && rc == 0; turn++) {
        struct channel *from = ends[(turn + 1) % 2], *to = ends[turn % 2];
        if (channel_is_open(from) && !said[turn % 2]) {
            rc = channel_write(from, "word", 4, NULL);
            said[turn % 2] = true;
        }
        struct buf *output = channel_output(from);
        size_t len = output->len, got = 0;
        assert_true(len < sizeof bytes);
        if (len > 0) {
            memcpy(bytes, output->data, len);
        }
        buf_consume(output, len);
        channel_input(to, bytes, len);
        struct err err;
        rc = rc || len == 0 ? rc : channel_read(to, plain, sizeof plain, &got, &err);
        assert_true(got == 0 || (got == 4 && memcmp(plain, "word", 4) == 0));
        heard += got;
        for (int i = 0; i < 2; i++) {
            const struct trust_subject *peer = channel_peer(ends[i]);
            assert_true(!peer || strcmp(peer->name, i == 0 ? "site-a" : "coordinator") == 0);
            assert_true(peer || !channel_is_open(ends[i]) || rc < 0);
        }
    }
    assert_true(rc < 0 || heard == 8);
    channel_free(ends[0]);
    channel_free(ends[1]);
    return rc;
}

static void test_our_memory(void **state)
{
    (void)state;
    struct tls_setup *server = good_server(), *client = good_client();
    int rc = ERR_NOMEM;
    for (uint64_t n = 1; rc < 0; n++) {
        mem_fail_after(n);
        rc = short_talk(server, client);
        mem_fail_after(0);
        assert_true(rc == 0 || rc == ERR_NOMEM || rc == ERR_FAILED);
        assert_true(n < 1000);
    }
    tls_setup_free(server);
    tls_setup_free(client);
}

static void test_memory_of_openssl(void **state)
{
    (void)state;
    struct credential *credential = tls_credential(&ours, "site-a", TRUST_TRAINER, 0);
    struct tls_setup *server = good_server(), *client = good_client(), *made = NULL;
    int rc = ERR_NOMEM;
    uint64_t n = 1;
    for (; rc < 0; n += 1 + n / 50) {
        crypto_left = n;
        rc = short_talk(server, client);
        crypto_left = UINT64_MAX;
        ERR_clear_error();
    }
    assert_true(n > 300);
    rc = ERR_NOMEM;
    for (n = 1; rc < 0; n += 1 + n / 50) {
        crypto_left = n;
        rc = n % 2 ? tls_setup_server(credential, &made, NULL) : tls_setup_joining(ours.pin, &made, NULL);
        crypto_left = UINT64_MAX;
        assert_true((rc == 0) == (made != NULL));
        ERR_clear_error();
    }
    tls_setup_free(made);
    credential_free(credential);
    tls_setup_free(server);
    tls_setup_free(client);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged_handshakes),
        cmocka_unit_test(test_damaged_data),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_last_word),
        cmocka_unit_test(test_floods_of_strangers),
        cmocka_unit_test(test_what_clients_must_speak),
        cmocka_unit_test(test_other_servers),
        cmocka_unit_test(test_a_site_is_no_authority),
        cmocka_unit_test(test_nothing_stands_between),
        cmocka_unit_test(test_a_certificate_that_says_nothing),
        cmocka_unit_test(test_new_keys_again_and_again),
        cmocka_unit_test(test_our_memory),
        cmocka_unit_test(test_memory_of_openssl),
    };
    if (CRYPTO_set_mem_functions(crypto_malloc, crypto_realloc, crypto_free) != 1) {
        return 1;
    }
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
