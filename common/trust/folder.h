/* The files of an authority, without their cryptography; inside common/trust alone.
 *
 *     ca.key      the private key (PEM); written last, so that a folder with it is whole
 *     ca.pem      the certificate (PEM)
 *     address     "host:port", as it goes into tokens
 *     generation  the highest number that was given to a token or passed by a revocation
 *     revoked     "NAME NUMBER" a line, by name: void up to this generation
 *     tokens/     a file a token that is not spent, called by the SHA-256 of its secret: "NAME ROLE GENERATION EXPIRES"
 *     lock        whoever changes something holds it (flock)
 *
 * Texts end with a newline, and are what this room writes, byte for byte, or damaged. Files are replaced as a whole and
 * durably (disk_save). root may work in another user's folder: what it makes there belongs to that user, so that a
 * server that runs as somebody else can read it. */
#ifndef STARLING_TRUST_FOLDER_H
#define STARLING_TRUST_FOLDER_H

#include "common/base/disk.h"
#include "common/trust/trust.h"

#include <sys/types.h>

#define FOLDER_FILE_MAX 4096 /* but of `revoked` */
#define FOLDER_ID       65   /* 64 hexadecimal digits and the zero */

struct folder {
    char path[DISK_PATH_MAX];
    struct disk disk;
    struct disk_ops ops;
    uid_t owner;
    gid_t group;
    int lock;
};

struct folder_token {
    char id[FOLDER_ID];
    char name[NAME_MAX_BYTES];
    uint32_t role;
    uint64_t generation;
    int64_t expires;
};
struct folder_revoked {
    char name[NAME_MAX_BYTES];
    uint64_t generation;
};

/* Refuses a folder that others may enter. The folder must stay where it is (disk.ctx points to it). */
int folder_open(struct folder *folder, const char *path, struct err *err);
/* Waits a second at the most, so that a stopped process stops no server. ERR_TEMPFAIL: somebody else holds it. */
int folder_lock(struct folder *folder, struct err *err);
void folder_unlock(struct folder *folder);

int folder_file(const struct folder *folder, const char *name, char out[DISK_PATH_MAX], struct err *err);
/* A small file; data is wiped and freed with folder_wipe. */
int folder_load(struct folder *folder, const char *name, uint8_t **data, size_t *len, struct err *err);
void folder_wipe(uint8_t *data, size_t len);
int folder_save(struct folder *folder, const char *name, const void *data, size_t len, struct err *err);

int folder_address(struct folder *folder, char out[TRUST_ADDRESS_MAX], struct err *err);
int folder_generation(struct folder *folder, uint64_t *out, struct err *err);
/* The next one, durably; under the lock. */
int folder_next_generation(struct folder *folder, uint64_t *out, struct err *err);

int folder_make_tokens(struct folder *folder, struct err *err);
int folder_token_save(struct folder *folder, const struct folder_token *token, struct err *err);
/* By token->id. ERR_NOTFOUND when there is none. */
int folder_token_load(struct folder *folder, struct folder_token *token, struct err *err);
/* Durable when it returns 0. */
int folder_token_remove(struct folder *folder, const char *id, struct err *err);
/* All of them, in any order, under the lock; what a save left that was cut off does not count. mem_free. */
int folder_tokens(struct folder *folder, struct folder_token **out, size_t *count, struct err *err);

/* By name, each once. mem_free. */
int folder_revoked_load(struct folder *folder, struct folder_revoked **out, size_t *count, struct err *err);
int folder_revoked_save(struct folder *folder, const struct folder_revoked *list, size_t count, struct err *err);

#endif
