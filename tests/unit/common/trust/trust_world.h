/* What the tests of trust share: a scratch folder with an authority in it, a fixed time, and files to look into. */
#ifndef TESTS_TRUST_WORLD_H
#define TESTS_TRUST_WORLD_H

#include "common/base/mem.h"
#include "common/trust/authority.h"
#include "common/trust/identity.h"
#include "common/trust/internal.h"
#include "common/trust/vault.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NOW     INT64_C(1800000000)
#define HOUR    3600
#define DAY     86400
#define ADDRESS "coordinator.example:7640"

struct world {
    char root[64], dir[128];
    struct authority *authority;
};

static inline int world_setup(void **state)
{
    struct world *w = mem_new(1, sizeof *w);
    struct err err;
    (void)snprintf(w->root, sizeof w->root, "/tmp/starling-trust-XXXXXX");
    assert_non_null(mkdtemp(w->root));
    (void)snprintf(w->dir, sizeof w->dir, "%s/trust", w->root);
    assert_int_equal(authority_init(w->dir, ADDRESS, NOW, &err), 0);
    assert_int_equal(authority_open(w->dir, &w->authority, &err), 0);
    *state = w;
    return 0;
}

static inline int world_remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st, (void)kind, (void)where;
    return remove(path);
}

static inline int world_teardown(void **state)
{
    struct world *w = *state;
    authority_close(w->authority);
    (void)nftw(w->root, world_remove_one, 8, FTW_DEPTH | FTW_PHYS);
    mem_free(w);
    return 0;
}

static inline void world_reopen(struct world *w)
{
    authority_close(w->authority);
    w->authority = NULL;
    assert_int_equal(authority_open(w->dir, &w->authority, NULL), 0);
}

/* A new token for the name, read. */
static inline struct token world_token(struct world *w, const char *name, uint32_t role, int64_t now)
{
    char text[TOKEN_TEXT_MAX];
    struct token token;
    struct err err;
    assert_int_equal(authority_token(w->authority, name, role, HOUR, now, text, &err), 0);
    assert_int_equal(token_read(text, &token, &err), 0);
    return token;
}

static inline struct trust_subject world_join(struct world *w, const char *name)
{
    struct token token = world_token(w, name, TRUST_TRAINER, NOW);
    struct trust_subject subject;
    assert_int_equal(authority_redeem(w->authority, token.secret, NOW, &subject, NULL), 0);
    return subject;
}

struct file {
    uint8_t *data;
    size_t len;
};

static inline struct file file_read(const char *path)
{
    struct file file;
    assert_int_equal(disk_load(&disk_posix, path, 1 << 20, &file.data, &file.len, NULL), 0);
    return file;
}

static inline void file_write(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fchmod(fileno(file), 0600), 0);
    assert_int_equal(fclose(file), 0);
}

#endif
