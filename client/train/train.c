/* One local round.
 *
 * Streams of random numbers belong to the site: its seed is its secret, or is mixed from the plan's seed and the site's
 * name, so that two sites with the same images do not see the same views. Round r (counted from 1) begins at position
 * (r - 1) * steps * batch of the site's endless order of images (feeder.h) and at step (r - 1) * steps of its draws, so
 * rounds go on where the one before ended, and a repeated round repeats everything. Key encoder, queue and velocity are
 * set from the job's carry, as the plan has it, or begin afresh, so nothing of an earlier round lingers. What refills a
 * queue is drawn from another endless order, so that the round's own images are what they would be without.
 *
 * The clock is read for the report alone. */
#include "client/train/train.h"

#include "client/nn/embedder.h"
#include "client/nn/moco.h"
#include "client/nn/watch.h"
#include "client/train/feeder.h"
#include "common/base/byteorder.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <string.h>
#include <time.h>

#define EMBED_CHUNK 512                        /* images between two looks at `cancel` */
#define REFILL_SEED UINT64_C(0x726566696c6c21) /* tells the streams of a refill from those of training */

struct trainer {
    const struct plan *plan;
    const struct layout *layout;
    const struct dataset *dataset;
    const struct log *log;
    uint32_t threads;
    uint64_t seed; /* of the site */
    struct moco *moco;
    struct noise_source noise;
    const float *rest; /* of the job's carry; NULL: none */
};

uint32_t train_steps(const struct plan *plan, uint32_t images)
{
    if (plan->local_steps) {
        return plan->local_steps;
    }
    uint64_t epoch = images / plan->batch ? images / plan->batch : 1;
    uint64_t steps = plan->local_epochs * epoch;
    return steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX;
}

double train_learning_rate(const struct plan *plan, uint32_t round, uint32_t step, uint32_t steps)
{
    double t = ((double)(round - 1) + (double)step / steps) / plan->rounds;
    return plan->learning_rate / 2 * (1 + cos(3.141592653589793 * t));
}

double train_matching_weight(const struct plan *plan, uint32_t round)
{
    if (!plan->matching.enabled || round < plan->matching.start_round) {
        return 0;
    }
    double ramp = plan->matching.ramp_rounds
                      ? ((double)(round - plan->matching.start_round) + 1) / plan->matching.ramp_rounds
                      : 1;
    return plan->matching.weight * (ramp < 1 ? ramp : 1);
}

static uint64_t site_seed(const struct plan *plan, const struct trainer_options *options)
{
    if (options->seed) {
        return *options->seed;
    }
    struct hash128 hash = hash_of(options->name, strlen(options->name));
    return rng_mix(rng_mix(plan->seed) ^ load_u64(hash.bytes));
}

static size_t rest_bytes(const struct plan *plan, const struct layout *layout)
{
    return plan->wire.update == QUANT_F32 ? 0 : (size_t)layout->total * sizeof(float);
}

static struct moco_options moco_options_of(const struct plan *plan, const struct trainer_options *options)
{
    return (struct moco_options){
        .batch = plan->batch,
        .bn_groups = plan->bn_groups,
        .threads = options->threads,
        .queue = plan->queue,
        .temperature = (float)plan->temperature,
        .key_momentum = (float)plan->key_momentum,
        .keep_velocity = plan->sgd_velocity == SGD_VELOCITY_KEEP,
        .key_start = plan->key_encoder == KEY_ENCODER_COPY  ? MOCO_KEY_COPY
                     : plan->key_encoder == KEY_ENCODER_OWN ? MOCO_KEY_OWN
                                                            : MOCO_KEY_FOLLOW,
        .sgd_momentum = (float)plan->sgd_momentum,
        .weight_decay = (float)plan->weight_decay,
        .fusion_share = plan->fusion.enabled ? (float)plan->fusion.share : 0,
        .matching = !plan->matching.enabled                          ? MOCO_MATCHING_OFF
                    : plan->matching.form == MATCHING_FORM_POSITIVES ? MOCO_MATCHING_POSITIVES
                                                                     : MOCO_MATCHING_ENTROPY,
        .local_candidates = plan->matching.enabled && plan->matching.candidates == MATCHING_CANDIDATES_ALL,
        .neighbours = plan->matching.neighbours,
        .matching_temperature = (float)plan->matching.temperature,
        .seed = site_seed(plan, options),
        .compute = options->compute,
    };
}

