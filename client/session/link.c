/* The connection's life: the back-off before it, the heartbeats and the silence within it, its end.
 *
 * A lost connection is tried again soon; one that ended in a disagreement (`refused`) or that never came about waits
 * twice as long each time, up to half of the idle time-out. There is no last attempt. */
#include "client/session/state.h"

#include <stdio.h>

#define BACKOFF_LEAST_MS 500u
#define HINT_ATTEMPT     3u /* failures in a row without ever having reached the server; the first two may be its start */

static uint64_t backoff_ms(struct session *session)
{
    uint64_t most = session->idle_timeout_ms / 2 > 2 ? session->idle_timeout_ms / 2 : 2;
    uint64_t wait = BACKOFF_LEAST_MS;
    for (uint32_t i = 1; i < session->attempt && wait < most; i++) {
        wait *= 2;
    }
    wait = wait < most ? wait : most;
    /* Half of it is chance, so that clients that lost one server do not come back at one moment. */
    wait = wait / 2 + rng_below(&session->rng, (uint32_t)(wait - wait / 2) + 1);
    return wait > session->retry_after_ms ? wait : session->retry_after_ms;
}

/* A server that is away for a night must not fill the log: the 1st, 2nd, 4th, 8th ... attempt are told. */
static enum log_level attempt_level(const struct session *session)
{
    return (session->attempt & (session->attempt - 1)) == 0 ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG;
}

/* An address at which there has never been a server is mostly a wrong one; once, since the server may also be down for
 * the night. Other reasons than these two say themselves what is wrong. */
void link_hint(const struct log *log, uint32_t attempts, const struct err *reason)
{
    static const char unreachable[] =
        "is the address right (--server, server in the configuration, or the token's)? "
        "does the server run, and listen on this port, beyond 127.0.0.1 if it is another machine? "
        "do names, routes and firewalls lead there? it is tried on";
    static const char turned_away[] =
        "somebody answers there: are all places of the server taken (its log says so: connection_refused, "
        "connections_full)? is it another service, or a relay whose server is away? it is tried on";
    bool nobody = reason->code == ERR_UNAVAILABLE;
    char text[sizeof reason->text];
    if (attempts == HINT_ATTEMPT && (nobody || reason->code == ERR_TEMPFAIL)) {
        log_event(log, LOG_LEVEL_WARN, nobody ? "server_unreachable" : "turned_away",
                  "attempts=%u reason=\"%s\" check=\"%s\"", attempts, log_quotable(reason->text, text, sizeof text),
                  nobody ? unreachable : turned_away);
    }
}

static void go_offline(struct session *session, const struct err *reason)
{
    bool was_good = session->welcomed && !session->refused;
    session->attempt = was_good ? 1 : session->attempt + 1;
    uint64_t wait = backoff_ms(session);
    session->connect_ms = session->now_ms + wait;
    session->state = STATE_OFFLINE;
    session->closing = session->welcomed = session->refused = false;
    session->refused_round = 0;
    session->retry_after_ms = 0;
    session->upload = NULL;
    char text[sizeof reason->text];
    log_event(session->log, attempt_level(session), "connection_lost",
              "reason=\"%s\" waits_for=\"next attempt\" retry_ms=%llu attempt=%u",
              log_quotable(reason->text, text, sizeof text), (unsigned long long)wait, session->attempt);
    if (!session->reached) {
        link_hint(session->log, session->attempt, reason);
    }
}

void session_closed(struct session *session, const struct err *reason)
{
    if (session->state == STATE_OFFLINE && !session->closing) {
        return;
    }
    if (session->closing) {
        go_offline(session, &session->why);
        return;
    }
    /* A server of another major version is known by its first frame, and so is something else on its port, or one that
     * does not know this client's certificate. It will be the same one next time; but once, it may have been damage on
     * the way. */
    bool begun = session->state == STATE_CONNECTING || session->state == STATE_GREETING;
    bool foreign = begun && reason && (reason->code == ERR_VERSION || reason->code == ERR_ACCESS);
    bool again = foreign && session->foreign;
    session->foreign = foreign;
    if (again) {
        session->state = STATE_OFFLINE;
        session_exit(session, reason);
        return;
    }
    struct err err;
    if (!reason || reason->code == 0) {
        (void)err_set(&err, ERR_TEMPFAIL, "the server closed the connection");
    } else {
        err = *reason;
    }
    go_offline(session, &err);
}

static void say_bye(struct session *session, const struct err *reason)
{
    if (session->state >= STATE_GREETING && session->state < STATE_DONE) {
        struct msg msg = {.type = MSG_BYE, .bye = {.code = (uint32_t)-reason->code}};
        (void)snprintf(msg.bye.text, sizeof msg.bye.text, "%.*s", MSG_TEXT_MAX - 1, reason->text);
        session_send(session, msg);
    }
}

static void hang_up(struct session *session, bool refused, const struct err *reason)
{
    session_act(session, (struct session_action){.kind = SESSION_CLOSE});
    session->why = *reason;
    session->refused |= refused;
    session->closing = true;
    session->upload = NULL;
    session->state = STATE_OFFLINE;
}

