/* How this machine proves to a server who it is: the identity of its folder, which a token brought, and its renewal in
 * time over the live connection; and what it needs for TLS. Without an identity, connections are plain. */
#ifndef STARLING_CLIENT_PASSPORT_H
#define STARLING_CLIENT_PASSPORT_H

#include "common/base/disk.h"
#include "common/base/log.h"
#include "common/trust/authority.h"
#include "common/trust/channel.h"
#include "common/trust/identity.h"
#include "common/trust/token.h"
#include "common/wire/msg.h"

struct passport {
    char folder[DISK_PATH_MAX];
    char address[TRUST_ADDRESS_MAX]; /* the server's, as the token said */
    struct trust_subject subject;
    uint8_t pin[32];         /* its authority's */
    struct tls_setup *setup; /* NULL: plain */
    struct request *asked;   /* for which a certificate is on its way; NULL: none is */
    int64_t ask_at;          /* unix seconds: when the next renewal is due */
};

/* A token as it was given: itself, or the name of a file that holds it. ERR_DATA, ERR_NOTFOUND, ERR_IO. The sentence
 * repeats no word that may be a token. */
int passport_read_token(const char *given, struct token *out, struct err *err);
/* Gets a certificate for a key that is made here, and keeps both in the folder. ERR_ACCESS: the token is spent, expired
 * or not the server's; ERR_UNAVAILABLE, ERR_TEMPFAIL: try again; ERR_CANCELLED: SIGTERM or SIGINT came; ERR_CANTCREATE,
 * ERR_IO, ... of the folder. After a failure folders that it made are gone again.
 * again: asked after each attempt that may be made again: in how many ms (0: not). NULL: one attempt. */
int passport_join(const struct token *token, const char *folder, uint64_t (*again)(void *ctx, const struct err *why),
                  void *ctx, struct err *err);
/* Whether it was this token that brought the folder's identity, as far as is known: so it is spent. */
bool passport_is_of(const char *folder, const struct token *token);

/* The folder's identity, if there is one; else plain. ERR_ACCESS: its certificate has expired. */
int passport_open(struct passport *passport, const char *folder, struct err *err);
void passport_close(struct passport *passport);

/* When passport_renew is to be called next, unix seconds; INT64_MAX: never. */
int64_t passport_next(const struct passport *passport);
/* 1: *msg (ENROL; borrows from the passport) is to be sent. 0: not yet. */
int passport_renew(struct passport *passport, struct msg *msg, struct err *err);
/* The answer. The identity is on disk, and new connections use it, when it returns 0; else the old one stays.
 * ERR_PROTOCOL: nobody asked; ERR_ACCESS: another authority's, another name or role, or expired. */
int passport_take(struct passport *passport, const struct msg_certificate *certificate, struct err *err);

/* For a program that asks one question: by the folder of an operator's identity, or on the server's machine by the CA's
 * folder (`trust`); both NULL: plain. address: where the server is. ERR_ACCESS: another's, or expired. */
int passport_operator(const char *identity, const char *trust, struct tls_setup **out, char address[TRUST_ADDRESS_MAX],
                      struct err *err);
/* For a client of that name and role (TRUST_TRAINER, ...), which has no folder of its own. */
int passport_mint(struct authority *authority, const char *name, uint32_t role, struct tls_setup **out,
                  struct err *err);

#endif
