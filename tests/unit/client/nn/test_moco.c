/* Training steps: remote features reach loss and gradient, thread counts do not, keys are shuffled between groups, and
 * what goes wrong leaves the state as it was. That the numbers are right is for tests/golden. */
#include "tests/unit/client/nn/net_support.h"

#include "client/nn/moco.h"

#define BATCH 12u
#define QUEUE 20u
#define D     8u

static const struct model_spec spec = {.block = MODEL_BLOCK_BASIC,
                                       .stages = 2,
                                       .blocks = {1, 1},
                                       .width = 8,
                                       .stem = MODEL_STEM_SMALL,
                                       .input = 8,
                                       .features = D};

struct fixture {
    struct layout *layout;
    struct moco_options options;
    float *params, *views, *remote, *encoder;
    size_t view;
};

static int setup(void **state)
{
    struct fixture *f = mem_new(1, sizeof *f);
    assert_non_null(f);
    f->layout = test_layout(&spec);
    f->options = (struct moco_options){.batch = BATCH,
                                       .bn_groups = 3,
                                       .threads = 2,
                                       .queue = QUEUE,
                                       .temperature = 0.2f,
                                       .key_momentum = 0.9f,
                                       .sgd_momentum = 0.9f,
                                       .weight_decay = 1e-3f,
                                       .fusion_share = 0.5f,
                                       .neighbours = 3,
                                       .matching_temperature = 0.2f,
                                       .seed = 5};
    f->params = test_params(f->layout, 2);
    f->view = (size_t)BATCH * 3 * 8 * 8;
    f->views = test_normal(3, 2 * f->view);
    f->remote = test_unit_rows(4, QUEUE, D);
    f->encoder = test_floats(f->layout->total);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    layout_free(f->layout);
    mem_free(f->params);
    mem_free(f->views);
    mem_free(f->remote);
    mem_free(f->encoder);
    mem_free(f);
    return 0;
}

/* What `steps` steps leave: query encoder and key encoder [total each], then the carry, which begins with the queue. */
struct result {
    float *state;
    size_t count;
    struct moco_step last;
};

static struct moco *moco_of(const struct fixture *f)
{
    struct moco *moco;
    struct err err;
    if (moco_new(f->layout, &f->options, &moco, &err)) {
        fail_msg("%s", err.text);
    }
    return moco;
}

/* With the first m of the fixture's remote rows. */
static int begin(struct moco *moco, const struct fixture *f, const void *carry, uint32_t m, float matching_weight,
                 uint64_t first_step)
{
    const struct moco_round round = {f->params, carry, 2, f->remote, m, matching_weight, first_step, false};
    return moco_begin(moco, &round, NULL);
}

static int step(struct moco *moco, const struct fixture *f, const uint32_t *images, struct moco_step *out)
{
    return moco_step(moco, images, f->views, f->views + f->view, 0.02f, out, NULL);
}

/* An encoder as it is now; valid until the next call. */
static const float *encoder(const struct moco *moco, const struct fixture *f,
                            int (*which)(const struct moco *moco, float *out, struct err *err))
{
    assert_int_equal(which(moco, f->encoder, NULL), 0);
    return f->encoder;
}

static float *carry_of(const struct moco *moco)
{
    float *carry = test_floats(moco_carry_bytes(moco) / sizeof *carry);
    assert_int_equal(moco_carry_save(moco, carry, NULL), 0);
    return carry;
}

static struct result train(const struct fixture *f, uint32_t m, float matching_weight, uint32_t steps)
{
    struct moco *moco = moco_of(f);
    assert_int_equal(begin(moco, f, NULL, m, matching_weight, 0), 0);
    struct result result = {.count = 2 * f->layout->total + moco_carry_bytes(moco) / sizeof(float)};
    for (uint32_t i = 0; i < steps; i++) {
        assert_int_equal(step(moco, f, NULL, &result.last), 0);
    }
    result.state = test_floats(result.count);
    assert_int_equal(moco_query(moco, result.state, NULL), 0);
    assert_int_equal(moco_key(moco, result.state + f->layout->total, NULL), 0);
    assert_int_equal(moco_carry_save(moco, result.state + 2 * f->layout->total, NULL), 0);
    moco_free(moco);
    return result;
}

