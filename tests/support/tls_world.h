/* An authority in a scratch folder, and TLS endpoints of it, for tests of channels and connections. Certificates are
 * judged by the machine's clock, so that is what their dates are reckoned from. */
#ifndef STARLING_TESTS_TLS_WORLD_H
#define STARLING_TESTS_TLS_WORLD_H

#include "common/base/mem.h"
#include "common/trust/authority.h"
#include "common/trust/channel.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TLS_DAY 86400

struct tls_world {
    char root[64], dir[128];
    struct authority *authority;
    uint8_t pin[32];
};

#define TLS_MUST(condition)                                                                                            \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                      \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static inline int64_t tls_now(void)
{
    return (int64_t)time(NULL);
}

/* `now` is when the authority is made: a certificate that begins before its authority is another matter. */
static inline void tls_world_init_at(struct tls_world *world, int64_t now)
{
    char text[TOKEN_TEXT_MAX];
    struct token token;
    *world = (struct tls_world){.root = "/tmp/starling-tls-XXXXXX"};
    TLS_MUST(mkdtemp(world->root));
    (void)snprintf(world->dir, sizeof world->dir, "%s/trust", world->root);
    TLS_MUST(authority_init(world->dir, "127.0.0.1:7640", now, NULL) == 0);
    TLS_MUST(authority_open(world->dir, &world->authority, NULL) == 0);
    TLS_MUST(authority_token(world->authority, "site", TRUST_TRAINER, TLS_DAY, now, text, NULL) == 0);
    TLS_MUST(token_read(text, &token, NULL) == 0);
    memcpy(world->pin, token.pin, sizeof world->pin);
}

static inline void tls_world_init(struct tls_world *world)
{
    tls_world_init_at(world, tls_now() - 100 * TLS_DAY);
}

static inline int tls_remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st, (void)kind, (void)where;
    return remove(path);
}

static inline void tls_world_fini(struct tls_world *world)
{
    authority_close(world->authority);
    (void)nftw(world->root, tls_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* A credential that was made so many seconds from now, for a day. */
static inline struct credential *tls_credential(struct tls_world *world, const char *name, uint32_t role, int64_t from)
{
    struct credential *credential;
    TLS_MUST(authority_credential(world->authority, name, role, TLS_DAY, tls_now() + from, &credential, NULL) == 0);
    return credential;
}

static inline struct tls_setup *tls_server_of(struct tls_world *world, const char *name, uint32_t role, int64_t from)
{
    struct credential *credential = tls_credential(world, name, role, from);
    struct tls_setup *setup;
    TLS_MUST(tls_setup_server(credential, &setup, NULL) == 0);
    credential_free(credential);
    return setup;
}

static inline struct tls_setup *tls_client_of(struct tls_world *world, const char *name, uint32_t role, int64_t from)
{
    struct credential *credential = tls_credential(world, name, role, from);
    struct tls_setup *setup;
    TLS_MUST(tls_setup_client(credential, &setup, NULL) == 0);
    credential_free(credential);
    return setup;
}

static inline struct tls_setup *tls_joining(const uint8_t pin[32])
{
    struct tls_setup *setup;
    TLS_MUST(tls_setup_joining(pin, &setup, NULL) == 0);
    return setup;
}

#endif
