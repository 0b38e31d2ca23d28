/* A client's state folder: what a site keeps, so that a restart goes on. For the files of this room alone.
 *
 *   lock       held (flock) while a client runs
 *   instance   a random id, made once: tells this site from another one of the same name
 *   state      run, plan, the last counted round and the carry after it
 *   pending    a contribution that is not known to be counted yet, and the carry after it
 *   secret     what keys the site's random streams (secret.h), drawn once; there is none where they are reproducible
 *   spent      what the contributions to a run have cost in privacy; there is none without a plan that has noise
 *   cache/     decoded images (client/data)
 *
 * A damaged file is named in the log and dropped: the site then loses its carry, trains a round again, or goes on by
 * another secret, which costs nothing. Not so `spent`, without which nobody knows what has left; a person must decide
 * then. It is written before the contribution that it counts is, and so before anything of that can leave: a crash may
 * count too much, never too little. What is offered again is the same bytes and costs nothing; what is trained again
 * was drawn anew and is counted again. It stays when the rest is forgotten, and begins anew with another run. */
#ifndef STARLING_CLIENT_SHELL_STATE_H
#define STARLING_CLIENT_SHELL_STATE_H

#include "client/shell/files.h"
#include "common/base/disk.h"

struct state {
    const struct disk *disk;
    const struct log *log;
    char folder[DISK_PATH_MAX];
    char cache[DISK_PATH_MAX];
    int lock;
    struct hash128 instance;
    bool has_kept; /* run, plan and round are known */
    struct kept_state kept;
    uint32_t pending_round;          /* 0: none */
    struct kept_carry pending_carry; /* after it */
    struct kept_spent spent;
    bool has_secret;
    uint8_t secret[SECRET_BYTES];
    bool unsaved; /* what is kept is newer than its file */
    size_t there; /* of the folder's path, before it was made */
    bool made_lock, made_instance;
};

/* `forget`: what belongs to a run is not looked at; it stays until state_forget, so that a start that comes to nothing
 * loses nothing. *pending: NULL, or what is to be offered again; the caller's (contribution_free). ERR_UNAVAILABLE when
 * another client uses the folder; ERR_CANTCREATE, ERR_IO. */
int state_open(struct state *state, const struct disk *disk, const char *folder, bool forget, const struct log *log,
               struct contribution **pending, struct err *err);
void state_close(struct state *state);
/* Removes what belongs to a run, after an opening that did not look at it. */
int state_forget(struct state *state, struct err *err);
/* Instead of state_close for a start that came to nothing: what state_open made is gone again, if nothing else has come
 * to it. What was there before stays. */
void state_undo(struct state *state);

/* Reads the secret, or draws one, which is durable when it returns 0. ERR_CONFIG when others may read it; ERR_IO, ...
 */
int state_secret(struct state *state, struct err *err);

/* What follows runs on the worker. Durable when it returns 0; a failure leaves files and memory as they were, except
 * that state_commit goes on in memory: the pending file, which is still there, brings the commit about after a restart,
 * and is neither replaced nor removed before the state is saved. */

/* The folder belongs to this run and plan from now on; what it holds of another one is dropped. */
int state_begin(struct state *state, const struct hash128 *run, const struct hash128 *plan_hash, struct err *err);
/* What has been spent in this run, with a further contribution of this cost. */
struct kept_spent state_spend(const struct state *state, double features, double update);
/* Keeps a contribution and the carry after it; the carry moves on success. spent: state_spend's, kept first; NULL: the
 * plan has no noise. */
int state_keep(struct state *state, const struct contribution *contribution, struct kept_carry *carry,
               const struct kept_spent *spent, struct err *err);
int state_commit(struct state *state, uint32_t round, struct err *err);
int state_drop(struct state *state, struct err *err);

#endif
