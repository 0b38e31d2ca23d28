/* A token: the line of text that a site gets, once, by a way that its people trust.
 *
 * It says whom to talk to (address), how to know that it is him (pin: SHA-256 of the public key, as
 * SubjectPublicKeyInfo, of the authority's certificate), and proves that the holder may join (secret). Name, role and
 * expiry stand in it for people and for an early answer; the authority goes by what it wrote down itself. */
#ifndef STARLING_TRUST_TOKEN_H
#define STARLING_TRUST_TOKEN_H

#include "common/trust/trust.h"

#define TOKEN_TEXT_MAX 1024 /* with the zero */
#define TOKEN_ID_BYTES 65   /* likewise */

struct token {
    char address[TRUST_ADDRESS_MAX];
    uint8_t pin[32];
    uint8_t secret[32];
    char name[NAME_MAX_BYTES];
    uint32_t role; /* not TRUST_SERVER */
    int64_t expires;
};

/* ERR_DATA for a field that token_read would refuse. */
int token_write(const struct token *token, char out[TOKEN_TEXT_MAX], struct err *err);
/* ERR_DATA: no token, cut, mistyped; ERR_VERSION: of another version. One newline at the end is allowed. The sentence
 * never repeats the text. Expiry is the caller's to judge. */
int token_read(const char *text, struct token *out, struct err *err);
/* What may be kept of a token, and names it: its secret's SHA-256, in hexadecimal digits. */
int token_id(const uint8_t secret[32], char id[TOKEN_ID_BYTES], struct err *err);

#endif
