/* What an authority decides: who gets a token, which secret is good, what is signed, who is revoked. Its files are
 * vault.c's, its certificates certificate.c's.
 *
 * Generations stand in for clocks. Each token takes the next number and gives it to its certificate, which hands it on
 * when it is renewed. A revocation writes down the highest number so far: the name's certificates up to it are void,
 * and a token that is made later has a higher one. */
#include "common/trust/authority.h"

#include "common/base/mem.h"
#include "common/trust/internal.h"
#include "common/trust/vault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALID_MAX_S (UINT64_C(20) * 31557600) /* as long as the authority itself */

struct authority {
    struct vault vault;
    EVP_PKEY *key;
    X509 *ca;
    uint8_t *der;
    size_t der_len;
    char address[TRUST_ADDRESS_MAX], host[TRUST_HOST_MAX];
    struct vault_entry *revoked; /* by name */
    size_t revoked_count;
};

static int write_pem(struct vault *vault, const char *name, EVP_PKEY *key, X509 *certificate, struct err *err)
{
    BIO *pem = pem_write(key, certificate, NULL);
    char *data = NULL;
    if (!pem) {
        return trust_fail(err, ERR_FAILED, "PEM");
    }
    long len = BIO_get_mem_data(pem, &data);
    int rc = vault_save(vault, name, data, (size_t)len, err);
    BIO_free(pem);
    return rc;
}

/* The key comes last: a folder without it is no authority yet. */
static int write_authority(struct vault *vault, const char *address, EVP_PKEY *key, X509 *ca, struct err *err)
{
    char line[TRUST_ADDRESS_MAX + 1], above[DISK_PATH_MAX];
    int len = snprintf(line, sizeof line, "%s\n", address);
    int rc = vault_path(vault, "..", above, err);
    rc = rc ? rc : vault_make_tokens(vault, err);
    rc = rc ? rc : vault_save(vault, "address", line, (size_t)len, err);
    rc = rc ? rc : vault_save(vault, "generation", "0\n", 2, err);
    rc = rc ? rc : vault_list_save(vault, "revoked", NULL, 0, err);
    rc = rc ? rc : vault_list_save(vault, "names", NULL, 0, err);
    rc = rc ? rc : write_pem(vault, "ca.pem", NULL, ca, err);
    rc = rc ? rc : write_pem(vault, "ca.key", key, NULL, err);
    if (rc == 0) {
        (void)vault->ops.sync_folder(vault, above); /* not every folder above may be read; then this one must do */
    }
    return rc;
}

/* What an init leaves that was cut off has let in nobody: its generation is 0. */
static bool has_let_in(struct vault *vault)
{
    uint8_t *data = NULL;
    size_t len = 0;
    int rc = vault_load(vault, "generation", &data, &len, NULL);
    bool none = rc == ERR_NOTFOUND || (rc == 0 && len == 2 && memcmp(data, "0\n", 2) == 0);
    vault_wipe(data, len);
    return !none;
}

static int init_locked(struct vault *vault, const char *address, int64_t now, struct err *err)
{
    uint8_t *old = NULL;
    size_t old_len;
    EVP_PKEY *key = NULL;
    X509 *ca = NULL;
    int rc = vault_load(vault, "ca.key", &old, &old_len, NULL);
    vault_wipe(old, old_len);
    if (rc != ERR_NOTFOUND) {
        return err_set(
            err, ERR_CANTCREATE,
            "%.200s: has a ca.key; a new authority there would shut out every site that the old one let in, so "
            "choose another folder, or move this one away",
            vault->path);
    }
    if (has_let_in(vault)) {
        return err_set(err, ERR_CANTCREATE,
                       "%.200s: an authority that has lost its ca.key; restore that from the backup, or choose another "
                       "folder for a new one",
                       vault->path);
    }
    rc = key_new(&key, err);
    rc = rc ? rc : certificate_root(key, now, &ca, err);
    rc = rc ? rc : write_authority(vault, address, key, ca, err);
    EVP_PKEY_free(key);
    X509_free(ca);
    return rc;
}