int trainer_memory(const struct plan *plan, const struct layout *layout, const struct trainer_options *options,
                   uint64_t *bytes, struct err *err)
{
    const struct moco_options moco = moco_options_of(plan, options);
    int rc = moco_memory(layout, &moco, bytes, err);
    *bytes += feeder_memory(plan->batch, plan->model.input) + rest_bytes(plan, layout);
    return rc;
}

int trainer_new(const struct plan *plan, const struct layout *layout, const struct dataset *dataset,
                const struct trainer_options *options, struct trainer **out, struct err *err)
{
    *out = NULL;
    if (dataset_side(dataset) != plan->model.input) {
        return err_set(err, ERR_CONFIG, "images of %u pixels a side for a model that takes %u", dataset_side(dataset),
                       plan->model.input);
    }
    if (!options->noise.fill && plan_has_noise(plan)) {
        return err_set(err, ERR_USAGE, "the plan has noise for privacy, and this trainer has no source of it");
    }
    struct trainer *trainer = mem_new(1, sizeof *trainer);
    if (!trainer) {
        return err_set(err, ERR_NOMEM, "no memory for a trainer");
    }
    trainer->plan = plan;
    trainer->layout = layout;
    trainer->dataset = dataset;
    trainer->log = options->log;
    trainer->threads = options->threads;
    trainer->noise = options->noise;
    trainer->seed = site_seed(plan, options);
    const struct moco_options moco = moco_options_of(plan, options);
    int rc = moco_new(layout, &moco, &trainer->moco, err);
    if (rc) {
        trainer_free(trainer);
        return rc;
    }
    *out = trainer;
    return 0;
}

void trainer_text(const struct trainer *trainer, char *out, size_t size)
{
    moco_text(trainer->moco, out, size);
}

void trainer_free(struct trainer *trainer)
{
    if (trainer) {
        moco_free(trainer->moco);
        mem_free(trainer);
    }
}

static uint64_t now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t now_ms(void)
{
    return now_us() / 1000;
}

static int cancelled(struct train_progress *progress, struct err *err)
{
    return atomic_load(&progress->cancel) ? err_set(err, ERR_CANCELLED, "the local round was cancelled") : 0;
}

/* The rest that a carry ends with, NULL where the plan has none. ERR_DATA when it is not numbers. */
static int rest_of(const struct trainer *trainer, const struct train_job *job, const float **rest, struct err *err)
{
    size_t bytes = rest_bytes(trainer->plan, trainer->layout);
    *rest = NULL;
    if (bytes == 0) {
        return 0;
    }
    if (job->carry_bytes < bytes) {
        return err_set(err, ERR_DATA, "it is too short, %zu bytes", job->carry_bytes);
    }
    const float *numbers = (const float *)(const void *)((const uint8_t *)job->carry + job->carry_bytes - bytes);
    for (uint64_t i = 0; i < trainer->layout->total; i++) {
        if (!isfinite(numbers[i])) {
            return err_set(err, ERR_DATA, "number %llu of its rest is not finite", (unsigned long long)i);
        }
    }
    *rest = numbers;
    return 0;
}

static bool can_carry(const struct trainer *trainer, const struct train_job *job, const float **rest)
{
    struct err why;
    int rc = rest_of(trainer, job, rest, &why);
    size_t bytes = job->carry_bytes - (*rest ? rest_bytes(trainer->plan, trainer->layout) : 0);
    rc = rc ? rc : moco_carry_check(trainer->moco, job->carry, bytes, &why);
    if (rc == 0 && job->carry_round >= job->round) {
        rc = err_set(&why, ERR_DATA, "it is of round %u", job->carry_round);
    }
    if (rc) {
        log_event(trainer->log, LOG_LEVEL_WARN, "carry_dropped", "round=%u reason=\"%s\"", job->round, why.text);
        *rest = NULL;
    }
    return rc == 0;
}

