/* Who this client is, and where its server: by flags, by a token, by the identity that an earlier token brought. */
#ifndef STARLING_CLIENT_IDENTIFY_H
#define STARLING_CLIENT_IDENTIFY_H

#include "client/shell/client.h"
#include "client/shell/passport.h"

/* Copies the options, with the state folder filled in. A name that only the identity in it knows comes later. token:
 * all zero when there is none. */
void identify_folders(const struct client_options *given, const struct token *token, struct client_options *out);
/* Joins if there is a token; fills in name, server and passport. Waits for a server that is not there yet.
 * ERR_CANCELLED: asked to stop meanwhile; ERR_ACCESS, ERR_CONFIG, and what passport_join and passport_open return. */
int identify(struct passport *passport, const struct token *token, struct client_options *options,
             const struct log *log, struct err *err);

#endif
