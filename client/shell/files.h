/* The bytes of the files in a client's state folder, without any file access. For the files of this room alone; the
 * byte tables stand in files.c. */
#ifndef STARLING_CLIENT_SHELL_FILES_H
#define STARLING_CLIENT_SHELL_FILES_H

#include "client/session/session.h"
#include "common/base/buf.h"
#include "common/base/disk.h"

#include <stdint.h>

/* What the trainer takes from one round to the next; only the trainer knows what the bytes mean. */
struct kept_carry {
    uint32_t round; /* that it was made in */
    void *data;     /* owned, aligned for floats; NULL when bytes is 0 */
    size_t bytes;
};
void kept_carry_fini(struct kept_carry *carry);

/* Which run and plan this folder belongs to, and where the site stands in it. */
struct kept_state {
    struct hash128 run, plan_hash;
    uint32_t round;          /* the last one known to be counted and durable */
    struct kept_carry carry; /* of that round or an earlier one */
};
/* A contribution that is not known to be counted, and the carry that becomes the site's if it is. */
struct kept_pending {
    struct hash128 run, plan_hash;
    struct contribution contribution;
    struct kept_carry carry;
};
void kept_pending_fini(struct kept_pending *pending);

/* What the contributions to a run have cost in privacy so far (client/train/noise.h), sent or not. */
struct kept_spent {
    struct hash128 run;
    uint32_t releases;
    double features, updates;
};

#define SECRET_BYTES 32 /* secret.h */

/* A file in pieces, in order: the large ones are where they were, nothing is copied. */
struct file_image {
    struct buf head;
    struct hash128 tail;
    struct span parts[5];
    size_t count;
};
/* ERR_NOMEM. The caller calls file_image_fini in any case, and keeps what was encoded until then. */
int files_encode_state(const struct kept_state *state, struct file_image *out);
int files_encode_pending(const struct kept_pending *pending, struct file_image *out);
int files_encode_spent(const struct kept_spent *spent, struct file_image *out);
int files_encode_instance(const struct hash128 *instance, struct file_image *out);
int files_encode_secret(const uint8_t secret[SECRET_BYTES], struct file_image *out);
void file_image_fini(struct file_image *image);
/* ERR_DATA and which check failed; ERR_NOMEM. Outputs own their memory; they are zero on failure. */
int files_decode_state(const uint8_t *data, size_t len, struct kept_state *out, struct err *err);
int files_decode_pending(const uint8_t *data, size_t len, struct kept_pending *out, struct err *err);
int files_decode_spent(const uint8_t *data, size_t len, struct kept_spent *out, struct err *err);
int files_decode_instance(const uint8_t *data, size_t len, struct hash128 *out, struct err *err);
int files_decode_secret(const uint8_t *data, size_t len, uint8_t out[SECRET_BYTES], struct err *err);

#define FILES_MAX ((size_t)(5 * BLOB_BYTES_MAX + 4096)) /* no plan makes a longer one */

#endif
