/* OpenSSL reads and writes through a BIO of our own: it takes bytes straight from the caller's read buffer and appends
 * to the channel's output, so that an idle connection keeps no buffer of ours, and those of OpenSSL are released.
 *
 * Before the handshake is done a stranger may make us take in HANDSHAKE_MAX bytes and no more: one certificate chain
 * with room to spare. */
#include "common/trust/channel.h"

#include "common/base/mem.h"
#include "common/trust/internal.h"

#include <string.h>

#define PIN_BYTES     32
#define HANDSHAKE_MAX ((size_t)16 << 10)
#define CHAIN_MAX     ((long)8 << 10)
#define LATER_MAX     64 /* messages of TLS's own behind the handshake: new keys. Ours send none. */
#define OUTPUT_MAX    ((size_t)1 << 20)
#define RECORD_MAX    ((size_t)16 << 10)
#define RECORD_EXTRA  ((size_t)22) /* header, type and tag */
#define CIPHERSUITES  "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define GROUPS        "X25519:P-256"
#define CHAIN_DEPTH   0 /* the CA signs what peers show; nothing stands between */

static const unsigned char protocol[] = "\012starling/1"; /* as ALPN lists it: its length goes before a name */
#define PROTOCOL_BYTES ((unsigned)sizeof protocol - 1)

struct tls_setup {
    SSL_CTX *context;
    unsigned users; /* beside the first */
    bool server;
    uint8_t pin[PIN_BYTES];
};

struct channel {
    SSL *ssl;
    uint8_t pin[PIN_BYTES]; /* the setup's; that may be gone by the time the certificate comes */
    const uint8_t *input;
    size_t input_len;
    struct buf output;
    size_t shaken; /* bytes that the handshake has taken in */
    size_t later;  /* messages of TLS's own since then */
    bool open, ended, known;
    bool failed;  /* sticky */
    bool starved; /* the output has found no memory */
    struct trust_subject peer;
};

/* ---- The BIO ---- */

static int bio_read(BIO *bio, char *out, size_t size, size_t *got)
{
    struct channel *channel = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (channel->input_len == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    size_t n = size < channel->input_len ? size : channel->input_len;
    if (!channel->open && n > HANDSHAKE_MAX - channel->shaken) {
        channel->shaken = HANDSHAKE_MAX + 1;
        return 0;
    }
    if (channel->later > LATER_MAX) {
        return 0;
    }
    channel->shaken += channel->open ? 0 : n;
    memcpy(out, channel->input, n);
    channel->input += n;
    channel->input_len -= n;
    *got = n;
    return 1;
}

static int bio_write(BIO *bio, const char *data, size_t len, size_t *written)
{
    struct channel *channel = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (buf_append(&channel->output, data, len)) {
        channel->starved = true;
        return 0;
    }
    *written = len;
    return 1;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

/* Made once and never freed: OpenSSL's own tables live as long. */
static BIO_METHOD *bio_method(void)
{
    static BIO_METHOD *method;
    if (!method) {
        method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "starling channel");
        if (method) {
            (void)BIO_meth_set_read_ex(method, bio_read);
            (void)BIO_meth_set_write_ex(method, bio_write);
            (void)BIO_meth_set_ctrl(method, bio_control);
        }
    }
    return method;
}

/* ---- Setups ---- */

/* The pinned CA comes in the server's own chain. It is trusted if its key is the one that the token names; the rest of
 * the verification is OpenSSL's. */
static int verify_pinned(X509_STORE_CTX *store, void *arg)
{
    (void)arg;
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    const struct channel *channel = BIO_get_data(SSL_get_rbio(ssl));
    STACK_OF(X509) *chain = X509_STORE_CTX_get0_untrusted(store);
    STACK_OF(X509) *trusted = sk_X509_new_null();
    for (int i = 0; trusted && i < sk_X509_num(chain); i++) {
        uint8_t pin[PIN_BYTES];
        if (certificate_pin(sk_X509_value(chain, i), pin, NULL) == 0 &&
            CRYPTO_memcmp(pin, channel->pin, sizeof pin) == 0) {
            (void)sk_X509_push(trusted, sk_X509_value(chain, i));
        }
    }
    X509_STORE_CTX_set0_trusted_stack(store, trusted); /* borrowed until the verification is done */
    int ok = X509_verify_cert(store);
    X509_STORE_CTX_set0_trusted_stack(store, NULL);
    sk_X509_free(trusted);
    return ok;
}

/* Who offers no protocol at all is refused before a signature is made for it; choose_protocol would not be asked. */
static int demand_protocols(SSL *ssl, int *alert, void *arg)
{
    const unsigned char *offered;
    size_t len;
    (void)arg;
    *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
    return SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &offered, &len)
               ? SSL_CLIENT_HELLO_SUCCESS
               : SSL_CLIENT_HELLO_ERROR;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *offered,
                           unsigned len, void *arg)
{
    (void)ssl, (void)arg;
    *out = protocol + 1;
    *out_len = protocol[0];
    unsigned char *chosen, chosen_len;
    return SSL_select_next_proto(&chosen, &chosen_len, protocol, PROTOCOL_BYTES, offered, len) == OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool set_common(SSL_CTX *context)
{
    SSL_CTX_set_max_cert_list(context, CHAIN_MAX);
    SSL_CTX_set_verify_depth(context, CHAIN_DEPTH);
    (void)SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN | SSL_MODE_AUTO_RETRY);
    (void)SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_client_hello_cb(context, demand_protocols, NULL);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_ciphersuites(context, CIPHERSUITES) == 1 && SSL_CTX_set1_groups_list(context, GROUPS) == 1 &&
           SSL_CTX_set_num_tickets(context, 0) == 1 && SSL_CTX_set_alpn_protos(context, protocol, PROTOCOL_BYTES) == 0;
}

