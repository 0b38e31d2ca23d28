/* Reading is strict by one device: a file's text is parsed, written again from what was understood, and compared. */
#include "common/trust/folder.h"

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

#define REVOKED_MAX ((size_t)1 << 20) /* bytes of the file */
#define TOKENS_MAX  10000
#define LOCK_TRIES  100
#define LOCK_NAP_NS 10000000 /* between two tries: 10 ms */
#define LINE_BYTES  160
#define TOKENS      "tokens"

static int create_for_owner(void *ctx, const char *path, int *file)
{
    const struct folder *folder = ctx;
    int rc = disk_posix.ops->create(disk_posix.ctx, path, file);
    if (rc == 0 && geteuid() == 0 && fchown(*file, folder->owner, folder->group)) {
        (void)close(*file);
        rc = ERR_READONLY;
    }
    return rc;
}

int folder_open(struct folder *folder, const char *path, struct err *err)
{
    struct stat st;
    *folder = (struct folder){.ops = *disk_posix.ops, .lock = -1};
    folder->ops.create = create_for_owner;
    folder->disk = (struct disk){.ops = &folder->ops, .ctx = folder};
    if ((size_t)snprintf(folder->path, sizeof folder->path, "%s", path) >= sizeof folder->path - 100) {
        return err_set(err, ERR_LIMIT, "%.80s...: the path is too long", path);
    }
    int rc = trust_private(path, err);
    if (rc) {
        return rc;
    }
    if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
        return err_set(err, ERR_IO, "%.200s: no folder", path);
    }
    folder->owner = st.st_uid;
    folder->group = st.st_gid;
    return 0;
}

int folder_lock(struct folder *folder, struct err *err)
{
    const struct timespec nap = {.tv_nsec = LOCK_NAP_NS};
    int rc = disk_lock(folder->path, "process", &folder->lock, err);
    for (int i = 1; rc == ERR_UNAVAILABLE && i < LOCK_TRIES; i++) {
        (void)nanosleep(&nap, NULL);
        rc = disk_lock(folder->path, "process", &folder->lock, err);
    }
    if (rc == 0 && geteuid() == 0) {
        if (fchown(folder->lock, folder->owner, folder->group)) { /* it may be new */
            folder_unlock(folder);
            return err_set(err, ERR_READONLY, "%.200s/lock: change owner: %s", folder->path, strerror(errno));
        }
    }
    return rc == ERR_UNAVAILABLE
               ? err_set(err, ERR_TEMPFAIL, "%.200s: another process has held its lock for a second; try again",
                         folder->path)
               : rc;
}

void folder_unlock(struct folder *folder)
{
    if (folder->lock >= 0) {
        (void)close(folder->lock);
    }
    folder->lock = -1;
}

int folder_file(const struct folder *folder, const char *name, char out[DISK_PATH_MAX], struct err *err)
{
    return disk_join(out, folder->path, name) ? err_set(err, ERR_LIMIT, "%.80s...: the path is too long", folder->path)
                                              : 0;
}

static int load(struct folder *folder, const char *name, size_t max, uint8_t **data, size_t *len, struct err *err)
{
    char path[DISK_PATH_MAX];
    *data = NULL;
    *len = 0;
    int rc = folder_file(folder, name, path, err);
    return rc ? rc : disk_load(&folder->disk, path, max, data, len, err);
}

int folder_load(struct folder *folder, const char *name, uint8_t **data, size_t *len, struct err *err)
{
    return load(folder, name, FOLDER_FILE_MAX, data, len, err);
}

void folder_wipe(uint8_t *data, size_t len)
{
    if (data) {
        OPENSSL_cleanse(data, len);
        mem_free(data);
    }
}

int folder_save(struct folder *folder, const char *name, const void *data, size_t len, struct err *err)
{
    char path[DISK_PATH_MAX];
    struct span all = {data, len};
    int rc = folder_file(folder, name, path, err);
    return rc ? rc : disk_save(&folder->disk, path, &all, 1, err);
}

static int damaged(const struct folder *folder, const char *name, struct err *err)
{
    bool token = strncmp(name, TOKENS "/", sizeof TOKENS) == 0;
    return err_set(err, ERR_DATA, "%.200s/%s: damaged; %s", folder->path, name,
                   token ? "remove it, and make a new token" : "restore the folder from its backup");
}

