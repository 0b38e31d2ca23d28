/* What runs outside the loop: absorbing a contribution, making the next model, saving. Jobs run one at a time, in the
 * order in which they are handed out, so the sum, the intake and what they make need no lock. A job works on its own
 * struct (slot.absorb, aggregate) and on what only jobs touch: agg's sum and the intake. */
#include "common/base/mem.h"
#include "server/round/alarm.h"
#include "server/session/state.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* ---- ABSORB ---- */

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
    struct screen screen;
    uint32_t rows =
        absorb->rows < absorb->bank->capacity ? absorb->rows : absorb->bank->capacity; /* More never stay. */
    if (screen_copies(absorb->bank, absorb->owner, features, rows, &screen)) {
        (void)err_set(&absorb->err, ERR_DATA,
                      "%u of %u features that were looked at are those of other clients; a client contributes its own",
                      screen.copied, screen.looked);
        absorb->reason = DECLINE_FEATURES;
        return false;
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
static void absorb_run(struct slot *slot)
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
    for (enum norm_part part = 0; part < NORM_PARTS; part++) {
        const struct length *length = &absorb->lengths[part];
        if (length->clip_above > 0 && length->norm > length->clip_above) {
            log_event(c->log, LOG_LEVEL_WARN, "update_clipped",
                      "name=%s round=%u part=\"%s\" norm=%.6g clipped_to=%.6g usual=%.6g", absorb->owner, absorb->round,
                      norm_part_name(part), length->norm, length->clip_above, length->usual);
        }
    }
}