/* The chain that is shown holds the CA, since whoever joins knows only its pin. */
static bool set_credential(SSL_CTX *context, const struct credential *credential)
{
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    STACK_OF(X509) *chain = sk_X509_new_null();
    bool ok = chain && sk_X509_push(chain, credential->ca) > 0 &&
              SSL_CTX_use_cert_and_key(context, credential->certificate, credential->key, chain, 1) == 1 &&
              X509_STORE_add_cert(store, credential->ca) == 1;
    sk_X509_free(chain);
    return ok;
}

static int setup_new(const SSL_METHOD *method, const struct credential *credential, struct tls_setup **out,
                     struct err *err)
{
    *out = NULL;
    struct tls_setup *setup = mem_new(1, sizeof *setup);
    if (!setup) {
        return err_set(err, ERR_NOMEM, "out of memory for TLS");
    }
    setup->context = SSL_CTX_new(method);
    if (!setup->context || !set_common(setup->context) || (credential && !set_credential(setup->context, credential))) {
        tls_setup_free(setup);
        return trust_fail(err, ERR_FAILED, "TLS cannot be set up");
    }
    *out = setup;
    return 0;
}

int tls_setup_server(const struct credential *credential, struct tls_setup **out, struct err *err)
{
    int rc = setup_new(TLS_server_method(), credential, out, err);
    if (rc == 0) {
        (*out)->server = true;
        SSL_CTX_set_verify((*out)->context, SSL_VERIFY_PEER, NULL);
    }
    return rc;
}

int tls_setup_client(const struct credential *credential, struct tls_setup **out, struct err *err)
{
    int rc = setup_new(TLS_client_method(), credential, out, err);
    if (rc == 0) {
        SSL_CTX_set_verify((*out)->context, SSL_VERIFY_PEER, NULL);
    }
    return rc;
}