/* A file of one line, with its newline cut off. */
static int load_line(struct folder *folder, const char *name, char *out, size_t size, struct err *err)
{
    uint8_t *data;
    size_t len;
    int rc = folder_load(folder, name, &data, &len, err);
    if (rc) {
        return rc;
    }
    bool ok = len > 0 && len <= size && data[len - 1] == '\n' && !memchr(data, 0, len);
    if (ok) {
        memcpy(out, data, len - 1);
        out[len - 1] = '\0';
    }
    folder_wipe(data, len);
    return ok ? 0 : damaged(folder, name, err);
}

int folder_address(struct folder *folder, char out[TRUST_ADDRESS_MAX], struct err *err)
{
    char host[TRUST_HOST_MAX];
    int rc = load_line(folder, "address", out, TRUST_ADDRESS_MAX, err);
    if (rc == 0 && trust_host(out, host, NULL)) {
        rc = damaged(folder, "address", err);
    }
    return rc;
}

int folder_generation(struct folder *folder, uint64_t *out, struct err *err)
{
    char line[LINE_BYTES], again[LINE_BYTES];
    *out = 0;
    int rc = load_line(folder, "generation", line, sizeof line, err);
    if (rc) {
        return rc;
    }
    /* 18 digits: it can never come near 2^63, where a serial number's sign is. */
    int got = sscanf(line, "%18" SCNu64, out);
    (void)snprintf(again, sizeof again, "%" PRIu64, *out);
    return got == 1 && strcmp(line, again) == 0 ? 0 : damaged(folder, "generation", err);
}

int folder_next_generation(struct folder *folder, uint64_t *out, struct err *err)
{
    char line[LINE_BYTES];
    int rc = folder_generation(folder, out, err);
    if (rc) {
        return rc;
    }
    *out += 1;
    int len = snprintf(line, sizeof line, "%" PRIu64 "\n", *out);
    return folder_save(folder, "generation", line, (size_t)len, err);
}

static int token_line(const struct folder_token *token, char out[LINE_BYTES])
{
    return snprintf(out, LINE_BYTES, "%s %s %" PRIu64 " %" PRId64 "\n", token->name, trust_role_name(token->role),
                    token->generation, token->expires);
}

static void token_name(const char *id, char out[FOLDER_ID + sizeof TOKENS])
{
    (void)snprintf(out, FOLDER_ID + sizeof TOKENS, TOKENS "/%s", id);
}

int folder_make_tokens(struct folder *folder, struct err *err)
{
    char path[DISK_PATH_MAX];
    int rc = folder_file(folder, TOKENS, path, err);
    rc = rc ? rc : disk_make_folder(&folder->disk, path, err);
    if (rc == 0 && geteuid() == 0 && chown(path, folder->owner, folder->group)) {
        rc = err_set(err, ERR_READONLY, "%.300s: change owner: %s", path, strerror(errno));
    }
    return rc;
}

int folder_token_save(struct folder *folder, const struct folder_token *token, struct err *err)
{
    char name[FOLDER_ID + sizeof TOKENS], line[LINE_BYTES];
    token_name(token->id, name);
    int len = token_line(token, line);
    return folder_save(folder, name, line, (size_t)len, err);
}

int folder_token_load(struct folder *folder, struct folder_token *token, struct err *err)
{
    char name[FOLDER_ID + sizeof TOKENS], line[LINE_BYTES], again[LINE_BYTES], role[16];
    token_name(token->id, name);
    int rc = load_line(folder, name, line, sizeof line, err);
    if (rc) {
        return rc;
    }
    int got =
        sscanf(line, "%64s %15s %18" SCNu64 " %18" SCNd64, token->name, role, &token->generation, &token->expires);
    if (got != 4 || !name_is_valid(token->name) || !trust_role_parse(role, &token->role)) {
        return damaged(folder, name, err);
    }
    again[token_line(token, again) - 1] = '\0';
    return strcmp(line, again) == 0 ? 0 : damaged(folder, name, err);
}

int folder_token_remove(struct folder *folder, const char *id, struct err *err)
{
    char name[FOLDER_ID + sizeof TOKENS], path[DISK_PATH_MAX];
    token_name(id, name);
    int rc = folder_file(folder, name, path, err);
    rc = rc ? rc : disk_remove(&folder->disk, path, err);
    if (rc == 0) {
        path[strlen(path) - strlen(id) - 1] = '\0';
        rc = folder->ops.sync_folder(folder, path);
        rc = rc ? err_set(err, rc, "%.300s: sync folder: %s", path, disk_why(&folder->disk, rc)) : 0;
    }
    return rc;
}

