/* TLS between two channels: what goes well, and who is refused. */
#include "tests/unit/common/trust/channel_world.h"

/* ---- What goes well ---- */

static void exchange(struct pair *pair, size_t len, size_t piece)
{
    uint8_t *data = malloc(len + 1);
    struct end *ends[] = {&pair->client, &pair->server};
    assert_non_null(data);
    for (size_t i = 0; i < len; i++) {
        data[i] = (uint8_t)dice(256);
    }
    for (int side = 0; side < 2; side++) {
        struct end *from = ends[side], *to = ends[1 - side];
        to->got.len = 0;
        for (size_t at = 0; at < len;) { /* as common/net does: a part is encrypted, and sent */
            size_t part = len - at < (64u << 10) ? len - at : (64u << 10);
            assert_int_equal(channel_write(from->channel, data + at, part, NULL), 0);
            assert_true(channel_output(from->channel)->len > part);
            at += part;
            (void)carry(from, to, piece);
        }
        assert_int_equal(to->rc, 0);
        assert_int_equal(to->got.len, len);
        assert_true(len == 0 || memcmp(to->got.data, data, len) == 0);
    }
    free(data);
}

static void close_both(struct pair *pair)
{
    channel_end(pair->client.channel);
    size_t len = channel_output(pair->client.channel)->len;
    channel_input(pair->client.channel, "unread", 6);
    channel_end(pair->client.channel);
    channel_input(pair->client.channel, NULL, 0);
    assert_int_equal(channel_output(pair->client.channel)->len, len);
    converse(pair, 1);
    assert_true(channel_has_ended(pair->server.channel));
    assert_false(channel_has_ended(pair->client.channel));
    /* The other direction goes on. */
    pair->client.got.len = 0;
    assert_int_equal(channel_write(pair->server.channel, "last", 4, NULL), 0);
    channel_end(pair->server.channel);
    converse(pair, 1);
    assert_int_equal(pair->client.got.len, 4);
    assert_true(channel_has_ended(pair->client.channel));
    assert_int_equal(pair->client.rc + pair->server.rc, 0);
    /* Nothing counts behind the last word. */
    hear(&pair->client, "more", 4);
    assert_int_equal(pair->client.rc, 0);
    assert_int_equal(pair->client.got.len, 4);
}

static void talks(struct tls_setup *server, struct tls_setup *client, const char *name)
{
    static const struct {
        size_t piece, bytes;
    } ways[] = {{1, 3000}, {0, 100000}, {5, 20000}, {WHOLE, 5u << 20}};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        struct pair pair;
        pair_init(&pair, server, client);
        assert_true(channel_output(pair.client.channel)->len > 0);
        assert_int_equal(channel_output(pair.server.channel)->len, 0);
        assert_int_equal(channel_write(pair.client.channel, "x", 1, NULL), ERR_STATE); /* not open yet */
        converse(&pair, ways[i].piece);
        assert_peer(&pair.server, name, TRUST_TRAINER);
        assert_peer(&pair.client, "coordinator", TRUST_SERVER);
        exchange(&pair, ways[i].bytes, ways[i].piece);
        exchange(&pair, 1, ways[i].piece);
        close_both(&pair);
        pair_fini(&pair);
    }
}

static void test_with_a_certificate(void **state)
{
    (void)state;
    struct tls_setup *server = tls_server_of(&ours, "coordinator", TRUST_SERVER, 0);
    struct tls_setup *client = tls_client_of(&ours, "site-a", TRUST_TRAINER, 0);
    assert_true(tls_setup_is_server(server));
    assert_false(tls_setup_is_server(client));
    talks(server, client, "site-a");
    tls_setup_free(server);
    tls_setup_free(client);
}

static void test_joining(void **state)
{
    (void)state;
    struct tls_setup *server = tls_server_of(&ours, "coordinator", TRUST_SERVER, 0);
    struct tls_setup *client = tls_joining(ours.pin);
    talks(server, client, NULL);
    tls_setup_free(server);
    tls_setup_free(client);
}