static void disk_trouble(struct coordinator *c, int result, const char *reason)
{
    char text[MSG_TEXT_MAX];
    (void)log_quotable(reason, text, sizeof text);
    (void)snprintf(c->trouble, sizeof c->trouble, "%s: %.230s", result == ERR_FULL ? "disk space" : "the disk", text);
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

static void absorb_done(struct coordinator *c, struct slot *slot)
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

/* ---- AGGREGATE ---- */

static void aggregate_drop(struct aggregate *work)
{
    bytes_unref(work->next);
    bytes_unref(work->next_state);
    bank_free(work->next_bank);
    mem_free(work->bank_bytes);
    work->next = NULL;
    work->next_state = NULL;
    work->next_bank = NULL;
    work->bank_bytes = NULL;
}

static int read_spool(void *ctx, uint32_t i, uint64_t at, size_t count, float *out, struct err *err)
{
    const struct aggregate *work = ctx;
    return spool_read(work->spool, work->names[i], at, count, out, err);
}

static void aggregate_run(struct aggregate *work)
{
    work->result = 0;
    if (work->spool) {
        const struct updates updates = {work->count, read_spool, work};
        work->result = agg_apply(work->agg, work->rule, &updates, work->kept, &work->err);
    }
    if (work->result == 0) {
        work->result = agg_finish(work->agg, &work->next, &work->next_state);
    }
    if (work->result == 0) {
        work->result = bank_merge(work->bank, work->intake, &work->next_bank);
    }
    if (work->result == 0) {
        bank_expire(work->next_bank, work->oldest);
        work->result = bank_encode(work->next_bank, &work->bank_bytes, &work->bank_len);
    }
    if (work->result != 0) {
        aggregate_drop(work);
        return;
    }
    work->next_hash = hash_of(work->next->data, work->next->len);
    agg_restart(work->agg, work->next);
    bank_intake_clear(work->intake);
}

static void watch_add(struct watch *sum, const struct watch *watch, double weight)
{
    sum->alignment += weight * watch->alignment;
    sum->uniformity += weight * watch->uniformity;
    sum->deviation += weight * watch->deviation;
    sum->rank += weight * watch->rank;
}

/* The mean over the contributions that say it; `which`: the offset of their measures in struct report. */
static struct watch watch_mean(const struct coordinator *c, size_t which)
{
    struct watch sum = {0}, mean = {0};
    double weights = 0;
    for (uint32_t i = 0; i < c->round.count; i++) {
        uint32_t member = c->round.order[i];
        const char *report = (const char *)&c->members[member].offer.report;
        const struct watch *watch = (const struct watch *)(const void *)(report + which);
        if (round_has_delivered(&c->round, member) && watch->measured) {
            watch_add(&sum, watch, (double)member_weight(c, member));
            weights += (double)member_weight(c, member);
        }
    }
    if (weights > 0) {
        mean.measured = true;
        watch_add(&mean, &sum, 1 / weights);
    }
    return mean;
}

/* Means weighted by images, summed in the order of names, so that they do not depend on the order of arrival. */
static void summarise(struct coordinator *c)
{
    struct round_summary *s = &c->summary;
    *s = (struct round_summary){.round = round_current(c), .declined = c->declined, .closed_unix_ms = c->unix_ms};
    for (uint32_t i = 0; i < c->round.count; i++) {
        uint32_t member = c->round.order[i];
        if (!round_has_delivered(&c->round, member)) {
            continue;
        }
        const struct report *report = &c->members[member].offer.report;
        double weight = (double)member_weight(c, member);
        s->accepted++;
        s->images += member_weight(c, member);
        s->loss += weight * report->loss;
        s->loss_contrast += weight * report->loss_contrast;
        s->loss_matching += weight * report->loss_matching;
        s->remote_share += weight * report->remote_share;
    }
    double images = (double)s->images;
    s->loss /= images;
    s->loss_contrast /= images;
    s->loss_matching /= images;
    s->remote_share /= images;
    s->seconds = (double)(c->now_ms - c->round.opened_ms) / 1000;
    s->bytes_up = c->bytes_up;
    s->bytes_down = c->bytes_down;
    s->aggregate = watch_mean(c, offsetof(struct report, aggregate));
    s->own = watch_mean(c, offsetof(struct report, own));
}

/* Everything that the save needs, and the memory that the moment after it needs. ERR_NOMEM. */
static int prepare_save(struct coordinator *c)
{
    mem_free(c->counted);
    c->counted = mem_new(c->round.count, sizeof *c->counted);
    if (!c->counted) {
        return ERR_NOMEM;
    }
    summarise(c);
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->round.count; i++) {
        uint32_t index = c->round.order[i];
        const struct member *member = &c->members[index];
        bool now = round_has_delivered(&c->round, index);
        if (now || member->has_counted) {
            struct counted *entry = &c->counted[count++];
            memcpy(entry->name, member->name, sizeof entry->name);
            entry->round = now ? round_current(c) : member->counted_round;
        }
    }
    c->save_job.checkpoint = (struct checkpoint){
        .run = c->run,
        .round = round_current(c),
        .plan = c->plan_bytes,
        .plan_len = c->plan_len,
        .params = (float *)(void *)c->aggregate.next->data,
        .bank = c->aggregate.bank_bytes,
        .bank_len = c->aggregate.bank_len,
        .optimiser = c->aggregate.next_state ? c->aggregate.next_state->data : NULL,
        .optimiser_len = c->aggregate.next_state ? c->aggregate.next_state->len : 0,
        .counted = c->counted,
        .counted_count = count,
        .summary = c->summary,
    };
    memcpy(c->save_job.checkpoint.norms, c->norms, sizeof c->norms);
    for (enum norm_part part = 0; part < NORM_PARTS; part++) {
        norm_push(c->save_job.checkpoint.norms[part], cohort_norm(c, part));
    }
    return 0;
}

/* Whom krum did not take, for people: the contribution counts, and its features do. */
static void log_left_out(const struct coordinator *c)
{
    for (uint32_t i = 0; c->options.spool && i < c->aggregate.count; i++) {
        if (!c->aggregate.kept[i]) {
            log_event(c->log, LOG_LEVEL_WARN, "update_left_out", "name=%s round=%u rule=krum", c->aggregate.names[i],
                      round_current(c));
        }
    }
}

