/* A certificate is renewed when a third of its time is left, with a fresh key, and again after a tenth of its time if
 * no answer came, or none that can be taken. The old identity holds until the new one is on disk. */
#include "client/shell/passport.h"

#include "client/shell/exchange.h"
#include "common/base/mem.h"
#include "common/base/role.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define JOIN_TIMEOUT_MS 10000
#define MINTED_S        (7 * 24 * 3600)
#define MARK            "token.sha256"
#define TOKEN_PREFIX    "starling"
#define TOKEN_FILE_MAX  4096u
#define SECRET_RUN      24u /* 18 bytes; a token has some 90, of which 32 are its secret */

static int64_t now_s(void)
{
    return (int64_t)time(NULL);
}

/* ---- Joining ---- */

/* Whether a word may be a token, or much of one, that was cut or mistyped: so many characters of those that tokens are
 * made of stand together. Such a word is secret, and is not repeated. */
static bool may_be_secret(const char *word)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+=";
    for (;;) {
        size_t run = strspn(word, letters);
        if (run >= SECRET_RUN || !word[run]) {
            return run >= SECRET_RUN;
        }
        word += run + 1;
    }
}

/* `why`: what came of reading a file of this name. */
static int no_token(const char *given, const struct err *why, struct err *err)
{
    if (may_be_secret(given)) {
        return err_set(err, ERR_DATA,
                       "no file, and no token: it has %zu characters and begins with \"%.4s\", a token with "
                       "\"starling1:\"; copy the whole line that starling ca token printed",
                       strlen(given), given);
    }
    return err_set(err, why->code == ERR_LIMIT ? ERR_DATA : why->code,
                   "a token (starling1:...), or a file that holds one, was expected: %s", why->text);
}

int passport_read_token(const char *given, struct token *out, struct err *err)
{
    if (strncmp(given, TOKEN_PREFIX, sizeof TOKEN_PREFIX - 1) == 0 && strchr(given, ':')) {
        return token_read(given, out, err);
    }
    uint8_t *data;
    size_t len;
    char text[TOKEN_TEXT_MAX + 1];
    struct err why;
    int rc = disk_load(&disk_posix, given, TOKEN_FILE_MAX, &data, &len, &why);
    if (rc) {
        return no_token(given, &why, err);
    }
    (void)snprintf(text, sizeof text, "%.*s", (int)len, (const char *)data);
    mem_free(data);
    rc = token_read(text, out, err);
    return rc ? err_prefix(err, "%s", given) : 0;
}

/* Beside the identity lies the name of the token that brought it. Without that the token is only tried once more. */
static void leave_mark(const char *folder, const struct token *token)
{
    char path[DISK_PATH_MAX], id[TOKEN_ID_BYTES];
    if (disk_join(path, folder, MARK) == 0 && token_id(token->secret, id, NULL) == 0) {
        (void)disk_save(&disk_posix, path, &(struct span){id, strlen(id)}, 1, NULL);
    }
}

bool passport_is_of(const char *folder, const struct token *token)
{
    char path[DISK_PATH_MAX], id[TOKEN_ID_BYTES];
    uint8_t *data = NULL;
    size_t len = 0;
    bool same = disk_join(path, folder, MARK) == 0 && token_id(token->secret, id, NULL) == 0 &&
                disk_load(&disk_posix, path, sizeof id, &data, &len, NULL) == 0 && len == strlen(id) &&
                memcmp(data, id, len) == 0;
    mem_free(data);
    return same;
}

struct join {
    const struct token *token;
    const char *folder;
    struct request *request;
    uint64_t (*again)(void *ctx, const struct err *why);
    void *ctx;
};

static int say_enrol(void *ctx, struct conn *conn, struct err *err)
{
    struct join *join = ctx;
    size_t len;
    const uint8_t *csr = request_csr(join->request, &len);
    struct msg msg = {.type = MSG_ENROL,
                      .enrol = {.secret = (uint8_t *)(uintptr_t)join->token->secret,
                                .secret_len = sizeof join->token->secret,
                                .request = (uint8_t *)(uintptr_t)csr,
                                .request_len = (uint32_t)len}};
    return conn_send(conn, &msg, err);
}

/* What the server sent takes the place of what is there only if it is what was asked for: the authority that is trusted
 * is the token's for good, whatever a server says later. */