static int begin(struct trainer *trainer, const struct train_job *job, uint32_t steps, struct err *err)
{
    const struct plan *plan = trainer->plan;
    if (job->round < 1 || job->round > plan->rounds) {
        return err_set(err, ERR_STATE, "round %u of a run of %u rounds", job->round, plan->rounds);
    }
    struct moco_round round = {
        .params = job->params,
        .remote = job->remote,
        .m = job->remote_rows,
        .matching_weight = (float)train_matching_weight(plan, job->round),
        .first_step = (uint64_t)(job->round - 1) * steps,
        .empty_queue = plan->queue_start != QUEUE_START_KEEP,
    };
    trainer->rest = NULL;
    if (job->carry && can_carry(trainer, job, &trainer->rest)) {
        round.carry = job->carry;
        round.carry_steps = (uint64_t)(job->round - job->carry_round) * steps;
    }
    return moco_begin(trainer->moco, &round, err);
}

struct augment_options train_augment(const struct plan *plan)
{
    return (struct augment_options){
        .crop_least = (float)plan->augment.crop_least,
        .jitter = (float)plan->augment.jitter,
        .jitter_probability = (float)plan->augment.jitter_probability,
        .grey_probability = (float)plan->augment.grey_probability,
        .blur_probability = (float)plan->augment.blur_probability,
        .flip = plan->augment.flip,
    };
}

/* `steps` batches of the round, of the endless order of images that `seed` names. */
static int feeder_of(const struct trainer *trainer, const struct train_job *job, uint64_t seed, uint32_t steps,
                     struct feeder **out, struct err *err)
{
    const struct plan *plan = trainer->plan;
    struct feeder_options options = {
        .dataset = trainer->dataset,
        .augment = train_augment(plan),
        .batch = plan->batch,
        .size = plan->model.input,
        .threads = trainer->threads,
        .seed = seed,
        .position = (uint64_t)(job->round - 1) * steps * plan->batch,
        .steps = steps,
    };
    return feeder_new(&options, out, err);
}

/* As many batches as fill the queue, the second views as in a step. */
static int refill_queue(struct trainer *trainer, const struct train_job *job, struct train_progress *progress,
                        struct err *err)
{
    const struct plan *plan = trainer->plan;
    uint32_t batches = (plan->queue + plan->batch - 1) / plan->batch;
    struct feeder *feeder;
    int rc = feeder_of(trainer, job, rng_mix(trainer->seed ^ REFILL_SEED), batches, &feeder, err);
    for (uint32_t i = 0; rc == 0 && i < batches; i++) {
        rc = cancelled(progress, err);
        if (rc == 0) {
            struct feeder_batch batch = feeder_next(feeder);
            rc = moco_refill(trainer->moco, batch.images, batch.view2, err);
        }
    }
    feeder_free(feeder);
    return rc;
}

static int measure(const struct trainer *trainer, struct watch *out, struct err *err)
{
    const float *queries, *keys;
    moco_pairs(trainer->moco, &queries, &keys);
    return watch_measure(queries, keys, trainer->plan->batch, trainer->plan->model.features, out, err);
}

/* All steps; the result's losses are sums until the end. */
static int run_steps(struct trainer *trainer, const struct train_job *job, struct train_progress *progress,
                     struct train_result *out, struct err *err)
{
    const struct plan *plan = trainer->plan;
    struct feeder *feeder;
    int rc = feeder_of(trainer, job, trainer->seed, out->steps, &feeder, err);
    uint64_t began = now_ms(), waited = 0;
    for (uint32_t step = 0; rc == 0 && step < out->steps; step++) {
        struct moco_step result;
        rc = cancelled(progress, err);
        if (rc) {
            break;
        }
        uint64_t asked = now_us();
        struct feeder_batch batch = feeder_next(feeder);
        waited += now_us() - asked;
        rc = moco_step(trainer->moco, batch.images, batch.view1, batch.view2,
                       (float)train_learning_rate(plan, job->round, step, out->steps), &result, err);
        if (rc) {
            (void)err_prefix(err, "round %u, step %u", job->round, step);
            break;
        }
        if (step == 0) {
            rc = measure(trainer, &out->aggregate, err);
        }
        out->loss += result.loss;
        out->loss_contrast += result.loss_contrast;
        out->loss_matching += result.loss_matching;
        out->remote_share += result.remote_share;
        out->seen += plan->batch;
        uint64_t ms = now_ms() - began;
        out->images_per_second = (double)out->seen * 1000 / (double)(ms ? ms : 1);
        atomic_store(&progress->loss, (float)(out->loss / (step + 1)));
        atomic_store(&progress->images_per_second, (float)out->images_per_second);
        atomic_store(&progress->step, step + 1);
    }
    rc = rc ? rc : measure(trainer, &out->own, err);
    feeder_free(feeder);
    out->input_wait_ms = waited / 1000;
    return rc;
}

