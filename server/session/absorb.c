/* ABSORB: a contribution that has come in becomes part of the round, or is refused.
 *
 * absorb_submit says what the job needs to know, absorb_run does it outside the loop, absorb_done tells the round and
 * the client. The job checks the bytes, unpacks what travelled packed, measures the update's parts and shortens what is
 * to be (lengths.c), and adds it to the sum, or puts it into the spool where a rule needs all updates; features are
 * screened and go into the intake. All of it or nothing; but rows that are screened out are dropped, and the update
 * counts: its site's images would be missing from the model, and what harm it does is for its own rules. */
#include "common/base/mem.h"
#include "server/session/state.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* What was received, as floats: where it lies if it travelled as floats, else in *room, which is the caller's. NULL:
 * refused, or no memory. */
static float *unpack_update(struct slot *slot, float **room)
{
    struct absorb *absorb = &slot->absorb;
    const struct layout *layout = absorb->layout;
    uint32_t at;
    if (absorb->update_form == QUANT_F32) {
        return (float *)(void *)slot->update.data;
    }
    *room = mem_new_aligned((size_t)layout->total, sizeof **room);
    if (!*room) {
        absorb->result = ERR_NOMEM;
        return NULL;
    }
    if (quant_update_decode(absorb->update_form, layout, slot->update.data, slot->update.blob.bytes, *room, &at) !=
        QUANT_OK) {
        (void)err_set(&absorb->err, ERR_DATA, "the update of %s holds a number or a scale that is not finite",
                      layout->tensors[at].name);
        absorb->reason = DECLINE_NOT_FINITE;
        return NULL;
    }
    return *room;
}

static float *unpack_features(struct slot *slot, float **room)
{
    struct absorb *absorb = &slot->absorb;
    uint32_t at;
    if (absorb->features_form == QUANT_F32) {
        return (float *)(void *)slot->features.data;
    }
    *room = mem_new_aligned((size_t)absorb->rows * absorb->dimension, sizeof **room);
    if (!*room) {
        absorb->result = ERR_NOMEM;
        return NULL;
    }
    enum quant_verdict verdict =
        quant_rows_decode(absorb->features_form, slot->features.data, slot->features.blob.bytes, absorb->rows,
                          absorb->dimension, *room, &at);
    if (verdict != QUANT_OK) {
        (void)err_set(&absorb->err, ERR_DATA, "feature %u %s", at,
                      verdict == QUANT_NOT_FINITE ? "holds a number or a scale that is not finite"
                                                  : "is not of unit length");
        absorb->reason = verdict == QUANT_NOT_FINITE ? DECLINE_NOT_FINITE : DECLINE_FEATURES;
        return NULL;
    }
    return *room;
}

/* Into the intake; refused, or no memory: false. */
static bool absorb_features(struct absorb *absorb, float *features)
{
    uint32_t at = 0;
    enum bank_verdict verdict = bank_check(features, absorb->rows, absorb->dimension, &at);
    if (verdict != BANK_OK) {
        (void)err_set(&absorb->err, ERR_DATA, "feature %u %s", at,
                      verdict == BANK_NOT_FINITE ? "holds a number that is not finite" : "is not of unit length");
        absorb->reason = verdict == BANK_NOT_FINITE ? DECLINE_NOT_FINITE : DECLINE_FEATURES;
        return false;
    }
    uint32_t rows =
        absorb->rows < absorb->bank->capacity ? absorb->rows : absorb->bank->capacity; /* More never stay. */
    absorb->copied = screen_copies(absorb->bank, absorb->owner, features, rows, &absorb->screen);
    if (absorb->copied) {
        return true; /* Nothing goes into the intake: a batch without rows would still take part in its quotas. */
    }
    uint32_t kept = screen_repeats(features, rows, absorb->dimension);
    absorb->repeated = rows - kept;
    absorb->result = bank_intake_add(absorb->intake, absorb->owner, absorb->round, features, kept);
    return absorb->result == 0;
}

/* Measures the parts of the update, and shortens those that are to be. The first that is too long; NORM_PARTS: none. */
static enum norm_part fit_update(struct absorb *absorb, float *update)
{
    for (enum norm_part part = 0; part < NORM_PARTS; part++) {
        struct length *length = &absorb->lengths[part];
        double norm = length->norm = norm_of(absorb->layout, part, update);
        if (length->most > 0 && norm > length->most) {
            return part;
        }
        if (length->clip_above > 0 && isfinite(norm) && norm > length->clip_above) {
            norm_scale(absorb->layout, part, update, length->clip_above / norm);
        }
    }
    return NORM_PARTS;
}

/* Into the sum; where a rule needs all updates, nowhere yet. */
static enum fixed_verdict take_update(struct absorb *absorb, const float *update, bool fits, uint32_t *at)
{
    return fits && !absorb->spool ? agg_add(absorb->agg, update, absorb->weight, at)
                                  : agg_check(absorb->agg, update, at);
}