static void aggregated(struct coordinator *c)
{
    if (c->aggregate.next && prepare_save(c) == 0) {
        c->trouble[0] = '\0';
        log_left_out(c);
        round_apply(c, ROUND_AGGREGATED, 0);
        return;
    }
    int result = c->aggregate.next || c->aggregate.result == 0 ? ERR_NOMEM : c->aggregate.result;
    if (result == ERR_NOMEM) {
        c->nomem = true;
        (void)snprintf(c->trouble, sizeof c->trouble, "memory for the model of round %u", round_current(c));
    } else {
        disk_trouble(c, result, c->aggregate.err.text);
    }
    log_event(c->log, LOG_LEVEL_ERROR, "aggregation_failed", "round=%u reason=\"%s\"", round_current(c), c->trouble);
    c->result = c->round.stopping ? result : 0;
    round_apply(c, ROUND_FAILED, 0);
}

/* Whose updates the rule is to look at. A copy: members may come, and move the others, while the job runs. */
static int list_updates(struct coordinator *c)
{
    struct aggregate *work = &c->aggregate;
    if (!c->options.spool) {
        return 0;
    }
    mem_free(work->names);
    mem_free(work->kept);
    work->names = mem_new(c->round.count, sizeof *work->names);
    work->kept = mem_new(c->round.count, sizeof *work->kept);
    work->count = 0;
    if (!work->names || !work->kept) {
        return ERR_NOMEM;
    }
    for (uint32_t i = 0; i < c->round.count; i++) {
        uint32_t member = c->round.order[i];
        if (round_has_delivered(&c->round, member)) {
            memcpy(work->names[work->count++], c->members[member].name, sizeof work->names[0]);
        }
    }
    work->rule = &c->rule;
    work->spool = c->options.spool;
    return 0;
}

void aggregate_submit(struct coordinator *c)
{
    if (c->aggregate.next) { /* Only what follows had failed. */
        aggregated(c);
        return;
    }
    if (list_updates(c) != 0) {
        c->aggregate.result = ERR_NOMEM;
        aggregated(c);
        return;
    }
    c->aggregate.agg = c->agg;
    c->aggregate.intake = c->intake;
    c->aggregate.bank = c->bank;
    /* What this round contributed is in the samples of the next fusion.ttl. */
    c->aggregate.oldest = c->plan->fusion.ttl > 0 && round_current(c) >= c->plan->fusion.ttl
                              ? round_current(c) - c->plan->fusion.ttl + 1
                              : 0;
    c->aggregate_job.kind = JOB_AGGREGATE;
    c->aggregate_job.work = &c->aggregate;
    job_submit(c, &c->aggregate_job);
}

/* ---- SAVE ---- */

void save_submit(struct coordinator *c)
{
    c->save_job.kind = JOB_SAVE;
    job_submit(c, &c->save_job);
}

static void remember(struct coordinator *c)
{
    if (c->history_count == HISTORY_ROOM) {
        c->history_count -= HISTORY_GO;
        memmove(c->history, c->history + HISTORY_GO, c->history_count * sizeof *c->history);
    }
    c->history[c->history_count++] = c->summary;
}

/* The saved state becomes the one that clients see. */
static void adopt(struct coordinator *c)
{
    for (uint32_t i = 0; i < c->round.count; i++) {
        if (round_has_delivered(&c->round, i)) {
            c->members[i].has_counted = true;
            c->members[i].counted_round = round_current(c);
            c->members[i].gave_none = !c->members[i].offer.has_features;
        }
    }
    agg_adopt(c->agg, c->aggregate.next, c->aggregate.next_state);
    c->model_hash = c->aggregate.next_hash;
    c->aggregate.next = c->aggregate.next_state = NULL;
    bank_free(c->bank);
    c->bank = c->aggregate.next_bank;
    c->aggregate.next_bank = NULL;
    aggregate_drop(&c->aggregate);
    mem_free(c->counted);
    c->counted = NULL;
    c->accepted = c->summary.accepted;
    memcpy(c->norms, c->save_job.checkpoint.norms, sizeof c->norms);
    c->summary.seconds = (double)(c->now_ms - c->round.opened_ms) / 1000;
    remember(c);
}

