/* OFFER, the chunks that are granted, the verdict, ROUND_END. */
#include "client/swarm/state.h"

void swarm_offer(struct swarm *swarm, uint32_t client)
{
    struct member *member = &swarm->members[client];
    const struct stream *stream = &swarm->stream;
    uint32_t images = stream_images(client);
    struct msg msg = {.type = MSG_OFFER};
    struct msg_offer *offer = &msg.offer;
    offer->round = member->open.round;
    offer->report = (struct report){.images = images, .seen = images, .steps = 1};
    offer->update = stream->update_blob[stream_sign(client)];
    offer->has_features = stream->features != NULL;
    offer->features = stream->features_blob;
    offer->update.round = offer->features.round = offer->round;
    member->state = MEMBER_OFFERING;
    swarm_say(swarm, client, msg);
}

static struct bytes *bytes_of(const struct swarm *swarm, uint32_t client, uint32_t kind)
{
    return kind == BLOB_UPDATE     ? swarm->stream.update[stream_sign(client)]
           : kind == BLOB_FEATURES ? swarm->stream.features
                                   : NULL;
}

void swarm_drained(struct swarm *swarm, uint32_t client)
{
    struct member *member = &swarm->members[client];
    struct bytes *bytes = bytes_of(swarm, client, member->upload);
    struct swarm_round *record = swarm_round_of(swarm, member->open.round);
    if (!bytes || !record) {
        return;
    }
    uint64_t left = bytes->len - member->upload_offset;
    uint32_t len = left < FRAME_CHUNK_MAX ? (uint32_t)left : FRAME_CHUNK_MAX;
    struct msg msg = {.type = MSG_CHUNK,
                      .chunk = {.kind = member->upload, .round = record->round, .offset = member->upload_offset},
                      .raw = bytes->data + member->upload_offset,
                      .raw_len = len,
                      .payload = bytes_ref(bytes)};
    member->upload_offset += len;
    if (member->upload_offset == bytes->len) {
        member->upload = 0;
        swarm->uploading--;
    }
    record->up += len;
    swarm_say(swarm, client, msg);
}

int swarm_on_grant(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err)
{
    const struct msg_grant *grant = &msg->grant;
    struct member *member = &swarm->members[client];
    const struct bytes *bytes = bytes_of(swarm, client, grant->kind);
    struct swarm_round *record = swarm_round_of(swarm, grant->round);
    if (!record || grant->round != member->open.round || !bytes || grant->offset >= bytes->len) {
        return swarm_fail(swarm, client, err, ERR_PROTOCOL, "GRANT for byte %llu of %s %u, which was not offered",
                          (unsigned long long)grant->offset, blob_kind_name(grant->kind), grant->round);
    }
    swarm->uploading += member->upload == 0;
    record->slots = swarm->uploading > record->slots ? swarm->uploading : record->slots;
    member->state = MEMBER_UPLOADING;
    member->upload = grant->kind;
    member->upload_offset = grant->offset;
    swarm_drained(swarm, client);
    return 0;
}

/* Whatever it was doing in this round. */
static void leave_round(struct swarm *swarm, uint32_t client, enum member_state state)
{
    struct member *member = &swarm->members[client];
    swarm_drop_fetch(swarm, client);
    swarm->uploading -= member->upload != 0;
    member->upload = 0;
    member->state = state;
}

int swarm_on_accepted(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err)
{
    struct member *member = &swarm->members[client];
    struct swarm_round *record = swarm_round_of(swarm, msg->accepted.round);
    if (!record || msg->accepted.round != member->open.round || member->state != MEMBER_UPLOADING || member->upload) {
        return swarm_fail(swarm, client, err, ERR_PROTOCOL, "ACCEPTED for round %u, which was not uploaded",
                          msg->accepted.round);
    }
    uint32_t cap = swarm->plan.weight_cap, images = stream_images(client) < cap ? stream_images(client) : cap;
    leave_round(swarm, client, MEMBER_DELIVERED);
    member->counts_in = record->round;
    record->accepted++;
    record->accepted_us = swarm->now_us;
    *(stream_sign(client) ? &record->minus : &record->plus) += images;
    return 0;
}

int swarm_on_declined(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err)
{
    const struct msg_declined *declined = &msg->declined;
    struct swarm_round *record = swarm_round_of(swarm, declined->round);
    if (!record || declined->round != swarm->members[client].open.round ||
        (declined->reason != DECLINE_STALE && declined->reason != DECLINE_NOT_SELECTED)) {
        return swarm_fail(swarm, client, err, ERR_FAILED, "the server declined the contribution of round %u: %s",
                          declined->round, declined->text);
    }
    leave_round(swarm, client, MEMBER_READY);
    record->declined++;
    return 0;
}

/* The truth about a round, as one client hears it, against what the swarm has heard so far. */
static int check_end(const struct swarm *swarm, uint32_t client, const struct swarm_round *record,
                     const struct msg_round_end *end, struct err *err)
{
    bool accepted = swarm->members[client].counts_in == end->round;
    if (end->counted != accepted) {
        return swarm_fail(swarm, client, err, ERR_FAILED, "was %s in round %u, which then %s its contribution",
                          accepted ? "accepted" : "not accepted", end->round,
                          end->counted ? "counted" : "did not count");
    }
    bool all = record->ended + 1 == swarm->options.clients;
    if (end->accepted == 0 || (record->said && record->said != end->accepted) || end->accepted < record->accepted ||
        (all && end->accepted != record->accepted)) {
        return swarm_fail(
            swarm, client, err, ERR_FAILED,
            "round %u counted %u contributions, of which the swarm made %u; does somebody else contribute?", end->round,
            end->accepted, record->accepted);
    }
    return 0;
}

int swarm_on_round_end(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err)
{
    const struct msg_round_end *end = &msg->round_end;
    struct member *member = &swarm->members[client];
    struct swarm_round *record = swarm_round_of(swarm, end->round);
    if (end->round <= member->ended_round || !record || client == swarm->options.clients) {
        return 0;
    }
    int rc = check_end(swarm, client, record, end, err);
    if (rc) {
        return rc;
    }
    leave_round(swarm, client, MEMBER_READY);
    member->ended_round = end->round;
    record->said = end->accepted;
    if (++record->ended == swarm->options.clients) {
        swarm->closed++;
        swarm->phase = end->round == swarm->last ? SWARM_LEAVING : swarm->phase;
    }
    return 0;
}
