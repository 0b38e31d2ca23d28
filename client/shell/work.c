/* What the trainer thread does. A contribution is handed out only after it is durable: while the disk does not take it
 * the thread says so and tries again, until the round is over. */
#include "client/shell/work.h"

#include "client/shell/kernels.h"
#include "client/shell/memory.h"
#include "client/shell/secret.h"
#include "common/base/mem.h"
#include "common/base/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_memory(const struct work *work, const struct trainer_options *options, struct err *err)
{
    uint64_t needed, available = memory_available();
    int rc = trainer_memory(&work->own, work->layout, options, &needed, err);
    if (rc != 0) {
        return rc;
    }
    log_event(work->log, LOG_LEVEL_INFO, "encoder_planned",
              "parameters=%llu threads=%u memory_bytes=%llu waits_for=\"the encoder's kernels\"",
              (unsigned long long)work->layout->total, options->threads, (unsigned long long)needed);
    if (available > 0 && needed > available) {
        return err_set(err, ERR_NOMEM,
                       "training needs %.1f GB of memory and %.1f GB are free: give this site fewer threads, or the "
                       "plan a smaller batch, more bn_groups or a smaller model",
                       (double)needed * 1e-9, (double)available * 1e-9);
    }
    return 0;
}

/* The state folder has other files too, and a kernels file must become none of them. */
static int kernels_path(const struct work *work, char out[DISK_PATH_MAX], struct err *err)
{
    const char *wanted = work->options->compute.kernels, *name = strrchr(wanted, '/');
    if (!wanted[0]) {
        return disk_join(out, work->state->folder, "kernels")
                   ? err_set(err, ERR_LIMIT, "%s: the path is too long", work->state->folder)
                   : 0;
    }
    char folder[DISK_PATH_MAX];
    (void)snprintf(out, DISK_PATH_MAX, "%s", wanted);
    (void)snprintf(folder, sizeof folder, "%.*s", name ? (int)(name - wanted + 1) : 1, name ? wanted : ".");
    char *there = realpath(folder, NULL), *state = realpath(work->state->folder, NULL);
    bool inside = there && state && strcmp(there, state) == 0;
    free(there);
    free(state);
    if (inside && strcmp(name ? name + 1 : wanted, "kernels") != 0) {
        return err_set(err, ERR_CONFIG,
                       "compute.kernels: %s lies in the state folder, whose names are taken; leave it empty", wanted);
    }
    return 0;
}

/* A site that shares no features has neither use for them. */
static struct plan own_plan(const struct work *work)
{
    struct plan own = *work->plan;
    if (!work->options->share_features) {
        own.fusion.enabled = own.matching.enabled = false;
    }
    return own;
}

/* The noise of the plan's privacy: the kernel's, which nobody can draw again. */
static int draw_noise(void *ctx, void *out, size_t bytes)
{
    (void)ctx;
    return random_bytes(out, bytes, NULL);
}

/* This takes seconds for a large encoder. */
static int build_trainer(struct work *work, struct err *err)
{
    const struct client_options *options = work->options;
    uint64_t seed = 0;
    struct trainer_options wanted = {.name = options->name,
                                     .threads = options->threads,
                                     .seed = work->state->has_secret ? &seed : NULL,
                                     .noise = {.fill = draw_noise},
                                     .log = work->log,
                                     .compute = {.backend = (enum compute_backend)options->compute.backend,
                                                 .precision = (enum compute_precision)options->compute.precision,
                                                 .winograd = options->compute.winograd == 0}};
    int rc = work->state->has_secret ? secret_seed(work->state->secret, work->own.seed, options->name, &seed, err) : 0;
    rc = rc ? rc : check_memory(work, &wanted, err);
    if (rc != 0) {
        return rc;
    }
    char path[DISK_PATH_MAX], text[128];
    struct kernels kernels;
    rc = kernels_path(work, path, err);
    if (rc != 0) {
        return rc;
    }
    kernels_open(path, work->log, &work->cancel_prepare, &kernels);
    wanted.compute.choices = &kernels.choices;
    rc = trainer_new(&work->own, work->layout, work->dataset, &wanted, &work->trainer, err);
    uint32_t measured = kernels.choices.measured;
    kernels_close(&kernels);
    if (rc == 0) {
        trainer_text(work->trainer, text, sizeof text);
        log_event(work->log, LOG_LEVEL_INFO, "encoder_ready", "kernels=\"%s\" measured=%u", text, measured);
    }
    return rc;
}