int tls_setup_joining(const uint8_t pin[PIN_BYTES], struct tls_setup **out, struct err *err)
{
    int rc = setup_new(TLS_client_method(), NULL, out, err);
    if (rc == 0) {
        memcpy((*out)->pin, pin, PIN_BYTES);
        SSL_CTX_set_verify((*out)->context, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_cert_verify_callback((*out)->context, verify_pinned, NULL);
    }
    return rc;
}

bool tls_setup_is_server(const struct tls_setup *setup)
{
    return setup->server;
}

struct tls_setup *tls_setup_ref(struct tls_setup *setup)
{
    setup->users++;
    return setup;
}

void tls_setup_free(struct tls_setup *setup)
{
    if (setup && setup->users-- == 0) {
        SSL_CTX_free(setup->context);
        mem_free(setup);
    }
}

/* ---- A channel ---- */

/* A request for new keys costs us a hundred times what it costs the peer. */
static void on_tls_message(int written, int version, int type, const void *data, size_t len, SSL *ssl, void *arg)
{
    (void)version, (void)data, (void)len, (void)ssl;
    struct channel *channel = arg;
    channel->later += channel->open && !written && type == SSL3_RT_HANDSHAKE;
}

int channel_new(struct tls_setup *setup, struct channel **out, struct err *err)
{
    *out = NULL;
    struct channel *channel = mem_new(1, sizeof *channel);
    if (!channel) {
        return err_set(err, ERR_NOMEM, "out of memory for a TLS connection");
    }
    buf_init(&channel->output, OUTPUT_MAX);
    memcpy(channel->pin, setup->pin, sizeof channel->pin);
    channel->ssl = SSL_new(setup->context);
    BIO *bio = channel->ssl && bio_method() ? BIO_new(bio_method()) : NULL;
    if (!bio) {
        channel_free(channel);
        return trust_fail(err, ERR_NOMEM, "out of memory for a TLS connection");
    }
    BIO_set_data(bio, channel);
    BIO_set_init(bio, 1);
    SSL_set_bio(channel->ssl, bio, bio);
    SSL_set_msg_callback(channel->ssl, on_tls_message);
    SSL_set_msg_callback_arg(channel->ssl, channel);
    if (setup->server) {
        SSL_set_accept_state(channel->ssl);
    } else {
        SSL_set_connect_state(channel->ssl);
        ERR_clear_error();
        int result = SSL_do_handshake(channel->ssl); /* the first bytes; then it waits for an answer */
        if (SSL_get_error(channel->ssl, result) != SSL_ERROR_WANT_READ) {
            channel_free(channel);
            return trust_fail(err, ERR_NOMEM, "TLS cannot begin");
        }
    }
    *out = channel;
    return 0;
}

void channel_free(struct channel *channel)
{
    if (channel) {
        SSL_free(channel->ssl);
        buf_fini(&channel->output);
        mem_free(channel);
    }
}

void channel_input(struct channel *channel, const void *data, size_t len)
{
    channel->input = data;
    channel->input_len = len;
}

/* Our side does not trust the peer's certificate. */
static int explain_verification(const struct channel *channel, struct err *err)
{
    long verified = SSL_get_verify_result(channel->ssl);
    switch (verified) {
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return err_set(err, ERR_ACCESS, "the peer's certificate is not valid yet: one of the two clocks is wrong");
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return err_set(err, ERR_ACCESS,
                       "the peer's certificate has expired: it needs a new one, or one of the clocks is wrong");
    case X509_V_ERR_INVALID_PURPOSE:
        return err_set(err, ERR_ACCESS,
                       "the peer's certificate is of our CA, but was made for another purpose than to %s",
                       SSL_is_server(channel->ssl) ? "be a client" : "be the server");
    case X509_V_ERR_OUT_OF_MEM:
        return err_set(err, ERR_NOMEM, "out of memory for the peer's certificate");
    default:
        return err_set(err, ERR_ACCESS,
                       SSL_is_server(channel->ssl)
                           ? "the client's certificate is not of this server's CA (%s)"
                           : "the server's certificate is not of the CA that the token came from (%s): it is another "
                             "server, or somebody stands between",
                       X509_verify_cert_error_string(verified));
    }
}

static int explain_protocol(const struct channel *channel, struct err *err)
{
    return err_set(
        err, ERR_VERSION,
        SSL_is_server(channel->ssl)
            ? "the peer does not offer the protocol \"%s\" in TLS (ALPN): it is no client of Starling, or one "
              "of another version"
            : "the peer does not take the protocol \"%s\" in TLS (ALPN): it is another service, or a server "
              "of another version",
        (const char *)protocol + 1);
}

/* What a person can do about what OpenSSL found. */
static int explain(struct channel *channel, struct err *err)
{
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    const char *mend = SSL_is_server(channel->ssl) ? "" : "; join again with a new token of this server";
    channel->failed = true;
    ERR_clear_error();
    if (channel->shaken > HANDSHAKE_MAX) {
        return err_set(err, ERR_PROTOCOL, "more than %zu bytes, and TLS's handshake is not done", HANDSHAKE_MAX);
    }
    if (channel->later > LATER_MAX) {
        return err_set(err, ERR_LIMIT, "asks for new keys without end");
    }
    if (channel->starved || ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE) {
        return err_set(err, ERR_NOMEM, "out of memory for TLS");
    }
    switch (reason) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
        return explain_verification(channel, err);
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
        return err_set(err, ERR_ACCESS, "the peer says that our certificate has expired%s", mend);
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE: /* not valid yet, for one */
        return err_set(err, ERR_ACCESS, "the peer does not trust our certificate%s, or set the clocks right", mend);
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
        return err_set(err, ERR_ACCESS, "the peer does not trust our certificate: it is of another CA%s", mend);
    case SSL_R_UNSUPPORTED_PROTOCOL:
        return err_set(err, ERR_VERSION, "the peer does not speak TLS 1.3, which is the least that this side takes");
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
        return err_set(err, ERR_VERSION, "the peer refuses TLS 1.3: an old program, or a server that speaks plain TCP");
    case SSL_R_NO_APPLICATION_PROTOCOL:
    case SSL_R_CALLBACK_FAILED: /* demand_protocols */
    case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
        return explain_protocol(channel, err);
    default:
        return err_set(err, ERR_PROTOCOL, "TLS: %s", text ? text : "broken");
    }
}

