/* Local rounds of a tiny encoder on a tiny folder: a function of the job, whatever the number of threads; what is
 * promised of update, features, queue and report; cancelling; the schedules. */
#include "tests/unit/client/data/data_support.h"

#include "client/data/augment.h"
#include "client/nn/embedder.h"
#include "client/train/train.h"

#include <math.h>

#define IMAGES 13u
#define SIDE   8u
#define D      8u

struct world {
    struct scratch scratch;
    struct dataset *dataset;
    struct plan plan;
    struct layout *layout;
    float *params, *remote;
    struct train_job job;
};

static int setup(void **state)
{
    struct world *w = mem_new(1, sizeof *w);
    struct rng rng;
    assert_non_null(w);
    scratch_open(&w->scratch);
    rng_init(&rng, 1, RNG_TEST, 0, 0, 0);
    for (uint32_t i = 0; i < IMAGES; i++) {
        char name[32], path[DISK_PATH_MAX];
        uint8_t rgb[SIDE * SIDE * 3];
        for (size_t k = 0; k < sizeof rgb; k++) {
            rgb[k] = (uint8_t)rng_below(&rng, 256);
        }
        (void)snprintf(name, sizeof name, "%u.png", i);
        assert_int_equal(image_write_png(scratch_path(&w->scratch, name, path), rgb, SIDE, SIDE, NULL), 0);
    }
    struct dataset_options options = {.folder = w->scratch.path, .side = SIDE, .threads = 1};
    assert_int_equal(dataset_open(&options, &w->dataset, NULL), 0);

    config_defaults(&plan_set, &w->plan);
    w->plan.model = (struct model_spec){.block = MODEL_BLOCK_BASIC,
                                        .stages = 2,
                                        .blocks = {1, 1},
                                        .width = 8,
                                        .stem = MODEL_STEM_SMALL,
                                        .input = SIDE,
                                        .features = D};
    w->plan.rounds = 4;
    w->plan.batch = 4;
    w->plan.bn_groups = 2;
    w->plan.queue = 16;
    w->plan.local_epochs = 2;
    w->plan.fusion.upload = 6;
    w->plan.matching.neighbours = 3;
    w->plan.matching.start_round = 2;
    w->plan.matching.ramp_rounds = 2;
    assert_int_equal(layout_new(&w->plan.model, &w->layout, NULL), 0);
    w->params = mem_new_aligned(w->layout->total, sizeof(float));
    params_init(w->layout, 1, w->params);
    w->remote = mem_new_aligned(12 * D, sizeof(float));
    for (uint32_t i = 0; i < 12; i++) {
        w->remote[i * D + i % D] = i % 2 ? 1 : -1;
    }
    w->job = (struct train_job){.round = 2, .params = w->params, .remote = w->remote, .remote_rows = 12};
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    mem_free(w->params);
    mem_free(w->remote);
    layout_free(w->layout);
    dataset_close(w->dataset);
    scratch_close(&w->scratch);
    mem_free(w);
    return 0;
}

static struct trainer *trainer_of(struct world *w, const char *name, uint32_t threads)
{
    struct trainer *trainer;
    struct err err = {0};
    if (trainer_new(&w->plan, w->layout, w->dataset, &(struct trainer_options){.name = name, .threads = threads},
                    &trainer, &err)) {
        fail_msg("%s", err.text);
    }
    return trainer;
}

static void train(struct trainer *trainer, const struct train_job *job, struct train_result *out)
{
    struct train_progress progress = {0};
    struct err err = {0};
    if (train_round(trainer, job, &progress, out, &err)) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(atomic_load(&progress.step), out->steps);
    assert_int_equal(atomic_load(&progress.steps), out->steps);
    assert_true(fabs((double)atomic_load(&progress.loss) - out->loss) < 1e-5);
}

static bool same_watch(const struct watch *a, const struct watch *b)
{
    uint8_t x[WATCH_BYTES], y[WATCH_BYTES];
    watch_store(x, a);
    watch_store(y, b);
    return memcmp(x, y, sizeof x) == 0;
}

static bool same_result(const struct train_result *a, const struct train_result *b)
{
    return a->feature_rows == b->feature_rows && a->carry_bytes == b->carry_bytes &&
           a->update_bytes == b->update_bytes && memcmp(a->update, b->update, a->update_bytes) == 0 &&
           memcmp(a->features, b->features, (size_t)a->feature_rows * D * sizeof(float)) == 0 &&
           memcmp(a->carry, b->carry, a->carry_bytes) == 0 && memcmp(&a->loss, &b->loss, sizeof a->loss) == 0 &&
           same_watch(&a->aggregate, &b->aggregate) && same_watch(&a->own, &b->own);
}

