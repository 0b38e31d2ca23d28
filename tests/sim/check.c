/* The truth, and what must hold at any time:
 *
 *   - durable rounds rise by one, and each becomes durable once;
 *   - the server says nothing about a round that is not durable: no ROUND n + 1, ROUND_END n or WELCOME before a crash
 *     at this moment would leave checkpoint n;
 *   - the model of a round is, bit for bit, what the counted contributions make of the model before it, and each client
 *     counts at most once (computed here from the trainers' results, apart from the server);
 *   - training a round again has the same inputs and yields the same bits; what was declined for good is not trained
 *     again on the same connection;
 *   - a client trains on the durable model, with features of others only, all of them from contributions that counted,
 *     and with none before a contribution of its own has counted;
 *   - a sound connection is never given up for silence, and nobody sees a protocol error;
 *   - a client commits what counted, drops what did not, and in the end has committed exactly what counted.
 */
#include "tests/sim/world.h"

#include <math.h>
#include <string.h>

#include "common/vec/fixed.h"
#include "server/agg/norm.h"

/* ---- the trainer's function ---- */

/* A unit row that says whose it is. The parts are multiples of 1/64, hence exact. */
void features_row(float *row, uint32_t client, uint32_t round, uint32_t index)
{
    memset(row, 0, FEATURES * sizeof *row);
    row[0] = (float)(client + 1) / 16;
    row[1] = (float)round / 64;
    row[2] = (float)(index + 1) / 16;
    row[3] = sqrtf(1 - row[0] * row[0] - row[1] * row[1] - row[2] * row[2]);
}

static float small(uint64_t name, uint64_t i)
{
    return (float)((int32_t)(rng_mix(name ^ rng_mix(i)) % 4001) - 2000) * 0x1p-15f;
}

/* Its own rows; or those of others, where it copies and has been sent enough. */
static struct bytes *make_features(const struct world *world, uint32_t client, uint32_t round, const float *remote,
                                   uint32_t rows)
{
    uint32_t upload = world->plan.fusion.upload;
    bool copies = world->scenario.copier && client + 1 == world->scenario.clients && rows >= upload;
    struct bytes *out = bytes_new(upload * FEATURES * sizeof(float));
    float *features = (float *)(void *)out->data;
    for (uint32_t i = 0; i < upload; i++) {
        if (copies) {
            memcpy(features + i * FEATURES, remote + i * FEATURES, FEATURES * sizeof *features);
        } else {
            features_row(features + i * FEATURES, client, round, i);
        }
    }
    return out;
}

/* What one local round makes of its inputs: a function of all of them, so that any difference shows in the end. */
struct contribution *train(struct world *world, uint32_t client, uint32_t round, const float *model,
                           const float *remote, uint32_t rows)
{
    const struct layout *layout = world->layout;
    struct hash128 seen = hash_of(remote, rows * FEATURES * sizeof *remote);
    uint64_t name;
    memcpy(&name, seen.bytes, sizeof name);
    name ^= rng_mix(((uint64_t)client << 32) | round);
    struct contribution *c = mem_new(1, sizeof *c);
    c->round = round;
    c->report =
        (struct report){.images = client_images(client), .seen = 2 * client_images(client), .steps = 2, .loss = 1};
    c->update = bytes_new(layout->total * sizeof(float));
    float *update = (float *)(void *)c->update->data;
    for (uint64_t i = 0; i < layout->total; i++) {
        update[i] = small(name, i) - model[i] * 0.125f;
    }
    if (world->scenario.features) {
        c->features = make_features(world, client, round, remote, rows);
    }
    contribution_describe(c, &world->plan, layout);

    struct bytes **known = &world->truth.update[round][client];
    if (!*known) {
        *known = bytes_ref(c->update);
        return c;
    }
    sight(world, "trained_again");
    if (memcmp((*known)->data, c->update->data, c->update->len) != 0) {
        violate(world, "%s trains round %u again from other inputs", world->clients[client].name, round);
    }
    world->truth.dropped[round][client] = false;
    return c;
}

