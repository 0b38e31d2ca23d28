/* Reading is strict by one device: a file's text is parsed, written again from what was understood, and compared. */
#include "common/trust/vault.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/trust/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LIST_MAX    ((size_t)1 << 20) /* bytes of `revoked` and `names` */
#define TOKENS_MAX  10000
#define LOCK_TRIES  100
#define LOCK_NAP_NS 10000000 /* between two tries: 10 ms */
#define LINE_BYTES  160
#define TOKENS      "tokens"

/* Only root can give files away, and does where they are not to be its own: that much works without CAP_CHOWN. */
static bool is_anothers(const struct vault *vault)
{
    return geteuid() == 0 && vault->owner != 0;
}

static int create_for_owner(void *ctx, const char *path, int *file)
{
    const struct vault *vault = ctx;
    int rc = disk_posix.ops->create(disk_posix.ctx, path, file);
    if (rc == 0 && is_anothers(vault) && fchown(*file, vault->owner, vault->group)) {
        (void)close(*file);
        rc = ERR_READONLY;
    }
    return rc;
}

int vault_make(const char *path, struct err *err)
{
    char above[DISK_PATH_MAX];
    struct stat st;
    bool fresh = stat(path, &st) != 0;
    int rc = disk_make_folder(&disk_posix, path, err);
    if (rc == 0 && fresh && geteuid() == 0 && disk_join(above, path, "..") == 0 &&
        (stat(above, &st) || chown(path, st.st_uid, st.st_gid))) {
        rc = err_set(err, ERR_READONLY, "%.300s: change owner: %s", path, strerror(errno));
    }
    return rc;
}

/* An authority's file, or what a save of it left that was cut off; or what is in each volume's root. */
static int is_ours(void *foreign, const char *name)
{
    static const char *const ours[] = {"ca.key", "ca.pem", "address", "generation", "revoked",
                                       "names",  TOKENS,   "lock",    "lost+found"};
    size_t len = strlen(name);
    len -= len > 4 && strcmp(name + len - 4, ".tmp") == 0 ? 4 : 0;
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        if (strlen(ours[i]) == len && memcmp(ours[i], name, len) == 0) {
            return 0;
        }
    }
    return err_set(foreign, ERR_CANTCREATE, "%s", name);
}

int vault_check_new(const char *path, struct err *err)
{
    char key[DISK_PATH_MAX];
    struct err foreign = {0};
    if (disk_join(key, path, "ca.key") == 0 && access(key, F_OK) == 0) {
        return 0; /* which has its own words */
    }
    int rc = disk_posix.ops->list(disk_posix.ctx, path, is_ours, &foreign);
    if (foreign.code) {
        return err_set(err, rc,
                       "%.200s: it holds other things (%.64s), and an authority has its folder to itself; name a new "
                       "or an empty one",
                       path, foreign.text);
    }
    return rc ? err_set(err, rc, "%.300s: read: %s", path, disk_why(&disk_posix, rc)) : 0;
}

int vault_open(struct vault *vault, const char *path, struct err *err)
{
    struct stat st;
    *vault = (struct vault){.ops = *disk_posix.ops, .lock = -1};
    vault->ops.create = create_for_owner;
    vault->disk = (struct disk){.ops = &vault->ops, .ctx = vault};
    if ((size_t)snprintf(vault->path, sizeof vault->path, "%s", path) >= sizeof vault->path - 100) {
        return err_set(err, ERR_LIMIT, "%.80s...: the path is too long", path);
    }
    int rc = trust_private(path, true, err);
    if (rc) {
        return rc;
    }
    if (stat(path, &st)) {
        return err_set(err, ERR_IO, "%.200s: %s", path, strerror(errno));
    }
    vault->owner = st.st_uid;
    vault->group = st.st_gid;
    return 0;
}