/* A renewed certificate replaces the setup while connections are open or about to be. */
static void test_channels_outlive_their_setup(void **state)
{
    (void)state;
    for (int joining = 0; joining < 2; joining++) {
        struct pair pair;
        struct tls_setup *server = good_server();
        struct tls_setup *client = joining ? tls_joining(ours.pin) : good_client();
        pair_init(&pair, server, client);
        tls_setup_free(server);
        tls_setup_free(client);
        converse(&pair, 0);
        assert_peer(&pair.server, joining ? NULL : "site-a", TRUST_TRAINER);
        exchange(&pair, 1000, 0);
        pair_fini(&pair);
    }
}

/* Cut anywhere, a handshake is no handshake: each end is open with the last byte of its peer's last flight. */
static void test_open_with_the_last_byte(void **state)
{
    (void)state;
    static uint8_t flight[1 << 16];
    struct pair pair;
    struct tls_setup *server = tls_server_of(&ours, "coordinator", TRUST_SERVER, 0);
    struct tls_setup *client = tls_client_of(&ours, "site-a", TRUST_TRAINER, 0);
    pair_init(&pair, server, client);
    (void)carry(&pair.client, &pair.server, 1);
    struct end *ends[] = {&pair.client, &pair.server};
    for (int i = 0; i < 2; i++) {
        size_t len = take(ends[1 - i], flight, sizeof flight);
        assert_true(len > 300);
        for (size_t at = 0; at < len; at++) {
            assert_false(channel_is_open(ends[i]->channel));
            assert_null(channel_peer(ends[i]->channel));
            hear(ends[i], flight + at, 1);
        }
        assert_true(channel_is_open(ends[i]->channel));
    }
    assert_int_equal(take(&pair.server, flight, sizeof flight), 0); /* no ticket */
    pair_fini(&pair);
    tls_setup_free(server);
    tls_setup_free(client);
}

/* ---- Who is refused ---- */

/* `refuser` fails with ERR_ACCESS and the words; the other end hears why. */
static void refuses(struct tls_setup *server, struct tls_setup *client, bool server_refuses, const char *words,
                    const char *heard)
{
    struct pair pair;
    pair_init(&pair, server, client);
    converse(&pair, WHOLE);
    struct end *refuser = server_refuses ? &pair.server : &pair.client;
    struct end *other = server_refuses ? &pair.client : &pair.server;
    if (refuser->rc != ERR_ACCESS || !strstr(refuser->err.text, words)) {
        fail_msg("%s: %s", err_name(refuser->rc), refuser->err.text);
    }
    if (other->rc != ERR_ACCESS || !strstr(other->err.text, heard)) {
        fail_msg("hears %s: %s", err_name(other->rc), other->err.text);
    }
    assert_false(channel_is_open(refuser->channel));
    assert_null(channel_peer(refuser->channel));
    /* A dead channel stays dead. */
    size_t got = 7;
    uint8_t byte;
    assert_int_equal(channel_read(refuser->channel, &byte, 1, &got, NULL), ERR_STATE);
    assert_int_equal(got, 0);
    assert_int_equal(channel_write(refuser->channel, "x", 1, NULL), ERR_STATE);
    assert_int_equal(channel_write(other->channel, "x", 1, NULL), ERR_STATE);
    channel_end(refuser->channel);
    assert_int_equal(channel_output(refuser->channel)->len, 0);
    pair_fini(&pair);
    tls_setup_free(server);
    tls_setup_free(client);
}