static void refuse_length(struct absorb *absorb, enum norm_part part)
{
    const struct length *length = &absorb->lengths[part];
    (void)err_set(&absorb->err, ERR_DATA,
                  "the length of the update's %s is %.6g, more than %.6g, which is aggregation.norm_limit times the "
                  "usual %.6g; did this site's training diverge?",
                  norm_part_name(part), length->norm, length->most, length->usual);
    absorb->reason = DECLINE_NORM;
}

/* Onto the disk, where the update goes there. False: that failed. */
static bool spool_update(struct absorb *absorb, const float *update)
{
    if (absorb->spool) {
        absorb->result = spool_put(absorb->spool, absorb->owner, update, absorb->layout->total, &absorb->err);
    }
    return absorb->result == 0;
}

/* All of a contribution or nothing of it. The intake is last, since what makes way for it does not come back; the
 * update can be taken back, and one that lies in the spool is not looked at until it is counted. */
static void absorb_floats(struct absorb *absorb, float *update, float *features)
{
    uint32_t at = 0;
    enum norm_part too_long = fit_update(absorb, update);
    enum fixed_verdict verdict = take_update(absorb, update, too_long == NORM_PARTS, &at);
    if (verdict == FIXED_OK && too_long < NORM_PARTS) {
        refuse_length(absorb, too_long);
    } else if (verdict != FIXED_OK) {
        (void)err_set(&absorb->err, ERR_DATA, "the update of %s %s", absorb->layout->tensors[at].name,
                      verdict == FIXED_NOT_FINITE ? "holds a number that is not finite"
                                                  : "is out of range; is the learning rate too high?");
        absorb->reason = verdict == FIXED_NOT_FINITE ? DECLINE_NOT_FINITE : DECLINE_RANGE;
    } else if (!spool_update(absorb, update) || (absorb->rows > 0 && !absorb_features(absorb, features))) {
        if (!absorb->spool) {
            agg_take_back(absorb->agg, update, absorb->weight);
        }
    }
}

/* What travelled packed is unpacked here, for as long as this one job runs, so that it is never more than one. */
void absorb_run(struct slot *slot)
{
    struct absorb *absorb = &slot->absorb;
    if (transfer_verify(&slot->update, &absorb->err) != 0 ||
        (absorb->rows > 0 && transfer_verify(&slot->features, &absorb->err) != 0)) {
        absorb->reason = DECLINE_HASH;
        return;
    }
    float *update_room = NULL, *features_room = NULL;
    float *update = unpack_update(slot, &update_room);
    float *features = NULL;
    if (update && absorb->rows > 0) {
        features = unpack_features(slot, &features_room);
    }
    if (update && (features || absorb->rows == 0)) {
        absorb_floats(absorb, update, features);
    }
    mem_free(update_room);
    mem_free(features_room);
}

void absorb_submit(struct coordinator *c, struct slot *slot)
{
    const struct member *member = &c->members[slot->member];
    assert(round_owes(&c->round, slot->member)); /* What gets into the sum is counted, and once. */
    slot->state = SLOT_CHECKING;
    slot->absorb = (struct absorb){
        .agg = c->agg,
        .intake = c->intake,
        .bank = c->bank,
        .layout = c->layout,
        .round = round_current(c),
        .dimension = c->bank->dimension,
        .rows = member->offer.has_features ? (uint32_t)(member->offer.features.count / c->bank->dimension) : 0,
        .update_form = c->plan->wire.update,
        .features_form = c->plan->wire.features,
        .weight = member_weight(c, slot->member),
        .spool = c->options.spool,
    };
    for (enum norm_part part = 0; part < NORM_PARTS; part++) {
        double usual = usual_norm(c, part);
        slot->absorb.lengths[part] = (struct length){.usual = usual,
                                                     .most = c->plan->aggregation.norm_limit * usual,
                                                     .clip_above = c->plan->aggregation.clip * usual};
    }
    memcpy(slot->absorb.owner, member->name, sizeof slot->absorb.owner);
    slot->job.kind = JOB_ABSORB;
    slot->job.work = slot;
    member_peer(c, slot->member)->state = PEER_CHECKING;
    round_apply(c, ROUND_ABSORBING, slot->member);
    job_submit(c, &slot->job);
}

static void log_accepted(const struct coordinator *c, uint32_t member)
{
    char aggregate[WATCH_FIELDS_MAX], own[WATCH_FIELDS_MAX];
    const struct report *report = &c->members[member].offer.report;
    log_event(c->log, LOG_LEVEL_INFO, "contribution_accepted",
              "name=%s round=%u images=%llu loss=%.6g loss_contrast=%.6g loss_matching=%.6g remote_share=%.4g%s%s",
              c->members[member].name, round_current(c), (unsigned long long)member_weight(c, member), report->loss,
              report->loss_contrast, report->loss_matching, report->remote_share,
              watch_fields(&report->aggregate, "", aggregate), watch_fields(&report->own, "own_", own));
}

