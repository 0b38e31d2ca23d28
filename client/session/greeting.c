/* HELLO, WELCOME or REJECT, READY: whether this client and that server belong together.
 *
 * The run and the plan of the first WELCOME are the session's identity for good (or those on disk are); a server of
 * another run or plan ends the session, since a site's state means nothing there. */
#include "client/session/state.h"

#include <stdio.h>

#define SOFTWARE "starling " STARLING_VERSION

void session_greet(struct session *session)
{
    struct msg msg = {.type = MSG_HELLO};
    struct msg_hello *hello = &msg.hello;
    hello->major = FRAME_VERSION;
    hello->minor_least = PROTOCOL_MINOR_LEAST;
    hello->minor_most = PROTOCOL_MINOR_MOST;
    hello->capabilities = CAPABILITIES_OURS;
    hello->role = session->role;
    (void)snprintf(hello->name, sizeof hello->name, "%s", session->name);
    hello->instance = session->instance;
    (void)snprintf(hello->software, sizeof hello->software, "%s", SOFTWARE);
    hello->has_saved = session->has_identity;
    hello->saved_run = session->run;
    hello->saved_plan = session->plan_hash;
    hello->saved_round = session->saved_round;
    session_send(session, msg);
}

static int check_same(const struct session *session, const struct msg_welcome *welcome, struct err *err)
{
    char ours[HASH_HEX], theirs[HASH_HEX];
    if (session->has_identity && !hash_equal(&session->run, &welcome->run)) {
        return err_set(err, ERR_MISMATCH,
                       "the server is at run %s; the state of this client belongs to run %s (if a new run is meant, "
                       "start it once with --new-run, which drops that state)",
                       hash_hex(&welcome->run, theirs), hash_hex(&session->run, ours));
    }
    if (session->has_identity && !hash_equal(&session->plan_hash, &welcome->plan_hash)) {
        return err_set(err, ERR_MISMATCH,
                       "the server has plan %s; the state of this client belongs to plan %s (if a new run is meant, "
                       "start it once with --new-run, which drops that state)",
                       hash_hex(&welcome->plan_hash, theirs), hash_hex(&session->plan_hash, ours));
    }
    return 0;
}

/* The plan as it came: whole, understood to the last key, and it makes a network. */
static int take_plan(struct session *session, const struct msg_welcome *welcome, struct err *err)
{
    if (session->layout) {
        return 0;
    }
    int rc = plan_decode(welcome->plan, welcome->plan_len, &session->plan, err);
    if (rc == 0) {
        rc = layout_new(&session->plan.model, &session->layout, err);
    }
    if (rc < 0 && rc != ERR_NOMEM) {
        (void)err_prefix(err, "the server's plan is not for this version (" SOFTWARE ")");
        err->code = ERR_MISMATCH;
        return ERR_MISMATCH;
    }
    return rc;
}

static int check_welcome(struct session *session, const struct msg_welcome *welcome, struct err *err)
{
    if (welcome->minor < PROTOCOL_MINOR_LEAST || welcome->minor > PROTOCOL_MINOR_MOST) {
        return err_set(err, ERR_VERSION, "the server chose protocol %d.%u; this client speaks %d.%d to %d.%d",
                       FRAME_VERSION, welcome->minor, FRAME_VERSION, PROTOCOL_MINOR_LEAST, FRAME_VERSION,
                       PROTOCOL_MINOR_MOST);
    }
    if (!welcome->plan && !session->layout) {
        return err_set(err, ERR_PROTOCOL, "the server's WELCOME has no plan");
    }
    struct hash128 hash = welcome->plan ? plan_hash(welcome->plan, welcome->plan_len) : welcome->plan_hash;
    if (!hash_equal(&hash, &welcome->plan_hash)) {
        return err_set(err, ERR_PROTOCOL, "the plan in the server's WELCOME has another hash than it says");
    }
    int rc = check_same(session, welcome, err);
    return rc ? rc : take_plan(session, welcome, err);
}