/* Whatever the threads, and whatever the trainer did before. Hands out the round after the job's. */
static void check_repeats(struct world *w, struct train_result *other)
{
    struct train_result first, again;
    struct trainer *one = trainer_of(w, "site-a", 1);
    train(one, &w->job, &first);
    float *params = mem_new_aligned(w->layout->total, sizeof *params); /* of the next aggregate */
    for (uint64_t i = 0; i < w->layout->total; i++) {
        params[i] = w->params[i] * 1.01f;
    }
    struct train_job next = w->job; /* another round in between leaves nothing behind */
    next.params = params;
    next.round = 3;
    next.carry = first.carry;
    next.carry_bytes = first.carry_bytes;
    next.carry_round = 2;
    train(one, &next, other);
    assert_false(same_result(&first, other));
    train(one, &w->job, &again);
    assert_true(same_result(&first, &again));
    train_result_fini(&again);
    trainer_free(one);
    for (uint32_t threads = 2; threads <= 3; threads++) {
        struct trainer *many = trainer_of(w, "site-a", threads);
        train(many, &w->job, &again);
        assert_true(same_result(&first, &again));
        train_result_fini(&again);
        train(many, &next, &again);
        assert_true(same_result(other, &again));
        train_result_fini(&again);
        trainer_free(many);
    }
    train_result_fini(&first);
    mem_free(params);
}

static void a_round_is_a_function_of_its_job(void **state)
{
    struct world *w = *state;
    struct train_result here, there;
    check_repeats(w, &here);
    train_result_fini(&here);
    struct trainer *one = trainer_of(w, "site-a", 1), *elsewhere = trainer_of(w, "site-b", 1);
    train(one, &w->job, &here);
    train(elsewhere, &w->job, &there); /* the name decides too */
    assert_false(same_result(&here, &there));
    train_result_fini(&here);
    train_result_fini(&there);
    trainer_free(one);
    trainer_free(elsewhere);
}

/* What leaves two sites that differ in their seeds alone: whether it differs in the order of images, in views, and in
 * which images are chosen for plain features. `told`: false is the mistake, a seed that follows from plan and name. */
static uint32_t differences(struct world *w, bool told)
{
    uint32_t images[2][16], found = 0;
    for (uint32_t plain = 0; plain < 2; plain++) {
        struct train_result results[2];
        w->plan.fusion.encoder = plain ? FUSION_ENCODER_AGGREGATED : FUSION_ENCODER_MOMENTUM;
        for (uint32_t i = 0; i < 2; i++) {
            const uint64_t seed = 1 + i;
            const struct trainer_options options = {.name = "site-a", .threads = 1, .seed = told ? &seed : NULL};
            struct trainer *trainer;
            assert_int_equal(trainer_new(&w->plan, w->layout, w->dataset, &options, &trainer, NULL), 0);
            train(trainer, &w->job, &results[i]);
            memcpy(images[i], (const float *)results[i].carry + w->plan.queue * D, sizeof images[i]);
            trainer_free(trainer);
        }
        size_t bytes = (size_t)results[0].feature_rows * D * sizeof(float);
        found += memcmp(results[0].features, results[1].features, bytes) != 0;
        found += !plain && memcmp(images[0], images[1], sizeof images[0]) != 0;
        train_result_fini(&results[0]);
        train_result_fini(&results[1]);
    }
    return found;
}

static void the_seed_is_in_all_that_is_drawn(void **state)
{
    struct world *w = *state;
    assert_int_equal(differences(w, true), 3);
    assert_int_equal(differences(w, false), 0);
    /* And neither plan nor name is, beside it. */
    struct train_result results[2];
    for (uint32_t i = 0; i < 2; i++) {
        const uint64_t seed = 1;
        const struct trainer_options options = {.name = i ? "site-b" : "site-a", .threads = 1, .seed = &seed};
        struct trainer *trainer;
        w->plan.seed = 5 + i;
        assert_int_equal(trainer_new(&w->plan, w->layout, w->dataset, &options, &trainer, NULL), 0);
        train(trainer, &w->job, &results[i]);
        trainer_free(trainer);
    }
    assert_true(same_result(&results[0], &results[1]));
    train_result_fini(&results[0]);
    train_result_fini(&results[1]);
}