int authority_init(const char *dir, const char *address, int64_t now, struct err *err)
{
    char host[TRUST_HOST_MAX];
    struct vault vault;
    if (strlen(address) >= TRUST_ADDRESS_MAX) {
        return err_set(err, ERR_USAGE, "%.80s...: the address is too long", address);
    }
    int rc = trust_host(address, host, err);
    rc = rc ? rc : vault_make(dir, err);
    rc = rc ? rc : vault_check_new(dir, err);
    rc = rc ? rc : vault_open(&vault, dir, err);
    rc = rc ? rc : vault_lock(&vault, err);
    if (rc == 0) {
        rc = init_locked(&vault, address, now, err);
        vault_unlock(&vault);
    }
    return rc;
}

/* `name` is a file of one PEM block, a key or a certificate. */
static int read_pem(struct vault *vault, const char *name, EVP_PKEY **key, X509 **certificate, struct err *err)
{
    uint8_t *data;
    size_t len;
    int rc = vault_load(vault, name, &data, &len, err);
    if (rc) {
        return rc;
    }
    rc = pem_read(data, len, key, certificate, NULL, NULL);
    vault_wipe(data, len);
    return rc ? err_set(err, rc, "%.200s/%s: damaged; restore the folder from its backup", vault->path, name) : 0;
}

/* There is one, and it is nobody else's. */
static int find_authority(struct vault *vault, const char *dir, struct err *err)
{
    char path[DISK_PATH_MAX];
    int rc = vault_open(vault, dir, err);
    rc = rc ? rc : vault_path(vault, "ca.key", path, err);
    rc = rc ? rc : trust_private(path, false, err);
    if (rc == ERR_NOTFOUND && has_let_in(vault)) {
        return err_set(err, rc, "%.300s: ca.key is missing; restore it from the backup", dir);
    }
    return rc == ERR_NOTFOUND
               ? err_set(err, rc,
                         "%.300s: no authority is there; is it the right folder? `starling ca init` makes one, once",
                         dir)
               : rc;
}

static int read_authority(struct authority *authority, struct err *err)
{
    struct vault *vault = &authority->vault;
    int rc = read_pem(vault, "ca.key", &authority->key, NULL, err);
    rc = rc ? rc : read_pem(vault, "ca.pem", NULL, &authority->ca, err);
    if (rc == 0 &&
        (certificate_check_root(authority->ca, NULL) || X509_check_private_key(authority->ca, authority->key) != 1)) {
        ERR_clear_error();
        rc = err_set(err, ERR_DATA,
                     "%.200s: ca.pem is no authority's certificate for ca.key; restore both from one backup",
                     vault->path);
    }
    if (rc == 0) {
        int len = i2d_X509(authority->ca, &authority->der);
        authority->der_len = len > 0 ? (size_t)len : 0;
        rc = len > 0 ? 0 : trust_fail(err, ERR_FAILED, "ca.pem");
    }
    return rc;
}

int authority_open(const char *dir, struct authority **out, struct err *err)
{
    uint64_t generation;
    struct authority *authority = mem_new(1, sizeof *authority);
    *out = NULL;
    if (!authority) {
        return err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    }
    int rc = find_authority(&authority->vault, dir, err);
    rc = rc ? rc : read_authority(authority, err);
    rc = rc ? rc : vault_address(&authority->vault, authority->address, err);
    rc = rc ? rc : trust_host(authority->address, authority->host, err);
    rc = rc ? rc : vault_generation(&authority->vault, &generation, err);
    rc = rc ? rc : authority_reload(authority, err);
    if (rc) {
        authority_close(authority);
        return rc;
    }
    *out = authority;
    return 0;
}

void authority_close(struct authority *authority)
{
    if (authority) {
        EVP_PKEY_free(authority->key);
        X509_free(authority->ca);
        OPENSSL_free(authority->der);
        mem_free(authority->revoked);
        mem_free(authority);
    }
}

const char *authority_address(const struct authority *authority)
{
    return authority->address;
}

const uint8_t *authority_ca_der(const struct authority *authority, size_t *len)
{
    *len = authority->der_len;
    return authority->der;
}

static int check_ask(const char *name, uint64_t valid_s, int64_t now, struct err *err)
{
    if (!name_is_valid(name)) {
        return err_set(err, ERR_USAGE, "\"%.80s\" is no name: 1 to 64 of A-Z a-z 0-9 . _ -", name);
    }
    if (valid_s == 0 || valid_s > VALID_MAX_S || now <= 0 || now > INT64_MAX / 2) {
        return err_set(err, ERR_USAGE, "%s: valid for no time, or for longer than the authority", name);
    }
    return 0;
}