static bool same(const struct result *a, const struct result *b)
{
    return memcmp(a->state, b->state, a->count * sizeof(float)) == 0 && memcmp(&a->last, &b->last, sizeof a->last) == 0;
}

static void threads_change_no_bit(void **state)
{
    struct fixture *f = *state;
    f->options.matching = MOCO_MATCHING_POSITIVES;
    f->options.threads = 1;
    struct result one = train(f, 7, 0.3f, 3);
    for (uint32_t threads = 2; threads <= 4; threads++) {
        f->options.threads = threads;
        struct result more = train(f, 7, 0.3f, 3);
        assert_true(same(&one, &more));
        mem_free(more.state);
    }
    /* The comparison can fail: another seed draws other negatives. */
    f->options.seed++;
    struct result other = train(f, 7, 0.3f, 3);
    assert_false(same(&one, &other));
    mem_free(other.state);
    mem_free(one.state);
}

/* Two rounds on the same encoder with a kept velocity are one round of as many steps, where nothing else begins anew:
 * the key encoder is the site's own, and params are what the first round left. */
static void a_kept_velocity_goes_on(void **state)
{
    struct fixture *f = *state;
    f->options.keep_velocity = true;
    f->options.key_start = MOCO_KEY_OWN;
    f->options.matching = MOCO_MATCHING_OFF;
    struct result whole = train(f, 0, 0, 4), half = train(f, 0, 0, 2);
    float *carry = half.state + 2 * f->layout->total, *params = f->params;
    for (int kept = 1; kept >= 0; kept--) {
        struct moco *moco = moco_of(f);
        struct moco_step last;
        f->params = half.state;
        if (!kept) { /* the comparison can fail */
            memset(carry + moco_carry_bytes(moco) / sizeof *carry - f->layout->trainable_end, 0,
                   f->layout->trainable_end * sizeof *carry);
        }
        assert_int_equal(moco_carry_check(moco, carry, moco_carry_bytes(moco), NULL), 0);
        assert_int_equal(begin(moco, f, carry, 0, 0, 2), 0);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(step(moco, f, NULL, &last), 0);
        }
        bool equal = memcmp(encoder(moco, f, moco_query), whole.state, f->layout->total * sizeof(float)) == 0;
        assert_int_equal(equal, kept);
        carry[moco_carry_bytes(moco) / sizeof *carry - 1] = NAN;
        assert_int_equal(moco_carry_check(moco, carry, moco_carry_bytes(moco), NULL), ERR_DATA);
        carry[moco_carry_bytes(moco) / sizeof *carry - 1] = 0;
        f->params = params;
        moco_free(moco);
    }
    mem_free(whole.state);
    mem_free(half.state);
}

/* The same of whole vectors, by every way to compute: lent memory, prepared weights, Winograd's scratch. */
static void no_way_depends_on_threads(void **state)
{
    const struct fixture *f = *state;
    struct model_spec wide_spec = spec;
    wide_spec.width = 16;
    for (enum test_way way = WAY_ONEDNN; way < WAYS; way++) {
        if (!test_way_exists(way)) {
            continue;
        }
        struct choices choices = {0};
        struct fixture wide = *f;
        wide.layout = test_layout(&wide_spec);
        wide.params = test_params(wide.layout, 2);
        wide.encoder = test_floats(wide.layout->total);
        wide.options.compute = test_compute(way, &choices);
        if (way == WAY_BF16) { /* Winograd on bf16 maps, too */
            wide.options.compute.winograd = true;
            wide.options.compute.choices = &choices;
        }
        moco_free(moco_of(&wide));
        test_force_winograd(&choices, 1);
        wide.options.threads = 1;
        struct result one = train(&wide, 7, 0.3f, 2);
        for (uint32_t threads = 2; threads <= 3; threads++) {
            wide.options.threads = threads;
            struct result more = train(&wide, 7, 0.3f, 2);
            assert_true(same(&one, &more));
            mem_free(more.state);
        }
        mem_free(one.state);
        choices_fini(&choices);
        layout_free(wide.layout);
        mem_free(wide.params);
        mem_free(wide.encoder);
    }
}

/* What is said before is what is held, give or take the kernels' scratch memory: too little would end in a killed
 * process, too much would refuse what fits. */
