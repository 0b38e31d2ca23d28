/* Who may come in. With `trust` the server speaks TLS, and of everybody who comes the certificate says the name and the
 * role. Somebody without a certificate stays a stranger (server/session/strangers.c): he may say one thing, ENROL with
 * the secret of a token, and is closed behind the answer.
 *
 * The server's own key and certificate live in memory: they are made at the start, and anew before they expire. Once a
 * second the revocations are read from the folder, where `starling ca revoke` writes them, and whoever is revoked, or
 * has let his certificate expire, is closed. */
#include "server/shell/internal.h"

#include "common/trust/authority.h"

#include <stdio.h>
#include <string.h>

#define OWN_VALID_S (INT64_C(90) * 24 * 3600)
#define TICK_MS     1000
#define REMIND_MS   60000 /* then twice as long each time, an hour at most */
#define RENEW_GAP_S 1     /* a renewal costs two signatures; a client needs one in days */

static int make_setup(struct daemon *daemon, struct err *err)
{
    struct guard *guard = &daemon->guard;
    struct credential *credential;
    struct tls_setup *setup;
    int64_t now = machine_unix_s();
    int rc = authority_credential(guard->authority, "server", TRUST_SERVER, OWN_VALID_S, now, &credential, err);
    if (rc) {
        return rc;
    }
    rc = tls_setup_server(credential, &setup, err);
    credential_free(credential);
    if (rc == 0) {
        tls_setup_free(guard->setup);
        guard->setup = setup;
        guard->setup_since = now;
    }
    return rc;
}

/* ---- Closing ---- */

static void close_behind_last_word(struct peer *peer)
{
    peer_close(peer, conn_linger_ms(peer->daemon->options->idle_timeout_ms));
}

/* `msg` says the same to the peer. */
static void turn_away(struct peer *peer, struct msg *msg, const char *text)
{
    const struct trust_subject *subject = conn_subject(peer->conn);
    /* Who has no certificate has no name either: a token that is refused says none to the server. */
    log_event(coordinator_log(peer->daemon->coordinator, peer_number(peer), "access_refused"), LOG_LEVEL_WARN,
              "access_refused", "%s%s%saddress=%s reason=\"%s\"", subject ? "name=" : "", subject ? subject->name : "",
              subject ? " " : "", conn_peer(peer->conn), text);
    (void)conn_send(peer->conn, msg, NULL);
    close_behind_last_word(peer);
}

/* On a connection that was welcomed. */
static void say_goodbye(struct peer *peer, const char *text)
{
    peer_tell(peer, (struct event){.kind = EVENT_PEER_BARRED});
    struct msg msg = {.type = MSG_BYE, .bye.code = (uint32_t)-ERR_ACCESS};
    (void)snprintf(msg.bye.text, sizeof msg.bye.text, "%s", text);
    turn_away(peer, &msg, text);
}

/* REJECT_ACCESS is for good. */
static void reject(struct peer *peer, enum reject_code code, const char *text)
{
    uint64_t retry_after_ms = code == REJECT_ACCESS ? 0 : peer->daemon->options->idle_timeout_ms / 60;
    struct msg msg = peer_rejection(code, retry_after_ms, text);
    turn_away(peer, &msg, text);
}

static void judge_all(struct daemon *daemon, int64_t now)
{
    for (uint32_t i = 0; i < daemon->peers.room; i++) {
        struct peer *peer = &daemon->peers.items[i];
        const struct trust_subject *subject = peer->conn ? conn_subject(peer->conn) : NULL;
        if (!subject || peer->closing) {
            continue;
        }
        if (authority_is_revoked(daemon->guard.authority, subject)) {
            say_goodbye(peer, "this certificate has been revoked; a new token makes the site welcome again");
        } else if (peer->expires <= now) {
            say_goodbye(peer, "this certificate has expired and was not renewed; ask for a new token");
        }
    }
}

/* A clock that was ahead when the certificate was made and has been set right since has made one that holds later. */
static bool is_fresh(const struct guard *guard, int64_t now)
{
    return now >= guard->setup_since && now - guard->setup_since < OWN_VALID_S / 2;
}