int vault_lock(struct vault *vault, struct err *err)
{
    const struct timespec nap = {.tv_nsec = LOCK_NAP_NS};
    int rc = disk_lock(vault->path, "process", &vault->lock, err);
    for (int i = 1; rc == ERR_UNAVAILABLE && i < LOCK_TRIES; i++) {
        (void)nanosleep(&nap, NULL);
        rc = disk_lock(vault->path, "process", &vault->lock, err);
    }
    if (rc == 0 && is_anothers(vault)) {
        if (fchown(vault->lock, vault->owner, vault->group)) { /* it may be new */
            vault_unlock(vault);
            return err_set(err, ERR_READONLY, "%.200s/lock: change owner: %s", vault->path, strerror(errno));
        }
    }
    return rc == ERR_UNAVAILABLE
               ? err_set(err, ERR_TEMPFAIL, "%.200s: another process has held its lock for a second; try again",
                         vault->path)
               : rc;
}

void vault_unlock(struct vault *vault)
{
    if (vault->lock >= 0) {
        (void)close(vault->lock);
    }
    vault->lock = -1;
}

int vault_path(const struct vault *vault, const char *name, char out[DISK_PATH_MAX], struct err *err)
{
    return disk_join(out, vault->path, name) ? err_set(err, ERR_LIMIT, "%.80s...: the path is too long", vault->path)
                                             : 0;
}

static int load(struct vault *vault, const char *name, size_t max, uint8_t **data, size_t *len, struct err *err)
{
    char path[DISK_PATH_MAX];
    *data = NULL;
    *len = 0;
    int rc = vault_path(vault, name, path, err);
    rc = rc ? rc : disk_load(&vault->disk, path, max, data, len, err);
    return rc == ERR_NOTFOUND ? err_set(err, rc, "%s: missing; restore the folder from its backup", path) : rc;
}

int vault_load(struct vault *vault, const char *name, uint8_t **data, size_t *len, struct err *err)
{
    return load(vault, name, VAULT_FILE_MAX, data, len, err);
}

void vault_wipe(uint8_t *data, size_t len)
{
    if (data) {
        OPENSSL_cleanse(data, len);
        mem_free(data);
    }
}

int vault_save(struct vault *vault, const char *name, const void *data, size_t len, struct err *err)
{
    char path[DISK_PATH_MAX];
    struct span all = {data, len};
    int rc = vault_path(vault, name, path, err);
    return rc ? rc : disk_save(&vault->disk, path, &all, 1, err);
}

static int damaged(const struct vault *vault, const char *name, struct err *err)
{
    bool token = strncmp(name, TOKENS "/", sizeof TOKENS) == 0;
    return err_set(err, ERR_DATA, "%.200s/%s: damaged; %s", vault->path, name,
                   token ? "remove it, and make a new token" : "restore the folder from its backup");
}

/* A file of one line, with its newline cut off. */
static int load_line(struct vault *vault, const char *name, char *out, size_t size, struct err *err)
{
    uint8_t *data;
    size_t len;
    int rc = vault_load(vault, name, &data, &len, err);
    if (rc) {
        return rc;
    }
    bool ok = len > 0 && len <= size && data[len - 1] == '\n' && !memchr(data, 0, len);
    if (ok) {
        memcpy(out, data, len - 1);
        out[len - 1] = '\0';
    }
    vault_wipe(data, len);
    return ok ? 0 : damaged(vault, name, err);
}

int vault_address(struct vault *vault, char out[TRUST_ADDRESS_MAX], struct err *err)
{
    char host[TRUST_HOST_MAX];
    int rc = load_line(vault, "address", out, TRUST_ADDRESS_MAX, err);
    if (rc == 0 && trust_host(out, host, NULL)) {
        rc = damaged(vault, "address", err);
    }
    return rc;
}

int vault_generation(struct vault *vault, uint64_t *out, struct err *err)
{
    char line[LINE_BYTES], again[LINE_BYTES];
    *out = 0;
    int rc = load_line(vault, "generation", line, sizeof line, err);
    if (rc) {
        return rc;
    }
    /* 18 digits: it can never come near 2^63, where a serial number's sign is. */
    int got = sscanf(line, "%18" SCNu64, out);
    (void)snprintf(again, sizeof again, "%" PRIu64, *out);
    return got == 1 && strcmp(line, again) == 0 ? 0 : damaged(vault, "generation", err);
}

