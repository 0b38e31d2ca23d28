/* Fetching what a round needs: the model, then the remote features. What has arrived survives a lost connection, and
 * the fetch goes on behind it while the server announces the same hash. */
#include "client/session/state.h"

void session_fetch_reset(struct session *session)
{
    transfer_reset(&session->model);
    transfer_reset(&session->remote);
    session->bad_hashes = 0;
}

static void close_damaged(struct session *session, const struct err *err)
{
    session_fetch_reset(session);
    session_close(session, true, err);
}

/* Asks for the rest of a blob; true when nothing is missing and the hash holds. */
static bool complete(struct session *session, struct transfer *transfer, const struct blob *blob)
{
    struct err err;
    if (transfer_is_whole(transfer) && transfer_verify(transfer, &err) < 0) {
        transfer_end(transfer);
        log_event(session->log, LOG_LEVEL_WARN, "damaged", "reason=\"%s\" fetches=%u", err.text,
                  session->bad_hashes + 1);
        if (++session->bad_hashes > TRANSFER_AGAIN_MOST) {
            close_damaged(session, &err);
            return false;
        }
    }
    if (transfer_begin(transfer, blob) < 0) {
        (void)err_set(&err, ERR_NOMEM, "no memory for the %llu bytes of %s %u", (unsigned long long)blob->bytes,
                      blob_kind_name(blob->kind), blob->round);
        session_exit(session, &err);
        return false;
    }
    if (transfer_is_whole(transfer)) {
        return true;
    }
    session_send(session,
                 (struct msg){.type = MSG_FETCH,
                              .fetch = {.kind = blob->kind, .round = blob->round, .offset = transfer->received}});
    return false;
}

/* Takes the next step: FETCH the model, FETCH the remote features, TRAIN; an observer: FETCH the model, EVALUATE. */
static void advance(struct session *session)
{
    const struct msg_round *open = &session->open;
    if (!complete(session, &session->model, &open->model)) {
        return;
    }
    if (open->has_remote && !complete(session, &session->remote, &open->remote)) {
        return;
    }
    session->bad_hashes = 0;
    if (session->role == ROLE_OBSERVER) {
        session_evaluate(session);
    } else {
        session_train(session);
    }
}

void session_fetch(struct session *session)
{
    if (!session->open.has_remote) {
        transfer_reset(&session->remote);
    }
    session->bad_hashes = 0;
    session->state = STATE_FETCHING;
    advance(session);
}

void session_on_chunk(struct session *session, const struct msg *msg)
{
    struct transfer *transfer = transfer_is_whole(&session->model) ? &session->remote : &session->model;
    struct err err;
    if (transfer_chunk(transfer, msg, &err) < 0) {
        session_close(session, true, &err);
        return;
    }
    if (transfer_is_whole(transfer)) {
        advance(session);
    }
}
