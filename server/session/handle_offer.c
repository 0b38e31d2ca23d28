/* OFFER: a contribution is ready. Everything that its description can tell is judged before it gets a slot.
 *
 * A weight is the number of images that the report claims: 0, or more than FIXED_WEIGHT_MAX, which no folder holds, is
 * declined, and so are more than READY said; what exceeds the round's bound (weight_cap, or the share that 64-bit sums
 * allow) counts as the bound. */
#include "server/session/state.h"

#include <math.h>
#include <stdio.h>

struct verdict {
    uint32_t reason; /* 0: fine */
    char text[MSG_TEXT_MAX];
};

/* `ready`: the images of READY. */
static struct verdict judge_report(const struct report *report, uint64_t ready)
{
    struct verdict v = {0};
    if (report->images == 0 || report->images > FIXED_WEIGHT_MAX) {
        v.reason = DECLINE_WEIGHT;
        (void)snprintf(v.text, sizeof v.text, "a contribution of %llu images; 1 to %llu can count",
                       (unsigned long long)report->images, (unsigned long long)FIXED_WEIGHT_MAX);
    } else if (report->images > ready) {
        v.reason = DECLINE_WEIGHT;
        (void)snprintf(v.text, sizeof v.text, "a contribution of %llu images by a client that is ready with %llu",
                       (unsigned long long)report->images, (unsigned long long)ready);
    } else if (!isfinite(report->loss) || !isfinite(report->loss_contrast) || !isfinite(report->loss_matching) ||
               !isfinite(report->remote_share)) {
        v.reason = DECLINE_NOT_FINITE;
        (void)snprintf(v.text, sizeof v.text, "the report holds a number that is not finite");
    }
    return v;
}

static struct verdict judge_update(const struct coordinator *c, const struct msg_offer *offer)
{
    struct verdict v = {0};
    const struct blob *update = &offer->update;
    uint32_t element = element_of(c->plan->wire.update);
    uint64_t bytes = quant_update_bytes(c->plan->wire.update, c->layout);
    char theirs[HASH_HEX], ours[HASH_HEX];
    if (!hash_equal(&update->layout, &c->layout->fingerprint)) {
        v.reason = DECLINE_LAYOUT;
        (void)snprintf(v.text, sizeof v.text, "the update has layout %s, the server has %s",
                       hash_hex(&update->layout, theirs), hash_hex(&c->layout->fingerprint, ours));
    } else if (update->kind != BLOB_UPDATE || update->round != offer->round || update->element != element ||
               update->count != c->layout->total || update->bytes != bytes) {
        v.reason = DECLINE_LENGTH;
        (void)snprintf(v.text, sizeof v.text,
                       "an update of round %u is %llu numbers as %s in %llu bytes (wire.update), not %llu as %s in "
                       "%llu bytes",
                       offer->round, (unsigned long long)c->layout->total, element_name(element),
                       (unsigned long long)bytes, (unsigned long long)update->count, element_name(update->element),
                       (unsigned long long)update->bytes);
    }
    return v;
}

static struct verdict judge_features(const struct coordinator *c, const struct msg_offer *offer)
{
    struct verdict v = {0};
    const struct blob *features = &offer->features;
    uint32_t form = c->plan->wire.features;
    uint64_t most = (uint64_t)c->plan->fusion.upload * c->bank->dimension;
    if (!offer->has_features) {
        return v;
    }
    if (!plan_shares_features(c->plan)) {
        v.reason = DECLINE_FEATURES;
        (void)snprintf(v.text, sizeof v.text, "the plan exchanges no features");
    } else if (features->element != element_of(form)) {
        v.reason = DECLINE_FEATURES;
        (void)snprintf(v.text, sizeof v.text, "the plan's features are sent as %s (wire.features), not as %s",
                       element_name(element_of(form)), element_name(features->element));
    } else if (features->kind != BLOB_FEATURES || features->round != offer->round ||
               features->dimension != c->bank->dimension || features->encoder != c->plan->fusion.encoder ||
               features->count == 0 || features->count > most || features->count % c->bank->dimension != 0 ||
               features->bytes != quant_rows_bytes(form, features->count / c->bank->dimension, c->bank->dimension)) {
        v.reason = DECLINE_FEATURES;
        (void)snprintf(
            v.text, sizeof v.text,
            "a batch of features is 1 to %u rows of %u numbers as %s by the plan's encoder, not %llu numbers in rows "
            "of %u in %llu bytes",
            c->plan->fusion.upload, c->bank->dimension, element_name(features->element),
            (unsigned long long)features->count, features->dimension, (unsigned long long)features->bytes);
    }
    return v;
}