int vault_next_generation(struct vault *vault, uint64_t *out, struct err *err)
{
    char line[LINE_BYTES];
    int rc = vault_generation(vault, out, err);
    if (rc) {
        return rc;
    }
    *out += 1;
    int len = snprintf(line, sizeof line, "%" PRIu64 "\n", *out);
    return vault_save(vault, "generation", line, (size_t)len, err);
}

static int token_line(const struct vault_token *token, char out[LINE_BYTES])
{
    return snprintf(out, LINE_BYTES, "%s %s %" PRIu64 " %" PRId64 "\n", token->name, role_name(token->role),
                    token->generation, token->expires);
}

static void token_name(const char *id, char out[VAULT_ID + sizeof TOKENS])
{
    (void)snprintf(out, VAULT_ID + sizeof TOKENS, TOKENS "/%s", id);
}

int vault_make_tokens(struct vault *vault, struct err *err)
{
    char path[DISK_PATH_MAX];
    int rc = vault_path(vault, TOKENS, path, err);
    rc = rc ? rc : disk_make_folder(&vault->disk, path, err);
    if (rc == 0 && is_anothers(vault) && chown(path, vault->owner, vault->group)) {
        rc = err_set(err, ERR_READONLY, "%.300s: change owner: %s", path, strerror(errno));
    }
    return rc;
}

int vault_token_save(struct vault *vault, const struct vault_token *token, struct err *err)
{
    char name[VAULT_ID + sizeof TOKENS], line[LINE_BYTES];
    token_name(token->id, name);
    int len = token_line(token, line);
    return vault_save(vault, name, line, (size_t)len, err);
}

int vault_token_load(struct vault *vault, struct vault_token *token, struct err *err)
{
    char name[VAULT_ID + sizeof TOKENS], line[LINE_BYTES], again[LINE_BYTES], role[16];
    token_name(token->id, name);
    int rc = load_line(vault, name, line, sizeof line, err);
    if (rc) {
        return rc;
    }
    int got =
        sscanf(line, "%64s %15s %18" SCNu64 " %18" SCNd64, token->name, role, &token->generation, &token->expires);
    if (got != 4 || !name_is_valid(token->name) || !role_parse(role, &token->role)) {
        return damaged(vault, name, err);
    }
    again[token_line(token, again) - 1] = '\0';
    return strcmp(line, again) == 0 ? 0 : damaged(vault, name, err);
}

int vault_token_remove(struct vault *vault, const char *id, struct err *err)
{
    char name[VAULT_ID + sizeof TOKENS], path[DISK_PATH_MAX];
    token_name(id, name);
    int rc = vault_path(vault, name, path, err);
    rc = rc ? rc : disk_remove(&vault->disk, path, err);
    if (rc == 0) {
        path[strlen(path) - strlen(id) - 1] = '\0';
        rc = vault->ops.sync_folder(vault, path);
        rc = rc ? err_set(err, rc, "%.300s: sync folder: %s", path, disk_why(&vault->disk, rc)) : 0;
    }
    return rc;
}

struct listing {
    struct vault *vault;
    struct vault_token *tokens;
    size_t count, room;
    struct err *err;
};

