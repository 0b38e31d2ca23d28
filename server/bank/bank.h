/* The feature bank: unit rows that clients contributed, with owner and round, from which each client gets a sample of
 * the others'.
 *
 * A bank is a snapshot: nobody changes it. What arrives during a round waits in an intake, and bank_merge makes the
 * next snapshot of both. So the samples of round n + 1 come from the snapshot that was saved with round n, and a
 * restarted server hands out the same.
 *
 * Quota. Of the owners that a snapshot has, each holds at most capacity / owners rows. An owner's new rows come first;
 * its older ones fill up what the quota leaves, newest first. More owners than rows: the owners with the newest rows
 * stay, and among equals a hash of round and name decides.
 *
 * Guarantees: a sample never holds a row of its receiver; snapshots and samples do not depend on the order of arrival;
 * an intake never keeps more than `capacity` rows, however many owners come (each keeps the first capacity / owners of
 * its batch, which is never less than what the merge takes). */
#ifndef STARLING_BANK_BANK_H
#define STARLING_BANK_BANK_H

#include "common/base/err.h"
#include "common/base/name.h"

#include <stdbool.h>
#include <stdint.h>

struct bank_owner {
    char name[NAME_MAX_BYTES];
    uint32_t first, count; /* its rows, newest first */
};

struct bank {
    uint32_t capacity, dimension;
    uint32_t owners_count, rows;
    struct bank_owner *owners; /* in order of name */
    uint32_t *rounds;          /* [rows] in which round a row was contributed */
    uint32_t *rank;            /* [rows] goes up with the bytes of a row (bank_rank) */
    float *features;           /* [rows, dimension] */
};

/* An empty one. ERR_NOMEM. */
int bank_new(uint32_t capacity, uint32_t dimension, struct bank **out);
void bank_free(struct bank *bank);

/* Rows of rounds before `oldest` go, for a snapshot that nobody sees yet. Their room is given away with the next one.
 */
void bank_expire(struct bank *bank, uint32_t oldest);

enum bank_verdict { BANK_OK, BANK_NOT_FINITE, BANK_NOT_UNIT };
/* Rows must be finite and of unit length within 1e-3. *row (may be NULL) is the first that is not. */
enum bank_verdict bank_check(const float *features, uint32_t rows, uint32_t dimension, uint32_t *row);

/* ---- What arrives during a round (intake.c) ---- */

struct bank_intake;
int bank_intake_new(uint32_t capacity, uint32_t dimension, struct bank_intake **out);
void bank_intake_free(struct bank_intake *intake);
/* One checked batch of an owner that has none in the intake. ERR_NOMEM leaves the intake as it was. */
int bank_intake_add(struct bank_intake *intake, const char *owner, uint32_t round, const float *features,
                    uint32_t rows);
uint32_t bank_intake_rows(const struct bank_intake *intake);
void bank_intake_clear(struct bank_intake *intake);
/* The next snapshot. Neither argument changes. ERR_NOMEM. */
int bank_merge(const struct bank *bank, const struct bank_intake *intake, struct bank **next);

/* Ranks the rows, which are all in place: the last step of whoever makes a snapshot. ERR_NOMEM. */
int bank_rank(struct bank *bank);

/* ---- What goes out (sample.c) ---- */

/* Whether rows here are `name`'s. */
bool bank_has(const struct bank *bank, const char *name);
/* Owners of rows beside `receiver`. */
uint32_t bank_others(const struct bank *bank, const char *receiver);

/* At most `most` rows of others than `receiver`, the newest of each owner, spread over the owners as evenly as their
 * rows allow (with `most` or fewer others: of all of them), in an order that is drawn: a function of the arguments
 * alone. `out` has room for `most`; returns how many there are. */
uint32_t bank_sample(const struct bank *bank, uint64_t seed, uint32_t round, const char *receiver, uint32_t most,
                     uint32_t *out);

/* ---- Bytes (bank_codec.c) ---- */

/* *out from mem_new. ERR_NOMEM. */
int bank_encode(const struct bank *bank, uint8_t **out, uint64_t *len);
/* A bank of more rows than `capacity` (which may have been lowered meanwhile) is cut down to its quotas. ERR_DATA and
 * the sentence for anything but whole, valid bytes. */
int bank_decode(const uint8_t *bytes, uint64_t len, uint32_t capacity, uint32_t dimension, struct bank **out,
                struct err *err);

#endif