bool alarm_follow(struct coordinator *c, const struct round_summary *summary)
{
    bool before = c->collapsed.round != 0;
    if (alarm_collapsed(summary)) {
        c->collapsed = *summary;
    } else if (alarm_knows(summary)) {
        c->collapsed.round = 0;
    }
    return before != (c->collapsed.round != 0);
}

/* The phase is still SAVING, so `since_ms` is when the aggregation had ended. */
static void log_durable(struct coordinator *c)
{
    const struct round_summary *s = &c->summary;
    char aggregate[WATCH_FIELDS_MAX], own[WATCH_FIELDS_MAX], text[MSG_TEXT_MAX];
    log_event(c->log, LOG_LEVEL_INFO, "round_durable",
              "round=%u accepted=%u images=%llu loss=%.6g loss_contrast=%.6g loss_matching=%.6g remote_share=%.4g "
              "seconds=%.3f aggregation_seconds=%.3f save_seconds=%.3f bank_rows=%u bytes_up=%llu bytes_down=%llu%s%s",
              s->round, s->accepted, (unsigned long long)s->images, s->loss, s->loss_contrast, s->loss_matching,
              s->remote_share, s->seconds, (double)(c->round.since_ms - c->closed_ms) / 1000,
              (double)(c->now_ms - c->round.since_ms) / 1000, c->bank->rows, (unsigned long long)s->bytes_up,
              (unsigned long long)s->bytes_down, watch_fields(&s->aggregate, "", aggregate),
              watch_fields(&s->own, "own_", own));
    if (!alarm_follow(c, s)) {
        return;
    }
    alarm_text(c, text);
    if (text[0]) {
        log_event(c->log, LOG_LEVEL_WARN, "representation_collapsed", "round=%u%s reason=\"%s\"", s->round, aggregate,
                  text);
    } else {
        log_event(c->log, LOG_LEVEL_INFO, "representation_recovered", "round=%u%s", s->round, aggregate);
    }
}

static void save_done(struct coordinator *c, int result, const struct err *reason)
{
    if (result == 0) {
        adopt(c);
        c->trouble[0] = '\0';
        log_durable(c);
        round_apply(c, ROUND_SAVED, 0);
        return;
    }
    disk_trouble(c, result, reason && reason->text[0] ? reason->text : err_meaning(result));
    log_event(c->log, LOG_LEVEL_ERROR, "save_failed", "round=%u waits_for=\"%s\"", round_current(c), c->trouble);
    c->result = c->round.stopping ? result : 0;
    round_apply(c, ROUND_FAILED, 0);
}

/* ---- RECORD ---- */

/* Rows of the history whose evaluation came, one at a time, the newest first. */
void record_submit(struct coordinator *c)
{
    for (uint32_t i = c->history_count; i > 0 && !c->recording; i--) {
        struct round_summary *row = &c->history[i - 1];
        if (row->unrecorded) {
            row->unrecorded = false;
            c->recording = true;
            c->record_job.kind = JOB_RECORD;
            c->record_job.checkpoint = (struct checkpoint){.round = row->round, .summary = *row};
            job_submit(c, &c->record_job);
        }
    }
}

static void record_done(struct coordinator *c)
{
    c->recording = false;
    record_submit(c);
}

/* ---- Any ---- */

void job_run(struct job *job)
{
    if (job->kind == JOB_ABSORB) {
        absorb_run(job->work);
    } else if (job->kind == JOB_AGGREGATE) {
        aggregate_run(job->work);
    }
}

void job_done(struct coordinator *c, struct job *job, int result, const struct err *reason)
{
    c->jobs_running--;
    if (job->kind == JOB_ABSORB) {
        absorb_done(c, job->work);
    } else if (job->kind == JOB_AGGREGATE) {
        aggregated(c);
    } else if (job->kind == JOB_RECORD) {
        record_done(c);
    } else {
        save_done(c, result, reason);
    }
}