static int sign(struct authority *authority, const struct trust_subject *subject, EVP_PKEY *key, uint64_t valid_s,
                int64_t now, X509 **out, struct err *err)
{
    struct trust_subject dated = *subject;
    dated.not_before = now - TRUST_CLOCKS_DIFFER_S;
    dated.not_after = now + (int64_t)valid_s;
    return certificate_new(authority->key, authority->ca, &dated,
                           subject->role == TRUST_SERVER ? authority->host : NULL, key, out, err);
}

int authority_credential(struct authority *authority, const char *name, uint32_t role, uint64_t valid_s, int64_t now,
                         struct credential **out, struct err *err)
{
    struct trust_subject subject = {.role = role};
    *out = NULL;
    int rc = check_ask(name, valid_s, now, err);
    rc = rc ? rc : vault_generation(&authority->vault, &subject.generation, err);
    if (rc) {
        return rc;
    }
    struct credential *made = mem_new(1, sizeof *made);
    if (!made) {
        return err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    }
    (void)snprintf(subject.name, sizeof subject.name, "%s", name);
    rc = key_new(&made->key, err);
    rc = rc ? rc : sign(authority, &subject, made->key, valid_s, now, &made->certificate, err);
    rc = rc ? rc : subject_of(made->certificate, &made->subject, err);
    if (rc) {
        credential_free(made);
        return rc;
    }
    X509_up_ref(authority->ca);
    made->ca = authority->ca;
    *out = made;
    return 0;
}

/* Removes the tokens that expired before `now`, and those of `name` (NULL: none). Under the lock. */
static int sweep(struct authority *authority, int64_t now, const char *name, struct err *err)
{
    struct vault_token *tokens;
    size_t count;
    int rc = vault_tokens(&authority->vault, &tokens, &count, err);
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (tokens[i].expires < now || (name && strcmp(tokens[i].name, name) == 0)) {
            rc = vault_token_remove(&authority->vault, tokens[i].id, err);
        }
    }
    mem_free(tokens);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct vault_entry *)a)->name, ((const struct vault_entry *)b)->name);
}

/* The list on the disk, with this generation for the name. */
static int write_entry(struct authority *authority, const char *file, const char *name, uint64_t generation,
                       struct err *err)
{
    struct vault_entry *old, *found = NULL;
    size_t count;
    int rc = vault_list_load(&authority->vault, file, &old, &count, err);
    if (rc) {
        return rc;
    }
    struct vault_entry *list = mem_new(count + 1, sizeof *list);
    for (size_t i = 0; list && i < count; i++) {
        list[i] = old[i];
        found = strcmp(list[i].name, name) == 0 ? &list[i] : found;
    }
    mem_free(old);
    if (!list) {
        return err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    }
    found = found ? found : &list[count++];
    (void)snprintf(found->name, sizeof found->name, "%s", name);
    found->generation = generation;
    qsort(list, count, sizeof *list, by_name);
    rc = vault_list_save(&authority->vault, file, list, count, err);
    mem_free(list);
    return rc;
}

/* No slip is told where this list says nothing, and it stops no token: damaged it is left alone; full it goes, since it
 * would call those slips who come later; and one that began now would lack those from before. */
static int note_name(struct authority *authority, const struct vault_token *record, struct err *err)
{
    char path[DISK_PATH_MAX];
    int rc = write_entry(authority, "names", record->name, record->generation, err);
    if (rc == ERR_LIMIT) {
        rc = vault_path(&authority->vault, "names", path, err);
        rc = rc ? rc : disk_remove(&authority->vault.disk, path, err);
    }
    return rc == ERR_DATA || rc == ERR_NOTFOUND ? 0 : rc;
}

static int token_locked(struct authority *authority, const struct token *token, int64_t now, struct err *err)
{
    struct vault_token record = {.role = token->role, .expires = token->expires};
    (void)snprintf(record.name, sizeof record.name, "%s", token->name);
    int rc = sweep(authority, now, NULL, err);
    rc = rc ? rc : token_id(token->secret, record.id, err);
    rc = rc ? rc : vault_next_generation(&authority->vault, &record.generation, err);
    rc = rc ? rc : note_name(authority, &record, err);
    return rc ? rc : vault_token_save(&authority->vault, &record, err);
}