static void memory_is_said(void **state)
{
    struct fixture *f = *state;
    uint64_t few, more, groups;
    f->options.threads = 1;
    assert_int_equal(moco_memory(f->layout, &f->options, &few, NULL), 0);
    uint64_t vectors = 5 * f->layout->total * sizeof(float);
    assert_true(few > vectors && few < 4 * vectors + (1u << 20));
    f->options.threads = 3;
    assert_int_equal(moco_memory(f->layout, &f->options, &more, NULL), 0);
    assert_true(more > few + 100000);
    f->options.bn_groups = 1; /* one net, of a larger group */
    assert_int_equal(moco_memory(f->layout, &f->options, &groups, NULL), 0);
    assert_true(groups > few);
    f->options.bn_groups = 5;
    assert_int_equal(moco_memory(f->layout, &f->options, &groups, NULL), ERR_CONFIG);
}

/* Trains one step with the remote features as they are and one with a sentinel in place of row 3: whether that is seen
 * in the loss and in the query encoder. */
static void plant(struct fixture *f, float matching_weight, bool *in_loss, bool *in_gradient)
{
    struct result before = train(f, 10, matching_weight, 1);
    float saved[D];
    memcpy(saved, f->remote + 3 * D, sizeof saved);
    for (size_t j = 0; j < D; j++) {
        f->remote[3 * D + j] = -saved[j];
    }
    struct result after = train(f, 10, matching_weight, 1);
    memcpy(f->remote + 3 * D, saved, sizeof saved);
    *in_loss = before.last.loss != after.last.loss;
    *in_gradient = memcmp(before.state, after.state, f->layout->total * sizeof(float)) != 0;
    mem_free(before.state);
    mem_free(after.state);
}

static void remote_features_reach_loss_and_gradient(void **state)
{
    struct fixture *f = *state;
    bool in_loss, in_gradient;
    for (int share = 1; share <= 2; share++) {
        f->options.fusion_share = 0.5f * (float)share; /* all ten are drawn */
        plant(f, 0, &in_loss, &in_gradient);
        assert_true(in_loss && in_gradient);
    }
    f->options.fusion_share = 0;
    plant(f, 0, &in_loss, &in_gradient);
    assert_false(in_loss || in_gradient);
    /* Matching reaches for them by itself, in both forms. */
    f->options.neighbours = 10;
    for (int form = MOCO_MATCHING_ENTROPY; form <= MOCO_MATCHING_POSITIVES; form++) {
        f->options.matching = (enum moco_matching)form;
        plant(f, 0.5f, &in_loss, &in_gradient);
        assert_true(in_loss && in_gradient);
        plant(f, 0, &in_loss, &in_gradient); /* before the ramp begins */
        assert_false(in_loss || in_gradient);
    }
}

static void shares_of_negatives(void **state)
{
    struct fixture *f = *state;
    static const struct {
        float share;
        uint32_t m;
        double remote;
    } cases[] = {{0.5f, 20, 0.5}, {0.5f, 5, 0.25}, {1, 5, 1}, {1, 20, 1}, {0, 20, 0}, {1, 0, 0}, {0.25f, 20, 0.25}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        f->options.fusion_share = cases[i].share;
        struct result result = train(f, cases[i].m, 0, 1);
        assert_true(fabs(result.last.remote_share - cases[i].remote) < 1e-9);
        mem_free(result.state);
    }
}

/* Without remote features there is no matching, whatever its weight. */
static void matching_needs_remote_features(void **state)
{
    struct fixture *f = *state;
    f->options.matching = MOCO_MATCHING_ENTROPY;
    struct result without = train(f, 0, 0.5f, 1), with = train(f, 10, 0.5f, 1);
    assert_true(without.last.loss_matching == 0);
    assert_true(with.last.loss_matching > 0);
    assert_true(fabs(with.last.loss - with.last.loss_contrast - with.last.loss_matching) < 1e-12);
    mem_free(without.state);
    mem_free(with.state);
}

/* Neighbours among the queue's rows as well are other ones, and still no matter of threads. */
static void local_keys_can_be_neighbours(void **state)
{
    struct fixture *f = *state;
    f->options.matching = MOCO_MATCHING_POSITIVES;
    struct result remote = train(f, 10, 0.5f, 3);
    f->options.local_candidates = true;
    struct result all = train(f, 10, 0.5f, 3), none = train(f, 0, 0.5f, 1);
    assert_false(same(&remote, &all));
    assert_true(none.last.loss_matching == 0);
    f->options.threads = 3;
    struct result again = train(f, 10, 0.5f, 3);
    assert_true(same(&all, &again));
    mem_free(remote.state);
    mem_free(all.state);
    mem_free(none.state);
    mem_free(again.state);
}

