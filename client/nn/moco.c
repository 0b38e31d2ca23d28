/* One step in five parallel phases with a barrier after each: the key encoder's weights are prepared, keys by group,
 * the query encoder's weights, features and gradients by group, and the optimiser by stretches of the parameters. What
 * adds up is added in the order of groups: a group's gradient joins the sum tensor by tensor, each when it is its turn
 * (turns.h). */
#include "client/nn/moco.h"

#include "client/nn/blas.h"
#include "client/nn/loss.h"
#include "client/nn/negatives.h"
#include "client/nn/net.h"
#include "client/nn/queue.h"
#include "client/nn/simd/simd.h"
#include "client/nn/turns.h"
#include "client/nn/workers.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <string.h>

#define BN_MOMENTUM 0.1f /* PyTorch's: how much of a batch enters the running statistics */
#define STRETCH     65536u

struct group {
    double contrast, matching, accuracy;
    bool finite;
    float *query_stats, *key_stats; /* [total - trainable_end] */
};

/* What one worker needs to work on one group at a time. */
struct place {
    struct net *query, *key; /* in the same memory */
    float *images;           /* [size, 3, input, input] */
    float *features;         /* [size, d] */
    float *dq;               /* [size, d] */
    float *part;             /* of the gradient */
    float *scratch;          /* of the losses */
};

struct moco {
    const struct layout *layout;
    struct moco_options options;
    struct net_plan *plan;                           /* of a group */
    struct net_weights *query_weights, *key_weights; /* prepared in the same memory */
    uint32_t size;                                   /* of a group */
    uint32_t places_count;
    uint64_t image; /* floats of one */
    struct workers *workers;
    struct place *places;
    struct group *groups;
    float *grad; /* native; the sum over the groups so far */
    struct turns turns;
    float *query, *key; /* native */
    float *velocity;    /* native, trained ones */
    float *queries;     /* [batch, d], of the latest step */
    float *keys;        /* [batch, d], in the batch's order */
    uint32_t *order;    /* [batch], the shuffle of this step */
    struct queue queue;
    struct negatives negatives;
    float *candidates; /* [remote_rows, d]; with local candidates the queue's rows stand behind them during a step */
    uint32_t remote_rows;
    uint32_t *candidate_image; /* [remote_rows + K], with local candidates; else NULL */
    struct moco_round round;   /* as it was begun */
    uint64_t step;
    const uint32_t *images; /* of the step that runs, as are the next three */
    const float *view1, *view2;
    float learning_rate;
};

static int check_options(const struct moco_options *o, struct err *err)
{
    if (o->batch == 0 || o->bn_groups == 0 || o->batch % o->bn_groups != 0) {
        return err_set(err, ERR_CONFIG, "bn_groups (%u) must divide batch (%u)", o->bn_groups, o->batch);
    }
    if (o->threads == 0 || o->queue == 0) {
        return err_set(err, ERR_CONFIG, "threads (%u) and queue (%u) must be at least 1", o->threads, o->queue);
    }
    if (!(o->temperature > 0) || !(o->fusion_share >= 0 && o->fusion_share <= 1)) {
        return err_set(err, ERR_CONFIG, "temperature (%g) must be positive and fusion.share (%g) in [0, 1]",
                       (double)o->temperature, (double)o->fusion_share);
    }
    if (o->matching != MOCO_MATCHING_OFF &&
        (o->neighbours == 0 || o->neighbours > LOSS_NEIGHBOURS_MAX || !(o->matching_temperature > 0))) {
        return err_set(err, ERR_CONFIG, "matching.neighbours (%u) must be in [1, %u] and matching.temperature positive",
                       o->neighbours, LOSS_NEIGHBOURS_MAX);
    }
    return 0;
}

static int out_of_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "out of memory");
}

static float *floats(uint64_t rows, uint64_t each)
{
    return mem_new_aligned(rows, each * sizeof(float));
}

