#include "client/shell/identify.h"

#include "client/session/session.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define JOIN_WAIT_MS 500u /* between attempts, doubling to JOIN_MOST_MS: the server may start after its clients */
#define JOIN_MOST_MS 16000u

/* The host's name, with what a name may not have replaced. */
static void default_name(char out[NAME_MAX_BYTES])
{
    if (gethostname(out, NAME_MAX_BYTES - 1)) {
        out[0] = '\0';
    }
    out[NAME_MAX_BYTES - 1] = '\0';
    for (char *c = out; *c; c++) {
        char one[2] = {*c, '\0'};
        *c = name_is_valid(one) ? *c : '-';
    }
    if (!out[0]) {
        (void)snprintf(out, NAME_MAX_BYTES, "client");
    }
}

void identify_folders(const struct client_options *given, const struct token *token, struct client_options *out)
{
    char name[NAME_MAX_BYTES];
    *out = *given;
    (void)snprintf(name, sizeof name, "%s", given->name[0] ? given->name : token->name);
    if (!name[0]) {
        default_name(name);
    }
    if (!out->state[0]) {
        (void)snprintf(out->state, sizeof out->state, "starling-client-%s", name);
    }
}

struct waiting {
    const struct token *token;
    const struct log *log;
    uint32_t attempts, wait_ms;
};

/* The server is not there yet, or has no room. */
static uint64_t wait_for_server(void *ctx, const struct err *why)
{
    struct waiting *w = ctx;
    char text[MSG_TEXT_MAX];
    w->attempts++;
    w->wait_ms = w->wait_ms * 2 < JOIN_MOST_MS ? w->wait_ms * 2 : JOIN_MOST_MS;
    log_event(w->log, LOG_LEVEL_INFO, "join_waits", "server=%s retry_ms=%u reason=\"%s\"", w->token->address,
              w->wait_ms, log_quotable(why->text, text, sizeof text));
    link_hint(w->log, w->attempts, why);
    return w->wait_ms;
}

/* A token beside an identity may be a new one, because the old certificate was revoked; or the same as last time,
 * because the same command was started again: then the identity does, and the server is not asked, who would have to
 * warn of a spent token. */
static int open_passport(struct passport *passport, const struct token *token, const char *folder,
                         const struct log *log, struct err *err)
{
    int rc = passport_open(passport, folder, err);
    if (!token->address[0]) { /* there is none */
        return rc;
    }
    bool has_one = rc == 0 && passport->setup;
    struct err why = {.text = "this token has brought it"};
    struct waiting waiting = {.token = token, .log = log, .wait_ms = JOIN_WAIT_MS / 2};
    int joined = has_one && passport_is_of(folder, token)
                     ? ERR_ACCESS
                     : passport_join(token, folder, has_one ? NULL : wait_for_server, &waiting, &why);
    if (joined == 0) {
        passport_close(passport);
        rc = passport_open(passport, folder, err);
        log_event(log, LOG_LEVEL_INFO, "joined", "name=%s server=%s identity=\"%s\"", token->name, token->address,
                  folder);
    } else if (has_one && joined != ERR_CANCELLED) {
        char text[MSG_TEXT_MAX];
        log_event(log, LOG_LEVEL_INFO, "joined_before", "identity=\"%s\" reason=\"%s\"", folder,
                  log_quotable(why.text, text, sizeof text));
    } else if (joined != ERR_ACCESS || rc == 0) {
        *err = why;
        rc = joined;
    }
    return rc;
}

int identify(struct passport *passport, const struct token *token, struct client_options *options,
             const struct log *log, struct err *err)
{
    char folder[DISK_PATH_MAX];
    const struct trust_subject *subject = &passport->subject;
    uint32_t role = options->role == CLIENT_OBSERVER ? TRUST_OBSERVER : TRUST_TRAINER;
    if (token->address[0] && token->role != role) { /* before it is spent */
        return err_set(err, ERR_CONFIG, "role: the token is for the %s %s, and %s is asked for", role_name(token->role),
                       token->name, role_name(role));
    }
    if (token->address[0] && options->name[0] && strcmp(options->name, token->name) != 0) {
        return err_set(err, ERR_CONFIG, "name: \"%s\" is asked for, and the token is for \"%s\"", options->name,
                       token->name);
    }
    int rc = options->identity[0] ? snprintf(folder, sizeof folder, "%s", options->identity) < 0
                                  : disk_join(folder, options->state, "identity");
    rc = rc ? err_set(err, ERR_LIMIT, "%s: the path is too long", options->state)
            : open_passport(passport, token, folder, log, err);
    if (rc) {
        return rc;
    }
    if (passport->setup) {
        if (options->name[0] && strcmp(options->name, subject->name) != 0) {
            return err_set(err, ERR_CONFIG, "name: \"%s\" is asked for, and the certificate in %s is for \"%s\"",
                           options->name, folder, subject->name);
        }
        if (subject->role != role) {
            return err_set(err, ERR_CONFIG, "role: %s is asked for, and the certificate in %s is for the %s %s",
                           role_name(role), folder, role_name(subject->role), subject->name);
        }
        (void)snprintf(options->name, sizeof options->name, "%s", subject->name);
    }
    if (!options->name[0]) {
        default_name(options->name);
    }
    if (!options->server[0]) {
        (void)snprintf(options->server, sizeof options->server, "%s",
                       passport->setup ? passport->address : DEFAULT_SERVER);
    }
    return 0;
}