/* Keys are computed in shuffled order and must come back in the batch's. One group sees all images whatever their
 * order, so that another shuffle may not be seen in the queue at all. */
static void keys_come_back_in_order(void **state)
{
    struct fixture *f = *state;
    f->options.bn_groups = 1;
    struct result first = train(f, 0, 0, 1);
    f->options.seed++;
    struct result second = train(f, 0, 0, 1);
    const float *a = first.state + 2 * f->layout->total, *b = second.state + 2 * f->layout->total;
    size_t fresh = (size_t)(QUEUE - BATCH) * D, n = (size_t)BATCH * D;
    for (size_t i = 0; i < n; i++) {
        assert_true(fabsf(a[fresh + i] - b[fresh + i]) < 1e-5f);
    }
    assert_true(fabsf(a[fresh] - a[fresh + D]) > 1e-4f); /* rows differ, so their order is seen */
    mem_free(first.state);
    mem_free(second.state);
}

/* With groups the shuffle decides which images share their statistics. */
static void keys_are_shuffled_between_groups(void **state)
{
    struct fixture *f = *state;
    struct result first = train(f, 0, 0, 1);
    f->options.seed++;
    struct result second = train(f, 0, 0, 1);
    const float *a = first.state + 2 * f->layout->total, *b = second.state + 2 * f->layout->total;
    double most = 0;
    for (size_t i = (size_t)(QUEUE - BATCH) * D; i < (size_t)QUEUE * D; i++) {
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    }
    assert_true(most > 1e-3);
    mem_free(first.state);
    mem_free(second.state);
}

/* While the query encoder stands still at zero learning rate, two rounds of two steps are one of four. */
static void the_queue_lives_on(void **state)
{
    struct fixture *f = *state;
    struct moco *one = moco_of(f), *two = moco_of(f);
    struct moco_step out;
    uint32_t images[BATCH];
    for (uint32_t i = 0; i < BATCH; i++) {
        images[i] = 100 + i;
    }
    assert_int_equal(begin(one, f, NULL, 0, 0, 0), 0);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(moco_step(one, images, f->views, f->views + f->view, 0, &out, NULL), 0);
    }
    float *whole = carry_of(one), *half = NULL;
    for (uint32_t round = 0; round < 2; round++) {
        assert_int_equal(begin(two, f, half, 0, 0, 2 * round), 0);
        for (uint32_t i = 0; i < 2; i++) {
            assert_int_equal(moco_step(two, images, f->views, f->views + f->view, 0, &out, NULL), 0);
        }
        float *next = carry_of(two); /* made of the one that the round began with */
        mem_free(half);
        half = next;
    }
    for (size_t i = 0; i < (size_t)QUEUE * D; i++) { /* rounding moves the key encoder a little even so */
        assert_true(fabsf(whole[i] - half[i]) <= 1e-5f);
    }
    assert_memory_equal(whole + QUEUE * D, half + QUEUE * D, QUEUE * sizeof *whole);
    mem_free(whole);
    mem_free(half);
    moco_free(one);
    moco_free(two);
}

