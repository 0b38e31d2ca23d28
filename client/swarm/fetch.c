/* ROUND or AGGREGATE, FETCH, CHUNK; and the one model that is kept and compared.
 *
 * Who fetches a round's model first is its keeper. What it has kept is compared once the expectation is known, that is,
 * when every ACCEPTED of the round before has come (over other connections these may come later than the next ROUND),
 * and the first ROUND_END of its own: clients share a thread here, and the comparison is not to be in their round's
 * time. */
#include "client/swarm/state.h"

#include "common/base/mem.h"

#include <string.h>

/* ---- What is announced ---- */

static int check_model(struct swarm *swarm, uint32_t client, uint32_t round, const struct blob *blob, struct err *err)
{
    if (blob->kind != BLOB_MODEL || blob->round != round || blob->element != ELEMENT_F32 ||
        !hash_equal(&blob->layout, &swarm->layout->fingerprint) || blob->count != swarm->layout->total ||
        blob->bytes != swarm->layout->total * sizeof(float)) {
        return swarm_fail(swarm, client, err, ERR_PROTOCOL,
                          "round %u announces a model that is none of this round or layout", round);
    }
    if (swarm->model_round == round && !hash_equal(&swarm->model, &blob->hash)) {
        return swarm_fail(swarm, client, err, ERR_PROTOCOL, "round %u announces another model than to other clients",
                          round);
    }
    swarm->model_round = round;
    swarm->model = blob->hash;
    return 0;
}

static int check_remote(const struct swarm *swarm, uint32_t client, const struct msg_round *round, struct err *err)
{
    const struct blob *blob = &round->remote;
    uint32_t form = swarm->plan.wire.features, dimension = swarm->plan.model.features;
    uint32_t most = plan_shares_features(&swarm->plan) ? swarm->plan.fusion.remote : 0;
    if (round->has_remote &&
        (blob->kind != BLOB_REMOTE || blob->round != round->round || blob->element != element_of(form) ||
         !hash_equal(&blob->layout, &swarm->layout->fingerprint) || blob->dimension != dimension || blob->count == 0 ||
         blob->count % dimension != 0 || blob->count / dimension > most ||
         blob->bytes != quant_rows_bytes(form, blob->count / dimension, dimension))) {
        return swarm_fail(swarm, client, err, ERR_PROTOCOL,
                          "round %u announces remote features that are none of this round, layout or plan",
                          round->round);
    }
    return 0;
}

static void get_in_line(struct swarm *swarm, uint32_t client)
{
    struct member *member = &swarm->members[client];
    member->state = MEMBER_IN_LINE;
    if (!member->in_line) {
        uint32_t room = swarm->options.clients + 1;
        swarm->line[(swarm->line_begin + swarm->line_count++) % room] = client;
        member->in_line = true;
    }
}

int swarm_on_round(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err)
{
    const struct msg_round *round = &msg->round;
    struct member *member = &swarm->members[client];
    if (client == swarm->options.clients || round->round <= member->ended_round) {
        return swarm_fail(swarm, client, err, ERR_PROTOCOL, "round %u opens for who does not train, or has ended",
                          round->round);
    }
    int rc = check_model(swarm, client, round->round, &round->model, err);
    rc = rc ? rc : check_remote(swarm, client, round, err);
    struct swarm_round *record = swarm_round_of(swarm, round->round);
    if (rc || !record) { /* none of ours: the swarm is about to leave */
        return rc;
    }
    if (member->state > MEMBER_READY && member->open.round != round->round) {
        return swarm_fail(swarm, client, err, ERR_PROTOCOL, "round %u opens, though round %u was not ended",
                          round->round, member->open.round);
    }
    if (member->state > MEMBER_READY) {
        return 0; /* a repetition */
    }
    record->opened_us = record->opened_us ? record->opened_us : swarm->now_us;
    member->open = *round;
    get_in_line(swarm, client);
    return 0;
}

int swarm_on_aggregate(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err)
{
    const struct msg_aggregate *aggregate = &msg->aggregate;
    if (client != swarm->options.clients || aggregate->round != swarm->last) {
        return swarm_fail(swarm, client, err, ERR_PROTOCOL, "AGGREGATE of round %u, where %u was the last",
                          aggregate->round, swarm->last);
    }
    int rc = check_model(swarm, client, aggregate->round + 1, &aggregate->model, err);
    if (rc == 0) {
        swarm->members[client].open = (struct msg_round){.round = aggregate->round + 1, .model = aggregate->model};
        get_in_line(swarm, client);
    }
    return rc;
}

/* ---- Fetching ---- */

static void drop_kept(struct swarm *swarm)
{
    swarm->kept_round = 0; /* its memory waits for the next */
    swarm->kept_whole = false;
}

static int fetch(struct swarm *swarm, uint32_t client, const struct blob *blob, struct err *err)
{
    struct member *member = &swarm->members[client];
    hash_stream_free(member->hash);
    member->hash = hash_stream_new();
    if (!member->hash) {
        return err_set(err, ERR_NOMEM, "out of memory for a download");
    }
    swarm->fetching += member->state != MEMBER_FETCHING;
    member->state = MEMBER_FETCHING;
    member->fetched = blob;
    member->received = 0;
    swarm_say(swarm, client, (struct msg){.type = MSG_FETCH, .fetch = {.kind = blob->kind, .round = blob->round}});
    return 0;
}

