/* Handing in the pending contribution: OFFER, the chunks that are granted, the verdict. It stays pending until a
 * ROUND_END (or the next WELCOME) says that it counted or never will. */
#include "client/session/state.h"

void session_drop(struct session *session, const char *reason)
{
    log_event(session->log, LOG_LEVEL_WARN, "dropped", "round=%u reason=\"%s\"", session->pending->round, reason);
    session_act(session, (struct session_action){.kind = SESSION_DROP, .round = session->pending->round});
    session->upload = NULL;
    contribution_free(session->pending);
    session->pending = NULL;
}

void session_offer(struct session *session)
{
    const struct contribution *pending = session->pending;
    session->state = STATE_OFFERING;
    log_event(session->log, LOG_LEVEL_INFO, "offering", "round=%u images=%llu waits_for=GRANT", pending->round,
              (unsigned long long)pending->report.images);
    session_send(session, (struct msg){.type = MSG_OFFER,
                                       .offer = {.round = pending->round,
                                                 .report = pending->report,
                                                 .update = pending->update_blob,
                                                 .has_features = pending->features != NULL,
                                                 .features = pending->features_blob}});
}

/* After a restart of the server a round may have opened without us, and no ROUND comes; what is ready for it is let in
 * all the same. A pending contribution for a later round is of a server that went back; its ROUND will tell. */
void session_offer_unasked(struct session *session)
{
    if (session->pending && session->pending->round == session->ended_round + 1) {
        session_offer(session);
    }
}

static void send_chunk(struct session *session)
{
    const struct blob *blob = session->upload;
    struct bytes *bytes = blob->kind == BLOB_UPDATE ? session->pending->update : session->pending->features;
    uint64_t left = bytes->len - session->upload_offset;
    uint32_t len = left < FRAME_CHUNK_MAX ? (uint32_t)left : FRAME_CHUNK_MAX;
    session_send(session,
                 (struct msg){.type = MSG_CHUNK,
                              .chunk = {.kind = blob->kind, .round = blob->round, .offset = session->upload_offset},
                              .raw = bytes->data + session->upload_offset,
                              .raw_len = len,
                              .payload = bytes_ref(bytes)});
    session->upload_offset += len;
    if (session->upload_offset == bytes->len) {
        session->upload = NULL;
    }
}

void session_drained(struct session *session)
{
    if (session->upload) {
        send_chunk(session);
    }
}

/* The server may only speak of what was offered to it. */
static bool is_offered(struct session *session, const char *answer, uint32_t round)
{
    if (session->pending && session->pending->round == round) {
        return true;
    }
    struct err err;
    (void)err_set(&err, ERR_PROTOCOL, "%s for round %u, which was not offered", answer, round);
    session_close(session, true, &err);
    return false;
}

void session_on_grant(struct session *session, const struct msg *msg)
{
    const struct msg_grant *grant = &msg->grant;
    if (!is_offered(session, "GRANT", grant->round)) {
        return;
    }
    const struct contribution *pending = session->pending;
    const struct blob *blob = grant->kind == BLOB_UPDATE                          ? &pending->update_blob
                              : grant->kind == BLOB_FEATURES && pending->features ? &pending->features_blob
                                                                                  : NULL;
    if (!blob || grant->offset >= blob->bytes) {
        struct err err;
        (void)err_set(&err, ERR_PROTOCOL, "GRANT for byte %llu of %s %u, which was not offered",
                      (unsigned long long)grant->offset, blob_kind_name(grant->kind), grant->round);
        session_close(session, true, &err);
        return;
    }
    session->state = STATE_UPLOADING;
    session->upload = blob;
    session->upload_offset = grant->offset;
    send_chunk(session);
}

void session_on_queued(struct session *session, const struct msg *msg)
{
    if (!is_offered(session, "QUEUED", msg->queued.round)) {
        return;
    }
    session->state = STATE_OFFERING; /* Also when a slot was taken away again. */
    session->upload = NULL;
    log_event(session->log, msg->queued.reason ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "queued",
              "round=%u place=%u reason=\"%s\" waits_for=GRANT", msg->queued.round, msg->queued.place,
              queued_reason_name(msg->queued.reason));
}

void session_on_accepted(struct session *session, const struct msg *msg)
{
    if (!is_offered(session, "ACCEPTED", msg->accepted.round)) {
        return;
    }
    session->state = STATE_DELIVERED;
    session->upload = NULL;
    session->attempt = 0;
    log_event(session->log, LOG_LEVEL_INFO, "accepted", "round=%u waits_for=ROUND_END", msg->accepted.round);
}

void session_on_declined(struct session *session, const struct msg *msg)
{
    const struct msg_declined *declined = &msg->declined;
    if (!is_offered(session, "DECLINED", declined->round)) {
        return;
    }
    char text[MSG_TEXT_MAX];
    log_event(session->log, LOG_LEVEL_WARN, "declined", "round=%u code=\"%s\" reason=\"%s\" waits_for=ROUND",
              declined->round, decline_reason_name(declined->reason), log_quotable(declined->text, text, sizeof text));
    session_drop(session, "the server declined it");
    session->state = STATE_READY;
    if (!decline_repeats(declined->reason)) {
        return;
    }
    if (session->inherited) { /* This process may do better; a new connection asks the server to let it try. */
        struct err err;
        (void)err_set(&err, ERR_DATA, "what was trained before the last start was declined; the round begins anew");
        session_close(session, false, &err);
        return;
    }
    session->refused_round = declined->round;
    session->refused_model = session->open.model.hash;
    session->refused_remote = session->open.remote.hash;
}