void check_train(struct world *world, const struct client *client, const struct session_action *action)
{
    struct truth *truth = &world->truth;
    if (action->round == 0 || action->round > world->scenario.rounds || action->round > truth->durable + 1) {
        violate(world, "%s is to train round %u; %u is durable", client->name, action->round, truth->durable);
        return;
    }
    if (client->refused == action->round) {
        violate(world, "%s trains round %u again, which was declined for good", client->name, action->round);
    }
    if (memcmp(action->model, truth->params[action->round - 1], world->layout->total * sizeof(float)) != 0) {
        violate(world, "%s trains round %u on a model that is not that of round %u", client->name, action->round,
                action->round - 1);
    }
    bool gave = false;
    for (uint32_t round = 1; round < action->round; round++) {
        gave |= truth->counted[round][client->index];
    }
    if (action->remote_rows > 0 && !gave) {
        violate(world, "%s receives features in round %u and never gave any", client->name, action->round);
    }
    const float *rows = (const float *)(const void *)action->remote;
    for (uint32_t i = 0; i < action->remote_rows; i++) {
        const float *row = rows + i * FEATURES;
        float expected[FEATURES];
        uint32_t owner = (uint32_t)(row[0] * 16) - 1, round = (uint32_t)(row[1] * 64),
                 index = (uint32_t)(row[2] * 16) - 1;
        features_row(expected, owner, round, index);
        if (memcmp(row, expected, sizeof expected) != 0 || owner >= world->scenario.clients) {
            violate(world, "%s receives a feature that nobody made", client->name);
        } else if (owner == client->index) {
            violate(world, "%s receives its own feature of round %u", client->name, round);
        } else if (round >= action->round || !truth->counted[round][owner]) {
            violate(world, "%s receives a feature of %s from round %u, which did not count", client->name,
                    world->clients[owner].name, round);
        }
    }
}

/* ---- the durable rounds ---- */

static uint64_t weight_of(const struct world *world, uint32_t client)
{
    uint64_t images = client_images(client);
    return images < world->plan.weight_cap ? images : world->plan.weight_cap;
}

/* What the optimiser makes of the mean update d of a trained parameter. */
static double expect_step(const struct plan *plan, double d, const float *was, float *is, uint64_t total)
{
    double rate = plan->aggregation.learning_rate, m = plan->aggregation.momentum, b = plan->aggregation.beta2;
    if (plan->aggregation.optimizer == AGGREGATION_NONE) {
        return rate * d;
    }
    bool adam = plan->aggregation.optimizer == AGGREGATION_ADAM;
    double first = m * (double)was[0] + (adam ? 1 - m : 1) * d, second = b * (double)was[total] + (1 - b) * (d * d);
    is[0] = (float)first;
    is[total] = (float)second;
    return adam ? rate * first / (sqrt(second) + plan->aggregation.epsilon) : rate * first;
}

/* What the rule makes of one number of those that counted. */
static double expect_rule(const struct world *world, uint32_t round, uint64_t i)
{
    const struct truth *truth = &world->truth;
    double values[CLIENTS_MAX], sum = 0;
    uint32_t count = 0;
    for (uint32_t c = 0; c < world->scenario.clients; c++) {
        if (truth->counted[round][c]) {
            double value = (double)((const float *)(const void *)truth->update[round][c]->data)[i];
            uint32_t at = count++;
            for (; at > 0 && values[at - 1] > value; at--) {
                values[at] = values[at - 1];
            }
            values[at] = value;
        }
    }
    uint32_t cut = world->plan.aggregation.rule == AGGREGATION_MEDIAN ? (count - 1) / 2 : (uint32_t)(0.34 * count);
    for (uint32_t k = cut; k < count - cut; k++) {
        sum += values[k];
    }
    return sum / (count - 2 * cut);
}

/* The next model, from the last client to the first: the order must not matter. */
static void expect_params(struct world *world, uint32_t round, float *out)
{
    const struct layout *layout = world->layout;
    struct truth *truth = &world->truth;
    const float *from = truth->params[round - 1], *was = truth->moments[round - 1];
    float *is = truth->moments[round] = mem_new_aligned(2 * layout->total, sizeof *is);
    int32_t *shifts = mem_new(layout->count, sizeof *shifts);
    fixed_shifts(layout, from, shifts);
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        for (uint64_t i = tensor->offset; i < tensor->offset + tensor->count; i++) {
            int64_t sum = 0;
            uint64_t weight = 0;
            for (uint32_t c = world->scenario.clients; c-- > 0;) {
                if (truth->counted[round][c]) {
                    double value = (double)((const float *)(const void *)truth->update[round][c]->data)[i];
                    sum += (int64_t)weight_of(world, c) * llrint(ldexp(value, shifts[t]));
                    weight += weight_of(world, c);
                }
            }
            if (world->plan.aggregation.rule != AGGREGATION_MEAN) {
                weight = FIXED_WEIGHT_MAX;
                sum = llrint(ldexp(expect_rule(world, round, i) * (double)weight, shifts[t]));
            }
            double d = (double)sum / ldexp((double)weight, shifts[t]);
            bool trained = i < layout->trainable_end;
            out[i] =
                (float)((double)from[i] + (trained ? expect_step(&world->plan, d, was + i, is + i, layout->total) : d));
        }
    }
    mem_free(shifts);
}