/* Each beginning of key encoder, queue and velocity, and no two of them make the same of a carry. */
static void every_beginning_is_a_function_of_the_job(void **state)
{
    static const uint32_t ways[][3] = {
        {KEY_ENCODER_FOLLOW, QUEUE_START_KEEP, SGD_VELOCITY_RESET},
        {KEY_ENCODER_COPY, QUEUE_START_KEEP, SGD_VELOCITY_RESET},
        {KEY_ENCODER_OWN, QUEUE_START_KEEP, SGD_VELOCITY_RESET},
        {KEY_ENCODER_FOLLOW, QUEUE_START_REFILL, SGD_VELOCITY_RESET},
        {KEY_ENCODER_FOLLOW, QUEUE_START_EMPTY, SGD_VELOCITY_RESET},
        {KEY_ENCODER_FOLLOW, QUEUE_START_KEEP, SGD_VELOCITY_KEEP},
    };
    struct world *w = *state;
    struct train_result all[6];
    for (uint32_t i = 0; i < 6; i++) {
        w->plan.key_encoder = ways[i][0];
        w->plan.queue_start = ways[i][1];
        w->plan.sgd_velocity = ways[i][2];
        check_repeats(w, &all[i]);
        for (uint32_t before = 0; before < i; before++) {
            assert_false(same_result(&all[before], &all[i]));
        }
    }
    for (uint32_t i = 0; i < 6; i++) {
        train_result_fini(&all[i]);
    }
}

/* Refilled, the queue of a round begins with keys of images that are noted, other ones in each round. */
static void a_refilled_queue_knows_its_images(void **state)
{
    struct world *w = *state;
    uint32_t images[2][16];
    w->plan.queue = 14; /* no multiple of the batch */
    w->plan.local_steps = 1;
    w->plan.queue_start = QUEUE_START_REFILL;
    struct trainer *trainer = trainer_of(w, "site-a", 2);
    for (uint32_t r = 0; r < 2; r++) {
        struct train_result result;
        w->job.round = 2 + r;
        train(trainer, &w->job, &result);
        memcpy(images[r], (const float *)result.carry + 14 * D, 14 * sizeof(uint32_t));
        uint32_t seen = 0;
        for (uint32_t i = 0; i < 10; i++) { /* the last four are the step's own */
            assert_true(images[r][i] < IMAGES);
            seen |= UINT32_C(1) << images[r][i];
        }
        assert_true(__builtin_popcount(seen) >= 6); /* at most one permutation ended in between */
        assert_int_equal(result.feature_rows, 4);   /* what refills is not offered */
        train_result_fini(&result);
    }
    assert_memory_not_equal(images[0], images[1], 10 * sizeof(uint32_t));
    trainer_free(trainer);
    w->plan.queue_start = QUEUE_START_EMPTY;
    trainer = trainer_of(w, "site-a", 1);
    struct train_result result;
    train(trainer, &w->job, &result);
    memcpy(images[0], (const float *)result.carry + 14 * D, 14 * sizeof(uint32_t));
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(images[0][i], UINT32_MAX); /* of no image */
    }
    train_result_fini(&result);
    trainer_free(trainer);
}

static void the_report_says_what_happened(void **state)
{
    struct world *w = *state;
    struct trainer *trainer = trainer_of(w, "site-a", 2);
    struct train_result result;
    train(trainer, &w->job, &result);
    assert_int_equal(result.images, IMAGES);
    assert_int_equal(result.steps, 6); /* two epochs of 13 / 4 whole batches */
    assert_int_equal(result.seen, 24);
    assert_true(isfinite(result.loss) && result.loss > 0);
    assert_true(result.loss_matching > 0); /* round 2 is the start round */
    assert_true(fabs(result.loss - result.loss_contrast - result.loss_matching) < 1e-5);
    assert_true(result.remote_share > 0.3 && result.remote_share < 0.7);
    assert_true(result.images_per_second > 0);
    double moved[2] = {0, 0};
    const float *update = result.update;
    assert_int_equal(result.update_bytes, w->layout->total * sizeof *update);
    for (uint64_t i = 0; i < w->layout->total; i++) {
        assert_true(isfinite(update[i]));
        moved[i >= w->layout->trainable_end] += fabs((double)update[i]);
    }
    assert_true(moved[0] > 0); /* weights */
    assert_true(moved[1] > 0); /* statistics */
    train_result_fini(&result);

    struct train_job first = w->job;
    first.round = 1;
    first.remote = NULL;
    first.remote_rows = 0;
    train(trainer, &first, &result);
    assert_true(result.loss_matching == 0.0 && result.remote_share == 0.0);
    train_result_fini(&result);
    trainer_free(trainer);
}

/* The aggregated encoder's measures are those of what came with the job: how it is trained here leaves no trace in
 * them, and all of it in the site's own. */
