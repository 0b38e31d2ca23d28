/* The trainer: told to begin, told to stop, and heard when it has ended. A training outlasts the connection; only the
 * end of its round stops it. */
#include "client/session/state.h"

#include "common/base/disk.h"

void session_train(struct session *session)
{
    const struct msg_round *open = &session->open;
    uint32_t rows = open->has_remote ? (uint32_t)(open->remote.count / open->remote.dimension) : 0;
    session->state = STATE_TRAINING;
    session->training_round = open->round;
    session->training_model = open->model.hash;
    session->training_cancelled = false;
    session->progress = (struct msg_progress){0};
    session_act(session, (struct session_action){.kind = SESSION_TRAIN,
                                                 .round = open->round,
                                                 .model = transfer_take(&session->model),
                                                 .remote = transfer_take(&session->remote),
                                                 .remote_rows = rows});
}

void session_cancel(struct session *session)
{
    if (session->training_round != 0 && !session->training_cancelled) {
        session->training_cancelled = true;
        session_act(session, (struct session_action){.kind = SESSION_CANCEL, .round = session->training_round});
    }
}

/* The trainer is free, and a round that opened meanwhile waits for it. */
static void go_on(struct session *session)
{
    if (session->state == STATE_TRAINING) {
        session_fetch(session);
    }
}

void session_trained(struct session *session, struct contribution *contribution)
{
    bool late = session->training_cancelled;
    session->training_round = 0;
    session->training_cancelled = false;
    session->pending = contribution;
    session->inherited = false;
    log_event(session->log, LOG_LEVEL_INFO, "round_trained", "round=%u images=%llu loss=%.4f train_ms=%llu",
              contribution->round, (unsigned long long)contribution->report.images, contribution->report.loss,
              (unsigned long long)contribution->report.train_ms);
    if (late) {
        session_drop(session, "the round ended before it was trained");
        go_on(session);
    } else if (session->state == STATE_TRAINING) {
        session_offer(session);
    } else if (session->state == STATE_READY) {
        session_offer_unasked(session);
    }
}

/* What another try may cure. */
static bool is_passing(int code)
{
    return disk_may_recover(code) || code == ERR_TEMPFAIL;
}

void session_work_failed(struct session *session, const struct err *reason)
{
    bool cancelled = session->training_cancelled;
    session->training_round = 0;
    session->training_cancelled = session->evaluating = false;
    if (cancelled) {
        go_on(session);
        return;
    }
    log_event(session->log, LOG_LEVEL_ERROR, "work_failed", "reason=\"%s\"", reason->text);
    if (session->preparing || !is_passing(reason->code)) {
        session_exit(session, reason);
    } else if (session->state == STATE_TRAINING || session->state == STATE_EVALUATING) {
        /* The server announces the round again to whoever connects; the back-off keeps the tries apart. */
        session_close(session, true, reason);
    }
}