/* It is looked for each second, and said when it comes, when it becomes another and when it is over; and now and then
 * while it lasts. */
static void note_trouble(struct daemon *daemon, const struct err *now)
{
    struct guard *guard = &daemon->guard;
    bool same = guard->trouble.code == now->code && strcmp(guard->trouble.text, now->text) == 0;
    char text[MSG_TEXT_MAX];
    if (!same) {
        reminder_begin(&guard->reminder, net_now_ms(), REMIND_MS);
    }
    if (now->code && (!same || reminder_is_due(&guard->reminder, net_now_ms()))) {
        log_event(daemon->log, LOG_LEVEL_WARN, "trust_unreadable", "reason=\"%s\"",
                  log_quotable(now->text, text, sizeof text));
    } else if (!now->code && !same) {
        log_event(daemon->log, LOG_LEVEL_INFO, "trust_readable", "after=\"%s\"",
                  log_quotable(guard->trouble.text, text, sizeof text));
    }
    guard->trouble = *now;
}

static void on_tick(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    struct err err;
    int64_t now = machine_unix_s();
    if (daemon->leaving) {
        return;
    }
    int rc = authority_reload(daemon->guard.authority, &err);
    if (!is_fresh(&daemon->guard, now)) {
        int made = make_setup(daemon, rc ? NULL : &err);
        rc = rc ? rc : made;
    }
    note_trouble(daemon, rc ? &err : &(struct err){0});
    judge_all(daemon, now);
}

/* ---- Coming in ---- */

bool guard_admit(struct peer *peer)
{
    const struct trust_subject *subject = conn_subject(peer->conn);
    if (!subject) {
        conn_limit(peer->conn, &msg_limits_server_stranger); /* for as long as strangers have to say HELLO */
        return false;
    }
    peer->expires = subject->not_after;
    if (authority_is_revoked(peer->daemon->guard.authority, subject)) {
        reject(peer, REJECT_ACCESS, "this certificate has been revoked; a new token makes the site welcome again");
        return false;
    }
    return true;
}

/* Waiting for the folder's lock, a second at most, stops the loop, so that a command that is stopped with it (SIGSTOP,
 * a frozen disk) must not cost that again for each who comes: no token is looked at for a sixth of idle_timeout. */
static int redeem(struct daemon *daemon, const uint8_t *secret, int64_t now, struct trust_subject *subject,
                  struct err *err)
{
    struct guard *guard = &daemon->guard;
    if (net_now_ms() < guard->busy_until_ms) {
        return err_set(err, ERR_TEMPFAIL, "the folder's lock was held just now");
    }
    int rc = authority_redeem(guard->authority, secret, now, subject, err);
    if (rc == ERR_TEMPFAIL) {
        guard->busy_until_ms = net_now_ms() + daemon->options->idle_timeout_ms / 6;
    }
    return rc;
}

static int sign(struct peer *peer, const struct msg_enrol *enrol, struct trust_subject *subject, struct buf *out,
                struct err *err)
{
    struct authority *authority = peer->daemon->guard.authority;
    int64_t now = machine_unix_s();
    if (enrol->secret) {
        int rc = redeem(peer->daemon, enrol->secret, now, subject, err);
        if (rc) {
            return rc;
        }
    } else {
        *subject = *conn_subject(peer->conn);
    }
    uint64_t valid_s = peer->daemon->options->certificate_valid_ms / 1000;
    int rc = authority_sign(authority, subject, enrol->request, enrol->request_len, valid_s, now, out, err);
    if (rc == 0) {
        peer->expires = now + (int64_t)valid_s;
        peer->renewed = now;
    }
    return rc;
}

static int answer(struct peer *peer, const struct buf *certificate, struct err *err)
{
    size_t len;
    const uint8_t *ca = authority_ca_der(peer->daemon->guard.authority, &len);
    struct msg msg = {.type = MSG_CERTIFICATE, /* which owns nothing of it */
                      .certificate = {.certificate = certificate->data,
                                      .certificate_len = (uint32_t)certificate->len,
                                      .authority = (uint8_t *)(uintptr_t)ca,
                                      .authority_len = (uint32_t)len}};
    return conn_send(peer->conn, &msg, err);
}