struct fetch {
    const struct dataset *dataset;
    const uint32_t *chosen;
};

static void fetch_plain(void *ctx, uint32_t i, float *image)
{
    const struct fetch *fetch = ctx;
    augment_plain(dataset_pixels(fetch->dataset, fetch->chosen[i]), dataset_side(fetch->dataset), image);
}

/* [rows, d] features of images drawn for this round, as they are, without augmentation. */
static int embed_plain(struct trainer *trainer, const struct train_job *job, struct train_progress *progress,
                       uint32_t rows, float *out, struct err *err)
{
    uint32_t images = dataset_count(trainer->dataset), d = trainer->plan->model.features;
    struct embedder *embedder = NULL;
    uint32_t *chosen = mem_new(images, sizeof *chosen);
    if (!chosen) {
        return err_set(err, ERR_NOMEM, "no memory for an order of %u images", images);
    }
    struct rng rng;
    rng_init(&rng, trainer->seed, RNG_UPLOAD, job->round, 0, 0);
    rng_permutation(&rng, chosen, images);
    int rc = embedder_new(trainer->layout, job->params, trainer->threads, &embedder, err);
    for (uint32_t begun = 0; rc == 0 && begun < rows; begun += EMBED_CHUNK) {
        struct fetch fetch = {.dataset = trainer->dataset, .chosen = chosen + begun};
        uint32_t n = rows - begun < EMBED_CHUNK ? rows - begun : EMBED_CHUNK;
        rc = cancelled(progress, err);
        rc = rc ? rc : embedder_run(embedder, n, fetch_plain, &fetch, NULL, out + (size_t)begun * d, err);
    }
    embedder_free(embedder);
    mem_free(chosen);
    return rc;
}

/* The last thing that is done to features. */
static int protect_features(const struct trainer *trainer, struct train_result *out, struct err *err)
{
    double noise = trainer->plan->fusion.privacy.noise;
    out->features_cost = noise_rows_cost(trainer->plan, out->feature_rows);
    return noise > 0 ? noise_rows(&trainer->noise, noise, out->features, out->feature_rows,
                                  trainer->plan->model.features, err)
                     : 0;
}

/* The momentum encoder's features are the keys that it made in its last steps: they cost nothing, and they are made as
 * the local negatives are that they will stand beside, of augmented views and normalised by their batch. Keys of
 * earlier rounds have been offered before. */
static int make_features(struct trainer *trainer, const struct train_job *job, struct train_progress *progress,
                         struct train_result *out, struct err *err)
{
    const struct plan *plan = trainer->plan;
    uint32_t images = dataset_count(trainer->dataset), d = plan->model.features;
    uint32_t rows = plan->fusion.upload < images ? plan->fusion.upload : images;
    if (!plan_shares_features(plan) || rows == 0) {
        return 0;
    }
    out->features = mem_new_aligned((size_t)rows * d, sizeof(float));
    if (!out->features) {
        return err_set(err, ERR_NOMEM, "no memory for %u features", rows);
    }
    if (plan->fusion.encoder == FUSION_ENCODER_MOMENTUM) {
        uint32_t made = out->seen < rows ? (uint32_t)out->seen : rows;
        out->feature_rows = moco_newest_keys(trainer->moco, made, out->features);
        return protect_features(trainer, out, err);
    }
    out->feature_rows = rows;
    int rc = embed_plain(trainer, job, progress, rows, out->features, err);
    return rc ? rc : protect_features(trainer, out, err);
}

/* Before anything else is made of the update, so that all that leaves, now or later, is made of noisy numbers. */
static int protect_update(const struct trainer *trainer, float *update, struct train_result *out, struct err *err)
{
    const struct plan *plan = trainer->plan;
    out->update_cost = noise_update_cost(plan);
    return plan->update.privacy.clip > 0
               ? noise_update(&trainer->noise, plan->update.privacy.clip, plan->update.privacy.noise, update,
                              trainer->layout->total, &out->update_length, err)
               : 0;
}

