/* A token is "starling1:" and, in URL-safe base64 (RFC 4648, 5) without padding, these bytes; numbers little-endian:
 *
 *     0        1  version, 1
 *     1        8  expires, unix seconds
 *     9        1  role: 1 trainer, 2 observer, 3 operator
 *     10       1  n: bytes of the name
 *     11       n  name
 *     11+n     2  m: bytes of the address
 *     13+n     m  address, "host:port" or "[ipv6]:port"
 *     13+n+m   32 pin
 *     45+n+m   32 secret
 *     77+n+m   4  CRC-32C of all before
 *
 * Valid if and only if (1) the lengths fit, (2) name, role, address and expiry are ones that an authority gives, and
 * (3) writing what was read gives the same text, to the letter, checksum and all: so there is one text a token, and
 * neither spaces nor spare bits nor bytes behind the end. */
#include "common/trust/token.h"

#include "common/base/byteorder.h"
#include "common/base/hash.h"
#include "common/trust/internal.h"

#include <stdio.h>
#include <string.h>

#define PREFIX    "starling1:"
#define VERSION   1
#define FIXED     81 /* bytes beside name and address */
#define BYTES_MAX ((size_t)FIXED + NAME_MAX_BYTES - 1 + TRUST_ADDRESS_MAX - 1)
#define TEXT_MAX  (sizeof PREFIX - 1 + (BYTES_MAX + 2) / 3 * 4) /* with padding, before it is cut off */
_Static_assert(TEXT_MAX < TOKEN_TEXT_MAX, "a token fits");

static int check(const struct token *token, struct err *err)
{
    char host[TRUST_HOST_MAX];
    if (!name_is_valid(token->name) || token->role < TRUST_TRAINER || token->role > TRUST_OPERATOR ||
        token->expires <= 0 || trust_host(token->address, host, NULL)) {
        return err_set(err, ERR_DATA, "token: name, role, address or expiry are impossible");
    }
    return 0;
}

int token_write(const struct token *token, char out[TOKEN_TEXT_MAX], struct err *err)
{
    uint8_t bytes[BYTES_MAX + 2];
    int rc = check(token, err);
    out[0] = '\0';
    if (rc) {
        return rc;
    }
    size_t name = strlen(token->name), address = strlen(token->address);
    uint8_t *at = bytes;
    *at = VERSION;
    store_u64(at + 1, (uint64_t)token->expires);
    at[9] = (uint8_t)token->role;
    at[10] = (uint8_t)name;
    memcpy(at + 11, token->name, name);
    at += 11 + name;
    store_u16(at, (uint32_t)address);
    memcpy(at + 2, token->address, address);
    at += 2 + address;
    memcpy(at, token->pin, 32);
    memcpy(at + 32, token->secret, 32);
    at += 64;
    size_t len = (size_t)(at - bytes);
    store_u32(at, crc32c(0, bytes, len));
    memcpy(out, PREFIX, sizeof PREFIX);
    char *text = out + sizeof PREFIX - 1;
    (void)EVP_EncodeBlock((unsigned char *)text, bytes, (int)len + 4);
    for (; *text; text++) {
        *text = *text == '+' ? '-' : *text == '/' ? '_' : *text;
    }
    while (text[-1] == '=') {
        *--text = '\0';
    }
    OPENSSL_cleanse(bytes, sizeof bytes);
    return 0;
}

/* bytes[0, len) into *out, the checksum apart; false: not a token's bytes. */
static bool parse(const uint8_t *bytes, size_t len, struct token *out)
{
    if (len < FIXED || bytes[0] != VERSION || bytes[10] >= NAME_MAX_BYTES) {
        return false;
    }
    size_t name = bytes[10];
    if (len < FIXED + name) {
        return false;
    }
    size_t address = load_u16(bytes + 11 + name);
    if (address >= TRUST_ADDRESS_MAX || len != FIXED + name + address) {
        return false;
    }
    const uint8_t *tail = bytes + 13 + name + address;
    out->expires = (int64_t)load_u64(bytes + 1);
    out->role = bytes[9];
    memcpy(out->name, bytes + 11, name);
    memcpy(out->address, bytes + 13 + name, address);
    memcpy(out->pin, tail, 32);
    memcpy(out->secret, tail + 32, 32);
    return true;
}

/* text[0, len), as base64url, into out; the number of bytes, 0 when it is none. */
static size_t decode(const char *text, size_t len, uint8_t out[TOKEN_TEXT_MAX])
{
    unsigned char padded[TOKEN_TEXT_MAX];
    size_t full = (len + 3) / 4 * 4;
    for (size_t i = 0; i < full; i++) {
        char c = i < len ? text[i] : '=';
        padded[i] = (unsigned char)(c == '-' ? '+' : c == '_' ? '/' : c);
    }
    int bytes = EVP_DecodeBlock(out, padded, (int)full);
    OPENSSL_cleanse(padded, sizeof padded);
    ERR_clear_error();
    return bytes < (int)(full - len) ? 0 : (size_t)bytes - (full - len);
}

int token_read(const char *text, struct token *out, struct err *err)
{
    uint8_t bytes[TOKEN_TEXT_MAX] = {0};
    char again[TOKEN_TEXT_MAX] = {0};
    size_t len = strnlen(text, TOKEN_TEXT_MAX + 1), head = sizeof PREFIX - 1;
    *out = (struct token){0};
    len -= len > 0 && text[len - 1] == '\n';
    if (len < head || memcmp(text, PREFIX, head) != 0) {
        size_t digits = len > 8 && memcmp(text, PREFIX, 8) == 0 ? strspn(text + 8, "0123456789") : 0;
        return digits > 0 && text[8 + digits] == ':'
                   ? err_set(err, ERR_VERSION, "token: made by another version of Starling; install that one here")
                   : err_set(err, ERR_DATA, "token: it does not begin with " PREFIX " and is none");
    }
    bool ok = len < TOKEN_TEXT_MAX && parse(bytes, decode(text + head, len - head, bytes), out) &&
              token_write(out, again, NULL) == 0 && strlen(again) == len && memcmp(again, text, len) == 0;
    OPENSSL_cleanse(bytes, sizeof bytes);
    OPENSSL_cleanse(again, sizeof again);
    if (!ok) {
        OPENSSL_cleanse(out, sizeof *out);
        return err_set(err, ERR_DATA, "token: cut or mistyped; copy the whole line that starling ca token printed");
    }
    return 0;
}

int token_id(const uint8_t secret[32], char id[TOKEN_ID_BYTES], struct err *err)
{
    uint8_t digest[TRUST_DIGEST];
    int rc = trust_digest(secret, 32, digest, err);
    for (size_t i = 0; i < sizeof digest && rc == 0; i++) {
        (void)snprintf(id + 2 * i, 3, "%02x", digest[i]);
    }
    return rc;
}