int work_prepare(struct work *work, const struct hash128 *run, const struct hash128 *plan_hash, uint64_t *images,
                 struct err *err)
{
    const struct dataset_options options = {
        .folder = work->options->images,
        .cache = work->state->cache,
        .side = work->plan->model.input,
        .threads = work->options->threads,
        .log = work->log,
        .cancel = &work->cancel_prepare,
    };
    int rc = state_begin(work->state, run, plan_hash, err);
    work->own = own_plan(work);
    if (work->options->role == CLIENT_OBSERVER) {
        rc = rc ? rc
                : evaluation_open(work->options->train, work->options->test, work->plan->model.input,
                                  work->options->threads, &work->cancel_prepare, work->log, &work->evaluation, err);
        *images = rc ? 0 : dataset_count(work->evaluation.test);
        return rc;
    }
    rc = rc ? rc : dataset_open(&options, &work->dataset, err);
    rc = rc ? rc : build_trainer(work, err);
    *images = rc ? 0 : dataset_count(work->dataset);
    return rc;
}

static int pack_features(const struct work *work, const struct train_result *result, struct bytes **out,
                         struct err *err)
{
    uint32_t form = work->plan->wire.features, dimension = work->layout->spec.features, at;
    *out = bytes_new((size_t)quant_rows_bytes(form, result->feature_rows, dimension));
    if (!*out) {
        return err_set(err, ERR_NOMEM, "no memory for %u features", result->feature_rows);
    }
    if (quant_rows_encode(form, result->features, result->feature_rows, dimension, (*out)->data, &at) != QUANT_OK) {
        return err_set(err, ERR_DATA, "feature %u holds a number that is not finite", at);
    }
    return 0;
}

static struct privacy figures(const struct plan *plan, const struct kept_spent *spent)
{
    struct privacy figures = {.counted = true, .releases = spent->releases};
    if (spent->features > 0) {
        figures.features_delta = plan->fusion.privacy.delta;
        figures.features_epsilon = privacy_epsilon(spent->features, figures.features_delta);
    }
    if (spent->updates > 0) {
        figures.update_delta = plan->update.privacy.delta;
        figures.update_epsilon = privacy_epsilon(spent->updates, figures.update_delta);
    }
    return figures;
}

static void log_privacy(const struct work *work, const struct report *report, const struct train_result *result)
{
    const struct privacy *privacy = &report->privacy;
    if (privacy->counted || result->update_length > 0) {
        log_event(work->log, LOG_LEVEL_INFO, "privacy",
                  "releases=%u features_epsilon=%.4g features_delta=%.3g update_epsilon=%.4g update_delta=%.3g "
                  "update_length=%.4g",
                  privacy->releases, privacy->features_epsilon, privacy->features_delta, privacy->update_epsilon,
                  privacy->update_delta, result->update_length);
    }
}

/* Packs a result for the wire. */
static int contribution_of(const struct work *work, uint32_t round, const struct train_result *result,
                           struct contribution **out, struct err *err)
{
    struct contribution *contribution = mem_new(1, sizeof *contribution);
    *out = contribution;
    if (!contribution) {
        (void)err_set(err, ERR_NOMEM, "no memory for a contribution");
        return ERR_NOMEM;
    }
    contribution->round = round;
    contribution->report = (struct report){
        .images = result->images,
        .seen = result->seen,
        .steps = result->steps,
        .remote_share = result->remote_share,
        .images_per_second = result->images_per_second,
        .train_ms = result->train_ms,
    };
    if (!plan_hides_measures(work->plan)) {
        contribution->report.loss = result->loss;
        contribution->report.loss_contrast = result->loss_contrast;
        contribution->report.loss_matching = result->loss_matching;
        contribution->report.aggregate = result->aggregate;
        contribution->report.own = result->own;
    }
    contribution->update = bytes_copy(result->update, result->update_bytes);
    if (!contribution->update) {
        return err_set(err, ERR_NOMEM, "no memory for a contribution of %llu parameters",
                       (unsigned long long)work->layout->total);
    }
    int rc = result->features ? pack_features(work, result, &contribution->features, err) : 0;
    if (rc == 0) {
        contribution_describe(contribution, work->plan, work->layout);
    }
    return rc;
}