static void the_aggregate_is_measured_before_it_learns(void **state)
{
    struct world *w = *state;
    struct train_result slow, fast;
    struct trainer *trainer = trainer_of(w, "site-a", 2);
    train(trainer, &w->job, &slow);
    trainer_free(trainer);
    w->plan.learning_rate = 0.5;
    trainer = trainer_of(w, "site-a", 1);
    train(trainer, &w->job, &fast);
    trainer_free(trainer);
    assert_true(slow.aggregate.measured && slow.own.measured);
    assert_true(watch_is_sane(&slow.aggregate) && watch_is_sane(&slow.own));
    assert_true(same_watch(&slow.aggregate, &fast.aggregate));
    assert_false(same_watch(&slow.own, &fast.own));
    assert_false(same_watch(&slow.aggregate, &slow.own));
    train_result_fini(&slow);
    train_result_fini(&fast);
}

static void fetch(void *ctx, uint32_t i, float *image)
{
    augment_plain(dataset_pixels(ctx, i), SIDE, image);
}

/* The momentum encoder's features are the newest keys of the queue; the aggregated encoder's are plain features, each
 * of another image. */
static void features_are_by_the_chosen_encoder(void **state)
{
    struct world *w = *state;
    struct train_result result;
    struct trainer *trainer = trainer_of(w, "site-a", 1);
    train(trainer, &w->job, &result);
    assert_int_equal(result.feature_rows, 6);
    for (uint32_t r = 0; r < 6; r++) {
        const float *key = (const float *)result.carry + (size_t)(w->plan.queue - 1 - r) * D;
        assert_memory_equal(result.features + (size_t)r * D, key, D * sizeof *key);
    }
    train_result_fini(&result);
    trainer_free(trainer);

    struct embedder *embedder;
    float expected[IMAGES * D];
    uint32_t found = 0, images = 0;
    assert_int_equal(embedder_new(w->layout, w->params, 1, &embedder, NULL), 0);
    assert_int_equal(embedder_run(embedder, IMAGES, fetch, w->dataset, NULL, expected, NULL), 0);
    embedder_free(embedder);
    w->plan.fusion.encoder = FUSION_ENCODER_AGGREGATED;
    trainer = trainer_of(w, "site-a", 1);
    train(trainer, &w->job, &result);
    assert_int_equal(result.feature_rows, 6);
    for (uint32_t r = 0; r < 6; r++) {
        for (uint32_t i = 0; i < IMAGES; i++) {
            double distance = 0;
            for (uint32_t k = 0; k < D; k++) {
                distance += fabs((double)result.features[r * D + k] - (double)expected[i * D + k]);
            }
            found += distance < 1e-4;
            images |= (uint32_t)(distance < 1e-4) << i;
        }
    }
    assert_int_equal(found, 6);
    assert_int_equal(__builtin_popcount(images), found);
    train_result_fini(&result);
    trainer_free(trainer);
}

/* The queue still holds the round before, whose keys were offered then: they are not offered again. */
static void features_are_of_this_round_alone(void **state)
{
    struct world *w = *state;
    struct train_result first, second;
    struct trainer *trainer = trainer_of(w, "site-a", 1);
    train(trainer, &w->job, &first);
    trainer_free(trainer);
    w->plan.local_steps = 1;
    struct train_job next = w->job;
    next.round = 3;
    next.carry = first.carry;
    next.carry_bytes = first.carry_bytes;
    next.carry_round = 2;
    trainer = trainer_of(w, "site-a", 1);
    train(trainer, &next, &second);
    assert_int_equal(second.feature_rows, w->plan.batch); /* of the 6 that fusion.upload allows */
    for (uint32_t r = 0; r < second.feature_rows; r++) {
        for (uint32_t old = 0; old < first.feature_rows; old++) {
            assert_memory_not_equal(second.features + (size_t)r * D, first.features + (size_t)old * D,
                                    D * sizeof(float));
        }
    }
    train_result_fini(&first);
    train_result_fini(&second);
    trainer_free(trainer);
}

/* ---- Privacy ---- */

/* A secret for each trainer; what it is, is the test's to know. */
static int fill_secret(void *ctx, void *out, size_t bytes)
{
    uint8_t *at = out;
    for (size_t i = 0; i < bytes; i++) {
        at[i] = (uint8_t)rng_u32(ctx);
    }
    return 0;
}

/* The bug: noise that all who know the plan can draw again, and subtract. */
static int fill_from_the_plan(void *ctx, void *out, size_t bytes)
{
    struct rng rng;
    (void)ctx;
    rng_init(&rng, 1, RNG_TEST, 7, 7, 7);
    return fill_secret(&rng, out, bytes);
}

/* The round by two trainers that differ in their secrets alone. Whether noise tells them apart in everything that
 * leaves, and in nothing that does not. */