/* A server may leave ALPN unanswered. */
static int check_protocol(const struct channel *channel, struct err *err)
{
    const unsigned char *chosen;
    unsigned len;
    SSL_get0_alpn_selected(channel->ssl, &chosen, &len);
    return len == protocol[0] && memcmp(chosen, protocol + 1, len) == 0 ? 0 : explain_protocol(channel, err);
}

/* The handshake is done: who is it? Somebody whose certificate says nothing that we understand is not "nobody". */
static int note_peer(struct channel *channel, struct err *err)
{
    X509 *certificate = SSL_get0_peer_certificate(channel->ssl);
    int rc = check_protocol(channel, err);
    rc = rc || !certificate ? rc : subject_of(certificate, &channel->peer, err);
    channel->known = certificate && rc == 0;
    channel->open = rc == 0;
    channel->failed = rc < 0;
    return rc;
}

static int judge(struct channel *channel, int result, struct err *err)
{
    switch (SSL_get_error(channel->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return 0;
    case SSL_ERROR_ZERO_RETURN:
        channel->ended = channel->open;
        channel->failed = !channel->open;
        return channel->open ? 0 : err_set(err, ERR_PROTOCOL, "the peer ended TLS in its handshake");
    default:
        return explain(channel, err);
    }
}

static int shake_hands(struct channel *channel, struct err *err)
{
    int result = SSL_do_handshake(channel->ssl);
    return result == 1 ? note_peer(channel, err) : judge(channel, result, err);
}

int channel_read(struct channel *channel, void *out, size_t size, size_t *got, struct err *err)
{
    *got = 0;
    if (channel->failed) {
        return err_set(err, ERR_STATE, "the TLS connection has failed before");
    }
    if (channel->ended) {
        channel->input_len = 0;
        return 0;
    }
    ERR_clear_error();
    if (!channel->open) {
        int rc = shake_hands(channel, err);
        if (rc < 0 || !channel->open) {
            return rc;
        }
    }
    while (*got < size && !channel->ended) {
        size_t n = 0;
        int result = SSL_read_ex(channel->ssl, (uint8_t *)out + *got, size - *got, &n);
        if (result != 1) {
            int rc = judge(channel, result, err);
            if (rc < 0) {
                return rc;
            }
            break;
        }
        *got += n;
    }
    return 0;
}

int channel_write(struct channel *channel, const void *data, size_t len, struct err *err)
{
    if (!channel->open || channel->failed) {
        return err_set(err, ERR_STATE, "the TLS connection is not open");
    }
    int rc =
        buf_reserve(&channel->output, len + (len / RECORD_MAX + 1) * RECORD_EXTRA); /* grows once, not by records */
    if (rc < 0) {
        return err_set(err, rc, "%s", err_meaning(rc));
    }
    ERR_clear_error();
    for (size_t done = 0; done < len;) {
        size_t n = 0;
        size_t piece = len - done < RECORD_MAX ? len - done : RECORD_MAX;
        if (SSL_write_ex(channel->ssl, (const uint8_t *)data + done, piece, &n) != 1) {
            channel->failed = true;
            return trust_fail(err, ERR_FAILED, "TLS cannot encrypt");
        }
        done += n;
    }
    return 0;
}

void channel_end(struct channel *channel)
{
    /* Said once: OpenSSL would take a second time for the wish to read the peer's. */
    if (channel->open && !channel->failed && !(SSL_get_shutdown(channel->ssl) & SSL_SENT_SHUTDOWN)) {
        ERR_clear_error();
        (void)SSL_shutdown(channel->ssl);
        ERR_clear_error();
    }
}

struct buf *channel_output(struct channel *channel)
{
    return &channel->output;
}

bool channel_is_open(const struct channel *channel)
{
    return channel->open;
}

bool channel_has_ended(const struct channel *channel)
{
    return channel->ended;
}

const struct trust_subject *channel_peer(const struct channel *channel)
{
    return channel->known ? &channel->peer : NULL;
}