int authority_token(struct authority *authority, const char *name, uint32_t role, uint64_t valid_s, int64_t now,
                    char out[TOKEN_TEXT_MAX], struct err *err)
{
    struct token token = {.role = role};
    out[0] = '\0';
    int rc = check_ask(name, valid_s, now, err);
    if (rc == 0 && name[0] == '-') {
        rc = err_set(err, ERR_USAGE, "\"%s\": a name that begins with - would be taken for a flag", name);
    }
    if (rc) {
        return rc;
    }
    token.expires = now + (int64_t)valid_s;
    (void)snprintf(token.name, sizeof token.name, "%s", name);
    memcpy(token.address, authority->address, sizeof token.address);
    rc = certificate_pin(authority->ca, token.pin, err);
    if (rc == 0 && RAND_bytes(token.secret, sizeof token.secret) != 1) {
        rc = trust_fail(err, ERR_FAILED, "random bytes");
    }
    rc = rc ? rc : token_write(&token, out, err);
    if (rc == 0 && (rc = vault_lock(&authority->vault, err)) == 0) {
        rc = token_locked(authority, &token, now, err);
        vault_unlock(&authority->vault);
    }
    if (rc) {
        OPENSSL_cleanse(out, TOKEN_TEXT_MAX);
    }
    OPENSSL_cleanse(&token, sizeof token);
    return rc;
}

static const struct vault_entry *find_revoked(const struct authority *authority, const char *name)
{
    for (size_t i = 0; i < authority->revoked_count; i++) {
        if (strcmp(authority->revoked[i].name, name) == 0) {
            return &authority->revoked[i];
        }
    }
    return NULL;
}

bool authority_is_revoked(const struct authority *authority, const struct trust_subject *subject)
{
    const struct vault_entry *revoked = find_revoked(authority, subject->name);
    return revoked && subject->generation <= revoked->generation;
}

static int load_token(struct authority *authority, struct vault_token *token, struct err *err)
{
    int rc = vault_token_load(&authority->vault, token, err);
    return rc == ERR_NOTFOUND
               ? err_set(err, ERR_ACCESS,
                         "the token was used already, or withdrawn, or is none of this server's; ask for a new one")
               : rc;
}

/* Spends the token, whatever else is wrong with it. It may be gone since it was looked for. */
static int redeem_locked(struct authority *authority, struct vault_token *token, int64_t now, struct trust_subject *out,
                         struct err *err)
{
    int rc = load_token(authority, token, err);
    rc = rc ? rc : authority_reload(authority, err);
    rc = rc ? rc : vault_token_remove(&authority->vault, token->id, err);
    if (rc) {
        return rc;
    }
    if (token->expires < now) {
        return err_set(err, ERR_ACCESS, "the token has expired; ask for a new one");
    }
    *out = (struct trust_subject){.role = token->role, .generation = token->generation};
    memcpy(out->name, token->name, sizeof out->name);
    /* A revocation that was cut off may have left the name's tokens. */
    return authority_is_revoked(authority, out) ? err_set(err, ERR_ACCESS, "the token was withdrawn; ask for a new one")
                                                : 0;
}

/* Whoever reaches the port may try a secret, and this is the server's own thread: what is no token waits for no lock.
 */
int authority_redeem(struct authority *authority, const uint8_t secret[32], int64_t now, struct trust_subject *out,
                     struct err *err)
{
    struct vault_token token = {0};
    *out = (struct trust_subject){0};
    int rc = token_id(secret, token.id, err);
    rc = rc ? rc : load_token(authority, &token, err);
    rc = rc ? rc : vault_lock(&authority->vault, err);
    if (rc == 0) {
        rc = redeem_locked(authority, &token, now, out, err);
        vault_unlock(&authority->vault);
    }
    if (rc) {
        *out = (struct trust_subject){0};
    }
    return rc;
}