static bool secrets_matter(struct world *w, int (*fill)(void *, void *, size_t))
{
    struct train_result results[2];
    for (uint64_t i = 0; i < 2; i++) {
        struct rng rng;
        struct trainer *trainer;
        rng_init(&rng, i, RNG_TEST, 0, 0, 0);
        const struct trainer_options options = {.name = "site-a", .threads = 1, .noise = {fill, &rng}};
        assert_int_equal(trainer_new(&w->plan, w->layout, w->dataset, &options, &trainer, NULL), 0);
        train(trainer, &w->job, &results[i]);
        trainer_free(trainer);
    }
    struct train_result *a = &results[0], *b = &results[1];
    assert_int_equal(a->feature_rows, 6);
    assert_memory_equal(&a->loss, &b->loss, sizeof a->loss);
    uint64_t same = 0;
    for (uint32_t i = 0; i < 6 * D; i++) {
        same += a->features[i] == b->features[i];
    }
    const float *x = a->update, *y = b->update;
    for (uint64_t i = 0; i < w->layout->total; i++) {
        same += x[i] == y[i];
    }
    bool kept = memcmp(a->carry, b->carry, a->carry_bytes) == 0;
    train_result_fini(a);
    train_result_fini(b);
    return same < 20 && kept;
}

static void noise_is_secret(void **state)
{
    struct world *w = *state;
    w->plan.fusion.privacy.noise = 0.1;
    w->plan.update.privacy.clip = 1;
    w->plan.update.privacy.noise = 0.1;
    for (uint32_t encoder = 0; encoder < 2; encoder++) {
        w->plan.fusion.encoder = encoder;
        assert_true(secrets_matter(w, fill_secret));
        assert_false(secrets_matter(w, fill_from_the_plan));
    }
    struct trainer *trainer;
    struct err err;
    const struct trainer_options options = {.name = "site-a", .threads = 1};
    assert_int_equal(trainer_new(&w->plan, w->layout, w->dataset, &options, &trainer, &err), ERR_USAGE);
    assert_null(trainer);
}

/* The noise is as large as the plan says, on all of the update and on the features, which stay unit rows; the report of
 * its cost follows. */
static void noise_is_what_the_plan_says(void **state)
{
    struct world *w = *state;
    struct train_result clean, noisy;
    struct trainer *trainer = trainer_of(w, "site-a", 1);
    train(trainer, &w->job, &clean);
    trainer_free(trainer);
    assert_true(clean.features_cost == 0 && clean.update_cost == 0 && clean.update_length == 0);
    w->plan.fusion.privacy.noise = 0.25;
    w->plan.update.privacy.clip = 2;
    w->plan.update.privacy.noise = 0.5;
    struct rng rng;
    rng_init(&rng, 3, RNG_TEST, 0, 0, 0);
    const struct trainer_options options = {.name = "site-a", .threads = 1, .noise = {fill_secret, &rng}};
    assert_int_equal(trainer_new(&w->plan, w->layout, w->dataset, &options, &trainer, NULL), 0);
    train(trainer, &w->job, &noisy);
    trainer_free(trainer);
    const float *x = clean.update, *y = noisy.update;
    uint64_t total = w->layout->total, trained = w->layout->trainable_end;
    double square = 0, noise[2] = {0};
    for (uint64_t i = 0; i < total; i++) {
        square += (double)x[i] * (double)x[i];
    }
    double scale = square > 4 ? 2 / sqrt(square) : 1;
    for (uint64_t i = 0; i < total; i++) {
        double added = (double)y[i] - scale * (double)x[i];
        noise[i >= trained] += added * added;
    }
    assert_true(fabs(noisy.update_length - sqrt(square)) < 1e-6 * sqrt(square));
    assert_true(fabs(noise[0] / (double)trained - 1) < 0.1); /* (0.5 * 2)^2 each */
    assert_true(fabs(noise[1] / (double)(total - trained) - 1) < 0.3);
    assert_true(fabs(noisy.update_cost - 8) < 1e-9 && fabs(noisy.features_cost - 6 * 32) < 1e-9);
    for (uint32_t r = 0; r < 6; r++) {
        double length = 0, cosine = 0;
        for (uint32_t i = 0; i < D; i++) {
            length += (double)noisy.features[r * D + i] * (double)noisy.features[r * D + i];
            cosine += (double)noisy.features[r * D + i] * (double)clean.features[r * D + i];
        }
        assert_true(fabs(length - 1) < 1e-6);
        assert_true(cosine < 0.9999 && cosine > -0.5);
    }
    train_result_fini(&clean);
    train_result_fini(&noisy);
}