static void get_ready(struct session *session)
{
    if (session->prepared) {
        session->state = STATE_READY;
        session_send(session, (struct msg){.type = MSG_READY,
                                           .ready = {.layout = session->layout->fingerprint,
                                                     .images = session->images,
                                                     .withholds_features = session->withholds}});
        session_offer_unasked(session);
        return;
    }
    session->state = STATE_PREPARING;
    if (!session->preparing) {
        session->preparing = true;
        session_act(session, (struct session_action){.kind = SESSION_PREPARE,
                                                     .plan = &session->plan,
                                                     .layout = session->layout,
                                                     .run = session->run,
                                                     .plan_hash = session->plan_hash});
    }
}

void session_on_welcome(struct session *session, const struct msg *msg)
{
    const struct msg_welcome *welcome = &msg->welcome;
    struct err err;
    int rc = check_welcome(session, welcome, &err);
    if (rc == ERR_PROTOCOL) {
        session_close(session, true, &err);
        return;
    }
    if (rc < 0) {
        session_exit(session, &err);
        return;
    }
    session->has_identity = true;
    session->run = welcome->run;
    session->plan_hash = welcome->plan_hash;
    session->idle_timeout_ms = welcome->idle_timeout_ms;
    session_welcomed(session);
    char run[HASH_HEX];
    log_event(session->log, LOG_LEVEL_INFO, "welcomed", "run=%s round=%u rounds=%u idle_timeout_ms=%llu",
              hash_hex(&session->run, run), welcome->round, session->plan.rounds,
              (unsigned long long)session->idle_timeout_ms);
    session_settle(session, welcome->round, welcome->has_counted ? welcome->counted_round : 0);
    session->ended_round = welcome->round; /* Also when it is less than before: a server may come back from a backup. */
    if (welcome->round >= session->plan.rounds && !session->stay && session->role != ROLE_OBSERVER) {
        session_finish(session);
        return;
    }
    get_ready(session);
}

void session_prepared(struct session *session, uint64_t images)
{
    session->preparing = false;
    session->prepared = true;
    session->images = images;
    if (session->state == STATE_PREPARING) {
        get_ready(session);
    }
}

static int reject_error(uint32_t code)
{
    switch (code) {
    case REJECT_VERSION:
        return ERR_VERSION;
    case REJECT_LAYOUT:
    case REJECT_RUN:
    case REJECT_PLAN:
        return ERR_MISMATCH;
    case REJECT_PROTOCOL:
        return ERR_PROTOCOL;
    case REJECT_ACCESS:
        return ERR_ACCESS;
    default:
        return ERR_UNAVAILABLE;
    }
}

void session_on_reject(struct session *session, const struct msg *msg)
{
    const struct msg_reject *reject = &msg->reject;
    struct err err;
    (void)err_set(&err, reject_error(reject->code), "the server refused: %s", reject->text);
    if (reject->code == REJECT_VERSION) {
        (void)err_set(&err, ERR_VERSION, "the server speaks protocol %d.%u to %d.%u, this client %d.%d to %d.%d: %s",
                      FRAME_VERSION, reject->minor_least, FRAME_VERSION, reject->minor_most, FRAME_VERSION,
                      PROTOCOL_MINOR_LEAST, FRAME_VERSION, PROTOCOL_MINOR_MOST, reject->text);
    }
    char text[sizeof err.text];
    log_event(session->log, LOG_LEVEL_WARN, "rejected", "code=%u retry=%s retry_after_ms=%llu reason=\"%s\"",
              reject->code, reject->retry ? "yes" : "never", (unsigned long long)reject->retry_after_ms,
              log_quotable(err.text, text, sizeof text));
    if (!reject->retry) {
        session_exit(session, &err);
        return;
    }
    session->retry_after_ms = reject->retry_after_ms;
    session_close(session, true, &err);
}