static int new_groups(struct moco *moco, struct err *err)
{
    const struct layout *layout = moco->layout;
    uint64_t stats = layout->total - layout->trainable_end;
    uint32_t count = moco->options.bn_groups;
    moco->groups = mem_new(count, sizeof *moco->groups);
    moco->grad = floats(moco->plan->total, 1); /* moco_begin keeps a whole encoder in it */
    if (!moco->groups || !moco->grad) {
        return out_of_memory(err);
    }
    for (uint32_t g = 0; g < count; g++) {
        struct group *group = &moco->groups[g];
        group->query_stats = floats(stats, 1);
        group->key_stats = floats(stats, 1);
        if (!group->query_stats || !group->key_stats) {
            return out_of_memory(err);
        }
    }
    return 0;
}

static int new_places(struct moco *moco, struct err *err)
{
    uint32_t d = moco->layout->spec.features;
    moco->places_count =
        moco->options.threads < moco->options.bn_groups ? moco->options.threads : moco->options.bn_groups;
    moco->places = mem_new(moco->places_count, sizeof *moco->places);
    if (!moco->places) {
        return out_of_memory(err);
    }
    for (uint32_t i = 0; i < moco->places_count; i++) {
        struct place *place = &moco->places[i];
        place->images = floats(moco->size, moco->image);
        place->features = floats(moco->size, d);
        place->dq = floats(moco->size, d);
        place->part = floats(net_part_floats(moco->plan), 1);
        place->scratch = floats(moco->size, (uint64_t)moco->options.queue + 1);
        if (!place->images || !place->features || !place->dq || !place->part || !place->scratch) {
            return out_of_memory(err);
        }
        int rc = net_new(moco->plan, NET_TRAIN, NULL, &place->query, err);
        if (rc == 0) {
            rc = net_new(moco->plan, NET_BATCH, place->query, &place->key, err);
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int new_state(struct moco *moco, struct err *err)
{
    const struct layout *layout = moco->layout;
    uint32_t d = layout->spec.features;
    moco->query = floats(moco->plan->total, 1);
    moco->key = floats(moco->plan->total, 1);
    moco->velocity = floats(moco->plan->trainable_end, 1);
    moco->queries = floats(moco->options.batch, d);
    moco->keys = floats(moco->options.batch, d);
    moco->order = mem_new(moco->options.batch, sizeof *moco->order);
    if (!moco->query || !moco->key || !moco->velocity || !moco->queries || !moco->keys || !moco->order) {
        return out_of_memory(err);
    }
    int rc;
    if ((rc = net_weights_new(moco->plan, NET_TRAIN, NULL, &moco->query_weights, err)) ||
        (rc = net_weights_new(moco->plan, NET_BATCH, moco->query_weights, &moco->key_weights, err)) ||
        (rc = queue_init(&moco->queue, moco->options.queue, d, err))) {
        return rc;
    }
    net_weights_set(moco->query_weights, moco->query);
    net_weights_set(moco->key_weights, moco->key);
    return negatives_init(&moco->negatives, moco->options.queue, 0, d, err);
}

int moco_new(const struct layout *layout, const struct moco_options *options, struct moco **out, struct err *err)
{
    *out = NULL;
    int rc = check_options(options, err);
    if (rc != 0) {
        return rc;
    }
    struct moco *moco = mem_new(1, sizeof *moco);
    if (!moco) {
        return out_of_memory(err);
    }
    moco->layout = layout;
    moco->options = *options;
    moco->size = options->batch / options->bn_groups;
    moco->image = (uint64_t)3 * layout->spec.input * layout->spec.input;
    if ((rc = net_plan_new(layout, moco->size, true, &options->compute, &moco->plan, err)) ||
        (rc = turns_init(&moco->turns, net_parts(moco->plan), err)) || (rc = new_state(moco, err)) ||
        (rc = new_groups(moco, err)) || (rc = new_places(moco, err)) ||
        (rc = workers_new(moco->places_count, &moco->workers, err))) {
        moco_free(moco);
        return rc;
    }
    *out = moco;
    return 0;
}

/* Of transformed weights, for forward and for backward by the data, wherever Winograd may be chosen. */
static uint64_t winograd_bytes(const struct net_plan *plan, const struct compute *compute)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < plan->topology->nodes_count && compute->winograd && plan->format == MAP_BLOCKS; i++) {
        const struct conv_shape *shape = &plan->convs[i].shape;
        if (plan->topology->nodes[i].kind == NODE_CONV && shape->kernel == 3 && shape->stride == 1) {
            uint64_t bytes = (uint64_t)36 * shape->src.channels * shape->dst.channels * sizeof(float);
            sum += 2 * (bytes < CHOICE_BYTES_MOST ? bytes : CHOICE_BYTES_MOST);
        }
    }
    return sum;
}

int moco_memory(const struct layout *layout, const struct moco_options *options, uint64_t *bytes, struct err *err)
{
    struct compute compute = options->compute;
    struct net_plan *plan;
    uint64_t net;
    *bytes = 0;
    compute.choices = NULL;
    int rc = check_options(options, err);
    rc = rc ? rc : net_plan_new(layout, options->batch / options->bn_groups, true, &compute, &plan, err);
    if (rc != 0) {
        return rc;
    }
    rc = net_memory(plan, NET_TRAIN, &net, err); /* the key encoder's net lies in the same memory */
    if (rc == 0) {
        uint64_t places = options->threads < options->bn_groups ? options->threads : options->bn_groups;
        uint64_t vectors = 5; /* both encoders, velocity, gradient, prepared weights */
        uint64_t local = options->local_candidates ? options->queue : 0;
        uint64_t rows = 2 * ((uint64_t)options->queue + options->batch) + local;
        uint64_t logits =
            (uint64_t)options->batch / options->bn_groups * (3 * ((uint64_t)options->queue + 1) + 2 * local);
        uint64_t images = (uint64_t)plan->batch * 3 * layout->spec.input * layout->spec.input;
        *bytes = places * (net + (logits + images + net_part_floats(plan)) * sizeof(float)) +
                 winograd_bytes(plan, &compute) +
                 (vectors * plan->total + rows * layout->spec.features) * sizeof(float);
    }
    net_plan_free(plan);
    return rc;
}

void moco_free(struct moco *moco)
{
    if (!moco) {
        return;
    }
    workers_free(moco->workers);
    for (uint32_t g = 0; moco->groups && g < moco->options.bn_groups; g++) {
        mem_free(moco->groups[g].query_stats);
        mem_free(moco->groups[g].key_stats);
    }
    for (uint32_t i = 0; moco->places && i < moco->places_count; i++) {
        struct place *place = &moco->places[i];
        net_free(place->key);
        net_free(place->query);
        mem_free(place->images);
        mem_free(place->features);
        mem_free(place->dq);
        mem_free(place->part);
        mem_free(place->scratch);
    }
    net_weights_free(moco->key_weights);
    net_weights_free(moco->query_weights);
    net_plan_free(moco->plan);
    mem_free(moco->groups);
    mem_free(moco->grad);
    turns_fini(&moco->turns);
    mem_free(moco->places);
    mem_free(moco->query);
    mem_free(moco->key);
    mem_free(moco->velocity);
    mem_free(moco->queries);
    mem_free(moco->keys);
    mem_free(moco->order);
    queue_fini(&moco->queue);
    negatives_fini(&moco->negatives);
    mem_free(moco->candidates);
    mem_free(moco->candidate_image);
    mem_free(moco);
}

/* Room for m remote features: themselves, the draw among them, and the losses' scratch. Without memory for all of it
 * the old rows stay. */
static int resize_remote(struct moco *moco, uint32_t m, struct err *err)
{
    uint32_t d = moco->layout->spec.features;
    struct negatives negatives;
    int rc = negatives_init(&negatives, moco->options.queue, m, d, err);
    if (rc != 0) {
        return rc;
    }
    bool all = moco->options.local_candidates;
    uint64_t candidates = m + (all ? (uint64_t)moco->options.queue : 0);
    float *remote = floats(candidates, d);
    uint32_t *image = all ? mem_new(candidates, sizeof *image) : NULL;
    bool missing = !remote || (all && !image);
    for (uint32_t i = 0; i < moco->places_count && !missing; i++) {
        /* A larger one than the old rows need does no harm if a later one is missing. */
        float *scratch = floats(moco->size, (uint64_t)moco->options.queue + 1 + 2 * candidates);
        missing = !scratch;
        if (scratch && m > moco->remote_rows) {
            mem_free(moco->places[i].scratch);
            moco->places[i].scratch = scratch;
        } else {
            mem_free(scratch);
        }
    }
    if (missing) {
        mem_free(remote);
        mem_free(image);
        negatives_fini(&negatives);
        return err_set(err, ERR_NOMEM, "out of memory for %u remote features", m);
    }
    for (uint32_t i = 0; image && i < m; i++) {
        image[i] = QUEUE_NO_IMAGE;
    }
    mem_free(moco->candidates);
    mem_free(moco->candidate_image);
    moco->candidate_image = image;
    negatives_fini(&moco->negatives);
    moco->candidates = remote;
    moco->negatives = negatives;
    return 0;
}

static uint64_t queue_floats(const struct moco *moco)
{
    return (uint64_t)moco->queue.rows * moco->queue.d;
}

size_t moco_carry_bytes(const struct moco *moco)
{
    return sizeof(float) * (queue_floats(moco) + moco->queue.rows + moco->layout->total +
                            (moco->options.keep_velocity ? moco->layout->trainable_end : 0));
}

static const float *carried_velocity(const struct moco *moco, const void *carry)
{
    return (const float *)carry + queue_floats(moco) + moco->queue.rows + moco->layout->total;
}

/* moco->grad is free between steps, and a whole native encoder fits into it; its gaps are zero afterwards. */
static int first_velocity(struct moco *moco, struct err *err)
{
    const struct net_plan *plan = moco->plan;
    memset(moco->velocity, 0, plan->trainable_end * sizeof *moco->velocity);
    if (!moco->options.keep_velocity || !moco->round.carry) {
        return 0;
    }
    float *whole = floats(moco->layout->total, 1);
    if (!whole) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    memcpy(whole, carried_velocity(moco, moco->round.carry), moco->layout->trainable_end * sizeof *whole);
    int rc = net_pack(plan, whole, moco->grad, err);
    memcpy(moco->velocity, moco->grad, plan->trainable_end * sizeof *moco->velocity);
    mem_free(whole);
    return rc;
}

/* The key encoder as the round began. */
static void first_key(const struct moco *moco, float *out)
{
    const struct moco_round *round = &moco->round;
    if (!round->carry || moco->options.key_start == MOCO_KEY_COPY) {
        memcpy(out, round->params, moco->layout->total * sizeof *out);
        return;
    }
    const float *key = (const float *)round->carry + queue_floats(moco) + moco->queue.rows;
    if (moco->options.key_start == MOCO_KEY_OWN) {
        memcpy(out, key, moco->layout->total * sizeof *out);
        return;
    }
    double stays = pow((double)moco->options.key_momentum, (double)round->carry_steps);
    for (uint64_t i = 0; i < moco->layout->total; i++) {
        out[i] = (float)(stays * (double)key[i] + (1 - stays) * (double)round->params[i]);
    }
}

int moco_carry_save(const struct moco *moco, void *out, struct err *err)
{
    const struct queue *queue = &moco->queue;
    float *rows = out;
    uint32_t *images = (uint32_t *)(void *)(rows + queue_floats(moco));
    for (uint32_t i = 0; i < queue->rows; i++) {
        memcpy(rows + (size_t)i * queue->d, queue_row(queue, i), queue->d * sizeof *rows);
        images[i] = queue_image(queue, i);
    }
    float *key = (float *)(void *)(images + queue->rows);
    int rc = 0;
    if (moco->options.key_start == MOCO_KEY_OWN) {
        rc = moco_key(moco, key, err);
    } else {
        first_key(moco, key);
    }
    return rc || !moco->options.keep_velocity
               ? rc
               : net_unpack_gradient(moco->plan, moco->velocity, key + moco->layout->total, err);
}

int moco_carry_check(const struct moco *moco, const void *carry, size_t bytes, struct err *err)
{
    const float *rows = carry;
    if (bytes != moco_carry_bytes(moco)) {
        return err_set(err, ERR_DATA, "%zu bytes where the queue and the key encoder have %zu", bytes,
                       moco_carry_bytes(moco));
    }
    int rc = queue_check_rows(rows, moco->queue.rows, moco->queue.d, "queue", err);
    if (rc == 0 && !simd()->all_finite(rows + queue_floats(moco) + moco->queue.rows, moco->layout->total)) {
        rc = err_set(err, ERR_DATA, "the key encoder has parameters that are not finite");
    }
    if (rc == 0 && moco->options.keep_velocity &&
        !simd()->all_finite(carried_velocity(moco, carry), moco->layout->trainable_end)) {
        rc = err_set(err, ERR_DATA, "the velocity has numbers that are not finite");
    }
    return rc;
}

int moco_begin(struct moco *moco, const struct moco_round *round, struct err *err)
{
    uint32_t d = moco->layout->spec.features, m = round->m;
    int rc = queue_check_rows(round->remote, m, d, "remote features", err);
    if (rc == 0 && m != moco->remote_rows) {
        rc = resize_remote(moco, m, err);
    }
    if (rc != 0) {
        return rc;
    }
    if (m > 0) {
        memcpy(moco->candidates, round->remote, (size_t)m * d * sizeof *round->remote);
    }
    moco->remote_rows = m;
    moco->round = *round;
    moco->step = round->first_step;
    rc = first_velocity(moco, err);
    if (rc != 0) {
        return rc;
    }
    if (round->carry && !round->empty_queue) {
        const float *rows = round->carry;
        const uint32_t *images = (const uint32_t *)(const void *)(rows + queue_floats(moco));
        queue_push(&moco->queue, rows, images, moco->queue.rows);
    } else {
        queue_reset(&moco->queue, moco->options.seed);
    }
    first_key(moco, moco->grad);
    rc = net_pack(moco->plan, moco->grad, moco->key, err);
    memset(moco->grad, 0, moco->plan->total * sizeof *moco->grad); /* its gaps are zero */
    return rc ? rc : net_pack(moco->plan, round->params, moco->query, err);
}

/* Phases 1 and 3. */
static int prepare_key(void *ctx, uint32_t worker, uint32_t item, struct err *err)
{
    (void)worker;
    return net_weights_prepare(((struct moco *)ctx)->key_weights, item, err);
}

static int prepare_query(void *ctx, uint32_t worker, uint32_t item, struct err *err)
{
    (void)worker;
    return net_weights_prepare(((struct moco *)ctx)->query_weights, item, err);
}

/* Phase 2. A group of keys is drawn from the whole batch, so that what its BN sees is not what its query group's sees.
 */
static int keys_of_group(void *ctx, uint32_t worker, uint32_t item, struct err *err)
{
    struct moco *moco = ctx;
    struct place *place = &moco->places[worker];
    const uint32_t *order = moco->order + (size_t)item * moco->size;
    uint32_t d = moco->layout->spec.features;
    for (uint32_t i = 0; i < moco->size; i++) {
        memcpy(place->images + i * moco->image, moco->view2 + order[i] * moco->image, moco->image * sizeof(float));
    }
    int rc = net_forward(place->key, moco->key_weights, place->images, NULL, place->features,
                         moco->groups[item].key_stats, err);
    for (uint32_t i = 0; i < moco->size && rc == 0; i++) {
        memcpy(moco->keys + (size_t)order[i] * d, place->features + (size_t)i * d, d * sizeof(float));
    }
    return rc;
}

int moco_refill(struct moco *moco, const uint32_t *images, const float *view, struct err *err)
{
    for (uint32_t i = 0; i < moco->options.batch; i++) {
        moco->order[i] = i; /* there are no queries to hide the groups from */
    }
    moco->view2 = view;
    int rc = workers_run(moco->workers, net_weights_items(moco->key_weights), prepare_key, moco, err);
    rc = rc ? rc : workers_run(moco->workers, moco->options.bn_groups, keys_of_group, moco, err);
    if (rc == 0) {
        queue_push(&moco->queue, moco->keys, images, moco->options.batch);
    }
    return rc;
}

/* The losses of a group's rows. Their gradients are means over the group; dq is then a part of the batch's mean. */
static void losses_of_group(struct moco *moco, struct place *place, uint32_t item)
{
    const struct moco_options *o = &moco->options;
    struct group *group = &moco->groups[item];
    uint32_t d = moco->layout->spec.features, B = moco->size, m = moco->remote_rows;
    const struct loss_candidates candidates = {
        .n = m + (o->local_candidates && m > 0 ? o->queue : 0),
        .rows = moco->candidates,
        .image = moco->candidate_image,
        .own = moco->images ? moco->images + (size_t)item * B : NULL,
    };
    uint32_t neighbours = o->neighbours < candidates.n ? o->neighbours : candidates.n;
    const float *keys = moco->keys + (size_t)item * B * d;
    const struct loss_negatives negatives = {
        .n = moco->negatives.remote + moco->negatives.local,
        .rows = moco->negatives.data,
        .image = moco->negatives.image,
        .own = moco->images ? moco->images + (size_t)item * B : NULL,
    };
    memset(place->dq, 0, (size_t)B * d * sizeof *place->dq);
    loss_contrast(B, d, place->features, keys, &negatives, o->temperature, place->dq, &group->contrast,
                  &group->accuracy, place->scratch);
    group->matching = 0;
    bool matches = m > 0 && moco->round.matching_weight > 0;
    if (matches && o->matching == MOCO_MATCHING_ENTROPY) {
        loss_matching_entropy(B, d, place->features, &candidates, neighbours, o->matching_temperature,
                              moco->round.matching_weight, place->dq, &group->matching, place->scratch);
    } else if (matches && o->matching == MOCO_MATCHING_POSITIVES) {
        loss_matching_positives(B, d, place->features, keys, &candidates, &negatives, neighbours,
                                o->matching_temperature, moco->round.matching_weight, place->dq, &group->matching,
                                place->scratch);
    }
    for (size_t i = 0; i < (size_t)B * d; i++) {
        place->dq[i] /= (float)o->bn_groups;
    }
}

/* Phase 4. */
static int gradient_of_group(void *ctx, uint32_t worker, uint32_t item, struct err *err)
{
    struct moco *moco = ctx;
    struct place *place = &moco->places[worker];
    struct group *group = &moco->groups[item];
    const float *images = moco->view1 + (size_t)item * moco->size * moco->image;
    int rc = net_forward(place->query, moco->query_weights, images, NULL, place->features, group->query_stats, err);
    if (rc != 0) {
        turns_give_up(&moco->turns, item);
        return rc;
    }
    size_t row = moco->layout->spec.features;
    memcpy(moco->queries + item * moco->size * row, place->features, moco->size * row * sizeof(float));
    losses_of_group(moco, place, item);
    struct net_gradient gradient = {.total = moco->grad, .part = place->part, .group = item, .turns = &moco->turns};
    rc = net_backward(place->query, moco->query_weights, place->dq, &gradient, err);
    group->finite = gradient.finite;
    if (rc != 0) {
        turns_give_up(&moco->turns, item);
    }
    /* A gradient may overflow where the loss does not. */
    uint64_t stats = moco->layout->total - moco->layout->trainable_end;
    group->finite =
        group->finite && simd()->all_finite(group->query_stats, stats) && simd()->all_finite(group->key_stats, stats);
    return rc;
}

/* Phase 5. The key encoder's step is taken here, behind the optimiser's, instead of at the start of the next step: the
 * numbers are the same, and the memory is walked once. */
static int optimise_stretch(void *ctx, uint32_t worker, uint32_t item, struct err *err)
{
    (void)worker, (void)err;
    struct moco *moco = ctx;
    const struct moco_options *o = &moco->options;
    uint64_t begin = (uint64_t)item * STRETCH, end = begin + STRETCH;
    struct optimiser optimiser = {.params = moco->query,
                                  .velocity = moco->velocity,
                                  .key = moco->key,
                                  .grad = moco->grad,
                                  .decay_end = moco->plan->decay_end,
                                  .learning_rate = moco->learning_rate,
                                  .momentum = o->sgd_momentum,
                                  .weight_decay = o->weight_decay,
                                  .key_momentum = o->key_momentum};
    simd()->optimise(&optimiser, begin, end < moco->plan->trainable_end ? end : moco->plan->trainable_end);
    return 0;
}

/* The running statistics of both encoders take in the mean over the groups. */
static void fold_statistics(struct moco *moco)
{
    uint64_t first = moco->plan->trainable_end, count = moco->layout->total - moco->layout->trainable_end;
    float share = 1 / (float)moco->options.bn_groups;
    for (uint64_t i = 0; i < count; i++) {
        float query = 0, key = 0;
        for (uint32_t g = 0; g < moco->options.bn_groups; g++) {
            query += moco->groups[g].query_stats[i];
            key += moco->groups[g].key_stats[i];
        }
        moco->query[first + i] += BN_MOMENTUM * (query * share - moco->query[first + i]);
        moco->key[first + i] += BN_MOMENTUM * (key * share - moco->key[first + i]);
    }
}

/* False when anything is not finite. */
static bool add_up(const struct moco *moco, struct moco_step *out)
{
    bool finite = true;
    uint32_t groups = moco->options.bn_groups, negatives = moco->negatives.remote + moco->negatives.local;
    *out = (struct moco_step){0};
    for (uint32_t g = 0; g < groups; g++) {
        out->loss_contrast += moco->groups[g].contrast / groups;
        out->loss_matching += moco->groups[g].matching / groups;
        out->accuracy += moco->groups[g].accuracy / groups;
        finite = finite && moco->groups[g].finite;
    }
    out->loss = out->loss_contrast + out->loss_matching;
    out->remote_share = negatives ? (double)moco->negatives.remote / negatives : 0;
    return finite && isfinite(out->loss);
}

/* The queue's rows behind the remote ones, as this step begins. */
static void gather_candidates(struct moco *moco)
{
    const struct queue *queue = &moco->queue;
    bool wanted = moco->options.local_candidates && moco->remote_rows > 0 && moco->round.matching_weight > 0;
    for (uint32_t i = 0; wanted && i < queue->rows; i++) {
        uint32_t at = moco->remote_rows + i;
        memcpy(moco->candidates + (size_t)at * queue->d, queue_row(queue, i), queue->d * sizeof *moco->candidates);
        moco->candidate_image[at] = queue_image(queue, i);
    }
}

int moco_step(struct moco *moco, const uint32_t *images, const float *view1, const float *view2, float learning_rate,
              struct moco_step *out, struct err *err)
{
    const struct moco_options *o = &moco->options;
    moco->images = images;
    moco->view1 = view1;
    moco->view2 = view2;
    moco->learning_rate = learning_rate;
    struct rng rng;
    rng_init(&rng, o->seed, RNG_SHUFFLE, moco->step, 0, 0);
    rng_permutation(&rng, moco->order, o->batch);
    negatives_draw(&moco->negatives, &moco->queue, moco->candidates, moco->remote_rows, o->fusion_share, o->seed,
                   moco->step);
    gather_candidates(moco);
    uint32_t items = net_weights_items(moco->query_weights);
    int rc = workers_run(moco->workers, items, prepare_key, moco, err);
    rc = rc ? rc : workers_run(moco->workers, o->bn_groups, keys_of_group, moco, err);
    rc = rc ? rc : workers_run(moco->workers, items, prepare_query, moco, err);
    if (rc == 0) {
        turns_reset(&moco->turns);
        rc = workers_run(moco->workers, o->bn_groups, gradient_of_group, moco, err);
    }
    if (rc != 0) {
        return rc;
    }
    if (!add_up(moco, out)) {
        return err_set(err, ERR_FAILED,
                       "loss or gradient is not finite in step %llu: the learning rate may be too high",
                       (unsigned long long)moco->step);
    }
    fold_statistics(moco);
    uint32_t stretches = (uint32_t)((moco->plan->trainable_end + STRETCH - 1) / STRETCH);
    rc = workers_run(moco->workers, stretches, optimise_stretch, moco, err);
    queue_push(&moco->queue, moco->keys, images, o->batch);
    moco->step++;
    return rc;
}

int moco_query(const struct moco *moco, float *out, struct err *err)
{
    return net_unpack(moco->plan, moco->query, out, err);
}

int moco_key(const struct moco *moco, float *out, struct err *err)
{
    return net_unpack(moco->plan, moco->key, out, err);
}

void moco_text(const struct moco *moco, char *out, size_t size)
{
    net_plan_text(moco->plan, out, size);
}

void moco_pairs(const struct moco *moco, const float **queries, const float **keys)
{
    *queries = moco->queries;
    *keys = moco->keys;
}

uint32_t moco_newest_keys(const struct moco *moco, uint32_t count, float *out)
{
    const struct queue *queue = &moco->queue;
    uint32_t n = 0;
    for (; n < count && n < queue->rows && queue_image(queue, queue->rows - 1 - n) != QUEUE_NO_IMAGE; n++) {
        memcpy(out + (size_t)n * queue->d, queue_row(queue, queue->rows - 1 - n), queue->d * sizeof *out);
    }
    return n;
}
