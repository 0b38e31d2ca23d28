/* An observer's part: AGGREGATE, the evaluation, EVALUATED. An evaluation outlasts the connection and the round: what
 * it found is told when it can be, and the newest model is next. */
#include "client/session/state.h"

static int check_aggregate(const struct session *session, const struct msg_aggregate *aggregate, struct err *err)
{
    if (session->role != ROLE_OBSERVER) {
        return err_set(err, ERR_PROTOCOL, "AGGREGATE for a client that is no observer");
    }
    if (aggregate->round != session->ended_round || aggregate->round == 0) {
        return err_set(err, ERR_PROTOCOL, "AGGREGATE of round %u; round %u was the last to end", aggregate->round,
                       session->ended_round);
    }
    return session_check_model(session, aggregate->round + 1, &aggregate->model, err);
}

/* What the server does not know of, having come back from a backup, is not told. */
static void report(struct session *session)
{
    session->state = STATE_READY;
    if (session->evaluated.round > session->ended_round) {
        return;
    }
    session_send(session, (struct msg){.type = MSG_EVALUATED, .evaluated = session->evaluated});
    session->told = true;
    session->attempt = 0;
    if (session->evaluated.round >= session->plan.rounds && !session->stay) {
        session_finish(session);
    }
}

void session_on_aggregate(struct session *session, const struct msg *msg)
{
    const struct msg_aggregate *aggregate = &msg->aggregate;
    struct err err;
    if (check_aggregate(session, aggregate, &err) < 0) {
        session_close(session, true, &err);
        return;
    }
    log_event(session->log, LOG_LEVEL_INFO, "aggregate_received", "round=%u", aggregate->round);
    session->open = (struct msg_round){.round = aggregate->model.round, .model = aggregate->model};
    if (session->evaluating) {
        session->state = STATE_EVALUATING;
    } else if (session->evaluated.round == aggregate->round &&
               hash_equal(&session->evaluated_model, &aggregate->model.hash)) {
        report(session);
    } else {
        if (session->evaluated.round && !session->told) { /* what ended while nobody could be told */
            report(session);
        }
        if (session->state == STATE_READY) {
            session_fetch(session);
        }
    }
}

void session_evaluate(struct session *session)
{
    session->state = STATE_EVALUATING;
    session->evaluating = true;
    session->evaluating_as = (struct msg_evaluated){.round = session->open.round - 1, .images = session->images};
    session->evaluating_model = session->open.model.hash;
    session_act(session, (struct session_action){.kind = SESSION_EVALUATE,
                                                 .round = session->open.round - 1,
                                                 .model = transfer_take(&session->model)});
}

void session_evaluated(struct session *session, double knn_top1)
{
    session->evaluating = false;
    session->told = false;
    session->evaluated = session->evaluating_as;
    session->evaluated.knn_top1 = knn_top1;
    session->evaluated_model = session->evaluating_model;
    log_event(session->log, LOG_LEVEL_INFO, "evaluated", "round=%u knn_top1=%.4f images=%llu", session->evaluated.round,
              knn_top1, (unsigned long long)session->evaluated.images);
    bool newer =
        session->state == STATE_EVALUATING && !hash_equal(&session->open.model.hash, &session->evaluated_model);
    if (session->state == STATE_EVALUATING || session->state == STATE_READY) {
        report(session);
    }
    if (newer && session->state == STATE_READY) {
        session_fetch(session);
    }
}
