/* ROUND and ROUND_END: what opens, what is over, and what becomes of work that belongs to neither. */
#include "client/session/state.h"

int session_check_model(const struct session *session, uint32_t round, const struct blob *blob, struct err *err)
{
    if (blob->kind != BLOB_MODEL || blob->round != round || blob->element != ELEMENT_F32 ||
        !hash_equal(&blob->layout, &session->layout->fingerprint)) {
        return err_set(err, ERR_PROTOCOL, "round %u announces a model that is none of this round or layout", round);
    }
    if (blob->count != session->layout->total || blob->bytes != session->layout->total * sizeof(float)) {
        return err_set(err, ERR_PROTOCOL, "round %u announces a model of %llu bytes; the plan's has %llu", round,
                       (unsigned long long)blob->bytes, (unsigned long long)(session->layout->total * sizeof(float)));
    }
    return 0;
}

static int check_remote(const struct session *session, const struct msg_round *round, struct err *err)
{
    const struct blob *blob = &round->remote;
    uint32_t form = session->plan.wire.features;
    if (!round->has_remote) {
        return 0;
    }
    if (blob->kind != BLOB_REMOTE || blob->round != round->round ||
        !hash_equal(&blob->layout, &session->layout->fingerprint) || blob->dimension != session->plan.model.features ||
        blob->count % blob->dimension != 0) {
        return err_set(err, ERR_PROTOCOL, "round %u announces remote features that are none of this round or layout",
                       round->round);
    }
    uint64_t rows = blob->count / blob->dimension;
    if (blob->element != element_of(form) || blob->bytes != quant_rows_bytes(form, rows, blob->dimension)) {
        return err_set(err, ERR_PROTOCOL, "round %u announces remote features as %s in %llu bytes; the plan's are %s",
                       round->round, element_name(blob->element), (unsigned long long)blob->bytes,
                       element_name(element_of(form)));
    }
    uint32_t most = plan_shares_features(&session->plan) ? session->plan.fusion.remote : 0;
    if (rows == 0 || rows > most) {
        return err_set(err, ERR_PROTOCOL, "round %u announces %llu remote features; the plan allows %u", round->round,
                       (unsigned long long)rows, most);
    }
    return 0;
}

static int check_number(const struct session *session, uint32_t number, struct err *err)
{
    if (session->role != ROLE_TRAINER) {
        return err_set(err, ERR_PROTOCOL, "ROUND for a client that does not train");
    }
    if (number <= session->ended_round) {
        return err_set(err, ERR_PROTOCOL, "round %u opens, though round %u has ended", number, session->ended_round);
    }
    if (session->pending && session->pending->round < number) {
        return err_set(err, ERR_PROTOCOL, "round %u opens, though round %u was not ended", number,
                       session->pending->round);
    }
    return 0;
}

/* Whether the round is the one that is being worked on: the message is then a repetition. */
static bool is_in_work(const struct session *session, const struct msg_round *round)
{
    return session->state > STATE_READY && session->open.round == round->round &&
           hash_equal(&session->open.model.hash, &round->model.hash);
}

static bool is_in_training(const struct session *session, const struct msg_round *round)
{
    return session->training_round == round->round && !session->training_cancelled &&
           hash_equal(&session->training_model, &round->model.hash);
}

/* The same model, the same features of others, the same images: it would train to the same bits, and be declined for
 * the same reason. A new connection begins afresh, as the server does. */
static bool is_refused(const struct session *session, const struct msg_round *round)
{
    return session->refused_round == round->round && hash_equal(&session->refused_model, &round->model.hash) &&
           hash_equal(&session->refused_remote, &round->remote.hash);
}

void session_on_round(struct session *session, const struct msg *msg)
{
    const struct msg_round *round = &msg->round;
    struct err err;
    int rc = check_number(session, round->round, &err);
    rc = rc ? rc : session_check_model(session, round->round, &round->model, &err);
    rc = rc ? rc : check_remote(session, round, &err);
    if (rc < 0) {
        session_close(session, true, &err);
        return;
    }
    if (is_in_work(session, round)) {
        return;
    }
    if (!session->pending && is_refused(session, round)) {
        log_event(session->log, LOG_LEVEL_WARN, "not_trained_again",
                  "round=%u reason=\"it would be declined again\" waits_for=\"the end of the round\"", round->round);
        return;
    }
    session->open = *round;
    session->open.has_remote = round->has_remote && !session->withholds; /* Older servers offer them to everybody. */
    log_event(session->log, LOG_LEVEL_INFO, "round_received", "round=%u remaining_ms=%llu remote=%llu", round->round,
              (unsigned long long)round->remaining_ms,
              (unsigned long long)(session->open.has_remote ? round->remote.count / round->remote.dimension : 0));
    if (session->pending && session->pending->round > round->round) {
        session_drop(session, "the server went back to an earlier round");
    }
    if (session->pending && session->state > STATE_READY) {
        return; /* Offered on this connection already. */
    }
    if (session->pending) {
        session_offer(session);
    } else if (is_in_training(session, round)) {
        session->state = STATE_TRAINING;
    } else if (session->training_round != 0) {
        session_cancel(session);
        session->state = STATE_TRAINING;
    } else {
        session_fetch(session);
    }
}

void session_settle(struct session *session, uint32_t ended, uint32_t counted)
{
    /* Only the last that counted is known: an older one is left in a state folder that was put back, and may have been
     * in vain. The state before it is whole in either case. */
    if (session->pending && session->pending->round == counted) {
        session_act(session, (struct session_action){.kind = SESSION_COMMIT, .round = session->pending->round});
        contribution_free(session->pending);
        session->pending = NULL;
    } else if (session->pending && session->pending->round <= ended) {
        session_drop(session, "the round ended without it");
    }
    if (session->training_round != 0 && session->training_round <= ended) {
        session_cancel(session);
    }
    if (session->open.round <= ended) {
        session_fetch_reset(session);
    }
    if (counted > session->saved_round) {
        session->saved_round = counted;
    }
}

void session_finish(struct session *session)
{
    struct err err;
    (void)err_set(&err, ERR_OK, "the run is finished: %u rounds", session->plan.rounds);
    session_exit(session, &err);
}

void session_on_round_end(struct session *session, const struct msg *msg)
{
    const struct msg_round_end *end = &msg->round_end;
    if (end->round > session->ended_round) {
        log_event(session->log, LOG_LEVEL_INFO, "round_ended", "round=%u contributions=%u counted=%s%s", end->round,
                  end->accepted, end->counted ? "yes" : "no", end->finished ? "" : " waits_for=ROUND");
        session_settle(session, end->round, end->counted ? end->round : 0);
        session->ended_round = end->round;
        session->attempt = 0;
        session->upload = NULL;
        if (session->state > STATE_READY && session->open.round <= end->round) {
            session->state = STATE_READY;
        }
    }
    if (end->finished && !session->stay && session->role != ROLE_OBSERVER) { /* It has the last model to evaluate. */
        session_finish(session);
    }
}