void session_close(struct session *session, bool refused, const struct err *reason)
{
    say_bye(session, reason);
    hang_up(session, refused, reason);
}

void session_exit(struct session *session, const struct err *reason)
{
    say_bye(session, reason);
    if (session->state != STATE_OFFLINE) {
        session_act(session, (struct session_action){.kind = SESSION_CLOSE});
    }
    session->state = STATE_DONE;
    session->upload = NULL;
    char text[sizeof reason->text];
    log_event(session->log, reason->code ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, "done", "exit=%d reason=\"%s\"",
              err_exit_code(reason->code), log_quotable(reason->text, text, sizeof text));
    session_act(session, (struct session_action){
                             .kind = SESSION_EXIT, .exit_code = err_exit_code(reason->code), .reason = *reason});
}

void session_on_bye(struct session *session, const struct msg *msg)
{
    struct err err;
    (void)err_set(&err, ERR_TEMPFAIL, "the server said goodbye: %s", msg->bye.text[0] ? msg->bye.text : "no reason");
    if (session->state == STATE_GREETING && msg->bye.code == (uint32_t)-ERR_VERSION) { /* as in session_closed */
        err.code = ERR_VERSION;
        if (session->foreign) {
            session_exit(session, &err);
            return;
        }
        session->foreign = true;
    }
    hang_up(session, msg->bye.code != 0, &err);
}

/* That it came is its meaning. But who has long had nothing to do says why: no wait is silent. */
void session_on_alive(struct session *session, const struct msg *msg)
{
    bool waits = session->state == STATE_READY || session->state == STATE_DELIVERED;
    if (!waits || session->patience.reminder.wait_ms == 0 || session->patience.state != (uint32_t)session->state ||
        session->patience.round != session->ended_round) {
        session->patience.state = (uint32_t)session->state;
        session->patience.round = session->ended_round;
        session->patience.since_ms = session->now_ms;
        reminder_begin(&session->patience.reminder, session->now_ms, session->idle_timeout_ms);
    } else if (reminder_is_due(&session->patience.reminder, session->now_ms)) {
        char text[MSG_TEXT_MAX];
        log_event(session->log, LOG_LEVEL_INFO, "still_waiting", "state=%s seconds=%llu for=\"%s\"",
                  session_state_name(session->state),
                  (unsigned long long)(session->now_ms - session->patience.since_ms) / 1000,
                  log_quotable(msg->alive.waits_for, text, sizeof text));
    }
}

void session_connected(struct session *session)
{
    if (session->state != STATE_CONNECTING) {
        return;
    }
    session->state = STATE_GREETING;
    session->reached = true;
    session->heard_ms = session->now_ms;
    log_event(session->log, LOG_LEVEL_INFO, "connected", "waits_for=WELCOME");
    session_greet(session);
}

static void set_beat(struct session *session)
{
    session->beat_ms = session->now_ms + (session->idle_timeout_ms < 4 ? 1 : session->idle_timeout_ms / 4);
}

void session_welcomed(struct session *session)
{
    session->welcomed = true;
    set_beat(session);
}

static void try_connect(struct session *session)
{
    session->state = STATE_CONNECTING;
    session->heard_ms = session->now_ms;
    log_event(session->log, attempt_level(session), "connecting", "attempt=%u waits_for=\"the server\"",
              session->attempt + 1);
    session_act(session, (struct session_action){.kind = SESSION_CONNECT});
}

static void beat(struct session *session)
{
    struct msg msg = {.type = MSG_PROGRESS};
    if (session->training_round != 0 && !session->training_cancelled) {
        msg.progress = session->progress;
        msg.progress.round = session->training_round;
    }
    session_send(session, msg);
    set_beat(session);
}

static uint64_t silence_ms(const struct session *session)
{
    return session->heard_ms + session->idle_timeout_ms;
}

static void check_silence(struct session *session)
{
    if (session->now_ms < silence_ms(session)) {
        return;
    }
    /* Ticks follow each other by a quarter of the time-out at most. After a longer gap it was this process that stood
     * still, and what the server said meanwhile has yet to be read. */
    uint64_t idle = session->idle_timeout_ms;
    if (session->now_ms - session->ticked_ms > idle / 2 && session->welcomed) {
        session->heard_ms = session->now_ms - idle + idle / 4;
        return;
    }
    struct err err;
    (void)err_set(&err, ERR_TEMPFAIL, "nothing came from the server for %llu ms",
                  (unsigned long long)(session->now_ms - session->heard_ms));
    session_close(session, false, &err);
}

void session_tick(struct session *session)
{
    if (session->state == STATE_OFFLINE) {
        if (!session->closing && session->now_ms >= session->connect_ms) {
            try_connect(session);
        }
        return;
    }
    check_silence(session);
    if (session->welcomed && session->state != STATE_OFFLINE && session->now_ms >= session->beat_ms) {
        beat(session);
    }
}

uint64_t session_next_ms(const struct session *session)
{
    if (session->state == STATE_DONE || session->closing) {
        return UINT64_MAX;
    }
    if (session->state == STATE_OFFLINE) {
        return session->connect_ms;
    }
    uint64_t silence = silence_ms(session);
    return session->welcomed && session->beat_ms < silence ? session->beat_ms : silence;
}