/* Packs what is to be sent; `update` becomes the rest. */
static int pack(const struct trainer *trainer, float *update, struct train_result *out, struct err *err)
{
    const struct layout *layout = trainer->layout;
    uint32_t at = 0;
    for (uint64_t i = 0; trainer->rest && i < layout->total; i++) {
        update[i] += trainer->rest[i];
    }
    out->update_bytes = (size_t)quant_update_bytes(trainer->plan->wire.update, layout);
    out->update = mem_new_aligned(out->update_bytes, 1);
    if (!out->update) {
        return err_set(err, ERR_NOMEM, "no memory for an update of %zu bytes", out->update_bytes);
    }
    if (quant_update_encode(trainer->plan->wire.update, layout, update, out->update, &at) != QUANT_OK) {
        return err_set(err, ERR_DATA,
                       "the update of %s holds a number that is not finite; is the learning rate too high?",
                       layout->tensors[at].name);
    }
    return 0;
}

/* What leaves the trainer besides features: the update, and what the next round takes over. Where there is a rest it
 * lies at the carry's end, and the update is made there. */
static int make_update(struct trainer *trainer, const struct train_job *job, struct train_result *out, struct err *err)
{
    uint64_t total = trainer->layout->total;
    size_t carry = moco_carry_bytes(trainer->moco), rest = rest_bytes(trainer->plan, trainer->layout);
    out->carry_bytes = carry + rest;
    out->carry = mem_new_aligned(out->carry_bytes, 1);
    if (rest == 0) {
        out->update_bytes = (size_t)total * sizeof(float);
        out->update = mem_new_aligned(total, sizeof(float));
    }
    if (!out->carry || (rest == 0 && !out->update)) {
        return err_set(err, ERR_NOMEM, "no memory for an update of %llu parameters", (unsigned long long)total);
    }
    float *update = rest == 0 ? out->update : (float *)(void *)((uint8_t *)out->carry + carry);
    int rc = moco_query(trainer->moco, update, err);
    if (rc != 0) {
        return rc;
    }
    for (uint64_t i = 0; i < total; i++) {
        update[i] -= job->params[i];
    }
    rc = protect_update(trainer, update, out, err);
    rc = rc ? rc : moco_carry_save(trainer->moco, out->carry, err);
    return rc || rest == 0 ? rc : pack(trainer, update, out, err);
}

int train_round(struct trainer *trainer, const struct train_job *job, struct train_progress *progress,
                struct train_result *out, struct err *err)
{
    memset(out, 0, sizeof *out);
    uint64_t began = now_ms();
    out->images = dataset_count(trainer->dataset);
    out->steps = train_steps(trainer->plan, dataset_count(trainer->dataset));
    atomic_store(&progress->step, 0);
    atomic_store(&progress->steps, out->steps);
    int rc = begin(trainer, job, out->steps, err);
    if (rc == 0 && trainer->plan->queue_start == QUEUE_START_REFILL) {
        rc = refill_queue(trainer, job, progress, err);
    }
    rc = rc ? rc : run_steps(trainer, job, progress, out, err);
    rc = rc ? rc : make_update(trainer, job, out, err);
    rc = rc ? rc : make_features(trainer, job, progress, out, err);
    if (rc) {
        train_result_fini(out);
        return rc;
    }
    out->loss /= out->steps;
    out->loss_contrast /= out->steps;
    out->loss_matching /= out->steps;
    out->remote_share /= out->steps;
    out->train_ms = now_ms() - began;
    log_event(
        trainer->log, LOG_LEVEL_INFO, "training_finished",
        "round=%u steps=%u loss=%.4f loss_contrast=%.4f loss_matching=%.4f remote_share=%.3f "
        "images_per_second=%.0f train_ms=%llu input_wait_ms=%llu features=%u feature_std=%.3f effective_rank=%.1f",
        job->round, out->steps, out->loss, out->loss_contrast, out->loss_matching, out->remote_share,
        out->images_per_second, (unsigned long long)out->train_ms, (unsigned long long)out->input_wait_ms,
        out->feature_rows, out->own.deviation, out->own.rank);
    return 0;
}

void train_result_fini(struct train_result *result)
{
    mem_free(result->update);
    mem_free(result->features);
    mem_free(result->carry);
    memset(result, 0, sizeof *result);
}