/* Error feedback after noise: what is sent and what is kept add up to the noisy update, whose clip and noise do not see
 * the rest. */
static void a_rest_is_made_of_noisy_numbers(void **state)
{
    struct world *w = *state;
    struct train_result plain, packed;
    w->plan.update.privacy.clip = 1;
    w->plan.update.privacy.noise = 0.5;
    for (int form = 0; form < 2; form++) {
        struct rng rng;
        struct trainer *trainer;
        w->plan.wire.update = form ? QUANT_INT8 : QUANT_F32;
        rng_init(&rng, 3, RNG_TEST, 0, 0, 0);
        const struct trainer_options options = {.name = "site-a", .threads = 1, .noise = {fill_secret, &rng}};
        assert_int_equal(trainer_new(&w->plan, w->layout, w->dataset, &options, &trainer, NULL), 0);
        train(trainer, &w->job, form ? &packed : &plain);
        trainer_free(trainer);
    }
    uint64_t total = w->layout->total;
    float *sent = mem_new_aligned((size_t)total, sizeof *sent);
    const float *whole = plain.update,
                *rest = (const float *)(const void *)((const uint8_t *)packed.carry + plain.carry_bytes);
    uint32_t at;
    assert_int_equal(packed.carry_bytes - plain.carry_bytes, total * sizeof(float));
    assert_int_equal(quant_update_decode(QUANT_INT8, w->layout, packed.update, packed.update_bytes, sent, &at),
                     QUANT_OK);
    for (uint64_t i = 0; i < total; i++) {
        assert_true(fabs((double)sent[i] + (double)rest[i] - (double)whole[i]) < 1e-6);
    }
    mem_free(sent);
    train_result_fini(&plain);
    train_result_fini(&packed);
}

static void features_travel_when_either_use_is_on(void **state)
{
    struct world *w = *state;
    for (int matching = 1; matching >= 0; matching--) { /* either of the two needs them */
        struct train_result result;
        w->plan.fusion.enabled = false;
        w->plan.matching.enabled = matching;
        struct trainer *trainer = trainer_of(w, "site-a", 1);
        train(trainer, &w->job, &result);
        assert_int_equal(result.feature_rows, matching ? 6 : 0);
        assert_true((result.features != NULL) == (matching != 0));
        train_result_fini(&result);
        trainer_free(trainer);
    }
}

static void a_folder_smaller_than_a_batch_is_enough(void **state)
{
    struct world *w = *state;
    struct train_result result;
    w->plan.batch = 32;
    w->plan.fusion.upload = 100;
    struct trainer *trainer = trainer_of(w, "site-a", 1);
    train(trainer, &w->job, &result);
    assert_int_equal(result.steps, 2);
    assert_int_equal(result.seen, 64);
    assert_int_equal(result.feature_rows, IMAGES);
    train_result_fini(&result);
    trainer_free(trainer);
}

struct canceller {
    struct train_progress *progress;
    uint32_t at;
};

static void *cancel_later(void *argument)
{
    const struct canceller *canceller = argument;
    while (atomic_load(&canceller->progress->step) < canceller->at) {
        (void)sched_yield();
    }
    atomic_store(&canceller->progress->cancel, true);
    return NULL;
}

static void cancelling_ends_a_round(void **state)
{
    struct world *w = *state;
    struct train_result result;
    struct err err;
    struct train_progress progress = {0};
    struct trainer *trainer = trainer_of(w, "site-a", 1);
    atomic_store(&progress.cancel, true);
    assert_int_equal(train_round(trainer, &w->job, &progress, &result, &err), ERR_CANCELLED);
    assert_int_equal(atomic_load(&progress.step), 0);
    assert_null(result.update);

    trainer_free(trainer);
    w->plan.local_steps = 1000000; /* would take minutes */
    trainer = trainer_of(w, "site-a", 1);
    struct canceller canceller = {&progress, 3};
    pthread_t thread;
    atomic_store(&progress.cancel, false);
    assert_int_equal(pthread_create(&thread, NULL, cancel_later, &canceller), 0);
    int rc = train_round(trainer, &w->job, &progress, &result, &err);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(rc, ERR_CANCELLED);
    assert_null(result.features);
    trainer_free(trainer);
}