int swarm_go_on(struct swarm *swarm, struct err *err)
{
    int rc = 0;
    while (rc == 0 && swarm->line_count > 0 && swarm->fetching < FETCHES_MAX) {
        uint32_t client = swarm->line[swarm->line_begin];
        struct member *member = &swarm->members[client];
        bool keeps = member->state == MEMBER_IN_LINE && member->open.round != swarm->kept_last;
        if (keeps && swarm->kept_round) {
            return 0; /* the model of the round before is still to be compared */
        }
        swarm->line_begin = (swarm->line_begin + 1) % (swarm->options.clients + 1);
        swarm->line_count--;
        member->in_line = false;
        if (member->state != MEMBER_IN_LINE) {
            continue; /* its round ended meanwhile */
        }
        if (keeps) {
            swarm->kept = swarm->kept ? swarm->kept : mem_room((size_t)swarm->layout->total, sizeof(float));
            if (!swarm->kept) {
                return err_set(err, ERR_NOMEM, "out of memory for a model");
            }
            swarm->kept_round = swarm->kept_last = member->open.round;
            swarm->keeper = client;
        }
        rc = fetch(swarm, client, &member->open.model, err);
    }
    return rc;
}

static void end_fetch(struct swarm *swarm, uint32_t client)
{
    struct member *member = &swarm->members[client];
    hash_stream_free(member->hash);
    member->hash = NULL;
    swarm->fetching--;
}

void swarm_drop_fetch(struct swarm *swarm, uint32_t client)
{
    if (swarm->members[client].state == MEMBER_FETCHING) {
        end_fetch(swarm, client);
    }
    if (swarm->kept_round && !swarm->kept_whole && swarm->keeper == client) {
        drop_kept(swarm);
    }
}

/* A blob is whole. */
static int complete(struct swarm *swarm, uint32_t client, struct err *err)
{
    struct member *member = &swarm->members[client];
    const struct blob *blob = member->fetched;
    struct hash128 hash = hash_stream_end(member->hash);
    if (!hash_equal(&hash, &blob->hash)) {
        return swarm_fail(swarm, client, err, ERR_DATA, "the %s of round %u is not what was announced: another hash",
                          blob_kind_name(blob->kind), blob->round);
    }
    if (blob->kind == BLOB_MODEL && swarm->kept_round == blob->round && swarm->keeper == client) {
        swarm->kept_whole = true;
    }
    if (blob->kind == BLOB_MODEL && member->open.has_remote) {
        return fetch(swarm, client, &member->open.remote, err);
    }
    end_fetch(swarm, client);
    if (client == swarm->options.clients) {
        member->state = MEMBER_READY;
    } else {
        swarm_offer(swarm, client);
    }
    return 0;
}

int swarm_on_chunk(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err)
{
    struct member *member = &swarm->members[client];
    const struct msg_chunk *chunk = &msg->chunk;
    const struct blob *blob = member->fetched;
    struct swarm_round *record = swarm_round_of(swarm, chunk->round);
    if (chunk->kind != blob->kind || chunk->round != blob->round || chunk->offset != member->received ||
        msg->raw_len > blob->bytes - member->received) {
        return swarm_fail(swarm, client, err, ERR_PROTOCOL,
                          "%u bytes of %s %u from %llu; expected those of %s %u from %llu of %llu", msg->raw_len,
                          blob_kind_name(chunk->kind), chunk->round, (unsigned long long)chunk->offset,
                          blob_kind_name(blob->kind), blob->round, (unsigned long long)member->received,
                          (unsigned long long)blob->bytes);
    }
    hash_stream_add(member->hash, msg->raw, msg->raw_len);
    if (blob->kind == BLOB_MODEL && swarm->kept_round == blob->round && swarm->keeper == client) {
        memcpy(swarm->kept + member->received, msg->raw, msg->raw_len);
    }
    member->received += msg->raw_len;
    if (record) {
        record->down += msg->raw_len;
    }
    return member->received == blob->bytes ? complete(swarm, client, err) : 0;
}

/* ---- Comparing ---- */

int swarm_settle(struct swarm *swarm, struct err *err)
{
    while (swarm->phase != SWARM_DONE && swarm->rounds) {
        struct chain *chain = &swarm->chain;
        const struct swarm_round *record = swarm_round_of(swarm, chain->round);
        if (swarm->kept_whole && swarm->kept_round < chain->round) {
            drop_kept(swarm); /* its round ended before it was whole */
        } else if (swarm->kept_whole && swarm->kept_round == chain->round && (!record || record->said)) {
            int rc = chain_judge(chain, (const float *)(const void *)swarm->kept, err);
            if (rc) {
                return rc;
            }
            drop_kept(swarm);
            swarm->compared++;
            swarm->phase = chain->round > swarm->last ? SWARM_DONE : swarm->phase;
        } else if (record && record->said && record->accepted == record->said) {
            chain_advance(chain, record->plus, record->minus);
        } else {
            break;
        }
    }
    return 0;
}