/* The key encoder begins at begin + (1 - m^steps) * (params - begin), whatever the site itself has trained. */
static void the_key_encoder_lags_over_rounds(void **state)
{
    struct fixture *f = *state;
    struct moco *moco = moco_of(f);
    struct moco_step out;
    size_t total = f->layout->total;
    float *first = test_floats(total);
    memcpy(first, f->params, total * sizeof *first);
    assert_int_equal(begin(moco, f, NULL, 0, 0, 0), 0);
    assert_memory_equal(encoder(moco, f, moco_key), first, total * sizeof *first); /* nothing to carry on */
    assert_int_equal(step(moco, f, NULL, &out), 0);
    assert_true(memcmp(encoder(moco, f, moco_key), first, total * sizeof *first) != 0);
    float *carry = carry_of(moco);
    for (size_t i = 0; i < total; i++) {
        f->params[i] += 1;
    }
    assert_int_equal(begin(moco, f, carry, 0, 0, 1), 0);
    assert_memory_equal(encoder(moco, f, moco_query), f->params, total * sizeof *first);
    for (size_t i = 0; i < total; i++) { /* m = 0.9 and two steps: 1 - 0.81 of the way */
        assert_true(fabsf(encoder(moco, f, moco_key)[i] - first[i] - 0.19f) <= 1e-5f);
    }
    float *next = carry_of(moco); /* made of the one that the round began with */
    mem_free(carry);
    carry = next;
    assert_int_equal(begin(moco, f, carry, 0, 0, 1), 0);
    for (size_t i = 0; i < total; i++) { /* from where it stood then, and not from those parameters */
        assert_true(fabsf(encoder(moco, f, moco_key)[i] - first[i] - 0.3439f) <= 1e-5f);
    }
    mem_free(carry);
    mem_free(first);
    moco_free(moco);
}

/* The two other beginnings: the aggregated encoder itself, and the site's own as its last round left it. */
static void the_key_encoder_begins_where_it_is_told(void **state)
{
    struct fixture *f = *state;
    size_t total = f->layout->total, skip = (size_t)QUEUE * (D + 1);
    for (int own = 0; own <= 1; own++) {
        struct moco_step out;
        f->options.key_start = own ? MOCO_KEY_OWN : MOCO_KEY_COPY;
        struct moco *moco = moco_of(f);
        assert_int_equal(begin(moco, f, NULL, 0, 0, 0), 0);
        assert_memory_equal(encoder(moco, f, moco_key), f->params, total * sizeof(float));
        assert_int_equal(step(moco, f, NULL, &out), 0);
        float *carry = carry_of(moco), *left = test_floats(total);
        memcpy(left, encoder(moco, f, moco_key), total * sizeof *left);
        assert_memory_equal(carry + skip, own ? left : f->params, total * sizeof *left);
        f->params[0] += 1;
        assert_int_equal(begin(moco, f, carry, 0, 0, 1), 0);
        assert_memory_equal(encoder(moco, f, moco_key), own ? left : f->params, total * sizeof *left);
        assert_memory_equal(encoder(moco, f, moco_query), f->params, total * sizeof *left);
        float *again = carry_of(moco); /* before a step, which is as the round began */
        assert_memory_equal(again, carry, (size_t)QUEUE * D * sizeof *again);
        assert_memory_equal(again + skip, own ? left : f->params, total * sizeof *left);
        mem_free(again);
        mem_free(carry);
        mem_free(left);
        moco_free(moco);
    }
}

/* A refill makes the keys that a step makes, and changes nothing else; images are noted, so that they mask. */
static void a_refill_makes_the_keys_of_a_step(void **state)
{
    struct fixture *f = *state;
    struct moco_step out;
    uint32_t images[BATCH];
    float made[BATCH * D], stepped[BATCH * D];
    for (uint32_t i = 0; i < BATCH; i++) {
        images[i] = i / 2;
    }
    f->options.bn_groups = 1; /* with more, a step's shuffle would put others into a group */
    struct moco *moco = moco_of(f);
    assert_int_equal(begin(moco, f, NULL, 0, 0, 0), 0);
    assert_int_equal(moco_refill(moco, images, f->views + f->view, NULL), 0);
    assert_int_equal(moco_newest_keys(moco, BATCH, made), BATCH);
    assert_memory_equal(encoder(moco, f, moco_key), f->params, f->layout->total * sizeof(float));
    assert_memory_equal(encoder(moco, f, moco_query), f->params, f->layout->total * sizeof(float));
    float *carry = carry_of(moco);
    assert_memory_equal((uint32_t *)(void *)(carry + QUEUE * D) + QUEUE - BATCH, images, sizeof images);

    assert_int_equal(begin(moco, f, NULL, 0, 0, 0), 0); /* nothing of it lingers */
    assert_int_equal(step(moco, f, images, &out), 0);
    assert_int_equal(moco_newest_keys(moco, BATCH, stepped), BATCH);
    for (size_t i = 0; i < BATCH * (size_t)D; i++) { /* the shuffle changes the order of sums alone */
        assert_true(fabsf(made[i] - stepped[i]) < 1e-5f);
    }
    assert_true(fabsf(made[0] - made[D]) > 1e-4f);
    mem_free(carry);
    moco_free(moco);
}