static int take(const struct request *request, const struct msg_certificate *answer, const uint8_t *pin,
                const char *name, uint32_t role, struct credential **out, struct err *err)
{
    struct credential *made;
    *out = NULL;
    int rc = request_credential(request, answer->certificate, answer->certificate_len, answer->authority,
                                answer->authority_len, &made, err);
    if (rc) {
        return rc;
    }
    rc = credential_check(made, pin, name, role, err);
    if (rc == 0 && credential_subject(made)->not_after <= now_s()) {
        rc = err_set(err, ERR_ACCESS, "the server sent a certificate that has expired: one of the clocks is wrong");
    }
    if (rc) {
        credential_free(made);
        return rc;
    }
    *out = made;
    return 0;
}

static int take_certificate(void *ctx, struct conn *conn, const struct msg *msg, struct err *err)
{
    (void)conn;
    struct join *join = ctx;
    const struct token *token = join->token;
    struct credential *made;
    if (msg->type != MSG_CERTIFICATE) {
        return err_set(err, ERR_PROTOCOL, "%s: answered ENROL with %s", token->address, msg_type_name(msg->type));
    }
    int rc = take(join->request, &msg->certificate, token->pin, token->name, token->role, &made, err);
    rc = rc ? rc : identity_save(join->folder, made, token->address, err);
    credential_free(made);
    if (rc == 0) {
        leave_mark(join->folder, token);
    }
    return rc ? rc : 1;
}

static int check_age(const struct token *token, struct err *err)
{
    return now_s() < token->expires ? 0 : err_set(err, ERR_ACCESS, "the token has expired: ask for a new one");
}

static uint64_t try_again(void *ctx, struct err *why)
{
    struct join *join = ctx;
    return check_age(join->token, why) ? 0 : join->again(join->ctx, why);
}

int passport_join(const struct token *token, const char *folder, uint64_t (*again)(void *ctx, const struct err *why),
                  void *ctx, struct err *err)
{
    struct join join = {.token = token, .folder = folder, .again = again, .ctx = ctx};
    struct exchange exchange = {.server = token->address,
                                .timeout_ms = JOIN_TIMEOUT_MS,
                                .stoppable = true,
                                .open = say_enrol,
                                .message = take_certificate,
                                .again = again ? try_again : NULL,
                                .ctx = &join};
    size_t there = disk_there(folder);
    int rc = check_age(token, err);
    rc = rc ? rc : disk_make_folder(&disk_posix, folder, err); /* before the token is spent */
    rc = rc ? rc : request_new(&join.request, err);
    rc = rc ? rc : tls_setup_joining(token->pin, &exchange.tls, err);
    rc = rc ? rc : exchange_run(&exchange, err);
    tls_setup_free(exchange.tls);
    request_free(join.request);
    if (rc) {
        disk_remove_made(folder, there);
    }
    return rc;
}

/* ---- What is kept ---- */

/* How long the certificate is good for from the moment that it was made. */
static int64_t valid_s(const struct trust_subject *subject)
{
    return subject->not_after - subject->not_before - TRUST_CLOCKS_DIFFER_S;
}

/* What a connection is made of, and when the certificate is to be renewed. */
static int adopt(struct passport *passport, const struct credential *credential, struct err *err)
{
    struct tls_setup *setup;
    uint8_t pin[32];
    int rc = credential_pin(credential, pin, err);
    rc = rc ? rc : tls_setup_client(credential, &setup, err);
    if (rc == 0) {
        tls_setup_free(passport->setup);
        passport->setup = setup;
        passport->subject = *credential_subject(credential);
        memcpy(passport->pin, pin, sizeof pin);
        passport->ask_at = passport->subject.not_after - valid_s(&passport->subject) / 3;
    }
    return rc;
}

static int load(struct passport *passport, struct err *err)
{
    struct credential *credential;
    int rc = identity_load(passport->folder, &credential, passport->address, err);
    if (rc) {
        return rc;
    }
    if (credential_subject(credential)->not_after <= now_s()) {
        rc = err_set(err, ERR_ACCESS, "%s: the certificate has expired; start with --join and a new token",
                     passport->folder);
    }
    rc = rc ? rc : adopt(passport, credential, err);
    credential_free(credential);
    return rc;
}

int passport_open(struct passport *passport, const char *folder, struct err *err)
{
    *passport = (struct passport){.ask_at = INT64_MAX};
    if ((size_t)snprintf(passport->folder, sizeof passport->folder, "%s", folder) >= sizeof passport->folder) {
        return err_set(err, ERR_LIMIT, "%.200s...: the path is too long", folder);
    }
    return identity_exists(folder) ? load(passport, err) : 0;
}