/* What came is not what was offered: damage on the way, after which a client, too, fetches a download again. Somebody
 * who is away offers it anew; it was told nothing. */
static bool upload_again(struct coordinator *c, struct slot *slot, bool answers)
{
    uint32_t index = slot->member;
    if (slot->absorb.reason != DECLINE_HASH || slot->damaged == TRANSFER_AGAIN_MOST) {
        return false;
    }
    slot->damaged++;
    log_event(log_of_member(c, slot->member, "upload_damaged"), LOG_LEVEL_WARN, "upload_damaged",
              "name=%s round=%u uploads=%u reason=\"%s\"", c->members[index].name, round_current(c), slot->damaged,
              slot->absorb.err.text);
    if (answers) {
        slot_again(c, slot);
    } else {
        slot_free(c, slot);
    }
    round_apply(c, ROUND_OFFERED, index);
    slots_fill(c);
    return true;
}

/* For people: what counts is less than what was sent. */
static void log_changed(const struct coordinator *c, const struct absorb *absorb)
{
    if (absorb->repeated > 0) {
        log_event(c->log, LOG_LEVEL_WARN, "features_repeated", "name=%s round=%u rows=%u dropped=%u", absorb->owner,
                  absorb->round, absorb->rows, absorb->repeated);
    }
    if (absorb->copied) {
        log_event(c->log, LOG_LEVEL_WARN, "features_copied", "name=%s round=%u rows=%u looked_at=%u near=%u",
                  absorb->owner, absorb->round, absorb->rows, absorb->screen.looked, absorb->screen.copied);
    }
    for (enum norm_part part = 0; part < NORM_PARTS; part++) {
        const struct length *length = &absorb->lengths[part];
        if (length->clip_above > 0 && length->norm > length->clip_above) {
            log_event(c->log, LOG_LEVEL_WARN, "update_clipped",
                      "name=%s round=%u part=\"%s\" norm=%.6g clipped_to=%.6g usual=%.6g", absorb->owner, absorb->round,
                      norm_part_name(part), length->norm, length->clip_above, length->usual);
        }
    }
}

/* The disk did not take it. The round goes on to wait for it, and the client, which has it still, offers it again when
 * it comes back: it waits longer each time, as the server does with a save. */
static void spool_failed(struct coordinator *c, struct slot *slot, struct peer *peer)
{
    uint32_t index = slot->member;
    disk_trouble(c, slot->absorb.result, slot->absorb.err.text);
    log_event(c->log, LOG_LEVEL_ERROR, "spool_failed", "name=%s round=%u waits_for=\"%s\"", c->members[index].name,
              round_current(c), c->trouble);
    slot_free(c, slot);
    if (peer) {
        peer_bye(c, peer, ERR_TEMPFAIL, "the server cannot write your update to its disk; try again");
    }
    round_apply(c, ROUND_OFFERED, index);
    slots_fill(c);
}

void absorb_done(struct coordinator *c, struct slot *slot)
{
    uint32_t index = slot->member;
    struct peer *peer = member_peer(c, index);
    struct absorb *absorb = &slot->absorb;
    bool answers = peer && peer->state == PEER_CHECKING;
    if (c->round.phase != ROUND_OPEN) { /* Stopped meanwhile: the sum is not used any more. */
        slot_free(c, slot);
        return;
    }
    if (upload_again(c, slot, answers)) {
        return;
    }
    if (absorb->result != 0 && absorb->result != ERR_NOMEM) {
        spool_failed(c, slot, answers ? peer : NULL);
        return;
    }
    if (absorb->result == 0 && absorb->reason == 0) {
        log_accepted(c, index);
        log_changed(c, absorb);
        c->trouble[0] = '\0';
        for (enum norm_part part = 0; part < NORM_PARTS; part++) {
            c->members[index].norms[part] = absorb->lengths[part].norm;
        }
        c->members[index].aggregate = c->members[index].offer.report.aggregate;
        c->members[index].own = c->members[index].offer.report.own;
        c->members[index].privacy = c->members[index].offer.report.privacy;
        if (answers) {
            peer->state = PEER_DELIVERED;
            send_accepted(c, peer, round_current(c));
        }
    } else if (answers && absorb->result != 0) {
        peer_nomem(c, peer, "a contribution");
    } else if (answers) {
        peer->state = PEER_WORKING;
        send_declined(c, peer, round_current(c), absorb->reason, "%s", absorb->err.text);
    }
    enum round_event_kind verdict = absorb->result != 0               ? ROUND_DECLINED
                                    : absorb->reason == 0             ? ROUND_DELIVERED
                                    : decline_repeats(absorb->reason) ? ROUND_REFUSED
                                                                      : ROUND_DECLINED;
    slot_free(c, slot);
    round_apply(c, verdict, index);
    slots_fill(c);
}