struct listing {
    struct folder *folder;
    struct folder_token *tokens;
    size_t count, room;
    struct err *err;
};

/* Only names: reading and removing come after the listing. */
static int list_token(void *arg, const char *name)
{
    struct listing *listing = arg;
    size_t digits = strspn(name, "0123456789abcdef");
    bool whole = digits == FOLDER_ID - 1 && !name[digits],
         cut = digits == FOLDER_ID - 1 && strcmp(name + digits, ".tmp") == 0;
    if (cut) {
        return 0;
    }
    if (!whole) {
        return err_set(listing->err, ERR_DATA, "%.200s/" TOKENS "/%.100s: no token; remove it", listing->folder->path,
                       name);
    }
    if (listing->count == TOKENS_MAX) {
        return err_set(listing->err, ERR_LIMIT, "%.200s/" TOKENS ": more than %d tokens are not spent",
                       listing->folder->path, TOKENS_MAX);
    }
    if (listing->count == listing->room) {
        size_t room = listing->room ? 2 * listing->room : 16;
        struct folder_token *more = mem_resize(listing->tokens, room, sizeof *more);
        if (!more) {
            return err_set(listing->err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
        }
        listing->tokens = more;
        listing->room = room;
    }
    struct folder_token *token = &listing->tokens[listing->count++];
    *token = (struct folder_token){0};
    memcpy(token->id, name, FOLDER_ID);
    return 0;
}

int folder_tokens(struct folder *folder, struct folder_token **out, size_t *count, struct err *err)
{
    char path[DISK_PATH_MAX];
    struct err unreadable = {0};
    struct listing listing = {.folder = folder, .err = &unreadable};
    *out = NULL;
    *count = 0;
    int rc = folder_file(folder, TOKENS, path, err);
    if (rc) {
        return rc;
    }
    rc = folder->ops.list(folder, path, list_token, &listing);
    if (rc) {
        rc = unreadable.code ? err_set(err, rc, "%s", unreadable.text)
                             : err_set(err, rc, "%.300s: read: %s", path, disk_why(&folder->disk, rc));
    }
    for (size_t i = 0; i < listing.count && rc == 0; i++) {
        rc = folder_token_load(folder, &listing.tokens[i], err);
    }
    if (rc) {
        mem_free(listing.tokens);
        return rc;
    }
    *out = listing.tokens;
    *count = listing.count;
    return 0;
}

static int revoked_line(const struct folder_revoked *revoked, char out[LINE_BYTES])
{
    return snprintf(out, LINE_BYTES, "%s %" PRIu64 "\n", revoked->name, revoked->generation);
}

/* One line at `text`, which must sort behind `before` (NULL: the first); its bytes, 0 when it is damaged. */
static size_t parse_revoked(const char *text, size_t len, const struct folder_revoked *before,
                            struct folder_revoked *out)
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
    bool same = revoked_line(out, again) == (int)bytes && memcmp(text, again, bytes) == 0;
    return same && (!before || strcmp(before->name, out->name) < 0) ? bytes : 0;
}

int folder_revoked_load(struct folder *folder, struct folder_revoked **out, size_t *count, struct err *err)
{
    uint8_t *data;
    size_t len, lines = 0, n = 0;
    *out = NULL;
    *count = 0;
    int rc = load(folder, "revoked", REVOKED_MAX, &data, &len, err);
    if (rc) {
        return rc;
    }
    for (size_t i = 0; i < len; i++) {
        lines += data[i] == '\n';
    }
    struct folder_revoked *list = mem_new(lines, sizeof *list);
    if (!list) {
        rc = err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    }
    for (size_t at = 0; at < len && rc == 0;) {
        size_t bytes =
            n < lines ? parse_revoked((const char *)data + at, len - at, n ? &list[n - 1] : NULL, &list[n]) : 0;
        rc = bytes ? 0 : damaged(folder, "revoked", err);
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

int folder_revoked_save(struct folder *folder, const struct folder_revoked *list, size_t count, struct err *err)
{
    struct buf text;
    char line[LINE_BYTES];
    int rc = 0;
    buf_init(&text, REVOKED_MAX);
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = buf_append(&text, line, (size_t)revoked_line(&list[i], line));
    }
    rc = rc ? err_set(err, rc, "%.200s/revoked: %s", folder->path, err_meaning(rc))
            : folder_save(folder, "revoked", text.data, text.len, err);
    buf_fini(&text);
    return rc;
}
