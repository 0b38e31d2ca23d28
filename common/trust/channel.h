/* TLS 1.3 without I/O (RFC 8446, by OpenSSL): bytes of the network in, plaintext out, and the other way round. Nobody
 * here owns a socket; common/net does.
 *
 *   server: a setup of its credential. A client may come without a certificate, since that is how it asks for one; with
 *   one, it must be of the same CA. What somebody without one may say is the caller's to limit.
 *   client: a setup of its credential, or of the pin of a token when it has none yet. The server's certificate must be
 *   of the credential's CA, or of the CA whose key the pin names, and be made for a server. No host name is compared:
 *   the CA signs one server, and addresses change.
 *
 * Both demand the protocol "starling/1" (ALPN, RFC 7301), so that nobody who speaks another one over TLS is taken for
 * one of us. No session is resumed and no early data taken: every handshake proves the certificate anew. */
#ifndef STARLING_TRUST_CHANNEL_H
#define STARLING_TRUST_CHANNEL_H

#include "common/base/buf.h"
#include "common/trust/trust.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What channels are made of; one for all connections of a credential. Counted: each use that outlives the maker's has
 * one of its own (tls_setup_ref), and gives it back (tls_setup_free). One thread alone. */
struct tls_setup;
/* ERR_NOMEM, ERR_FAILED. The credential is needed no longer than the call. */
int tls_setup_server(const struct credential *credential, struct tls_setup **out, struct err *err);
int tls_setup_client(const struct credential *credential, struct tls_setup **out, struct err *err);
int tls_setup_joining(const uint8_t pin[32], struct tls_setup **out, struct err *err);
struct tls_setup *tls_setup_ref(struct tls_setup *setup);
bool tls_setup_is_server(const struct tls_setup *setup);
void tls_setup_free(struct tls_setup *setup); /* NULL is fine. Channels live on */

struct channel;
/* A client's channel has its first bytes ready at once: channel_output. */
int channel_new(struct tls_setup *setup, struct channel **out, struct err *err);
void channel_free(struct channel *channel); /* NULL is fine */

/* Bytes from the peer. They are borrowed until channel_read has said that there is no more. */
void channel_input(struct channel *channel, const void *data, size_t len);
/* Goes on with the handshake, then decrypts. *got = 0: all input is used up. Negative: the channel is dead, and what
 * channel_output still has (an alert) is to be sent. ERR_PROTOCOL: what came is no TLS, is damaged, or more than a
 * handshake needs; ERR_VERSION: no TLS 1.3, or another protocol in it; ERR_ACCESS: one of the two does not trust the
 * other's certificate; ERR_DATA: the certificate is of our CA, but none that we make; ERR_LIMIT: asks for new keys
 * without end; ERR_NOMEM. The sentence says why. */
int channel_read(struct channel *channel, void *out, size_t size, size_t *got, struct err *err);
/* Encrypts; only of an open channel. ERR_NOMEM, ERR_FAILED. */
int channel_write(struct channel *channel, const void *data, size_t len, struct err *err);
/* Says that nothing follows (close_notify). */
void channel_end(struct channel *channel);
/* What is to be sent; the caller takes it out (buf_consume, or by taking the buffer over). */
struct buf *channel_output(struct channel *channel);

bool channel_is_open(const struct channel *channel);   /* the handshake is done */
bool channel_has_ended(const struct channel *channel); /* the peer has said that nothing follows */
/* Who the peer's certificate says it is; NULL: it has none, or the handshake is not done. */
const struct trust_subject *channel_peer(const struct channel *channel);

#endif