static uint32_t client_of(const struct world *world, const char *name)
{
    for (uint32_t i = 0; i < world->scenario.clients; i++) {
        if (strcmp(world->clients[i].name, name) == 0) {
            return i;
        }
    }
    return CLIENTS_MAX;
}

static void note_counted(struct world *world, const struct checkpoint *checkpoint)
{
    struct truth *truth = &world->truth;
    uint32_t round = checkpoint->round, count = 0;
    uint64_t images = 0;
    for (uint32_t i = 0; i < checkpoint->counted_count; i++) {
        const struct counted *entry = &checkpoint->counted[i];
        uint32_t client = client_of(world, entry->name);
        if (client == CLIENTS_MAX || entry->round > round) {
            violate(world, "checkpoint %u lists %s with round %u", round, entry->name, entry->round);
        } else if (entry->round < round) {
            if (!truth->counted[entry->round][client]) {
                violate(world, "checkpoint %u says that round %u counted %s", round, entry->round, entry->name);
            }
        } else if (truth->counted[round][client] || !truth->update[round][client]) {
            violate(world, "round %u counts %s %s", round, entry->name,
                    truth->counted[round][client] ? "twice" : "which has not trained it");
        } else if (truth->dropped[round][client]) {
            violate(world, "round %u counts what %s had dropped", round, entry->name);
        } else {
            truth->counted[round][client] = true;
            images += weight_of(world, client);
            count++;
        }
    }
    if (count < world->plan.min_clients || count != checkpoint->summary.accepted ||
        images != checkpoint->summary.images) {
        violate(world, "round %u counts %u clients and %llu images, and says %u and %llu", round, count,
                (unsigned long long)images, checkpoint->summary.accepted,
                (unsigned long long)checkpoint->summary.images);
    }
}

/* The lower median of what counted, and of statistics 0.005 times the model's own at the least. */
static double expect_norm(const struct world *world, uint32_t round, enum norm_part part)
{
    const struct truth *truth = &world->truth;
    double norms[CLIENTS_MAX], least = 0;
    uint32_t count = 0;
    for (uint32_t c = 0; c < world->scenario.clients; c++) {
        if (truth->counted[round][c]) {
            const float *update = (const float *)(const void *)truth->update[round][c]->data;
            double norm = norm_of(world->layout, part, update);
            uint32_t at = count++;
            for (; at > 0 && norms[at - 1] > norm; at--) {
                norms[at] = norms[at - 1];
            }
            norms[at] = norm;
        }
    }
    if (part == NORM_STATISTICS) {
        least = 0.005 * norm_of(world->layout, part, truth->params[round - 1]);
    }
    return fmax(norms[(count - 1) / 2], least);
}

/* What the checkpoint says of lengths: of this round what its contributions say, and of those before what was said. */
static void note_norms(struct world *world, const struct checkpoint *checkpoint)
{
    uint32_t round = checkpoint->round;
    for (enum norm_part part = 0; part < NORM_PARTS; part++) {
        double *known = world->truth.norms[part];
        known[round] = expect_norm(world, round, part);
        for (uint32_t i = 0; i < CHECKPOINT_NORMS && !world->violation[0]; i++) {
            if (checkpoint->norms[part][i] != (i < round ? known[round - i] : 0)) {
                violate(world, "checkpoint %u is wrong about the lengths of updates of %u rounds ago", round, i);
            }
        }
    }
}

/* A checkpoint that was saved, or found by a starting server. */
void check_durable(struct world *world, const struct checkpoint *checkpoint)
{
    struct truth *truth = &world->truth;
    size_t bytes = world->layout->total * sizeof(float);
    uint32_t round = checkpoint->round;
    bool again = truth->started && round == truth->durable && !world->server.process.up;
    if (round > world->scenario.rounds || (!again && round != (truth->started ? truth->durable + 1 : 0))) {
        violate(world, "checkpoint %u follows checkpoint %u", round, truth->durable);
        return;
    }
    if (again) {
        if (memcmp(checkpoint->params, truth->params[round], bytes) != 0) {
            violate(world, "the model of round %u has changed on the disk", round);
        }
        return;
    }
    if (truth->started && !world->server.process.up) {
        sight(world, "durable_by_luck");
    }
    float *expected = mem_new_aligned(bytes, 1);
    if (round == 0) {
        uint64_t total = world->layout->total;
        double epsilon = world->plan.aggregation.epsilon;
        params_init(world->layout, world->plan.seed, expected);
        truth->moments[0] = mem_new_aligned(2 * total, sizeof *expected);
        for (uint64_t i = total; i < 2 * total; i++) {
            truth->moments[0][i] = (float)(epsilon * epsilon);
        }
    } else {
        note_counted(world, checkpoint);
        if (!world->violation[0]) {
            expect_params(world, round, expected);
            note_norms(world, checkpoint);
        }
    }
    if (!world->violation[0] && memcmp(expected, checkpoint->params, bytes) != 0) {
        violate(world, "the model of round %u is not what its contributions make", round);
    }
    truth->params[round] = expected;
    truth->durable = round;
    truth->started = true;
}