static void bad_jobs_are_refused(void **state)
{
    struct world *w = *state;
    struct train_result result;
    struct err err;
    struct train_progress progress = {0};
    struct trainer *trainer = trainer_of(w, "site-a", 1);
    struct train_job job = w->job;
    job.round = 0;
    assert_int_equal(train_round(trainer, &job, &progress, &result, &err), ERR_STATE);
    job.round = w->plan.rounds + 1;
    assert_int_equal(train_round(trainer, &job, &progress, &result, &err), ERR_STATE);
    job = w->job;
    w->remote[0] = NAN;
    assert_int_equal(train_round(trainer, &w->job, &progress, &result, &err), ERR_DATA);
    trainer_free(trainer);
    w->plan.model.input = 16; /* not what the folder was read at */
    assert_int_equal(trainer_new(&w->plan, w->layout, w->dataset, &(struct trainer_options){.name = "x", .threads = 1},
                                 &trainer, &err),
                     ERR_CONFIG);
    assert_null(trainer);
}

/* A carry that cannot be this plan's is as good as none. */
static void an_impossible_carry_is_dropped(void **state)
{
    struct world *w = *state;
    struct train_result fresh, dropped, carried;
    struct trainer *trainer = trainer_of(w, "site-a", 1);
    struct train_job job = w->job;
    train(trainer, &w->job, &fresh);
    job.carry = fresh.carry;
    job.carry_bytes = fresh.carry_bytes - sizeof(float);
    job.carry_round = 1;
    train(trainer, &job, &dropped);
    assert_true(same_result(&fresh, &dropped));
    job.carry_bytes = fresh.carry_bytes;
    job.carry_round = job.round; /* of this very round: what is trained again must not begin at its own end */
    train_result_fini(&dropped);
    train(trainer, &job, &dropped);
    assert_true(same_result(&fresh, &dropped));
    job.carry_round = 1;
    train(trainer, &job, &carried);
    assert_false(same_result(&fresh, &carried));
    job.round = 3; /* how long ago it was made counts: the key encoder has followed the aggregates for so many steps */
    w->params[0] += 1;
    train_result_fini(&carried);
    train(trainer, &job, &carried);
    job.carry_round = 2;
    train_result_fini(&dropped);
    train(trainer, &job, &dropped);
    assert_false(same_result(&dropped, &carried));
    train_result_fini(&fresh);
    train_result_fini(&dropped);
    train_result_fini(&carried);
    trainer_free(trainer);
}

static void the_number_of_steps_follows_the_plan(void **state)
{
    (void)state;
    struct plan plan = {.batch = 128, .local_epochs = 3};
    assert_int_equal(train_steps(&plan, 1), 3);
    assert_int_equal(train_steps(&plan, 127), 3);
    assert_int_equal(train_steps(&plan, 1300), 30);
    plan.local_steps = 7;
    assert_int_equal(train_steps(&plan, 1300), 7);
}

static void the_learning_rate_falls_along_a_cosine(void **state)
{
    (void)state;
    struct plan plan = {.rounds = 10, .learning_rate = 0.08};
    assert_true(fabs(train_learning_rate(&plan, 1, 0, 5) - 0.08) < 1e-12);
    assert_true(fabs(train_learning_rate(&plan, 6, 0, 5) - 0.04) < 1e-12);                    /* half of the run */
    assert_true(fabs(train_learning_rate(&plan, 3, 5, 10) - 0.04 * (1 + sqrt(0.5))) < 1e-12); /* a quarter */
    double before = 1;
    for (uint32_t round = 1; round <= 10; round++) {
        for (uint32_t step = 0; step < 5; step++) {
            double rate = train_learning_rate(&plan, round, step, 5);
            assert_true(rate > 0 && rate < before);
            before = rate;
        }
    }
    assert_true(before < 0.001);
}

static void the_matching_weight_ramps_up(void **state)
{
    (void)state;
    struct plan plan = {.rounds = 10};
    plan.matching.enabled = true;
    plan.matching.weight = 0.3;
    plan.matching.start_round = 4;
    plan.matching.ramp_rounds = 3;
    static const double expected[] = {0, 0, 0, 0.1, 0.2, 0.3, 0.3};
    for (uint32_t round = 1; round <= 7; round++) {
        assert_true(fabs(train_matching_weight(&plan, round) - expected[round - 1]) < 1e-12);
    }
    plan.matching.ramp_rounds = 0;
    assert_true(fabs(train_matching_weight(&plan, 4) - 0.3) < 1e-12);
    plan.matching.enabled = false;
    assert_true(train_matching_weight(&plan, 9) == 0.0);
}

/* The update of a job in f32: what a packed one was made of, since the packing changes nothing that is trained. */
static void learned(struct world *w, const struct train_job *job, struct train_result *out)
{
    uint32_t form = w->plan.wire.update;
    size_t rest = (size_t)w->layout->total * sizeof(float);
    struct train_job plain = *job;
    plain.carry_bytes -= plain.carry ? rest : 0;
    w->plan.wire.update = QUANT_F32;
    struct trainer *trainer = trainer_of(w, "site-a", 1);
    train(trainer, &plain, out);
    trainer_free(trainer);
    w->plan.wire.update = form;
}

