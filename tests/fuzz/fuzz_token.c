/* Tokens. Input: byte 0 odd: the rest are a token's bytes, whose checksum and base64 are mended; even: the rest is the
 * text.
 *
 * Must hold: what is accepted is written again to the letter, has a name, a role and an address, and is no server's; of
 * what is refused nothing stays. */
#include "common/base/byteorder.h"
#include "common/base/hash.h"
#include "common/trust/internal.h"
#include "common/trust/token.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : abort())

enum { BYTES_MAX = 700 };

static void mend(const uint8_t *bytes, size_t len, char text[TOKEN_TEXT_MAX + 1])
{
    uint8_t whole[BYTES_MAX + 4];
    memcpy(whole, bytes, len);
    store_u32(whole + len, crc32c(0, bytes, len));
    memcpy(text, "starling1:", 11);
    (void)EVP_EncodeBlock((unsigned char *)text + 10, whole, (int)len + 4);
    for (char *c = text; *c; c++) {
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    }
    text[strcspn(text, "=")] = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[TOKEN_TEXT_MAX + 1] = {0}, again[TOKEN_TEXT_MAX], host[TRUST_HOST_MAX];
    struct token token;
    const struct token nothing = {0};
    if (size < 1 || size - 1 > ((data[0] & 1) ? BYTES_MAX : TOKEN_TEXT_MAX)) {
        return 0;
    }
    if (data[0] & 1) {
        mend(data + 1, size - 1, text);
    } else {
        memcpy(text, data + 1, size - 1);
    }
    if (token_read(text, &token, NULL)) {
        REQUIRE(memcmp(&token, &nothing, sizeof token) == 0);
        return 0;
    }
    text[strcspn(text, "\n")] = 0;
    REQUIRE(token_write(&token, again, NULL) == 0 && strcmp(text, again) == 0);
    REQUIRE(name_is_valid(token.name) && token.role != TRUST_SERVER && token.expires > 0);
    REQUIRE(trust_host(token.address, host, NULL) == 0);
    return 0;
}