/* An empty queue is the one of a site that carries nothing, with the key encoder that it carries. */
static void a_queue_may_begin_empty(void **state)
{
    struct fixture *f = *state;
    struct moco *moco = moco_of(f);
    struct moco_step out;
    assert_int_equal(begin(moco, f, NULL, 0, 0, 0), 0);
    float *fresh = carry_of(moco);
    assert_int_equal(step(moco, f, NULL, &out), 0);
    float *carry = carry_of(moco);
    f->params[0] += 1;
    struct moco_round round = {.params = f->params, .carry = carry, .carry_steps = 1, .empty_queue = true};
    assert_int_equal(moco_begin(moco, &round, NULL), 0);
    float *got = carry_of(moco);
    assert_memory_equal(got, fresh, (size_t)QUEUE * (D + 1) * sizeof *got);
    assert_true(got[QUEUE * (D + 1)] != f->params[0]);
    mem_free(fresh);
    mem_free(carry);
    mem_free(got);
    moco_free(moco);
}

static void a_carry_is_checked(void **state)
{
    struct fixture *f = *state;
    struct moco *moco = moco_of(f);
    struct err err;
    assert_int_equal(begin(moco, f, NULL, 0, 0, 0), 0);
    float *carry = carry_of(moco), saved;
    size_t bytes = moco_carry_bytes(moco), last = bytes / sizeof *carry - 1;
    for (size_t i = 0; i < QUEUE; i++) { /* the queue begins with unit rows, of no image */
        assert_true(fabs(test_dot(carry + i * D, carry + i * D, D) - 1) < 1e-5);
        assert_int_equal(((uint32_t *)(void *)(carry + QUEUE * D))[i], UINT32_MAX);
    }
    assert_int_equal(moco_carry_check(moco, carry, bytes, &err), 0);
    assert_int_equal(moco_carry_check(moco, carry, bytes - sizeof *carry, &err), ERR_DATA);
    assert_int_equal(moco_carry_check(moco, carry, bytes + sizeof *carry, &err), ERR_DATA);
    saved = carry[last];
    carry[last] = NAN;
    assert_int_equal(moco_carry_check(moco, carry, bytes, &err), ERR_DATA);
    carry[last] = saved;
    carry[D] += 0.1f;
    assert_int_equal(moco_carry_check(moco, carry, bytes, &err), ERR_DATA);
    f->remote[D] += 0.1f;
    assert_int_equal(begin(moco, f, NULL, 2, 0, 0), ERR_DATA);
    f->remote[D] = NAN;
    assert_int_equal(begin(moco, f, NULL, 2, 0, 0), ERR_DATA);
    mem_free(carry);
    moco_free(moco);
}

/* Old keys of the batch's own images are no negatives: with nothing else in the queue nothing is left to tell apart. */
static void own_keys_are_no_negatives(void **state)
{
    struct fixture *f = *state;
    struct moco *moco = moco_of(f);
    struct moco_step known, unknown;
    uint32_t images[BATCH] = {0};
    assert_int_equal(begin(moco, f, NULL, 0, 0, 0), 0);
    for (uint32_t i = 0; i < 2; i++) { /* the queue holds this image alone */
        assert_int_equal(step(moco, f, images, &known), 0);
    }
    float *carry = carry_of(moco);
    assert_int_equal(step(moco, f, images, &known), 0);
    assert_true(known.loss < 1e-6 && known.accuracy == 1);
    assert_int_equal(begin(moco, f, carry, 0, 0, 2), 0);
    assert_int_equal(step(moco, f, NULL, &unknown), 0); /* as it would be if nobody looked */
    assert_true(unknown.loss > 1);
    images[BATCH - 1] = 7; /* another image has them as negatives, and only it: the last, so that groups matter too */
    assert_int_equal(begin(moco, f, carry, 0, 0, 2), 0);
    assert_int_equal(step(moco, f, images, &known), 0);
    assert_true(known.loss > 0.01 && known.loss < unknown.loss);
    mem_free(carry);
    moco_free(moco);
}