/* What is sent is the update and the rest before it, and what it lacks is the rest after it. A round trained again from
 * the same carry, after a crash or a refusal, sends the same. */
static void what_packing_leaves_out_is_carried(void **state)
{
    struct world *w = *state;
    uint64_t total = w->layout->total;
    float *sent = mem_new_aligned(total, sizeof *sent);
    for (uint32_t form = QUANT_F16; form <= QUANT_INT8; form++) {
        struct train_result result[2], again, plain;
        struct train_job job = w->job;
        w->plan.wire.update = form;
        struct trainer *trainer = trainer_of(w, "site-a", 2);
        uint32_t rests = 0, at;
        for (uint32_t r = 0; r < 2; r++) {
            train(trainer, &job, &result[r]);
            train(trainer, &job, &again);
            assert_true(same_result(&result[r], &again));
            train_result_fini(&again);
            learned(w, &job, &plain);
            assert_int_equal(result[r].carry_bytes, plain.carry_bytes + total * sizeof(float));
            assert_memory_equal(result[r].carry, plain.carry, plain.carry_bytes);
            assert_int_equal(result[r].update_bytes, quant_update_bytes(form, w->layout));
            assert_int_equal(quant_update_decode(form, w->layout, result[r].update, result[r].update_bytes, sent, &at),
                             QUANT_OK);
            const float *update = plain.update,
                        *old = r ? (const float *)result[0].carry + plain.carry_bytes / 4 : NULL;
            const float *rest = (const float *)result[r].carry + plain.carry_bytes / 4;
            for (uint64_t i = 0; i < total; i++) {
                float wanted = old ? update[i] + old[i] : update[i];
                assert_true((double)sent[i] + (double)rest[i] == (double)wanted);
                rests += rest[i] != 0;
            }
            train_result_fini(&plain);
            job.round++;
            job.carry = result[r].carry;
            job.carry_bytes = result[r].carry_bytes;
            job.carry_round = job.round - 1;
        }
        assert_true(rests > total);

        /* A rest that is no number is dropped with its carry, and so is a carry that has none. */
        struct train_result dropped, fresh;
        struct train_job bad = job;
        bad.round = 3;
        bad.carry = NULL;
        train(trainer, &bad, &fresh);
        bad.carry = result[0].carry;
        bad.carry_bytes = result[0].carry_bytes - total * sizeof(float);
        bad.carry_round = 2;
        train(trainer, &bad, &dropped);
        assert_true(same_result(&fresh, &dropped));
        train_result_fini(&dropped);
        bad.carry_bytes = result[0].carry_bytes;
        ((float *)result[0].carry)[bad.carry_bytes / 4 - 1] = NAN;
        train(trainer, &bad, &dropped);
        assert_true(same_result(&fresh, &dropped));
        train_result_fini(&dropped);
        train_result_fini(&fresh);
        train_result_fini(&result[0]);
        train_result_fini(&result[1]);
        trainer_free(trainer);
    }
    mem_free(sent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_round_is_a_function_of_its_job, setup, teardown),
        cmocka_unit_test_setup_teardown(the_seed_is_in_all_that_is_drawn, setup, teardown),
        cmocka_unit_test_setup_teardown(every_beginning_is_a_function_of_the_job, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refilled_queue_knows_its_images, setup, teardown),
        cmocka_unit_test_setup_teardown(the_report_says_what_happened, setup, teardown),
        cmocka_unit_test_setup_teardown(the_aggregate_is_measured_before_it_learns, setup, teardown),
        cmocka_unit_test_setup_teardown(features_are_by_the_chosen_encoder, setup, teardown),
        cmocka_unit_test_setup_teardown(features_are_of_this_round_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(noise_is_secret, setup, teardown),
        cmocka_unit_test_setup_teardown(noise_is_what_the_plan_says, setup, teardown),
        cmocka_unit_test_setup_teardown(a_rest_is_made_of_noisy_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(features_travel_when_either_use_is_on, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_smaller_than_a_batch_is_enough, setup, teardown),
        cmocka_unit_test_setup_teardown(cancelling_ends_a_round, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_jobs_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(an_impossible_carry_is_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(what_packing_leaves_out_is_carried, setup, teardown),
        cmocka_unit_test(the_number_of_steps_follows_the_plan),
        cmocka_unit_test(the_learning_rate_falls_along_a_cosine),
        cmocka_unit_test(the_matching_weight_ramps_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