int authority_sign(struct authority *authority, const struct trust_subject *subject, const uint8_t *csr, size_t csr_len,
                   uint64_t valid_s, int64_t now, struct buf *certificate, struct err *err)
{
    EVP_PKEY *key = NULL;
    X509 *made = NULL;
    uint8_t *der = NULL;
    int rc = check_ask(subject->name, valid_s, now, err);
    if (rc == 0 && (subject->role < TRUST_TRAINER || subject->role > TRUST_OPERATOR)) {
        rc = err_set(err, ERR_USAGE, "%s: a certificate for a %s is made by the server alone", subject->name,
                     role_name(subject->role));
    }
    if (rc == 0 && authority_is_revoked(authority, subject)) {
        rc = err_set(err, ERR_ACCESS, "%s is revoked; it needs a new token", subject->name);
    }
    rc = rc ? rc : csr_key(csr, csr_len, &key, err);
    rc = rc ? rc : sign(authority, subject, key, valid_s, now, &made, err);
    if (rc == 0) {
        int len = i2d_X509(made, &der);
        rc = len > 0 ? buf_append(certificate, der, (size_t)len) : trust_fail(err, ERR_FAILED, "certificate");
        rc = len > 0 && rc ? err_set(err, rc, "certificate: %s", err_meaning(rc)) : rc;
    }
    OPENSSL_free(der);
    X509_free(made);
    EVP_PKEY_free(key);
    return rc;
}

int authority_reload(struct authority *authority, struct err *err)
{
    struct vault_entry *list;
    size_t count;
    int rc = vault_list_load(&authority->vault, "revoked", &list, &count, err);
    if (rc) {
        return rc;
    }
    mem_free(authority->revoked);
    authority->revoked = list;
    authority->revoked_count = count;
    return 0;
}

/* The generation moves on too, so that a credential that is made here later (authority_credential) is not void from
 * the start. First the revocation is on the disk, then the tokens go: cut off between the two, they are void already.
 */
static int revoke_locked(struct authority *authority, const char *name, struct err *err)
{
    uint64_t next;
    int rc = vault_next_generation(&authority->vault, &next, err);
    rc = rc ? rc : write_entry(authority, "revoked", name, next - 1, err);
    rc = rc ? rc : authority_reload(authority, err);
    return rc ? rc : sweep(authority, 0, name, err);
}

int authority_revoke(struct authority *authority, const char *name, struct err *err)
{
    int rc = check_ask(name, 1, 1, err);
    rc = rc ? rc : vault_lock(&authority->vault, err);
    if (rc == 0) {
        rc = revoke_locked(authority, name, err);
        vault_unlock(&authority->vault);
    }
    return rc;
}

static int by_entry(const void *a, const void *b)
{
    const struct authority_entry *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->generation > y->generation) - (x->generation < y->generation);
}

int authority_tokens(struct authority *authority, int64_t now, struct authority_entry **out, size_t *count,
                     struct err *err)
{
    struct vault_token *tokens = NULL;
    size_t all = 0;
    *out = NULL;
    *count = 0;
    int rc = vault_lock(&authority->vault, err);
    if (rc == 0) {
        rc = vault_tokens(&authority->vault, &tokens, &all, err);
        vault_unlock(&authority->vault);
    }
    if (rc) {
        return rc;
    }
    struct authority_entry *list = mem_new(all, sizeof *list);
    for (size_t i = 0; list && i < all; i++) {
        if (tokens[i].expires >= now) {
            struct authority_entry *entry = &list[(*count)++];
            *entry = (struct authority_entry){
                .role = tokens[i].role, .generation = tokens[i].generation, .expires = tokens[i].expires};
            memcpy(entry->name, tokens[i].name, sizeof entry->name);
        }
    }
    mem_free(tokens);
    if (!list) {
        return err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    }
    qsort(list, *count, sizeof *list, by_entry);
    *out = list;
    return 0;
}

static int entries_of(const struct vault_entry *from, size_t from_count, struct authority_entry **out, size_t *count,
                      struct err *err)
{
    struct authority_entry *list = mem_new(from_count, sizeof *list);
    *out = list;
    *count = list ? from_count : 0;
    for (size_t i = 0; i < *count; i++) {
        list[i].generation = from[i].generation;
        memcpy(list[i].name, from[i].name, sizeof list[i].name);
    }
    return list ? 0 : err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
}

int authority_revoked(struct authority *authority, struct authority_entry **out, size_t *count, struct err *err)
{
    return entries_of(authority->revoked, authority->revoked_count, out, count, err);
}

int authority_names(struct authority *authority, struct authority_entry **out, size_t *count, struct err *err)
{
    struct vault_entry *names;
    size_t names_count;
    *out = NULL;
    *count = 0;
    int rc = vault_list_load(&authority->vault, "names", &names, &names_count, err);
    if (rc == 0) {
        rc = entries_of(names, names_count, out, count, err);
        mem_free(names);
    }
    return rc;
}