/* Nor are they its neighbours: where the queue shows nothing but the images that ask, neighbours are remote ones. */
static void own_keys_are_no_neighbours(void **state)
{
    struct fixture *f = *state;
    const uint32_t images[BATCH] = {0};
    f->options.matching = MOCO_MATCHING_POSITIVES;
    float *carry = NULL;
    double losses[3]; /* remote candidates alone; all, with the images told; all, and nobody looks */
    for (uint32_t i = 0; i < 3; i++) {
        struct moco_step out;
        f->options.local_candidates = i > 0;
        struct moco *moco = moco_of(f);
        if (!carry) {
            assert_int_equal(begin(moco, f, NULL, 0, 0, 0), 0);
            assert_int_equal(step(moco, f, images, &out), 0);
            assert_int_equal(step(moco, f, images, &out), 0);
            carry = carry_of(moco);
        }
        assert_int_equal(begin(moco, f, carry, 10, 0.5f, 2), 0);
        assert_int_equal(step(moco, f, i < 2 ? images : NULL, &out), 0);
        losses[i] = out.loss_matching;
        moco_free(moco);
    }
    assert_true(fabs(losses[0] - losses[1]) < 1e-6);
    assert_true(fabs(losses[0] - losses[2]) > 1e-3);
    mem_free(carry);
}

static void newest_keys_come_first(void **state)
{
    struct fixture *f = *state;
    struct moco *moco = moco_of(f);
    struct moco_step out;
    uint32_t images[BATCH];
    float keys[QUEUE * D];
    for (uint32_t i = 0; i < BATCH; i++) {
        images[i] = i;
    }
    assert_int_equal(begin(moco, f, NULL, 0, 0, 0), 0);
    assert_int_equal(moco_newest_keys(moco, QUEUE, keys), 0); /* only random directions yet */
    assert_int_equal(step(moco, f, images, &out), 0);
    assert_int_equal(moco_newest_keys(moco, QUEUE, keys), BATCH);
    float *carry = carry_of(moco);
    for (size_t i = 0; i < BATCH; i++) {
        assert_memory_equal(keys + i * D, carry + (QUEUE - 1 - i) * D, D * sizeof *keys);
    }
    assert_int_equal(moco_newest_keys(moco, 3, keys), 3);
    assert_int_equal(step(moco, f, images, &out), 0);
    assert_int_equal(moco_newest_keys(moco, QUEUE, keys), QUEUE);
    mem_free(carry);
    moco_free(moco);
}

/* A step whose loss is not finite fails, and encoders and queue are as before. */
static void a_broken_step_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct moco *moco = moco_of(f);
    struct moco_step out;
    size_t bytes = f->layout->total * sizeof(float);
    assert_int_equal(begin(moco, f, NULL, 0, 0, 0), 0);
    float *before = carry_of(moco);
    f->views[17] = NAN;
    assert_int_equal(step(moco, f, NULL, &out), ERR_FAILED);
    float *after = carry_of(moco);
    assert_memory_equal(before, after, moco_carry_bytes(moco));
    assert_memory_equal(encoder(moco, f, moco_query), f->params, bytes);
    assert_memory_equal(encoder(moco, f, moco_key), f->params, bytes);
    f->views[17] = 0;
    assert_int_equal(step(moco, f, NULL, &out), 0);
    assert_true(memcmp(encoder(moco, f, moco_query), f->params, bytes) != 0);
    mem_free(before);
    mem_free(after);
    moco_free(moco);
}

/* A round that is trained again after an interruption gives the same bytes. */
static void rounds_repeat(void **state)
{
    struct fixture *f = *state;
    struct moco *moco = moco_of(f);
    struct moco_step out;
    size_t bytes = f->layout->total * sizeof(float);
    float *first = test_floats(f->layout->total);
    assert_int_equal(begin(moco, f, NULL, 0, 0, 0), 0);
    assert_int_equal(step(moco, f, NULL, &out), 0);
    float *carry = carry_of(moco);
    for (uint32_t round = 0; round < 2; round++) {
        assert_int_equal(begin(moco, f, carry, 5 + 3 * round, 0, 40), 0);
        assert_int_equal(begin(moco, f, carry, 5, 0, 40), 0);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(step(moco, f, NULL, &out), 0);
        }
        if (round == 0) {
            memcpy(first, encoder(moco, f, moco_query), bytes);
        }
    }
    assert_memory_equal(first, encoder(moco, f, moco_query), bytes);
    assert_int_equal(begin(moco, f, carry, 5, 0, 41), 0); /* other draws */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(step(moco, f, NULL, &out), 0);
    }
    assert_true(memcmp(first, encoder(moco, f, moco_query), bytes) != 0);
    mem_free(carry);
    mem_free(first);
    moco_free(moco);
}