/* Its own chain says that it is theirs, so it knows whom it talks to and would take the server. */
static struct tls_setup *client_of_both(void)
{
    struct credential *credential = tls_credential(&theirs, "site-a", TRUST_TRAINER, 0);
    struct credential *server = tls_credential(&ours, "coordinator", TRUST_SERVER, 0);
    struct tls_setup *setup;
    X509 *ca = credential->ca;
    credential->ca = server->ca;
    server->ca = ca;
    assert_int_equal(tls_setup_client(credential, &setup, NULL), 0);
    credential_free(credential);
    credential_free(server);
    return setup;
}

static void test_of_another_authority(void **state)
{
    (void)state;
    refuses(good_server(), client_of_both(), true, "not of this server", "of another CA; join again with a new token");
    refuses(good_server(), tls_client_of(&theirs, "site-a", TRUST_TRAINER, 0), false, "not of the CA",
            "does not trust our certificate");
    refuses(tls_server_of(&theirs, "coordinator", TRUST_SERVER, 0), good_client(), false, "not of the CA",
            "does not trust our certificate");
}

static void test_dates(void **state)
{
    (void)state;
    static const char expired[] = "certificate has expired", early[] = "not valid yet";
    refuses(good_server(), tls_client_of(&ours, "site-a", TRUST_TRAINER, -2 * TLS_DAY), true, expired,
            "expired; join again");
    refuses(good_server(), tls_client_of(&ours, "site-a", TRUST_TRAINER, 3600), true, early, "clock");
    refuses(tls_server_of(&ours, "coordinator", TRUST_SERVER, -2 * TLS_DAY), good_client(), false, expired,
            "our certificate has expired");
    refuses(tls_server_of(&ours, "coordinator", TRUST_SERVER, 3600), good_client(), false, early, "clock");
    refuses(tls_server_of(&ours, "coordinator", TRUST_SERVER, -2 * TLS_DAY), tls_joining(ours.pin), false, expired,
            "our certificate has expired");
}

/* Whoever was let in as a site is no server, and the other way round. */
static void test_purposes(void **state)
{
    (void)state;
    static const char words[] = "of our CA, but was made for another purpose";
    refuses(tls_server_of(&ours, "site-b", TRUST_TRAINER, 0), good_client(), false, words, "our certificate");
    refuses(tls_server_of(&ours, "site-b", TRUST_OPERATOR, 0), tls_joining(ours.pin), false, words, "our certificate");
    refuses(good_server(), tls_client_of(&ours, "coordinator", TRUST_SERVER, 0), true, words, "our certificate");
}

static void test_pins(void **state)
{
    (void)state;
    uint8_t pin[32];
    refuses(good_server(), tls_joining(theirs.pin), false, "not of the CA", "does not trust our certificate");
    refuses(tls_server_of(&theirs, "coordinator", TRUST_SERVER, 0), tls_joining(ours.pin), false, "not of the CA",
            "does not trust our certificate");
    for (size_t i = 0; i < sizeof pin; i += 31) {
        memcpy(pin, ours.pin, sizeof pin);
        pin[i] ^= 1;
        refuses(good_server(), tls_joining(pin), false, "not of the CA", "does not trust our certificate");
    }
    /* A chain with the right CA in it, which has not signed what stands before it. */
    struct credential *mixed = tls_credential(&theirs, "coordinator", TRUST_SERVER, 0);
    struct credential *good = tls_credential(&ours, "coordinator", TRUST_SERVER, 0);
    struct tls_setup *setup;
    X509 *ca = mixed->ca;
    mixed->ca = good->ca;
    good->ca = ca;
    assert_int_equal(tls_setup_server(mixed, &setup, NULL), 0);
    refuses(setup, tls_joining(ours.pin), false, "not of the CA", "does not trust our certificate");
    credential_free(mixed);
    credential_free(good);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_with_a_certificate),
        cmocka_unit_test(test_joining),
        cmocka_unit_test(test_channels_outlive_their_setup),
        cmocka_unit_test(test_open_with_the_last_byte),
        cmocka_unit_test(test_of_another_authority),
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_purposes),
        cmocka_unit_test(test_pins),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