/* After a save: what would a crash leave now, in the worst case? */
void check_image(struct world *world)
{
    struct simdisk image;
    struct store *store = NULL;
    struct checkpoint state = {0};
    struct err err = {0};
    bool found = false;
    simdisk_image(&world->server.disk, &image);
    int rc = store_open(&image.disk, "state", 0, NULL, &store, &err);
    rc = rc ? rc
            : store_load(store, world->layout, world->plan_bytes.data, (uint32_t)world->plan_bytes.len, false, &state,
                         &found, &err);
    /* A save that failed half-way may be durable; one that succeeded must be. */
    if (rc || !found || state.round < world->truth.durable || state.round > world->truth.durable + 1) {
        violate(world, "a crash now would leave round %u of %u: %s", state.round, world->truth.durable, err.text);
    }
    checkpoint_fini(&state);
    store_close(store);
    simdisk_fini(&image);
}

/* ---- what is said and done ---- */

void check_said(struct world *world, uint32_t client, const struct msg *msg)
{
    const struct truth *truth = &world->truth;
    uint32_t told = msg->type == MSG_ROUND       ? msg->round.round - 1
                    : msg->type == MSG_ROUND_END ? msg->round_end.round
                    : msg->type == MSG_WELCOME   ? msg->welcome.round
                                                 : 0;
    if (told > truth->durable) {
        violate(world, "%s says that round %u is durable; %u is", msg_type_name(msg->type), told, truth->durable);
        return;
    }
    if (msg->type == MSG_ROUND_END && msg->round_end.counted != truth->counted[told][client]) {
        violate(world, "ROUND_END %u tells %s that it %s", told, world->clients[client].name,
                msg->round_end.counted ? "counted" : "did not count");
    }
}

void check_offer(struct world *world, uint32_t client, uint32_t round)
{
    if (world->truth.offered[round][client]) {
        sight(world, "offered_again");
    }
    world->truth.offered[round][client] = true;
}

/* Both processes run, and bytes get through: heartbeats must keep a connection alive. */
void check_silence(struct world *world, uint32_t link, const char *who)
{
    if (!world->links[link].disturbed) {
        violate(world, "%s gives up a sound connection for silence", who);
    }
}

void check_commit(struct world *world, uint32_t client, uint32_t round)
{
    struct truth *truth = &world->truth;
    bool again = truth->committed[round][client] && round > world->clients[client].put_back;
    if (round > truth->durable || !truth->counted[round][client] || again) {
        violate(world, "%s commits round %u, which %s", world->clients[client].name, round,
                round > truth->durable ? "is not durable"
                : again                ? "it had committed"
                                       : "did not count it");
    }
    truth->committed[round][client] = true;
    sight(world, world->hearing == MSG_WELCOME ? "committed_by_welcome" : "committed_by_round_end");
}

void check_drop(struct world *world, uint32_t client, uint32_t round)
{
    struct truth *truth = &world->truth;
    if (truth->counted[round][client] && round > world->clients[client].put_back) {
        violate(world, "%s drops round %u, which counted it", world->clients[client].name, round);
    }
    truth->dropped[round][client] = true;
}

void check_end(struct world *world)
{
    struct truth *truth = &world->truth;
    if (truth->durable != world->scenario.rounds) {
        violate(world, "the clients are done; %u of %u rounds are durable", truth->durable, world->scenario.rounds);
    }
    for (uint32_t r = 1; r <= truth->durable; r++) {
        for (uint32_t c = 0; c < world->scenario.clients; c++) {
            bool knows = !world->clients[c].gone && r > world->clients[c].put_back;
            if (truth->counted[r][c] != truth->committed[r][c] && knows) {
                violate(world, "%s has not committed round %u, which counted it", world->clients[c].name, r);
            }
        }
    }
}

void check_free(struct world *world)
{
    for (uint32_t r = 0; r <= ROUNDS_MAX; r++) {
        mem_free(world->truth.params[r]);
        mem_free(world->truth.moments[r]);
        for (uint32_t c = 0; c < CLIENTS_MAX; c++) {
            bytes_unref(world->truth.update[r][c]);
        }
    }
}