/* One batch again and again, against remote negatives only (the queue would hold the batch's own images): features
 * learn where their other view lies, and that it is not where the remote ones are. */
static void training_learns(void **state)
{
    struct fixture *f = *state;
    f->options.fusion_share = 1;
    for (size_t i = 0; i < f->view; i++) {
        f->views[f->view + i] = f->views[i] + (i % 3 == 0 ? 0.5f : 0);
    }
    struct result early = train(f, QUEUE, 0, 1), late = train(f, QUEUE, 0, 40);
    assert_true(late.last.loss < 0.7 * early.last.loss);
    mem_free(early.state);
    mem_free(late.state);
}

static void options_are_checked(void **state)
{
    struct fixture *f = *state;
    struct moco_options good = f->options, bad[10];
    for (size_t i = 0; i < 10; i++) {
        bad[i] = good;
    }
    bad[0].bn_groups = 5;
    bad[1].bn_groups = 0;
    bad[2].batch = 0;
    bad[3].threads = 0;
    bad[4].queue = 0;
    bad[5].temperature = 0;
    bad[6].fusion_share = 1.5f;
    bad[7].fusion_share = NAN;
    bad[8].matching = MOCO_MATCHING_ENTROPY;
    bad[8].neighbours = 0;
    bad[9].matching = MOCO_MATCHING_POSITIVES;
    bad[9].neighbours = 100000;
    for (size_t i = 0; i < 10; i++) {
        struct moco *moco;
        struct err err;
        assert_int_equal(moco_new(f->layout, &bad[i], &moco, &err), ERR_CONFIG);
        assert_null(moco);
    }
}

/* Each allocation fails in turn; nothing leaks, and a moco that survives a failed begin goes on. */
static void memory_runs_out(void **state)
{
    struct fixture *f = *state;
    struct moco *moco = NULL;
    struct moco_step out;
    int rc = ERR_NOMEM;
    f->options.bn_groups = 2;
    /* Thousands of allocations belong to the nets, which test_net lets fail one by one: here some of them. */
    for (uint64_t n = 1; rc != 0; n += 97) {
        mem_fail_after(n);
        rc = moco_new(f->layout, &f->options, &moco, NULL);
        mem_fail_after(0);
        assert_true(rc == 0 ? moco != NULL : rc == ERR_NOMEM && moco == NULL);
    }
    assert_int_equal(begin(moco, f, NULL, 4, 0, 0), 0);
    rc = ERR_NOMEM;
    for (uint64_t n = 1; rc != 0; n++) {
        mem_fail_after(n);
        rc = begin(moco, f, NULL, 15, 0, 0);
        mem_fail_after(0);
        assert_int_equal(step(moco, f, NULL, &out), 0);
        assert_true(fabs(out.remote_share - (rc == 0 ? 0.5 : 0.2)) < 1e-9);
    }
    moco_free(moco);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(threads_change_no_bit),
        TEST(a_kept_velocity_goes_on),
        TEST(no_way_depends_on_threads),
        TEST(memory_is_said),
        TEST(remote_features_reach_loss_and_gradient),
        TEST(shares_of_negatives),
        TEST(matching_needs_remote_features),
        TEST(local_keys_can_be_neighbours),
        TEST(keys_come_back_in_order),
        TEST(keys_are_shuffled_between_groups),
        TEST(the_queue_lives_on),
        TEST(the_key_encoder_lags_over_rounds),
        TEST(the_key_encoder_begins_where_it_is_told),
        TEST(a_refill_makes_the_keys_of_a_step),
        TEST(a_queue_may_begin_empty),
        TEST(a_carry_is_checked),
        TEST(own_keys_are_no_negatives),
        TEST(own_keys_are_no_neighbours),
        TEST(newest_keys_come_first),
        TEST(a_broken_step_changes_nothing),
        TEST(rounds_repeat),
        TEST(training_learns),
        TEST(options_are_checked),
        TEST(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