/* A token is for who has no certificate; a renewal, for who has one and is at work. */
static int check_enrol(const struct peer *peer, const struct msg_enrol *enrol, struct err *err)
{
    const struct trust_subject *subject = conn_subject(peer->conn);
    if (!subject != !!enrol->secret) {
        return err_set(err, ERR_ACCESS, "%s",
                       subject ? "a token is for who has no certificate yet" : "no token was given");
    }
    int64_t since = machine_unix_s() - peer->renewed;
    if (subject && since >= 0 && since < RENEW_GAP_S) { /* less than 0: the clock was set back */
        return err_set(err, ERR_ACCESS, "the certificate was renewed just now");
    }
    return 0;
}

/* What is the server's own trouble (disk, a lock that somebody holds) is told to the log alone; the client asks again:
 * with its token, or for its renewal when that is due once more. */
static void refuse_enrol(struct peer *peer, int rc, const char *why)
{
    if (rc == ERR_ACCESS) {
        reject(peer, REJECT_ACCESS, why);
        return;
    }
    log_event(coordinator_log(peer->daemon->coordinator, peer_number(peer), "trust_unreadable"), LOG_LEVEL_ERROR,
              "trust_unreadable", "reason=\"%s\"", why);
    if (rc == ERR_DATA) { /* the request, or what the folder holds of the token */
        reject(peer, REJECT_ACCESS, "this cannot be signed; ask for a new token");
    } else if (!conn_subject(peer->conn)) {
        reject(peer, REJECT_FULL, "the server cannot give out certificates just now");
    }
}

void guard_enrol(struct peer *peer, const struct msg_enrol *enrol)
{
    struct trust_subject subject = {0};
    struct buf certificate;
    struct err err = {0};
    char text[MSG_TEXT_MAX];
    buf_init(&certificate, MSG_CERTIFICATE_MAX);
    int rc = check_enrol(peer, enrol, &err);
    rc = rc ? rc : sign(peer, enrol, &subject, &certificate, &err);
    rc = rc ? rc : answer(peer, &certificate, &err);
    buf_fini(&certificate);
    if (rc) {
        refuse_enrol(peer, rc, log_quotable(err.text, text, sizeof text));
        return;
    }
    log_event(peer->daemon->log, LOG_LEVEL_INFO, enrol->secret ? "certificate_issued" : "certificate_renewed",
              "name=%s role=%s address=%s valid_s=%lld", subject.name, role_name(subject.role), conn_peer(peer->conn),
              (long long)(peer->expires - peer->renewed));
    if (!conn_subject(peer->conn)) {
        close_behind_last_word(peer);
    }
}

/* ---- Start and end ---- */

int daemon_check_trust(const struct server_options *options, struct err *err)
{
    struct authority *authority = NULL;
    int rc = options->trust[0] ? authority_open(options->trust, &authority, err) : 0;
    authority_close(authority);
    return rc;
}

int guard_start(struct daemon *daemon, struct err *err)
{
    struct guard *guard = &daemon->guard;
    if (!daemon->options->trust[0]) {
        if (daemon->options->plain_beyond_loopback) {
            log_event(daemon->log, LOG_LEVEL_WARN, "plain_listening",
                      "address=%s reason=\"without TLS anybody on the way can read and change everything\"",
                      daemon->bound);
        }
        return 0;
    }
    int rc = authority_open(daemon->options->trust, &guard->authority, err);
    rc = rc ? rc : make_setup(daemon, err);
    if (rc == 0) {
        (void)uv_timer_init(&daemon->loop, &guard->timer);
        guard->timer.data = daemon;
        (void)uv_timer_start(&guard->timer, on_tick, TICK_MS, TICK_MS);
        uv_unref((uv_handle_t *)&guard->timer);
    }
    return rc;
}

void guard_stop(struct daemon *daemon)
{
    if (daemon->guard.timer.data) {
        uv_close((uv_handle_t *)&daemon->guard.timer, NULL);
    }
}

void guard_fini(struct daemon *daemon)
{
    tls_setup_free(daemon->guard.setup);
    authority_close(daemon->guard.authority);
    daemon->guard = (struct guard){0};
}