static struct verdict judge(const struct coordinator *c, uint32_t member, const struct msg_offer *offer)
{
    struct verdict v = judge_report(&offer->report, c->members[member].images);
    if (v.reason == 0) {
        v = judge_update(c, offer);
    }
    if (v.reason == 0) {
        v = judge_features(c, offer);
    }
    return v;
}

static void decline(struct coordinator *c, struct peer *peer, const struct msg_offer *offer, uint32_t reason,
                    const char *text)
{
    const struct round_member *in_round = &c->round.members[peer->member];
    uint32_t member = peer->member;
    bool open = c->round.phase == ROUND_OPEN && offer->round == round_current(c) && in_round->participant;
    peer->state = open ? PEER_WORKING : PEER_READY;
    send_declined(c, peer, offer->round, reason, "%s", text);
    if (open) {
        round_apply(c, decline_repeats(reason) ? ROUND_REFUSED : ROUND_DECLINED, member);
    }
}

/* The round is behind us: either it counted this contribution, or it never will. */
static void answer_past(struct coordinator *c, struct peer *peer, const struct msg_offer *offer)
{
    const struct member *member = &c->members[peer->member];
    if (member->has_counted && member->counted_round == offer->round) {
        send_accepted(c, peer, offer->round);
        send_round_end(c, peer, offer->round);
        return;
    }
    char text[MSG_TEXT_MAX];
    (void)snprintf(text, sizeof text, "round %u is closed; the server works on round %u", offer->round,
                   round_current(c));
    send_declined(c, peer, offer->round, DECLINE_STALE, "%s", text);
}

static bool is_same(const struct msg_offer *a, const struct msg_offer *b)
{
    return a->round == b->round && hash_equal(&a->update.hash, &b->update.hash) && a->has_features == b->has_features &&
           (!a->has_features || hash_equal(&a->features.hash, &b->features.hash));
}

/* How often an honest client uploads in a round: once; again where it was damaged, where a slot was lost to others, and
 * where the connection broke and nothing was kept of it. */
static bool is_over_quota(const struct coordinator *c, struct member *member, const struct msg_offer *offer)
{
    uint64_t bytes = offer->update.bytes + (offer->has_features ? offer->features.bytes : 0);
    return quota_of(c, member)->up >= TRANSFERS_PER_ROUND * bytes;
}

void handle_offer(struct coordinator *c, struct peer *peer, const struct msg_offer *offer)
{
    uint32_t index = peer->member;
    struct member *member = &c->members[index];
    const struct round_member *in_round = &c->round.members[index];
    if (offer->round != round_current(c)) {
        answer_past(c, peer, offer);
        return;
    }
    bool under_way =
        c->round.phase == ROUND_OPEN || c->round.phase == ROUND_AGGREGATING || c->round.phase == ROUND_SAVING;
    if (under_way && round_has_delivered(&c->round, index)) {
        peer->state = PEER_DELIVERED;
        send_accepted(c, peer, offer->round);
        return;
    }
    if (c->round.phase != ROUND_OPEN && c->round.phase != ROUND_WAITING) {
        decline(c, peer, offer, DECLINE_STALE, "the round is closed");
        return;
    }
    if ((peer->state == PEER_QUEUED || peer->state == PEER_UPLOADING) && is_same(offer, &member->offer)) {
        slots_repeat(c, index);
        return;
    }
    if (member->slot != NONE && c->slots[member->slot].state == SLOT_CHECKING) {
        peer->state = PEER_CHECKING; /* What was offered first is answered when it is done. */
        return;
    }
    if (peer->state == PEER_QUEUED || peer->state == PEER_UPLOADING) {
        slots_withdraw(c, index); /* It changed its mind. */
    }
    struct verdict verdict = judge(c, index, offer);
    if (verdict.reason) {
        decline(c, peer, offer, verdict.reason, verdict.text);
        return;
    }
    if (c->round.phase == ROUND_OPEN) {
        round_apply(c, ROUND_OFFERED, index);
        if (c->round.phase != ROUND_OPEN) { /* Its deadline had passed before this was read. */
            decline(c, peer, offer, DECLINE_STALE, "the round is closed");
            return;
        }
        if (!in_round->participant) {
            decline(c, peer, offer, DECLINE_NOT_SELECTED, "the client is not in this round");
            return;
        }
    }
    if (is_over_quota(c, member, offer)) {
        c->strangers.told.over_quota++;
        decline(c, peer, offer, DECLINE_NOT_SELECTED,
                "it has uploaded this round's quota, 16 contributions' bytes; it may again when the round is extended");
        return;
    }
    member->offer = *offer;
    slots_enqueue(c, index);
}