/* The rows of `remote` as floats, in its place. Rows that travel as f32 are what they were. */
static int unpack_remote(const struct work *work, uint32_t rows, uint8_t **remote, struct err *err)
{
    uint32_t form = work->plan->wire.features, dimension = work->layout->spec.features, at;
    if (form == QUANT_F32 || !*remote) {
        return 0;
    }
    float *out = mem_new_aligned((size_t)rows * dimension, sizeof *out);
    if (!out) {
        return err_set(err, ERR_NOMEM, "no memory for %u remote features", rows);
    }
    uint64_t bytes = quant_rows_bytes(form, rows, dimension);
    if (quant_rows_decode(form, *remote, bytes, rows, dimension, out, &at) != QUANT_OK) {
        mem_free(out);
        return err_set(err, ERR_DATA, "remote feature %u is not finite, or not of unit length", at);
    }
    mem_free(*remote);
    *remote = (uint8_t *)out;
    return 0;
}

/* spent: NULL where the plan has no noise. */
static int keep(struct work *work, const struct contribution *contribution, struct kept_carry *carry,
                const struct kept_spent *spent, struct err *err)
{
    int rc;
    bool said = false;
    while (disk_may_recover(rc = state_keep(work->state, contribution, carry, spent, err))) {
        log_event(work->log, said ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, "not_saved",
                  "round=%u reason=\"%s\" waits_for=\"the disk, or the end of the round\"", contribution->round,
                  err->text);
        said = true;
        if (!work->wait(work->ctx)) {
            return err_set(err, ERR_CANCELLED, "the round ended before its contribution could be saved");
        }
    }
    return rc;
}

int work_train(struct work *work, uint32_t round, const uint8_t *model, uint8_t **remote, uint32_t remote_rows,
               struct contribution **out, struct err *err)
{
    const struct kept_carry *kept = &work->state->kept.carry;
    *out = NULL;
    int rc = unpack_remote(work, remote_rows, remote, err);
    if (rc) {
        return rc;
    }
    const struct train_job job = {
        .round = round,
        .params = (const float *)(const void *)model,
        .remote = (const float *)(const void *)*remote,
        .remote_rows = remote_rows,
        .carry = kept->data,
        .carry_bytes = kept->bytes,
        .carry_round = kept->round,
    };
    struct train_result result = {0};
    rc = train_round(work->trainer, &job, &work->progress, &result, err);
    rc = rc ? rc : contribution_of(work, round, &result, out, err);
    struct kept_carry carry = {.round = round, .data = result.carry, .bytes = result.carry_bytes};
    struct kept_spent spent = state_spend(work->state, result.features_cost, result.update_cost);
    bool noisy = plan_has_noise(work->plan);
    if (rc == 0) {
        (*out)->report.privacy = noisy ? figures(work->plan, &spent) : (struct privacy){0};
        log_privacy(work, &(*out)->report, &result);
    }
    result.carry = NULL;
    train_result_fini(&result); /* what was copied need not wait for the disk */
    rc = rc ? rc : keep(work, *out, &carry, noisy ? &spent : NULL, err);
    kept_carry_fini(&carry);
    if (rc) {
        contribution_free(*out);
        *out = NULL;
    }
    return rc;
}

int work_evaluate(struct work *work, const uint8_t *model, double *knn_top1, struct err *err)
{
    return evaluation_judge(&work->evaluation, work->layout, (const float *)(const void *)model, knn_top1, NULL, err);
}

static void settled(const struct work *work, uint32_t round, int rc, const struct err *err)
{
    if (rc) {
        log_event(work->log, LOG_LEVEL_ERROR, "not_saved", "round=%u reason=\"%s\"", round, err->text);
    }
}

void work_commit(struct work *work, uint32_t round)
{
    struct err err;
    settled(work, round, state_commit(work->state, round, &err), &err);
}

void work_drop(struct work *work, uint32_t round)
{
    struct err err;
    settled(work, round, state_drop(work->state, &err), &err);
}

void work_fini(struct work *work)
{
    evaluation_close(&work->evaluation);
    trainer_free(work->trainer);
    dataset_close(work->dataset);
}