/* Only names: reading and removing come after the listing. */
static int list_token(void *arg, const char *name)
{
    struct listing *listing = arg;
    size_t digits = strspn(name, "0123456789abcdef");
    bool whole = digits == VAULT_ID - 1 && !name[digits],
         cut = digits == VAULT_ID - 1 && strcmp(name + digits, ".tmp") == 0;
    if (cut) {
        return 0;
    }
    if (!whole) {
        return err_set(listing->err, ERR_DATA, "%.200s/" TOKENS "/%.100s: no token; remove it", listing->vault->path,
                       name);
    }
    if (listing->count == TOKENS_MAX) {
        return err_set(listing->err, ERR_LIMIT, "%.200s/" TOKENS ": more than %d tokens are not spent",
                       listing->vault->path, TOKENS_MAX);
    }
    if (listing->count == listing->room) {
        size_t room = listing->room ? 2 * listing->room : 16;
        struct vault_token *more = mem_resize(listing->tokens, room, sizeof *more);
        if (!more) {
            return err_set(listing->err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
        }
        listing->tokens = more;
        listing->room = room;
    }
    struct vault_token *token = &listing->tokens[listing->count++];
    *token = (struct vault_token){0};
    memcpy(token->id, name, VAULT_ID);
    return 0;
}

int vault_tokens(struct vault *vault, struct vault_token **out, size_t *count, struct err *err)
{
    char path[DISK_PATH_MAX];
    struct err unreadable = {0};
    struct listing listing = {.vault = vault, .err = &unreadable};
    *out = NULL;
    *count = 0;
    int rc = vault_path(vault, TOKENS, path, err);
    if (rc) {
        return rc;
    }
    rc = vault->ops.list(vault, path, list_token, &listing);
    if (rc) {
        rc = unreadable.code ? err_set(err, rc, "%s", unreadable.text)
                             : err_set(err, rc, "%.300s: read: %s", path, disk_why(&vault->disk, rc));
    }
    for (size_t i = 0; i < listing.count && rc == 0; i++) {
        rc = vault_token_load(vault, &listing.tokens[i], err);
    }
    if (rc) {
        mem_free(listing.tokens);
        return rc;
    }
    *out = listing.tokens;
    *count = listing.count;
    return 0;
}

static int entry_line(const struct vault_entry *entry, char out[LINE_BYTES])
{
    return snprintf(out, LINE_BYTES, "%s %" PRIu64 "\n", entry->name, entry->generation);
}

/* One line at `text`, which must sort behind `before` (NULL: the first); its bytes, 0 when it is damaged. */
static size_t parse_entry(const char *text, size_t len, const struct vault_entry *before, struct vault_entry *out)
{
    char line[LINE_BYTES], again[LINE_BYTES];
    const char *end = memchr(text, '\n', len);
    size_t bytes = end ? (size_t)(end - text) + 1 : 0;
    if (bytes == 0 || bytes >= sizeof line) {
        return 0;
    }
    memcpy(line, text, bytes);
    line[bytes] = '\0';
    if (sscanf(line, "%64s %18" SCNu64, out->name, &out->generation) != 2 || !name_is_valid(out->name)) {
        return 0;
    }
    bool same = entry_line(out, again) == (int)bytes && memcmp(text, again, bytes) == 0;
    return same && (!before || strcmp(before->name, out->name) < 0) ? bytes : 0;
}

int vault_list_load(struct vault *vault, const char *file, struct vault_entry **out, size_t *count, struct err *err)
{
    uint8_t *data;
    size_t len, lines = 0, n = 0;
    *out = NULL;
    *count = 0;
    int rc = load(vault, file, LIST_MAX, &data, &len, err);
    if (rc) {
        return rc;
    }
    for (size_t i = 0; i < len; i++) {
        lines += data[i] == '\n';
    }
    struct vault_entry *list = mem_new(lines, sizeof *list);
    if (!list) {
        rc = err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    }
    for (size_t at = 0; at < len && rc == 0;) {
        size_t bytes =
            n < lines ? parse_entry((const char *)data + at, len - at, n ? &list[n - 1] : NULL, &list[n]) : 0;
        rc = bytes ? 0 : damaged(vault, file, err);
        at += bytes;
        n++;
    }
    mem_free(data);
    if (rc) {
        mem_free(list);
        return rc;
    }
    *out = list;
    *count = n;
    return 0;
}

int vault_list_save(struct vault *vault, const char *file, const struct vault_entry *list, size_t count,
                    struct err *err)
{
    struct buf text;
    char line[LINE_BYTES];
    int rc = 0;
    buf_init(&text, LIST_MAX);
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = buf_append(&text, line, (size_t)entry_line(&list[i], line));
    }
    rc = rc ? err_set(err, rc, "%.200s/%s: %s", vault->path, file, err_meaning(rc))
            : vault_save(vault, file, text.data, text.len, err);
    buf_fini(&text);
    return rc;
}