void passport_close(struct passport *passport)
{
    request_free(passport->asked);
    tls_setup_free(passport->setup);
    *passport = (struct passport){.ask_at = INT64_MAX};
}

/* ---- Renewal ---- */

int64_t passport_next(const struct passport *passport)
{
    return passport->setup ? passport->ask_at : INT64_MAX;
}

int passport_renew(struct passport *passport, struct msg *msg, struct err *err)
{
    int64_t now = now_s();
    if (!passport->setup || now < passport->ask_at) {
        return 0;
    }
    int64_t gap = valid_s(&passport->subject) / 10;
    passport->ask_at = now + (gap > 2 ? gap : 2);
    request_free(passport->asked);
    int rc = request_new(&passport->asked, err);
    if (rc) {
        return rc;
    }
    size_t len;
    const uint8_t *csr = request_csr(passport->asked, &len);
    *msg =
        (struct msg){.type = MSG_ENROL, .enrol = {.request = (uint8_t *)(uintptr_t)csr, .request_len = (uint32_t)len}};
    return 1;
}

int passport_take(struct passport *passport, const struct msg_certificate *certificate, struct err *err)
{
    if (!passport->asked) {
        return err_set(err, ERR_PROTOCOL, "a CERTIFICATE that nobody asked for");
    }
    const struct trust_subject *subject = &passport->subject;
    struct credential *made;
    int rc = take(passport->asked, certificate, passport->pin, subject->name, subject->role, &made, err);
    rc = rc ? rc : identity_save(passport->folder, made, passport->address, err);
    rc = rc ? rc : adopt(passport, made, err);
    credential_free(made);
    request_free(passport->asked);
    passport->asked = NULL;
    return rc;
}

/* ---- One question ---- */

/* What the server would refuse, in words for who asks. */
static int check_operator(const char *folder, const struct trust_subject *subject, struct err *err)
{
    if (subject->role != TRUST_OPERATOR) {
        return err_set(err, ERR_ACCESS,
                       "%.120s: the certificate is for the %s %s, and the status is for operators: on the server's "
                       "machine `starling ca token --name NAME --role operator` prints a token, here `starling join "
                       "TOKEN --out DIR` makes the folder for --identity",
                       folder, role_name(subject->role), subject->name);
    }
    if (subject->not_after <= now_s()) {
        return err_set(err, ERR_ACCESS,
                       "%.120s: the certificate of %s has expired: ask for a new token (`starling ca token --name %s "
                       "--role operator`), and join with it in another folder",
                       folder, subject->name, subject->name);
    }
    return 0;
}

static int load_operator(const char *folder, struct credential **credential, char address[TRUST_ADDRESS_MAX],
                         struct err *err)
{
    int rc = identity_load(folder, credential, address, err);
    if (rc == ERR_NOTFOUND) {
        return err_set(err, rc,
                       "%.200s: there is no identity in it: `starling join TOKEN --out %.120s` makes one, with a token "
                       "of `starling ca token --role operator`",
                       folder, folder);
    }
    return rc ? rc : check_operator(folder, credential_subject(*credential), err);
}

int passport_operator(const char *identity, const char *trust, struct tls_setup **out, char address[TRUST_ADDRESS_MAX],
                      struct err *err)
{
    struct credential *credential = NULL;
    int rc = 0;
    *out = NULL;
    address[0] = '\0';
    if (trust) {
        struct authority *authority;
        rc = authority_open(trust, &authority, err);
        if (rc == 0) {
            (void)snprintf(address, TRUST_ADDRESS_MAX, "%s", authority_address(authority));
            rc = passport_mint(authority, "local", TRUST_OPERATOR, out, err);
            authority_close(authority);
        }
    } else if (identity) {
        rc = load_operator(identity, &credential, address, err);
    }
    if (rc == 0 && credential) {
        rc = tls_setup_client(credential, out, err);
    }
    credential_free(credential);
    return rc;
}

int passport_mint(struct authority *authority, const char *name, uint32_t role, struct tls_setup **out, struct err *err)
{
    struct credential *credential;
    *out = NULL;
    int rc = authority_credential(authority, name, role, MINTED_S, now_s(), &credential, err);
    rc = rc ? rc : tls_setup_client(credential, out, err);
    credential_free(credential);
    return rc;
}
