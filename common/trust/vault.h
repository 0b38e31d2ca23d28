/* The files of an authority, without their cryptography; inside common/trust alone.
 *
 *     ca.key      the private key (PEM); written last, so that a folder with it is whole
 *     ca.pem      the certificate (PEM)
 *     address     "host:port", as it goes into tokens
 *     generation  the highest number that was given to a token or passed by a revocation
 *     revoked     "NAME NUMBER" a line, by name: void up to this generation
 *     names       as `revoked`: who was ever given a token, and the latest one's number. May be missing
 *     tokens/     a file a token that is not spent, called by the SHA-256 of its secret: "NAME ROLE GENERATION EXPIRES"
 *     lock        whoever changes something holds it (flock)
 *
 * Texts end with a newline, and are what this room writes, byte for byte, or damaged. Files are replaced as a whole and
 * durably (disk_save). root may work in another user's folder: what it makes there belongs to that user, so that a
 * server that runs as somebody else can read it. */
#ifndef STARLING_TRUST_VAULT_H
#define STARLING_TRUST_VAULT_H

#include "common/base/disk.h"
#include "common/trust/token.h"

#include <sys/types.h>

#define VAULT_FILE_MAX 4096 /* but of `revoked` and `names` */
#define VAULT_ID       TOKEN_ID_BYTES

struct vault {
    char path[DISK_PATH_MAX];
    struct disk disk;
    struct disk_ops ops;
    uid_t owner;
    gid_t group;
    int lock;
};

struct vault_token {
    char id[VAULT_ID];
    char name[NAME_MAX_BYTES];
    uint32_t role;
    uint64_t generation;
    int64_t expires;
};
struct vault_entry {
    char name[NAME_MAX_BYTES];
    uint64_t generation;
};

/* The folder, unless it is there; root gives it to the owner of the folder above. */
int vault_make(const char *path, struct err *err);
/* ERR_CANTCREATE: there is something in the folder that is no authority's, whole or half made. */
int vault_check_new(const char *path, struct err *err);
/* Refuses a folder that others may enter. The struct must stay where it is (disk.ctx points to it). */
int vault_open(struct vault *vault, const char *path, struct err *err);
/* Waits a second at the most, so that a stopped process stops no server. ERR_TEMPFAIL: somebody else holds it. */
int vault_lock(struct vault *vault, struct err *err);
void vault_unlock(struct vault *vault);

int vault_path(const struct vault *vault, const char *name, char out[DISK_PATH_MAX], struct err *err);
/* A small file; data is wiped and freed with vault_wipe. */
int vault_load(struct vault *vault, const char *name, uint8_t **data, size_t *len, struct err *err);
void vault_wipe(uint8_t *data, size_t len);
int vault_save(struct vault *vault, const char *name, const void *data, size_t len, struct err *err);

int vault_address(struct vault *vault, char out[TRUST_ADDRESS_MAX], struct err *err);
int vault_generation(struct vault *vault, uint64_t *out, struct err *err);
/* The next one, durably; under the lock. */
int vault_next_generation(struct vault *vault, uint64_t *out, struct err *err);

int vault_make_tokens(struct vault *vault, struct err *err);
int vault_token_save(struct vault *vault, const struct vault_token *token, struct err *err);
/* By token->id. ERR_NOTFOUND when there is none. */
int vault_token_load(struct vault *vault, struct vault_token *token, struct err *err);
/* Durable when it returns 0. */
int vault_token_remove(struct vault *vault, const char *id, struct err *err);
/* All of them, in any order, under the lock; what a save left that was cut off does not count. mem_free. */
int vault_tokens(struct vault *vault, struct vault_token **out, size_t *count, struct err *err);

/* `file`: "revoked" or "names". By name, each once. mem_free. */
int vault_list_load(struct vault *vault, const char *file, struct vault_entry **out, size_t *count, struct err *err);
int vault_list_save(struct vault *vault, const char *file, const struct vault_entry *list, size_t count,
                    struct err *err);

#endif
